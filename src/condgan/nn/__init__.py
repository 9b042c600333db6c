"""Layers and blocks for generators and critics of one's own."""

from condgan.nn.blocks import DownBlock, DownResidualBlock, UpBlock, UpResidualBlock, pyramid
from condgan.nn.layers import ConcatenatedEmbedding, ConditionalBatchNorm2d, SelfAttention2d, spectral_normalize

__all__ = [
    "ConcatenatedEmbedding",
    "ConditionalBatchNorm2d",
    "DownBlock",
    "DownResidualBlock",
    "SelfAttention2d",
    "UpBlock",
    "UpResidualBlock",
    "pyramid",
    "spectral_normalize",
]
