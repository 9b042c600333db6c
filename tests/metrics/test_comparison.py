import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from condgan.metrics.comparison import delong, holm, mcnemar


def binary(p1):
    p1 = torch.as_tensor(p1, dtype=torch.float64)
    return torch.stack([1 - p1, p1], 1)


def plain_delong(a, b, y):
    """Return difference and standard error from all pairs, as in the paper of 1988."""
    kernels = [
        (score[y == 1][:, None] > score[y == 0]) + 0.5 * (score[y == 1][:, None] == score[y == 0]) for score in (a, b)
    ]
    of_ill, of_well = np.cov([k.mean(1) for k in kernels]), np.cov([k.mean(0) for k in kernels])
    m, n = kernels[0].shape
    covariance = of_ill / m + of_well / n
    difference = kernels[0].mean() - kernels[1].mean()
    return difference, math.sqrt(np.array([1, -1]) @ covariance @ np.array([1, -1])), np.sqrt(np.diag(covariance))


def scores(seed, n=70):
    rng = np.random.default_rng(seed)
    y = np.r_[0, 0, 1, 1, rng.integers(0, 2, n - 4)]
    # few distinct values, so that ties occur
    return (np.round(8 * stats.norm.cdf(rng.normal(size=(2, n)) + 0.8 * y)) / 8), y


def decisions_with(only_a, only_b, both=3, neither=2):
    a = [1] * only_a + [0] * only_b + [1] * both + [0] * neither
    b = [0] * only_a + [1] * only_b + [1] * both + [0] * neither
    return a, b, [1] * len(a)


def test_mcnemar_by_hand():
    # of 4 images 3 speak for a: P(X <= 1) = 5/16, P(X = 1) = 4/16
    result = mcnemar(*decisions_with(3, 1))
    assert (result.only_a, result.only_b) == (3, 1)
    assert result.exact_p_value == 10 / 16
    assert result.p_value == 10 / 16 - 4 / 16
    assert mcnemar(*decisions_with(0, 0)).p_value == mcnemar(*decisions_with(5, 5)).p_value == 1.0
    assert mcnemar(*decisions_with(0, 0)).exact_p_value == mcnemar(*decisions_with(5, 5)).exact_p_value == 1.0


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_mcnemar_equals_the_binomial_test(only_a, only_b):
    result, mirrored = mcnemar(*decisions_with(only_a, only_b)), mcnemar(*decisions_with(only_b, only_a))
    n = only_a + only_b
    exact = stats.binomtest(only_a, n, 0.5).pvalue if n else 1.0
    assert result.exact_p_value == pytest.approx(exact)
    if only_a != only_b:
        assert result.p_value == pytest.approx(exact - stats.binom.pmf(only_a, n, 0.5))
    assert mirrored.p_value == result.p_value <= result.exact_p_value


def test_mcnemar_counts_right_decisions_of_many_classes():
    result = mcnemar([2, 0, 1, 2], [1, 0, 0, 1], [2, 0, 0, 0])
    assert (result.only_a, result.only_b) == (1, 1)


def test_delong_by_hand():
    # placements of a: all 1; of b: 1, 1/2 over ill images and 1, 1/2 over well ones
    result = delong(binary([0.1, 0.2, 0.8, 0.9]), binary([0.1, 0.6, 0.5, 0.9]), [0, 0, 1, 1])
    assert (result.auroc_a.value, result.auroc_b.value) == (1.0, 0.75)
    variance = 0.125 / 2 + 0.125 / 2
    assert result.z == pytest.approx(0.25 / math.sqrt(variance))
    assert result.difference.high - 0.25 == pytest.approx(1.959964 * math.sqrt(variance))


@pytest.mark.parametrize("seed", range(5))
def test_delong_equals_all_pairs(seed):
    (a, b), y = scores(seed)
    result = delong(binary(a), binary(b), y, level=0.9)
    difference, error, single = plain_delong(a, b, y)
    assert result.auroc_a.value == pytest.approx(roc_auc_score(y, a))
    assert result.auroc_b.value == pytest.approx(roc_auc_score(y, b))
    assert result.difference.value == pytest.approx(difference)
    assert result.z == pytest.approx(difference / error)
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(difference / error)))
    expected = stats.norm.interval(0.9, loc=difference, scale=error)
    assert (result.difference.low, result.difference.high) == pytest.approx(expected)
    assert result.auroc_b.high - result.auroc_b.value == pytest.approx(stats.norm.ppf(0.95) * single[1])


def test_delong_without_difference_and_with_a_sure_one():
    (a, _), y = scores(0)
    same = delong(binary(a), binary(a), y)
    assert (same.difference.value, same.z, same.p_value) == (0.0, 0.0, 1.0)
    sure = delong(binary([0.1, 0.1, 0.9, 0.9]), binary([0.5] * 4), [0, 0, 1, 1])
    assert (sure.z, sure.p_value) == (math.inf, 0.0)


def test_delong_mirrors():
    (a, b), y = scores(3)
    there, back = delong(binary(a), binary(b), y), delong(binary(b), binary(a), y)
    assert (there.z, there.p_value) == pytest.approx((-back.z, back.p_value))


def test_results_are_json():
    (a, b), y = scores(1)
    assert json.loads(json.dumps(delong(binary(a), binary(b), y).as_dict()))["difference"]["level"] == 0.95
    assert json.loads(json.dumps(mcnemar([0, 1], [1, 1], [0, 1]).as_dict()))["only_a"] == 1


def test_holm_by_hand():
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx((0.03, 0.04, 0.04, 0.02))
    assert holm([0.6, 0.5]) == (1.0, 1.0)
    assert holm([]) == ()
    assert holm([0.04]) == (0.04,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
@settings(max_examples=100, deadline=None)
def test_holm_rejects_what_stepping_down_rejects(p_values, level):
    rejected, order = set(), np.argsort(p_values, kind="stable")
    for rank, test in enumerate(order):
        if p_values[test] * (len(p_values) - rank) > level:
            break
        rejected.add(int(test))
    assert {test for test, p in enumerate(holm(p_values)) if p <= level} == rejected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar([0, 1], [0, 1], [0, 1, 1]), "equally many"),
        (lambda: mcnemar([0.5, 1.0], [0, 1], [0, 1]), "must be integers"),
        (lambda: delong(binary([0.1, 0.2, 0.3]), binary([0.1, 0.2, 0.3]), [0, 0, 1]), "two images of each class"),
        (lambda: delong(torch.full((4, 4), 0.25), torch.full((4, 4), 0.25), [0, 1, 2, 3]), "two columns"),
        (lambda: delong(binary([0.1] * 4), binary([0.1] * 3), [0, 0, 1, 1]), "equally many"),
        (lambda: delong(binary([0.1] * 4), binary([0.1] * 4), [0, 0, 1, 1], level=95), "level must lie"),
        (lambda: holm([0.1, 1.2]), "must lie in"),
        (lambda: holm([math.nan]), "must lie in"),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
