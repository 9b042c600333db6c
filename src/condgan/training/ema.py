"""The exponential moving average of a generator, and its batch statistics."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from condgan.networks.base import Generator
from condgan.nn.layers import batch_norms, without_synchronization
from condgan.training.foreach import copy_all


class ExponentialMovingAverage:
    r"""The moving average of a generator's weights, $\bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta$.

    The decay is ramped up, $d = \min(\mathrm{decay}, (1 + t) / (10 + t))$ in update $t$, so that the initial weights
    soon have no influence.

    Args:
        generator: The network to follow.
        decay: Final decay in [0, 1).

    Raises:
        ValueError: If `decay` is out of range.
    """

    def __init__(self, generator: Generator, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {decay}.")
        self.decay = decay
        self.updates = 0
        self.generator = copy.deepcopy(generator).eval().requires_grad_(False)

    def update(self, generator: Generator) -> None:
        """Move the average towards the generator's current weights; buffers are copied."""
        self.move(generator, self.next_weight())

    def next_weight(self) -> float:
        """Count an update, and return the weight `1 - d` of the generator in it."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        return 1 - decay

    @torch.no_grad()
    def move(self, generator: Generator, weight: float | Tensor) -> None:
        """Apply an update that has been counted. In a CUDA graph its weight must be a tensor, whose value can change.

        Shape:
            - `weight`: a number, or a scalar of the parameters' type.
        """
        own: list[Tensor] = list(self.generator.parameters())
        theirs: list[Tensor] = list(generator.parameters())
        if isinstance(weight, Tensor):
            torch._foreach_lerp_(own, theirs, [weight] * len(own))
        else:
            torch._foreach_lerp_(own, theirs, weight)
        copy_all(self.generator.buffers(), generator.buffers())


@torch.no_grad()
def reestimate_statistics(generator: Generator, batches: Iterable[tuple[Tensor, Tensor | None]]) -> None:
    """Replace the running statistics of batch norms by their averages over `batches` of latents and labels.

    The activations under averaged weights differ from those under any of the weights that were averaged, so the
    statistics gathered in training do not fit them. A network without batch norm is not changed.
    """
    norms = [norm for _, norm in batch_norms(generator)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
        norm.train()
    with without_synchronization():
        for z, y in batches:
            generator(z, y)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
