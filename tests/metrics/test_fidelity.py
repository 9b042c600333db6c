import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset
from torch_fidelity import FeatureExtractorBase, calculate_metrics, register_feature_extractor

from condgan.files import from_json, to_json
from condgan.metrics.extractors import ExtractorInfo, module_extractor
from condgan.metrics.fidelity import (
    Score,
    combine_deviations,
    density_coverage,
    fid,
    fid_influence,
    group_deviations,
    inception_influence,
    inception_score,
    kid,
    kid_influence,
    neighborhood_deviations,
    normal_interval,
    precision_recall,
)
from condgan.metrics.neighbors import neighbor_radii

INFO = ExtractorInfo("points", "0" * 16, "none")


def points(n, d=8, seed=0, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Tiny(nn.Module):
    """A small random network from float images to features and logits."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 9, 12))
            self.head = nn.Linear(12, 5)

    def forward(self, x):
        h = self.body(x)
        return h, 20 * self.head(h)


class TinyFidelity(FeatureExtractorBase):
    """The same as torch-fidelity wants its extractors."""

    def __init__(self, name, features_list, **kwargs):
        super().__init__(name, features_list)
        self.network = Tiny()

    @staticmethod
    def get_provided_features_list():
        return "features", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "logits" if metric == "isc" else "features"

    def forward(self, x):
        found = dict(zip(("features", "logits"), self.network((x.float() / 255 - 0.5) / 0.5), strict=True))
        return tuple(found[name] for name in self.features_list)


register_feature_extractor("condgan-tiny", TinyFidelity)


def test_agrees_with_the_entry_point_of_torch_fidelity_on_the_same_images():
    rng = torch.Generator().manual_seed(0)
    # noise of uneven strength, so that neighborhoods tell the sets apart
    real = (128 + 60 * torch.randn(90, 3, 8, 8, generator=rng)).clamp(0, 255).to(torch.uint8)
    fake = (110 + 50 * torch.randn(70, 3, 8, 8, generator=rng)).clamp(0, 255).to(torch.uint8)
    expected = calculate_metrics(
        input1=Subset(fake, range(len(fake))),
        input2=Subset(real, range(len(real))),
        feature_extractor="condgan-tiny",
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=50,
        kid_subsets=20,
        rng_seed=3,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    extractor = module_extractor(Tiny(), name="tiny", image_shape=(3, 8, 8), device="cpu")
    (x, logits), (y, _) = extractor.extract(fake), extractor.extract(real)
    scores = {
        "frechet_inception_distance": fid(x, y).value,
        "kernel_inception_distance_mean": kid(x, y, subset_size=50, subsets=20, seed=3).value,
        "kernel_inception_distance_std": kid(x, y, subset_size=50, subsets=20, seed=3).settings["subset_std"],
        "precision": precision_recall(x, y).precision.value,
        "recall": precision_recall(x, y).recall.value,
        "inception_score_mean": inception_score(logits, seed=3).value,
        "inception_score_std": inception_score(logits, seed=3).settings["split_std"],
    }
    assert scores == pytest.approx({name: expected[name] for name in scores}, rel=1e-4)  # theirs are of float32
    assert 0 < scores["precision"] < 1
    assert 0 < scores["recall"] < 1
    assert scores["inception_score_mean"] > 1.1


def test_scores_say_what_they_depend_on():
    x, y = points(30), points(40, seed=1)
    scores = [
        kid(x, y, extractor=INFO),
        fid(x, y, extractor=INFO),
        *precision_recall(x, y, extractor=INFO),
        *density_coverage(x, y, extractor=INFO),
    ]
    assert [score.metric for score in scores] == ["kid", "fid", "precision", "recall", "density", "coverage"]
    for score in scores:
        assert (score.samples, score.reference_samples) == (30, 40)
        assert from_json(Score, json.loads(json.dumps(to_json(score), allow_nan=False))) == score
    assert scores[0].settings["seed"] == 0
    assert scores[2].settings == {"neighborhood": 3}
    assert scores[4].settings == {"neighborhood": 5}
    alone = inception_score(x, extractor=INFO)
    assert (alone.samples, alone.reference_samples) == (30, None)


def test_fid_of_known_moments():
    d = 4
    x = points(400, d, dtype=torch.float64)
    x = x - x.mean(0)
    # whitened: mean 0 and covariance 1 exactly
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / 399)).T
    shift, scale = torch.arange(d) / 2, torch.tensor([1.0, 2.0, 0.5, 3.0]).double()
    expected = float(shift.square().sum() + (scale - 1).square().sum())
    assert fid(x * scale + shift, x).value == pytest.approx(expected, rel=1e-9)
    assert fid(x, x).value == pytest.approx(0, abs=1e-9)


def test_fid_of_few_samples_is_flagged():
    assert fid(points(9), points(20, seed=1)).notes == ()
    (note,) = fid(points(8), points(20, seed=1)).notes
    assert note.startswith("8 generated images for 8 feature dimensions")
    assert len(fid(points(5), points(6, seed=1)).notes) == 2


def test_kid_of_one_pair_of_points():
    x, y = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[0.0], [-1.0]]).double()
    # kernels (xy + 1)^3: 27 within x, 1 within y, and 1, 0, 1, -1 across
    assert kid(x, y, subsets=1).value == pytest.approx(27 + 1 - 2 * 0.25)


def test_kid_between_halves_of_one_set_is_zero_on_average():
    values = []
    for seed in range(60):
        x = points(80, seed=seed).double()
        values.append(kid(x[:40], x[40:], subset_size=40, subsets=1).value)
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0
    # while the biased statistics of the same sets are far from it
    assert np.mean([fid(points(40, seed=s), points(40, seed=s + 100)).value for s in range(10)]) > 0.5


def test_kid_subsets_are_never_larger_than_the_sets_and_follow_the_seed():
    x, y = points(50), points(30, seed=1)
    score = kid(x, y)
    assert score.settings["subset_size"] == 30
    assert score.notes == ("subset size 30 instead of 1000, the smaller number of samples",)
    small = [kid(x, y, subset_size=10, subsets=5, seed=seed) for seed in (0, 0, 1)]
    assert small[0] == small[1]
    assert small[0].value != small[2].value
    assert small[0].notes == ()


def naive_density_coverage(x, y, k):
    """Plain loops over the definitions, in NumPy."""
    x, y = x.numpy(), y.numpy()
    radius = [sorted(np.linalg.norm(y - centre, axis=1))[k] for centre in y]
    inside = np.array([[np.linalg.norm(a - b) <= r for b, r in zip(y, radius, strict=True)] for a in x])
    return inside.sum() / (k * len(x)), inside.any(0).mean()


def test_density_and_coverage_by_hand():
    real = torch.tensor([0.0, 1.0, 3.0, 7.0, 8.0])[:, None]
    # radii of k = 2: 3, 2, 3, 5 (from 7 to 3 is 4; to 8 is 1: the second is 4), 5
    assert neighbor_radii(real, 2).tolist() == [3.0, 2.0, 3.0, 4.0, 5.0]
    # 2 lies in the balls of 0, 1 and 3; -1 in those of 0 and 1; 20 in none
    scores = density_coverage(torch.tensor([2.0, -1.0, 20.0])[:, None], real, neighborhood=2)
    assert scores.density.value == pytest.approx(5 / (2 * 3))
    assert scores.coverage.value == pytest.approx(3 / 5)
    # on the edge is inside: 11 is at distance 4 of 7 and 3 of 8
    scores = density_coverage(torch.tensor([11.0, 11.0])[:, None], real, neighborhood=2)
    assert (scores.density.value, scores.coverage.value) == (1.0, 0.4)


def test_precision_and_recall_by_hand():
    real, fake = torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0])[:, None], torch.tensor([0.5, 1.5, 4.5, 30.0])[:, None]
    scores = precision_recall(fake, real, neighborhood=1)
    # real radii 1, 1, 1, 1, 7; generated 1, 1, 3, 25.5
    assert scores.precision.value == pytest.approx(3 / 4)
    assert scores.recall.value == pytest.approx(5 / 5)


@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_agree_with_plain_loops(k, monkeypatch):
    x, y = points(40, dtype=torch.float64) * 1.2, points(30, seed=1, dtype=torch.float64)
    expected = naive_density_coverage(x, y, k)
    found = [score.value for score in density_coverage(x, y, neighborhood=k)]
    assert found == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr("condgan.metrics.fidelity._BLOCK", 100)
    assert [score.value for score in density_coverage(x, y, neighborhood=k)] == found


def test_density_and_coverage_of_one_distribution():
    scores = density_coverage(points(2000, 3), points(2000, 3, seed=1))
    assert scores.density.value == pytest.approx(1, abs=0.05)
    # Naeem et al. 2020: one less the chance that the five nearest of ten are real
    assert scores.coverage.value == pytest.approx(1 - 2**-5, abs=0.015)


def test_outliers_fool_precision_and_not_density():
    real = torch.cat([points(50), 1000 * torch.ones(1, 8)])
    fake = points(50, seed=1) + 300
    assert precision_recall(fake, real).precision.value == 1
    assert density_coverage(fake, real).density.value < 0.5


def by_differences(x, y, narrow=3, wide=5):
    """Precision, recall, density and coverage from all differences in float64."""
    xx, yy, xy = ((a[:, None].double() - b[None].double()).norm(dim=2) for a, b in ((x, x), (y, y), (x, y)))
    x_balls, y_balls, y_wide = (d.kthvalue(k + 1).values for d, k in ((xx, narrow), (yy, narrow), (yy, wide)))
    inside = xy <= y_wide
    shares = (xy <= y_balls).any(1), (xy <= x_balls[:, None]).any(0), inside.double().sum(1) / wide, inside.any(0)
    return [float(share.double().mean()) for share in shares]


@pytest.mark.parametrize(("spread", "offset"), [(1.0, 0.0), (0.1, 100.0), (0.01, 10.0), (0.01, 100.0), (0.1, -1000.0)])
def test_scores_of_float32_features_far_from_the_origin_are_exact(spread, offset):
    x, y = (offset + spread * points(120, 16, seed=seed) for seed in (0, 1))
    x = x + 0.3 * spread
    exact = x.double(), y.double()
    scores = [*precision_recall(x, y), *density_coverage(x, y)]
    assert [score.value for score in scores] == pytest.approx(by_differences(x, y), abs=1e-6)
    near = tuple((side - offset) / spread for side in exact)
    assert fid(x, y).value == pytest.approx(spread**2 * fid(*near).value, rel=1e-6)
    k = [((a @ b.T / 16 + 1) ** 3) for a, b in ((exact[0], exact[0]), (exact[1], exact[1]), exact)]
    own = sum((m.sum() - m.diagonal().sum()) / (120 * 119) for m in k[:2])
    assert kid(x, y, subsets=1, subset_size=120).value == pytest.approx(float(own - 2 * k[2].mean()), rel=1e-3)
    blocks = torch.arange(120) % 4
    for far, at_origin in zip(
        neighborhood_deviations(x, y, blocks, blocks, narrow=3, wide=5),
        neighborhood_deviations(*near, blocks, blocks, narrow=3, wide=5),
        strict=True,
    ):
        torch.testing.assert_close(far, at_origin)


def test_inception_score_bounds():
    sure = 1000 * torch.eye(3).repeat(20, 1)
    assert inception_score(sure, splits=1).value == pytest.approx(3)
    assert inception_score(torch.zeros(20, 3)).value == pytest.approx(1)


def test_half_precision_features_are_taken():
    x, y = points(30).bfloat16(), points(40, seed=1).bfloat16()
    assert kid(x, y, subsets=2).value == kid(x.float(), y.float(), subsets=2).value


@pytest.mark.parametrize("score", [kid, fid, precision_recall, density_coverage])
def test_features_are_checked(score):
    good = points(20)
    for bad, message in (
        (torch.zeros(20, 3, 2), r"generated must be floating point of the shape \(N, D\)"),
        (torch.zeros(20, 8, dtype=torch.uint8), "Pass images through an extractor first"),
        (good[:1], "at least two rows"),
        (good.index_fill(0, torch.tensor([3]), torch.nan), "generated must be finite"),
        (points(20, 5), "features of one extractor, got 5 and 8"),
    ):
        with pytest.raises(ValueError, match=message):
            score(bad, good)


def test_numbers_are_checked():
    x = points(5)
    with pytest.raises(ValueError, match=r"neighborhood must be between 1 and .* 4, got 5"):
        density_coverage(x, x)
    with pytest.raises(ValueError, match="neighborhood must be between 1"):
        precision_recall(x, x, neighborhood=0)
    with pytest.raises(ValueError, match="subset_size must be at least 2"):
        kid(x, x, subset_size=1)
    with pytest.raises(ValueError, match="splits must be between 1 and the number of images, 5, got 10"):
        inception_score(x)


def doubles(n, d=4, seed=0):
    return points(n, d, seed, torch.float64)


def exact_kid(x, y):
    return kid(x, y, subset_size=len(x), subsets=1).value


def repeated(score, x, y, i):
    """By how much one more copy of row i moves a score, times the number of rows: its influence but for O(1/N)."""
    more = torch.cat([x, x[i : i + 1]])
    return (score(more, y) - score(x, y)) * len(more)


@pytest.mark.parametrize("dimensions", [3, 8])
def test_fid_influence_is_what_one_more_copy_does(dimensions):
    x, y = doubles(4000, dimensions) * 1.5 + 0.3, doubles(3000, dimensions, seed=1)
    of_x, of_y = (influence - influence.mean() for influence in fid_influence(x, y))
    for i in range(5):
        assert of_x[i] == pytest.approx(repeated(lambda a, b: fid(a, b).value, x, y, i), rel=0.03, abs=0.02)
        assert of_y[i] == pytest.approx(repeated(lambda a, b: fid(b, a).value, y, x, i), rel=0.03, abs=0.02)


def test_inception_influence_is_what_one_more_copy_does():
    logits = 2 * doubles(3000)
    influence = inception_influence(logits)
    influence = influence - influence.mean()
    for i in range(5):
        expected = repeated(lambda a, b: inception_score(a, splits=1).value, logits, None, i)
        assert influence[i] == pytest.approx(expected, abs=0.01)


def test_kid_influence_is_the_jackknife():
    x, y = doubles(30) + 0.5, doubles(30, seed=1)
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
    x, y = doubles(30), doubles(20, seed=1)
    whole = kid_influence(x, y)
    monkeypatch.setattr("condgan.metrics.fidelity._BLOCK", 60)
    assert all(torch.allclose(a, b) for a, b in zip(kid_influence(x, y), whole, strict=True))


def test_group_deviations_of_a_mean_are_its_standard_error():
    x = doubles(40)[:, 0]
    error = group_deviations(x, torch.arange(40)).square().sum().sqrt()
    assert error == pytest.approx(float(x.std() / math.sqrt(40)))
    # five copies of each image as one group say no more than one
    often = group_deviations(x.repeat_interleave(5), torch.arange(40).repeat_interleave(5)).square().sum().sqrt()
    assert often == pytest.approx(float(error))


def test_combined_deviations_are_paired():
    a, b = torch.tensor([1.0, -1.0]), torch.tensor([0.5, -0.5])
    total = combine_deviations([(1.0, {"test": a, "generated": b}), (-1.0, {"test": a, "train": b})])
    assert total["test"].tolist() == [0.0, 0.0]
    estimate = normal_interval(2.0, total, level=0.95)
    assert estimate.high - estimate.value == pytest.approx(1.959964 * 1.0)
    assert (estimate.value, estimate.level) == (2.0, 0.95)


def test_neighborhood_jackknife_recomputes_the_scores():
    x, y = doubles(30), doubles(25, seed=1)
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
    x = doubles(n, 16, seed)
    return 0.8 * x + 0.6 * doubles(n // 2, 16, seed + 10**6).repeat_interleave(2, 0)


def test_intervals_of_the_kid_hold_what_they_promise():
    held, pairs = [], torch.arange(100) // 2
    for seed in range(0, 600, 3):
        x, y = correlated(100, seed) + 0.2, correlated(100, seed + 1)
        of_x, of_y = kid_influence(x, y)
        deviations = {"x": group_deviations(of_x, pairs), "y": group_deviations(of_y, pairs)}
        estimate = normal_interval(exact_kid(x, y), deviations, level=0.9)
        held.append((estimate.value, estimate.low, estimate.high))
    value, low, high = torch.tensor(held).T
    covered = ((low <= value.mean()) & (value.mean() <= high)).double().mean()
    # two hundred draws, a standard error of 0.02
    assert 0.85 <= covered <= 0.99
