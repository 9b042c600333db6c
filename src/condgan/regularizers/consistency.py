"""Balanced consistency regularization."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from typing_extensions import override

from condgan.augmentation import DiffAugment
from condgan.files import check_not_negative
from condgan.functional import precise
from condgan.regularizers.base import CriticRegularizer
from condgan.schedules import Scheduled
from condgan.types import Augmentation, CriticBatch, CriticOutput


class ConsistencyRegularizer(CriticRegularizer):
    r"""The penalty of balanced consistency (bCR) on scores that change when an image is transformed.

    $$\lambda\, \big(\mathbb{E}\,(D(x, y) - D(T(x), y))^2
    + \rho\, \mathbb{E}\,(D(\tilde x, \tilde y) - D(T(\tilde x), \tilde y))^2\big)$$

    The random parameters of $T$ are drawn before the step and differ from those of an augmentation in front of the
    critic, whose images $T$ transforms further.

    Deviation: the paper shifts by up to 4 of 32 pixels and mirrors; the default only shifts, by up to an eighth of the
    size, because a mirrored chest is another diagnosis.

    Args:
        weight: Coefficient $\lambda$ of the penalty, at least 0; or a function of the progress of training.
        fake_ratio: Coefficient $\rho$ of generated relative to real images, at least 0.
        transform: The transformation $T$, of a fixed strength.
        every: Apply it only every `every` critic steps; the weight is multiplied by `every`.

    Raises:
        ValueError: If a coefficient is negative or `every` less than 1; when called, if the batch has no draws of the
            transformation.

    Examples:
        >>> ConsistencyRegularizer(weight=10.0, transform=DiffAugment("translation,cutout")).transform.names
        ('translation', 'cutout')

    References:
        Zhao et al. 2020, arXiv:2002.04724, algorithm 1; Zhang et al. 2020, arXiv:1910.12027, for real images alone.
    """

    transform: Augmentation

    def __init__(
        self,
        weight: Scheduled = 10.0,
        *,
        fake_ratio: float = 1.0,
        transform: Augmentation = DiffAugment("translation"),  # noqa: B008 - frozen
        every: int = 1,
    ) -> None:
        super().__init__(weight, every=every)
        check_not_negative("fake_ratio", fake_ratio)
        self.fake_ratio = fake_ratio
        self.transform = transform

    @override
    def penalty(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        if batch.inputs.transformation is None:
            raise ValueError(
                "ConsistencyRegularizer needs batch.inputs.transformation, got None. Draw it with transform.draw, once "
                "for real and once for generated images; a Trainer draws it for terms with a transform."
            )
        real_draws, fake_draws = batch.inputs.transformation
        real = critic(self.transform(batch.x, real_draws), batch.y).score - batch.real.score
        fake = critic(self.transform(batch.x_fake, fake_draws), batch.y_fake).score - batch.fake.score
        return precise(real).square().mean() + self.fake_ratio * precise(fake).square().mean()

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, fake_ratio={self.fake_ratio}, transform={self.transform!r}"
