r"""Ends of intervals of scores, as functions of a quantile t of Student's law.

All limits here are $g^{-1}(m \pm t e)$ on a scale g, with the error $e = g'(v) \sqrt V$ of the delta method for a value
v of variance V, and the center $m = g(v) - \frac12 g''(v) V$: the bias that the curvature brings is taken off. Values
and ends are plain numbers. Nothing is checked here; `condgan.metrics.seeds` does it.

References:
    Newcombe 2001 (limits on the scale of the logit); Liu 2004, "Robit regression" (the scale with heavy tails); Clopper
    and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

_SKEWNESS = 1.3  # power of an arm's share of the variance that its longer reach counts with
_LONGEST = 5  # logit's reaches: the robit's has no end where an error is as large as the distance to 0 or 1
_FURTHEST = 1e9  # standard errors at which a difference is certain


class Limits(NamedTuple):
    """Ends of an interval, and what it shrinks to for t = 0."""

    low: float
    center: float
    high: float


ScaleLimits = Callable[[float, float, float], Limits]
"""Maps a value, its variance and a quantile of Student's t to limits."""


def plain_limits(value: float, variance: float, quantile: float) -> Limits:
    r"""Limits $v \pm t \sqrt V$ of any number, for g(v) = v."""
    reach = quantile * math.sqrt(variance)
    return Limits(value - reach, value, value + reach)


def logit_limits(value: float, variance: float, quantile: float) -> Limits:
    r"""Limits of a score in [0, 1] on the scale of its logit, $g(v) = \log \frac{v}{1 - v}$; no width at 0 and 1."""
    if not (0 < value < 1 and variance > 0):
        return Limits(value, value, value)
    slope = 1 / (value * (1 - value))
    center = math.log(value / (1 - value)) - (value - 0.5) * variance * slope**2
    reach = quantile * slope * math.sqrt(variance)
    return Limits(*(0.5 + math.tanh((center + step) / 2) / 2 for step in (-reach, 0.0, reach)))


def robit_limits(value: float, variance: float, quantile: float) -> Limits:
    r"""Limits of a score in [0, 1] on a scale with heavy tails; at 0 and 1 without width.

    $$g(v) = \frac{2 v - 1}{\sqrt{v (1 - v)}}, \qquad g^{-1}(y) = \frac12 + \frac{y}{2 \sqrt{y^2 + 4}}$$

    is, but for a factor, the quantile function of Student's t with two degrees of freedom, which a robit link uses. A
    score near 1 then reaches further down than by its logit, as it may have been lucky in its few seeds: at most five
    times as far as `logit_limits` reach from their center, which holds the interval together where the error is as
    large as the distance to 0 or 1.
    """
    if not (0 < value < 1 and variance > 0):
        return Limits(value, value, value)
    spread = value * (1 - value)
    center = (2 * value - 1) / math.sqrt(spread) - 0.75 * (value - 0.5) * variance / spread**2.5
    reach = quantile * math.sqrt(variance) / (2 * spread**1.5)
    low, middle, high = (0.5 + y / math.hypot(y, 2.0) / 2 for y in (center - reach, center, center + reach))
    logit = logit_limits(value, variance, quantile)
    down, up = _LONGEST * (logit.center - logit.low), _LONGEST * (logit.high - logit.center)
    return Limits(max(low, middle - down), middle, min(high, middle + up))


def difference_limits(
    values: tuple[float, float],
    shares: tuple[float, float],
    variance: float,
    quantile: float,
    arm_limits: ScaleLimits,
) -> Limits:
    r"""Limits of a difference $v_a - v_b$, of those of its arms.

    With the shares w of the arms in the variance V of the difference, arm a has limits l, u and center m for the
    variance $w_a V$, and so has b. Together they reach down by

    $$\left(1 - w_a^{1.3} - w_b^{1.3}\right) t \sqrt V + w_a^{0.8} (m_a - l_a) + w_b^{0.8} (u_b - m_b),$$

    and up in the same way with the other reaches: a long reach to one side counts for less where the arms are alike,
    since the skewness of a difference is that of a less that of b. An arm alone keeps its own reach.

    Args:
        values: Of the arms.
        shares: Not negative, with the sum 1.
        variance: Of the difference.
        quantile: The t.
        arm_limits: Limits of an arm.
    """
    a, b = (arm_limits(value, share * variance, quantile) for value, share in zip(values, shares, strict=True))
    left = quantile * math.sqrt(variance) * (1 - sum(share**_SKEWNESS for share in shares))
    weight_a, weight_b = (share ** (_SKEWNESS - 0.5) for share in shares)
    center = a.center - b.center
    below = left + weight_a * (a.center - a.low) + weight_b * (b.high - b.center)
    above = left + weight_a * (a.high - a.center) + weight_b * (b.center - b.low)
    return Limits(center - below, center, center + above)


def limits_without_spread(value: float, groups: int, level: float) -> Limits:
    r"""Limits of a score of exactly 0 or 1 on P groups, where nothing varies that an error could be estimated from.

    If each group is right with the probability $\pi$, all are with $\pi^P$. So the lower limit of a score of 1 is
    $(\alpha / 2)^{1/P}$ (Clopper and Pearson 1934), about 1 - 3.7 / P at 95 %.
    """
    furthest = ((1 - level) / 2) ** (1 / groups)
    return Limits(furthest, 1.0, 1.0) if value == 1 else Limits(0.0, 0.0, 1 - furthest)


def p_value(limits: Callable[[float], Limits], freedom: float) -> float:
    """Return the two-sided p value of the t at which an interval ends at 0."""
    from scipy.optimize import brentq
    from scipy.special import stdtr

    center = limits(0.0).center
    if center == 0:
        return 1.0
    end = 0 if center > 0 else 2
    furthest = 1.0
    while limits(furthest)[end] * center > 0:
        furthest *= 2
        if furthest > _FURTHEST:
            return 0.0
    return 2 * float(stdtr(freedom, -brentq(lambda quantile: limits(quantile)[end], 0.0, furthest)))
