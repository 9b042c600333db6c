"""A generator that is a flow-matching model of a few steps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from typing_extensions import override

from condgan.files import check_count
from condgan.functional import precise
from condgan.networks.base import Generator, channels_and_sides
from condgan.nn.blocks import check_sides, halved
from condgan.nn.layers import ConcatenatedEmbedding
from condgan.types import ImageShape

_EMBEDDING = 96
_FREQUENCIES = 32


class FlowGenerator(Generator):
    r"""A denoiser that is evaluated a few times: from noise to an image along the flow that it defines.

    On the straight line from noise $z$ to an image $x$, $x_t = (1 - t) z + t x$, a UNet estimates the image,
    $D(x_t, t, y) \approx \mathbb{E}[x \mid x_t, y]$, and so the velocity $(D - x_t) / (1 - t)$. The generator takes
    $T$ Euler steps of size $1/T$ from $x_0 = z$, the last of which ends at an estimate:

    $$ x_{(i + 1) / T} = x_{i / T} + \frac{D(x_{i / T}, i / T, y) - x_{i / T}}{T - i}, \qquad
       G(z, y) = \min(1, \max(-1, x_1)) $$

    `FlowMatching` trains the denoiser on real images, first alone, then beside a critic, which adds the sharpness that
    an estimate of a mean lacks. A critic alone would begin with noise; flow matching alone needs many steps.

    The UNet works on patches of pixels as channels. The sides of its maps are halved from level to level; the channels
    grow to twice, three times, four times. There is a residual block at each level on the way down and on the way up,
    and time and class set its scales and shifts.

    Args:
        num_classes: Classes K, or None without classes.
        image_shape: `(C, H, W)`; any C, H and W at least 16. The latents are noise of that shape.
        base_channels: Channels of the largest map.
        patch_size: Sides of the patches. By default 2, and doubled until the shorter side has fewer than 32 patches.
            With more numbers in a patch than `base_channels`, fine detail is lost.
        steps: Evaluations $T$ of the denoiser per image.
        training_steps: The same in training mode, where fewer save time; by default `steps`. Other numbers than that of
            training suit a network that `FlowMatching` keeps a denoiser.

    Shape:
        - `z`: `(N, C * H * W)`, standard normal; `y`: `(N,)`, int64 in `[0, K)`, or None.
        - output: `(N, C, H, W)` in [-1, 1].

    Raises:
        ValueError: If a side is shorter than 16, or a size is not positive.

    References:
        Lipman et al. 2023, arXiv:2210.02747 (flow matching); Li and He 2025, arXiv:2511.13720 (a network that estimates
        the image, under the loss of the velocity); Sauer et al. 2023, arXiv:2311.17042 (few steps against a critic,
        there with distillation from a teacher).

    Examples:
        >>> generator = FlowGenerator(num_classes=2, image_shape=(1, 32, 32), base_channels=8)
        >>> generator.latent_dim, generator(torch.randn(4, 1024), torch.tensor([0, 1, 0, 1])).shape
        (1024, torch.Size([4, 1, 32, 32]))
    """

    def __init__(
        self,
        *,
        num_classes: int | None,
        image_shape: ImageShape,
        base_channels: int = 32,
        patch_size: int | None = None,
        steps: int = 4,
        training_steps: int | None = None,
    ) -> None:
        channels, height, width = channels_and_sides(image_shape)
        check_count("base_channels", base_channels)
        training_steps = steps if training_steps is None else training_steps
        check_count("steps", steps)
        check_count("training_steps", training_steps)
        check_sides(height, width)
        patch_size = _patch_size(min(height, width)) if patch_size is None else patch_size
        check_count("patch_size", patch_size)
        super().__init__(latent_dim=channels * height * width, num_classes=num_classes, image_shape=image_shape)
        self.steps = steps
        self.training_steps = training_steps
        self.patch_size = patch_size
        self.class_embedding = ConcatenatedEmbedding(num_classes, _EMBEDDING)
        features = 2 * _FREQUENCIES + self.class_embedding.extra_features
        self.embedding = nn.Sequential(
            nn.Linear(features, _EMBEDDING), nn.SiLU(), nn.Linear(_EMBEDDING, _EMBEDDING), nn.SiLU()
        )
        sizes = halved(math.ceil(height / patch_size), math.ceil(width / patch_size))
        widths = [base_channels * min(i + 1, 4) for i in range(len(sizes))]
        pixels = channels * patch_size**2
        self.first = nn.Conv2d(pixels, base_channels, 3, padding=1)
        self.down = nn.ModuleList(map(_Block, [base_channels, *widths[:-1]], widths))
        self.middle = _Block(widths[-1], widths[-1])
        self.up = nn.ModuleList(
            _Block(2 * here, above) for here, above in zip(widths, [base_channels, *widths[:-1]], strict=True)
        )
        self.norm = _LayerNorm2d(base_channels)
        self.last = _zeroed(nn.Conv2d(base_channels, pixels, 3, padding=1))
        frequencies = torch.exp(torch.linspace(0.0, 6.0, _FREQUENCIES))
        self.register_buffer("frequencies", frequencies, persistent=False)

    frequencies: Tensor

    def denoise(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        r"""Return the estimate $D(x_t, t, y)$ of the image.

        Shape:
            - `x_t`: `(N, C, H, W)`; `t`: `(N,)` in [0, 1]; `y`: `(N,)`, int64, or None without classes.
            - Returns: `(N, C, H, W)`, not bounded.
        """
        angles = t[:, None] * self.frequencies
        embedding = self.embedding(self.class_embedding(torch.cat([angles.sin(), angles.cos()], dim=1), y))
        h = self.first(F.pixel_unshuffle(self._padded(x_t), self.patch_size))
        skipped = []
        for i, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2, ceil_mode=True, count_include_pad=False) if i else h, embedding)
            skipped.append(h)
        h = self.middle(h, embedding)
        for block, skip in zip(reversed(self.up), reversed(skipped), strict=True):
            if h.shape != skip.shape:
                h = F.interpolate(h, size=skip.shape[-2:])
            h = block(torch.cat([h, skip], dim=1), embedding)
        x: Tensor = F.pixel_shuffle(self.last(F.silu(self.norm(h))), self.patch_size)
        return precise(x[..., : x_t.shape[-2], : x_t.shape[-1]])

    @override
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        channels, height, width = self.image_shape
        x = precise(rearrange(z, "n (c h w) -> n c h w", c=channels, h=height, w=width))
        steps = self.training_steps if self.training else self.steps
        for i in range(steps):
            t = x.new_full((x.shape[0],), i / steps)  # `len` would fix the batch size of an exported network
            x = x + (self.denoise(x, t, y) - x) / (steps - i)
        return x.clamp(-1.0, 1.0)

    def _padded(self, x: Tensor) -> Tensor:
        """Return images whose sides are whole numbers of patches."""
        height, width = (-side % self.patch_size for side in x.shape[-2:])
        return F.pad(x, (0, width, 0, height)) if height or width else x


class _Block(nn.Module):
    """A residual block whose scales and shifts depend on an embedding; at first it is its shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = _LayerNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.scale_and_shift = nn.Linear(_EMBEDDING, 2 * out_channels)
        self.norm2 = _LayerNorm2d(out_channels)
        self.conv2 = _zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    @override
    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift(embedding)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(self.conv1(F.silu(self.norm1(x)))), 1 + scale)
        out: Tensor = self.shortcut(x) + self.conv2(F.silu(h))
        return out


class _LayerNorm2d(nn.LayerNorm):
    """Layer normalization of the channels at each position: fast where channels are last in memory."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _patch_size(side: int) -> int:
    size = 2
    while math.ceil(side / size) >= 32:
        size *= 2
    return size
