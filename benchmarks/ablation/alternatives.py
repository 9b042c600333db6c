"""What a user would take instead of a GAN: diffusion models on the UNet of `diffusers`, Gaussians, real images.

The package is only needed for the former: `pip install diffusers`.

They see the same images in batches of equal classes, and are given the same time, the time of drawing included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from contestants import Draw
from torch import Tensor, nn

from condgan.data import ArrayDataset
from condgan.images import to_float, to_uint8

_AT_ONCE = 256
_TIMES = 1000  # the UNet's embedding of time is made for this range


@dataclass(frozen=True)
class Diffusion:
    r"""A class-conditional flow-matching model or DDPM.

    Flow matching regresses $x - \epsilon$ at $(1 - t)\epsilon + t x$ and is integrated by Euler's method; DDPM
    regresses the velocity $\sqrt{\bar\alpha}\,\epsilon - \sqrt{1 - \bar\alpha}\,x$ under a cosine schedule and is
    sampled by DDIM. With guidance, a tenth of the labels is
    dropped in training.

    Args:
        kind: `"flow"` or `"ddpm"`.
        draw_steps: Evaluations of the network for one image; twice as many with guidance. For DDPM a divisor of 1 000.
        guidance: Weight of classifier-free guidance; 1 for none.
        widths: Channels of the UNet at each resolution.
        learning_rate: Peak learning rate of Adam; linear warm-up over 100 steps, then linear decay to 0.
        batch_size: Images per step.
        ema_decay: Final decay of the averaged weights.

    References:
        Lipman et al. 2022, arXiv:2210.02747; Ho et al. 2020, arXiv:2006.11239; Nichol and Dhariwal 2021,
        arXiv:2102.09672; Song et al. 2020, arXiv:2010.02502; Salimans and Ho 2022,
        arXiv:2202.00512; Ho and Salimans 2022, arXiv:2207.12598.
    """

    kind: Literal["flow", "ddpm"] = "flow"
    draw_steps: int = 16
    guidance: float = 1.0
    widths: tuple[int, ...] = (24, 48, 48)
    learning_rate: float = 2e-3
    batch_size: int = 64
    ema_decay: float = 0.995

    def train(self, data: ArrayDataset, *, steps: int, seed: int) -> Draw:
        """Train on labelled images and return what draws images."""
        rng = torch.Generator().manual_seed(seed)
        network, average = self._network(data, seed), self._network(data, seed)
        optimizer = torch.optim.Adam(network.parameters(), betas=(0.9, 0.99))
        by_class = [(data.labels == label).nonzero().flatten() for label in range(data.num_classes)]
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = self.learning_rate * min((step + 1) / 100, 1 - step / steps)
            y = torch.randint(data.num_classes, (self.batch_size,), generator=rng)
            place = torch.rand(self.batch_size, generator=rng)
            members = [by_class[label] for label in y.tolist()]
            index = torch.stack([own[int(p * len(own))] for own, p in zip(members, place.tolist(), strict=True)])
            loss = self._loss(network, to_float(data.images[index]), y, rng)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay = min(self.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                    mean.lerp_(weight, 1 - decay)
        return lambda y, seed: self._draw(average.eval(), y, tuple(data.image_shape), seed)

    def _network(self, data: ArrayDataset, seed: int) -> nn.Module:
        from diffusers import UNet2DModel  # takes seconds, and recipes do without it

        torch.manual_seed(seed)
        network: nn.Module = UNet2DModel(
            in_channels=data.image_shape[0],
            out_channels=data.image_shape[0],
            layers_per_block=1,
            block_out_channels=self.widths,
            down_block_types=("DownBlock2D",) * len(self.widths),
            up_block_types=("UpBlock2D",) * len(self.widths),
            norm_num_groups=8,
            add_attention=False,
            num_class_embeds=data.num_classes + 1,  # the last one stands for a dropped label
        )
        return network

    def _loss(self, network: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=rng)
        t = torch.rand(len(x), generator=rng)
        if self.guidance != 1:
            y = torch.where(torch.rand(len(x), generator=rng) < 0.1, network.config.num_class_embeds - 1, y)
        if self.kind == "flow":
            signal, scale, target = t, 1 - t, x - noise
        else:
            index = (t * _TIMES).long()
            kept = _scheduler().alphas_cumprod[index]
            t, signal, scale = index / _TIMES, kept.sqrt(), (1 - kept).sqrt()
            target = _column(signal) * noise - _column(scale) * x
        noisy = _column(signal) * x + _column(scale) * noise
        return (_evaluate(network, noisy, t, y) - target).square().mean()

    @torch.no_grad()
    def _draw(self, network: nn.Module, y: Tensor, image_shape: tuple[int, ...], seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        sampler = self._integrate if self.kind == "flow" else self._denoise
        parts = []
        for labels in y.split(_AT_ONCE):
            noise = torch.randn(len(labels), *image_shape, generator=rng)
            parts.append(to_uint8(sampler(lambda x, t, y=labels: self._guided(network, x, t, y), noise).clamp(-1, 1)))
        return torch.cat(parts)

    def _guided(self, network: nn.Module, x: Tensor, t: float, y: Tensor) -> Tensor:
        times = torch.full((len(x),), t)
        found = _evaluate(network, x, times, y)
        if self.guidance == 1:
            return found
        dropped = torch.full_like(y, network.config.num_class_embeds - 1)
        return torch.lerp(_evaluate(network, x, times, dropped), found, self.guidance)

    def _integrate(self, velocity: Callable[[Tensor, float], Tensor], x: Tensor) -> Tensor:
        for step in range(self.draw_steps):
            x = x + velocity(x, step / self.draw_steps) / self.draw_steps
        return x

    def _denoise(self, velocity: Callable[[Tensor, float], Tensor], x: Tensor) -> Tensor:
        scheduler = _scheduler()
        scheduler.set_timesteps(self.draw_steps)
        for t in scheduler.timesteps:
            x = scheduler.step(velocity(x, float(t) / _TIMES), t, x).prev_sample
        return x


@dataclass(frozen=True)
class ClassGaussian:
    """One Gaussian per class with the mean and covariance of the training images' pixels: no network, no time."""

    def train(self, data: ArrayDataset, *, steps: int, seed: int) -> Draw:
        """Estimate the Gaussians and return what draws images."""
        fitted = []
        for label in range(data.num_classes):
            x = to_float(data.images[data.labels == label]).flatten(1).double()
            _, scales, axes = torch.linalg.svd(x - x.mean(0), full_matrices=False)
            fitted.append((x.mean(0), scales[:, None] * axes / math.sqrt(len(x) - 1)))

        def draw(y: Tensor, seed: int) -> Tensor:
            rng = torch.Generator().manual_seed(seed)
            images = torch.empty(len(y), *data.image_shape, dtype=torch.uint8)
            for label, (mean, axes) in enumerate(fitted):
                z = torch.randn(int((y == label).sum()), len(axes), generator=rng, dtype=torch.float64)
                images[y == label] = to_uint8((mean + z @ axes).clamp(-1, 1).view(-1, *data.image_shape))
            return images

        return draw


@dataclass(frozen=True)
class RealImages:
    """The training images themselves, drawn with replacement: what generated images can be compared with."""

    def train(self, data: ArrayDataset, *, steps: int, seed: int) -> Draw:
        """Return what draws images."""

        def draw(y: Tensor, seed: int) -> Tensor:
            rng = torch.Generator().manual_seed(seed)
            images = torch.empty(len(y), *data.image_shape, dtype=torch.uint8)
            for label in range(data.num_classes):
                own = data.images[data.labels == label]
                images[y == label] = own[torch.randint(len(own), (int((y == label).sum()),), generator=rng)]
            return images

        return draw


def _evaluate(network: nn.Module, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        found: Tensor = network(x, t * _TIMES, class_labels=y).sample
    return found.float()


@cache
def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        _TIMES, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing"
    )


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]
