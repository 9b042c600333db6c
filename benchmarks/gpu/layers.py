"""Weight gradients of a gradient penalty, layer by layer: as PyTorch computes them, and by weight-gradient kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from clocks import seconds_of_call
from runs import config_of, cudnn_benchmark, free
from subjects import make_networks
from torch import Tensor, nn
from work import Row, Work

import condgan as cg


class Layer(NamedTuple):
    """A convolution of a critic, as the library computes it, and what goes into it."""

    name: str
    input_shape: torch.Size
    kernel_shape: torch.Size
    stride: list[int]
    padding: list[int]

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the layer's output."""
        return F.conv2d(x, weight, None, self.stride, self.padding)

    def weight_gradient(self, x: Tensor, weight: Tensor, g: Tensor) -> Tensor:
        """Return the weight's gradient by a weight-gradient kernel."""
        found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            g, x, weight, None, self.stride, self.padding, [1, 1], False, [0, 0], 1, [False, True, False]
        )
        return found[1]


def run(work: Work) -> None:
    """Time each different convolution of the critics at 64 pixels."""
    for kind in ("dcgan-64", "resnet-64"):
        config = config_of(kind, work)
        critic = make_networks(config.kind, config.size, config.base)[1]
        layers = list(convolutions(critic, torch.zeros(config.batch, 1, config.size, config.size)))
        for benchmark in (False, True):
            for precision in ("bf16", "fp32"):
                # PyTorch's way last: cuDNN may hang in it, which ends the part
                for way in (time_weight_gradient, time_pytorch):
                    for layer in layers[: 2 if work.rehearse else None]:
                        columns = {"networks": config.kind, "layer": layer.name, "input": list(layer.input_shape)}
                        columns |= {"kernel": list(layer.kernel_shape), "stride": layer.stride[0]}
                        columns |= {"precision": precision, "cudnn_benchmark": benchmark}
                        with cudnn_benchmark(benchmark):
                            work.measure(columns, partial(way, layer, precision, work.device))
                        free(work.device)


def convolutions(critic: nn.Module, x: Tensor) -> Iterator[Layer]:
    """Yield the convolutions of a critic, those of one shape once."""
    shapes: dict[str, torch.Size] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
        return lambda module, inputs, output: shapes.update({name: inputs[0].shape})

    modules = {name: module for name, module in critic.named_modules() if isinstance(module, nn.Conv2d)}
    hooks = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    with torch.no_grad():
        critic.features(x)  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    seen = set()
    for name, shape in shapes.items():
        layer = layer_of(name, modules[name], shape)
        if (key := str(layer[1:])) not in seen:
            seen.add(key)
            yield layer


def layer_of(name: str, module: nn.Conv2d, shape: torch.Size) -> Layer:
    """Return what a module convolves with: one that pools even sides has a larger kernel and stride two."""
    kernel, stride, padding = module.weight.shape, list(module.stride), [int(side) for side in module.padding]
    if isinstance(module, cg.nn.ConvPool2d) and not (shape[-2] % 2 or shape[-1] % 2):
        kernel, stride, padding = torch.Size([*kernel[:2], 4, 4]), [2, 2], [1, 1]
    return Layer(name, shape, kernel, stride, padding)


def tensors(layer: Layer, precision: str, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return an input of a layer, something of the same shape, and a kernel."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    torch.manual_seed(0)
    x, other, weight = (
        torch.randn(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for shape in (layer.input_shape, layer.input_shape, layer.kernel_shape)
    )
    return x, other, weight


def time_weight_gradient(layer: Layer, precision: str, device: str) -> Row:
    """Return the seconds of the forward pass, and of the weight's gradient by a weight-gradient kernel."""
    x, other, weight = tensors(layer, precision, device)
    g = torch.randn_like(layer.convolve(x, weight))
    return {
        "seconds_forward": seconds_of_call(lambda: layer.convolve(x, weight), device),
        "seconds_weight_gradient": seconds_of_call(lambda: layer.weight_gradient(other, weight, g), device),
    }


def time_pytorch(layer: Layer, precision: str, device: str) -> Row:
    """Return the seconds in which PyTorch finds the same gradient of an input gradient, and how different it is."""
    x, other, weight = tensors(layer, precision, device)
    x.requires_grad_()
    weight.requires_grad_()
    out = layer.convolve(x, weight)
    g = torch.randn_like(out)
    (gradient,) = torch.autograd.grad(out, x, g, create_graph=True)

    def by_pytorch() -> Tensor:
        return torch.autograd.grad(gradient, weight, other, retain_graph=True)[0]

    seconds = seconds_of_call(by_pytorch, device)
    with torch.no_grad():
        expected = layer.weight_gradient(other, weight, g).float()
        difference = (by_pytorch().float() - expected).norm() / expected.norm()
    return {"seconds_pytorch": seconds, "relative_difference": float(difference)}
