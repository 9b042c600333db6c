"""Does a generator repeat what it was trained on? Tests on the features of generated, training and held-out images.

The extractor of the features must not have been trained on the training images: it would know them, and not the
held-out ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from condgan.metrics.neighbors import Neighbors, nearest_neighbors

_POWER = 0.9


@dataclass(frozen=True, slots=True)
class DataCopying:
    """The $C_T$ statistic, see `c_t`.

    Args:
        value: $C_T$: below 0 where generated samples lie nearer to the training set than held-out ones.
        p_value: Chance of a value this low or lower if both were drawn alike.
        cells: Number of cells that hold enough samples.
        share: Share of the held-out samples in these cells.
    """

    value: float
    p_value: float
    cells: int
    share: float


@dataclass(frozen=True, slots=True)
class CopyTest:
    """How many generated samples lie below a low quantile of the held-out ones, see `copy_test`.

    Args:
        count: Number of generated samples below the threshold.
        expected: Number to expect of as many samples like the held-out ones.
        generated: Number of generated samples.
        held_out: Number of held-out samples that set the threshold.
        threshold: The distance below which a sample counts.
        false_rate: Chance that one sample like the held-out ones counts.
        p_value: Chance of this count or more if generated samples were like the held-out ones.
        detectable: The smallest share of copies that is found with a probability of 0.9; 1 if none is.
    """

    count: int
    expected: float
    generated: int
    held_out: int
    threshold: float
    false_rate: float
    p_value: float
    detectable: float


def c_t(
    generated: Tensor, held_out: Tensor, train: Tensor, *, cells: int = 1, least: int = 20, seed: int = 0
) -> DataCopying:
    r"""Test whether generated samples lie nearer to the training set than held-out samples do.

    In each cell $\pi$ of a partition of the space, with $n$ held-out and $m$ generated samples, U counts the pairs in
    which the generated one is the farther from the cell's training samples (ties one half), and

    $$Z_\pi = \frac{U - \frac{mn}{2}}{\sqrt{\frac{mn(m + n + 1)}{12}}}, \qquad
    C_T = \frac{\sum_\pi P(\pi) Z_\pi}{\sum_\pi P(\pi)}$$

    where $P(\pi)$ is the share of held-out samples in the cell. Far below 0 means copying, far above 0 means samples
    unlike the training set. If held-out and generated samples are drawn alike, $Z_\pi$ is about standard normal and
    the variance of $C_T$ is $\sum_\pi P(\pi)^2 / (\sum_\pi P(\pi))^2$, which gives the p value.

    The cells are those of a k-means clustering of the training samples. Cells with fewer than `least` generated or
    held-out samples are left out (the paper asks this of generated ones only, and its code adds a correction for
    continuity that the paper does not have). Samples must be independent: pass one held-out image a patient.

    Smooth images lie near to everything and lower $C_T$ without any copying: a low value alone accuses nobody.

    Args:
        generated: Features of generated images.
        held_out: Features of real images that were not trained on.
        train: Features of the training images.
        cells: Number of cells.
        least: The fewest samples of both kinds in a cell.
        seed: Seed of the clustering.

    Shape:
        - `generated`, `held_out`, `train`: `(m, D)`, `(n, D)` and `(N, D)`.

    Raises:
        ValueError: If no cell has enough samples.

    References:
        Meehan, Chaudhuri and Dasgupta 2020, arXiv:2004.05675.
    """
    from scipy.stats import mannwhitneyu

    of_generated, of_held_out, of_train = _cells(generated, held_out, train, cells, seed)
    scores, shares = [], []
    for cell in range(cells):
        ours, theirs = generated[of_generated == cell], held_out[of_held_out == cell]
        m, n = len(ours), len(theirs)
        if min(m, n) < least:
            continue
        known = train[of_train == cell]
        near = [nearest_neighbors(side, known).distances[:, 0].numpy() for side in (ours, theirs)]
        u = float(mannwhitneyu(*near, method="asymptotic").statistic)
        scores.append((u - m * n / 2) / math.sqrt(m * n * (m + n + 1) / 12))
        shares.append(n / len(held_out))
    if not scores:
        raise ValueError(
            f"some cell must hold at least {least} generated and {least} held-out samples, got none of {cells} with "
            f"{len(generated)} and {len(held_out)} in all. Lower cells, or add samples."
        )
    value = sum(share * score for share, score in zip(shares, scores, strict=True)) / sum(shares)
    deviation = math.sqrt(sum(share**2 for share in shares)) / sum(shares)
    p_value = float(torch.special.ndtr(torch.tensor(value / deviation, dtype=torch.float64)))
    return DataCopying(value, p_value, len(scores), sum(shares))


def _cells(generated: Tensor, held_out: Tensor, train: Tensor, count: int, seed: int) -> list[Tensor]:
    if count == 1:
        return [torch.zeros(len(side)) for side in (generated, held_out, train)]
    from scipy.cluster.vq import kmeans

    centers, _ = kmeans(train.double().numpy(), count, iter=5, rng=seed)
    return [nearest_neighbors(x, torch.from_numpy(centers)).indices[:, 0] for x in (generated, held_out, train)]


def authenticity(generated: Tensor, train: Tensor, *, groups: Tensor | None = None) -> Tensor:
    """Tell which samples are farther from the nearest training sample than that one is from its own nearest.

    The share of authentic samples is below 1 for honest generators too, and lower for smooth images: compare it with
    the share among held-out real images. The authors' code looks up the wrong training sample (it indexes distances
    of training samples by numbers of generated ones); this follows the paper.

    Args:
        generated: Features of the samples to judge.
        train: Features of the training images, without duplicates: a repeated image has the distance 0 to its twin,
            and every copy of it would pass for authentic.
        groups: Patients of the training images. If given, the nearest of another patient counts, since two images of
            one patient may lie nearer to each other than a copy with some noise lies to either.

    Shape:
        - `generated`, `train`: `(N, D)` and `(M, D)`; `groups`: `(M,)`, int64. Output: `(N,)`, bool.

    Examples:
        >>> train = torch.tensor([[0.0], [1.0], [5.0]])
        >>> authenticity(torch.tensor([[-0.5], [3.5], [0.9], [9.5]]), train)
        tensor([False, False, False,  True])

    References:
        Alaa et al. 2022, arXiv:2102.08921.
    """
    return authentic(nearest_neighbors(generated, train), own_radius(train, groups))


def own_radius(train: Tensor, groups: Tensor | None) -> Tensor:
    """Return the distance of each training sample to the nearest other one, of another group if there are groups.

    Shape:
        - `train`: `(M, D)`; `groups`: `(M,)`, int64, or None. Output: `(M,)`, float64.
    """
    own = torch.arange(len(train)) if groups is None else groups
    return nearest_neighbors(train, train, groups=(own, own)).distances[:, 0]


def authentic(neighbors: Neighbors, radius: Tensor) -> Tensor:
    """Return `authenticity` from neighbours among the training samples and the `own_radius` of these.

    Shape:
        - `radius`: `(M,)`. Output: `(N,)`, bool.
    """
    return neighbors.distances[:, 0] > radius[neighbors.indices[:, 0]]


def copy_test(generated: Tensor, held_out: Tensor, *, rate: float = 0.01, alpha: float = 0.01) -> CopyTest:
    r"""Count generated samples nearer to the training set than nearly all held-out ones, and test the number.

    The threshold is the k-th smallest of the n held-out distances, with $k = \max(1, \lfloor q (n + 1) \rfloor)$ for
    the rate q. A further sample drawn like them lies below it with probability $k / (n + 1)$ exactly. Since all m
    generated samples meet the same estimated threshold, their count is not binomial with that rate but
    beta-binomial,

    $$\text{count} \sim \text{BetaBinomial}(m, k, n - k + 1),$$

    whatever the distribution of the distances; the p value is its upper tail. Ties with the threshold do not count.

    The share of copies that the test finds with probability 0.9 at the level `alpha` says whether there were enough
    samples.

    Args:
        generated: A distance of each generated sample to the training set, plain or relative.
        held_out: The same of the held-out samples, which must be independent: one image a patient.
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

    m, n = len(generated), len(held_out)
    if min(m, n) < 1 or not 0 < rate < 1 or not 0 < alpha < 1:
        raise ValueError(
            "a copy test needs samples of both kinds and rates between 0 and 1, got "
            f"{m} generated and {n} held-out samples, rate={rate} and alpha={alpha}."
        )
    k = max(1, math.floor(rate * (n + 1)))
    threshold = held_out.sort().values[k - 1]
    count = int((generated < threshold).sum())
    # tail[c]: the chance of c or more; sums of small terms keep p values that a difference from 1 would lose
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
