"""Base classes of weighted penalties on critics and generators."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn
from typing_extensions import override

from condgan.files import check_count, check_not_negative
from condgan.nn.layers import batch_norms
from condgan.types import Augmentation, CriticBatch, CriticOutput, GeneratorBatch


class _Regularizer(nn.Module):
    def __init__(self, weight: float, *, every: int = 1) -> None:
        super().__init__()
        check_not_negative("weight", weight)
        check_count("every", every)
        self.weight = weight
        self.every = every

    @override
    def extra_repr(self) -> str:
        return f"weight={self.weight}, every={self.every}"


class CriticRegularizer(_Regularizer):
    """A penalty on the critic: `reg(critic, batch)` returns the scalar `weight * every * penalty(critic, batch)`.

    Subclass it and define `penalty`; state belongs in buffers, which the trainer moves and saves.

    Args:
        weight: Coefficient of the penalty, at least 0.
        every: Apply it only every `every` critic steps (lazy regularization); the weight is multiplied by `every`.

    Raises:
        ValueError: If `weight` is negative or `every` less than 1; when called, if the penalty is `per_sample` and
            the critic has batch normalization in training mode.
    """

    needs_pairs: ClassVar[bool] = False
    """Whether it combines each real image with the generated image of its row, which must then be of the same class."""
    per_sample: ClassVar[bool] = False
    """Whether it is defined for each sample alone, which batch norm in a critic rules out."""
    needs_noise: ClassVar[bool] = False
    """Whether it reads `batch.inputs.noise`."""
    transform: Augmentation | None = None
    """The transformation whose draws it reads from `batch.inputs.transformation`, if any."""

    def penalty(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        """Return the unweighted penalty, a scalar."""
        raise NotImplementedError

    @override
    def forward(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        self.check_critic(critic)
        return self.weight * self.every * self.penalty(critic, batch)

    def check_critic(self, critic: Callable[..., CriticOutput]) -> None:
        """Check that the penalty is defined for this critic, as a `Trainer` does before training.

        Raises:
            ValueError: If the penalty is `per_sample` and the critic has batch normalization in training mode.
        """
        if not self.per_sample or not isinstance(critic, nn.Module):
            return
        for name, norm in batch_norms(critic):
            if norm.training:
                raise ValueError(
                    f"{type(self).__name__} is defined for each sample alone, but {type(critic).__name__} normalizes "
                    f"over the batch: {name or 'the critic'} is a {type(norm).__name__} in training mode. Use a critic "
                    "without batch norm (batch_norm=False), or one with nn.GroupNorm or spectral normalization."
                )


class GeneratorRegularizer(_Regularizer):
    """A penalty on the generator: `reg(generator, batch)` returns the scalar `weight * every * penalty(...)`.

    Args:
        weight: Coefficient of the penalty, at least 0.
        every: Apply it only every `every` generator steps; the weight is multiplied by `every`.

    Raises:
        ValueError: If `weight` is negative or `every` less than 1.
    """

    def penalty(self, generator: Callable[..., Tensor], batch: GeneratorBatch) -> Tensor:
        """Return the unweighted penalty, a scalar."""
        raise NotImplementedError

    def check_generator(self, generator: Callable[..., Tensor]) -> None:
        """Check that the penalty is defined for this generator, as a `Trainer` does before training."""

    @override
    def forward(self, generator: Callable[..., Tensor], batch: GeneratorBatch) -> Tensor:
        return self.weight * self.every * self.penalty(generator, batch)
