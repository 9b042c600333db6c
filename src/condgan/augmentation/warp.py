"""Shifting, scaling and rotating images, each by its own amount."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def warp(x: Tensor, *, shift: Tensor, scale: Tensor, angle: Tensor) -> Tensor:
    r"""Return images scaled and rotated around their centre, then shifted, by bilinear interpolation; zero outside.

    The value at a place $v$ of the result is that of the image at $\frac1s R(-\varphi)(v - t)$. It is linear in the
    image, with derivatives of any order, which PyTorch's `grid_sample` lacks; without a change it is exact.

    Args:
        x: Images.
        shift: Shift $t$ in pixels, rows and columns.
        scale: Factor $s$ of the size.
        angle: Angle $\varphi$ in radians, from the rows' to the columns' axis.

    Shape:
        - `x`: `(N, C, H, W)`, floating point. `shift`: `(N, 2)`; `scale`, `angle`: `(N,)`; floating point.
        - Returns: `(N, C, H, W)`, in the type of `x`.
    """
    height, width = x.shape[2:]
    dtype = torch.promote_types(x.dtype, torch.float32)
    shift, scale, angle = (value.to(dtype)[..., None, None] for value in (shift, scale, angle))
    middle = (height - 1) / 2, (width - 1) / 2
    down = torch.arange(height, device=x.device)[:, None] - middle[0] - shift[:, 0]
    right = torch.arange(width, device=x.device) - middle[1] - shift[:, 1]
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = cosine * down + sine * right + middle[0]
    columns = cosine * right - sine * down + middle[1]
    out = torch.zeros_like(x)
    for corner in itertools.product((0, 1), repeat=2):
        row, column = rows.floor() + corner[0], columns.floor() + corner[1]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        weight = (1 - (rows - row).abs()) * (1 - (columns - column).abs()) * inside
        index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
        picked = x.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, x.shape[1], -1))
        out = out + picked.view_as(x) * weight[:, None].to(x.dtype)
    return out
