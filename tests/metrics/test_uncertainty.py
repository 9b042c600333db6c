import math

import pytest
import torch

from condgan.metrics.fidelity import (
    combine,
    density_coverage,
    fid,
    fid_influence,
    group_deviations,
    inception_influence,
    inception_score,
    interval,
    kid,
    kid_influence,
    neighborhood_deviations,
    precision_recall,
)


def points(n, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_kid(x, y):
    return kid(x, y, subset_size=len(x), subsets=1).value


def repeated(score, x, y, i):
    """By how much one more copy of row i moves a score, times the number of rows: its influence but for O(1/N)."""
    more = torch.cat([x, x[i : i + 1]])
    return (score(more, y) - score(x, y)) * len(more)


@pytest.mark.parametrize("dimensions", [3, 8])
def test_fid_influence_is_what_one_more_copy_does(dimensions):
    x, y = points(4000, dimensions) * 1.5 + 0.3, points(3000, dimensions, seed=1)
    of_x, of_y = (influence - influence.mean() for influence in fid_influence(x, y))
    for i in range(5):
        assert of_x[i] == pytest.approx(repeated(lambda a, b: fid(a, b).value, x, y, i), rel=0.03, abs=0.02)
        assert of_y[i] == pytest.approx(repeated(lambda a, b: fid(b, a).value, y, x, i), rel=0.03, abs=0.02)


def test_inception_influence_is_what_one_more_copy_does():
    logits = 2 * points(3000)
    influence = inception_influence(logits)
    influence = influence - influence.mean()
    for i in range(5):
        expected = repeated(lambda a, b: inception_score(a, splits=1).value, logits, None, i)
        assert influence[i] == pytest.approx(expected, abs=0.01)


def test_kid_influence_is_the_jackknife():
    x, y = points(30) + 0.5, points(30, seed=1)
    of_x, of_y = kid_influence(x, y)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def statistic(a, b):
        within = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (kernel(a, a), kernel(b, b))]
        return float(sum(within) - 2 * kernel(a, b).mean())

    assert statistic(x, y) == pytest.approx(exact_kid(x, y))
    rows = torch.arange(30)
    without = torch.tensor([statistic(x[rows != i], y) for i in range(30)], dtype=torch.float64)
    # leaving one out moves the mean of 30 by 1/29 of its influence; the pair terms have n - 2
    assert torch.allclose(without.mean() - without, (of_x - of_x.mean()) / 29, rtol=0.08, atol=2e-3)
    without = torch.tensor([statistic(x, y[rows != i]) for i in range(30)], dtype=torch.float64)
    assert torch.allclose(without.mean() - without, (of_y - of_y.mean()) / 29, rtol=0.08, atol=2e-3)


def test_kid_influence_in_blocks(monkeypatch):
    x, y = points(30), points(20, seed=1)
    whole = kid_influence(x, y)
    monkeypatch.setattr("condgan.metrics.fidelity._BLOCK", 60)
    assert all(torch.allclose(a, b) for a, b in zip(kid_influence(x, y), whole, strict=True))


def test_group_deviations_of_a_mean_are_its_standard_error():
    x = points(40)[:, 0]
    error = group_deviations(x, torch.arange(40)).square().sum().sqrt()
    assert error == pytest.approx(float(x.std() / math.sqrt(40)))
    # five copies of each image as one group say no more than one
    often = group_deviations(x.repeat_interleave(5), torch.arange(40).repeat_interleave(5)).square().sum().sqrt()
    assert often == pytest.approx(float(error))


def test_combined_deviations_are_paired():
    a, b = torch.tensor([1.0, -1.0]), torch.tensor([0.5, -0.5])
    total = combine([(1.0, {"test": a, "generated": b}), (-1.0, {"test": a, "train": b})])
    assert total["test"].tolist() == [0.0, 0.0]
    estimate = interval(2.0, total, level=0.95)
    assert estimate.high - estimate.value == pytest.approx(1.959964 * 1.0)
    assert (estimate.value, estimate.level) == (2.0, 0.95)


def test_neighborhood_jackknife_recomputes_the_scores():
    x, y = points(30), points(25, seed=1)
    by_x, by_y = neighborhood_deviations(x, y, torch.arange(30) % 3, torch.arange(25) % 5, narrow=2, wide=4)
    assert (by_x.shape, by_y.shape) == ((3, 4), (5, 4))

    def scores(a, b):
        found = *precision_recall(a, b, neighborhood=2), *density_coverage(a, b, neighborhood=4)
        return torch.tensor([score.value for score in found], dtype=torch.float64)

    without_x = torch.stack([scores(x[torch.arange(30) % 3 != j], y) for j in range(3)])
    without_y = torch.stack([scores(x, y[torch.arange(25) % 5 != j]) for j in range(5)])
    assert torch.allclose(by_x, (without_x - without_x.mean(0)) * math.sqrt(2 / 3))
    assert torch.allclose(by_y, (without_y - without_y.mean(0)) * math.sqrt(4 / 5))


def correlated(n, seed):
    """Points of two images a patient that resemble each other."""
    x = points(n, 16, seed)
    return 0.8 * x + 0.6 * points(n // 2, 16, seed + 10**6).repeat_interleave(2, 0)


def test_intervals_of_the_kid_hold_what_they_promise():
    held, pairs = [], torch.arange(100) // 2
    for seed in range(0, 600, 3):
        x, y = correlated(100, seed) + 0.2, correlated(100, seed + 1)
        of_x, of_y = kid_influence(x, y)
        deviations = {"x": group_deviations(of_x, pairs), "y": group_deviations(of_y, pairs)}
        estimate = interval(exact_kid(x, y), deviations, level=0.9)
        held.append((estimate.value, estimate.low, estimate.high))
    value, low, high = torch.tensor(held).T
    covered = ((low <= value.mean()) & (value.mean() <= high)).double().mean()
    # two hundred draws, a standard error of 0.02
    assert 0.85 <= covered <= 0.99
