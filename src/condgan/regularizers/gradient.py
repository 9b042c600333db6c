"""Penalties on the critic's input gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from condgan import functional
from condgan.files import check_not_negative
from condgan.regularizers.base import CriticRegularizer
from condgan.schedules import Scheduled
from condgan.types import CriticBatch, CriticOutput


class GradientPenalty(CriticRegularizer):
    r"""The penalty of WGAN-GP on the critic's gradient between paired real and generated images.

    $$\lambda\, \mathbb{E}\,(\lVert \nabla_{\hat x} D(\hat x, y) \rVert_2 - k)^2, \qquad
    \hat x = \epsilon x + (1 - \epsilon) \tilde x$$

    with one $\epsilon$ per sample and the label of the pair: both images of a row must be of one class.

    Args:
        weight: Coefficient $\lambda$ of the penalty, at least 0; or a function of the progress of training.
        target: Norm $k$ to attain, at least 0.
        one_sided: Penalize norms above the target only.
        every: Apply it only every `every` critic steps; the weight is multiplied by `every`.

    Raises:
        ValueError: If `weight` or `target` is negative or `every` less than 1; when called, if the critic has batch
            normalization in training mode.

    Examples:
        >>> GradientPenalty(weight=10.0)
        GradientPenalty(weight=10.0, every=1, target=1.0, one_sided=False)

    References:
        Gulrajani et al. 2017, arXiv:1704.00028, equation 3.
    """

    per_sample: ClassVar[bool] = True
    needs_pairs: ClassVar[bool] = True

    def __init__(
        self, weight: Scheduled = 10.0, *, target: float = 1.0, one_sided: bool = False, every: int = 1
    ) -> None:
        super().__init__(weight, every=every)
        check_not_negative("target", target)
        self.target = target
        self.one_sided = one_sided

    @override
    def penalty(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        return functional.gradient_penalty(
            critic,
            batch.x,
            batch.x_fake,
            batch.y,
            epsilon=batch.inputs.epsilon,
            target=self.target,
            one_sided=self.one_sided,
        )

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, target={self.target}, one_sided={self.one_sided}"


class DraganPenalty(CriticRegularizer):
    r"""The penalty of DRAGAN on the critic's gradient around real images.

    $$\lambda\, \mathbb{E}\,(\lVert \nabla_{\hat x} D(\hat x, y) \rVert_2 - k)^2, \qquad
    \hat x = x + \epsilon\, c\, \mathrm{std}(x)\, \delta, \qquad \delta \sim \mathcal{N}(0, I)$$

    `condgan.functional.dragan_penalty` documents where the paper and its code differ. The standard deviation is that of
    the batch on this process, which is smaller than that of a batch over all processes.

    Args:
        weight: Coefficient $\lambda$ of the penalty, at least 0; or a function of the progress of training.
        scale: Coefficient $c$ of the perturbation.
        target: Norm $k$ to attain, at least 0.
        every: Apply it only every `every` critic steps; the weight is multiplied by `every`.

    Raises:
        ValueError: If `weight` or `target` is negative or `every` less than 1; when called, if the batch has no noise
            or the critic has batch normalization in training mode.

    Examples:
        >>> DraganPenalty(weight=10.0)
        DraganPenalty(weight=10.0, every=1, scale=0.5, target=1.0)

    References:
        Kodali et al. 2017, arXiv:1705.07215, and the code of its authors.
    """

    per_sample: ClassVar[bool] = True
    needs_noise: ClassVar[bool] = True

    def __init__(self, weight: Scheduled = 10.0, *, scale: float = 0.5, target: float = 1.0, every: int = 1) -> None:
        super().__init__(weight, every=every)
        self.scale = scale
        check_not_negative("target", target)
        self.target = target

    @override
    def penalty(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        if batch.inputs.noise is None:
            raise ValueError(
                f"DraganPenalty needs batch.inputs.noise of shape {tuple(batch.x.shape)}, got None. Pass "
                "StepInputs(noise=torch.randn(x.shape)); a Trainer draws it for terms with needs_noise=True."
            )
        return functional.dragan_penalty(
            critic,
            batch.x,
            batch.y,
            noise=batch.inputs.noise,
            epsilon=batch.inputs.epsilon,
            scale=self.scale,
            target=self.target,
        )

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale={self.scale}, target={self.target}"


class R1(CriticRegularizer):
    r"""The zero-centred penalty on the critic's gradient at real images.

    $$\tfrac{\gamma}{2}\, \mathbb{E} \lVert \nabla_x D(x, y) \rVert_2^2$$

    Args:
        weight: Coefficient $\gamma$, or a function of the progress of training, such as `CosineSchedule(2.0, 0.2)`;
            the half is part of the penalty.
        every: Apply it only every `every` critic steps; the weight is multiplied by `every`.

    Raises:
        ValueError: If `weight` is negative or `every` less than 1; when called, if the critic has batch normalization
            in training mode.

    Examples:
        >>> R1(weight=0.05)
        R1(weight=0.05, every=1)

    References:
        Mescheder et al. 2018, arXiv:1801.04406, equation 9.
    """

    per_sample: ClassVar[bool] = True

    @override
    def penalty(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        return functional.r1(critic, batch.x, batch.y)


class R2(CriticRegularizer):
    r"""The zero-centred penalty on the critic's gradient at generated images.

    $$\tfrac{\gamma}{2}\, \mathbb{E} \lVert \nabla_{\tilde x} D(\tilde x, \tilde y) \rVert_2^2$$

    Args:
        weight: Coefficient $\gamma$, or a function of the progress of training, such as `CosineSchedule(2.0, 0.2)`;
            the half is part of the penalty.
        every: Apply it only every `every` critic steps; the weight is multiplied by `every`.

    Raises:
        ValueError: If `weight` is negative or `every` less than 1; when called, if the critic has batch normalization
            in training mode.

    Examples:
        >>> R2(weight=0.05)
        R2(weight=0.05, every=1)

    References:
        Mescheder et al. 2018, arXiv:1801.04406, equation 10.
    """

    per_sample: ClassVar[bool] = True

    @override
    def penalty(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        return functional.r1(critic, batch.x_fake, batch.y_fake)
