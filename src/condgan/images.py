"""Conversion of images between uint8 in [0, 255] and floats in [-1, 1]; sheets of images, and PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unicodedata import combining, normalize

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from condgan.files import write_whole


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


def save_sheet(images: Tensor, path: Path, *, columns: int, row_names: Sequence[str] = ()) -> None:
    """Save uint8 images on one sheet, row by row, as `save_picture` saves one.

    Args:
        images: The images.
        path: The file.
        columns: Images per row.
        row_names: A name for each row, which is written to its left.

    Shape:
        - `images`: `(N, C, H, W)`, uint8.
    """
    sheet = image_grid(images, columns=columns)
    if row_names:
        names = _names_of_rows(row_names, height=sheet.shape[1])
        sheet = torch.cat([names.expand(len(sheet), -1, -1), sheet], dim=2)
    save_picture(sheet, path)


def _names_of_rows(names: Sequence[str], *, height: int) -> Tensor:
    """Return a strip with names, `(height, width)` uint8."""
    font = ImageFont.load_default()
    # the font has no accents, and a name has one line
    lines = ["".join(c for c in normalize("NFKD", name) if c.isprintable() and not combining(c)) for name in names]
    strip = Image.new("L", (8 + round(max(map(font.getlength, lines))), height), "white")
    for row, line in enumerate(lines):
        ImageDraw.Draw(strip).text((4, (row + 0.5) * height / len(lines)), line, fill="black", font=font, anchor="lm")
    return torch.from_numpy(np.array(strip))


def save_picture(image: Tensor, path: Path, *, sync: bool = True) -> None:
    """Save one uint8 image as PNG, whole or not at all: 3 channels as RGB, of any other number the first as greyscale.

    A missing folder is made.

    Args:
        image: The image.
        path: The file.
        sync: Whether to wait until it is on disk.

    Shape:
        - `image`: `(C, H, W)`, uint8, on the CPU.
    """
    picture = Image.fromarray((image.permute(1, 2, 0) if len(image) == 3 else image[0]).numpy())
    with write_whole(path, sync=sync) as file:
        picture.save(file, format="PNG")
