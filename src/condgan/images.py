"""Conversion of images between uint8 in [0, 255] and floats in [-1, 1]; sheets of images, and PNG files."""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    r"""Return $x = u / 127.5 - 1$ for uint8 images $u$; floating-point samples are returned unchanged.

    Shape:
        - `images`: `(N, *)`, uint8 in [0, 255] or floating point. Output: `(N, *)`, float32 in [-1, 1] for uint8.
    """
    return images.to(torch.float32).div_(127.5).sub_(1.0) if images.dtype == torch.uint8 else images


def dequantize(images: Tensor, noise: Tensor) -> Tensor:
    r"""Return $x = (u + \epsilon) / 128 - 1$, which spreads each grey level evenly over its interval.

    Shape:
        - `images`: `(N, *)`, uint8; `noise`: the same shape, uniform in [0, 1). Output: `(N, *)`, in [-1, 1].

    References:
        Theis et al. 2016, arXiv:1511.01844.
    """
    return images.to(noise.dtype).add_(noise).div_(128.0).sub_(1.0)


def to_uint8(x: Tensor) -> Tensor:
    """Return images in [-1, 1] as uint8 in [0, 255], rounded, clipped where they lie outside.

    Shape:
        - `x`: `(N, *)`, floating point. Output: `(N, *)`, uint8.

    Examples:
        >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
        tensor([  0, 128, 255, 255], dtype=torch.uint8)
    """
    return x.detach().to(torch.float32).add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def image_grid(images: Tensor, *, columns: int, padding: int = 2, background: int = 255) -> Tensor:
    """Lay uint8 images out on one sheet, row by row.

    Args:
        images: The images.
        columns: Images per row.
        padding: Pixels between and around the images.
        background: Grey level between the images.

    Shape:
        - `images`: `(N, C, H, W)`, uint8. Output: `(C, height, width)`, uint8.

    Examples:
        >>> image_grid(torch.zeros(6, 1, 28, 28, dtype=torch.uint8), columns=3).shape
        torch.Size([1, 62, 92])
    """
    missing = -len(images) % columns
    blank = images.new_full((missing, *images.shape[1:]), background)
    framed = torch.nn.functional.pad(torch.cat([images, blank]), (padding, 0, padding, 0), value=background)
    sheet = rearrange(framed, "(rows columns) c h w -> c (rows h) (columns w)", columns=columns)
    return torch.nn.functional.pad(sheet, (0, padding, 0, padding), value=background)


def save_sheet(images: Tensor, path: Path, *, columns: int) -> None:
    """Save uint8 images on one sheet, row by row, as `save_picture` saves one.

    Shape:
        - `images`: `(N, C, H, W)`, uint8.
    """
    save_picture(image_grid(images, columns=columns), path)


def save_picture(image: Tensor, path: Path) -> None:
    """Save one uint8 image as PNG: 3 channels as RGB, of any other number the first as greyscale.

    A missing folder is made.

    Shape:
        - `image`: `(C, H, W)`, uint8, on the CPU.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image.permute(1, 2, 0) if len(image) == 3 else image[0]).numpy()).save(path)
