"""Base classes of weighted penalties on critics and generators."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from condgan.files import check_count, check_not_negative
from condgan.nn.layers import batch_norms
from condgan.schedules import Scheduled, ends
from condgan.types import Augmentation, CriticBatch, CriticOutput, GeneratorBatch, StepInputs


class _Regularizer(nn.Module):
    """A weighted penalty. A scheduled weight is held by a tensor: a CUDA graph would keep the value of a number."""

    needs_noise: ClassVar[bool] = False
    """Whether it reads `noise` of the step's inputs."""
    _now: Tensor

    def __init__(self, weight: Scheduled, *, every: int = 1) -> None:
        super().__init__()
        for value in ends(weight):
            check_not_negative("weight", value)
        check_count("every", every)
        self.weight = weight
        self.every = every
        if callable(weight):
            self.register_buffer("_now", torch.tensor(float(weight(0.0)), device="cpu"), persistent=False)

    def set_progress(self, progress: float) -> None:
        """Set a scheduled weight to its value at `progress`, as a `Trainer` does before each step."""
        if callable(self.weight):
            self._now.fill_(self.weight(progress))

    def weighted(self, penalty: Tensor) -> Tensor:
        """Return `weight * every * penalty`.

        Shape:
            - `penalty`: `()`. Returns: `()`.
        """
        weight = self._now.to(penalty.dtype) if callable(self.weight) else self.weight
        return weight * self.every * penalty

    @override
    def extra_repr(self) -> str:
        return f"weight={self.weight}, every={self.every}"


class CriticRegularizer(_Regularizer):
    """A penalty on the critic: `reg(critic, batch)` returns the scalar `weight * every * penalty(critic, batch)`.

    Subclass it and define `penalty`; state belongs in buffers, which the trainer moves and saves.

    Args:
        weight: Coefficient of the penalty, at least 0; or a function of the progress of training, such as a
            `CosineSchedule`.
        every: Apply it only every `every` critic steps (lazy regularization); the weight is multiplied by `every`.

    Raises:
        ValueError: If `weight` is negative or `every` less than 1; when called, if the penalty is `per_sample` and
            the critic has batch normalization in training mode.
    """

    needs_pairs: ClassVar[bool] = False
    """Whether it combines each real image with the generated image of its row, which must then be of the same class."""
    per_sample: ClassVar[bool] = False
    """Whether it is defined for each sample alone, which batch norm in a critic rules out."""
    transform: Augmentation | None = None
    """The transformation whose draws it reads from `batch.inputs.transformation`, if any."""

    def penalty(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        """Return the unweighted penalty, a scalar."""
        raise NotImplementedError

    @override
    def forward(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        self.check_critic(critic)
        return self.weighted(self.penalty(critic, batch))

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
        weight: Coefficient of the penalty, at least 0; or a function of the progress of training.
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
        return self.weighted(self.penalty(generator, batch))


class GeneratorObjective(GeneratorRegularizer):
    """A training objective of a generator on real images, which needs no critic.

    Subclass it and define `objective`. In adversarial training it is a regularizer; in the `pretraining` of a `Trainer`
    it is what the generator is trained by.

    Args:
        weight: Coefficient of the objective, at least 0; or a function of the progress of training.
        every: Apply it only every `every` generator steps; the weight is multiplied by `every`.

    Raises:
        ValueError: If `weight` is negative or `every` less than 1.
    """

    def objective(self, generator: Callable[..., Tensor], inputs: StepInputs) -> Tensor:
        """Return the unweighted objective.

        Shape:
            - `inputs.x`: `(N, *image_shape)`, real images; `inputs.y`: `(N,)`, their labels, or None without classes.
            - Returns: `()`.
        """
        raise NotImplementedError

    @override
    def penalty(self, generator: Callable[..., Tensor], batch: GeneratorBatch) -> Tensor:
        return self.objective(generator, batch.inputs)
