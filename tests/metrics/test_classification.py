import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_score, recall_score

from condgan.metrics import auroc, classification_report, group_bootstrap


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
    assert json.dumps(_rounded(straight.as_dict())) == json.dumps(_rounded(shuffled.as_dict()))


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


def test_a_metric_without_spread_has_the_interval_of_its_groups():
    y, groups = torch.tensor([0] * 24 + [1] * 32), torch.arange(56) // 2
    p = torch.tensor([[0.9, 0.1]] * 16 + [[0.2, 0.8]] * 40)
    report = classification_report(p, y, groups=groups, threshold=0.05, resamples=200)
    ill, well = report.recall[1], report.precision[0]
    assert (ill.low, ill.value, ill.high) == (pytest.approx(0.025 ** (1 / 16)), 1, 1)  # 16 patients are ill
    assert (well.low, well.value, well.high) == (pytest.approx(0.025 ** (1 / 8)), 1, 1)  # 8 were decided to be well
    assert report.recall[0].low < 16 / 24 < report.recall[0].high
    never = report.at_threshold.recall[0]
    assert (never.low, never.value, never.high) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 12)))
    best = classification_report(p, torch.tensor([0] * 16 + [1] * 40), groups=groups, resamples=200)
    assert best.balanced_accuracy.low == best.auroc.low == pytest.approx(0.025 ** (1 / 28))


def test_report_is_json():
    p, y = draw(40, 2)
    report = classification_report(p, y, class_names=["normal", "ill"], threshold=0.4, resamples=20, seed=3)
    tree = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert tree["recall"]["ill"]["value"] == report.recall[1].value
    assert tree["at_threshold"]["threshold"] == 0.4
    assert (tree["samples"], tree["groups"], tree["resamples"], tree["seed"]) == (40, 40, 20, 3)
    assert sum(map(sum, tree["confusion"])) == 40


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
    with pytest.raises(ValueError, match="got none of viral"):
        classification_report(p, torch.arange(20) % 2, class_names=["normal", "bacterial", "viral"])
