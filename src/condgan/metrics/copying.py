"""Tests for copies of training images, on the features of generated, training and held-out images.

The extractor of the features must not have been trained on the training images: it would treat them differently from
held-out ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from condgan.devices import plain_defaults
from condgan.files import check_tensors
from condgan.metrics.neighbors import Neighbors, nearest_neighbors

_POWER = 0.9


@dataclass(frozen=True, slots=True)
class DataCopying:
    """The $C_T$ statistic, see `c_t`.

    Args:
        value: $C_T$: below 0 where generated samples lie nearer to the training set than held-out ones.
        p_value: Probability of a value this low or lower if both have the same distribution.
    """

    value: float
    p_value: float


@dataclass(frozen=True, slots=True)
class CopyTest:
    """How many generated samples lie below a low quantile of the held-out ones, see `copy_test`.

    Args:
        count: Number of generated samples below the threshold.
        expected: Expected number among as many samples from the distribution of the held-out ones.
        generated: Number of generated samples.
        held_out: Number of held-out samples that set the threshold.
        threshold: The distance below which a sample counts.
        false_rate: Probability that one sample from the distribution of the held-out ones counts.
        p_value: Probability of this count or more if generated samples have the distribution of the held-out ones.
        detectable: The smallest share of copies that is detected with a probability of 0.9; 1 if no share is.
    """

    count: int
    expected: float
    generated: int
    held_out: int
    threshold: float
    false_rate: float
    p_value: float
    detectable: float


def copy_test(generated: Tensor, held_out: Tensor, *, rate: float = 0.01, alpha: float = 0.01) -> CopyTest:
    r"""Count generated samples that are nearer to the training set than nearly all held-out ones, and test the count.

    The threshold is the k-th smallest of the n held-out distances, with $k = \max(1, \lfloor q (n + 1) \rfloor)$ for
    the rate q. A further sample from their distribution lies below it with probability $k / (n + 1)$ exactly. Since all
    m generated samples are compared with the same estimated threshold, their count is not binomial with that rate but
    beta-binomial,

    $$\text{count} \sim \text{BetaBinomial}(m, k, n - k + 1),$$

    whatever the distribution of the distances; the p value is its upper tail. Ties with the threshold do not count.

    The share of copies that the test detects with probability 0.9 at the level `alpha` shows whether there are enough
    samples.

    Args:
        generated: The distance of each generated sample to the training set, plain or relative.
        held_out: The same for the held-out samples, which must be independent: one image per patient.
        rate: The quantile q.
        alpha: The level at which the smallest detectable share is computed.

    Shape:
        - `generated`, `held_out`: `(m,)` and `(n,)`.

    Raises:
        ValueError: If a set is empty, or `rate` or `alpha` is not between 0 and 1.

    Examples:
        >>> held_out = torch.arange(1.0, 100.0)
        >>> found = copy_test(torch.tensor([0.5, 0.5, 50.0, 60.0]), held_out)
        >>> found.count, found.threshold, found.false_rate, round(found.p_value, 5)
        (2, 1.0, 0.01, 0.00114)
    """
    from scipy.stats import beta, betabinom

    check_tensors(generated=generated, held_out=held_out)
    m, n = len(generated), len(held_out)
    if min(m, n) < 1 or not 0 < rate < 1 or not 0 < alpha < 1:
        raise ValueError(
            "a copy test needs samples of both kinds and rates between 0 and 1, got "
            f"{m} generated and {n} held-out samples, rate={rate} and alpha={alpha}. Pass at least one of each kind."
        )
    k = max(1, math.floor(rate * (n + 1)))
    threshold = held_out.sort().values[k - 1]
    count = int((generated < threshold).sum())
    # tail[c]: the probability of c or more; sums of small terms keep p values that a difference from 1 would lose
    tail = betabinom(m, k, n - k + 1).pmf(range(m + 1))[::-1].cumsum()[::-1]
    critical = int((tail > alpha).sum())
    return CopyTest(
        count=count,
        expected=m * k / (n + 1),
        generated=m,
        held_out=n,
        threshold=float(threshold),
        false_rate=k / (n + 1),
        p_value=min(1.0, float(tail[count])),
        # the copies alone must reach the critical count
        detectable=float(beta.ppf(_POWER, critical, m - critical + 1)) if critical <= m else 1.0,
    )


def c_t(generated: Tensor, held_out: Tensor, train: Tensor, *, least: int = 20) -> DataCopying:
    r"""Test whether generated samples lie nearer to the training set than held-out samples do.

    With $n$ held-out and $m$ generated samples, U counts the pairs in which the generated one is farther from the
    training samples (ties count one half), and

    $$C_T = \frac{U - \frac{mn}{2}}{\sqrt{\frac{mn(m + n + 1)}{12}}}$$

    Far below 0 means copying, far above 0 means samples unlike the training set. If held-out and generated samples have
    the same distribution, $C_T$ is approximately standard normal, which gives the p value.

    Deviations: the paper averages this over the cells of a clustering of the space; here the caller passes one cell,
    such as the samples of one class. The authors' code adds a correction for continuity that the paper does not have.
    Samples must be independent: pass one held-out image per patient.

    Smooth images are near to all others and lower $C_T$ without any copying: a low value alone is no evidence of it.

    Args:
        generated: Features of generated images.
        held_out: Features of real images that were not trained on.
        train: Features of the training images.
        least: Smallest number of samples of either kind.

    Shape:
        - `generated`, `held_out`, `train`: `(m, D)`, `(n, D)` and `(N, D)`.

    Raises:
        ValueError: If there are too few samples.

    References:
        Meehan, Chaudhuri and Dasgupta 2020, arXiv:2004.05675.
    """
    from scipy.stats import mannwhitneyu

    m, n = len(generated), len(held_out)
    if min(m, n) < least:
        raise ValueError(
            f"C_T needs at least {least} generated and {least} held-out samples, got {m} and {n}. Add samples."
        )
    near = [nearest_neighbors(side, train).distances[:, 0].numpy() for side in (generated, held_out)]
    u = float(mannwhitneyu(*near, method="asymptotic").statistic)
    value = (u - m * n / 2) / math.sqrt(m * n * (m + n + 1) / 12)
    return DataCopying(value, float(torch.special.ndtr(torch.tensor(value, dtype=torch.float64))))


def authenticity(neighbors: Neighbors, radius: Tensor) -> Tensor:
    """Return which samples are farther from their nearest training sample than that is from its nearest other one.

    The share of authentic samples is below 1 without copying, too, and lower for smooth images: compare it with the
    share among held-out real images. Remove duplicates from the training set first: a repeated image is at distance 0
    from its duplicate, and every copy of it would count as authentic.

    Deviation: the authors' code uses the wrong training sample (it indexes distances of training samples by numbers of
    generated ones); this follows the paper.

    Args:
        neighbors: The nearest training samples of each sample.
        radius: The `own_radius` of each training sample.

    Shape:
        - `radius`: `(M,)`. Output: `(N,)`, bool.

    Examples:
        >>> train = torch.tensor([[0.0], [1.0], [5.0]])
        >>> near = nearest_neighbors(torch.tensor([[-0.5], [3.5], [0.9], [9.5]]), train)
        >>> authenticity(near, own_radius(train))
        tensor([False, False, False,  True])

    References:
        Alaa et al. 2022, arXiv:2102.08921.
    """
    return neighbors.distances[:, 0] > radius[neighbors.indices[:, 0]]


@plain_defaults()
def own_radius(train: Tensor, groups: Tensor | None = None) -> Tensor:
    """Return the distance of each training sample to the nearest other one, for `authenticity`.

    Args:
        train: Features of the training images.
        groups: Patients of the training images. If given, the nearest image of another patient counts, because two
            images of one patient may be nearer to each other than a noisy copy is to either.

    Shape:
        - `train`: `(M, D)`; `groups`: `(M,)`, int64. Output: `(M,)`, float64.
    """
    own = torch.arange(len(train)) if groups is None else groups
    return nearest_neighbors(train, train, groups=(own, own)).distances[:, 0]
