"""How long a call takes, and how long an iteration of a trainer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

from timing import on_cuda, summary, synchronize, time_once

import condgan as cg

WARM_UP = 6
"""Iterations before the first that counts: by then everything has been recorded."""

ROUNDS = 5


def seconds_of_call(function: Callable[[], object], device: str, *, at_least: float = 0.05) -> dict[str, float]:
    """Return median and quartiles of the seconds of a call, from rounds of several where it is short."""
    function()
    one = time_once(function, device)
    if not on_cuda(device):  # a rehearsal
        return summary([one, one])
    times = max(1, math.ceil(at_least / ROUNDS / one))
    rounds = 2 if one > 1 else ROUNDS
    return summary([time_once(partial(_repeat, function, times), device) / times for _ in range(rounds)])


def _repeat(function: Callable[[], object], times: int) -> None:
    for _ in range(times):
        function()


class Laps(cg.Callback):
    """Times laps of a training after its warm-up, and ends it.

    Laps are taken inside of one call of `fit`, because an engine may record anew in each.

    Args:
        device: The device to wait for.
        at_least: Seconds of a lap, beyond which it has two iterations at most.
        iterations: Iterations of a lap; by default as many as fit.
    """

    def __init__(self, device: str, *, at_least: float = 0.15, iterations: int | None = None) -> None:
        super().__init__()
        self.device, self.at_least, self.iterations = device, at_least, iterations
        self.seconds: list[float] = []
        self._warm_up, self._rounds = (WARM_UP, ROUNDS) if on_cuda(device) else (1, 2)
        self._next = self._warm_up
        self._began = 0.0

    @property
    def steps(self) -> int:
        """Iterations in all, where those of a lap are given."""
        return self._warm_up + self._rounds * (self.iterations or 0)

    def summary(self) -> dict[str, float]:
        """Return median and quartiles of the seconds of an iteration."""
        return summary(self.seconds)

    def on_step_end(self, trainer: cg.Trainer) -> None:
        """End a lap and begin the next."""
        step = trainer.state.step
        if step < self._next:
            return
        synchronize(self.device)
        now = time.perf_counter()
        if step == self._warm_up and self.iterations is None:
            self._next += 2 if on_cuda(self.device) else 1  # a trial that says how many fit into a lap
        elif self.iterations is None:
            one = (now - self._began) / (step - self._warm_up)
            self.iterations = max(2, math.ceil(self.at_least / one)) if on_cuda(self.device) else 1
            self._next += self.iterations
        else:
            if step > self._warm_up:
                self.seconds.append((now - self._began) / self.iterations)
            self._next += self.iterations
        if len(self.seconds) == self._rounds:
            trainer.request_stop("measured")
        self._began = time.perf_counter()
