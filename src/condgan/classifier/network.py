"""The network of the classifier, and its predictions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from condgan.devices import plain_defaults
from condgan.images import to_float
from condgan.networks.base import seeded_weights
from condgan.types import ImageShape

Precision = Literal["fp32", "bf16"]

_FULL_STEM_FROM = 64
_PREDICTION_BATCH = 256


class ResNet18(nn.Module):
    """ResNet-18 from scratch for images of any number of channels.

    From 64 pixels up the stem is torchvision's (7x7 with stride 2, then max-pooling). For smaller images it is a 3x3
    convolution of stride 2 without pooling, which keeps four times as many positions; otherwise the last map would be
    one pixel. The head computes in float32 under autocast too, because logits in bfloat16 would tie.

    Weights are drawn from the CPU's default random generator.

    Args:
        image_shape: Channels, height and width of the images.
        num_classes: Number of classes K.

    Shape:
        - Input: `(N, C, H, W)`, float in [-1, 1].
        - Output: `(N, K)`, float32 logits.

    Attributes:
        stem: The stem in words, for results.

    Examples:
        >>> ResNet18((1, 28, 28), 2)(torch.zeros(4, 1, 28, 28)).shape
        torch.Size([4, 2])

    References:
        He et al. 2016, arXiv:1512.03385.
    """

    def __init__(self, image_shape: ImageShape, num_classes: int) -> None:
        super().__init__()
        from torchvision.models import resnet18

        channels, height, width = image_shape
        backbone = resnet18(weights=None, num_classes=num_classes)
        if min(height, width) >= _FULL_STEM_FROM:
            self.stem = "7x7 convolution, stride 2, max-pooling"
            stem = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        else:
            self.stem = "3x3 convolution, stride 2, no pooling"
            stem = nn.Conv2d(channels, 64, 3, stride=2, padding=1, bias=False)
            backbone.maxpool = nn.Identity()
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.head = backbone.fc
        backbone.conv1, backbone.fc = stem, nn.Identity()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """Return class logits."""
        h = self.backbone(x)
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.head(h.float())
        return logits


@plain_defaults()
def build_network(image_shape: tuple[int, ...], num_classes: int, *, seed: int) -> ResNet18:
    """Return a `ResNet18` in the channels-last layout whose weights depend on the seed alone."""
    channels, height, width = image_shape
    with seeded_weights(seed):
        network = ResNet18((channels, height, width), num_classes)
    return network.to(memory_format=torch.channels_last)


def autocast_logits(model: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """Return the logits of stored images.

    Shape:
        - `images`: `(N, C, H, W)`, uint8.
        - Returns: `(N, K)`, float32.
    """
    x = to_float(images).contiguous(memory_format=torch.channels_last)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits: Tensor = model(x)
    return logits.float()


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """Return class probabilities on the CPU, and leave the model in evaluation mode.

    Shape:
        - `images`: `(N, C, H, W)`, uint8.
        - Returns: `(N, K)`, float64.
    """
    model.eval()
    device = next(model.parameters()).device
    chunks = [
        autocast_logits(model, chunk.to(device), precision).cpu() for chunk in torch.split(images, _PREDICTION_BATCH)
    ]
    return torch.cat(chunks).double().softmax(1)
