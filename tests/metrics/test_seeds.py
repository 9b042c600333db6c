import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit

from condgan.metrics import auroc
from condgan.metrics.limits import logit_limits
from condgan.metrics.seeds import SeedDifference, SeedEstimate, paired_difference, seed_interval
from condgan.metrics.statistics import degrees_of_freedom

T19 = stats.t.ppf(0.975, 19)


def accuracy(right, weights):
    return weights @ right.double() / weights.sum(1)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def nested(runs):
    return [list(classifiers) for classifiers in runs]


def anova(runs):
    """Mean squares of a balanced table of independent images as in textbooks, `(G, C, N)`."""
    x = runs.numpy()
    g, c, n = x.shape
    grand, cell = x.mean(), x.mean(1)
    main_generator, main_patient = x.mean((1, 2)), x.mean((0, 1))
    residual = cell - main_generator[:, None] - main_patient + grand
    within = x - cell[:, None] - x.mean(2)[:, :, None] + main_generator[:, None, None]
    return {
        "generator": c * n * ((main_generator - grand) ** 2).sum() / (g - 1),
        "classifier": n * ((x.mean(2) - main_generator[:, None]) ** 2).sum() / (g * (c - 1)),
        "patient": g * c * ((main_patient - grand) ** 2).sum() / (n - 1),
        "generator x patient": c * (residual**2).sum() / ((g - 1) * (n - 1)),
        "classifier x patient": (within**2).sum() / (g * (c - 1) * (n - 1)),
    }


def test_one_run_of_independent_images_is_the_textbook_interval():
    x = draw(40)
    estimate = seed_interval(accuracy, x, torch.arange(40), bounded=False, level=0.9)
    expected = stats.t.interval(0.9, 39, loc=x.mean(), scale=stats.sem(x))
    assert (estimate.low, estimate.high) == pytest.approx(expected)
    assert estimate.counts == {"classifier seeds": 1, "patients": 40}
    assert estimate.components == pytest.approx({"patients": stats.sem(x) ** 2})


def test_components_are_those_of_an_analysis_of_variance():
    g, c, n = 3, 4, 50
    runs = draw(g, c, n) + draw(g, 1, 1, seed=1) + draw(g, c, 1, seed=2) + draw(g, 1, n, seed=3) + draw(n, seed=4)
    squares = anova(runs)
    estimate = seed_interval(accuracy, nested(runs), range(n), bounded=False)
    assert estimate.value == pytest.approx(float(runs.mean()))
    assert estimate.standard_error**2 == pytest.approx(
        (squares["generator"] + squares["patient"] - squares["generator x patient"]) / (g * c * n)
    )
    interactions = squares["generator x patient"] / (g * c * n)
    classifier = (squares["classifier"] - squares["classifier x patient"]) / (g * c * n)
    assert estimate.components == pytest.approx(
        {
            "generator seeds": squares["generator"] / (g * c * n) - interactions - classifier,
            "classifier seeds": classifier,
            "seeds x patients": interactions,
            "patients": squares["patient"] / (g * c * n) - interactions,
        }
    )
    assert sum(estimate.components.values()) == pytest.approx(estimate.standard_error**2)
    parts = [squares["generator"] / (g * c * n), squares["patient"] / (g * c * n) - interactions]
    assert estimate.degrees_of_freedom == pytest.approx(float(degrees_of_freedom(parts, [g - 1, n - 1])))


def test_without_generators_the_classifier_seeds_are_the_outer_level():
    runs = draw(3, 60) + draw(3, 1, seed=1)
    seeds = seed_interval(accuracy, list(runs), range(60), bounded=False)
    one_generator = seed_interval(accuracy, [list(runs)], range(60), bounded=False)
    one_classifier = seed_interval(accuracy, [[run] for run in runs], range(60), bounded=False)
    assert (
        (seeds.low, seeds.high) == (one_generator.low, one_generator.high) == (one_classifier.low, one_classifier.high)
    )
    assert seeds.counts == {"classifier seeds": 3, "patients": 60}
    assert one_generator.counts == {"generator seeds": 1, "classifier seeds": 3, "patients": 60}
    assert set(seeds.components) == {"classifier seeds", "seeds x patients", "patients"}
    assert set(one_classifier.components) == {"generator seeds", "seeds x patients", "patients"}


def test_the_same_run_again_adds_nothing():
    x, groups = draw(60), torch.arange(60) // 3
    once = seed_interval(accuracy, x, groups)
    often = seed_interval(accuracy, [[x] * 3] * 3, groups)
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert often.degrees_of_freedom == pytest.approx(19)


def test_seeds_that_agree_by_chance_keep_half_of_the_patients_variance():
    a = draw(80).round()
    runs = [a, a.flip(0)]  # equal accuracy on other images
    estimate = seed_interval(accuracy, runs, range(80), bounded=False)
    jackknife = float((torch.stack(runs).mean(0)).var() / 80)
    assert estimate.components["seeds x patients"] > jackknife / 2
    assert estimate.standard_error**2 == pytest.approx(jackknife / 2)


def test_repeated_images_of_a_patient_do_not_narrow_the_interval():
    runs = draw(3, 3, 30)
    once = seed_interval(accuracy, nested(runs), range(30))
    often = seed_interval(accuracy, nested(runs.repeat_interleave(4, -1)), torch.arange(30).repeat_interleave(4))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_the_jackknife_leaves_whole_groups_out_of_any_score():
    y = torch.tensor([0, 0, 1, 1, 0, 1, 1, 0, 1, 0])
    p = torch.stack([1 - draw(10), draw(10)], 1)
    groups = torch.tensor([4, 4, 9, 9, 1, 1, 2, 2, 7, 7])
    estimate = seed_interval(lambda p, w: auroc(p, y, weights=w), p, groups)
    without = np.array([float(auroc(p[groups != g], y[groups != g])) for g in (1, 2, 4, 7, 9)])
    assert estimate.standard_error**2 == pytest.approx(4 / 5 * ((without - without.mean()) ** 2).sum())


def test_blocks_change_nothing(monkeypatch):
    runs = nested(draw(2, 2, 20))
    whole = seed_interval(accuracy, runs, range(20))
    monkeypatch.setattr("condgan.metrics.seeds._BLOCK", 45)
    blocks = seed_interval(accuracy, runs, range(20))
    assert (blocks.low, blocks.value, blocks.high) == pytest.approx((whole.low, whole.value, whole.high))


def test_logit_interval_by_hand_stays_inside():
    right = torch.tensor([1.0] * 19 + [0.0])
    estimate = seed_interval(accuracy, right, range(20))
    error = math.sqrt(0.95 * 0.05 / 19) / (0.95 * 0.05)
    center = math.log(19) - (2 * 0.95 - 1) / 2 * error**2
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expit(center + T19 * error * np.array([-1, 1]))))
    plain = seed_interval(accuracy, right, range(20), bounded=False)
    assert plain.high > 1 > estimate.high
    perfect = seed_interval(accuracy, [[torch.ones(20)] * 3] * 3, range(20))
    assert (perfect.low, perfect.value, perfect.high) == (pytest.approx(0.025 ** (1 / 20)), 1.0, 1.0)
    assert stats.binomtest(20, 20).proportion_ci(method="exact").low == pytest.approx(perfect.low)
    never = seed_interval(accuracy, [torch.zeros(20)] * 3, range(20), level=0.9)
    assert (never.low, never.value, never.high) == (0.0, 0.0, pytest.approx(1 - 0.05 ** (1 / 20)))


def test_one_run_each_is_the_paired_t_test():
    a, b = draw(50), draw(50, seed=1)
    difference = paired_difference(accuracy, a, b, range(50), bounded=False)
    test = stats.ttest_rel(a, b)
    assert difference.p_value == pytest.approx(test.pvalue)
    assert (difference.low, difference.high) == pytest.approx(tuple(test.confidence_interval()))


def test_independent_seeds_add_their_variances_as_in_welchs_test():
    images = draw(200)
    a = images + torch.tensor([0.0, 1.0, 2.0])[:, None]
    b = images + torch.tensor([0.0, 3.0, 0.0, 5.0])[:, None]
    difference = paired_difference(accuracy, list(a), list(b), range(200), bounded=False)
    welch = stats.ttest_ind([0.0, 1.0, 2.0], [0.0, 3.0, 0.0, 5.0], equal_var=False)
    # the same images in both arms: the patients' part cancels
    assert difference.components["patients"] == pytest.approx(0, abs=1e-12)
    assert difference.value / difference.standard_error == pytest.approx(welch.statistic)
    parts = [1 / 3, np.var([0.0, 3.0, 0.0, 5.0], ddof=1) / 4]
    assert difference.degrees_of_freedom == pytest.approx(float(degrees_of_freedom(parts, [2, 3])))
    law = stats.t(difference.degrees_of_freedom)
    assert difference.p_value == pytest.approx(2 * law.sf(-welch.statistic))
    reach = law.ppf(0.975) * difference.standard_error
    assert (difference.low, difference.high) == pytest.approx((-1 - reach, -1 + reach))
    assert difference.counts == {"a: classifier seeds": 3, "b: classifier seeds": 4, "patients": 200}


def test_difference_of_bounded_scores_by_hand():
    a = torch.tensor([1.0] * 19 + [0.0])
    b = torch.tensor([0.0] * 2 + [1.0] * 16 + [0.0] * 2)
    difference = paired_difference(accuracy, a, b, range(20))
    variance, own = float((a - b).var()) / 20, [float(x.var()) / 20 for x in (a, b)]
    shares = [part / sum(own) for part in own]

    def robit(p, part):
        scale = 2**0.5  # the t quantile of two degrees of freedom is the scale of the docstring over this
        slope = 1 / stats.t(2).pdf(stats.t(2).ppf(p))
        bend = 1.5 * (2 * p - 1) / (p * (1 - p)) ** 2.5 / 2 / scale
        center = stats.t(2).ppf(p) - bend * part / 2
        limits = stats.t(2).cdf(center + np.array([-1, 0, 1]) * T19 * slope * part**0.5)
        logit = logit_limits(p, part, T19)
        limits[0] = max(limits[0], limits[1] - 5 * (logit.center - logit.low))
        return limits

    (low_a, mid_a, high_a), (low_b, mid_b, high_b) = (
        robit(p, variance * share) for p, share in zip((0.95, 0.8), shares, strict=True)
    )

    def reach(x, y):
        left = 1 - sum(share**1.3 for share in shares)
        return left * T19 * variance**0.5 + shares[0] ** 0.8 * x + shares[1] ** 0.8 * y

    assert difference.value == pytest.approx(0.15)
    assert difference.low == pytest.approx(mid_a - mid_b - reach(mid_a - low_a, high_b - mid_b))
    assert difference.high == pytest.approx(mid_a - mid_b + reach(high_a - mid_a, mid_b - low_b))


def test_differences_of_well_known_scores_reach_equally_far_to_both_sides():
    images = draw(20_000)
    a, b = images + 0.002 * draw(2, 20_000, seed=1), images
    bounded = paired_difference(accuracy, list(a), b, range(20_000))
    plain = paired_difference(accuracy, list(a), b, range(20_000), bounded=False)
    assert (bounded.low, bounded.high, bounded.p_value) == pytest.approx(
        (plain.low, plain.high, plain.p_value), rel=1e-3
    )


@settings(max_examples=25, deadline=None)
@given(st.booleans(), st.integers(0, 10**6))
def test_the_interval_at_the_level_of_its_p_value_ends_at_zero(paired_seeds, seed):
    a, b = draw(3, 2, 24, seed=seed) ** 0.2, draw(3, 2, 24, seed=seed + 1) ** 0.25
    arguments = accuracy, nested(a), nested(b), torch.arange(24) // 2
    difference = paired_difference(*arguments, paired_seeds=paired_seeds)
    assert -1 <= difference.low <= difference.value <= difference.high <= 1
    at_its_level = paired_difference(*arguments, paired_seeds=paired_seeds, level=1 - difference.p_value)
    assert min(abs(at_its_level.low), abs(at_its_level.high)) < 1e-6


def test_paired_seeds_cancel_what_the_arms_share():
    generators = 5 * draw(3, 1, 1)
    a, b = (generators + draw(3, 2, 90, seed=seed) for seed in (1, 2))
    paired = paired_difference(accuracy, nested(a), nested(b), range(90), paired_seeds=True, bounded=False)
    independent = paired_difference(accuracy, nested(a), nested(b), range(90), bounded=False)
    one_arm = seed_interval(accuracy, nested(a - b), range(90), bounded=False)
    assert (paired.low, paired.high) == pytest.approx((one_arm.low, one_arm.high))
    assert paired.high - paired.low < 0.3 * (independent.high - independent.low)
    assert paired.value == pytest.approx(independent.value)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 10**6))
def test_exchanging_the_arms_or_the_order_of_seeds_changes_nothing(generators, classifiers, seed):
    a, b = draw(generators, classifiers, 24, seed=seed), draw(3, 24, seed=seed + 1)
    groups = torch.arange(24) // 2
    there = paired_difference(accuracy, nested(a), list(b), groups)
    back = paired_difference(accuracy, list(b), nested(a.flip(0, 1)), groups)
    assert (there.low, there.value, there.high) == pytest.approx((-back.high, -back.value, -back.low))
    assert there.p_value == pytest.approx(back.p_value)
    assert (there.p_value < 0.05) == (there.low > 0 or there.high < 0)


@pytest.mark.parametrize("count", [20, 60, 400])
def test_one_error_more_than_a_perfect_score_is_no_difference_for_sure(count):
    perfect, other = torch.ones(count), torch.tensor([1.0] * (count - 1) + [0.0])
    difference = paired_difference(accuracy, perfect, other, range(count))
    plain = paired_difference(accuracy, perfect, other, range(count), bounded=False)
    assert (difference.low, difference.high, difference.p_value) == (plain.low, plain.high, plain.p_value)
    assert difference.p_value > 0.3
    certain = paired_difference(accuracy, perfect, torch.zeros(count), range(count))
    assert (certain.low, certain.high, certain.p_value) == (1, 1, 0)


def test_no_difference_at_all():
    x = draw(2, 30)
    difference = paired_difference(accuracy, list(x), list(x), range(30), paired_seeds=True)
    assert (difference.low, difference.value, difference.high, difference.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("paired_seeds", [False, True])
def test_arms_of_the_same_runs_do_not_differ(paired_seeds):
    runs = list(draw(3, 10))
    difference = paired_difference(accuracy, runs, runs, range(10), paired_seeds=paired_seeds)
    assert difference.value == 0
    assert difference.p_value == 1
    assert difference.low <= 0 <= difference.high


def test_simulated_seeds_are_covered():
    rng = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(400):
        effects = [scale * torch.randn(*shape, generator=rng) for scale, shape in ((0.3, (3, 1, 1)), (2.0, (60,)))]
        runs = sum(effects) + torch.randn(3, 2, 60, generator=rng)
        estimate = seed_interval(accuracy, nested(runs), range(60), bounded=False)
        hits += estimate.low <= 0 <= estimate.high
    assert 0.925 < hits / 400 < 0.985


def test_estimates_are_json():
    runs = nested(draw(2, 2, 20))
    estimate = seed_interval(accuracy, runs, range(20))
    difference = paired_difference(accuracy, runs, runs[0][0], range(20))
    assert SeedEstimate(**json.loads(json.dumps(estimate.as_dict()))) == estimate
    assert SeedDifference(**json.loads(json.dumps(difference.as_dict()))) == difference
    assert str(estimate) == f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": [1, 1, 1, 1]}, "at least two groups"),
        ({"groups": [[1, 2], [3, 4]]}, "one entry a sample"),
        ({"runs": [[torch.ones(4)], [torch.ones(4), torch.ones(4)]]}, "equally many for each seed"),
        ({"runs": [[torch.ones(4)], torch.ones(4)]}, "equally many for each seed"),
        ({"runs": []}, "at least one"),
        ({"runs": [[[torch.ones(4)]]]}, "at most 2 lists"),
        ({"score": lambda run, weights: weights}, "Nest several runs"),
        ({"score": lambda run, weights: weights[:, 0] / weights[:, 0]}, "too few groups"),
        ({"score": lambda run, weights: 2 * weights.mean(1)}, "bounded=False"),
        ({"level": 95.0}, "level must lie between 0 and 1"),
    ],
)
def test_messages(arguments, message):
    given_arguments = {"score": accuracy, "runs": torch.ones(4), "groups": range(4), **arguments}
    with pytest.raises(ValueError, match=message):
        seed_interval(**given_arguments)


def test_message_of_unlike_arms():
    a = draw(3, 10)
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2,\)"):
        paired_difference(accuracy, list(a), list(a[:2]), range(10), paired_seeds=True)
