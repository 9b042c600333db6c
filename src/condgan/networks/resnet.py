"""Residual networks in the style of WGAN-GP, SNGAN and BigGAN: larger and slower than those of DCGAN."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn
from typing_extensions import override

from condgan.files import check_count
from condgan.networks.base import (
    Conditioning,
    Critic,
    Generator,
    channels_and_sides,
    conditional_classes,
)
from condgan.networks.heads import (
    AuxiliaryClassifierMixin,
    ConcatenationMixin,
    ContrastiveMixin,
    DiscriminativeClassifierMixin,
    ProjectionMixin,
    TwinAuxiliaryClassifierMixin,
)
from condgan.nn.activations import LeakyReLU
from condgan.nn.blocks import DownResidualBlock, UpResidualBlock, pyramid
from condgan.nn.convolution import Size
from condgan.nn.layers import ConcatenatedEmbedding, ConditionalBatchNorm2d, SelfAttention2d, spectral_normalize
from condgan.types import ImageShape


class ResNetGenerator(Generator):
    """Residual blocks with nearest-neighbour up-sampling and (conditional) batch norm, tanh at the end.

    Args:
        latent_dim: Latent features Z.
        num_classes: Classes K, or None for an unconditional generator.
        image_shape: `(C, H, W)`; any C, H and W at least 16.
        base_channels: Channels of the largest map; they double towards the smallest, eightfold at most.
        conditioning: Class-conditional `"batch_norm"`, or `"concatenation"` of a class embedding with `z`.
        embed_dim: Features of the concatenated class embedding.
        attention_at: Shorter side of the feature map after which self-attention is put, or None for none.

    Shape:
        - `z`: `(N, Z)`; `y`: `(N,)`, int64 in `[0, K)`, or None. Output: `(N, C, H, W)` in [-1, 1].

    Raises:
        ValueError: If a side is shorter than 16, a size is not positive, or no map has the side `attention_at`.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028; Miyato et al. 2018, arXiv:1802.05957.

    Examples:
        >>> generator = ResNetGenerator(num_classes=3, image_shape=(1, 28, 28), base_channels=8)
        >>> generator(torch.randn(2, 128), torch.tensor([0, 2])).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        *,
        latent_dim: int = 128,
        num_classes: int | None,
        image_shape: ImageShape,
        base_channels: int = 64,
        conditioning: Conditioning = "batch_norm",
        embed_dim: int = 32,
        attention_at: int | None = None,
    ) -> None:
        super().__init__(latent_dim=latent_dim, num_classes=num_classes, image_shape=image_shape)
        check_count("base_channels", base_channels)
        check_count("embed_dim", embed_dim)
        concatenated, normed = conditional_classes(conditioning, num_classes)
        norm = partial(ConditionalBatchNorm2d, num_classes=normed)
        channels, height, width = channels_and_sides(image_shape)
        sizes = pyramid(height, width)
        widths = [base_channels * min(8, 2**i) for i in reversed(range(len(sizes)))]
        attended = attention_index(attention_at, sizes[1:])
        self.base_size = sizes[0]
        self.embedding = ConcatenatedEmbedding(concatenated, embed_dim)
        self.project = nn.Linear(latent_dim + self.embedding.extra_features, widths[0] * sizes[0][0] * sizes[0][1])
        self.blocks = nn.ModuleList(
            UpResidualBlock(c_in, c_out, size=size, norm=norm)
            for c_in, c_out, size in zip(widths[:-1], widths[1:], sizes[1:], strict=True)
        )
        self.attention = nn.ModuleList(
            SelfAttention2d(c) if i == attended else nn.Identity() for i, c in enumerate(widths[1:])
        )
        self.norm = norm(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)
        self.apply(init_xavier)

    @override
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        height, width = self.base_size
        h = rearrange(self.project(self.embedding(z, y)), "n (c h w) -> n c h w", h=height, w=width)
        for block, attention in zip(self.blocks, self.attention, strict=True):
            h = attention(block(h, y))
        return torch.tanh(self.to_image(F.relu(self.norm(h, y))))


class ResNetCritic(Critic):
    """Residual blocks with average pooling, without normalization over the batch; the last map is summed over pixels.

    A sum, not a mean: under spectral norm or a gradient penalty the range of the mean is too small for the heads to
    learn from.

    Args:
        num_classes: Classes K, or None without classes.
        image_shape: `(C, H, W)`; any C, H and W at least 16.
        base_channels: Channels of the first block's output; they double to the smallest map, eightfold at most.
        spectral_norm: Divide each weight by its largest singular value.
        attention_at: Shorter side of the feature map after which self-attention is put, or None for none.

    Shape:
        - `x`: `(N, C, H, W)` in [-1, 1]; `y`: `(N,)`, int64 in `[0, K)`, or None. Output: a `CriticOutput`.

    Raises:
        ValueError: If a side is shorter than 16, a size is not positive, or no map has the side `attention_at`.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028; Miyato et al. 2018, arXiv:1802.05957.

    Examples:
        >>> critic = ResNetCritic(num_classes=None, image_shape=(3, 48, 80), base_channels=8)
        >>> critic(torch.randn(2, 3, 48, 80)).score.shape
        torch.Size([2])
    """

    def __init__(
        self,
        *,
        num_classes: int | None,
        image_shape: ImageShape,
        base_channels: int = 64,
        spectral_norm: bool = False,
        attention_at: int | None = None,
    ) -> None:
        check_count("base_channels", base_channels)
        channels, height, width = channels_and_sides(image_shape)
        sizes = pyramid(height, width)
        widths = [channels] + [base_channels * min(8, 2**i) for i in range(len(sizes) - 1)]
        super().__init__(feature_dim=widths[-1], num_classes=num_classes, image_shape=image_shape)
        attended = attention_index(attention_at, sizes[-2::-1])
        blocks: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(pairwise(widths)):
            blocks.append(DownResidualBlock(c_in, c_out, first=i == 0))
            if i == attended:
                blocks.append(SelfAttention2d(c_out))
        self.blocks = nn.Sequential(*blocks, LeakyReLU(0.0))
        self.apply(init_xavier)
        if spectral_norm:
            spectral_normalize(self)

    @override
    def features(self, x: Tensor) -> Tensor:
        pooled: Tensor = reduce(self.blocks(x), "n c h w -> n c", "sum")
        return pooled


class ACResNetCritic(AuxiliaryClassifierMixin, ResNetCritic):
    """A `ResNetCritic` with an auxiliary class head (Odena et al. 2017, arXiv:1610.09585)."""


class ProjectionResNetCritic(ProjectionMixin, ResNetCritic):
    """A `ResNetCritic` with a projection score (Miyato and Koyama 2018, arXiv:1802.05637)."""


class ConcatenationResNetCritic(ConcatenationMixin, ResNetCritic):
    """A `ResNetCritic` that combines features and label in one layer (Mirza and Osindero 2014, arXiv:1411.1784)."""


class ACProjectionResNetCritic(AuxiliaryClassifierMixin, ProjectionMixin, ResNetCritic):
    """A `ResNetCritic` with a class head and a projection score, as Kavalerov et al. 2021, arXiv:1912.04216, have."""


class TACResNetCritic(TwinAuxiliaryClassifierMixin, ResNetCritic):
    """A `ResNetCritic` with twin class heads (Gong et al. 2019, arXiv:1907.02690)."""


class ADCResNetCritic(DiscriminativeClassifierMixin, ResNetCritic):
    """A `ResNetCritic` with a head for real and generated classes (Hou et al. 2022, arXiv:2107.10060)."""


class ContrastiveResNetCritic(ContrastiveMixin, ResNetCritic):
    """A `ResNetCritic` with unit embeddings and class proxies (Kang et al. 2021, arXiv:2111.01118)."""


def attention_index(side: int | None, sizes: list[Size]) -> int | None:
    """Return the index in `sizes` of the map whose shorter side is `side`; None if `side` is None.

    Raises:
        ValueError: If no size has that side.
    """
    if side is None:
        return None
    sides = [min(size) for size in sizes]
    if side not in sides:
        raise ValueError(f"attention_at must be the shorter side of a feature map, one of {sorted(sides)}, got {side}.")
    return sides.index(side)


def init_xavier(module: nn.Module) -> None:
    """Draw weights by Glorot's uniform rule and set biases to zero."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
