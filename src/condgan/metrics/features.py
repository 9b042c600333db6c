"""Networks that turn images into the features on which fidelity is measured."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from condgan.devices import best_device
from condgan.types import ImageShape


@dataclass(frozen=True, slots=True)
class ExtractorInfo:
    """What must be said about the features beside every figure that was measured on them.

    Args:
        name: Name of the network and its layer.
        weights_hash: SHA-256 of the weights, as 16 hexadecimal digits, see `weights_hash`.
        resize: How images come to the size that the network takes, in words.
    """

    name: str
    weights_hash: str
    resize: str


class Extracted(NamedTuple):
    """Features of images, and class logits where the extractor has them; both on the CPU.

    Shape:
        - `features`: `(N, D)`, float32.
        - `logits`: `(N, K)`, float32, or None.
    """

    features: Tensor
    logits: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Extractor:
    """A network that maps uint8 images to features, in batches and without gradients.

    `module_extractor` makes one of any module; `inception`, `dinov2` and `clip` are networks of others. Images of one
    channel are repeated for a network that takes three.

    Args:
        info: Name, weights and resize, for results.
        module: Maps a batch of uint8 images on its device to features `(N, D)`, or to a tuple of features and class
            logits.
        channels: Number of channels the module takes.
        batch_size: Images in a batch; it bounds the memory and does not change the features.
    """

    info: ExtractorInfo
    module: nn.Module
    channels: int
    batch_size: int = 64

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features alone, see `extract`.

        Shape:
            - `images`: `(N, C, H, W)`, uint8. Output: `(N, D)`, float32.
        """
        return self.extract(images).features

    @torch.no_grad()
    def extract(self, images: Tensor) -> Extracted:
        """Return features and logits of images.

        Shape:
            - `images`: `(N, C, H, W)`, uint8.

        Raises:
            ValueError: If images have another type, shape or number of channels, or the module returns no vectors.
            FloatingPointError: If a feature or logit is not finite.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
            raise ValueError(
                f"images must be uint8 of the shape (N, C, H, W), got {images.dtype} of the shape "
                f"{tuple(images.shape)}. Convert images in [-1, 1] with condgan.images.to_uint8."
            )
        if images.shape[1] not in (1, self.channels):
            raise ValueError(
                f"{self.info.name} takes images of {self.channels} channels, or of one that is repeated, got "
                f"{images.shape[1]}. Convert the images, or use another extractor."
            )
        self.module.eval()
        state = chain(self.module.parameters(), self.module.buffers())
        device = next((tensor.device for tensor in state), torch.device("cpu"))
        outputs = []
        for chunk in torch.split(images, self.batch_size):
            batch = chunk.to(device).expand(-1, self.channels, -1, -1).contiguous()
            outputs.append([part.float().cpu() for part in _as_parts(self.module(batch), len(batch), self.info.name)])
        parts = [torch.cat(batches) for batches in zip(*outputs, strict=True)]
        if not all(bool(torch.isfinite(part).all()) for part in parts):
            raise FloatingPointError(
                f"features must be finite, got NaN or infinite values from {self.info.name}. Its weights are broken, "
                "or its normalization does not fit the images."
            )
        return Extracted(parts[0], parts[1] if len(parts) == 2 else None)


def _as_parts(output: Any, count: int, name: str) -> tuple[Tensor, ...]:
    parts = tuple(output) if isinstance(output, (tuple, list)) else (output,)
    if len(parts) > 2 or any(not isinstance(p, Tensor) or p.ndim != 2 or len(p) != count for p in parts):
        got = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in parts]
        raise ValueError(
            f"{name} must map {count} images to features of the shape ({count}, D), or to features and logits, got "
            f"{got}. Pool over positions and flatten inside the module."
        )
    return parts


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A network and the real training images that it has not seen.

    Args:
        extractor: The network.
        held_out: Indices of the images of the patients that the network was not trained on.

    Shape:
        - `held_out`: `(M,)`, int64.
    """

    extractor: Extractor
    held_out: Tensor


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Extractors trained on the real training images themselves, each on all folds of patients but one.

    A network knows the images it was trained on, so features of those say little. Features of different networks live
    in different spaces, so they are never pooled: a metric is computed fold by fold, on images that the fold's network
    has not seen, and averaged.

    Args:
        folds: One network a fold; together their held-out images are the training set, each once.
        fingerprint: Fingerprint of the training set that `held_out` counts in.
    """

    folds: tuple[Fold, ...]
    fingerprint: str

    @property
    def info(self) -> ExtractorInfo:
        """Name and resize of the first network, and the hashes of all."""
        infos = [fold.extractor.info for fold in self.folds]
        name = f"{infos[0].name}, cross-fitted in {len(infos)} folds"
        return ExtractorInfo(name, "+".join(info.weights_hash for info in infos), infos[0].resize)


def module_extractor(
    module: nn.Module,
    *,
    name: str,
    image_shape: ImageShape,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Extractor:
    r"""Make an extractor of any module, such as a network of torchvision without its head.

    The module sees $(u / 255 - \text{mean}) / \text{std}$ for uint8 images $u$, which is [-1, 1] by default. Images of
    another size are resized by antialiased bilinear interpolation. The module is copied: training it further does not
    change the extractor or make its hash untrue.

    Args:
        module: Maps float images to features `(N, D)`, or to a tuple of features and class logits `(N, K)`; only the
            Inception Score needs the logits.
        name: Name of the network and its weights, for results.
        image_shape: Channels, height and width that the module takes.
        mean: Mean to subtract, for all channels or one each, on a scale from 0 to 1.
        std: What to divide by, likewise.
        batch_size: Images in a batch.
        device: Where to compute. By default the first CUDA device if there is one, else the CPU.

    Raises:
        ValueError: If `mean` or `std` do not fit the channels, or `batch_size` is less than 1.

    Examples:
        >>> pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
        >>> extractor = module_extractor(pool, name="mean grey level", image_shape=(1, 8, 8))
        >>> extractor(torch.full((3, 1, 16, 16), 255, dtype=torch.uint8))
        tensor([[1., 1., 1., 1.],
                [1., 1., 1., 1.],
                [1., 1., 1., 1.]])
    """
    channels, height, width = image_shape
    for label, values in (("mean", mean), ("std", std)):
        if not isinstance(values, (int, float)) and len(values) != channels:
            raise ValueError(f"{label} must be one number or one for each of {channels} channels, got {len(values)}.")
    own = copy.deepcopy(module).requires_grad_(False)
    info = ExtractorInfo(name, weights_hash(own), f"to {height}x{width}, bilinear, antialiased")
    return make_extractor(info, _Prepared(own, (height, width), mean, std), channels, batch_size, device)


class _Prepared(nn.Module):
    """A module behind its resize and normalization."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, module: nn.Module, size: tuple[int, int], mean: float | Sequence[float], std: float | Sequence[float]
    ) -> None:
        super().__init__()
        self.module, self.size = module, size
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Any:
        x = images.float().div_(255)
        if tuple(x.shape[2:]) != self.size:
            x = nn.functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        return self.module((x - self.mean) / self.std)


def weights_hash(module: nn.Module) -> str:
    """Return the SHA-256 of the names and values of a module's weights and buffers, as 16 hexadecimal digits.

    It does not depend on the file they came from, on the device or on the memory layout.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(repr((name, tuple(value.shape), str(value.dtype))).encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def make_extractor(
    info: ExtractorInfo, module: nn.Module, channels: int, batch_size: int, device: torch.device | str | None
) -> Extractor:
    """Put a module on its device and wrap it up.

    Raises:
        ValueError: If `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    target = torch.device(device or best_device())
    return Extractor(info, module.to(target).eval(), channels, batch_size)
