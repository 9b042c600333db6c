"""Runs parts as processes with a limit each: one that fails or hangs costs itself alone."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from work import Row, Task, append

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODULES = (ROOT / "src", ROOT / "benchmarks" / "speed", ROOT / "benchmarks" / "study")
LEAST = 4.0
"""Seconds below which no process is started: it would not get past its imports."""

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
    """Run parts one after another within `seconds` in all, and return how each ended.

    A part plans with its share of the time that is left, and is killed a while later: what one does not need goes to
    those after it, and one that hangs takes little from them.
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


def run_together(
    tasks: Sequence[Task],
    *,
    slots: int | None = None,
    end: float = math.inf,
    ended: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Run processes, some at the same time, until each has ended or is killed at its limit; return how each ended.

    Their output goes to `log.txt` beside the rows, and is printed whenever one has ended.

    Args:
        tasks: What to run, in order.
        slots: How many may run at the same time; by default all.
        end: Time of `time.monotonic` by which all are over: what starts late has less time.
        ended: Called with the row of each process that has ended, when the next has been started. An error in it is
            printed: it must not cost the processes that run.
    """
    rows_file = Path(tasks[0].rows)
    log = _Log(rows_file.with_name("log.txt"))
    waiting, rows = list(tasks), []
    running: list[_Running] = []
    new: list[Row] = []
    try:
        while waiting or running or new:
            while waiting and len(running) < (slots or len(tasks)):
                task = _in_time(waiting.pop(0), end - time.monotonic())
                running.append(_Running(task, log.path))
            for row in new:
                _call(ended, row)
            time.sleep(0.05)
            new = [row for process in running if (row := process.ended()) is not None]
            running = [process for process in running if process.row is None]
            for row in new:
                log.show()
                append(rows_file, row)
                print(f"== {row['part']}: {row['ended']}, {row['seconds']} s", flush=True)
            rows += new
    finally:
        for process in running:
            process.kill()
    return rows


def _call(ended: Callable[[Row], None], row: Row) -> None:
    try:
        ended(row)
    except Exception as error:
        print(f"after {row['part']}: {type(error).__name__}: {error}", flush=True)


def _in_time(task: Task, left: float) -> Task:
    if task.seconds <= left:
        return task
    return replace(task, seconds=left, planned=max(0.0, task.planned - (task.seconds - left)))


class _Running:
    """A process that runs a task, or none where there is no time for it.

    Args:
        task: What it does.
        log: File of its output.
    """

    def __init__(self, task: Task, log: Path) -> None:
        self.task, self.began = task, time.monotonic()
        self.row: Row | None = None
        self._log, self._length, self._heard = log, 0, self.began
        self._process = _start(task, log) if task.seconds >= LEAST else None

    def ended(self) -> Row | None:
        """Return how it ended, or None if it has not; one beyond its limit is killed."""
        seconds = time.monotonic() - self.began
        code: int | str | None = "no time" if self._process is None else self._process.poll()
        if code is None and seconds > self.task.seconds:
            code = "limit"
        if code is None and self._is_silent():
            code = "silent"
        if code is not None:
            self.kill()
            self.row = {"part": self.task.part, "ended": code, "seconds": round(seconds, 1)}
        return self.row

    def _is_silent(self) -> bool:
        """Return whether nothing has been said for too long, by this process or by those that run beside it."""
        now, length = time.monotonic(), self._log.stat().st_size
        if length != self._length:
            self._length, self._heard = length, now
        return self.task.silence is not None and now - self._heard > self.task.silence

    def kill(self) -> None:
        """Kill the process and all processes that it started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a driver may hold it: the others need not wait for that
            self._process.wait(5)


class _Log:
    """The file of all output; prints what has come since it last did."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.path, self._seen = path, path.stat().st_size

    def show(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._seen)
            said = file.read()
        self._seen += len(said)
        print(said.decode(errors="replace"), end="", flush=True)


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
