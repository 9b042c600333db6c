r"""Convolutions whose second derivative computes weight gradients as weight gradients.

A gradient penalty differentiates the input gradient $X(g, w)$ of each convolution, and for $\partial L / \partial w$
PyTorch then runs a forward convolution whose kernel is a whole feature map, which kernel libraries are not optimized
for. But it is a weight gradient like any other. With the bilinear convolution $F(x, w)$ and its derivatives

$$ \langle F(x, w), g \rangle = \langle x, X(g, w) \rangle = \langle w, W(g, x) \rangle, $$

the derivatives of each of the three are the other two, so that derivatives of every order consist of three optimized
kernels: forward, input gradient, weight gradient. They are exact.

Under `torch.compile`, `torch.export`, tracing and functorch transforms PyTorch's own convolution is used.

Up-sampling and pooling are fused with a convolution. Both resizings are linear and work on blocks of two by two
positions, so that they can be applied to the weights instead of the maps: a 3x3 convolution becomes a 4x4 one of stride
two, which computes the same function with 16 multiplications instead of 36 and never makes the large map in between.
Progressive growing calls this "fused scale" (Karras et al. 2018, arXiv:1710.10196, in the code). Where sides are odd or
not exactly doubled, resizing and convolution are separate.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from condgan.nn.activations import avg_pool2d, is_transformed

Pair = int | tuple[int, ...]
Size = tuple[int, int]


class Conv2d(nn.Conv2d):
    r"""A `torch.nn.Conv2d` for critics under a second-order penalty: see `conv2d`.

    Arguments, parameters and state are those of `torch.nn.Conv2d`. With padding other than a number of
    zeros it is PyTorch's convolution.

    Shape:
        - `input`: `(N, C, H, W)`. Output: `(N, out_channels, *, *)`.

    Examples:
        >>> Conv2d(3, 8, 4, stride=2, padding=1)(torch.randn(2, 3, 16, 16)).shape
        torch.Size([2, 8, 8, 8])
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        if self.padding_mode != "zeros":
            return super().forward(input)
        return conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    r"""Return a 2-D convolution whose second derivative computes weight gradients as weight gradients.

    $$ \mathrm{out}_{n, o} = b_o + \sum_c w_{o, c} \star x_{n, c} $$

    The same function as `torch.nn.functional.conv2d`, with the same derivatives of every order. PyTorch's own is used
    where it is faster: see `pays`.

    Args:
        x: Feature maps.
        weight: Kernels.
        bias: One number per output channel, or None.
        stride: Step of the kernels.
        padding: Zeros at each border; as a string, see `torch.nn.functional.conv2d`.
        dilation: Distance between the kernels' elements.
        groups: Groups of channels, each convolved on its own.

    Shape:
        - `x`: `(N, C, H, W)`; `weight`: `(O, C / groups, h, w)`; `bias`: `(O,)`. Returns: `(N, O, *, *)`.

    References:
        Karras et al. 2020, arXiv:2006.06676, in the code for CUDA (`conv2d_gradfix`).

    Examples:
        >>> conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))
        tensor([[[[9.]]]])
    """
    if isinstance(padding, str) or not _has_own_derivatives(x, weight, bias, stride):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    geometry = _Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
    return _convolve(_autocast(x), _autocast(weight), None if bias is None else _autocast(bias), geometry)


def pays(x: Tensor, weight: Tensor, stride: Pair = 1) -> bool:
    """Return whether the weight-gradient kernel is used: a fixed rule, nothing is timed at run time.

    On the CPU it is used if the output map has at least four times as many positions as the kernel: for smaller maps
    PyTorch's convolution with a kernel of the map's size is an ordinary one. Elsewhere it is always used: on CUDA
    nothing has been measured yet.

    Shape:
        - `x`: `(N, C, H, W)`; `weight`: `(O, *, h, w)`.
    """
    places = math.prod(x.shape[2:]) // math.prod(_pair(stride))
    return x.device.type != "cpu" or places >= 4 * math.prod(weight.shape[2:])


def upsample(x: Tensor, size: Size, *, mode: Literal["nearest", "bilinear"] = "nearest") -> Tensor:
    """Enlarge feature maps to `size` by interpolation, in their own type.

    Autocast on the CPU would use float32, and the conversion costs more than the interpolation.

    Args:
        x: The maps.
        size: Height and width of the output.
        mode: How to interpolate.

    Shape:
        - `x`: `(N, C, *, *)`. Output: `(N, C, *size)`.
    """
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, size, mode=mode)


class UpsampleConv2d(nn.Conv2d):
    r"""Nearest-neighbour up-sampling to `size`, then a 3x3 convolution.

    Where the sides are doubled this is the transposed convolution of stride two with the flipped kernel
    $\tilde w = w * \begin{pmatrix} 1 & 1 \\ 1 & 1 \end{pmatrix}$. Unlike a transposed convolution with free weights
    it leaves no checkerboard.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether there is one.

    Shape:
        - `x`: `(N, in_channels, H, W)`. Output: `(N, out_channels, *size)`.

    Examples:
        >>> UpsampleConv2d(4, 2)(torch.randn(3, 4, 5, 5), (10, 10)).shape
        torch.Size([3, 2, 10, 10])
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    @override
    def forward(self, x: Tensor, size: Size) -> Tensor:  # type: ignore[override]
        if size == (2 * x.shape[-2], 2 * x.shape[-1]):
            return F.conv_transpose2d(x, _doubling_kernel(self.weight), self.bias, stride=2, padding=1)
        return super().forward(upsample(x, size))


class TransposedConv2d(nn.ConvTranspose2d):
    r"""A transposed 5x5 convolution of stride two, to `size`, as in the papers of DCGAN and ACGAN.

    Its stride does not divide its kernel, so that neighboring pixels get different numbers of terms: a checkerboard.
    `UpsampleConv2d` has none.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether there is one.

    Shape:
        - `x`: `(N, in_channels, H, W)`. Output: `(N, out_channels, *size)`, sides of $2H$ or $2H - 1$, $2W$ or
          $2W - 1$.

    Raises:
        ValueError: If a side of `size` is another one.

    References:
        Radford et al. 2016, arXiv:1511.06434; Odena et al. 2016, distill.pub/2016/deconv-checkerboard.

    Examples:
        >>> TransposedConv2d(4, 2)(torch.randn(3, 4, 5, 5), (10, 9)).shape
        torch.Size([3, 2, 10, 9])
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 5, stride=2, padding=2, bias=bias)

    @override
    def forward(self, x: Tensor, size: Size) -> Tensor:  # type: ignore[override]
        return super().forward(x, list(size))


class ConvPool2d(Conv2d):
    r"""A 3x3 convolution, then 2x2 average pooling (smaller windows at odd edges), for critics under a penalty.

    For even sides this is the convolution of stride two with the kernel
    $\tilde w = \tfrac14 w * \begin{pmatrix} 1 & 1 \\ 1 & 1 \end{pmatrix}$.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether there is one.

    Shape:
        - `input`: `(N, in_channels, H, W)`. Output: `(N, out_channels, ceil(H / 2), ceil(W / 2))`.

    Examples:
        >>> ConvPool2d(4, 2)(torch.randn(3, 4, 10, 10)).shape
        torch.Size([3, 2, 5, 5])
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    @override
    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[-2:]
        if height % 2 or width % 2:
            return avg_pool2d(super().forward(input))
        kernel = F.avg_pool2d(self.weight, 2, stride=1, padding=1)
        return conv2d(input, kernel, self.bias, stride=2, padding=1)


class _Geometry(NamedTuple):
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return torch.convolution(x, weight, bias, self.stride, self.padding, self.dilation, False, [0, 0], self.groups)

    def backward(self, gradient: Tensor, x: Tensor, weight: Tensor, mask: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of input, weight and bias where `mask` is True."""
        gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward.default(
            gradient,
            x,
            weight,
            [len(weight)] if mask[2] else None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0, 0],
            self.groups,
            mask,
        )
        return gradients


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry) -> Tensor:
    with torch.no_grad():
        out = geometry.forward(x, weight, bias)
    if not _is_differentiated(x, weight, bias):
        return out
    # Weight and bias have a node of their own, which autograd runs only if their gradients are requested: the first
    # gradient of a penalty, and a generator step, do not need them. Tensors in tuples are hidden from autograd: with an
    # edge from that node to `x`, it would also run for the gradient of `x`.
    deferred = _Parameters.apply(weight, bias, (x, out), geometry)
    convolved: Tensor = _Convolution.apply(x, deferred, (weight, out), geometry)
    return convolved


class _Parameters(torch.autograd.Function):
    """Represents weight and bias in the graph of a convolution: maps the output's gradient to theirs."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor | None, hidden: tuple[Tensor, Tensor], geometry: _Geometry
    ) -> Tensor:
        x, out = hidden
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight, x)
        ctx.geometry = geometry
        return out.new_empty(()).expand_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        (gradient,) = gradients
        if gradient is None:
            return (None,) * 4
        weight, x = ctx.saved_tensors
        needs_weight, needs_bias = ctx.needs_input_grad[:2]
        if not torch.is_grad_enabled():
            mask = [False, needs_weight, needs_bias]
            _, to_weight, to_bias = ctx.geometry.backward(gradient, x, weight, mask)
            return to_weight, to_bias, None, None
        to_weight = _WeightGradient.apply(gradient, x, weight.detach(), ctx.geometry) if needs_weight else None
        return to_weight, gradient.sum((0, 2, 3)) if needs_bias else None, None, None


class _Convolution(torch.autograd.Function):
    """$F(x, w)$, computed beforehand; it passes its output's gradient on to `_Parameters`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, deferred: Tensor, hidden: tuple[Tensor, Tensor], geometry: _Geometry) -> Tensor:
        weight, out = hidden
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        (gradient,) = gradients
        if gradient is None:
            return (None,) * 4
        x, weight = ctx.saved_tensors
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = _InputGradient.apply(gradient, weight, x.detach(), ctx.geometry)
        return to_x, gradient, None, None


class _InputGradient(torch.autograd.Function):
    """$X(g, w)$."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, like: Tensor, geometry: _Geometry) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gradient, weight)
        ctx.geometry = geometry
        return geometry.backward(gradient, like, weight, [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        (x,) = gradients
        if x is None:
            return (None,) * 4
        gradient, weight = ctx.saved_tensors
        to_gradient, to_weight = None, None
        if ctx.needs_input_grad[0]:
            to_gradient = _convolve(x, weight, None, ctx.geometry)
        if ctx.needs_input_grad[1]:
            to_weight = _WeightGradient.apply(gradient, x, weight.detach(), ctx.geometry)
        return to_gradient, to_weight, None, None


class _WeightGradient(torch.autograd.Function):
    """$W(g, x)$."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, like: Tensor, geometry: _Geometry) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gradient, x)
        ctx.geometry = geometry
        return geometry.backward(gradient, x, like, [False, True, False])[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        (weight,) = gradients
        if weight is None:
            return (None,) * 4
        gradient, x = ctx.saved_tensors
        to_gradient, to_x = None, None
        if ctx.needs_input_grad[0]:
            to_gradient = _convolve(x, weight, None, ctx.geometry)
        if ctx.needs_input_grad[1]:
            to_x = _InputGradient.apply(gradient, weight, x.detach(), ctx.geometry)
        return to_gradient, to_x, None, None


def _has_own_derivatives(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair) -> bool:
    return (
        not is_transformed()
        and _is_differentiated(x, weight, bias)
        and x.ndim == 4
        and x.is_floating_point()
        and pays(x, weight, stride)
    )


def _is_differentiated(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _autocast(tensor: Tensor) -> Tensor:
    """Convert as autocast does for a convolution: it does not act inside a custom function."""
    device = tensor.device.type
    if tensor.is_meta or tensor.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def _pair(value: Pair) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _doubling_kernel(weight: Tensor) -> Tensor:
    # The output channels come last in memory: from any other layout libraries convert a transposed kernel slowly, for
    # small maps in more time than the convolution itself takes.
    rows = weight.permute(0, 2, 3, 1).flatten(1).t().contiguous().unflatten(0, (3, 3, weight.shape[1]))
    first, middle, last = rows.unbind(0)
    columns = torch.stack([last, middle + last, first + middle, first])
    first, middle, last = columns.unbind(1)
    return torch.stack([last, middle + last, first + middle, first], 1).permute(2, 3, 0, 1)
