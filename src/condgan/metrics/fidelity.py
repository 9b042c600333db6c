r"""How similar generated images are to real ones, on features: KID, FID, precision and recall, density and coverage.

KID, FID, precision, recall and the Inception Score are computed by the functions of torch-fidelity, density and
coverage, which it lacks, here. All are computed in float64, and distances between features around their mean: float32
would lose small differences of features far from the origin. Near it the scores equal those of torch-fidelity.

Uncertainty is computed from the *deviations* of a score: one number for each group of images on each side, whose
squares add up to the variance of the score. They come from influence functions (KID, FID, Inception Score) or from a
jackknife (the others). Deviations of differences and means of scores are the differences and means of deviations.

| score | range | best | depends on the number of samples |
|---|---|---|---|
| KID | about 0 and up | 0 | no: unbiased, slightly negative at times |
| FID | 0 and up | 0 | yes: too large for few samples |
| precision, recall | 0 to 1 | 1 | yes |
| density | 0 and up | about 1 | hardly |
| coverage | 0 to 1 | about 1 | yes |
| Inception Score | 1 to K | K | yes: too small for few samples |
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from condgan.devices import plain_defaults
from condgan.files import check_tensors
from condgan.metrics.extractors import ExtractorInfo
from condgan.metrics.neighbors import centered, neighbor_radii, neighbor_radii_among
from condgan.stats import Estimate

_BLOCK = 2**24  # distances or kernel values held at once: 128 MiB in float64
_UNBLOCKED = 10_000  # samples up to which torch-fidelity holds all pairs at once, as it does by default

Setting = int | float | tuple[int | float, ...]
"""A number that a score depends on; several where it is a mean over folds that differ in it."""


@dataclass(frozen=True, slots=True)
class Score:
    """A figure and everything that it depends on.

    Args:
        metric: Name of the metric.
        value: The figure.
        samples: Number of generated images.
        reference_samples: Number of reference images; None for a score without a reference.
        extractor: The network of the features; None if it was not given.
        settings: Seed, subset size and the like.
        notes: What a reader must know before comparing the figure.
    """

    metric: str
    value: float
    samples: int
    reference_samples: int | None
    extractor: ExtractorInfo | None
    settings: dict[str, Setting] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class PrecisionRecall(NamedTuple):
    """Share of the generated images that look real, and share of the real ones that the generator covers."""

    precision: Score
    recall: Score


class DensityCoverage(NamedTuple):
    """How densely real images surround generated ones, and the share of real images with a generated one nearby."""

    density: Score
    coverage: Score


def kid(
    generated: Tensor,
    reference: Tensor,
    *,
    subset_size: int = 1000,
    subsets: int = 100,
    seed: int = 0,
    extractor: ExtractorInfo | None = None,
) -> Score:
    r"""Kernel Inception Distance: the unbiased squared maximum mean discrepancy under a cubic kernel.

    $$\mathbb{E}\,k(x, x') + \mathbb{E}\,k(y, y') - 2\,\mathbb{E}\,k(x, y), \qquad
    k(x, y) = \left(\tfrac{x^\top y}{D} + 1\right)^3$$

    The KID is the mean over random subsets of both sets. Its expectation does not depend on the number of samples and
    is 0 for two samples of one distribution: between halves of one set it is noise around 0, at times negative. Prefer
    it for small sets and for single classes.

    The subset size is at most the number of samples of either set; a note says if it was lowered. The standard
    deviation over the subsets is in the settings. It is not a standard error, because the subsets overlap.

    Args:
        generated: Features of generated images.
        reference: Features of real images, from the same extractor.
        subset_size: Number of images in a subset.
        subsets: Number of subsets.
        seed: Seed of the subsets.
        extractor: The `info` of the extractor, for the result.

    Shape:
        - `generated`: `(N, D)`, floating point; `reference`: `(M, D)`.

    Raises:
        ValueError: If features do not fit, or a number is out of range.

    Examples:
        >>> x = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
        >>> score = kid(x[:300] + 1, x[300:])
        >>> score.value > 1, score.settings["subset_size"], score.notes
        (True, 200, ('subset size 200 instead of 1000, the smaller number of samples',))

    References:
        Bińkowski et al. 2018, arXiv:1801.01401, section 4.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    x, y = _check_pair(generated, reference)
    if subset_size < 2 or subsets < 1:
        raise ValueError(f"subset_size must be at least 2 and subsets at least 1, got {subset_size} and {subsets}.")
    size = min(subset_size, len(x), len(y))
    lowered = f"subset size {size} instead of {subset_size}, the smaller number of samples"
    found = kid_features_to_metric(
        x, y, kid_subset_size=size, kid_subsets=subsets, rng_seed=seed, verbose=False, kid_kernel="poly"
    )
    settings = {"subset_size": size, "subsets": subsets, "subset_std": found[KEY_METRIC_KID_STD], "seed": seed}
    notes = (lowered,) if size < subset_size else ()
    return Score("kid", found[KEY_METRIC_KID_MEAN], len(x), len(y), extractor, settings, notes)


def fid(generated: Tensor, reference: Tensor, *, extractor: ExtractorInfo | None = None) -> Score:
    r"""Fréchet Inception Distance: the squared Fréchet distance of two Gaussians with the moments of the features.

    $$|\mu_1 - \mu_2|^2 + \operatorname{tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right)$$

    Finite samples make it too large, by an amount that falls as $1 / N$, grows with D and differs between generators:
    compare FIDs at equal numbers of samples only. With no more samples than feature dimensions a covariance does not
    have full rank and most of the figure is bias. Such an FID is computed, because it can still be compared with
    another at equal numbers, but the score has a note that says so. Prefer the KID then, or a layer with fewer
    features.

    Args:
        generated: Features of generated images.
        reference: Features of real images, from the same extractor.
        extractor: The `info` of the extractor, for the result.

    Shape:
        - `generated`: `(N, D)`, floating point; `reference`: `(M, D)`.

    Raises:
        ValueError: If features do not fit.

    Examples:
        >>> x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
        >>> round(fid(x + 2, x).value, 3), round(fid(2 * x, x).value, 1)
        (16.0, 4.2)

    References:
        Heusel et al. 2017, arXiv:1706.08500; Chong and Forsyth 2020, arXiv:1911.07023 (its bias).
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    x, y = _check_pair(generated, reference)
    found = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), False)
    notes = tuple(
        f"{count} {role} images for {x.shape[1]} feature dimensions: the covariance is rank-deficient and the FID is "
        "mostly bias; compare it at equal numbers of samples only, and prefer the KID"
        for role, count in (("generated", len(x)), ("reference", len(y)))
        if count <= x.shape[1]
    )
    return Score("fid", found[KEY_METRIC_FID], len(x), len(y), extractor, {}, notes)


def precision_recall(
    generated: Tensor, reference: Tensor, *, neighborhood: int = 3, extractor: ExtractorInfo | None = None
) -> PrecisionRecall:
    r"""Precision: share of generated images inside a ball around a real one; recall: the same with roles exchanged.

    The ball around each image reaches to its `neighborhood`-th nearest neighbor within its own set. One outlier has a
    large ball, so one real outlier can raise the precision and one generated outlier the recall; `density_coverage`
    is less easily fooled. Both grow or fall with the numbers of samples: compare them at equal numbers only.

    Args:
        generated: Features of generated images.
        reference: Features of real images, from the same extractor.
        neighborhood: Which neighbor gives the radius.
        extractor: The `info` of the extractor, for the result.

    Shape:
        - `generated`: `(N, D)`, floating point; `reference`: `(M, D)`.

    Raises:
        ValueError: If features do not fit, or a set has no more than `neighborhood` images.

    Examples:
        >>> line = torch.arange(10.0)[:, None]
        >>> scores = precision_recall(line[:5], line, neighborhood=1)
        >>> scores.precision.value, round(scores.recall.value, 3)
        (1.0, 0.6)

    References:
        Kynkäänniemi et al. 2019, arXiv:1904.06991.
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    x, y = centered(*_check_pair(generated, reference))
    _check_neighborhood(neighborhood, x, y)
    blocked = max(len(x), len(y)) > _UNBLOCKED
    found = prc_features_to_metric(x, y, prc_neighborhood=neighborhood, save_cpu_ram=blocked, verbose=False)
    precision, recall = (
        Score(name, found[key], len(x), len(y), extractor, {"neighborhood": neighborhood})
        for name, key in (("precision", KEY_METRIC_PRECISION), ("recall", KEY_METRIC_RECALL))
    )
    return PrecisionRecall(precision, recall)


@plain_defaults()
def density_coverage(
    generated: Tensor, reference: Tensor, *, neighborhood: int = 5, extractor: ExtractorInfo | None = None
) -> DensityCoverage:
    r"""Density: mean number of real balls around a generated image; coverage: share of real balls that hold one.

    With the closed ball $B_j$ around real image $y_j$ that reaches to its $k$-th nearest real neighbor,

    $$\text{density} = \frac{1}{k N} \sum_{i=1}^N \sum_{j=1}^M [x_i \in B_j], \qquad
    \text{coverage} = \frac{1}{M} \sum_{j=1}^M \left[\exists i: x_i \in B_j\right]$$

    All balls belong to real images, so generated outliers have no effect. For two samples of one distribution with
    equal numbers of images the density is about 1 and the coverage about $1 - 2^{-k}$. Coverage grows with the number
    of generated images: compare it at equal numbers only.

    Args:
        generated: Features of generated images.
        reference: Features of real images, from the same extractor.
        neighborhood: Which neighbor gives the radius, k.
        extractor: The `info` of the extractor, for the result.

    Shape:
        - `generated`: `(N, D)`, floating point; `reference`: `(M, D)`.

    Raises:
        ValueError: If features do not fit, or a set has no more than `neighborhood` images.

    Examples:
        >>> real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
        >>> scores = density_coverage(torch.tensor([[0.5], [20.0]]), real, neighborhood=1)
        >>> scores.density.value, scores.coverage.value
        (1.0, 0.5)

    References:
        Naeem et al. 2020, arXiv:2002.09797, equations 4 and 5.
    """
    x, y = centered(*_check_pair(generated, reference))
    _check_neighborhood(neighborhood, y)
    chunks = torch.split(x, max(1, _BLOCK // len(y)))
    density, coverage = _density_coverage(
        (torch.cdist(chunk, y) for chunk in chunks), neighbor_radii(y, neighborhood), neighborhood
    )
    settings: dict[str, Setting] = {"neighborhood": neighborhood}
    return DensityCoverage(
        Score("density", density, len(x), len(y), extractor, settings),
        Score("coverage", coverage, len(x), len(y), extractor, settings),
    )


def inception_score(
    logits: Tensor, *, splits: int = 10, seed: int = 0, extractor: ExtractorInfo | None = None
) -> Score:
    r"""Inception Score: how confident and how varied a classifier's decisions about the images are.

    $$\exp \mathbb{E}_x\, \mathrm{KL}\left(p(c \mid x) \,\|\, p(c)\right)$$

    The score is the mean over random splits; their standard deviation is in the settings. It does not use real images,
    so it does not measure similarity to them, and it is hardly meaningful for images unlike those that its classifier
    was trained on. It is here because it is reported in the literature.

    Args:
        logits: Class logits of generated images.
        splits: Number of parts.
        seed: Seed of the splits.
        extractor: The `info` of the extractor, for the result.

    Shape:
        - `logits`: `(N, K)`, floating point.

    Raises:
        ValueError: If logits are not a finite matrix, or there are fewer images than splits.

    Examples:
        >>> round(inception_score(100 * torch.eye(4).repeat(10, 1), splits=1).value, 6)
        4.0

    References:
        Salimans et al. 2016, arXiv:1606.03498; Barratt and Sharma 2018, arXiv:1801.01973 (its flaws).
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    x = _check_features("logits", logits)
    if not 1 <= splits <= len(x):
        raise ValueError(f"splits must be between 1 and the number of images, {len(x)}, got {splits}.")
    found = isc_features_to_metric(x, splits, True, seed)
    settings = {"splits": splits, "split_std": found[KEY_METRIC_ISC_STD], "seed": seed}
    return Score("inception_score", found[KEY_METRIC_ISC_MEAN], len(x), None, extractor, settings)


def _density_coverage(distances: Iterable[Tensor], radii: Tensor, neighborhood: int) -> tuple[float, float]:
    """Return density and coverage from the distances to the real images, block by block, and the radii of these.

    Shape:
        - each of `distances`: `(n, M)`, with N rows in all; `radii`: `(M,)`.
    """
    count = inside = 0
    nearest = torch.full_like(radii, torch.inf)
    for block in distances:
        count += len(block)
        inside += int((block <= radii).sum())
        nearest = torch.minimum(nearest, block.amin(0))
    return inside / (neighborhood * count), float((nearest <= radii).double().mean())


def _check_pair(generated: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    x, y = _check_features("generated", generated), _check_features("reference", reference)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"generated and reference must have features of one extractor, got {x.shape[1]} and {y.shape[1]} of them."
        )
    return x, y


def _check_features(name: str, features: Tensor) -> Tensor:
    check_tensors(**{name: features})
    x = features.detach().cpu()
    if x.ndim != 2 or not x.is_floating_point() or len(x) < 2 or x.shape[1] == 0:
        raise ValueError(
            f"{name} must be floating point of the shape (N, D) with at least two rows, got {x.dtype} of the shape "
            f"{tuple(x.shape)}. Pass images through an extractor first."
        )
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} must be finite, got NaN or infinite values. Check the images and the extractor.")
    return x.double()


def _check_neighborhood(neighborhood: int, *sets: Tensor) -> None:
    fewest = min(len(features) for features in sets)
    if not 1 <= neighborhood < fewest:
        raise ValueError(
            f"neighborhood must be between 1 and the number of images minus one, {fewest - 1}, got {neighborhood}. "
            "Lower it, or add images."
        )


Deviations = dict[str, Tensor]
"""Deviations of a score for each side of a comparison, `(G,)` each; their squares add up to the variance."""


def combine_deviations(terms: Iterable[tuple[float, Deviations]]) -> Deviations:
    """Return the deviations of a weighted sum of scores. Sides of one name have the same groups in the same order."""
    total: Deviations = {}
    for weight, deviations in terms:
        for side, values in deviations.items():
            total[side] = total[side] + weight * values if side in total else weight * values
    return total


def normal_interval(value: float, deviations: Deviations, *, level: float) -> Estimate:
    """Return a value with its normal interval, from its deviations."""
    error = math.sqrt(sum(float(values.square().sum()) for values in deviations.values()))
    width = NormalDist().inv_cdf((1 + level) / 2) * error
    return Estimate(value, value - width, value + width, level)


def group_deviations(influence: Tensor, owners: Tensor) -> Tensor:
    r"""Return the deviations by group from the influence of each image.

    Shape:
        - `influence`: `(N,)`: the influence function of the score at each image, up to a constant.
        - `owners`: `(N,)`, int64 in `[0, G)`. Output: `(G,)`, float64.
    """
    count = int(owners.max()) + 1
    centered = (influence.double() - influence.double().mean()) / len(influence)
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, owners, centered)
    return sums * math.sqrt(count / (count - 1))


def kid_influence(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the influence of each row of both sets on the KID of all pairs.

    Shape:
        - `x`: `(N, D)`; `y`: `(M, D)`. Output: `(N,)` and `(M,)`, float64.
    """
    x, y = x.double(), y.double()
    within = [_kernel_means(x, x, itself=True), _kernel_means(y, y, itself=True)]
    across = [_kernel_means(x, y), _kernel_means(y, x)]
    return 2 * (within[0] - across[0]), 2 * (within[1] - across[1])


def _kernel_means(x: Tensor, y: Tensor, *, itself: bool = False) -> Tensor:
    """Return the mean kernel of each row of `x` with the rows of `y`, without itself if `y` is `x`."""
    sums = []
    for chunk in torch.split(x, max(1, _BLOCK // len(y))):
        sums.append(((chunk @ y.T / x.shape[1] + 1) ** 3).sum(1))
    total = torch.cat(sums)
    if not itself:
        return total / len(y)
    return (total - (x.square().sum(1) / x.shape[1] + 1) ** 3) / (len(y) - 1)


def fid_influence(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the influence of each row of both sets on their FID.

    With centered rows $X = Q_1 R_1$ and $Y = Q_2 R_2$ of $N$ and $M$ images, the trace of
    $(\Sigma_1 \Sigma_2)^{1/2}$ is the sum $\nu$ of the singular values of $R_1 R_2^\top = U S V^\top$ over
    $\sqrt{(N - 1) (M - 1)}$. To first order, weight on row $i$ raises $\nu$ by half of
    $N (Q_1 U S U^\top Q_1^\top)_{ii}$, over the second root.

    Shape:
        - `x`: `(N, D)`; `y`: `(M, D)`. Output: `(N,)` and `(M,)`, float64.
    """
    x, y = x.double(), y.double()
    shift = x.mean(0) - y.mean(0)
    x, y = x - x.mean(0), y - y.mean(0)
    (q1, r1), (q2, r2) = torch.linalg.qr(x), torch.linalg.qr(y)
    u, s, vh = torch.linalg.svd(r1 @ r2.T, full_matrices=False)
    s = s / math.sqrt((len(x) - 1) * (len(y) - 1))
    return (
        2 * x @ shift + x.square().sum(1) - len(x) * ((q1 @ u).square() @ s),
        -2 * y @ shift + y.square().sum(1) - len(y) * ((q2 @ vh.T).square() @ s),
    )


def inception_influence(logits: Tensor) -> Tensor:
    """Return the influence of each row of logits on the Inception Score of all.

    Shape:
        - `logits`: `(N, K)`. Output: `(N,)`, float64.
    """
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    divergence = (p * (log_p - p.mean(0).log())).nan_to_num(0.0).sum(1)
    return divergence.mean().exp() * divergence


def neighborhood_deviations(
    x: Tensor, y: Tensor, x_blocks: Tensor, y_blocks: Tensor, *, narrow: int, wide: int
) -> tuple[Tensor, Tensor]:
    """Return the deviations of precision, recall, density and coverage, by a jackknife over blocks of images.

    Args:
        x: Features of generated images.
        y: Features of real images.
        x_blocks: Block of each row of `x`; a group is in one block.
        y_blocks: Block of each row of `y`.
        narrow: Neighborhood of precision and recall.
        wide: Neighborhood of density and coverage.

    Shape:
        - `x`: `(N, D)`; `y`: `(M, D)`; `x_blocks`, `y_blocks`: `(N,)` and `(M,)`, int64 in `[0, J)`.
        - Output: deviations of the four scores, by block of `x` and by block of `y`, each `(J, 4)`, float64.
    """
    x, y = centered(x, y)
    x_radii, y_radii, y_wide = neighbor_radii(x, narrow), neighbor_radii(y, narrow), neighbor_radii(y, wide)
    distances = torch.cdist(x, y)
    kept_x, kept_y = _outside(x_blocks), _outside(y_blocks)
    without_x = [
        _neighborhood_scores(distances[kept], radii[kept], y_radii, y_wide, wide=wide)
        for kept, radii in zip(kept_x, neighbor_radii_among(x, kept_x, narrow), strict=True)
    ]
    narrow_y, wide_y = (neighbor_radii_among(y, kept_y, k) for k in (narrow, wide))
    without_y = [
        _neighborhood_scores(distances[:, kept], x_radii, radii[kept], wider[kept], wide=wide)
        for kept, radii, wider in zip(kept_y, narrow_y, wide_y, strict=True)
    ]
    return _jackknife(torch.stack(without_x)), _jackknife(torch.stack(without_y))


def _neighborhood_scores(distances: Tensor, x_radii: Tensor, y_radii: Tensor, y_wide: Tensor, *, wide: int) -> Tensor:
    """Return precision, recall, density and coverage from all distances and radii.

    Shape:
        - `distances`: `(N, M)`; `x_radii`: `(N,)`; `y_radii`, `y_wide`: `(M,)`. Output: `(4,)`, float64.
    """
    precision = (distances <= y_radii).any(1).double().mean()
    recall = (distances <= x_radii[:, None]).any(0).double().mean()
    return torch.tensor(
        [float(precision), float(recall), *_density_coverage([distances], y_wide, wide)], dtype=torch.float64
    )


def _outside(blocks: Tensor) -> list[Tensor]:
    """Return for each block which rows are not in it."""
    return [blocks != block for block in range(int(blocks.max()) + 1)]


def _jackknife(values: Tensor) -> Tensor:
    count = len(values)
    return (values - values.mean(0)) * math.sqrt((count - 1) / count)
