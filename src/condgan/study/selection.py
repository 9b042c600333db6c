"""Which step of a generator's training is kept: the last one, or the best by a criterion on validation images."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typing_extensions import override

from condgan.data.dataset import ArrayDataset
from condgan.images import to_uint8
from condgan.metrics.features import Extractor
from condgan.metrics.fidelity import kid
from condgan.sampling import class_grid
from condgan.training import Callback, Trainer

_MOST = 200
"""Images of a class that a look compares."""

Criterion = Callable[[Trainer], float]
"""Tells how far the averaged generator of a trainer is from what is wanted; smaller is better."""


def class_kid(validation: ArrayDataset, extractor: Extractor, *, seed: int = 0) -> Criterion:
    r"""Return the criterion "mean KID over classes": of generated against real validation images, class by class.

    $$ \frac1K \sum_k \mathrm{KID}(\tilde x \mid \tilde y = k,\; x \mid y = k) $$

    A generator that mixes classes up, or shows one image of a class, is far off although its images may look real. The
    estimate has no bias in the number of images; of each class as many are compared as there are, 200 at most, and the
    latents are the same in every look.

    Args:
        validation: Real images of patients that the generator is not trained on.
        extractor: Network of the features.
        seed: Seed of the latents.

    References:
        Bińkowski et al. 2018, arXiv:1801.01401, which lowers the learning rate by the KID on held-out images.
    """
    shown = min(_MOST, *validation.class_counts)
    real = [
        extractor(validation.images[(validation.labels == label).nonzero().flatten()[:_MOST]])
        for label in range(validation.num_classes)
    ]
    y = class_grid(validation.num_classes, shown)

    def distance(trainer: Trainer) -> float:
        features = extractor(to_uint8(trainer.sample(y, seed=seed)).cpu())
        scores = [kid(features[y == label], real[label], subsets=1, subset_size=_MOST) for label in range(len(real))]
        return sum(score.value for score in scores) / len(scores)

    return distance


class KeepBest(Callback):
    """Looks at the averaged generator every so many steps and keeps the best one by a criterion in a folder.

    Args:
        folder: Where the generator is kept, see `Generator.save_pretrained`.
        criterion: Smaller is better.
        every: Steps between looks.

    Attributes:
        best: Value of the criterion of the generator that was kept.
        step: Its step.
        looks: Step and value of every look, in order.
    """

    def __init__(self, folder: str | Path, criterion: Criterion, *, every: int) -> None:
        super().__init__(every)
        self.folder, self.criterion = Path(folder), criterion
        self.best, self.step = math.inf, 0
        self.looks: list[dict[str, float]] = []

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        step, value = trainer.state.step, self.criterion(trainer)
        self.looks.append({"step": step, "value": value})
        if value < self.best:
            self.best, self.step = value, step
            trainer.ema.save_pretrained(self.folder)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "step": self.step, "looks": list(self.looks)}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.step, self.looks = state["best"], state["step"], list(state["looks"])
