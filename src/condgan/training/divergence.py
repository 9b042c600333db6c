"""Detection of the first step that was not finite, without waiting for the device in every step."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_UPDATES = 2**20
"""Updates that a step has at most; a time is `step * _MOST_UPDATES + update`."""


class TrainingDivergedError(RuntimeError):
    """A loss, penalty, gradient, weight or buffer became infinite or NaN.

    Attributes:
        step: The generator update in which it happened first.
        term: Name of the metric, or of the weight or buffer.
    """

    def __init__(self, step: int, term: str) -> None:
        super().__init__(
            f"training diverged: {term} was not finite in step {step}. Train again with a lower learning rate, a "
            "stronger penalty, or precision='fp32'. Checkpoints hold finite states only."
        )
        self.step = step
        self.term = term


class FiniteGuard:
    """Keeps on the device the newest value of each metric and the first update in which it was not finite.

    Its tensors are updated in place, so that `observe` can be part of a CUDA graph.
    """

    def __init__(self) -> None:
        self._latest: dict[str, Tensor] = {}
        self._first: dict[tuple[str, ...], Tensor] = {}

    @torch.no_grad()
    def observe(self, metrics: dict[str, Tensor], step: int | Tensor, update: int = 0) -> None:
        """Record the metrics of one update of a step.

        Args:
            metrics: The metrics, by name.
            step: Number of the step. In a CUDA graph it must be a tensor, whose value can change.
            update: Number of the update within the step.
        """
        names = tuple(metrics)
        values = torch.stack([value.to(torch.float32) for value in metrics.values()])
        for name in names:
            if name not in self._latest:
                self._latest[name] = torch.zeros_like(values[0])
        torch._foreach_copy_([self._latest[name] for name in names], values.unbind())
        if names not in self._first:
            self._first[names] = torch.full_like(values, -1, dtype=torch.int64)
        first = self._first[names]
        bad = (values - values) != 0  # infinite or NaN, in fewer kernels than isfinite takes
        first.copy_(torch.where((first < 0) & bad, step * _MOST_UPDATES + update, first))

    def read(self) -> dict[str, float]:
        """Return the newest values.

        Raises:
            TrainingDivergedError: If a metric was not finite in any step so far.
        """
        self.check()
        if not self._latest:
            return {}
        values = torch.stack(list(self._latest.values())).tolist()
        return dict(zip(self._latest, values, strict=True))

    def check(self) -> None:
        """Check that all metrics were finite so far.

        Raises:
            TrainingDivergedError: If one was not; the message names the first metric, and its step.
        """
        bad = [
            (time, name)
            for names, first in self._first.items()
            for name, time in zip(names, first.tolist(), strict=True)
            if time >= 0
        ]
        if bad:
            time, name = min(bad, key=lambda entry: entry[0])
            raise TrainingDivergedError(time // _MOST_UPDATES, name)
