import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import roc_auc_score

from condgan.metrics import auroc, best_threshold, confusion_matrix


def binary(p1):
    p1 = torch.as_tensor(p1, dtype=torch.float64)
    return torch.stack([1 - p1, p1], 1)


def draw(n, k, seed=0):
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
    p, y = draw(80, 2, seed)
    assert float(auroc(p, y)) == pytest.approx(roc_auc_score(y, p[:, 1]))
    p, y = draw(80, 4, seed)
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
    p, y = draw(60, 3)
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
def test_messages(p, y, message):
    with pytest.raises(ValueError, match=message):
        auroc(torch.tensor(p), torch.tensor(y))


def test_messages_of_decisions_and_thresholds():
    with pytest.raises(ValueError, match="decisions must have the shape"):
        confusion_matrix([0, 1], [0, 1, 1], num_classes=2)
    with pytest.raises(ValueError, match="both classes must occur"):
        best_threshold(torch.tensor([0.2, 0.3]), [1, 1])
