"""Small and fast networks in the style of DCGAN."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
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
from condgan.nn.blocks import DownBlock, UpBlock, pyramid
from condgan.nn.convolution import UpsampleConv2d
from condgan.nn.layers import ConcatenatedEmbedding, ConditionalBatchNorm2d, spectral_normalize
from condgan.types import ImageShape


class DCGANGenerator(Generator):
    """A stack of up-sampling blocks with batch norm and ReLU, tanh at the end.

    Deviation from the paper: nearest-neighbour resizing and 3x3 convolutions instead of transposed ones, which leave
    a checkerboard. So the image may have any height and width of at least 16.

    Args:
        latent_dim: Latent features Z.
        num_classes: Classes K, or None for an unconditional generator.
        image_shape: `(C, H, W)`; any C, H and W at least 16.
        base_channels: Channels of the last hidden map; they double towards the smallest map, eightfold at most.
        conditioning: `"concatenation"` of a class embedding with `z`, or class-conditional `"batch_norm"`.
        embed_dim: Features of the concatenated class embedding.

    Shape:
        - `z`: `(N, Z)`; `y`: `(N,)`, int64 in `[0, K)`, or None. Output: `(N, C, H, W)` in [-1, 1].

    Raises:
        ValueError: If a side is shorter than 16, or a size is not positive.

    References:
        Radford et al. 2016, arXiv:1511.06434.

    Examples:
        >>> generator = DCGANGenerator(num_classes=5, image_shape=(3, 48, 80), base_channels=8)
        >>> generator(torch.randn(2, 128), torch.tensor([0, 4])).shape
        torch.Size([2, 3, 48, 80])
    """

    def __init__(
        self,
        *,
        latent_dim: int = 128,
        num_classes: int | None,
        image_shape: ImageShape,
        base_channels: int = 64,
        conditioning: Conditioning = "concatenation",
        embed_dim: int = 32,
    ) -> None:
        super().__init__(latent_dim=latent_dim, num_classes=num_classes, image_shape=image_shape)
        check_count("base_channels", base_channels)
        check_count("embed_dim", embed_dim)
        concatenated, normed = conditional_classes(conditioning, num_classes)
        norm = partial(ConditionalBatchNorm2d, num_classes=normed)
        channels, height, width = channels_and_sides(image_shape)
        sizes = pyramid(height, width)
        widths = [base_channels * min(8, 2**i) for i in reversed(range(len(sizes) - 1))]
        self.base_size, self.image_size = sizes[0], sizes[-1]
        self.embedding = ConcatenatedEmbedding(concatenated, embed_dim)
        self.project = nn.Linear(latent_dim + self.embedding.extra_features, widths[0] * sizes[0][0] * sizes[0][1])
        self.norm = norm(widths[0])
        self.blocks = nn.ModuleList(
            UpBlock(c_in, c_out, size=size, norm=norm)
            for c_in, c_out, size in zip(widths[:-1], widths[1:], sizes[1:-1], strict=True)
        )
        self.to_image = UpsampleConv2d(widths[-1], channels)
        self.apply(init_normal)

    @override
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        height, width = self.base_size
        h = rearrange(self.project(self.embedding(z, y)), "n (c h w) -> n c h w", h=height, w=width)
        h = F.relu(self.norm(h, y))
        for block in self.blocks:
            h = block(h, y)
        return torch.tanh(self.to_image(h, self.image_size))


class DCGANCritic(Critic):
    """A stack of strided convolutions with leaky ReLU; the flattened last map is the feature vector.

    Args:
        num_classes: Classes K, or None without classes.
        image_shape: `(C, H, W)`; any C, H and W at least 16.
        base_channels: Channels of the first map; they double to the smallest map, eightfold at most.
        batch_norm: Normalize over the batch, as DCGAN and ACGAN do. Gradient penalties refuse it, because they are
            defined for each sample alone.
        spectral_norm: Divide each weight by its largest singular value.
        dropout: Probability of dropping a feature after each block.

    Shape:
        - `x`: `(N, C, H, W)` in [-1, 1]; `y`: `(N,)`, int64 in `[0, K)`, or None. Output: a `CriticOutput`.

    Raises:
        ValueError: If a side is shorter than 16, or a size is not positive.

    References:
        Radford et al. 2016, arXiv:1511.06434.

    Examples:
        >>> critic = DCGANCritic(num_classes=None, image_shape=(1, 28, 28), base_channels=8)
        >>> critic(torch.randn(2, 1, 28, 28)).score.shape
        torch.Size([2])
    """

    def __init__(
        self,
        *,
        num_classes: int | None,
        image_shape: ImageShape,
        base_channels: int = 64,
        batch_norm: bool = False,
        spectral_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        check_count("base_channels", base_channels)
        channels, height, width = channels_and_sides(image_shape)
        stages = len(pyramid(height, width)) - 1
        widths = [base_channels * min(8, 2**i) for i in range(stages)]
        feature_dim = widths[-1] * (height >> stages) * (width >> stages)
        super().__init__(feature_dim=feature_dim, num_classes=num_classes, image_shape=image_shape)
        norm = ConditionalBatchNorm2d if batch_norm else None
        self.blocks = nn.Sequential(
            DownBlock(channels, widths[0], dropout=dropout),
            *(DownBlock(c_in, c_out, norm=norm, dropout=dropout) for c_in, c_out in pairwise(widths)),
        )
        self.apply(init_normal)
        if spectral_norm:
            spectral_normalize(self)

    @override
    def features(self, x: Tensor) -> Tensor:
        return torch.flatten(self.blocks(x), 1)


class ACDCGANCritic(AuxiliaryClassifierMixin, DCGANCritic):
    """A `DCGANCritic` with an auxiliary class head (Odena et al. 2017, arXiv:1610.09585)."""


class ProjectionDCGANCritic(ProjectionMixin, DCGANCritic):
    """A `DCGANCritic` with a projection score (Miyato and Koyama 2018, arXiv:1802.05637)."""


class ConcatenationDCGANCritic(ConcatenationMixin, DCGANCritic):
    """A `DCGANCritic` that combines features and label in one layer (Mirza and Osindero 2014, arXiv:1411.1784)."""


class ACProjectionDCGANCritic(AuxiliaryClassifierMixin, ProjectionMixin, DCGANCritic):
    """A `DCGANCritic` with a class head and a projection score, as Kavalerov et al. 2021, arXiv:1912.04216, have."""


class TACDCGANCritic(TwinAuxiliaryClassifierMixin, DCGANCritic):
    """A `DCGANCritic` with twin class heads (Gong et al. 2019, arXiv:1907.02690)."""


class ADCDCGANCritic(DiscriminativeClassifierMixin, DCGANCritic):
    """A `DCGANCritic` with a head for real and generated classes (Hou et al. 2022, arXiv:2107.10060)."""


class ContrastiveDCGANCritic(ContrastiveMixin, DCGANCritic):
    """A `DCGANCritic` with unit embeddings and class proxies (Kang et al. 2021, arXiv:2111.01118)."""


def init_normal(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02²), as Radford et al. do, and set biases to zero."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
