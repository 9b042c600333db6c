import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import t as student
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion

from condgan.files import from_json, to_json
from condgan.stats import (
    ClassificationReport,
    auroc,
    best_threshold,
    classification_report,
    confusion_matrix,
    decision_scores,
    group_bootstrap,
    score_functions,
)


def binary(p1):
    p1 = torch.as_tensor(p1, dtype=torch.float64)
    return torch.stack([1 - p1, p1], 1)


def draw_tied(n, k, seed=0):
    rng = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(k), torch.randint(k, (n - k,), generator=rng)])
    logits = torch.randn(n, k, generator=rng) + 1.2 * torch.nn.functional.one_hot(y, k)
    # few distinct values, so that ties occur
    return (2 * logits).round().softmax(1).double(), y


def balanced_accuracy(decided, y):
    return (decided[..., y == 1].double().mean(-1) + (~decided[..., y == 0]).double().mean(-1)) / 2


@st.composite
def scored(draw_from):
    n = draw_from(st.integers(2, 15))
    scores = draw_from(st.lists(st.integers(0, 8), min_size=n, max_size=n))
    labels = draw_from(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)))
    return torch.tensor(scores).double() / 8, torch.tensor(labels)


def test_auroc_by_hand():
    # of the four pairs, two are right, one is tied and one is wrong
    assert float(auroc(binary([0.2, 0.6, 0.6, 0.4]), [0, 0, 1, 1])) == (2 + 0.5) / 4
    assert float(auroc(binary([0.1, 0.2, 0.8, 0.9]), [0, 0, 1, 1])) == 1.0
    assert float(auroc(binary([0.5] * 4), [0, 0, 1, 1])) == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_auroc_equals_scikit_learn(seed):
    p, y = draw_tied(80, 2, seed)
    assert float(auroc(p, y)) == pytest.approx(roc_auc_score(y, p[:, 1]))
    p, y = draw_tied(80, 4, seed)
    assert float(auroc(p, y)) == pytest.approx(roc_auc_score(y, p, multi_class="ovr", average="macro"))


@given(scored())
@settings(max_examples=60, deadline=None)
def test_auroc_sees_ranks_only_and_mirrors(case):
    p1, y = case
    area = float(auroc(binary(p1), y))
    assert float(auroc(binary(p1**3 / 2), y)) == pytest.approx(area)
    assert float(auroc(binary(1 - p1), y)) == pytest.approx(1 - area)
    assert float(auroc(binary(p1), 1 - y)) == pytest.approx(1 - area)


@given(scored(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_weights_are_multiplicities(case, random):
    p1, y = case
    weights = torch.tensor([random.randint(1, 3) for _ in y])
    copied_p, copied_y = p1.repeat_interleave(weights), y.repeat_interleave(weights)
    assert float(auroc(binary(p1), y, weights=weights)) == pytest.approx(float(auroc(binary(copied_p), copied_y)))
    decided = (p1 > 0.5).long()
    counted = confusion_matrix(decided, y, num_classes=2, weights=weights)
    copied = confusion_matrix(decided.repeat_interleave(weights), copied_y, num_classes=2)
    assert torch.equal(counted, copied)
    doubled = torch.stack([weights, 2 * weights])
    areas = auroc(binary(p1), y, weights=doubled)
    assert float(areas[0]) == pytest.approx(float(areas[1]))


def test_auroc_of_an_absent_class_is_undefined():
    weights = torch.tensor([[1, 1, 0], [1, 0, 1]])
    areas = auroc(binary([0.1, 0.2, 0.3]), [0, 0, 1], weights=weights)
    assert areas.isnan().tolist() == [True, False]


def test_confusion_equals_scikit_learn():
    p, y = draw_tied(60, 3)
    ours = confusion_matrix(p.argmax(1), y, num_classes=3)
    assert np.array_equal(ours.numpy(), sklearn_confusion(y, p.argmax(1)))


@given(scored())
@settings(max_examples=60, deadline=None)
def test_no_threshold_beats_the_best(case):
    p1, y = case
    threshold = best_threshold(p1, y)
    others = torch.linspace(-0.06, 1.06, 19, dtype=torch.float64)[:, None]
    assert balanced_accuracy(p1 >= threshold, y) >= balanced_accuracy(p1 >= others, y).max() - 1e-12


def test_threshold_stays_at_one_half_where_it_is_as_good():
    assert best_threshold(torch.tensor([0.1, 0.9]), [0, 1]) == 0.5
    assert best_threshold(torch.tensor([0.8, 0.9], dtype=torch.float64), [0, 1]) == pytest.approx(0.85)


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        ([[0.5, 0.6], [0.5, 0.5]], [0, 1], "Apply a softmax"),
        ([[2.0, -1.0], [0.5, 0.5]], [0, 1], "Apply a softmax"),
        ([[float("nan"), 1.0], [0.5, 0.5]], [0, 1], "must lie in"),
        ([0.5, 0.5], [0, 1], "at least two classes"),
        ([[0.5, 0.5], [0.5, 0.5]], [1, 2], "Labels start at 0"),
        ([[0.5, 0.5], [0.5, 0.5]], [0.0, 1.0], "must be integers"),
        ([[0.5, 0.5], [0.5, 0.5]], [0, 1, 1], "equally many"),
    ],
)
def test_messages_of_probabilities(p, y, message):
    with pytest.raises(ValueError, match=message):
        auroc(torch.tensor(p), torch.tensor(y))


def test_messages_of_decisions_and_thresholds():
    with pytest.raises(ValueError, match="decisions must have the shape"):
        confusion_matrix([0, 1], [0, 1, 1], num_classes=2)
    with pytest.raises(ValueError, match="both classes must occur"):
        best_threshold(torch.tensor([0.2, 0.3]), [1, 1])


def draw(n, k, seed=0):
    rng = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(k), torch.randint(k, (n - k,), generator=rng)])
    logits = torch.randn(n, k, generator=rng) + 1.2 * torch.nn.functional.one_hot(y, k)
    return logits.softmax(1), y


def values(estimates):
    return [estimate.value for estimate in estimates]


@pytest.mark.parametrize("k", [2, 3])
def test_values_equal_scikit_learn(k):
    p, y = draw(90, k)
    report = classification_report(p, y, resamples=10)
    decided = p.argmax(1)
    assert report.accuracy.value == pytest.approx(accuracy_score(y, decided))
    assert report.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(y, decided))
    assert report.macro_f1.value == pytest.approx(f1_score(y, decided, average="macro"))
    assert values(report.recall) == pytest.approx(recall_score(y, decided, average=None))
    assert values(report.precision) == pytest.approx(precision_score(y, decided, average=None))
    assert report.auroc.value == pytest.approx(float(auroc(p, y)))


def test_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.1, 0.9], [0.2, 0.8]])
    report = classification_report(p, [0, 0, 0, 1, 1, 1], groups=[1, 1, 2, 3, 4, 4], threshold=0.3, resamples=10)
    assert report.confusion == ((2, 1), (1, 2))
    assert report.accuracy.value == pytest.approx(4 / 6)
    assert report.auroc.value == pytest.approx(8 / 9)
    assert (report.samples, report.groups) == (6, 4)
    assert values(report.at_threshold.recall) == pytest.approx([2 / 3, 1.0])
    assert report.at_threshold.accuracy.value == pytest.approx(5 / 6)
    assert report.at_threshold.balanced_accuracy.value == pytest.approx(5 / 6)


@given(st.integers(2, 5), st.integers(0, 4))
@settings(max_examples=15, deadline=None)
def test_a_constant_decision_has_chance_level(k, chosen):
    p, y = draw(40, k)
    p = torch.full_like(p, 0.1 / k)
    p[:, chosen % k] = 1 - p[0, 0] * (k - 1)
    report = classification_report(p, y, resamples=20)
    assert report.balanced_accuracy.value == pytest.approx(1 / k)
    assert report.auroc.value == pytest.approx(0.5)
    assert values(report.precision) == pytest.approx(precision_score(y, p.argmax(1), average=None, zero_division=0))


def test_order_of_samples_does_not_matter():
    p, y = draw(60, 3)
    groups = torch.arange(60) // 3
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    straight = classification_report(p, y, groups=groups, resamples=50)
    shuffled = classification_report(p[order], y[order], groups=groups[order], resamples=50)
    assert json.dumps(_rounded(to_json(straight))) == json.dumps(_rounded(to_json(shuffled)))


def _rounded(tree):
    if isinstance(tree, dict):
        return {key: _rounded(value) for key, value in tree.items()}
    return round(tree, 9) if isinstance(tree, float) else tree


def test_intervals_are_those_of_the_group_bootstrap():
    p, y = draw(80, 2)
    groups = torch.arange(80) // 2
    report = classification_report(p, y, groups=groups, threshold=0.5, resamples=300, level=0.9, seed=4)
    right = (p.argmax(1) == y).double()
    assert report.accuracy == group_bootstrap(
        lambda weights: weights @ right / weights.sum(1), groups, resamples=300, level=0.9, seed=4
    )
    assert report.auroc == group_bootstrap(
        lambda weights: auroc(p, y, weights=weights), groups, resamples=300, level=0.9, seed=4
    )
    assert report.auroc.low < report.auroc.value < report.auroc.high
    assert report.at_threshold.accuracy == report.accuracy


def boundary_limits(n, level=0.95):
    """Limits of a perfect score on n groups, by the empirical logit."""
    reach = student.ppf((1 + level) / 2, n - 1) * np.sqrt(1 / (n + 0.5) + 2)
    return pytest.approx(tuple(expit(np.log(2 * n + 1) + reach * np.array([-1, 1]))))


def test_a_metric_without_spread_has_the_interval_of_its_groups():
    y, groups = torch.tensor([0] * 24 + [1] * 32), torch.arange(56) // 2
    p = torch.tensor([[0.9, 0.1]] * 16 + [[0.2, 0.8]] * 40)
    report = classification_report(p, y, groups=groups, threshold=0.05, resamples=200)
    ill, well = report.recall[1], report.precision[0]
    assert (ill.value, (ill.low, ill.high)) == (1, boundary_limits(16))  # 16 patients are ill
    assert (well.value, (well.low, well.high)) == (1, boundary_limits(8))  # 8 were decided to be well
    assert report.recall[0].low < 16 / 24 < report.recall[0].high
    never = report.at_threshold.recall[0]
    assert (never.value, (1 - never.high, 1 - never.low)) == (0, boundary_limits(12))
    best = classification_report(p, torch.tensor([0] * 16 + [1] * 40), groups=groups, resamples=200, level=0.9)
    assert (best.auroc.low, best.auroc.high) == boundary_limits(28, 0.9)


def test_report_goes_through_json():
    p, y = draw(40, 2)
    for threshold in (None, 0.4):
        report = classification_report(p, y, class_names=["normal", "ill"], threshold=threshold, resamples=20, seed=3)
        assert from_json(ClassificationReport, json.loads(json.dumps(to_json(report), allow_nan=False))) == report
    assert (report.samples, report.groups, report.resamples, report.seed) == (40, 40, 20, 3)
    assert sum(map(sum, report.confusion)) == 40


def test_metrics_by_name_are_those_of_the_report_and_of_the_functions():
    p, y = draw(60, 3)
    names = ["normal", "bacterial", "viral"]
    metrics = classification_report(p, y, class_names=names, resamples=10).metrics
    functions = score_functions(y, names)
    assert list(metrics) == list(functions)
    assert list(metrics)[4:6] == ["recall/normal", "recall/bacterial"]
    weights = torch.ones(1, 60, dtype=torch.float64)
    assert {name: float(of(p, weights)) for name, of in functions.items()} == pytest.approx(
        {name: estimate.value for name, estimate in metrics.items()}
    )
    by_name = decision_scores(p.argmax(1), y, 3, weights).by_name(names)
    assert set(metrics) - set(by_name) == {"auroc"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ["a", "b"]}, "must name 3 classes"),
        ({"threshold": 0.5}, "a threshold needs two classes"),
        ({"groups": [1, 2]}, "one for each sample"),
    ],
)
def test_messages(options, message):
    p, y = draw(20, 3)
    with pytest.raises(ValueError, match=message):
        classification_report(p, y, **options)


def test_every_class_must_occur():
    p, _ = draw(20, 3)
    with pytest.raises(ValueError, match="got no samples of viral"):
        classification_report(p, torch.arange(20) % 2, class_names=["normal", "bacterial", "viral"])
