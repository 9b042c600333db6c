"""Types that the parts of the library exchange, and Protocols of the parts that users can supply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

ImageShape = tuple[int, int, int]
"""Channels, height and width of an image."""


class CriticOutput(NamedTuple):
    """The outputs of a critic on a batch.

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
    """All random draws of one step, made before it, so that a step is a pure function of the networks and its inputs.

    Shape:
        - `x`: `(N, *image_shape)`, real images in [-1, 1]; None in a generator step whose loss needs no real scores.
        - `y`: `(N,)`, int64, labels of `x`; None without classes.
        - `z`: `(N, Z)`, standard normal latents.
        - `y_fake`: `(N,)`, int64, labels given to the generator; None without classes.
        - `epsilon`: `(N,)`, uniform in [0, 1), where a gradient penalty interpolates between real and generated images.
        - `noise`: `(N, *image_shape)`, standard normal, for penalties around the data; None if no term needs it.
        - `augmentation`: parameters for the real and the fake images, as `Augmentation.draw` makes them.
        - `transformation`: the same, for a regularizer that compares images with transformed ones.
    """

    x: Tensor | None
    y: Tensor | None
    z: Tensor
    y_fake: Tensor | None
    epsilon: Tensor
    noise: Tensor | None = None
    augmentation: tuple[AugmentationDraws, AugmentationDraws] | None = None
    transformation: tuple[AugmentationDraws, AugmentationDraws] | None = None

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in an order that depends only on which are present."""
        fields = [self.x, self.y, self.z, self.y_fake, self.epsilon, self.noise]
        draws = (*(self.augmentation or ()), *(self.transformation or ()))
        parameters = [one[name] for one in draws for name in sorted(one)]
        return [tensor for tensor in fields if tensor is not None] + parameters


AugmentationDraws = dict[str, Tensor]
"""Random parameters of an augmentation, one row per sample."""


@dataclass(frozen=True, slots=True)
class CriticBatch:
    """What a `CriticRegularizer` is given: images as the critic saw them, labels, outputs and draws.

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
    """What a `GeneratorRegularizer` is given.

    Shape:
        - `x_fake`: `(N, *image_shape)`, generated images before augmentation, with their graph.
        - `fake`: the critic's output on them after augmentation.
        - `inputs`: the draws of the step.
    """

    x_fake: Tensor
    fake: CriticOutput
    inputs: StepInputs


@runtime_checkable
class Denoiser(Protocol):
    """A generator that can estimate an image from a mixture of it and noise."""

    def denoise(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Return an estimate of `x` from `x_t = (1 - t) noise + t x`.

        Shape:
            - `x_t`: `(N, *image_shape)`; `t`: `(N,)` in [0, 1]; `y`: `(N,)`, int64, or None without classes.
            - Returns: `(N, *image_shape)`, not bounded.
        """
        ...


@runtime_checkable
class AdversarialLoss(Protocol):
    """A pair of losses on scores. `needs_real_scores` is True if the generator's side reads `real_score`.

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
        """Apply the drawn parameters to `x`."""
        ...


@runtime_checkable
class AdaptiveAugmentation(Augmentation, Protocol):
    """An augmentation whose strength follows the scores of the critic, in tensors on the device.

    It has methods only: from Python 3.12 on, `isinstance` does not find the buffers of a module.
    """

    def reads_differences(self) -> bool:
        """Return whether it reads only differences between real and generated scores."""
        ...

    def observe(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        """Take note of the scores of a critic step, without reading them back from the device.

        Shape:
            - `real_score`, `fake_score`: `(N,)`, this process's.
            - Returns: `()`, a copy of the strength of this step, which is logged.
        """
        ...


@runtime_checkable
class PseudoAugmentation(AdaptiveAugmentation, Protocol):
    """An augmentation that passes generated images off as real ones in the critic's steps."""

    def replace_real(self, x: Tensor, x_fake: Tensor, draws: AugmentationDraws) -> Tensor:
        """Return real images, some of them replaced by the generated images of their rows.

        Shape:
            - `x`, `x_fake`: `(N, *)`. Returns: `(N, *)`.
        """
        ...


class LabelledData(Protocol):
    """The data of a `Trainer`, such as a `condgan.data.ArrayDataset`."""

    @property
    def images(self) -> Tensor:
        """`(N, C, H, W)` uint8, or `(N, *)` floats, which are used unchanged."""

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
    """Labelled images for evaluation, such as a `condgan.data.ArrayDataset`."""

    @property
    def groups(self) -> Tensor | None:
        """`(N,)` int64, the group (patient) of each image; None if each image is a group of its own."""

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups, in the order of their numbers."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
