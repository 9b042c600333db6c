"""The shapes of what travels between the parts of the library, and the Protocols of parts that users plug in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

ImageShape = tuple[int, int, int]
"""Channels, height and width of an image."""


class CriticOutput(NamedTuple):
    """What a critic says about a batch.

    Shape:
        - `score`: `(N,)`, unbounded; high for images that look real.
        - `class_logits`: `(N, K)`, or None for a critic without a class head.
        - `twin_logits`: `(N, K)`, or None for a critic without a second class head.
        - `embedding`: `(N, D)`, unit norm, or None for a critic without an embedding head.
    """

    score: Tensor
    class_logits: Tensor | None = None
    twin_logits: Tensor | None = None
    embedding: Tensor | None = None

    def split(self, sizes: tuple[int, int]) -> tuple[CriticOutput, CriticOutput]:
        """Split along the batch, as `torch.split` does."""
        parts = [(None, None) if field is None else field.split(sizes) for field in self]
        first, second = zip(*parts, strict=True)
        return CriticOutput(*first), CriticOutput(*second)


@dataclass(frozen=True, slots=True)
class StepInputs:
    """Every random draw of one step, made before it: a step is a pure function of the networks and of this.

    Shape:
        - `x`: `(N, *image_shape)`, real images in [-1, 1]; None in a generator step whose loss needs no real scores.
        - `y`: `(N,)`, int64, labels of `x`; None without classes.
        - `z`: `(N, Z)`, standard normal latents.
        - `y_fake`: `(N,)`, int64, labels asked of the generator; None without classes.
        - `epsilon`: `(N,)`, uniform in [0, 1), the places of the interpolates of a gradient penalty.
        - `noise`: `(N, *image_shape)`, standard normal, for penalties around the data; None if no term needs it.
        - `augmentation`: parameters for the real and the fake images, as `Augmentation.draw` makes them.
    """

    x: Tensor | None
    y: Tensor | None
    z: Tensor
    y_fake: Tensor | None
    epsilon: Tensor
    noise: Tensor | None = None
    augmentation: tuple[AugmentationDraws, AugmentationDraws] | None = None

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in an order that depends on which there are alone."""
        fields = [self.x, self.y, self.z, self.y_fake, self.epsilon, self.noise]
        parameters = [draws[name] for draws in self.augmentation or () for name in sorted(draws)]
        return [tensor for tensor in fields if tensor is not None] + parameters


AugmentationDraws = dict[str, Tensor]
"""Random parameters of an augmentation, one row a sample."""


@dataclass(frozen=True, slots=True)
class CriticBatch:
    """What a `CriticRegularizer` may look at: images as the critic saw them, labels, outputs and draws.

    Shape:
        - `x`, `x_fake`: `(N, *image_shape)`, real and generated images after augmentation, detached.
        - `y`, `y_fake`: `(N,)`, int64, or None without classes.
        - `real`, `fake`: the critic's outputs on them, with their graph.
        - `inputs`: the draws of the step; `inputs.x` holds the real images before augmentation.
    """

    x: Tensor
    y: Tensor | None
    x_fake: Tensor
    y_fake: Tensor | None
    real: CriticOutput
    fake: CriticOutput
    inputs: StepInputs


@dataclass(frozen=True, slots=True)
class GeneratorBatch:
    """What a `GeneratorRegularizer` may look at.

    Shape:
        - `x_fake`: `(N, *image_shape)`, generated images before augmentation, with their graph.
        - `fake`: the critic's output on them after augmentation.
        - `inputs`: the draws of the step.
    """

    x_fake: Tensor
    fake: CriticOutput
    inputs: StepInputs


@runtime_checkable
class AdversarialLoss(Protocol):
    """A pair of losses on scores. `needs_real_scores` says whether the generator's side reads `real_score`.

    Such a loss compares real and generated samples row by row, within a class.

    Shape:
        - `real_score`, `fake_score`: `(N,)`. Output: a scalar.
    """

    needs_real_scores: ClassVar[bool]

    def critic(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        """Return the critic's weighted scalar loss."""
        ...

    def generator(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        """Return the generator's weighted scalar loss."""
        ...


@runtime_checkable
class AuxiliaryLoss(Protocol):
    """A pair of losses on the other outputs of a critic and the labels.

    Shape:
        - `real`, `fake`: outputs on N samples each; `y`, `y_fake`: `(N,)`, int64 in `[0, K)`. Output: a scalar.
    """

    def critic(self, real: CriticOutput, y: Tensor, fake: CriticOutput, y_fake: Tensor) -> Tensor:
        """Return the critic's weighted scalar loss."""
        ...

    def generator(self, fake: CriticOutput, y_fake: Tensor) -> Tensor:
        """Return the generator's weighted scalar loss."""
        ...


class _Regularizer(nn.Module):
    def __init__(self, weight: float, *, every: int = 1) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight must be at least 0, got {weight}.")
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}.")
        self.weight = weight
        self.every = every

    def extra_repr(self) -> str:
        return f"weight={self.weight}, every={self.every}"


class CriticRegularizer(_Regularizer):
    """A penalty on the critic: `reg(critic, batch)` returns the scalar `weight * every * penalty(critic, batch)`.

    Subclass it and define `penalty`; state belongs in buffers, which the trainer moves and saves.

    Args:
        weight: Coefficient of the penalty, at least 0.
        every: Apply in every so many critic steps only (lazy regularization); the weight is multiplied by it.

    Raises:
        ValueError: If `weight` is negative or `every` less than 1.
    """

    needs_pairs: ClassVar[bool] = False
    """Whether it mixes each real image with the fake one of the same row, which must then share its class."""
    per_sample: ClassVar[bool] = False
    """Whether it takes gradients of each score with respect to its own image, which batch norm in a critic forbids."""
    needs_noise: ClassVar[bool] = False
    """Whether it reads `batch.inputs.noise`."""

    def penalty(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        """Return the unweighted penalty, a scalar."""
        raise NotImplementedError

    def forward(self, critic: Callable[..., CriticOutput], batch: CriticBatch) -> Tensor:
        """Return the weighted penalty, a scalar."""
        return self.weight * self.every * self.penalty(critic, batch)


class GeneratorRegularizer(_Regularizer):
    """A penalty on the generator: `reg(generator, batch)` returns the scalar `weight * every * penalty(...)`.

    Args:
        weight: Coefficient of the penalty, at least 0.
        every: Apply in every so many generator steps only; the weight is multiplied by it.

    Raises:
        ValueError: If `weight` is negative or `every` less than 1.
    """

    def penalty(self, generator: Callable[..., Tensor], batch: GeneratorBatch) -> Tensor:
        """Return the unweighted penalty, a scalar."""
        raise NotImplementedError

    def forward(self, generator: Callable[..., Tensor], batch: GeneratorBatch) -> Tensor:
        """Return the weighted penalty, a scalar."""
        return self.weight * self.every * self.penalty(generator, batch)


@runtime_checkable
class Augmentation(Protocol):
    """A differentiable augmentation of both real and generated images, in front of the critic.

    Random parameters are drawn outside the step by `draw`, so that applying them is a pure function.

    Shape:
        - `x`: `(N, C, H, W)`, in [-1, 1]; every tensor of the draws has N rows. Output: the shape of `x`.
    """

    def draw(
        self, count: int, image_shape: tuple[int, ...], *, rng: torch.Generator | None, device: torch.device
    ) -> AugmentationDraws:
        """Draw the parameters for `count` images."""
        ...

    def __call__(self, x: Tensor, draws: AugmentationDraws) -> Tensor:
        """Apply them: `(N, C, H, W)` in, the same out."""
        ...


class LabelledData(Protocol):
    """What a `Trainer` asks of its data. `condgan.data.ArrayDataset` and its relatives have it."""

    @property
    def images(self) -> Tensor:
        """`(N, C, H, W)` uint8, or `(N, *)` floats that are used as they are."""

    @property
    def labels(self) -> Tensor:
        """`(N,)` int64."""

    @property
    def num_classes(self) -> int:
        """Number of classes K."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of samples of each class."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    @property
    def fingerprint(self) -> str:
        """A digest of the content."""


class JudgedImages(LabelledData, Protocol):
    """Labelled images that can be judged. `condgan.data.ArrayDataset` and its relatives are such."""

    @property
    def groups(self) -> Tensor | None:
        """`(N,)` int64, the group (patient) of each image; None makes each image its own."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
