"""Finding the first step that was not finite, without asking the device at every step."""

from __future__ import annotations

import torch
from torch import Tensor


class TrainingDivergedError(RuntimeError):
    """A loss, penalty or gradient became infinite or NaN.

    Attributes:
        step: The generator update in which it happened first.
        term: Name of the metric.
    """

    def __init__(self, step: int, term: str) -> None:
        super().__init__(
            f"training diverged: {term} was not finite in step {step}. Train anew with a lower learning rate, a "
            "stronger penalty, or precision='fp32'; checkpoints hold the last finite state."
        )
        self.step = step
        self.term = term


class FiniteLatch:
    """Remembers on the device the first step in which each metric was not finite."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, ...], Tensor] = {}

    def observe(self, metrics: dict[str, Tensor], step: int) -> None:
        """Take note of the metrics of one step."""
        names = tuple(metrics)
        values = torch.stack([value.to(torch.float32) for value in metrics.values()])
        first = self._first.get(names)
        if first is None:
            first = torch.full_like(values, -1, dtype=torch.int64)
        self._first[names] = torch.where((first < 0) & ~torch.isfinite(values), step, first)

    def check(self) -> None:
        """Read the latch.

        Raises:
            TrainingDivergedError: If a metric was not finite; the first step and term are named.
        """
        bad = [
            (step, name)
            for names, first in self._first.items()
            for name, step in zip(names, first.tolist(), strict=True)
            if step >= 0
        ]
        if bad:
            # In a step the critic comes first; its metrics were perhaps entered later than the generator's.
            raise TrainingDivergedError(*min(bad, key=lambda entry: (entry[0], entry[1].startswith("generator/"))))
