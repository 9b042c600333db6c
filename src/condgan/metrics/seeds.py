"""Intervals of scores that vary with the seeds of training as well as with the patients of the test set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgan.metrics.statistics import Estimate, degrees_of_freedom

Score = Callable[[Any, Tensor], Tensor]
"""Maps the outcome of one run and weights `(R, N)` to R values."""

Runs = Tensor | np.ndarray | Sequence[Any]
"""The outcome of one run, a list of them (one a classifier seed), or a list of such lists (one a generator seed)."""

Groups = Tensor | np.ndarray | Sequence[int]
"""Integers, one a sample."""

_LEVELS = ("generator seeds", "classifier seeds")
_BLOCK = 2**22  # weights held at once: 32 MiB of float64
_FURTHEST = 1e9  # standard errors at which a difference is certain


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedEstimate(Estimate):
    """A number with an interval of Student's t over seeds and patients.

    Args:
        value: The mean over all runs.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Nominal coverage of the interval.
        standard_error: Root of the estimated variance of `value`.
        degrees_of_freedom: Of the t distribution.
        components: What each source adds to the squared standard error. Those of seeds are estimates without bias, so
            one may be negative where its truth is near zero.
        counts: How many seeds of each kind and patients (groups) there were. A count of 1 says that this seed was not
            varied: the interval holds for that one seed only.
    """

    standard_error: float
    degrees_of_freedom: float
    components: dict[str, float]
    counts: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedDifference(SeedEstimate):
    """The difference of two arms, with the fields of a `SeedEstimate`; names of sources start with their arm.

    Args:
        p_value: Two-sided p value of no difference, of the test that belongs to the interval.
    """

    p_value: float


def seed_interval(
    score: Score, runs: Runs, groups: Groups, *, bounded: bool = True, level: float = 0.95
) -> SeedEstimate:
    r"""Interval of a score's mean over generator seeds, classifier seeds and test patients.

    Every classifier belongs to one generator (nested); all are tested on the same images (crossed with the patients).
    The score of classifier c of generator g is modeled as

    $$s_{gc} = \mu + a_g + b_{gc} + \frac1P \sum_{p=1}^P (u_p + v_{gp} + w_{gcp})$$

    with independent effects of mean zero: of the generator, the classifier, the patient, and the interactions of
    patients with either. The mean $\bar s$ over G generators of C classifiers each then has the variance

    $$\underbrace{\frac{\sigma_a^2}{G} + \frac{\sigma_b^2}{GC} + \frac{\sigma_v^2}{GP} + \frac{\sigma_w^2}{GCP}}_{S}
    + \underbrace{\frac{\sigma_u^2}{P}}_{U}.$$

    The variance of the G means over classifiers, divided by G, estimates all of $S$: the patients are the same for
    every generator, but the interactions are not. The jackknife of $\bar s$ over patients estimates $U$ and the
    interactions. The jackknife of the differences between generators estimates the interactions alone, which are
    subtracted so that they count once:

    $$\hat S = \frac{\sum_g (\bar s_g - \bar s)^2}{G (G - 1)}, \qquad
    \hat J = \frac{P - 1}{P} \sum_p d_p^2, \qquad
    \hat I = \frac{P - 1}{P} \sum_p \frac{\sum_g (d_{gp} - d_p)^2}{G (G - 1)}, \qquad
    \hat U = \hat J - \hat I,$$

    where $d_{gp}$ is the score of generator g without patient p, less the mean of these over patients, and $d_p$ its
    mean over generators. Then $\hat V = \hat S + \hat U$ has no bias; it is raised to $\hat J / 2$ where it is smaller,
    which takes generators that agree by chance. The quantile t is one of Student's law with the `degrees_of_freedom`
    of $\hat S$, with G - 1 of its own, and $\hat U$, with P - 1. Computed for normal effects, nominal 95 % then cover
    94.0 to 96.7 % with three seeds and 94.9 to 96.6 % with five, whatever the true variances (most where only
    interactions vary), but with two seeds 89.9 % at worst: take three or more.

    Simulated in seven regimes of variances (`benchmarks/intervals` in the repository, 3 or 5 generators, 428 patients),
    intervals of balanced accuracy cover 93.5 to 96.7 %, those of AUROC or a recall near 1 only 92.8 to 98.0 %.

    The interval is one of the score's logit, turned back: it stays inside [0, 1] and allows for the skewness of scores
    near 1. With the error $e$ of the delta method and the bias that the curvature of the logit brings taken off,

    $$\operatorname{expit}\left(\log \frac{\bar s}{1 - \bar s} - \frac{2 \bar s - 1}{2} e^2 \pm t e\right), \qquad
    e = \frac{\sqrt{\hat V}}{\bar s (1 - \bar s)}.$$

    At exactly 0 or 1 it has no width.

    Without several generators (arms of real images have none) the classifier seeds take their place. With a single run
    the patients alone remain.

    Args:
        score: Maps the outcome of one run and weights `(R, N)` to R values, as `lambda p, w: auroc(p, y, weights=w)`.
        runs: Outcomes (probabilities, decisions) on the same images: of one run, a list of them, one a classifier
            seed, or a list of such lists, one a generator seed.
        groups: The group (patient) of each image, integers.
        bounded: Whether the score lies in [0, 1]; if not, the interval is one of $\bar s$ itself.
        level: Nominal coverage of the interval.

    Shape:
        - `runs`: each as `score` takes it, commonly `(N,)` or `(N, K)`.
        - `groups`: `(N,)`, int64.

    Raises:
        ValueError: If runs are nested unevenly or deeper than two lists, the score has no value with all groups or
            without one of them, it is not in [0, 1] though `bounded`, there are fewer than two groups, or `level` is
            not between 0 and 1.

    Examples:
        >>> right = torch.tensor([[[1.0, 1, 0, 1], [1, 1, 0, 0]], [[1, 0, 1, 1], [1, 1, 1, 1]]])
        >>> runs = [list(classifiers) for classifiers in right]
        >>> accuracy = lambda right, weights: weights @ right.double() / weights.sum(1)
        >>> estimate = seed_interval(accuracy, runs, groups=[0, 0, 1, 2])
        >>> round(estimate.value, 2), estimate.counts
        (0.75, {'generator seeds': 2, 'classifier seeds': 2, 'patients': 3})

    References:
        Searle, Casella and McCulloch 1992 (components); Efron and Stein 1981 (jackknife); Newcombe 2001 (logit).
    """
    arms = [_arm("", *_leave_out(score, runs, groups))]
    return _estimate(arms, arms, level, bounded)[0]


def paired_difference(
    score: Score,
    runs_a: Runs,
    runs_b: Runs,
    groups: Groups,
    *,
    paired_seeds: bool = False,
    bounded: bool = True,
    level: float = 0.95,
) -> SeedDifference:
    r"""Interval of the difference of two arms' mean scores on the same test images, a minus b.

    It is always paired by patient: $\hat J$ of `seed_interval` is the jackknife of the difference. By default the
    arms' seeds are independent, $\hat S = \hat S_a + \hat S_b$ and $\hat I = \hat I_a + \hat I_b$, and $\hat S_a$,
    $\hat S_b$ and $\hat U$ each bring their own `degrees_of_freedom`. That suits arms of different generators, or one
    without, also if they have the same seed numbers.

    With `paired_seeds`, the differences run by run are treated as the runs of one arm. That suits arms that share
    their generators, such as two amounts of images from the same ones; runs then have one nesting and order.

    A score near 1 can fall further than it can rise. So the variance $\hat V$ of the difference is split between the
    arms in proportion to their own, $\hat V_a + \hat V_b = \hat V$. With its part and the t of the difference, each arm
    has limits l and u as in `seed_interval` and, for t = 0, a center m. The reaches are put together as those of
    independent arms:

    $$m_a - m_b - \sqrt{(m_a - l_a)^2 + (u_b - m_b)^2} \quad \text{to} \quad
    m_a - m_b + \sqrt{(u_a - m_a)^2 + (m_b - l_b)^2}.$$

    Where the reaches are short, and for arms at exactly 0 or 1 and scores that are not `bounded`, this is
    $\bar s_a - \bar s_b \pm t \sqrt{\hat V}$. The p value is that of the t at which the interval ends at 0: below 0.05
    where that of 95 % leaves out 0. For normal effects, differences of three seeds and three cover 94.0 to 96.2 %.

    Args:
        score: As in `seed_interval`, the same for both arms.
        runs_a: Runs of the one arm, as in `seed_interval`.
        runs_b: Runs of the other.
        groups: The group (patient) of each image, integers.
        paired_seeds: Whether a run and the one at its place in the other arm share their generator's seed.
        bounded: Whether the score lies in [0, 1]; if not, the interval reaches equally far to both sides.
        level: Nominal coverage of the interval.

    Shape:
        - `groups`: `(N,)`, int64.

    Raises:
        ValueError: As `seed_interval`, and if `paired_seeds` meets arms of different numbers of runs.

    Examples:
        >>> a, b = torch.tensor([1.0, 1, 1, 0, 1, 1]), torch.tensor([1.0, 0, 1, 0, 0, 1])
        >>> accuracy = lambda right, weights: weights @ right.double() / weights.sum(1)
        >>> difference = paired_difference(accuracy, a, b, groups=range(6))
        >>> print(difference, round(difference.p_value, 2))
        0.333 [-0.337, 0.687] 0.3

    References:
        Newcombe 1998 (the limits of a difference from those of its parts); Zou and Donner 2008.
    """
    a, b = _leave_out(score, runs_a, groups), _leave_out(score, runs_b, groups)
    if paired_seeds and a[0].shape != b[0].shape:
        raise ValueError(
            f"paired_seeds needs equally many runs in both arms, got {tuple(a[0].shape[1:])} and "
            f"{tuple(b[0].shape[1:])}. Leave it out for arms whose seeds are independent."
        )
    arms = [_arm("a: ", *a), _arm("b: ", *b)]
    sources = [_arm("", a[0] - b[0], a[1] - b[1])] if paired_seeds else [arms[0], _arm("b: ", -b[0], -b[1])]
    found, limits = _estimate(sources, arms, level, bounded)
    return SeedDifference(**asdict(found), p_value=_p_value(limits, found.degrees_of_freedom))


@dataclass(frozen=True, slots=True)
class _Arm:
    value: float
    deviations: Tensor  # (P,), of the mean without each group; their squares add up to its jackknifed variance
    seeds: float  # squared standard error that the outermost varied seeds bring, interactions included
    freedom: int
    interactions: float
    components: dict[str, float]
    counts: dict[str, int]


def _arm(label: str, values: Tensor, deviations: Tensor) -> _Arm:
    names = [label + name for name in _LEVELS[len(_LEVELS) + 1 - values.ndim :]]
    counts = dict(zip(names, values.shape[1:], strict=True))
    varied = {name: count for name, count in counts.items() if count > 1}
    values, deviations = values.reshape(1, *varied.values()), deviations.reshape(-1, *varied.values())
    spread = [_mean_square(values, level) for level in range(len(varied))]
    noise = [_mean_square(deviations, level) for level in range(len(varied))]
    beyond_noise = [*(between - within for between, within in zip(spread, noise, strict=True)), 0.0]
    components = {name: outer - inner for name, (outer, inner) in zip(varied, pairwise(beyond_noise), strict=True)}
    if varied:
        components[f"{label}seeds x patients"] = noise[0]
    return _Arm(
        value=float(values.mean()),
        deviations=deviations.reshape(len(deviations), -1).mean(1),
        seeds=sum(spread[:1]),
        freedom=next(iter(varied.values()), 2) - 1,
        interactions=sum(noise[:1]),
        components=components,
        counts=counts,
    )


def _mean_square(x: Tensor, level: int) -> float:
    """Return the variance of units at a level of seeds within their parents, divided by the number of units.

    Shape:
        - `x`: `(Q, *seeds)`; the variances of the Q are added.
    """
    units = x.reshape(*x.shape[: level + 2], -1).mean(-1)
    within = units.var(-1).reshape(len(units), -1).mean(1)
    return float(within.sum()) / math.prod(units.shape[1:])


_Limits = Callable[[float], tuple[float, float, float]]
"""Maps a quantile of Student's t to the lower end, the center and the upper end of an interval."""


def _estimate(
    sources: Sequence[_Arm], arms: Sequence[_Arm], level: float, bounded: bool
) -> tuple[SeedEstimate, _Limits]:
    """Return the interval of an arm or of a difference of two.

    Args:
        sources: Independent parts whose values add up to the estimate.
        arms: The arm, or the two.
        level: Nominal coverage.
        bounded: Whether each arm's score lies in [0, 1].
    """
    from scipy.special import stdtrit

    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}. Give a coverage such as 0.95.")
    for arm in arms:
        if bounded and not 0 <= arm.value <= 1:
            raise ValueError(f"expected a score in [0, 1], got {arm.value}. Pass bounded=False for another range.")
    # an arm at 0 or 1 has no limits of its own that the difference could be given from
    bounded = bounded and (len(arms) == 1 or all(0 < arm.value < 1 for arm in arms))
    variance, patients = _variance(sources)
    count = len(arms[0].deviations)
    parts, own_freedoms = [part.seeds for part in sources], [part.freedom for part in sources]
    freedom = float(degrees_of_freedom([*parts, patients], [*own_freedoms, count - 1]))
    own = [_variance([arm])[0] for arm in arms]
    share = variance / sum(own) if variance else 0.0

    def limits(quantile: float) -> tuple[float, float, float]:
        each = [
            _arm_limits(arm.value, share * its_own, quantile, bounded) for arm, its_own in zip(arms, own, strict=True)
        ]
        low, center, high = each[0]
        for low_b, center_b, high_b in each[1:]:
            below, above = math.hypot(center - low, high_b - center_b), math.hypot(high - center, center_b - low_b)
            center -= center_b
            low, high = center - below, center + above
        return low, center, high

    low, _, high = limits(float(stdtrit(freedom, (1 + level) / 2)))
    estimate = SeedEstimate(
        value=sum(part.value for part in sources),
        low=low,
        high=high,
        level=level,
        standard_error=math.sqrt(variance),
        degrees_of_freedom=freedom,
        components={name: part for source in sources for name, part in source.components.items()}
        | {"patients": patients},
        counts={name: number for source in sources for name, number in source.counts.items()} | {"patients": count},
    )
    return estimate, limits


def _variance(sources: Sequence[_Arm]) -> tuple[float, float]:
    """Return the variance of the sum of parts with independent seeds, and what patients add to it."""
    jackknife = float(torch.stack([part.deviations for part in sources]).sum(0).square().sum())
    seeds = sum(part.seeds for part in sources)
    patients = max(jackknife - sum(part.interactions for part in sources), jackknife / 2 - seeds)
    return seeds + patients, patients


def _arm_limits(value: float, variance: float, quantile: float, bounded: bool) -> tuple[float, float, float]:
    reach = quantile * math.sqrt(variance)
    if not bounded:
        return value - reach, value, value + reach
    if not (0 < value < 1 and variance > 0):
        return value, value, value
    slope = value * (1 - value)
    center = math.log(value / (1 - value)) - (value - 0.5) * variance / slope**2
    low, middle, high = (0.5 + math.tanh((center + step / slope) / 2) / 2 for step in (-reach, 0.0, reach))
    return low, middle, high


def _p_value(limits: _Limits, freedom: float) -> float:
    """Return the two-sided p value of the t at which an interval ends at 0."""
    from scipy.optimize import brentq
    from scipy.special import stdtr

    center = limits(0.0)[1]
    if center == 0:
        return 1.0
    end = 0 if center > 0 else 2
    furthest = 1.0
    while limits(furthest)[end] * center > 0:
        furthest *= 2
        if furthest > _FURTHEST:
            return 0.0
    return 2 * float(stdtr(freedom, -brentq(lambda quantile: limits(quantile)[end], 0.0, furthest)))


def _leave_out(score: Score, runs: Runs, groups: Groups) -> tuple[Tensor, Tensor]:
    """Return the scores of all runs, `(1, *seeds)`, and jackknifed deviations without each group, `(P, *seeds)`."""
    listed = runs if isinstance(runs, (list, tuple)) else [runs]
    blocks = [_score(score, listed, weights).movedim(-1, 0) for weights in _deletions(groups)]
    found = torch.cat(blocks).cpu().double()
    if not bool(found.isfinite().all()):
        raise ValueError(
            "the score must have a value with all groups and without each single one, got NaN or infinity. It is "
            "undefined where a class lives in one group only: there are too few groups for it."
        )
    values, without = found[:1], found[1:]
    return values, (without - without.mean(0)) * math.sqrt((len(without) - 1) / len(without))


def _deletions(groups: Groups) -> Iterator[Tensor]:
    """Yield, block by block, weights of one for all samples, then without each group in turn."""
    names, index = np.unique(torch.as_tensor(groups).cpu().numpy(), return_inverse=True)
    if index.ndim != 1 or len(names) < 2:
        raise ValueError(
            f"groups must name at least two groups, one entry a sample, got {len(names)} in the shape {index.shape}. "
            "An interval over groups needs several of them; use torch.arange(N) if samples are independent."
        )
    member, left_out = torch.from_numpy(index), torch.arange(-1, len(names))
    for block in left_out.split(max(1, _BLOCK // len(member))):
        yield (member != block[:, None]).double()


def _score(score: Score, runs: Runs, weights: Tensor, depth: int = 0) -> Tensor:
    if not isinstance(runs, (list, tuple)):
        found = score(runs, weights)
        if found.shape != weights.shape[:1]:
            raise ValueError(
                f"score must map one run and weights {tuple(weights.shape)} to {len(weights)} values, got the shape "
                f"{tuple(found.shape)}. Nest several runs in lists: [[run, run], [run, run]]."
            )
        return found
    if depth == len(_LEVELS):
        raise ValueError(f"runs must be nested in at most {depth} lists, for {' and '.join(_LEVELS)}, got more.")
    inner = [_score(score, run, weights, depth + 1) for run in runs]
    if len({tuple(found.shape) for found in inner}) != 1:
        raise ValueError(
            f"runs must be equally many for each seed, and at least one, got {[tuple(x.shape[:-1]) for x in inner]}. "
            "Judge as many classifiers for every generator."
        )
    return torch.stack(inner)
