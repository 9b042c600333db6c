r"""Intervals of scores that vary with the training seeds as well as with the patients of the test set.

A generator is trained from a seed, classifiers are trained on its images from seeds of their own (nested), and all are
tested on the same patients (crossed). The units are the means over the classifiers of each generator. The score of
generator g is modeled as

$$s_g = \mu + a_g + \frac1P \sum_{p=1}^P (u_p + v_{gp})$$

with independent effects of mean zero: of the generator with its classifiers, of the patient, and of their interaction.
The mean over G generators then has the variance

$$V = \frac{\sigma_a^2}{G} + \frac{\sigma_u^2}{P} + \frac{\sigma_v^2}{G P}.$$

Three sums of squares separate the components. With $d_{gp}$ the score of generator g without patient p, minus the mean
of these over patients, and $d_p$ its mean over generators,

$$\hat S = \frac{\sum_g (s_g - \bar s)^2}{G (G - 1)}, \qquad \hat J = \frac{P - 1}{P} \sum_p d_p^2, \qquad
\hat I = \frac{P - 1}{P} \sum_p \frac{\sum_g (d_{gp} - d_p)^2}{G (G - 1)}.$$

The patients are the same for all generators, so $\hat S$ estimates $\sigma_a^2 / G + \sigma_v^2 / GP$. The jackknife
over patients $\hat J$ is free of the generators' own effects and estimates $\sigma_u^2 / P + \sigma_v^2 / GP$. The
interaction is in both, and $\hat I$ estimates it alone. So

$$\hat V = \hat J + \max(\hat S - \hat I, 0),$$

where a negative estimate of the seeds' variance counts as 0, as usual. For scores that are means over patients these
are the mean squares of a two-way analysis of variance.

With three to five seeds the intervals can be too narrow. In simulations with 3 or 5 generators of 3 classifiers each,
or 3 classifiers of real images, and 428 patients, in seven regimes of variances (5 000 repetitions each,
`benchmarks/intervals` in the repository), nominal 95 % intervals of AUROC, balanced accuracy and recalls cover the
truth in 90.2 to 97.3 % for one arm and in 88.9 to 97.9 % for differences; 29 of 196 cover less than 93 %, all of them
in regimes where seeds contribute much of the variance. Where one generator in five fails, the coverage falls to 67 %:
few seeds do not show what is rare. Inspect every generator, and train more of them where their scores differ much.

References:
    Searle, Casella and McCulloch 1992, "Variance Components"; Efron and Stein 1981 (jackknife); Cameron, Gelbach and
    Miller 2011, "Robust inference with multiway clustering" (the same sum and difference for two crossed clusters).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from condgan.devices import plain_defaults
from condgan.stats.estimates import Groups, Interval, check_level, group_indices, logit_limits, off_the_boundary

ScoreFunction = Callable[[Tensor, Tensor], Tensor]
"""Maps the outcome of one run and weights `(R, N)` to R values."""

Run = Tensor | np.ndarray
"""The outcome of one run: probabilities, decisions."""

Runs = Run | Sequence[Run] | Sequence[Sequence[Run]]
"""The outcome of one run, a list of them (one per classifier seed), or a list of such lists (one per generator)."""

_LEVELS = ("generators", "classifiers")
_BLOCK = 2**22  # weights held at once: 32 MiB of float64
_FURTHEST = 8.0  # standard normal quantile at which the search for a p value ends


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedCounts:
    """How many runs and patients a score rests on.

    Args:
        generators: Number of generators, None for an arm without generated images.
        classifiers: Number of classifiers, of each generator if there are generators.
        patients: Number of patients (groups).
    """

    generators: int | None
    classifiers: int
    patients: int

    @property
    def seeds_varied(self) -> bool:
        """Whether there are two of the outermost seeds: an interval of a single real run is one over patients alone."""
        return (self.classifiers if self.generators is None else self.generators) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceComponents:
    """What each source adds to the variance of a mean score.

    The estimates are unbiased, so one may be negative where the true value is near zero. None means that the source was
    not varied.

    Args:
        generators: Generator seeds.
        classifiers: Classifier seeds.
        interactions: Interactions of seeds and patients.
        patients: Patients.
    """

    generators: float | None
    classifiers: float | None
    interactions: float | None
    patients: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedEstimate:
    """A mean score with an interval over seeds and patients.

    Args:
        value: The mean over all runs.
        interval: Its interval, or None for a single generator, which does not show how another training would end.
        standard_error: Root of the estimated variance; None without an interval.
        degrees_of_freedom: Of Student's t; None without an interval.
        entered: The score that the interval is computed from: `value`, or `(n value + 1/2) / (n + 1)` with n patients
            where it is exactly 0 or 1.
        components: What each source adds to the variance.
        counts: Numbers of runs and patients.
    """

    value: float
    interval: Interval | None
    standard_error: float | None
    degrees_of_freedom: float | None
    entered: float
    components: VarianceComponents
    counts: SeedCounts

    def __str__(self) -> str:
        return _format(self.value, self.interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedDifference:
    """The difference of two arms' mean scores, a minus b.

    Args:
        value: The difference.
        interval: Its interval, or None where one of the arms has none.
        p_value: Two-sided p value of no difference, of the test that belongs to the interval; None without one.
        standard_error: Root of the estimated variance; None without an interval.
        correlation: Of the two mean scores, by the sources of variance that they share; None without an interval.
        shared_seeds: Whether the arms were treated as sharing their generators.
        a: The one arm, at the level of the interval.
        b: The other.
    """

    value: float
    interval: Interval | None
    p_value: float | None
    standard_error: float | None
    correlation: float | None
    shared_seeds: bool
    a: SeedEstimate
    b: SeedEstimate

    def __str__(self) -> str:
        return _format(self.value, self.interval)


@plain_defaults()
def seed_interval(score: ScoreFunction, runs: Runs, groups: Groups, *, level: float = 0.95) -> SeedEstimate:
    r"""Interval of a score's mean over generator seeds, classifier seeds and test patients.

    The variance $\hat V$ is that of the module's docstring, the interval that of `logit_limits`: Student's t on the
    logit scale, with Satterthwaite's degrees of freedom

    $$\nu = \frac{\hat V^2}{\frac{\hat S^2}{G - 1} + \frac{\hat I^2}{(G - 1)(P - 1)} + \frac{\hat J^2}{P - 1}}.$$

    A score of exactly 0 or 1 has no spread to estimate a variance from. It is replaced as in `off_the_boundary`, with
    the number P of patients, and has P - 1 degrees of freedom. For scores that only some patients take part in, such as
    the recall of a class, pass the images of these alone.

    Arms of real images have no generators, and their classifier seeds take the place of these. With a single run of
    such an arm the patients alone remain, and `counts.seeds_varied` of the result is False. A single *generator* gives
    no interval, because it does not show how another training would end.

    Args:
        score: Maps the outcome of one run and weights `(R, N)` to R values in [0, 1], such as
            `lambda p, w: auroc(p, y, weights=w)`.
        runs: Outcomes (probabilities, decisions) on the same images: of one run, a list of them, one per classifier
            seed, or a list of such lists, one per generator.
        groups: The group (patient) of each image, integers.
        level: Nominal coverage of the interval.

    Shape:
        - `runs`: each as `score` takes it, commonly `(N,)` or `(N, K)`.
        - `groups`: `(N,)`, int64.

    Raises:
        ValueError: If runs are nested unevenly or deeper than two lists, the score has no value with all groups or
            without one of them, it is not in [0, 1], there are fewer than two groups, or `level` is not between 0
            and 1.

    Examples:
        >>> right = torch.tensor([[[1.0, 1, 0, 1], [1, 1, 0, 0]], [[1, 0, 1, 1], [1, 1, 1, 1]]])
        >>> runs = [list(classifiers) for classifiers in right]
        >>> accuracy = lambda right, weights: weights @ right.double() / weights.sum(1)
        >>> estimate = seed_interval(accuracy, runs, groups=[0, 0, 1, 2])
        >>> round(estimate.value, 2), estimate.counts
        (0.75, SeedCounts(generators=2, classifiers=2, patients=3))
        >>> seed_interval(accuracy, runs[:1], groups=[0, 0, 1, 2]).interval is None
        True

    References:
        Satterthwaite 1946, "An approximate distribution of estimates of variance components"; Newcombe 2001 (logit).
    """
    check_level(level)
    return _seed_estimate(_jackknife(score, runs, groups), level)


@plain_defaults()
def paired_difference(
    score: ScoreFunction,
    runs_a: Runs,
    runs_b: Runs,
    groups: Groups,
    *,
    shared_seeds: bool = False,
    level: float = 0.95,
) -> SeedDifference:
    r"""Interval of the difference of two arms' mean scores on the same test images, a minus b.

    It combines the intervals of the two arms by `seed_interval` (variance estimates recovery, see `mover_limits`), so
    that the seeds of both arms count. The arms are correlated by the sources of variance that they share. These are
    always the patients, whose covariance is that of the jackknife

    $$\hat J_{ab} = \frac{P - 1}{P} \sum_p d_{ap} d_{bp}.$$

    Interactions of patients with seeds are independent between the arms and drop out. If the arms share their
    generators, such as two amounts of images of the same ones, `shared_seeds` adds $\hat S_{ab} - \hat I_{ab}$, with
    products of the two arms in place of squares, unless the estimate $\hat S - \hat I$ of one arm is not positive. The
    correlation is

    $$r = \frac{\hat J_{ab} + (\hat S_{ab} - \hat I_{ab})}{\sqrt{\hat V_a \hat V_b}}.$$

    Equal seed numbers of different recipes are not shared seeds: their generators have nothing in common.

    The p value is the smallest $\alpha$ whose interval of level $1 - \alpha$ leaves out 0, searched from $\alpha = 1$
    down to 1e-15. An arm at exactly 0 or 1 enters as in `seed_interval`.

    Args:
        score: As in `seed_interval`, the same for both arms.
        runs_a: Runs of the one arm, as in `seed_interval`.
        runs_b: Runs of the other.
        groups: The group (patient) of each image, integers.
        shared_seeds: Whether the generators are the same in both arms, in the same order.
        level: Nominal coverage of the interval.

    Shape:
        - `groups`: `(N,)`, int64.

    Raises:
        ValueError: As `seed_interval`, and if `shared_seeds` is given for arms of different numbers of generators.

    Examples:
        >>> a, b = torch.tensor([1.0, 1, 1, 0, 1, 1]), torch.tensor([1.0, 0, 1, 0, 0, 1])
        >>> accuracy = lambda right, weights: weights @ right.double() / weights.sum(1)
        >>> difference = paired_difference(accuracy, a, b, groups=range(6))
        >>> print(difference, round(difference.p_value, 2))
        0.333 [-0.258, 0.700] 0.22

    References:
        Zou and Donner 2008, "Construction of confidence limits about effect measures: a general approach".
    """
    check_level(level)
    a, b = _jackknife(score, runs_a, groups), _jackknife(score, runs_b, groups)
    if shared_seeds and (a.of_generators, len(a.units.means)) != (b.of_generators, len(b.units.means)):
        raise ValueError(
            f"shared_seeds needs the same generators in both arms, got {len(a.units.means)} and {len(b.units.means)} "
            "outermost runs. Leave it out for arms whose seeds are independent."
        )
    estimates = _seed_estimate(a, level), _seed_estimate(b, level)
    value = estimates[0].value - estimates[1].value
    if any(estimate.interval is None for estimate in estimates):
        return SeedDifference(
            value=value,
            interval=None,
            p_value=None,
            standard_error=None,
            correlation=None,
            shared_seeds=shared_seeds,
            a=estimates[0],
            b=estimates[1],
        )
    known = mean_score(a.units), mean_score(b.units)
    shared = covariance(a.units, b.units, shared_seeds=shared_seeds)
    variances = float(known[0].variance), float(known[1].variance)
    low, high = difference_limits(*known, shared, alpha=1 - level)
    return SeedDifference(
        value=value,
        interval=Interval(float(low), float(high), level),
        p_value=_p_value(*known, shared),
        standard_error=math.sqrt(max(sum(variances) - 2 * float(shared), 0.0)),
        correlation=float(_correlation(*known, shared)),
        shared_seeds=shared_seeds,
        a=estimates[0],
        b=estimates[1],
    )


@dataclass(frozen=True, slots=True)
class Units:
    r"""The scores of an arm's outermost seeds, means over the classifiers nested in them.

    Args:
        means: Scores $s_g$ with all patients.
        deviations: $\sqrt{(P - 1) / P}\, d_{gp}$: of the scores without each patient from their mean over patients.

    Shape:
        - `means`: `(*, G)`, `deviations`: `(*, P, G)`.
    """

    means: np.ndarray
    deviations: np.ndarray


@dataclass(frozen=True, slots=True)
class MeanScore:
    r"""A mean score with its estimated variance, not of exactly 0 or 1.

    Args:
        value: The score, moved off 0 and 1.
        variance: $\hat V$.
        degrees_of_freedom: $\nu$.

    Shape:
        - All: `(*)`.
    """

    value: np.ndarray
    variance: np.ndarray
    degrees_of_freedom: np.ndarray

    def limits(self, alpha: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return the limits of the interval of level 1 - alpha."""
        return logit_limits(self.value, self.variance, self.degrees_of_freedom, alpha=alpha)


def mean_score(units: Units) -> MeanScore:
    """Return the mean of an arm with its variance and degrees of freedom, see `seed_interval`."""
    patients, count = units.deviations.shape[-2:]
    seeds, interactions = _between_seeds(units, units)
    jackknife = _between_patients(units, units)
    variance = jackknife + np.maximum(seeds - interactions, 0.0)
    uncertainty = jackknife**2 / (patients - 1)
    if count > 1:
        uncertainty = uncertainty + (seeds**2 + interactions**2 / (patients - 1)) / (count - 1)
    plain = units.means.mean(-1)
    value, variance = off_the_boundary(plain, variance, patients)
    # nothing varies at 0 and 1, and where all decisions are the same
    freedom = np.full_like(variance, patients - 1)
    np.divide(variance**2, uncertainty, out=freedom, where=(uncertainty > 0) & (value == plain))
    return MeanScore(value, variance, freedom)


def covariance(a: Units, b: Units, *, shared_seeds: bool) -> np.ndarray:
    """Return the covariance of two arms' means by the sources of variance that they share, see `paired_difference`."""
    shared = _between_patients(a, b)
    if not shared_seeds:
        return shared
    own = [np.subtract(*_between_seeds(arm, arm)) for arm in (a, b)]
    return shared + np.where((own[0] > 0) & (own[1] > 0), np.subtract(*_between_seeds(a, b)), 0.0)


def difference_limits(
    a: MeanScore, b: MeanScore, shared: ArrayLike, *, alpha: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits of a minus b at level 1 - alpha; `shared` is the covariance of the two."""
    return mover_limits(a.value, a.limits(alpha), b.value, b.limits(alpha), correlation=_correlation(a, b, shared))


def mover_limits(
    a: ArrayLike,
    limits_a: tuple[ArrayLike, ArrayLike],
    b: ArrayLike,
    limits_b: tuple[ArrayLike, ArrayLike],
    *,
    correlation: ArrayLike = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Limits of a difference a - b from those of its parts, by the method of variance estimates recovery (MOVER).

    With limits $l, u$ of either part at the same level and the correlation r of their estimates, the difference lies
    between

    $$a - b - \sqrt{(a - l_a)^2 - 2 r (a - l_a)(u_b - b) + (u_b - b)^2} \quad \text{and} \quad
    a - b + \sqrt{(u_a - a)^2 - 2 r (u_a - a)(b - l_b) + (b - l_b)^2}.$$

    Each side recovers the variances from those limits of the parts that make the difference extreme on that side.

    Args:
        a: The one estimate.
        limits_a: Its lower and upper limit.
        b: The other estimate.
        limits_b: Its limits.
        correlation: Of the two estimates.

    Shape:
        - All arguments and both results: shapes that broadcast.

    Examples:
        >>> low, high = mover_limits(0.7, (0.5, 0.8), 0.4, (0.3, 0.55))
        >>> round(float(low), 3), round(float(high), 3)
        (0.05, 0.441)

    References:
        Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10, and
        "Improved confidence intervals for the difference between binomial proportions based on paired data"; Zou and
        Donner 2008, "Construction of confidence limits about effect measures: a general approach".
    """

    def reach(from_a: ArrayLike, from_b: ArrayLike) -> np.ndarray:
        x, y = np.subtract(a, from_a), np.subtract(b, from_b)
        # x and y have opposite signs, hence the plus
        square: np.ndarray = np.maximum(x**2 + 2 * np.asarray(correlation) * x * y + y**2, 0.0)
        return np.asarray(np.sqrt(square))

    difference = np.subtract(a, b)
    return difference - reach(limits_a[0], limits_b[1]), difference + reach(limits_a[1], limits_b[0])


def _correlation(a: MeanScore, b: MeanScore, shared: ArrayLike) -> np.ndarray:
    errors = np.sqrt(a.variance * b.variance)
    found = np.divide(shared, errors, out=np.zeros_like(errors), where=errors > 0)
    return np.asarray(np.clip(found, -1.0, 1.0))


def _p_value(a: MeanScore, b: MeanScore, shared: ArrayLike) -> float:
    from scipy.optimize import brentq
    from scipy.special import ndtr

    center = float(a.value - b.value)
    if center == 0:
        return 1.0

    def clearance(quantile: ArrayLike) -> np.ndarray:
        """Return the distance from 0 to the near end of the interval at a normal quantile, negative if it holds 0."""
        low, high = difference_limits(a, b, shared, alpha=2 * ndtr(-np.asarray(quantile)))
        return low if center > 0 else -high

    quantiles = np.linspace(0.0, _FURTHEST, 129)
    beyond = np.flatnonzero(clearance(quantiles) <= 0)
    if not len(beyond):
        return 2 * float(ndtr(-_FURTHEST))
    first = int(beyond[0])
    if first == 0:  # a difference of rounding errors
        return 1.0
    return 2 * float(ndtr(-brentq(lambda z: float(clearance(z)), quantiles[first - 1], quantiles[first])))


def _between_patients(a: Units, b: Units) -> np.ndarray:
    """Return the jackknife covariance over patients of two arms' means, `(*)`; the variance for one arm with itself."""
    product: np.ndarray = (a.deviations.mean(-1) * b.deviations.mean(-1)).sum(-1)
    return product


def _between_seeds(a: Units, b: Units) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of the (co)variance of means due to seeds with interactions, and that due to interactions."""
    count = a.means.shape[-1]
    if count == 1:
        return np.zeros(a.means.shape[:-1]), np.zeros(a.means.shape[:-1])

    def centered(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = x - x.mean(-1, keepdims=True)
        return found

    pairs = count * (count - 1)
    seeds = (centered(a.means) * centered(b.means)).sum(-1) / pairs
    return seeds, (centered(a.deviations) * centered(b.deviations)).sum((-2, -1)) / pairs


@dataclass(frozen=True, slots=True)
class _Arm:
    """Scores of all runs.

    Shape:
        - `values`: `(*seeds)`, `deviations`: `(P, *seeds)`.
    """

    values: np.ndarray
    deviations: np.ndarray

    @property
    def of_generators(self) -> bool:
        return self.values.ndim == len(_LEVELS)

    @property
    def units(self) -> Units:
        outermost = self.values.shape[0] if self.values.ndim else 1
        patients = len(self.deviations)
        return Units(
            self.values.reshape(outermost, -1).mean(-1), self.deviations.reshape(patients, outermost, -1).mean(-1)
        )

    @property
    def counts(self) -> SeedCounts:
        generators, classifiers = (*[None] * (len(_LEVELS) - self.values.ndim), *self.values.shape)[-2:]
        return SeedCounts(generators=generators, classifiers=classifiers or 1, patients=len(self.deviations))

    @property
    def components(self) -> VarianceComponents:
        counts = dict(zip(_LEVELS[len(_LEVELS) - self.values.ndim :], self.values.shape, strict=True))
        varied = {name: count for name, count in counts.items() if count > 1}
        values, deviations = self.values.reshape(1, *varied.values()), self.deviations.reshape(-1, *varied.values())
        spread = [_nested_variance(values, level) for level in range(len(varied))]
        noise = [_nested_variance(deviations, level) for level in range(len(varied))]
        beyond_noise = [*(between - within for between, within in zip(spread, noise, strict=True)), 0.0]
        own = {name: outer - inner for name, (outer, inner) in zip(varied, pairwise(beyond_noise), strict=True)}
        jackknife = float((deviations.reshape(len(deviations), -1).mean(1) ** 2).sum())
        return VarianceComponents(
            generators=own.get("generators"),
            classifiers=own.get("classifiers"),
            interactions=noise[0] if varied else None,
            patients=jackknife - sum(noise[:1]),
        )


def _nested_variance(x: np.ndarray, level: int) -> float:
    """Return the variance of units at a level of seeds within their parents, divided by the number of units.

    Shape:
        - `x`: `(Q, *seeds)`; the variances of the Q are added.
    """
    units = x.reshape(*x.shape[: level + 2], -1).mean(-1)
    within = units.var(-1, ddof=1).reshape(len(units), -1).mean(1)
    return float(within.sum() / math.prod(units.shape[1:]))


def _seed_estimate(arm: _Arm, level: float) -> SeedEstimate:
    value, known = float(arm.values.mean()), mean_score(arm.units)
    cannot_tell = arm.counts.generators == 1
    low, high = known.limits(1 - level)
    return SeedEstimate(
        value=value,
        interval=None if cannot_tell else Interval(float(low), float(high), level),
        standard_error=None if cannot_tell else math.sqrt(known.variance),
        degrees_of_freedom=None if cannot_tell else float(known.degrees_of_freedom),
        entered=float(known.value),
        components=arm.components,
        counts=arm.counts,
    )


def _jackknife(score: ScoreFunction, runs: Runs, groups: Groups) -> _Arm:
    """Return the scores of all runs, and their jackknifed deviations without each group."""
    blocks = [_score_runs(score, runs, weights).movedim(-1, 0) for weights in _deletions(groups)]
    found = torch.cat(blocks).cpu().double().numpy()
    if not np.isfinite(found).all():
        raise ValueError(
            "the score must have a value with all groups and without each single one, got NaN or infinity. It is "
            "undefined where all samples of a class belong to one group: there are too few groups for it."
        )
    values, without = found[0], found[1:]
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"expected a score in [0, 1], got values in [{values.min()}, {values.max()}]. Intervals are computed on "
            "the logit scale: rescale the score to [0, 1] first."
        )
    return _Arm(values, (without - without.mean(0)) * math.sqrt((len(without) - 1) / len(without)))


def _deletions(groups: Groups) -> Iterator[Tensor]:
    """Yield, block by block, weights of one for all samples, then without each group in turn."""
    names, index = group_indices(groups)
    member, left_out = torch.from_numpy(index), torch.arange(-1, names)
    for block in left_out.split(max(1, _BLOCK // len(member))):
        yield (member != block[:, None]).double()


def _score_runs(score: ScoreFunction, runs: Runs, weights: Tensor, depth: int = 0) -> Tensor:
    if isinstance(runs, (Tensor, np.ndarray)):
        found = score(torch.as_tensor(runs), weights)
        if found.shape != weights.shape[:1]:
            raise ValueError(
                f"score must map one run and weights {tuple(weights.shape)} to {len(weights)} values, got the shape "
                f"{tuple(found.shape)}. Nest several runs in lists: [[run, run], [run, run]]."
            )
        return found
    if depth == len(_LEVELS):
        raise ValueError(f"runs must be nested in at most {depth} lists, for {' and '.join(_LEVELS)}, got more.")
    inner = [_score_runs(score, run, weights, depth + 1) for run in runs]
    if len({tuple(found.shape) for found in inner}) != 1:
        raise ValueError(
            f"runs must be equally many for each seed, and at least one, got {[tuple(x.shape[:-1]) for x in inner]}. "
            "Give each generator the same number of classifiers."
        )
    return torch.stack(inner)


def _format(value: float, interval: Interval | None) -> str:
    if interval is None:
        return f"{value:.3f} [cannot tell]"
    return f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
