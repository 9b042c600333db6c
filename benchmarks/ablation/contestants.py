"""What is compared: anything that learns from labelled images and then draws images of given classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from condgan.data import ArrayDataset
from condgan.images import to_uint8
from condgan.runs import RecipeConfig, make_trainer

Draw = Callable[[Tensor, int], Tensor]
"""Makes one image for each label, from a seed: `(N,)` int64 to `(N, C, H, W)` uint8."""


class Contestant(Protocol):
    """A way to train a generator for a number of steps."""

    def train(self, data: ArrayDataset, *, steps: int, seed: int) -> Draw:
        """Train on labelled images and return what draws images."""
        ...


@dataclass(frozen=True)
class Gan:
    """A recipe of the library.

    Args:
        config: The recipe, its networks and options; its steps are replaced.
    """

    config: RecipeConfig

    def train(self, data: ArrayDataset, *, steps: int, seed: int) -> Draw:
        """Train on labelled images and return what draws images."""
        config = self.config
        trainer = make_trainer(config, data, seed=seed, device="cpu")
        trainer.fit(
            data,
            steps=steps,
            batch_size=config.batch_size,
            generator_batch_size=config.generator_batch_size,
            progress=False,
        )
        return lambda y, seed: torch.cat(
            [to_uint8(trainer.sample(labels, seed=seed + number)) for number, labels in enumerate(y.split(256))]
        )
