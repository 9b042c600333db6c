"""Runs parts as processes with a limit each: one that fails or hangs costs itself alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from work import Row, Task, append

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODULES = (ROOT / "src", ROOT / "benchmarks" / "speed", ROOT / "benchmarks" / "study")
LEAST = 4.0
"""Seconds below which no process is started: it would not get behind its imports."""

GRACE = 10.0
"""Seconds that a process may take beyond one and a half times what was planned: the first one loads much from disk."""


@dataclass(frozen=True)
class Part:
    """A part of a run.

    Args:
        name: Its name.
        module: The module that does it.
        share: Its share of the time, beside those of the other parts.
        options: What its module needs.
    """

    name: str
    module: str
    share: float
    options: dict[str, Any] = field(default_factory=dict)


def run_parts(parts: Sequence[Part], base: Task, seconds: float) -> list[Row]:
    """Run parts one after another, in so many seconds in all, and return how each ended.

    A part plans with its share of the time that is left, and is killed a while later: what one does not need goes to
    those behind it, and one that hangs takes little from them.
    """
    end = time.monotonic() + seconds
    rows = []
    for number, part in enumerate(parts):
        left = end - time.monotonic()
        planned = left * part.share / sum(other.share for other in parts[number:])
        limit = min(1.5 * planned + GRACE, (left + planned) / 2)  # half of the others' time is theirs in any case
        task = replace(
            base,
            part=part.name,
            module=part.module,
            options=base.options | part.options,
            seconds=limit,
            planned=limit if base.rehearse else planned,
        )
        rows += run_together([task])
    return rows


def run_together(tasks: Sequence[Task]) -> list[Row]:
    """Run processes at the same time until each has ended or is killed at its limit; return how each ended.

    Their output goes to `log.txt` beside the rows, and is printed behind them.
    """
    began = time.monotonic()
    log = Path(tasks[0].rows).with_name("log.txt")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    seen = log.stat().st_size
    ended: list[Row] = [{"part": task.part, "ended": "no time"} for task in tasks if task.seconds < LEAST]
    running = [(task, _start(task, log)) for task in tasks if task.seconds >= LEAST]
    try:
        while running:
            time.sleep(0.05)
            seconds = time.monotonic() - began
            for task, process in running:
                code: int | str | None = process.poll()
                if code is None and seconds > task.seconds:
                    code = "limit"
                if code is not None:
                    _kill_group(process)
                    ended.append({"part": task.part, "ended": code, "seconds": round(seconds, 1)})
            over = {row["part"] for row in ended}
            running = [(task, process) for task, process in running if task.part not in over]
    finally:
        for _, process in running:
            _kill_group(process)
    with log.open("rb") as file:
        file.seek(seen)
        print(file.read().decode(errors="replace"), end="", flush=True)
    for row in ended:
        append(Path(tasks[0].rows), row)
        print(f"== {row['part']}: {row['ended']}, {row.get('seconds', 0)} s", flush=True)
    return ended


def _start(task: Task, log: Path) -> subprocess.Popen[bytes]:
    paths = [*map(str, MODULES), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-u", str(HERE), "part", task.as_json()]
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started and left behind."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # a driver may hold it: the others need not wait for that
        process.wait(5)
