"""Tests of two classifiers on the same images, one pair at a time, and the correction for several tests.

They take images for independent and know nothing of seeds: a small p value says that these two trained classifiers
differ on such images, not that one way of training beats another. That is the question of
`condgan.metrics.seeds.paired_difference`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgan.metrics.scores import Labels, check_labels, check_probabilities
from condgan.metrics.statistics import Estimate


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two classifiers' decisions on the same images.

    Args:
        only_a: Number of images that only classifier a gets right.
        only_b: Number of images that only classifier b gets right.
        p_value: Two-sided mid-p value of equal accuracy.
        exact_p_value: Two-sided exact p value; never too small, and commonly too large.
    """

    only_a: int
    only_b: int
    p_value: float
    exact_p_value: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DeLong:
    """Areas under the receiver operating characteristics of two classifiers on the same images.

    Args:
        auroc_a: The area of classifier a.
        auroc_b: The area of classifier b.
        difference: The area of a minus that of b.
        z: The difference over its standard error; 0 if there is no difference.
        p_value: Two-sided p value of equal areas.
    """

    auroc_a: Estimate
    auroc_b: Estimate
    difference: Estimate
    z: float
    p_value: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)


def mcnemar(decisions_a: Labels, decisions_b: Labels, labels: Labels) -> McNemar:
    r"""Test whether two classifiers are right equally often, by the images on which only one of them is.

    If both are equally accurate, each of the $n = b + c$ images that just one classifier gets right is as likely to
    be of either. With the smaller count $k$ and X binomial of n and one half, the exact p value is
    $\min(1, 2 P(X \le k))$; the mid-p value, reported as `p_value`, counts the outcome at hand half:
    $2 P(X \le k) - P(X = k)$.

    Args:
        decisions_a: The class that classifier a decides for.
        decisions_b: The class that classifier b decides for.
        labels: True labels.

    Shape:
        - `decisions_a`, `decisions_b`, `labels`: `(N,)`, int64, at least 0.

    Raises:
        ValueError: If shapes or values do not fit.

    Examples:
        >>> mcnemar([1, 1, 1, 1, 0], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1])
        McNemar(only_a=3, only_b=1, p_value=0.375, exact_p_value=0.625)

    References:
        McNemar 1947; Fagerland, Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data: mid-p and
        asymptotic are better than exact conditional".
    """
    from scipy.special import bdtr

    most = 2**31
    y, a, b = (
        check_labels(name, values, most)
        for name, values in (("labels", labels), ("decisions_a", decisions_a), ("decisions_b", decisions_b))
    )
    if not len(y) == len(a) == len(b):
        raise ValueError(f"decisions and labels must be equally many, got {len(a)}, {len(b)} and {len(y)}.")
    only_a, only_b = int(((a == y) & (b != y)).sum()), int(((a != y) & (b == y)).sum())
    smaller, discordant = min(only_a, only_b), only_a + only_b
    up_to = float(bdtr(smaller, discordant, 0.5))
    below = float(bdtr(smaller - 1, discordant, 0.5)) if smaller else 0.0
    return McNemar(only_a, only_b, p_value=up_to + below, exact_p_value=min(1.0, 2 * up_to))


def delong(
    probabilities_a: Tensor | np.ndarray, probabilities_b: Tensor | np.ndarray, labels: Labels, *, level: float = 0.95
) -> DeLong:
    r"""Compare the areas under two receiver operating characteristics on the same images.

    An area is the mean over the m images of class 1 of their placement, the share of the n images of class 0 that
    have a lower probability of class 1 (ties count half), and likewise over those of class 0. With the covariance
    $S_1$ of the two classifiers' placements over images of class 1, and $S_0$ over those of class 0,

    $$\operatorname{Cov}(\hat A) = S_1 / m + S_0 / n, \qquad
    z = \frac{\hat A_a - \hat A_b}{\sqrt{(1, -1) \operatorname{Cov}(\hat A) (1, -1)^\top}}.$$

    One sort for each class and classifier gives all placements.

    Args:
        probabilities_a: Class probabilities of classifier a.
        probabilities_b: Class probabilities of classifier b.
        labels: True labels, 0 or 1.
        level: Nominal coverage of the normal intervals.

    Shape:
        - `probabilities_a`, `probabilities_b`: `(N, 2)`, in [0, 1], rows add up to 1.
        - `labels`: `(N,)`, int64, each class at least twice.

    Raises:
        ValueError: If shapes or values do not fit, a class has fewer than two images, or `level` is not between 0
            and 1.

    Examples:
        >>> def binary(*p):
        ...     return torch.tensor([[1 - x, x] for x in p])
        >>> y = [0, 0, 0, 1, 1, 1]
        >>> result = delong(binary(0.1, 0.3, 0.5, 0.4, 0.8, 0.9), binary(0.1, 0.6, 0.5, 0.4, 0.5, 0.9), y)
        >>> print(result.difference, round(result.p_value, 2))
        0.278 [-0.209, 0.765] 0.26

    References:
        DeLong, DeLong and Clarke-Pearson 1988; Sun and Xu 2014 (the placements by sorting).
    """
    (a, y), (b, _) = check_probabilities(probabilities_a, labels), check_probabilities(probabilities_b, labels)
    counts = torch.bincount(y, minlength=2)
    if a.shape[1] != 2 or b.shape[1] != 2 or int(counts.min()) < 2:
        raise ValueError(
            f"expected two columns of probabilities and two images of each class, got {a.shape[1]} and {b.shape[1]} "
            f"columns and {counts.tolist()} images. For more classes, compare one of them against the rest."
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}. Give a coverage such as 0.95.")
    scores = torch.stack([a[:, 1], b[:, 1]])
    ill, well = scores[:, y == 1], scores[:, y == 0]
    of_ill, of_well = _share_below(ill, well), 1 - _share_below(well, ill)
    areas = of_ill.mean(1)
    covariance = of_ill.cov() / ill.shape[1] + of_well.cov() / well.shape[1]
    contrasts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    values = (contrasts @ areas).tolist()
    # rounding may leave a variance of 0 slightly below it
    errors = (contrasts @ covariance * contrasts).sum(1).clamp(min=0).sqrt()
    reach = (NormalDist().inv_cdf((1 + level) / 2) * errors).tolist()
    auroc_a, auroc_b, difference = (
        Estimate(value, value - half, value + half, level) for value, half in zip(values, reach, strict=True)
    )
    gap = areas[0] - areas[1]
    z = float(gap / errors[2]) if gap else 0.0
    return DeLong(auroc_a, auroc_b, difference, z, p_value=math.erfc(abs(z) / math.sqrt(2)))


def _share_below(x: Tensor, reference: Tensor) -> Tensor:
    reference, x = reference.sort(dim=1).values.contiguous(), x.contiguous()
    below = torch.searchsorted(reference, x)
    up_to = torch.searchsorted(reference, x, right=True)
    return (below + up_to).double() / (2 * reference.shape[1])


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    r"""Adjust the p values of several tests, so that the chance of any false rejection stays at the level.

    With the m p values in ascending order, the i-th adjusted one is $\max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})$:
    reject those at most the level. No assumption about how the tests depend on each other is needed.

    Args:
        p_values: One p value a test.

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
