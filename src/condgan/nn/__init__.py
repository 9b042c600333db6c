"""Layers and blocks for your own generators and critics."""

from condgan.nn.activations import AvgPool2d, LeakyReLU, avg_pool2d, leaky_relu
from condgan.nn.blocks import DownBlock, DownResidualBlock, InvertedBottleneckBlock, UpBlock, UpResidualBlock, pyramid
from condgan.nn.convolution import Conv2d, ConvPool2d, TransposedConv2d, UpsampleConv2d, conv2d, upsample
from condgan.nn.layers import (
    ClassConditional,
    ConcatenatedEmbedding,
    ConditionalBatchNorm2d,
    SelfAttention2d,
    spectral_normalize,
)

__all__ = [
    "AvgPool2d",
    "ClassConditional",
    "ConcatenatedEmbedding",
    "ConditionalBatchNorm2d",
    "Conv2d",
    "ConvPool2d",
    "DownBlock",
    "DownResidualBlock",
    "InvertedBottleneckBlock",
    "LeakyReLU",
    "SelfAttention2d",
    "TransposedConv2d",
    "UpBlock",
    "UpResidualBlock",
    "UpsampleConv2d",
    "avg_pool2d",
    "conv2d",
    "leaky_relu",
    "pyramid",
    "spectral_normalize",
    "upsample",
]
