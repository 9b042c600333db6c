r"""Up-sampling or pooling fused with a convolution.

Both resizings are linear and work on blocks of two by two positions, so that they can be done to the weights instead of
the maps: a 3x3 convolution becomes a 4x4 one of stride two, which computes the same function
with 16 multiplications where there were 36, and the large map in between is never made. Progressive growing has this
as "fused scale" (Karras et al. 2018, arXiv:1710.10196, in the code).

Maps that are pooled at odd sides, or not exactly doubled, are resized and convolved one after the other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from condgan.nn.activations import avg_pool2d
from condgan.nn.convolution import Conv2d, conv2d

Size = tuple[int, int]


def upsample(x: Tensor, size: Size) -> Tensor:
    """Enlarge feature maps to `size` by nearest-neighbour interpolation, in their own type.

    Autocast on the CPU would do it in float32, and copying from one type to the other costs more than the enlarging.

    Shape:
        - `x`: `(N, C, *, *)`. Output: `(N, C, *size)`.
    """
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, size)


class UpsampleConv2d(nn.Conv2d):
    r"""Nearest-neighbour up-sampling to `size`, then a 3x3 convolution.

    For twice the sides it is the transposed convolution of stride two with the flipped kernel
    $\tilde w = w * \begin{pmatrix} 1 & 1 \\ 1 & 1 \end{pmatrix}$. Unlike one whose weights are free, it leaves no
    checkerboard.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether there is one.

    Shape:
        - `x`: `(N, in_channels, H, W)`. Output: `(N, out_channels, *size)`.

    Examples:
        >>> UpsampleConv2d(4, 2)(torch.randn(3, 4, 5, 5), (10, 10)).shape
        torch.Size([3, 2, 10, 10])
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    @override
    def forward(self, x: Tensor, size: Size) -> Tensor:  # type: ignore[override]
        if size == (2 * x.shape[-2], 2 * x.shape[-1]):
            return F.conv_transpose2d(x, _doubling_kernel(self.weight), self.bias, stride=2, padding=1)
        return super().forward(upsample(x, size))


class ConvPool2d(Conv2d):
    r"""A 3x3 convolution, then 2x2 average pooling (smaller windows at odd edges), for critics under a penalty.

    For even sides it is the convolution of stride two with the kernel
    $\tilde w = \tfrac14 w * \begin{pmatrix} 1 & 1 \\ 1 & 1 \end{pmatrix}$.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether there is one.

    Shape:
        - `input`: `(N, in_channels, H, W)`. Output: `(N, out_channels, ceil(H / 2), ceil(W / 2))`.

    Examples:
        >>> ConvPool2d(4, 2)(torch.randn(3, 4, 10, 10)).shape
        torch.Size([3, 2, 5, 5])
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    @override
    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[-2:]
        if height % 2 or width % 2:
            return avg_pool2d(super().forward(input))
        kernel = F.avg_pool2d(self.weight, 2, stride=1, padding=1)
        return conv2d(input, kernel, self.bias, stride=2, padding=1)


def _doubling_kernel(weight: Tensor) -> Tensor:
    # The channels of the output are made the last in memory: from any other layout libraries convert a transposed
    # kernel slowly, at small maps for longer than the convolution takes.
    rows = weight.permute(0, 2, 3, 1).flatten(1).t().contiguous().unflatten(0, (3, 3, weight.shape[1]))
    first, middle, last = rows.unbind(0)
    columns = torch.stack([last, middle + last, first + middle, first])
    first, middle, last = columns.unbind(1)
    return torch.stack([last, middle + last, first + middle, first], 1).permute(2, 3, 0, 1)
