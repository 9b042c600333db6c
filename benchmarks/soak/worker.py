"""Files are damaged and read in a process of its own, which is replaced when it dies or hangs."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from examination import Examination, Finding

SPARE_BYTES = 2**30
"""Memory that reading may take beyond that of a process that has read all intact files."""
SECONDS = 60.0
"""Time after which reading counts as hanging."""


def peak_bytes() -> int:
    """Return the most resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(connection: Connection, kind: str, seed: int) -> None:
    """Answer numbers of files with findings."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        examination = Examination(kind, seed, Path(folder))
        connection.send((len(examination.subjects) * len(examination.pickles), peak_bytes()))
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        limit = pages * resource.getpagesize() + SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        while (index := connection.recv()) is not None:
            connection.send(replace(examination.examine(index), peak=peak_bytes()))


class Worker:
    """A process that serves; a new one takes the place of one that died or hangs."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.seed = kind, seed
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.kind, self.seed), daemon=True)
        self.process.start()
        theirs.close()
        self.pickles, self.baseline = self.connection.recv()

    def examine(self, index: int) -> Finding:
        """Let the process examine a file."""
        try:
            self.connection.send(index)
            if self.connection.poll(SECONDS):
                found: Finding = self.connection.recv()
                return found
            outcome = "hang"
        except (EOFError, OSError):
            outcome = "crash"
        self.process.kill()
        self.process.join()
        code = self.process.exitcode
        self._start()
        return Finding(outcome, "", "", f"file {index}: the process ended with {code}")

    def stop(self) -> None:
        """Let the process end."""
        self.connection.send(None)
        self.process.join()


def findings(kind: str, seed: int, count: int) -> Iterator[Finding]:
    """Yield what came of reading intact files, for its memory, and each damaged file: `count`, or all pickles."""
    worker = Worker(kind, seed)
    yield Finding("equal", "", "intact", peak=worker.baseline)
    for index in range(worker.pickles if kind == "pickles" else count):
        yield worker.examine(index)
    worker.stop()
