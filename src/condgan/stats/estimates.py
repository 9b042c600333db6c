"""Estimates with intervals: the bootstrap over groups, limits on the logit scale, and corrections of p values.

Images of one patient resemble each other, so they are not independent samples, and an interval that treats them as
such is too narrow. The bootstrap here draws *groups* with replacement and keeps each group whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from condgan.devices import plain_defaults

Groups = Tensor | np.ndarray | Sequence[int]
"""The group (patient) of each sample, integers."""

WeightedStatistic = Callable[[Tensor], Tensor]
"""Maps weights of samples `(R, N)` to R values, or to `(M, R)` values of M statistics."""

_BLOCK = 2**22  # weights held at once: 32 MiB of float64
_ROUNDING = 1e-12  # a score this near to 0 or 1 is exactly there


@dataclass(frozen=True, slots=True)
class Interval:
    """The ends of an interval.

    Args:
        low: Lower end.
        high: Upper end.
        level: Nominal coverage.
    """

    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval.

    Args:
        value: The statistic of the samples as they are.
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

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def group_bootstrap(
    statistic: WeightedStatistic, groups: Groups, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Estimate:
    r"""Percentile interval of a statistic under resampling of whole groups (the cluster bootstrap).

    With $G$ groups, a resample draws $G$ groups with replacement. A sample then counts $w_n$ times, as often as its
    group was drawn, so a statistic of weights needs no copies of the data and is computed for many resamples at once.
    Weights of one give the statistic of the samples as they are. With one sample in each group this is the ordinary
    bootstrap.

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
    value, replicates = bootstrap_replicates(statistic, groups, resamples=resamples, seed=seed)
    return percentile_estimate(float(value), replicates, level=level)


@plain_defaults()
def bootstrap_replicates(
    statistic: WeightedStatistic, groups: Groups, *, resamples: int = 2000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return a statistic, or several of the same resamples, and its replicates under resampling of whole groups.

    Args:
        statistic: Maps weights `(R, N)` to `(R,)` values, or to `(M, R)` values of M statistics.
        groups: The group of each sample, integers.
        resamples: Number of resamples R.
        seed: Seed of the resampling.

    Shape:
        - `groups`: `(N,)`, int64.
        - Returns: `()` and `(R,)`, or `(M,)` and `(M, R)`, float64.

    Raises:
        ValueError: If there are fewer than two groups, or `resamples` is not positive.

    Examples:
        >>> counts = lambda weights: torch.stack([weights.sum(1), weights.prod(1)])
        >>> value, replicates = bootstrap_replicates(counts, [7, 7, 8], resamples=4)
        >>> value.tolist(), replicates.shape
        ([3.0, 1.0], torch.Size([2, 4]))
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    names, members = group_indices(groups)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}. A percentile interval needs about 2000.")
    index = torch.from_numpy(members)

    def of_drawn(drawn: np.ndarray, axis: int) -> np.ndarray:
        rows = drawn.reshape(-1, names)
        # each row has its own range of numbers, so that one call counts all rows
        offset = rows + names * np.arange(len(rows))[:, None]
        weights = np.bincount(offset.ravel(), minlength=rows.size).reshape(rows.shape)
        found = statistic(torch.from_numpy(weights).double()[:, index]).detach().cpu().double().numpy()
        return found.reshape(*found.shape[:-1], *drawn.shape[:axis])

    with warnings.catch_warnings():
        # scipy makes an interval at once, which warns of undefined resamples
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (np.arange(names),),
            of_drawn,
            n_resamples=resamples,
            batch=max(1, _BLOCK // len(index)),
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    ones = torch.ones(1, len(index), dtype=torch.float64)
    return statistic(ones)[..., 0].cpu().double(), torch.from_numpy(found.bootstrap_distribution)


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
    check_level(level)
    values = replicates.detach().cpu().double().numpy()
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        raise ValueError(
            f"expected replicates with a value, got {len(replicates)} that are all NaN. The statistic is undefined in "
            "every resample: there are too few groups or samples for it."
        )
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), level)


def logit_limits(
    value: ArrayLike, variance: ArrayLike, degrees_of_freedom: ArrayLike, *, alpha: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    r"""Limits of a score in (0, 1) by Student's t on the logit scale.

    With the variance $V$ of the score $s$, the delta method gives its logit the standard error
    $\sqrt V / (s (1 - s))$, and the limits are

    $$\operatorname{expit}\left(\log \frac{s}{1 - s} \pm t_{1 - \alpha / 2, \nu} \frac{\sqrt V}{s (1 - s)}\right).$$

    They stay inside (0, 1), and a score near 1 can fall further than it can rise.

    Args:
        value: The score $s$.
        variance: Its estimated variance $V$.
        degrees_of_freedom: Of that estimate, $\nu$.
        alpha: One minus the level of the interval.

    Shape:
        - All arguments and both results: shapes that broadcast.

    Examples:
        >>> low, high = logit_limits(0.5, 0.01, 20, alpha=0.05)
        >>> round(float(low), 3), round(float(high), 3)
        (0.303, 0.697)

    References:
        Newcombe 2001, "Logit confidence intervals and the inverse sinh transformation".
    """
    from scipy.special import expit, logit, stdtrit

    p = np.asarray(value, dtype=float)
    reach = -stdtrit(degrees_of_freedom, np.asarray(alpha) / 2) * np.sqrt(variance) / (p * (1 - p))
    return expit(logit(p) - reach), expit(logit(p) + reach)


def off_the_boundary(value: ArrayLike, variance: ArrayLike, groups: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Move scores of exactly 0 or 1 into (0, 1), because nothing varies there to estimate a variance from.

    A score $p$ of 0 or 1 on $n$ groups is treated as the share of groups that are classified correctly, and is replaced
    by $p'$ with the variance $V'$ of such a share,

    $$p' = \frac{n p + \frac12}{n + 1}, \qquad V' = \frac{p' (1 - p')}{n + 1}.$$

    Its logit is then the empirical logit, with the usual variance $1 / (n p + \frac12) + 1 / (n (1 - p) + \frac12)$.
    Other scores are unchanged.

    Args:
        value: Scores in [0, 1].
        variance: Their estimated variances.
        groups: Number of groups $n$ that the scores rest on.

    Shape:
        - `value`, `variance` and both results: one shape.

    Examples:
        >>> value, variance = off_the_boundary([0.7, 1.0], [0.02, 0.0], groups=9)
        >>> value.tolist(), variance.round(5).tolist()
        ([0.7, 0.95], [0.02, 0.00475])

    References:
        Cox and Snell 1989, "Analysis of Binary Data", section 2.1 (the empirical logit); Haldane 1956.
    """
    p = np.asarray(value, dtype=float)
    moved = (groups * p.round() + 0.5) / (groups + 1)
    at_boundary = (p < _ROUNDING) | (p > 1 - _ROUNDING)
    inside = np.where(at_boundary, moved, p)
    return inside, np.where(at_boundary, inside * (1 - inside) / (groups + 1), variance)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    r"""Adjust the p values of several tests, so that the chance of any false rejection stays at the level.

    With the m p values in ascending order, the i-th adjusted one is $\max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})$:
    reject those at most the level. No assumption about how the tests depend on each other is needed.

    Args:
        p_values: One p value per test.

    Returns:
        The adjusted p values in the order of `p_values`.

    Raises:
        ValueError: If a p value is not in [0, 1].

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)

    References:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    wrong = [p for p in p_values if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"p_values must lie in [0, 1], got {wrong}. Leave out tests that have no p value.")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, test in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[test]))
        adjusted[test] = largest
    return tuple(adjusted)


def group_indices(groups: Groups) -> tuple[int, np.ndarray]:
    """Return the number of groups, and the index of each sample's group, counted from 0.

    Raises:
        ValueError: If there are fewer than two groups, or not one entry per sample.

    Examples:
        >>> group_indices([7, 3, 7])
        (2, array([1, 0, 1]))
    """
    members = torch.as_tensor(groups).cpu().numpy()
    names, index = np.unique(members, return_inverse=True)
    if members.ndim != 1 or len(names) < 2:
        raise ValueError(
            f"groups must name at least two groups, one entry per sample, got {len(names)} in the shape "
            f"{members.shape}. An interval over groups needs several; use torch.arange(N) if samples are independent."
        )
    return len(names), index


def check_level(level: float) -> None:
    """Raise an error unless a nominal coverage lies between 0 and 1.

    Raises:
        ValueError: If it does not.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}. Give a coverage such as 0.95.")
