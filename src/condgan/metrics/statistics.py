"""Intervals that respect patients: the bootstrap over groups of samples; degrees of freedom of a sum of variances.

Images of one patient resemble each other, so they are not independent samples, and an interval that treats them as
such is too narrow. The bootstrap here draws *groups* with replacement and keeps each group whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

_BLOCK = 2**22  # weights held at once: 32 MiB of float64


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its percentile interval.

    Args:
        value: The statistic of the samples at hand.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Nominal coverage of the interval.

    Examples:
        >>> print(Estimate(0.838, 0.8044, 0.8712))
        0.838 [0.804, 0.871]
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def as_dict(self) -> dict[str, float]:
        """Return the fields by name, ready for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "level": self.level}

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def group_bootstrap(
    statistic: Callable[[Tensor], Tensor],
    groups: Tensor | np.ndarray | Sequence[int],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    r"""Percentile interval of a statistic under resampling of whole groups.

    With $G$ groups, a resample draws $G$ groups with replacement. A sample then counts $w_n$ times, as often as its
    group was drawn, so a statistic that takes weights needs no copies of the data and is computed for all resamples
    at once. Weights of one mean the samples as they are. With one sample in each group this is the ordinary bootstrap.

    The same groups and seed give the same resamples: the difference of two models on one test set, taken inside
    `statistic`, is a paired comparison.

    Args:
        statistic: Maps weights `(R, N)` to R values, where R varies from call to call. NaN marks a resample for which
            the statistic is undefined, such as the recall of a class that was not drawn; it is left out.
        groups: The group of each sample, integers.
        resamples: Number of resamples.
        level: Nominal coverage of the interval.
        seed: Seed of the resampling.

    Shape:
        - `groups`: `(N,)`, int64.

    Raises:
        ValueError: If there are fewer than two groups, or no resample has a value.

    Examples:
        >>> x = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
        >>> patients = [0, 0, 1, 1, 2, 2]
        >>> print(group_bootstrap(lambda weights: weights @ x.double() / weights.sum(1), patients))
        2.500 [0.500, 4.500]

    References:
        Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8 (resampling of clusters).
    """
    blocks = [statistic(weights) for weights in group_weights(groups, resamples=resamples, seed=seed)]
    ones = torch.ones(1, len(groups), dtype=torch.float64)
    return percentile_estimate(float(statistic(ones)), torch.cat(blocks), level=level)


def group_weights(
    groups: Tensor | np.ndarray | Sequence[int], *, resamples: int = 2000, seed: int = 0
) -> Iterator[Tensor]:
    """Yield, block by block, how often each sample counts in each resample of the groups.

    Args:
        groups: The group of each sample, integers.
        resamples: Number of resamples over all blocks.
        seed: Seed of the resampling.

    Shape:
        - `groups`: `(N,)`, int64.
        - each block: `(R, N)`, float64 whole numbers; the R of all blocks add up to `resamples`.

    Raises:
        ValueError: If there are fewer than two groups, or `resamples` is not positive.

    Examples:
        >>> (weights,) = group_weights([7, 7, 8], resamples=4)
        >>> weights.shape, bool((weights[:, 0] == weights[:, 1]).all())
        (torch.Size([4, 3]), True)
    """
    members = torch.as_tensor(groups).cpu().numpy()
    names, index = np.unique(members, return_inverse=True)
    if members.ndim != 1 or len(names) < 2:
        raise ValueError(
            f"groups must name at least two groups, one entry a sample, got {len(names)} in the shape {members.shape}. "
            "An interval over groups needs several of them; use torch.arange(N) if samples are independent."
        )
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}. A percentile interval needs about 2000.")
    return _weight_blocks(torch.from_numpy(index), len(names), resamples, torch.Generator().manual_seed(seed))


def _weight_blocks(index: Tensor, count: int, resamples: int, rng: torch.Generator) -> Iterator[Tensor]:
    rows = max(1, _BLOCK // len(index))
    for start in range(0, resamples, rows):
        drawn = torch.randint(count, (min(rows, resamples - start), count), generator=rng)
        multiplicity = torch.zeros(drawn.shape, dtype=torch.float64)
        multiplicity.scatter_add_(1, drawn, torch.ones_like(multiplicity))
        yield multiplicity[:, index]


def percentile_estimate(value: float, replicates: Tensor, *, level: float = 0.95) -> Estimate:
    """Make an estimate from a value and its bootstrap replicates.

    Args:
        value: The statistic of the samples as they are.
        replicates: The statistic of each resample; NaN marks resamples to leave out.
        level: Nominal coverage of the interval.

    Shape:
        - `replicates`: `(R,)`.

    Raises:
        ValueError: If `level` is not between 0 and 1, or all replicates are NaN.

    Examples:
        >>> print(percentile_estimate(0.5, torch.linspace(0, 1, 101), level=0.9))
        0.500 [0.050, 0.950]
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}. Give a coverage such as 0.95.")
    values = replicates.detach().cpu().double().numpy()
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        raise ValueError(
            f"expected replicates with a value, got {len(replicates)} that are all NaN. The statistic is undefined in "
            "every resample: there are too few groups or samples for it."
        )
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), level)


def degrees_of_freedom(parts: ArrayLike, freedoms: Sequence[float]) -> np.ndarray:
    r"""Degrees of freedom of a sum of independently estimated variances, for the quantile of Student's t.

    With $r_i$ the share of part i in the sum and $\nu_i$ its own degrees of freedom,

    $$\frac1\nu = A + 10 (B - A^2) - 2 (C - B), \qquad A = \sum_i \frac{r_i^2}{\nu_i}, \quad
    B = \sum_i \frac{r_i^3}{\nu_i^2}, \quad C = \sum_i \frac{r_i^2}{\nu_i^2}.$$

    Satterthwaite's rule is A alone. The shares are estimates too: of three seeds one is often far too small by chance,
    and then A gives too many degrees of freedom, while two parts alike are less uncertain than A says. The other terms
    are those of second order in Welch's series for the quantile, written as degrees of freedom. There the factor of
    $B - A^2$ depends on the level: $\frac{2 (1 + 2 z^2)(3 + z^2)}{3 (1 + z^2)}$ with the normal quantile z, or 8.2 at
    95 % and 12.0 at 99 %. It is 10 at all levels here, so that p values belong to intervals. Where the series would
    break down, $\nu$ is held between the smallest $\nu_i$ and twice Satterthwaite's.

    Args:
        parts: The estimated variances. Negative ones, as differences of estimates can be, count as 0.
        freedoms: Degrees of freedom of each.

    Shape:
        - `parts`: `(parts, ...)`, `freedoms`: `(parts,)`, result: `(...)`.

    Examples:
        >>> degrees_of_freedom([2.0, 0.0], [4, 400]).item()
        4.0
        >>> degrees_of_freedom([1.0, 1.0], [2, 400]).round(1).item()
        4.6

    References:
        Welch 1947, "The generalization of 'Student's' problem when several different population variances are
        involved", with the terms as in Aspin 1948; Satterthwaite 1946.
    """
    variances = np.maximum(parts, 0.0)
    own = np.reshape(np.asarray(freedoms, dtype=float), (-1, *[1] * (variances.ndim - 1)))
    total = variances.sum(0)
    shares = np.divide(variances, total, out=np.zeros_like(variances), where=total > 0)
    a, b, c = ((shares**power / own**order).sum(0) for power, order in ((2, 1), (3, 2), (2, 2)))
    fewest = np.where(shares > 0, own, np.inf).min(0)
    inverse = np.clip(a + 10 * (b - a**2) - 2 * (c - b), a / 2, 1 / fewest)
    freedom: np.ndarray = 1 / np.where(total > 0, inverse, 1 / own.max())
    return freedom
