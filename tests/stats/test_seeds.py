import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit

from condgan.files import from_json, to_json
from condgan.stats import (
    SeedCounts,
    SeedDifference,
    SeedEstimate,
    auroc,
    mover_limits,
    paired_difference,
    seed_interval,
)
from condgan.stats.seeds import Units, mean_score


def accuracy(right, weights):
    return weights @ right.double() / weights.sum(1)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def nested(runs):
    return [list(classifiers) for classifiers in runs]


def ends(estimate):
    return estimate.interval.low, estimate.interval.high


def on_the_logit(value, error, freedom, level=0.95):
    """Limits by Student's t on the logit scale."""
    reach = stats.t.ppf((1 + level) / 2, freedom) * error / (value * (1 - value))
    return expit(logit(value) - reach), expit(logit(value) + reach)


def by_mover(a, b, r):
    """The limits of the difference of two estimates, as printed by Zou and Donner."""
    (l1, u1), (l2, u2) = ends(a), ends(b)
    x, y = a.entered, b.entered
    return (
        x - y - math.sqrt((x - l1) ** 2 - 2 * r * (x - l1) * (u2 - y) + (u2 - y) ** 2),
        x - y + math.sqrt((u1 - x) ** 2 - 2 * r * (u1 - x) * (y - l2) + (y - l2) ** 2),
    )


def mean_squares(runs):
    """Mean squares of a balanced table of independent images as in textbooks, `(G, C, N)`, over G C N."""
    x = runs.numpy()
    g, c, n = x.shape
    grand, cell = x.mean(), x.mean(1)
    main_generator, main_patient = x.mean((1, 2)), x.mean((0, 1))
    residual = cell - main_generator[:, None] - main_patient + grand
    within = x - cell[:, None] - x.mean(2)[:, :, None] + main_generator[:, None, None]
    squares = {
        "generator": c * n * ((main_generator - grand) ** 2).sum() / (g - 1),
        "classifier": n * ((x.mean(2) - main_generator[:, None]) ** 2).sum() / (g * (c - 1)),
        "patient": g * c * ((main_patient - grand) ** 2).sum() / (n - 1),
        "generator x patient": c * (residual**2).sum() / ((g - 1) * (n - 1)),
        "classifier x patient": (within**2).sum() / (g * (c - 1) * (n - 1)),
    }
    return {source: square / (g * c * n) for source, square in squares.items()}


def table(g, c, n, generator=1.0):
    effects = generator * draw(g, 1, 1, seed=1) + draw(g, c, 1, seed=2) + draw(g, 1, n, seed=3) + draw(n, seed=4)
    return (draw(g, c, n) + effects) / 5


@pytest.mark.parametrize("generator", [1.0, 0.0])
def test_components_and_degrees_of_freedom_are_those_of_an_analysis_of_variance(generator):
    g, c, n = 3, 4, 50
    runs = table(g, c, n, generator)
    of = mean_squares(runs)
    estimate = seed_interval(accuracy, nested(runs), range(n))
    assert estimate.value == estimate.entered == pytest.approx(float(runs.mean()))
    classifier = of["classifier"] - of["classifier x patient"]
    seeds = of["generator"] - of["generator x patient"]
    assert estimate.components.generators == pytest.approx(seeds - classifier)
    assert estimate.components.classifiers == pytest.approx(classifier)
    assert estimate.components.interactions == pytest.approx(of["generator x patient"])
    assert estimate.components.patients == pytest.approx(of["patient"] - of["generator x patient"])
    variance = of["patient"] + max(seeds, 0)
    assert estimate.standard_error**2 == pytest.approx(variance)
    parts = [(of["generator"], g - 1), (of["generator x patient"], (g - 1) * (n - 1)), (of["patient"], n - 1)]
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    assert estimate.degrees_of_freedom == pytest.approx(freedom)
    assert ends(estimate) == pytest.approx(on_the_logit(float(runs.mean()), variance**0.5, freedom))
    assert estimate.counts == SeedCounts(generators=g, classifiers=c, patients=n)


def test_seeds_that_agree_by_chance_leave_the_patients_variance():
    a = draw(80).round()
    runs = [a, a.flip(0)]  # equal accuracy on other images
    estimate = seed_interval(accuracy, runs, range(80))
    assert estimate.components.classifiers < 0
    assert estimate.standard_error**2 == pytest.approx(float(torch.stack(runs).mean(0).var() / 80))


def test_one_real_run_is_the_interval_of_a_mean_and_says_that_seeds_were_not_varied():
    x = draw(40)
    estimate = seed_interval(accuracy, x, torch.arange(40), level=0.9)
    assert ends(estimate) == pytest.approx(on_the_logit(float(x.mean()), stats.sem(x), 39, 0.9))
    assert estimate.counts == SeedCounts(generators=None, classifiers=1, patients=40)
    assert not estimate.counts.seeds_varied
    assert estimate.components.patients == pytest.approx(stats.sem(x) ** 2)
    assert (estimate.components.generators, estimate.components.interactions) == (None, None)
    assert seed_interval(accuracy, [x], torch.arange(40), level=0.9) == estimate


def test_without_generators_the_classifier_seeds_take_their_place():
    runs = (draw(3, 60) + draw(3, 1, seed=1)) / 2
    real = seed_interval(accuracy, list(runs), range(60))
    generated = seed_interval(accuracy, [[run] for run in runs], range(60))
    assert ends(real) == ends(generated)
    assert real.components.classifiers == generated.components.generators
    assert (real.counts.generators, real.counts.seeds_varied) == (None, True)


def test_one_generator_cannot_tell():
    runs = nested(draw(1, 3, 30))
    estimate = seed_interval(accuracy, runs, range(30))
    assert (estimate.interval, estimate.standard_error, estimate.degrees_of_freedom) == (None, None, None)
    assert estimate.value == pytest.approx(float(torch.stack(runs[0]).mean()))
    assert not estimate.counts.seeds_varied
    assert estimate.components.generators is None
    assert estimate.components.classifiers is not None
    assert "cannot tell" in str(estimate)
    real = list(draw(3, 30, seed=1))
    for difference in (
        paired_difference(accuracy, runs, real, range(30)),
        paired_difference(accuracy, real, runs, range(30)),
        paired_difference(accuracy, runs, runs, range(30), shared_seeds=True),
    ):
        assert (difference.interval, difference.p_value, difference.correlation) == (None, None, None)
        assert difference.value == pytest.approx(difference.a.value - difference.b.value)


def test_the_same_run_again_adds_nothing():
    x, groups = draw(60), torch.arange(60) // 3
    once = seed_interval(accuracy, x, groups)
    often = seed_interval(accuracy, [[x] * 3] * 3, groups)
    assert ends(often) == pytest.approx(ends(once))
    assert often.degrees_of_freedom == pytest.approx(19)


def test_repeated_images_of_a_patient_do_not_narrow_the_interval():
    runs = draw(3, 3, 30)
    once = seed_interval(accuracy, nested(runs), range(30))
    often = seed_interval(accuracy, nested(runs.repeat_interleave(4, -1)), torch.arange(30).repeat_interleave(4))
    assert ends(often) == pytest.approx(ends(once))


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
    monkeypatch.setattr("condgan.stats.seeds._BLOCK", 45)
    assert ends(seed_interval(accuracy, runs, range(20))) == pytest.approx(ends(whole))


def test_perfect_scores_enter_half_a_patient_lower():
    estimate = seed_interval(accuracy, [[torch.ones(20)] * 3] * 3, range(20))
    assert (estimate.value, estimate.entered, estimate.counts.patients) == (1.0, pytest.approx(20.5 / 21), 20)
    error = math.sqrt(20.5 / 21 * 0.5 / 21 / 21)
    assert estimate.standard_error == pytest.approx(error)
    assert ends(estimate) == pytest.approx(on_the_logit(20.5 / 21, error, 19))
    never = seed_interval(accuracy, [torch.zeros(20)] * 3, range(20))
    assert (never.value, never.entered) == (0.0, pytest.approx(0.5 / 21))
    assert ends(never) == pytest.approx((1 - estimate.interval.high, 1 - estimate.interval.low))


def test_rounding_errors_at_a_perfect_score_are_not_taken_for_its_variance():
    exact, rounded = (mean_score(Units(1 - x * np.ones(3), x * draw(20, 3).numpy())) for x in (0.0, 1e-15))
    assert rounded.degrees_of_freedom == exact.degrees_of_freedom == 19
    assert rounded.limits(0.05) == exact.limits(0.05)


def test_mover_matches_newcombes_examples():
    def wilson(right, n):
        interval = stats.binomtest(right, n).proportion_ci(method="wilson")
        return right / n, (interval.low, interval.high)

    # table II of the paper on independent proportions, method 10
    for (right_a, n_a), (right_b, n_b), printed in (
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
    ):
        limits = mover_limits(*wilson(right_a, n_a), *wilson(right_b, n_b))
        assert limits == pytest.approx(printed, abs=5e-5)
    # paired: 21 patients before and after (1, 1, 7 and 12), with the correlation corrected for continuity
    correlation = (1 * 12 - 1 * 7 - 21 / 2) / math.sqrt(2 * 19 * 8 * 13)
    limits = mover_limits(*wilson(2, 21), *wilson(8, 21), correlation=max(correlation, 0))
    assert limits == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_mover_of_symmetric_limits_is_the_usual_variance_of_a_difference():
    low, high = mover_limits(0.6, (0.4, 0.8), 0.3, (0.2, 0.4), correlation=0.5)
    reach = math.sqrt(0.04 + 0.01 - 2 * 0.5 * 0.02)
    assert (low, high) == pytest.approx((0.3 - reach, 0.3 + reach))


def test_arms_of_independent_seeds_share_the_patients_alone():
    g, c, n = 3, 2, 40
    a, b = table(g, c, n), (table(g, c, n) + 0.4 * draw(g, c, n, seed=9)) / 2
    difference = paired_difference(accuracy, nested(a), nested(b), range(n))
    covariance = np.cov(a.mean((0, 1)), b.mean((0, 1)))[0, 1] / n
    errors = difference.a.standard_error, difference.b.standard_error
    assert difference.correlation == pytest.approx(covariance / math.prod(errors))
    assert difference.standard_error == pytest.approx(math.sqrt(errors[0] ** 2 + errors[1] ** 2 - 2 * covariance))
    assert difference.a == seed_interval(accuracy, nested(a), range(n))
    assert difference.b == seed_interval(accuracy, nested(b), range(n))
    assert ends(difference) == pytest.approx(by_mover(difference.a, difference.b, difference.correlation))


def test_shared_seeds_add_the_covariance_of_the_generators():
    g, n = 4, 60
    generators, images = 0.5 * draw(g, 1), draw(n, seed=8)
    a, b = ((generators + images + draw(g, n, seed=seed)) / 3 for seed in (1, 2))
    difference = paired_difference(accuracy, nested(a[:, None]), nested(b[:, None]), range(n), shared_seeds=True)
    patients = np.cov(a.mean(0), b.mean(0))[0, 1] / n
    seeds = np.cov(a.mean(1), b.mean(1))[0, 1] / g
    centered = [(x - x.mean(0) - x.mean(1, keepdim=True) + x.mean()).numpy() for x in (a, b)]
    interactions = (centered[0] * centered[1]).sum() / ((g - 1) * (n - 1)) / (g * n)
    errors = difference.a.standard_error * difference.b.standard_error
    assert difference.correlation == pytest.approx((patients + seeds - interactions) / errors)
    independent = paired_difference(accuracy, nested(a[:, None]), nested(b[:, None]), range(n))
    assert difference.correlation > independent.correlation
    assert difference.interval.high - difference.interval.low < independent.interval.high - independent.interval.low


def test_one_run_each_is_nearly_the_paired_t_test():
    a, b = draw(400), draw(400, seed=1)
    difference = paired_difference(accuracy, a, b, range(400))
    test = stats.ttest_rel(a, b)
    assert difference.p_value == pytest.approx(test.pvalue, rel=0.02)
    assert ends(difference) == pytest.approx(tuple(test.confidence_interval()), abs=1e-3)


def arms(seed, power_a=0.2, power_b=0.25):
    return draw(3, 2, 24, seed=seed) ** power_a, draw(3, 2, 24, seed=seed + 1) ** power_b


@settings(max_examples=40, deadline=None)
@given(st.booleans(), st.integers(0, 10**6), st.floats(0.1, 3), st.floats(0.01, 0.3))
def test_the_p_value_is_the_smallest_whose_interval_leaves_out_zero(shared_seeds, seed, power, alpha):
    a, b = arms(seed, power_b=power)

    def at(level):
        groups = torch.arange(24) // 2
        return paired_difference(accuracy, nested(a), nested(b), groups, shared_seeds=shared_seeds, level=level)

    difference = at(1 - alpha)
    low, high = ends(difference)
    assert -1 <= low <= difference.value <= high <= 1
    if abs(difference.p_value - alpha) > 1e-9:
        assert (difference.p_value < alpha) == (low > 0 or high < 0)
    if 1e-12 < difference.p_value < 1:
        assert min(map(abs, ends(at(1 - difference.p_value)))) < 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 10**6))
def test_exchanging_the_arms_or_the_order_of_seeds_changes_nothing(generators, classifiers, seed):
    a, b = draw(generators, classifiers, 24, seed=seed), draw(3, 24, seed=seed + 1)
    groups = torch.arange(24) // 2
    there = paired_difference(accuracy, nested(a), list(b), groups)
    back = paired_difference(accuracy, list(b), nested(a.flip(0, 1)), groups)
    assert (there.interval.low, there.value, there.interval.high) == pytest.approx(
        (-back.interval.high, -back.value, -back.interval.low)
    )
    assert there.p_value == pytest.approx(back.p_value, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.booleans(), st.integers(0, 10**6))
def test_scores_and_errors_mirror(shared_seeds, seed):
    a, b = arms(seed)
    groups = torch.arange(24) // 2
    score = paired_difference(accuracy, nested(a), nested(b), groups, shared_seeds=shared_seeds)
    error = paired_difference(accuracy, nested(1 - a), nested(1 - b), groups, shared_seeds=shared_seeds)
    assert ends(error) == pytest.approx((-score.interval.high, -score.interval.low))
    assert error.p_value == pytest.approx(score.p_value, abs=1e-9)


@pytest.mark.parametrize("shared_seeds", [False, True])
def test_arms_of_the_same_runs_do_not_differ(shared_seeds):
    runs = list(draw(3, 10))
    difference = paired_difference(accuracy, runs, runs, range(10), shared_seeds=shared_seeds)
    assert (difference.value, difference.p_value) == (0, 1)
    assert difference.interval.low <= 0 <= difference.interval.high
    if shared_seeds:
        assert difference.correlation == pytest.approx(1)


@pytest.mark.parametrize("count", [20, 60, 400])
def test_one_error_more_than_a_perfect_score_is_no_difference_for_sure(count):
    perfect, other = torch.ones(count), torch.tensor([1.0] * (count - 1) + [0.0])
    difference = paired_difference(accuracy, perfect, other, range(count))
    assert difference.a.entered == pytest.approx((count + 0.5) / (count + 1))
    assert ends(difference) == pytest.approx(by_mover(difference.a, difference.b, 0))
    assert difference.p_value > 0.3
    certain = paired_difference(accuracy, perfect, torch.zeros(count), range(count))
    assert certain.value == 1
    assert certain.interval.low > 0.5
    assert 0 < certain.p_value < 0.01


def test_constant_decisions_have_no_width():
    constant = torch.tensor([1.0, 0.0] * 10)
    estimate = seed_interval(accuracy, [constant] * 3, torch.arange(20) // 2)
    assert ends(estimate) == pytest.approx((0.5, 0.5))
    difference = paired_difference(accuracy, [constant] * 3, [constant] * 3, torch.arange(20) // 2)
    assert (difference.p_value, difference.correlation) == (1, 0)


def test_simulated_seeds_are_covered():
    rng = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(300):
        effects = [scale * torch.randn(*shape, generator=rng) for scale, shape in ((0.03, (5, 1, 1)), (0.2, (60,)))]
        runs = 0.5 + sum(effects) + 0.1 * torch.randn(5, 2, 60, generator=rng)
        estimate = seed_interval(accuracy, nested(runs), range(60))
        hits += estimate.interval.low <= 0.5 <= estimate.interval.high
    assert 0.91 < hits / 300 < 0.985


def test_estimates_go_through_json():
    runs = nested(draw(2, 2, 20))
    for estimate in (seed_interval(accuracy, runs, range(20)), seed_interval(accuracy, runs[:1], range(20))):
        assert from_json(SeedEstimate, json.loads(json.dumps(to_json(estimate)))) == estimate
    for a in (runs, runs[:1]):
        difference = paired_difference(accuracy, a, runs[0][0], range(20))
        assert from_json(SeedDifference, json.loads(json.dumps(to_json(difference)))) == difference
    low, high = ends(seed_interval(accuracy, runs, range(20)))
    assert str(seed_interval(accuracy, runs, range(20))).endswith(f" [{low:.3f}, {high:.3f}]")


def test_runs_may_be_arrays():
    x = draw(3, 20)
    assert seed_interval(accuracy, list(x.numpy()), np.arange(20)) == seed_interval(accuracy, list(x), range(20))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": [1, 1, 1, 1]}, "at least two groups"),
        ({"groups": [[1, 2], [3, 4]]}, "one entry per sample"),
        ({"runs": [[torch.ones(4)], [torch.ones(4), torch.ones(4)]]}, "equally many for each seed"),
        ({"runs": [[torch.ones(4)], torch.ones(4)]}, "equally many for each seed"),
        ({"runs": []}, "at least one"),
        ({"runs": [[[torch.ones(4)]]]}, "at most 2 lists"),
        ({"score": lambda run, weights: weights}, "Nest several runs"),
        ({"score": lambda run, weights: weights[:, 0] / weights[:, 0]}, "too few groups"),
        ({"score": lambda run, weights: 2 * weights.mean(1)}, "expected a score in"),
        ({"level": 95.0}, "level must lie between 0 and 1"),
    ],
)
def test_messages(arguments, message):
    given_arguments = {"score": accuracy, "runs": torch.ones(4), "groups": range(4), **arguments}
    with pytest.raises(ValueError, match=message):
        seed_interval(**given_arguments)


def test_message_of_unlike_arms():
    a = draw(3, 10)
    with pytest.raises(ValueError, match="got 3 and 2"):
        paired_difference(accuracy, list(a), list(a[:2]), range(10), shared_seeds=True)
