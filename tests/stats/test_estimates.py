import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit

from condgan.files import from_json, to_json
from condgan.stats import (
    Estimate,
    bootstrap_replicates,
    group_bootstrap,
    holm,
    logit_limits,
    off_the_boundary,
    percentile_estimate,
)


def weighted_mean(x):
    return lambda weights: weights @ x / weights.sum(1)


def test_estimate_goes_through_json_and_prints():
    estimate = Estimate(0.5, 0.25, 0.75, level=0.9)
    assert from_json(Estimate, json.loads(json.dumps(to_json(estimate)))) == estimate
    assert str(estimate) == "0.500 [0.250, 0.750]"


def test_bootstrap_equals_a_plain_cluster_bootstrap():
    x = torch.randn(60, generator=torch.Generator().manual_seed(0)).double()
    groups = torch.arange(60) // 4 * 3  # groups of four
    estimate = group_bootstrap(weighted_mean(x), groups, resamples=20_000)
    rng = np.random.default_rng(7)
    clusters = x.numpy().reshape(15, 4)
    means = np.array([np.concatenate(clusters[rng.integers(0, 15, 15)]).mean() for _ in range(20_000)])
    assert estimate.value == pytest.approx(float(x.mean()))
    assert (estimate.low, estimate.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


def test_replicates_are_those_of_the_drawn_indices():
    x = torch.arange(1.0, 7.0).double()
    groups = torch.tensor([5, 2, 2, 9, 5, 9])
    value, replicates = bootstrap_replicates(weighted_mean(x), groups, resamples=50, seed=3)
    drawn = np.random.default_rng(3).integers(0, 3, (50, 3))  # of the groups 2, 5 and 9
    members = [np.array([2.0, 3.0]), np.array([1.0, 5.0]), np.array([4.0, 6.0])]
    expected = [np.concatenate([members[g] for g in row]).mean() for row in drawn]
    assert float(value) == 3.5
    assert replicates.numpy() == pytest.approx(np.array(expected))


def test_several_statistics_share_their_resamples():
    x, groups = torch.randn(40, generator=torch.Generator().manual_seed(0)).double(), torch.arange(40) // 2
    value, replicates = bootstrap_replicates(
        lambda weights: torch.stack([weighted_mean(x)(weights), 2 * weighted_mean(x)(weights)]), groups, resamples=30
    )
    assert value[1] == 2 * value[0]
    assert torch.equal(replicates[1], 2 * replicates[0])
    assert replicates.shape == (2, 30)


def test_batches_change_nothing(monkeypatch):
    x, groups = torch.arange(20.0).double(), torch.arange(20) // 2
    whole = group_bootstrap(weighted_mean(x), groups, resamples=100)
    calls = []

    def counted(weights):
        calls.append(len(weights))
        return weighted_mean(x)(weights)

    monkeypatch.setattr("condgan.stats.estimates._BLOCK", 20 * 30)
    assert group_bootstrap(counted, groups, resamples=100) == whole
    assert max(calls) == 30


def test_same_seed_same_interval_and_no_global_state():
    x, groups = torch.arange(20.0).double(), torch.arange(20) // 2
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (group_bootstrap(weighted_mean(x), groups, seed=seed) for seed in (1, 1, 2))
    assert first == second != other
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_repeated_samples_do_not_narrow_the_interval():
    x = torch.randn(30, generator=torch.Generator().manual_seed(0)).double()
    once = group_bootstrap(weighted_mean(x), torch.arange(30))
    often = group_bootstrap(weighted_mean(x.repeat_interleave(5)), torch.arange(30).repeat_interleave(5))
    ignoring = group_bootstrap(weighted_mean(x.repeat_interleave(5)), torch.arange(150))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert ignoring.high - ignoring.low < 0.6 * (once.high - once.low)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=12).filter(lambda groups: len(set(groups)) > 1))
def test_a_constant_has_no_width_and_names_of_groups_do_not_matter(groups):
    estimate = group_bootstrap(weighted_mean(torch.ones(len(groups)).double()), groups, resamples=20)
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)
    x = torch.arange(len(groups)).double()
    renamed = [10 * group + 7 for group in groups]
    assert group_bootstrap(weighted_mean(x), groups) == group_bootstrap(weighted_mean(x), renamed)


def test_undefined_resamples_are_left_out():
    x = torch.tensor([1.0, 0.0, 0.0, 1.0]).double()
    first = torch.tensor([1.0, 0.0, 0.0, 0.0]).double()  # the class of one sample, often not drawn
    value, replicates = bootstrap_replicates(lambda w: w @ (first * x) / (w @ first), torch.arange(4), resamples=200)
    assert 0.2 < float(replicates.isnan().double().mean()) < 0.45  # (3 / 4)^4 = 0.32
    assert percentile_estimate(float(value), replicates) == Estimate(1.0, 1.0, 1.0)
    estimate = percentile_estimate(0.5, torch.tensor([0.0, 1.0, math.nan]), level=0.5)
    assert (estimate.low, estimate.high) == (0.25, 0.75)
    with pytest.raises(ValueError, match="all NaN"):
        percentile_estimate(0.5, torch.tensor([math.nan]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": [1, 1, 1]}, "at least two groups"),
        ({"groups": [[1, 2], [3, 4]]}, "one entry per sample"),
        ({"groups": [1, 2], "resamples": 0}, "resamples must be at least 1"),
        ({"groups": [1, 2], "level": 95.0}, "level must lie between 0 and 1"),
    ],
)
def test_messages(arguments, message):
    with pytest.raises(ValueError, match=message):
        group_bootstrap(lambda weights: weights.mean(1), **arguments)


def test_logit_limits_by_hand():
    low, high = logit_limits(0.9, 0.0016, 11, alpha=0.1)
    reach = stats.t.ppf(0.95, 11) * 0.04 / 0.09
    assert (low, high) == pytest.approx((expit(math.log(9) - reach), expit(math.log(9) + reach)))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 0.99), st.floats(1e-8, 1e-2), st.floats(1, 500), st.floats(0.001, 0.999))
def test_logit_limits_mirror_and_hold_the_score(value, variance, freedom, alpha):
    low, high = logit_limits(value, variance, freedom, alpha=alpha)
    mirrored = logit_limits(1 - value, variance, freedom, alpha=alpha)
    assert 0 <= low <= value + 1e-12
    assert value - 1e-12 <= high <= 1
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-9)


@given(st.integers(2, 1000), st.booleans())
def test_scores_at_the_boundary_have_the_empirical_logit(groups, perfect):
    value, variance = (float(x) for x in off_the_boundary(float(perfect), 0.0, groups))
    right, wrong = groups * perfect + 0.5, groups * (not perfect) + 0.5
    assert value == pytest.approx(right / (right + wrong))
    # the usual variance of the empirical logit
    assert variance / (value * (1 - value)) ** 2 == pytest.approx(1 / right + 1 / wrong)


def test_scores_inside_stay_as_they_are():
    value, variance = off_the_boundary([0.2, 1.0, 1 - 1e-15], [0.3, 0.0, 1e-30], 4)
    assert value.tolist() == [0.2, 0.9, 0.9]
    assert variance == pytest.approx([0.3, 0.018, 0.018])


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


@pytest.mark.parametrize("p_values", [[0.1, 1.2], [math.nan]])
def test_holm_says_what_is_wrong(p_values):
    with pytest.raises(ValueError, match="must lie in"):
        holm(p_values)
