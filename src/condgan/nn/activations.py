"""Piecewise-linear layers whose second derivative is absent instead of a tensor of zeros.

The second derivative of a leaky ReLU or an average pool with respect to its input is zero, and PyTorch returns it as a
tensor of zeros. A gradient penalty then propagates these zeros back through every earlier convolution: about a third of
its cost is multiplication by zero. The functions here return None instead of zeros, so that autograd skips these paths.
The gradients of every order are exactly the same.

Under a compiler, an export, a trace or a functorch transform the plain formula is used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

_POOL = ([2, 2], [2, 2], [0, 0], True, True, None)  # kernel, stride, padding, ceil mode, count padding, divisor


class LeakyReLU(nn.Module):
    r"""Leaky ReLU, $\max(x, s x)$, for critics under a second-order penalty.

    Args:
        negative_slope: Slope $s$ for negative inputs, in [0, 1); 0 is the ReLU.

    Shape:
        - `x`: any. Output: the same.

    Raises:
        ValueError: If the slope is out of range.

    Examples:
        >>> LeakyReLU(0.2)(torch.tensor([-1.0, 2.0]))
        tensor([-0.2000,  2.0000])
    """

    def __init__(self, negative_slope: float = 0.0) -> None:
        super().__init__()
        if not 0 <= negative_slope < 1:
            raise ValueError(f"negative_slope must lie in [0, 1), got {negative_slope}.")
        self.negative_slope = negative_slope

    @override
    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu(x, self.negative_slope)

    @override
    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class AvgPool2d(nn.Module):
    """Means of 2x2 windows, smaller at odd edges, for critics under a second-order penalty.

    Shape:
        - `x`: `(N, C, H, W)`. Output: `(N, C, ceil(H / 2), ceil(W / 2))`.

    Examples:
        >>> AvgPool2d()(torch.tensor([[[[1.0, 3.0, 5.0]]]]))
        tensor([[[[2., 5.]]]])
    """

    @override
    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(x)


def leaky_relu(x: Tensor, negative_slope: float) -> Tensor:
    r"""Return $\max(x, s x)$ with a structurally absent second derivative.

    Shape:
        - `x`: any. Output: the same.
    """
    if is_transformed():
        one, slope = x.new_ones(()), x.new_full((), negative_slope)
        return x * torch.where(x > 0, one, slope)
    out: Tensor = _LeakyReLU.apply(x, negative_slope)
    return out


def avg_pool2d(x: Tensor) -> Tensor:
    """Return the means of 2x2 windows (smaller at odd edges) with a structurally absent second derivative.

    Shape:
        - `x`: `(N, C, H, W)`. Output: `(N, C, ceil(H / 2), ceil(W / 2))`.
    """
    if is_transformed():
        # Compiled second derivatives of ceil_mode are wrong at odd edges (torch 2.15). A repeated edge keeps the mean.
        height, width = x.shape[-2:]
        x = torch.cat([x, x[..., -1:, :]], -2) if height % 2 else x
        x = torch.cat([x, x[..., -1:]], -1) if width % 2 else x
        return F.avg_pool2d(x, 2)
    out: Tensor = _AvgPool2d.apply(x)
    return out


def is_transformed() -> bool:
    """Return whether the code runs under a compiler, an export, a trace or a functorch transform.

    A custom `torch.autograd.Function` gives wrong second derivatives under a compiled `torch.func.grad`, has no rule
    for `vmap`, and cannot be written to a file.
    """
    return bool(torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or torch._C._is_tracing())


class _LeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.set_materialize_grads(False)
        out = F.leaky_relu(x, slope)
        ctx.save_for_backward(out)
        ctx.slope = slope
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        (gradient,) = gradients
        return None if gradient is None else _LeakyReLUBackward.apply(gradient, ctx.saved_tensors[0], ctx.slope), None


class _LeakyReLUBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, out: Tensor, slope: float) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(out)
        ctx.slope = slope
        return torch.ops.aten.leaky_relu_backward(gradient, out, slope, True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        (gradient,) = gradients
        through = None if gradient is None else _LeakyReLUBackward.apply(gradient, ctx.saved_tensors[0], ctx.slope)
        return through, None, None  # nothing flows to `out`: its second derivative is zero


class _AvgPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return F.avg_pool2d(x, 2, ceil_mode=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        (gradient,) = gradients
        return None if gradient is None else _AvgPool2dBackward.apply(gradient, ctx.saved_tensors[0].detach())


class _AvgPool2dBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, like: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        return torch.ops.aten.avg_pool2d_backward(gradient, like, *_POOL)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        (gradient,) = gradients
        return None if gradient is None else _AvgPool2d.apply(gradient), None
