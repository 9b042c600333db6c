"""Group spectral regularization of conditional batch norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from condgan.functional import precise
from condgan.nn.layers import ConditionalBatchNorm2d
from condgan.regularizers.base import GeneratorRegularizer
from condgan.schedules import Scheduled
from condgan.types import GeneratorBatch

_SQUARINGS = 10


class GroupSpectralRegularizer(GeneratorRegularizer):
    r"""The penalty of gSR on the spectral norm of the conditional parameters of each class, above all of rare ones.

    $$\frac{\lambda}{LK} \sum_{l, y} \lambda_y \big(\sigma^2(\Gamma^l_y) + \sigma^2(B^l_y)\big), \qquad
    \lambda_y \propto \frac{1 - \alpha}{1 - \alpha^{n_y}}, \qquad \tfrac1K \textstyle\sum_y \lambda_y = 1$$

    over the L conditional batch norms and K classes of $n_y$ images. $\Gamma^l_y$ is the gain of a class minus one, in
    groups of channels as the rows of a matrix, as close to a square as their number permits; $B^l_y$ the shift. The
    largest singular value $\sigma$ of such a matrix explodes where a rare class collapses onto few images.

    The mean over layers and classes and the mean of 1 of the class weights are those of the authors' code. Deviation:
    the code goes one step of the power iteration per update, from stored vectors; here the Gram matrix is squared
    often enough (1 024 steps of the power iteration) that nothing needs to be stored.

    Args:
        weight: Coefficient $\lambda$ of the penalty, at least 0; or a function of the progress of training.
        class_counts: Number of real images $n_y$ of each class, such as `data.class_counts`.
        alpha: Parameter $\alpha$ of the effective number of samples, in [0, 1): 0 weights all classes equally, near 1
            by the reciprocal of their counts.
        every: Apply it only every `every` generator steps; the weight is multiplied by `every`.

    Raises:
        ValueError: If `weight` is negative, `every` or a count less than 1, or `alpha` out of range; when called or
            given to a `Trainer`, if the generator has no conditional batch norm of as many classes.

    Examples:
        >>> regularizer = GroupSpectralRegularizer(0.5, class_counts=(1000, 10))
        >>> regularizer.class_weights
        tensor([0.0310, 1.9690])

    References:
        Rangwani et al. 2022, arXiv:2208.09932, section 4, and the code of its authors; Cui et al. 2019,
        arXiv:1901.05555 (effective number of samples).
    """

    class_weights: Tensor

    def __init__(
        self, weight: Scheduled = 0.5, *, class_counts: Sequence[int], alpha: float = 0.999, every: int = 1
    ) -> None:
        super().__init__(weight, every=every)
        if not class_counts or min(class_counts) < 1:
            raise ValueError(f"class_counts must be at least 1 for each class, got {tuple(class_counts)}.")
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha must be in [0, 1), got {alpha}.")
        self.class_counts = tuple(class_counts)
        self.alpha = alpha
        reciprocals = [(1 - alpha) / (1 - alpha**count) for count in class_counts]
        mean = sum(reciprocals) / len(reciprocals)
        # computed from the arguments, so not part of the state
        self.register_buffer("class_weights", torch.tensor(reciprocals) / mean, persistent=False)

    @override
    def penalty(self, generator: Callable[..., Tensor], batch: GeneratorBatch) -> Tensor:
        norms = self._norms(generator)
        with torch.autocast(norms[0].gain.device.type, enabled=False):
            squares = [squared_spectral_norm(table) for norm in norms for table in (norm.gain - 1, norm.shift)]
            weighted = torch.stack(squares) * self.class_weights.to(squares[0])
        total: Tensor = weighted.sum()
        return total / (len(norms) * len(self.class_counts))

    @override
    def check_generator(self, generator: Callable[..., Tensor]) -> None:
        self._norms(generator)

    def _norms(self, generator: Callable[..., Tensor]) -> list[ConditionalBatchNorm2d]:
        parts = generator.modules() if isinstance(generator, nn.Module) else ()
        norms = [part for part in parts if isinstance(part, ConditionalBatchNorm2d) and part.num_classes is not None]
        classes = {norm.num_classes for norm in norms}
        if classes != {len(self.class_counts)}:
            raise ValueError(
                f"GroupSpectralRegularizer needs a generator with conditional batch norms of {len(self.class_counts)} "
                f"classes, as many as class_counts, got norms of {sorted(map(str, classes)) or 'none'}. Pass "
                'conditioning="batch_norm" to the generator, and class_counts=data.class_counts.'
            )
        return norms

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, class_counts={self.class_counts}, alpha={self.alpha}"


def squared_spectral_norm(table: Tensor) -> Tensor:
    r"""Return the squared largest singular value of each row, reshaped to a matrix as close to a square as possible.

    With the Gram matrix $G$ of a row, $\mathrm{tr}(P G)$, where $P$ is a high power of $G$, of trace 1: the projection
    on the leading singular vectors. It is constant for the gradient, as the vectors of a power iteration are.

    Shape:
        - `table`: `(K, C)`. Returns: `(K,)`, in at least float32.

    Examples:
        >>> squared_spectral_norm(torch.tensor([[3.0, 0.0, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0]]))
        tensor([9., 4.])
    """
    channels = table.shape[1]
    groups = next(rows for rows in range(math.isqrt(channels), 0, -1) if channels % rows == 0)
    matrices = precise(table).unflatten(1, (groups, -1))
    gram = matrices @ matrices.mT
    with torch.no_grad():
        power = _of_unit_trace(gram)
        for _ in range(_SQUARINGS):
            power = _of_unit_trace(power @ power)
    squares: Tensor = (power * gram).sum((1, 2))
    return squares


def _of_unit_trace(matrices: Tensor) -> Tensor:
    trace = matrices.diagonal(dim1=1, dim2=2).sum(1)
    return matrices / trace.clamp(min=torch.finfo(trace.dtype).tiny)[:, None, None]
