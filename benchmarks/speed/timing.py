"""Fair timing: everything that is compared runs in turn, in one process, and medians are reported."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

Run = Callable[[], object]
Repeat = Callable[[int], object]
"""Does so many iterations."""


@dataclass(frozen=True)
class Settings:
    """What a part of the benchmark may spend.

    Attributes:
        device: Where to measure.
        rounds: Alternated rounds after the warm-up, at least 2.
        limit: Seconds that one call of one subject may take; what is slower is reported as left out.
        quick: Measure the smallest configuration of each part only, to see that everything runs.
        only: Networks, image size and batch (`dcgan-64-16`) of the iterations to measure; empty for all.
        without: What takes long beside what it tells and is not measured: "fresh" processes, "compiled" critic steps,
            the whole "scaling".
    """

    device: str
    rounds: int = 7
    limit: float = 20.0
    quick: bool = False
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass
class Part:
    """Results of one part: rows for tables, ratios by name (ours over theirs, small is good), and what is missing."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    left_out: list[dict[str, Any]] = field(default_factory=list)


class TooSlow(Exception):
    """A call takes more than the limit.

    Args:
        seconds: What it takes.
        foreseen: Whether that is an estimate from a smaller configuration.
    """

    def __init__(self, seconds: float, *, foreseen: bool) -> None:
        super().__init__(f"a call takes {seconds:.1f} s")
        self.columns = {"reason": "foreseen to be too slow" if foreseen else "too slow", "seconds": seconds}


class Budget:
    """Raises `TooSlow` where an iteration takes more than `limit` seconds, or would, by the configuration before it.

    Args:
        limit: Seconds that an iteration may take.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._units = 1.0
        self._slowest = 0.0

    def foresee(self, units: float) -> None:
        """Begin a configuration of so many units of work, if they fit at the speed of the last one's slowest side."""
        if (seconds := self._slowest * units / self._units) > self.limit:
            raise TooSlow(seconds, foreseen=True)
        self._units, self._slowest = units, 0.0

    def start(self, subject: Repeat, device: str) -> None:
        """Warm a subject up, and check how long an iteration takes.

        On CUDA the second call counts, since the first loads kernels, and three more let the engine record.
        """
        seconds = [time_once(lambda: subject(1), device) for _ in range(2 if on_cuda(device) else 1)][-1]
        self._slowest = max(self._slowest, seconds)
        if seconds > self.limit:
            raise TooSlow(seconds, foreseen=False)
        if on_cuda(device):
            subject(3)


@contextmanager
def or_left_out(part: Part, columns: Mapping[str, Any]) -> Iterator[None]:
    """Enter what is too slow or too large in the list of what is missing, and go on."""
    print("  " + ", ".join(f"{name} {value}" for name, value in columns.items()), flush=True)
    try:
        yield
        return
    except TooSlow as reason:
        left_out = reason.columns
    except torch.OutOfMemoryError:
        left_out = {"reason": "out of memory"}
    part.left_out.append({**columns, **left_out})
    print(f"    left out: {left_out['reason']}", flush=True)


def alternate(runs: Mapping[str, Run], settings: Settings, *, warmup: int = 2) -> dict[str, list[float]]:
    """Time the runs in turn, so that a change of the machine's speed meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(warmup + settings.rounds):
        for name, run in runs.items():
            elapsed = time_once(run, settings.device)
            if i >= warmup:
                seconds[name].append(elapsed)
    return seconds


def alternate_iterations(
    subjects: Mapping[str, Repeat], settings: Settings, *, warmup: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of an iteration, of so many in a call that the call itself does not count.

    The subjects have been started.
    """
    times = {name: iterations_per_call(subject, settings.device) for name, subject in subjects.items()}
    runs: dict[str, Run] = {name: partial(subject, times[name]) for name, subject in subjects.items()}
    seconds = alternate(runs, settings, warmup=warmup)
    return {name: [s / times[name] for s in values] for name, values in seconds.items()}


def iterations_per_call(subject: Repeat, device: str, *, at_least: float = 0.25) -> int:
    """Return how many iterations take a quarter of a second; on the CPU one is enough."""
    if not on_cuda(device):
        return 1
    return min(100, math.ceil(at_least / time_once(lambda: subject(1), device)))


def time_once(run: Run, device: str) -> float:
    """Return the seconds of one call, the device's work included."""
    synchronize(device)
    began = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - began


def on_cuda(device: str) -> bool:
    """Return whether a device is a CUDA device."""
    return torch.device(device).type == "cuda"


def synchronize(device: str) -> None:
    """Wait until the device has done all its work."""
    if on_cuda(device):
        torch.cuda.synchronize()


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the ratios of neighbouring runs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def summary(seconds: list[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}
