import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from condgan.metrics import Estimate, group_bootstrap, group_weights, percentile_estimate
from condgan.metrics.statistics import degrees_of_freedom


def weighted_mean(x):
    return lambda weights: weights @ x / weights.sum(1)


def test_estimate_is_json_and_prints():
    estimate = Estimate(0.5, 0.25, 0.75, level=0.9)
    assert json.loads(json.dumps(estimate.as_dict())) == {"value": 0.5, "low": 0.25, "high": 0.75, "level": 0.9}
    assert str(estimate) == "0.500 [0.250, 0.750]"


def test_weights_keep_groups_whole_and_draw_as_many_groups_as_there_are():
    groups = torch.tensor([3, 9, 9, 3, -1, 5])
    weights = torch.cat(list(group_weights(groups, resamples=500)))
    assert weights.shape == (500, 6)
    assert torch.equal(weights[:, 0], weights[:, 3])
    assert torch.equal(weights[:, 1], weights[:, 2])
    assert (weights[:, [0, 1, 4, 5]].sum(1) == 4).all()
    assert weights[:, [0, 1, 4, 5]].mean(0).sub(1).abs().max() < 0.15


def test_blocks_are_bounded_and_add_up(monkeypatch):
    monkeypatch.setattr("condgan.metrics.statistics._BLOCK", 20)
    blocks = [len(block) for block in group_weights(torch.arange(6), resamples=10)]
    assert blocks == [3, 3, 3, 1]


def test_same_seed_same_interval_and_no_global_state():
    x, groups = torch.arange(20.0).double(), torch.arange(20) // 2
    state = torch.get_rng_state()
    first, second, other = (group_bootstrap(weighted_mean(x), groups, seed=seed) for seed in (1, 1, 2))
    assert first == second != other
    assert torch.equal(torch.get_rng_state(), state)


def test_one_sample_a_group_is_the_ordinary_bootstrap():
    x = torch.randn(60, generator=torch.Generator().manual_seed(0)).double()
    estimate = group_bootstrap(weighted_mean(x), torch.arange(60), resamples=8000)
    rng = np.random.default_rng(0)
    means = x.numpy()[rng.integers(0, 60, (8000, 60))].mean(1)
    assert estimate.value == pytest.approx(float(x.mean()))
    assert (estimate.low, estimate.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


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
    replicates = torch.tensor([0.0, 1.0, float("nan")])
    estimate = percentile_estimate(0.5, replicates, level=0.5)
    assert (estimate.low, estimate.high) == (0.25, 0.75)
    with pytest.raises(ValueError, match="all NaN"):
        percentile_estimate(0.5, replicates[2:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": [1, 1, 1]}, "at least two groups"),
        ({"groups": [[1, 2], [3, 4]]}, "one entry a sample"),
        ({"groups": [1, 2], "resamples": 0}, "resamples must be at least 1"),
        ({"groups": [1, 2], "level": 95.0}, "level must lie between 0 and 1"),
    ],
)
def test_messages(arguments, message):
    with pytest.raises(ValueError, match=message):
        group_bootstrap(lambda weights: weights.mean(1), **arguments)


def test_degrees_of_freedom_by_hand():
    assert float(degrees_of_freedom([0.3], [7])) == pytest.approx(7)
    assert float(degrees_of_freedom([0.3, 0.0, 0.0], [7, 1, 400])) == pytest.approx(7)
    assert float(degrees_of_freedom([0.0, 0.0], [7, 400])) == 400
    a, b, c = 0.36 / 4 + 0.16 / 100, 0.216 / 16 + 0.064 / 10_000, 0.36 / 16 + 0.16 / 10_000
    expected = 1 / (a + 10 * (b - a * a) - 2 * (c - b))
    assert float(degrees_of_freedom([3.0, 2.0], [4, 100])) == pytest.approx(expected)
    assert degrees_of_freedom([[3.0, 0.3], [2.0, 0.2]], [4, 100]) == pytest.approx([expected] * 2)


def test_degrees_of_freedom_are_held_where_the_series_breaks_down():
    assert float(degrees_of_freedom([1.0, 1.0], [2, 2])) == pytest.approx(8)  # twice Satterthwaite's
    assert float(degrees_of_freedom([1.0, 1.0], [1, 1])) == pytest.approx(4)
    assert float(degrees_of_freedom([0.9, 0.1], [1, 400])) == pytest.approx(1)
    assert float(degrees_of_freedom([1.1, -0.1], [2, 400])) == pytest.approx(2)


def test_degrees_of_freedom_are_right_to_second_order():
    level = float(stats.norm.cdf(2.27206))  # where the factor of the docstring is 10
    nodes, weights = np.polynomial.legendre.leggauss(200)
    chance, weights = (nodes + 1) / 2, np.outer(weights, weights) / 4

    def error(own, share, rule):
        spread = [stats.chi2.ppf(chance, freedom) / freedom for freedom in own]
        parts = np.stack(np.broadcast_arrays(share * spread[0][:, None], (1 - share) * spread[1]))
        reach = stats.t.ppf(level, rule(parts, own)) * np.sqrt(parts.sum(0))
        return abs((weights * stats.norm.cdf(reach)).sum() - level)

    def satterthwaite(parts, own):
        return parts.sum(0) ** 2 / (parts[0] ** 2 / own[0] + parts[1] ** 2 / own[1])

    for share in (0.3, 0.5, 0.8):
        far, near = (error((freedom, 2 * freedom), share, degrees_of_freedom) for freedom in (12, 24))
        assert far / near > 6  # 8 is the third order, 4 the second
        assert near < error((24, 48), share, satterthwaite) / 5


@pytest.mark.parametrize(("own", "least", "most"), [([2, 400], 0.939, 0.955), ([2, 2, 400], 0.935, 0.965)])
def test_estimated_variances_are_covered_whatever_their_shares(own, least, most):
    rng = np.random.default_rng(0)
    estimates = [rng.chisquare(freedom, 20_000) / freedom for freedom in own]
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        truth = [*[share / (len(own) - 1)] * (len(own) - 1), 1 - share]
        found = np.stack([part * estimate for part, estimate in zip(truth, estimates, strict=True)])
        reach = stats.t.ppf(0.975, degrees_of_freedom(found, own)) * np.sqrt(found.sum(0))
        assert least < np.mean(2 * stats.norm.cdf(reach) - 1) < most
