"""The networks of R3GAN: residual blocks of grouped convolutions without any normalization.

They are the deepest of the library: on one CPU core, at 32 pixels and with the same `base_channels`, a step of the
recipe `r3gan` takes three times as long as with residual networks, and ten times as long as with DCGAN's.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from einops import reduce
from torch import Tensor, nn
from typing_extensions import override

from condgan.files import check_count
from condgan.networks.base import Critic, Generator, channels_and_sides
from condgan.networks.heads import (
    AuxiliaryClassifierMixin,
    ConcatenationMixin,
    ContrastiveMixin,
    DiscriminativeClassifierMixin,
    ProjectionMixin,
    TwinAuxiliaryClassifierMixin,
)
from condgan.nn.activations import AvgPool2d
from condgan.nn.blocks import InvertedBottleneckBlock, pyramid
from condgan.nn.convolution import Conv2d, upsample
from condgan.nn.layers import ConcatenatedEmbedding
from condgan.types import ImageShape


class R3GANGenerator(Generator):
    r"""Inverted bottlenecks between bilinear enlargements of a learned map, tanh at the end; no normalization.

    The smallest map is a learned basis, scaled channel by channel: $h_c = b_c\,(W [z; e_y])_c$.

    Deviations from the paper: any height and width; one number, `base_channels`, for the widths, which the paper
    chooses for each data set; tanh bounds the images, where the paper has no last activation and images may leave
    [-1, 1] a little.

    Args:
        latent_dim: Latent features Z.
        num_classes: Classes K, or None for an unconditional generator.
        image_shape: `(C, H, W)`; any C, H and W at least 16.
        base_channels: Channels of the largest map; they double towards the smallest, eightfold at most.
        blocks_per_size: Residual blocks on the maps of each size.
        embed_dim: Features of the class embedding, which is concatenated with `z`.

    Shape:
        - `z`: `(N, Z)`; `y`: `(N,)`, int64 in `[0, K)`, or None. Output: `(N, C, H, W)` in [-1, 1].

    Raises:
        ValueError: If a side is shorter than 16, or a size is not positive.

    References:
        Huang et al. 2024, arXiv:2501.05441, section 4.

    Examples:
        >>> generator = R3GANGenerator(num_classes=3, image_shape=(1, 28, 36), base_channels=8)
        >>> generator(torch.randn(2, 128), torch.tensor([0, 2])).shape
        torch.Size([2, 1, 28, 36])
    """

    def __init__(
        self,
        *,
        latent_dim: int = 128,
        num_classes: int | None,
        image_shape: ImageShape,
        base_channels: int = 64,
        blocks_per_size: int = 2,
        embed_dim: int = 32,
    ) -> None:
        super().__init__(latent_dim=latent_dim, num_classes=num_classes, image_shape=image_shape)
        for name, count in (("base_channels", base_channels), ("embed_dim", embed_dim)):
            check_count(name, count)
        channels, height, width = channels_and_sides(image_shape)
        self.sizes = pyramid(height, width)
        widths = _widths(base_channels, len(self.sizes))[::-1]
        self.embedding = ConcatenatedEmbedding(num_classes, embed_dim)
        self.project = nn.Linear(latent_dim + self.embedding.extra_features, widths[0])
        self.basis = nn.Parameter(torch.randn(widths[0], *self.sizes[0]))
        self.stages = nn.ModuleList(_stage(c, blocks_per_size) for c in widths)
        self.transitions = nn.ModuleList(_transition(c_in, c_out) for c_in, c_out in pairwise(widths))
        self.to_image = Conv2d(widths[-1], channels, 1, bias=False)
        init_fixup(self)

    @override
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        scale = self.project(self.embedding(z, y))
        h = self.stages[0](self.basis.to(scale.dtype) * scale[:, :, None, None])
        for size, transition, stage in zip(self.sizes[1:], self.transitions, self.stages[1:], strict=True):
            # A 1x1 convolution commutes with interpolation, and is cheaper before it.
            h = stage(upsample(transition(h), size, mode="bilinear"))
        return torch.tanh(self.to_image(h))


class R3GANCritic(Critic):
    r"""The mirror image of `R3GANGenerator`: inverted bottlenecks between halvings, without any normalization.

    The features are one learned weighted sum of each channel of the last map: $h_c = \sum_p b_{c,p}\, m_{c,p}$, a
    depthwise convolution with a kernel of the map's size.

    Deviations from the paper: those of `R3GANGenerator`; a critic with classes has the heads of the mixins.

    Args:
        num_classes: Classes K, or None without classes.
        image_shape: `(C, H, W)`; any C, H and W at least 16.
        base_channels: Channels of the largest map; they double to the smallest, eightfold at most.
        blocks_per_size: Residual blocks on the maps of each size.

    Shape:
        - `x`: `(N, C, H, W)` in [-1, 1]; `y`: `(N,)`, int64 in `[0, K)`, or None. Output: a `CriticOutput`.

    Raises:
        ValueError: If a side is shorter than 16, or a size is not positive.

    References:
        Huang et al. 2024, arXiv:2501.05441, section 4.

    Examples:
        >>> critic = R3GANCritic(num_classes=None, image_shape=(3, 48, 80), base_channels=8)
        >>> critic(torch.randn(2, 3, 48, 80)).score.shape
        torch.Size([2])
    """

    def __init__(
        self,
        *,
        num_classes: int | None,
        image_shape: ImageShape,
        base_channels: int = 64,
        blocks_per_size: int = 2,
    ) -> None:
        check_count("base_channels", base_channels)
        channels, height, width = channels_and_sides(image_shape)
        sizes = pyramid(height, width)
        widths = _widths(base_channels, len(sizes))
        super().__init__(feature_dim=widths[-1], num_classes=num_classes, image_shape=image_shape)
        self.blocks = nn.Sequential(
            nn.Sequential(Conv2d(channels, widths[0], 1, bias=False), _stage(widths[0], blocks_per_size)),
            # Bilinear interpolation to half of an even side is the mean of two by two.
            *(
                nn.Sequential(AvgPool2d(), _transition(c_in, c_out), _stage(c_out, blocks_per_size))
                for c_in, c_out in pairwise(widths)
            ),
        )
        self.basis = nn.Parameter(torch.randn(widths[-1], *sizes[0]) / math.sqrt(math.prod(sizes[0])))
        init_fixup(self)

    @override
    def features(self, x: Tensor) -> Tensor:
        summed: Tensor = reduce(self.blocks(x) * self.basis, "n c h w -> n c", "sum")
        return summed


class ACR3GANCritic(AuxiliaryClassifierMixin, R3GANCritic):
    """An `R3GANCritic` with an auxiliary class head (Odena et al. 2017, arXiv:1610.09585)."""


class ProjectionR3GANCritic(ProjectionMixin, R3GANCritic):
    """An `R3GANCritic` with a projection score (Miyato and Koyama 2018, arXiv:1802.05637)."""


class ConcatenationR3GANCritic(ConcatenationMixin, R3GANCritic):
    """An `R3GANCritic` that combines features and label in one layer (Mirza and Osindero 2014, arXiv:1411.1784)."""


class ACProjectionR3GANCritic(AuxiliaryClassifierMixin, ProjectionMixin, R3GANCritic):
    """An `R3GANCritic` with a class head and a projection score, as Kavalerov et al. 2021, arXiv:1912.04216, have."""


class TACR3GANCritic(TwinAuxiliaryClassifierMixin, R3GANCritic):
    """An `R3GANCritic` with twin class heads (Gong et al. 2019, arXiv:1907.02690)."""


class ADCR3GANCritic(DiscriminativeClassifierMixin, R3GANCritic):
    """An `R3GANCritic` with a head for real and generated classes (Hou et al. 2022, arXiv:2107.10060)."""


class ContrastiveR3GANCritic(ContrastiveMixin, R3GANCritic):
    """An `R3GANCritic` with unit embeddings and class proxies (Kang et al. 2021, arXiv:2111.01118)."""


@torch.no_grad()
def init_fixup(network: nn.Module) -> None:
    r"""Draw weights so that maps neither grow nor shrink with depth, although nothing normalizes them.

    Weights have the variance $1 / \mathrm{fan\_in}$ and biases are zero. With $L$ residual blocks, the first two
    convolutions of each have He's gain for leaky ReLU times $L^{-1/4}$, the last one is zero: at first every block is
    the identity.

    References:
        Zhang et al. 2019, arXiv:1901.09321 (fixup); Huang et al. 2024, arXiv:2501.05441, section 4.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.weight[0].numel()))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    blocks = [block for block in network.modules() if isinstance(block, InvertedBottleneckBlock)]
    for block in blocks:
        gain = nn.init.calculate_gain("leaky_relu", block.activation.negative_slope) * len(blocks) ** -0.25
        block.expand.weight.mul_(gain)
        block.mix.weight.mul_(gain)
        nn.init.zeros_(block.reduce.weight)


def _widths(base_channels: int, count: int) -> list[int]:
    return [base_channels * min(8, 2**i) for i in range(count)]


def _stage(channels: int, blocks: int) -> nn.Sequential:
    check_count("blocks_per_size", blocks)
    return nn.Sequential(*(InvertedBottleneckBlock(channels) for _ in range(blocks)))


def _transition(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Identity() if in_channels == out_channels else Conv2d(in_channels, out_channels, 1, bias=False)
