"""Intervals of scores that vary with the seeds of training as well as with the patients of the test set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgan.metrics.limits import (
    Limits,
    difference_limits,
    limits_without_spread,
    logit_limits,
    p_value,
    plain_limits,
    robit_limits,
)
from condgan.metrics.statistics import Estimate, degrees_of_freedom

Score = Callable[[Any, Tensor], Tensor]
"""Maps the outcome of one run and weights `(R, N)` to R values."""

Runs = Tensor | np.ndarray | Sequence[Any]
"""The outcome of one run, a list of them (one a classifier seed), or a list of such lists (one a generator seed)."""

Groups = Tensor | np.ndarray | Sequence[int]
"""Integers, one a sample."""

_LEVELS = ("generator seeds", "classifier seeds")
_BLOCK = 2**22  # weights held at once: 32 MiB of float64


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

    Simulated with 3 or 5 generators, 3 classifiers and 428 patients in seven regimes of variances (5 000 times,
    `benchmarks/intervals` in the repository), intervals of balanced accuracy, AUROC and recalls, and of their
    differences, cover 93.1 to 97.2 %. Where one generator in five fails they cover less, 74 % for an AUROC near 1: few
    seeds do not show what is rare.

    The interval is one of the score's logit, turned back: it stays inside [0, 1] and allows for the skewness of scores
    near 1. With the error $e$ of the delta method and the bias that the curvature of the logit brings taken off,

    $$\operatorname{expit}\left(\log \frac{\bar s}{1 - \bar s} - \frac{2 \bar s - 1}{2} e^2 \pm t e\right), \qquad
    e = \frac{\sqrt{\hat V}}{\bar s (1 - \bar s)}.$$

    At exactly 1 nothing varies. The lower limit is then $(\alpha / 2)^{1/P}$, as if the score were the share of the P
    groups that are right (Clopper and Pearson 1934), and likewise at 0. For scores that only some groups take part in,
    as a class's recall, pass the images of these alone.

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
    arm = _arm("", *_leave_out(score, runs, groups))
    if bounded:
        _check_bounds([arm])
    estimate, _ = _estimate([arm], partial(logit_limits if bounded else plain_limits, arm.value), level)
    if bounded and arm.value in (0, 1):
        low, _, high = limits_without_spread(arm.value, estimate.counts["patients"], level)
        return replace(estimate, low=low, high=high)
    return estimate


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
    arms in proportion to their own, with shares $w_a + w_b = 1$. For its part and the t of the difference, each arm has
    limits l and u, and a center m for t = 0, on the scale

    $$g(s) = \frac{2 s - 1}{\sqrt{s (1 - s)}}, \qquad g^{-1}(y) = \frac12 + \frac{y}{2 \sqrt{y^2 + 4}},$$

    the quantile function of Student's t with two degrees of freedom, whose tails are heavier than those of the logit:
    three seeds rarely tell how far a score can fall. An arm reaches at most five times as far as by its logit. The
    difference lies between

    $$m_a - m_b - r (m_a - l_a, u_b - m_b) \quad \text{and} \quad m_a - m_b + r (u_a - m_a, m_b - l_b),$$

    $$r (x, y) = \left(1 - w_a^{1.3} - w_b^{1.3}\right) t \sqrt{\hat V} + w_a^{0.8} x + w_b^{0.8} y.$$

    An arm alone would keep its reach x; of two that vary alike, the long reaches count for less, since their skewness
    cancels. Where reaches are short, and for arms at exactly 0 or 1 and scores that are not `bounded`, this is
    $\bar s_a - \bar s_b \pm t \sqrt{\hat V}$. The p value is that of the t at which the interval ends at 0: below 0.05
    where that of 95 % leaves out 0. Powers and scale were chosen by the simulated coverage that `seed_interval` tells.

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
        0.333 [-0.328, 0.672] 0.36

    References:
        Newcombe 1998 (the limits of a difference from those of its parts); Liu 2004 (the scale, a robit link).
    """
    a, b = _leave_out(score, runs_a, groups), _leave_out(score, runs_b, groups)
    if paired_seeds and a[0].shape != b[0].shape:
        raise ValueError(
            f"paired_seeds needs equally many runs in both arms, got {tuple(a[0].shape[1:])} and "
            f"{tuple(b[0].shape[1:])}. Leave it out for arms whose seeds are independent."
        )
    arms = [_arm("a: ", *a), _arm("b: ", *b)]
    if bounded:
        _check_bounds(arms)
    sources = [_arm("", a[0] - b[0], a[1] - b[1])] if paired_seeds else [arms[0], _arm("b: ", -b[0], -b[1])]
    own_a, own_b = (_variance([arm])[0] for arm in arms)
    share = own_a / (own_a + own_b) if own_a + own_b else 0.5
    # an arm at 0 or 1 has no limits of its own that the difference could be given from
    scale = robit_limits if bounded and all(0 < arm.value < 1 for arm in arms) else plain_limits

    def limits_of(variance: float, quantile: float) -> Limits:
        return difference_limits((arms[0].value, arms[1].value), (share, 1 - share), variance, quantile, scale)

    found, limits = _estimate(sources, limits_of, level)
    return SeedDifference(**asdict(found), p_value=p_value(limits, found.degrees_of_freedom))


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


def _estimate(
    sources: Sequence[_Arm], limits_of: Callable[[float, float], Limits], level: float
) -> tuple[SeedEstimate, Callable[[float], Limits]]:
    """Return an estimate with its interval, and the interval's limits for any quantile of t.

    Args:
        sources: Independent parts whose values add up to the estimate.
        limits_of: Maps the variance of the estimate and a quantile of t to limits.
        level: Nominal coverage.
    """
    from scipy.special import stdtrit

    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}. Give a coverage such as 0.95.")
    variance, patients = _variance(sources)
    count = len(sources[0].deviations)
    parts, own_freedoms = [part.seeds for part in sources], [part.freedom for part in sources]
    freedom = float(degrees_of_freedom([*parts, patients], [*own_freedoms, count - 1]))
    limits = partial(limits_of, variance)
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


def _check_bounds(arms: Sequence[_Arm]) -> None:
    for arm in arms:
        if not 0 <= arm.value <= 1:
            raise ValueError(f"expected a score in [0, 1], got {arm.value}. Pass bounded=False for another range.")


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
