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


class Layer(NamedTuple):
    """A convolution of a critic and what goes into it."""

    name: str
    module: nn.Conv2d
    input_shape: torch.Size


def run(work: Work) -> None:
    """Time each different convolution of the critics at 64 pixels."""
    for kind in ("dcgan-64", "resnet-64"):
        config = config_of(kind, work)
        critic = make_networks(config.kind, config.size, config.base)[1]
        layers = list(convolutions(critic, torch.zeros(config.batch, 1, config.size, config.size)))
        for benchmark in (False, True):
            for precision in ("bf16", "fp32"):
                for layer in layers[: 2 if work.rehearse else None]:
                    columns = {"networks": config.kind, "layer": layer.name, "input": list(layer.input_shape)}
                    columns |= {"kernel": list(layer.module.weight.shape), "precision": precision}
                    columns |= {"cudnn_benchmark": benchmark}
                    with cudnn_benchmark(benchmark):
                        work.measure(columns, partial(time_layer, layer, precision, work.device))
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
        module = modules[name]
        if (key := (shape, module.weight.shape, module.stride, module.padding)) not in seen:
            seen.add(key)
            yield Layer(name, module, shape)


def time_layer(layer: Layer, precision: str, device: str) -> Row:
    """Return the seconds of the forward pass, and of both ways to the weight's gradient of an input gradient."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    module = layer.module
    options = {"device": device, "dtype": dtype}
    x, other = (torch.randn(layer.input_shape, **options) for _ in range(2))
    x, other = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, other))
    weight = torch.randn(module.weight.shape, **options).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    weight.requires_grad_()
    out = F.conv2d(x, weight, None, module.stride, module.padding)
    g = torch.randn_like(out)
    (gradient,) = torch.autograd.grad(out, x, g, create_graph=True)

    def by_pytorch() -> Tensor:
        return torch.autograd.grad(gradient, weight, other, retain_graph=True)[0]

    def by_weight_gradient() -> Tensor:
        found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            g, other, weight, None, module.stride, module.padding, [1, 1], False, [0, 0], 1, [False, True, False]
        )
        return found[1]

    with torch.no_grad():
        difference = by_pytorch().float() - by_weight_gradient().float()
        relative = float(difference.norm() / by_weight_gradient().float().norm())
        forward = seconds_of_call(lambda: F.conv2d(x, weight, None, module.stride, module.padding), device)
    return {
        # First what cannot go astray: if cuDNN hangs in the other one, its limit ends the part.
        "seconds_forward": forward,
        "seconds_weight_gradient": seconds_of_call(by_weight_gradient, device),
        "seconds_pytorch": seconds_of_call(by_pytorch, device),
        "relative_difference": relative,
    }
