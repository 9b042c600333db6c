"""The networks and data that all sides of the benchmark share, and the configurations that are measured."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from timing import Settings, on_cuda
from torch import Tensor

import condgan as cg

NETWORKS: dict[str, tuple[type[cg.Generator], type[cg.Critic]]] = {
    "dcgan": (cg.DCGANGenerator, cg.ACDCGANCritic),
    "resnet": (cg.ResNetGenerator, cg.ACResNetCritic),
}
CRITIC_STEPS = 5
SAVINGS_IN_LAYERS = ("activations", "weight_gradients", "resized_weights")
"""What the library's layers save beside PyTorch's; see `with_plain_layers`."""


Module = TypeVar("Module", bound=torch.nn.Module)


@dataclass(frozen=True)
class Config:
    """Networks, sides of the images, base channels and batch."""

    kind: str
    size: int
    base: int
    batch: int

    @property
    def pixels(self) -> int:
        """Pixels of a batch, a measure of the work."""
        return self.batch * self.size**2

    def describe(self) -> dict[str, Any]:
        """Return the columns of a table that say what was measured."""
        return {
            "networks": self.kind,
            "image_size": self.size,
            "base_channels": self.base,
            "batch_size": self.batch,
        }

    def name(self, what: str, precision: str) -> str:
        """Return the name of a ratio: `what_fp32_b16` for DCGAN at 64 px, `what_resnet_128px_fp32_b16` for others."""
        kind = "" if self.kind == "dcgan" else f"_{self.kind}"
        size = "" if self.size == 64 else f"_{self.size}px"
        return f"{what}{kind}{size}_{precision}_b{self.batch}"


def configurations(
    settings: Settings,
    *,
    kinds: Sequence[str] = tuple(NETWORKS),
    sizes: Sequence[int] = (64,),
    batches: Sequence[int] = (16, 64),
) -> Iterator[Config]:
    """Yield all combinations, small before large; when in a hurry one that is smaller than any.

    The residual networks have half the base channels on the CPU, so that they end.
    """
    if settings.quick:
        yield Config("dcgan", 32, 4, 4)
        return
    for kind in kinds:
        for size in sizes:
            for batch in batches:
                if not settings.only or f"{kind}-{size}-{batch}" in settings.only:
                    yield Config(kind, size, 64 if on_cuda(settings.device) or kind != "resnet" else 32, batch)


def make_networks(
    kind: str, size: int, base: int = 64, num_classes: int = 2, **critic_options: Any
) -> tuple[cg.Generator, cg.Critic]:
    """Return a generator and a critic with a class head, equal for equal arguments."""
    make_generator, make_critic = NETWORKS[kind]
    options: dict[str, Any] = {"num_classes": num_classes, "image_shape": (1, size, size), "base_channels": base}
    torch.manual_seed(0)
    return make_generator(conditioning="batch_norm", **options), make_critic(**options, **critic_options)


def make_data(size: int, num_classes: int = 2, count: int = 1024) -> cg.data.ArrayDataset:
    """Return random images: speed does not depend on what they show."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 1, size, size), dtype=torch.uint8, generator=rng)
    return cg.data.ArrayDataset(images, torch.arange(count) % num_classes)


def make_trainer(
    kind: str,
    size: int,
    *,
    device: str,
    base: int = 64,
    num_classes: int = 2,
    precision: str = "fp32",
    callbacks: tuple[cg.Callback, ...] = (),
    keep: Collection[str] = SAVINGS_IN_LAYERS,
    **options: Any,
) -> cg.Trainer:
    """Return the ACWGAN-GP trainer that stands for the library, with some of the savings in its layers or all."""
    generator, critic = make_networks(kind, size, base, num_classes)
    generator, critic = with_plain_layers(generator, keep=keep), with_plain_layers(critic, keep=keep)
    data = make_data(size, num_classes, 2 * num_classes)
    return cg.recipes.acwgan_gp_2017(
        data,
        generator=generator,
        critic=critic,
        schedule="constant",
        precision=precision,
        device=device,
        callbacks=callbacks,
        **options,
    )


class Ours:
    """The library, called to do so many iterations in one call of `fit`.

    Args:
        config: What is trained.
        device: Where.
        options: Further arguments of the trainer.
    """

    def __init__(self, config: Config, device: str, **options: Any) -> None:
        self.trainer = make_trainer(config.kind, config.size, base=config.base, device=device, **options)
        self.data = make_data(config.size)
        self.batch = config.batch

    def __call__(self, times: int) -> None:
        """Do so many iterations."""
        self.trainer.fit(self.data, steps=self.trainer.state.step + times, batch_size=self.batch, progress=False)


def with_plain_layers(module: Module, *, keep: Collection[str] = ()) -> Module:
    """Take the savings of the library's layers from a network, in place, but for those to keep, and return it.

    Leaky ReLUs overwrite their input, as tutorials have it; the ReLUs of residual blocks cannot.

    Args:
        module: The network.
        keep: Some of `SAVINGS_IN_LAYERS`: activations and pooling without second derivatives that are zeros, weight
            gradients of a penalty as weight gradients, and weights instead of maps that are resized.
    """
    if set(SAVINGS_IN_LAYERS) <= set(keep):
        return module
    for name, child in module.named_children():
        if isinstance(child, torch.nn.Conv2d):
            make_plain_convolution(child, keep)
        elif isinstance(child, cg.nn.LeakyReLU) and "activations" not in keep:
            slope = child.negative_slope
            setattr(module, name, torch.nn.LeakyReLU(slope, inplace=True) if slope else torch.nn.ReLU())
        elif isinstance(child, cg.nn.AvgPool2d) and "activations" not in keep:
            setattr(module, name, torch.nn.AvgPool2d(2, ceil_mode=True))
        else:
            with_plain_layers(child, keep=keep)
    return module


def make_plain_convolution(module: torch.nn.Conv2d, keep: Collection[str]) -> None:
    """Take savings from one layer."""
    convolve = cg.nn.conv2d if "weight_gradients" in keep else F.conv2d
    pool = cg.nn.avg_pool2d if "activations" in keep else partial(F.avg_pool2d, kernel_size=2, ceil_mode=True)

    def plain(self: torch.nn.Conv2d, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias, self.stride, self.padding)

    def pooled(self: torch.nn.Conv2d, x: Tensor) -> Tensor:
        return pool(plain(self, x))

    def pooled_in_one(self: torch.nn.Conv2d, x: Tensor) -> Tensor:
        if x.shape[-2] % 2 or x.shape[-1] % 2:
            return pooled(self, x)
        return convolve(x, F.avg_pool2d(self.weight, 2, stride=1, padding=1), self.bias, 2, 1)

    def enlarged(self: torch.nn.Conv2d, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.conv2d(cg.nn.upsample(x, size), self.weight, self.bias, padding=1)

    if isinstance(module, cg.nn.UpsampleConv2d):
        forward = None if "resized_weights" in keep else enlarged
    elif isinstance(module, cg.nn.ConvPool2d):
        forward = pooled_in_one if "resized_weights" in keep else pooled
    else:
        forward = plain if isinstance(module, cg.nn.Conv2d) else None
    if forward is not None:
        module.forward = MethodType(forward, module)  # follows the module into copies
