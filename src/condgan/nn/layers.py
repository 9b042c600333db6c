"""Layers that condition, attend and normalize."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from typing_extensions import override

from condgan.distributed import rank_and_world
from condgan.functional import precise
from condgan.nn.convolution import Conv2d

_synchronize = ContextVar("synchronize", default=True)


@contextmanager
def without_synchronization() -> Iterator[None]:
    """Let batch norms use the batch of this process alone, so that one process can run a network without the others."""
    token = _synchronize.set(False)
    try:
        yield
    finally:
        _synchronize.reset(token)


class ClassConditional(nn.Module):
    r"""Base of modules whose dependence on the class can be faded in.

    `class_strength` is None where the class always counts in full. A `Trainer` with a `transition` puts a scalar
    $\lambda \in [0, 1]$ there, a buffer that is saved and loaded with the weights from then on.

    Shape:
        - `class_strength`: `()`, or None.

    Examples:
        >>> norm = ConditionalBatchNorm2d(8, num_classes=3)
        >>> norm.class_strength = torch.tensor(0.0)
        >>> x = torch.randn(4, 8, 5, 5)
        >>> torch.equal(norm(x, torch.tensor([0, 1, 2, 0])), norm(x, torch.tensor([1, 1, 1, 1])))
        True
    """

    num_classes: int | None
    class_strength: Tensor | None

    def fade(self, part: Tensor, neutral: Tensor | None = None) -> Tensor:
        r"""Return $m + \lambda (p - m)$ for a part $p$ that depends on the class, by default with $m = 0$.

        Shape:
            - `part`: any; `neutral`: a shape that broadcasts to that of `part`. Returns: the shape of `part`.
        """
        if self.class_strength is None:
            return part
        strength = self.class_strength.to(part.dtype)
        return strength * part if neutral is None else torch.lerp(neutral.expand_as(part), part, strength)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.class_strength is None and f"{prefix}class_strength" in state_dict:
            self.class_strength = torch.ones((), device=next(self.parameters()).device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class ConditionalBatchNorm2d(ClassConditional, nn.BatchNorm2d):
    r"""Batch normalization whose gain and bias depend on the class.

    $$ \hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}}, \qquad \mathrm{out} = \gamma_y \hat x + \beta_y $$

    Mean and variance are those of the batch in training and the running ones in evaluation. Among several processes
    the training statistics are those of the global batch. Without classes it is plain batch normalization.

    Args:
        num_features: Channels C.
        num_classes: Classes K, or None for one gain and bias for all.
        momentum: Weight of the newest batch in the running statistics; None for their plain average.

    Shape:
        - `input`: `(N, C, H, W)`; `y`: `(N,)`, int64 in `[0, K)`, or None without classes.
        - output: `(N, C, H, W)`.

    Raises:
        ValueError: If the layer has classes and `y` is None or not of shape `(N,)`.

    References:
        Dumoulin et al. 2017, arXiv:1610.07629; de Vries et al. 2017, arXiv:1707.00683.

    Examples:
        >>> norm = ConditionalBatchNorm2d(8, num_classes=3)
        >>> norm(torch.randn(4, 8, 5, 5), torch.tensor([0, 1, 2, 0])).shape
        torch.Size([4, 8, 5, 5])
    """

    def __init__(self, num_features: int, num_classes: int | None = None, *, momentum: float | None = 0.1) -> None:
        super().__init__(num_features, momentum=momentum, affine=num_classes is None)
        self.num_classes = num_classes
        if num_classes is not None:
            self.gain = nn.Parameter(torch.ones(num_classes, num_features))
            self.shift = nn.Parameter(torch.zeros(num_classes, num_features))
        self.register_buffer("class_strength", None)

    @override
    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        if self.num_classes is not None and y is None:
            raise ValueError("a conditional batch norm needs the labels y, got None. Pass y to the generator.")
        if self.training and _synchronize.get() and rank_and_world()[1] > 1:
            normalized = self._normalize_globally(input)
        else:
            normalized = super().forward(input)
        if self.num_classes is None or y is None:
            return normalized
        y = check_labels(y, input)
        # Without a class the mean of all classes counts.
        tables = (self.fade(table, neutral=table.mean(0)) for table in (self.gain, self.shift))
        # An embedding raises on negative labels; with indexing they would mean the last classes.
        gain, shift = (embed(y, table).to(normalized.dtype) for table in tables)
        return torch.addcmul(shift[:, :, None, None], gain[:, :, None, None], normalized)

    def _normalize_globally(self, x: Tensor) -> Tensor:
        wide = precise(x)
        rank, world = rank_and_world()
        moments = torch.stack(torch.var_mean(wide, (0, 2, 3), correction=0))
        # Each process fills its own slot, so that variances are combined around the means: E[x²] - E[x]² would cancel.
        filled = torch.stack([moments if r == rank else torch.zeros_like(moments) for r in range(world)])
        slots: Tensor = _AllReduce.apply(filled)
        variances, means = slots.unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
            count = x.numel() / x.shape[1] * world
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), momentum)
            self.running_var.lerp_((variance.detach() * count / (count - 1)).to(self.running_var.dtype), momentum)
        out = (wide - mean[:, None, None]) * (variance + self.eps).rsqrt()[:, None, None]
        if self.weight is not None:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        normalized: Tensor = out.to(x.dtype)
        return normalized


class _AllReduce(torch.autograd.Function):
    """The sum over all processes, whose derivative is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _AllReduce.apply(gradients[0].contiguous())


class SelfAttention2d(nn.Module):
    r"""Self-attention over the positions of a feature map, added to it with a learned gain that starts at zero.

    $$ \mathrm{out} = x + \gamma\, W_o\, M(W_v x)\, \mathrm{softmax}\big(M(W_k x)^\top W_q x\big) $$

    $M$ max-pools by two where the map is at least two pixels high and wide. Attention is written with plain matrix
    products because the fused one lacks second derivatives on some devices, and gradient penalties need them.

    Args:
        channels: Channels C, at least 8.

    Shape:
        - `x`: `(N, C, H, W)`; output: the same.

    Raises:
        ValueError: If there are fewer than 8 channels.

    References:
        Zhang et al. 2019, arXiv:1805.08318.

    Examples:
        >>> SelfAttention2d(16)(torch.randn(2, 16, 6, 5)).shape
        torch.Size([2, 16, 6, 5])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 8:
            raise ValueError(f"channels must be at least 8, got {channels}. Attend where the network is wider.")
        self.query = Conv2d(channels, channels // 8, 1, bias=False)
        self.key = Conv2d(channels, channels // 8, 1, bias=False)
        self.value = Conv2d(channels, channels // 2, 1, bias=False)
        self.out = Conv2d(channels // 2, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    @override
    def forward(self, x: Tensor) -> Tensor:
        pool = 2 if min(x.shape[-2:]) >= 2 else 1
        query = rearrange(self.query(x), "n c h w -> n (h w) c")
        key = rearrange(F.max_pool2d(self.key(x), pool), "n c h w -> n c (h w)")
        value = rearrange(F.max_pool2d(self.value(x), pool), "n c h w -> n (h w) c")
        attended = torch.bmm(torch.softmax(torch.bmm(query, key), dim=-1), value)
        out: Tensor = self.out(rearrange(attended, "n (h w) c -> n c h w", h=x.shape[-2]))
        return x + self.gain * out


class ConcatenatedEmbedding(ClassConditional):
    r"""Conditioning by concatenation: $[z; e_y]$ with one learned embedding $e_y$ per class.

    Args:
        num_classes: Classes K, or None to return `z` unchanged.
        embed_dim: Features E of the embedding.

    Shape:
        - `z`: `(N, Z)`; `y`: `(N,)`, int64 in `[0, K)`, or None without classes.
        - output: `(N, Z + E)`, or `(N, Z)` without classes.

    Raises:
        ValueError: If there are classes and `y` is None or not of shape `(N,)`.

    References:
        Mirza and Osindero 2014, arXiv:1411.1784.
    """

    def __init__(self, num_classes: int | None, embed_dim: int) -> None:
        super().__init__()
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, embed_dim)
        self.num_classes = num_classes
        self.extra_features = 0 if num_classes is None else embed_dim
        self.register_buffer("class_strength", None)

    @override
    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        if self.embedding is None:
            return z
        if y is None:
            raise ValueError("a conditional generator needs the labels y, got None.")
        return torch.cat([z, self.fade(embed(check_labels(y, z), self.embedding.weight).to(z.dtype))], dim=1)


def spectral_normalize(module: nn.Module) -> nn.Module:
    r"""Divide every weight matrix of `module` by its largest singular value, in place: $\bar W = W / \sigma(W)$.

    Applies to convolutions, linear layers and embeddings, once each. $\sigma$ is estimated by one power iteration
    each time a weight is read in training mode (inside `torch.nn.utils.parametrize.cached()`, as in a trainer's steps,
    once for all reads).

    Returns:
        The same module.

    References:
        Miyato et al. 2018, arXiv:1802.05957.

    Examples:
        >>> layer = spectral_normalize(nn.Linear(4, 3)).eval()
        >>> bool(torch.linalg.matrix_norm(layer.weight, 2) < 1.1)
        True
    """
    for layer in list(module.modules()):
        if isinstance(layer, (_ConvNd, nn.Linear, nn.Embedding)) and not parametrize.is_parametrized(layer, "weight"):
            dim = 1 if isinstance(layer, _ConvTransposeNd) else 0
            parametrize.register_parametrization(layer, "weight", _FullPrecisionSpectralNorm(layer.weight, dim=dim))
    return module


class _FullPrecisionSpectralNorm(_SpectralNorm):
    """PyTorch's spectral norm, in the precision of the weight: on CUDA autocast would cast matrix-vector products."""

    @override
    def forward(self, weight: Tensor) -> Tensor:
        with without_autocast(weight):
            normalized: Tensor = super().forward(weight)
            return normalized


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which operations on the device of `x` keep the types of their operands."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def batch_norms(module: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """Yield the parts of a module that normalize over the batch, with their names.

    If there are any, each output depends on the whole batch.
    """
    return ((name, part) for name, part in module.named_modules() if isinstance(part, _BatchNorm))


def check_labels(y: Tensor, samples: Tensor) -> Tensor:
    """Return `y` if it has one label per sample.

    Raises:
        ValueError: If it has another shape, which broadcasting would turn into wrong outputs of the right shape.
    """
    count = samples.shape[0]  # `len` would fix the batch size of an exported network
    if y.ndim != 1 or y.shape[0] != count:
        hint = " Flatten them: y.squeeze(1)." if tuple(y.shape) == (count, 1) else ""
        raise ValueError(f"labels must have shape ({count},), one per sample, got {tuple(y.shape)}.{hint}")
    if y.is_floating_point():
        raise ValueError(f"labels must be integers, got {y.dtype}. Convert them: y.long().")
    return y


def embed(y: Tensor, table: Tensor) -> Tensor:
    """Return the rows of a table that belong to labels.

    Shape:
        - `y`: `(N,)`, int64 in `[0, K)`; `table`: `(K, D)`. Returns: `(N, D)`.

    Raises:
        ValueError: If a label is none of the classes, on the CPU; elsewhere the device stops.
    """
    try:
        return F.embedding(y, table)
    except IndexError as error:
        raise ValueError(
            f"labels must lie in [0, {len(table)}), the classes, got {int(y.min())} to {int(y.max())}."
        ) from error
