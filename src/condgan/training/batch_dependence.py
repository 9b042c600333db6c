"""Whether the outputs of a critic depend on the other samples of its batch."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call

from condgan.functional import precise
from condgan.networks.base import Critic
from condgan.nn.layers import without_synchronization
from condgan.training.random import DefaultRngs, seeded

_SAMPLES = 4
_NOISE = 0.02
_TOLERANCE = 1e-6  # relative: the same numbers are computed both times, in the same order


@torch.no_grad()
def depends_on_batch(critic: Critic) -> bool:
    """Return whether an output for one sample changes with the other samples of its batch, by trying.

    Batch norm and minibatch standard deviation make it so. The critic is tried in training mode, on weights with some
    noise, because weights that are zero at first would hide a dependence. Dropout draws the same numbers both times.
    The critic, its buffers and all random generators are left as they were.
    """
    modes = [(module, module.training) for module in critic.modules()]
    weight = precise(next(critic.parameters()))
    rng = torch.Generator(weight.device).manual_seed(0)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=rng, dtype=like.dtype, device=like.device)

    # in float32 at least: the rounding of fewer bits would hide a dependence
    wide = {name: precise(p) for name, p in critic.named_parameters() if p.is_floating_point()}
    changed = {name: p + _NOISE * draw(p) for name, p in wide.items()}
    x = draw(weight.new_empty(_SAMPLES, *critic.image_shape)).clamp(-1.0, 1.0)
    y = None if critic.num_classes is None else torch.arange(_SAMPLES, device=weight.device) % critic.num_classes

    def outputs(x: Tensor) -> list[Tensor]:
        buffers = {name: _copied(buffer) for name, buffer in critic.named_buffers()}
        with (
            seeded(0),
            DefaultRngs(weight.device, 0).active(),
            without_synchronization(),
            torch.compiler.set_stance("force_eager") if is_compiled(critic) else nullcontext(),
        ):
            found = functional_call(critic, {**changed, **buffers}, (x, y))
        return [part.float() for part in found if part is not None]

    critic.train()
    try:
        alone = torch.zeros_like(x)
        alone[0] = x[0]
        pairs = zip(outputs(x), outputs(alone), strict=True)
        return any(bool((a[0] - b[0]).abs().max() > _TOLERANCE * a.abs().max()) for a, b in pairs)
    finally:
        for module, training in modes:
            module.training = training


def _copied(buffer: Tensor) -> Tensor:
    return precise(buffer).clone() if buffer.is_floating_point() else buffer.clone()


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module or a part of it was compiled by `torch.compile` or its own `compile`."""
    return any(part._compiled_call_impl is not None or hasattr(part, "_orig_mod") for part in module.modules())
