"""Augmentation of a classifier's training images: the control that generated images have to beat."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

_LIMITS = {"rotation": 180.0, "translation": 1.0, "scale": 0.9, "brightness": 1.0, "contrast": 1.0}


class Augment(Protocol):
    """Changes the images of a training batch at random; labels stay valid.

    Its `repr` is kept in the settings of a training and should state every parameter, as that of a dataclass does.

    Shape:
        - `images`: `(N, C, H, W)`, uint8. Output: the same shape and type, on the same device.
    """

    def __call__(self, images: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Return changed images; all randomness comes from `rng`."""
        ...


@dataclass(frozen=True, slots=True)
class ClassicalAugment:
    r"""The usual augmentation of frontal chest X-rays: small changes of pose and exposure.

    Each image has its own parameters, all uniform: the angle in $\pm$ `rotation`, the shifts in $\pm$ `translation`,
    the magnification in 1 $\pm$ `scale`, and the grey levels become

    $$ c (x - \bar x) + \bar x + 255 b $$

    around the image's mean, with $c$ in 1 $\pm$ `contrast` and $b$ in $\pm$ `brightness`. Grey levels change first,
    then the pose, in one bilinear interpolation; what comes in from outside is black.

    Images are never turned upside down, and are mirrored only with `flip`, because the heart is on the left.

    Args:
        rotation: Largest angle, in degrees.
        translation: Largest shift, as a fraction of height and width.
        scale: Largest relative change of size.
        brightness: Largest shift of the grey levels, as a fraction of their range.
        contrast: Largest relative change of the contrast.
        flip: Whether to mirror half of the images, left to right. A mirrored heart is a rare malformation.

    Shape:
        - `images`: `(N, C, H, W)`, uint8. Output: the same shape and type, on the same device.

    Raises:
        ValueError: If a strength is negative or too large.

    Examples:
        >>> augment = ClassicalAugment(rotation=5)
        >>> images = torch.randint(256, (4, 1, 28, 28), dtype=torch.uint8)
        >>> changed = augment(images, rng=torch.Generator().manual_seed(0))
        >>> changed.shape, changed.dtype
        (torch.Size([4, 1, 28, 28]), torch.uint8)
    """

    rotation: float = 10.0
    _: KW_ONLY
    translation: float = 0.05
    scale: float = 0.1
    brightness: float = 0.1
    contrast: float = 0.1
    flip: bool = False

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            if not 0 <= getattr(self, name) <= limit:
                unit = "degrees" if name == "rotation" else "a fraction"
                raise ValueError(f"{name} must lie in [0, {limit:g}], {unit}, got {getattr(self, name)}.")

    def __call__(self, images: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Return changed images.

        Args:
            images: A batch of images.
            rng: Source of randomness; None for the default one. If it is on another device, parameters are drawn there
                and moved.

        Raises:
            ValueError: If the images are not a batch of uint8 images.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"images must be uint8 of the shape (N, C, H, W), got {images.dtype} of the shape "
                f"{tuple(images.shape)}. Convert images in [-1, 1] with condgan.images.to_uint8."
            )
        source = images.device if rng is None else rng.device
        # one draw of all parameters, so that switching one off changes no other
        u = torch.rand(7, len(images), generator=rng, device=source).to(images.device)
        angle, down, right, size, bright, contrast, mirror = 2 * u - 1
        x = images.float()
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (1 + self.contrast * _per_image(contrast)) * (x - mean) + mean + 255 * self.brightness * _per_image(bright)
        side = torch.where(mirror < 0, -1.0, 1.0) if self.flip else torch.ones_like(mirror)
        grid = _grid(
            images.shape,
            angle=math.radians(self.rotation) * angle,
            magnification=1 + self.scale * size,
            shift=2 * self.translation * torch.stack([right, down], 1),
            side=side,
        )
        x = F.grid_sample(x.clamp(0, 255), grid, padding_mode="zeros", align_corners=False)
        return x.round().to(torch.uint8)


def _grid(shape: torch.Size, *, angle: Tensor, magnification: Tensor, shift: Tensor, side: Tensor) -> Tensor:
    """Return where each pixel of the result comes from, `(N, H, W, 2)`, in units of half the width and height."""
    height, width = shape[2:]
    cosine, sine = angle.cos() / magnification, angle.sin() / magnification
    rows = [
        torch.stack([side * cosine, -side * sine * height / width, shift[:, 0]], 1),
        torch.stack([sine * width / height, cosine, shift[:, 1]], 1),
    ]
    return F.affine_grid(torch.stack(rows, 1), list(shape), align_corners=False)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]
