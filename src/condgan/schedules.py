"""Numbers that change in the course of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Scheduled = float | Callable[[float], float]
"""A number, or a function of the progress of training, `step / total` in [0, 1)."""


@dataclass(frozen=True, slots=True)
class CosineSchedule:
    r"""A number that goes from one value to another along half a cosine.

    $$ v(p) = v_1 + \tfrac12 (v_0 - v_1) (1 + \cos(\pi \min(1, p / u))) $$

    Args:
        start: Value $v_0$ at the beginning of training.
        end: Value $v_1$ from the progress `until` on.
        until: Progress $u$ in (0, 1] at which the end is reached.

    Raises:
        ValueError: If `until` is out of range.

    Examples:
        >>> gamma = CosineSchedule(2.0, 0.2)
        >>> [round(gamma(progress), 2) for progress in (0.0, 0.25, 0.5, 1.0)]
        [2.0, 1.74, 1.1, 0.2]

    References:
        Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts.
    """

    start: float
    end: float
    until: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise ValueError(f"until must lie in (0, 1], a share of the training, got {self.until}.")

    def __call__(self, progress: float) -> float:
        """Return the value at a progress in [0, 1]."""
        phase = math.pi * min(1.0, progress / self.until)
        return self.end + 0.5 * (self.start - self.end) * (1 + math.cos(phase))


@dataclass(frozen=True, slots=True)
class PiecewiseLinearSchedule:
    """A number on straight lines between points, and constant before the first and after the last of them.

    Args:
        points: Pairs of the progress of training, in [0, 1], and the value there, in the order of progress.

    Raises:
        ValueError: If there is no point, or the progress does not rise from point to point within [0, 1].

    Examples:
        >>> rate = PiecewiseLinearSchedule([(0.0, 0.0), (0.1, 2e-3), (1.0, 0.0)])
        >>> [round(rate(progress), 6) for progress in (0.0, 0.05, 0.1, 0.55)]
        [0.0, 0.001, 0.002, 0.001]
    """

    points: Sequence[tuple[float, float]]

    def __post_init__(self) -> None:
        points = tuple((float(place), float(value)) for place, value in self.points)
        places = [place for place, _ in points]
        within = all(0 <= place <= 1 for place in places)
        rising = all(here < there for here, there in pairwise(places))
        if not (points and within and rising):
            raise ValueError(
                f"points must be pairs of progress and value, the progress rising within [0, 1], got {points}."
            )
        object.__setattr__(self, "points", points)

    def __call__(self, progress: float) -> float:
        """Return the value at a progress in [0, 1]."""
        places, values = zip(*self.points, strict=True)
        return float(np.interp(progress, places, values))


def value_at(number: Scheduled, progress: float) -> float:
    """Return a number, or the value of a schedule at a progress in [0, 1].

    Examples:
        >>> value_at(0.3, 0.5), value_at(lambda progress: 1 - progress, 0.25)
        (0.3, 0.75)
    """
    return number(progress) if callable(number) else number


def ends(number: Scheduled) -> set[float]:
    """Return the first and the last value, for checks before training."""
    return {value_at(number, progress) for progress in (0.0, 1.0)}
