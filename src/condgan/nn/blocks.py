"""Blocks that generators and critics are composed of."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from condgan.nn.activations import AvgPool2d, LeakyReLU
from condgan.nn.convolution import Conv2d, ConvPool2d, Size, TransposedConv2d, UpsampleConv2d, upsample
from condgan.nn.layers import ConditionalBatchNorm2d

NormFactory = Callable[[int], ConditionalBatchNorm2d]
"""Makes a normalization for a number of channels, called as `norm(x, y)`."""

UpsamplingLayer = type[UpsampleConv2d] | type[TransposedConv2d]
"""A convolution that doubles the sides of feature maps, called as `layer(x, size)`."""


def pyramid(height: int, width: int, *, base: int = 4) -> list[Size]:
    """Return the sizes of feature maps from the smallest to the image, each about twice the previous one.

    Sides are halved (rounded up) as long as the shorter one stays at least `base`.

    Raises:
        ValueError: If a side is shorter than 16.

    Examples:
        >>> pyramid(28, 28)
        [(7, 7), (14, 14), (28, 28)]
        >>> pyramid(48, 80)
        [(6, 10), (12, 20), (24, 40), (48, 80)]
    """
    check_sides(height, width)
    return halved(height, width, base=base)


def halved(height: int, width: int, *, base: int = 4) -> list[Size]:
    """Return what `pyramid` does, for maps of any size."""
    sizes = [(height, width)]
    while min(sizes[0]) >= 2 * base:
        sizes.insert(0, ((sizes[0][0] + 1) // 2, (sizes[0][1] + 1) // 2))
    return sizes


def check_sides(height: int, width: int) -> None:
    """Check that images are large enough for the networks.

    Raises:
        ValueError: If a side is shorter than 16.
    """
    if min(height, width) < 16:
        raise ValueError(f"images must be at least 16 pixels high and wide, got {height}x{width}. Enlarge them first.")


class UpBlock(nn.Module):
    """Up-sampling convolution, (conditional) batch norm, ReLU.

    Resizing before an ordinary convolution leaves no checkerboard, unlike transposed convolutions (Odena et al. 2016,
    distill.pub/2016/deconv-checkerboard).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        size: Height and width of the output.
        norm: Makes the normalization.
        layer: The convolution.

    Shape:
        - `x`: `(N, in_channels, *, *)`; `y`: `(N,)`, int64, or None. Output: `(N, out_channels, *size)`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        size: Size,
        norm: NormFactory,
        layer: UpsamplingLayer = UpsampleConv2d,
    ) -> None:
        super().__init__()
        self.size = size
        self.conv = layer(in_channels, out_channels, bias=False)
        self.norm = norm(out_channels)

    @override
    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return F.relu(self.norm(self.conv(x, self.size), y))


class DownBlock(nn.Module):
    """4x4 convolution of stride 2, optional batch norm, leaky ReLU, optional dropout.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        norm: Makes the normalization, or None for none.
        dropout: Probability of dropping a feature.

    Shape:
        - `x`: `(N, in_channels, H, W)`. Output: `(N, out_channels, H // 2, W // 2)`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, norm: NormFactory | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=norm is None)
        self.norm = nn.Identity() if norm is None else norm(out_channels)
        self.activation = LeakyReLU(0.2)
        self.dropout = nn.Dropout(dropout)

    @override
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.activation(self.norm(self.conv(x))))
        return out


class UpResidualBlock(nn.Module):
    """Pre-activation residual block that enlarges: norm, ReLU, up-sample, conv, norm, ReLU, conv, plus the shortcut.

    The convolutions have no bias: the norm after each, or the one after the last block, would cancel it.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        size: Height and width of the output.
        norm: Makes the normalizations.

    Shape:
        - `x`: `(N, in_channels, *, *)`; `y`: `(N,)`, int64, or None. Output: `(N, out_channels, *size)`.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028; Miyato et al. 2018, arXiv:1802.05957.
    """

    def __init__(self, in_channels: int, out_channels: int, *, size: Size, norm: NormFactory) -> None:
        super().__init__()
        self.size = size
        self.norm1 = norm(in_channels)
        self.conv1 = UpsampleConv2d(in_channels, out_channels, bias=False)
        self.norm2 = norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    @override
    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        enlarged = self.conv1(F.relu(self.norm1(x, y)), self.size)
        h: Tensor = self.conv2(F.relu(self.norm2(enlarged, y)))
        # A 1x1 convolution commutes with nearest-neighbour up-sampling, and is cheaper before it.
        return h + upsample(self.shortcut(x), self.size)


class DownResidualBlock(nn.Module):
    """Residual block that halves: [ReLU], conv, ReLU, conv, average pool, plus the pooled shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        first: Whether the input is the image itself, which no activation may clip.

    Shape:
        - `x`: `(N, in_channels, H, W)`. Output: `(N, out_channels, ceil(H / 2), ceil(W / 2))`.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028; Miyato et al. 2018, arXiv:1802.05957.
    """

    def __init__(self, in_channels: int, out_channels: int, *, first: bool = False) -> None:
        super().__init__()
        self.activation1 = nn.Identity() if first else LeakyReLU(0.0)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.activation2 = LeakyReLU(0.0)
        self.conv2 = ConvPool2d(out_channels, out_channels)
        self.shortcut = Conv2d(in_channels, out_channels, 1)
        self.pool = AvgPool2d()

    @override
    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv2(self.activation2(self.conv1(self.activation1(x))))
        # Average pooling is linear, so the 1x1 shortcut costs a quarter when applied after it.
        shortcut: Tensor = self.shortcut(self.pool(x))
        return h + shortcut


class InvertedBottleneckBlock(nn.Module):
    """Residual block without norm: 1x1 conv to more channels, 3x3 grouped conv, 1x1 conv back, plus the input.

    Leaky ReLU follows the first two convolutions, which have biases.

    Args:
        channels: Channels of input and output.
        expansion: Channels in between, as a multiple of `channels`, rounded up to whole groups.
        group_size: Channels of each group of the 3x3 convolution.

    Shape:
        - `x`: `(N, channels, H, W)`. Output: the same.

    References:
        Xie et al. 2017, arXiv:1611.05431 (groups); Sandler et al. 2018, arXiv:1801.04381 (inversion); Huang et al.
        2024, arXiv:2501.05441, section 4.
    """

    def __init__(self, channels: int, *, expansion: int = 2, group_size: int = 16) -> None:
        super().__init__()
        groups = math.ceil(expansion * channels / group_size)
        self.expand = Conv2d(channels, groups * group_size, 1)
        self.mix = Conv2d(groups * group_size, groups * group_size, 3, padding=1, groups=groups)
        self.reduce = Conv2d(groups * group_size, channels, 1, bias=False)
        self.activation = LeakyReLU(0.2)

    @override
    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.mix(self.activation(self.expand(x))))
        out: Tensor = x + self.reduce(h)
        return out
