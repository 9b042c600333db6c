"""The regularizer of LeCam-GAN."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from condgan.distributed import average
from condgan.functional import precise
from condgan.regularizers.base import CriticRegularizer
from condgan.schedules import Scheduled
from condgan.types import CriticBatch, CriticOutput


class LeCam(CriticRegularizer):
    r"""The penalty of Tseng et al. on the distance of scores from moving averages of those of the other side.

    $$\lambda\, \big(\mathbb{E}\,(D(x) - \alpha_F)^2 + \mathbb{E}\,(D(\tilde x) - \alpha_R)^2\big)$$

    The anchors $\alpha_R$ and $\alpha_F$ are moving averages of the mean scores of real and of generated images, over
    all processes and over the steps in which the penalty is applied, the present one included. They are without bias:
    in the first step they are the means themselves. They are saved in checkpoints.

    The authors' code penalizes only $\max(0, D(x) - \alpha_F)$ and $\max(0, \alpha_R - D(\tilde x))$; this is the
    equation of the paper.

    Args:
        weight: Coefficient $\lambda$ of the penalty, at least 0; or a function of the progress of training.
        decay: Decay of the averages, in [0, 1).
        every: Apply it only every `every` critic steps; the weight is multiplied by `every`.

    Attributes:
        real_anchor: The average $\alpha_R$, a scalar.
        fake_anchor: The average $\alpha_F$, a scalar.

    Raises:
        ValueError: If `weight` is negative, `every` less than 1, or `decay` out of range.

    Examples:
        >>> LeCam(weight=0.3)
        LeCam(weight=0.3, every=1, decay=0.99)

    References:
        Tseng et al. 2021, arXiv:2104.03310, section 3, and the code of its authors.
    """

    real_anchor: Tensor
    fake_anchor: Tensor
    updates: Tensor

    def __init__(self, weight: Scheduled = 0.3, *, decay: float = 0.99, every: int = 1) -> None:
        super().__init__(weight, every=every)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}.")
        self.decay = decay
        self.register_buffer("real_anchor", torch.zeros(()))
        self.register_buffer("fake_anchor", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @override
    def penalty(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        real, fake = precise(batch.real.score), precise(batch.fake.score)
        if self.training:
            self._move_anchors(real.detach().mean(), fake.detach().mean())
        return (real - self.fake_anchor).square().mean() + (fake - self.real_anchor).square().mean()

    @torch.no_grad()
    def _move_anchors(self, real: Tensor, fake: Tensor) -> None:
        self.updates.add_(1)
        # Adam's correction of bias, written as the weight of the newest mean
        weight = (1 - self.decay) / (1 - torch.pow(self.decay, self.updates.to(self.real_anchor.dtype)))
        for anchor, mean in zip((self.real_anchor, self.fake_anchor), average([real, fake]), strict=True):
            anchor.lerp_(mean.to(anchor.dtype), weight)

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, decay={self.decay}"
