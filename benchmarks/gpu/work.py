"""The task of a part of a run, and its results: each row goes to the file at once, so that none is lost.

Imports nothing heavy: the process that starts the parts must survive whatever is wrong with a device.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What a process is started for.

    Args:
        part: Name of the part in all rows.
        module: The module whose `run(work)` does it.
        rows: File that rows are appended to.
        device: Where to compute.
        seconds: Time after which the process is killed.
        planned: Time after which it starts nothing new.
        rehearse: Do everything in miniature.
        options: What else the module needs, plain values.
        silence: Seconds without output after which the process is taken to hang, and killed.
    """

    part: str
    module: str
    rows: str
    device: str
    seconds: float
    planned: float
    rehearse: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    silence: float | None = None

    def as_json(self) -> str:
        """Return the task for a command line."""
        return json.dumps(asdict(self))


class Work:
    """A task in its own process.

    Args:
        task: What to do.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.device, self.rehearse, self.options = task, task.device, task.rehearse, task.options
        self._end = time.monotonic() + task.planned

    @property
    def out(self) -> Path:
        """Folder of all results."""
        return Path(self.task.rows).parent

    def left(self) -> float:
        """Return the seconds in which new work may still start."""
        return self._end - time.monotonic()

    def left_to_live(self) -> float:
        """Return the seconds after which the process is killed."""
        return self.left() + self.task.seconds - self.task.planned

    def write(self, row: Row) -> None:
        """Append a row and print it."""
        print(f"{self.task.part}: {in_short(row)}", flush=True)
        append(Path(self.task.rows), {"part": self.task.part, **row})

    def measure(self, columns: Row, function: Callable[[], Row]) -> None:
        """Append what a function returns after the columns that say what it is; or why there is nothing."""
        if self.left() <= 0:
            self.write({**columns, "skipped": "no time left"})
            return
        try:
            found = function()
        except Exception as error:  # one row must not cost the others
            reason = (str(error).splitlines() or [""])[0]
            found = {"skipped": f"{type(error).__name__}: {reason}"}
        self.write({**columns, **found})


def append(path: Path, row: Row) -> None:
    """Append a row to a file of JSON lines so that it outlives the process, the machine's loss of power included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write at the end of the file: several processes share it.
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(row).encode() + b"\n")
        os.fsync(file.fileno())


def read(path: Path) -> list[Row]:
    """Return the rows of a file; a last one that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def in_short(row: Row) -> str:
    """Return a row as a line to watch."""
    return ", ".join(f"{name} {_value(value)}" for name, value in row.items() if not isinstance(value, list))


def _value(value: Any) -> str:
    if isinstance(value, dict) and "median" in value:
        return _value(value["median"])
    if isinstance(value, dict):
        return f"({in_short(value)})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
