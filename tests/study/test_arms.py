from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from condgan.classifier.training import train_classifier
from condgan.data.dataset import ArrayDataset
from condgan.sampling import Tempered
from condgan.study.arms import ARMS, CONTROLS, Arm, Phase, run_arm, synthetic_labels

COUNTS = (8, 24)


def pictures(labels, *, seed=0, first_patient=0, **options):
    """Images whose mean gray level gives the class; two images per patient."""
    y = torch.as_tensor(labels)
    noise = 20 * torch.randn(len(y), 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    images = (70 + 110 * y[:, None, None, None] + noise).clamp(0, 255).to(torch.uint8)
    return ArrayDataset(images, y, groups=first_patient + torch.arange(len(y)) // 2, **options)


def fake(count, *, seed=9, **options):
    data = pictures(synthetic_labels(COUNTS, count), seed=seed)
    return ArrayDataset(data.images, data.labels, source="images of a generator", **options)


REAL = pictures([0] * 8 + [1] * 24, source="hospital", attribution="somebody")
VALIDATION = pictures([0, 1] * 20, seed=1, first_patient=1000)
TEST = pictures([0, 1] * 40, seed=2, first_patient=2000)
SYNTHETIC = fake(160)
FAST = {"steps": 24, "epochs": 2, "batch_size": 8, "learning_rate": 0.03, "precision": "fp32", "device": "cpu"}


pytestmark = pytest.mark.usefixtures("tiny_classifier")

TRAINING_COUNTS = {
    "real": [(8, 24)],
    "real_augmented": [(8, 24)],
    "real_weighted": [(8, 24)],
    "real_augmented_weighted": [(8, 24)],
    "real_oversampled": [(24, 40)],
    "synthetic_1x": [(16, 16)],
    "synthetic_2x": [(32, 32)],
    "synthetic_5x": [(80, 80)],
    "real_plus_synthetic_2to1": [(16, 32)],
    "real_plus_synthetic_1to1": [(24, 40)],
    "real_plus_synthetic_1to2": [(40, 56)],
    "pretrained": [(80, 80), (8, 24)],
}


@pytest.mark.parametrize("name", ARMS)
def test_training_sets_and_steps_of_every_arm(name):
    arm = ARMS[name]
    sets = [phase.training_set(REAL, SYNTHETIC) for phase in arm.phases]
    assert [data.class_counts for data in sets] == TRAINING_COUNTS[name]
    assert arm.name == name

    classifier = run_arm(arm, REAL, VALIDATION, SYNTHETIC, test=TEST, **FAST)
    described = [classifier.settings]
    while described[0]["initial"] is not None:
        described.insert(0, described[0]["initial"])
    assert sum(settings["steps"] for settings in described) == FAST["steps"]
    assert sum(settings["epochs"] for settings in described) == FAST["epochs"]
    assert [settings["train"]["fingerprint"] for settings in described] == [data.fingerprint for data in sets]
    assert classifier.settings["arm"] == name
    assert [settings["class_weights"] for settings in described] == [phase.class_weights for phase in arm.phases]
    assert ["Classical" in str(settings["augment"]) for settings in described] == [
        phase.augment is not None for phase in arm.phases
    ]


def test_controls_are_the_arms_that_need_no_synthetic_images():
    assert list(CONTROLS) == [name for name in ARMS if name.startswith("real") and "synthetic" not in name]
    assert {name: arm.synthetic_multiple for name, arm in ARMS.items() if arm.needs_synthetic} == {
        "synthetic_1x": 1,
        "synthetic_2x": 2,
        "synthetic_5x": 5,
        "real_plus_synthetic_2to1": 0.5,
        "real_plus_synthetic_1to1": 1,
        "real_plus_synthetic_1to2": 2,
        "pretrained": 5,
    }
    assert run_arm(CONTROLS["real"], REAL, VALIDATION, **FAST).settings["train"]["source"] == "hospital"


def rows(data, label=None):
    chosen = data.images if label is None else data.images[data.labels == label]
    return Counter(bytes(image.flatten().tolist()) for image in chosen)


def test_oversampling_duplicates_real_images_evenly():
    oversampled = Phase(real=True, duplicates=1).training_set(REAL)
    assert set(rows(oversampled)) == set(rows(REAL))
    copies = rows(oversampled)
    assert {copies[row] for row in rows(REAL, label=0)} == {3}
    assert Counter(copies[row] for row in rows(REAL, label=1)) == {1: 8, 2: 16}
    assert oversampled.attribution == "somebody"
    other = Phase(real=True, duplicates=1).training_set(REAL, seed=1)
    assert other.class_counts == oversampled.class_counts
    assert rows(other) != rows(oversampled)


def test_smaller_multiples_are_within_larger_ones():
    sets = [ARMS[name].phases[0].training_set(REAL, SYNTHETIC) for name in ("synthetic_1x", "synthetic_2x")]
    assert rows(sets[0]) <= rows(sets[1]) <= rows(SYNTHETIC)
    sorted_pool = SYNTHETIC.subset(SYNTHETIC.labels.argsort(stable=True))
    again = ARMS["synthetic_1x"].phases[0].training_set(REAL, sorted_pool)
    assert rows(again) == rows(sets[0]), "the order of the classes does not matter"


def test_real_images_alone_keep_their_identity():
    assert Phase(real=True).training_set(REAL, SYNTHETIC) is REAL


def test_labels_may_follow_the_real_ones_or_any_law():
    assert Phase(synthetic=2, labels="empirical").training_set(REAL, fake(200)).class_counts == (16, 48)
    rare = Phase(real=True, synthetic=0.5, labels=lambda counts: [1, 0])
    assert rare.training_set(REAL, SYNTHETIC).class_counts == (24, 24)


@given(
    counts=st.lists(st.integers(2, 60), min_size=2, max_size=6),
    count=st.integers(0, 120),
    exponent=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(deadline=None)
def test_labels_are_near_their_distribution_in_every_prefix(counts, count, exponent):
    share = Tempered(exponent)
    y = synthetic_labels(counts, count, distribution=share)
    assert len(y) == count
    weights = torch.tensor(share(counts), dtype=torch.float64)
    seen = nn.functional.one_hot(y, len(counts)).cumsum(0)
    expected = torch.arange(1, count + 1)[:, None] * weights / weights.sum()
    assert bool(((seen - expected).abs() < len(counts)).all())
    assert torch.equal(synthetic_labels(counts, count + 7, distribution=share)[:count], y)


def test_as_many_empirical_labels_as_images_have_their_counts():
    assert synthetic_labels([5, 2, 13], 20, distribution="empirical").bincount().tolist() == [5, 2, 13]


COLORS = torch.tensor([[2, 0, 0], [0, 2, 0], [0, 0, 2], [1, 1, 0], [1, 0, 1], [0, 1, 1]])


def colored(count, seed, **options):
    y = torch.arange(count) % len(COLORS)
    noise = 15 * torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return ArrayDataset((60 + 60 * COLORS[y, :, None, None] + noise).clamp(0, 255).to(torch.uint8), y, **options)


def test_shuffled_labels_drop_synthetic_only_accuracy_to_chance():
    """Six colors: of two classes that separate so well, a chance direction would get all right or all wrong."""
    real, validation, test, synthetic = (colored(n, seed) for seed, n in enumerate((60, 60, 120, 300)))

    def balanced_accuracy(images, seed):
        classifier = run_arm(ARMS["synthetic_5x"], real, validation, images, **(FAST | {"steps": 120, "seed": seed}))
        return classifier.evaluate(test, resamples=20).balanced_accuracy.value

    assert balanced_accuracy(synthetic, 0) > 0.95
    found = []
    for seed in range(6):
        order = torch.randperm(len(synthetic), generator=torch.Generator().manual_seed(seed))
        found.append(balanced_accuracy(ArrayDataset(synthetic.images, synthetic.labels[order]), seed))
    assert abs(sum(found) / len(found) - 1 / 6) < 0.15


def test_fine_tuning_starts_from_pre_training(monkeypatch):
    pretrain = Phase(synthetic=5)
    arm = Arm("still", (pretrain, Phase(real=True)))
    first = run_arm(Arm("first", (pretrain,)), REAL, VALIDATION, SYNTHETIC, **(FAST | {"steps": 12, "epochs": 1}))
    rates = iter([FAST["learning_rate"], 1e-9])

    def train(*data, learning_rate, **options):
        return train_classifier(*data, learning_rate=next(rates), **options)

    monkeypatch.setattr("condgan.study.arms.train_classifier", train)
    both = run_arm(arm, REAL, VALIDATION, SYNTHETIC, **FAST)
    for tuned, start in zip(both.model.parameters(), first.model.parameters(), strict=True):
        assert torch.allclose(tuned, start, atol=1e-6)
    assert both.settings["network"].endswith("fine-tuned")
    assert both.settings["initial"]["best_epoch"] == 1
    assert both.settings["initial"]["steps"] == both.settings["steps"] == 12


def test_the_same_seed_is_bit_equal():
    runs = [run_arm(ARMS["real_augmented"], REAL, VALIDATION, **FAST) for _ in range(2)]
    other = run_arm(ARMS["real_augmented"], REAL, VALIDATION, **FAST, seed=1)
    for first, second in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(first, second)
    assert runs[0].history == runs[1].history != other.history


def test_a_test_patient_in_the_training_set_raises():
    leaked = pictures([0, 1] * 10, seed=2, first_patient=int(REAL.group_names[-1]))
    with pytest.raises(ValueError, match=r"training and test images .* got 1 in both"):
        run_arm(ARMS["synthetic_1x"], REAL, VALIDATION, SYNTHETIC, test=leaked, **FAST)
    with pytest.raises(ValueError, match="validation and test images"):
        run_arm(ARMS["real"], REAL, VALIDATION, test=VALIDATION, **FAST)
    with pytest.raises(ValueError, match="training and validation images"):
        run_arm(ARMS["real"], REAL, REAL, test=TEST, **FAST)


@pytest.mark.parametrize(
    ("synthetic", "message"),
    [
        (None, r"needs synthetic images, \[16, 16\] of the classes, got None"),
        (fake(20), r"needs \[16, 16\] synthetic images of the classes, got \[10, 10\]"),
        (fake(40, class_names=["well", "ill"]), "the synthetic set must have the classes"),
    ],
)
def test_what_cannot_be_put_together_is_refused(synthetic, message):
    with pytest.raises(ValueError, match=message):
        run_arm(ARMS["synthetic_1x"], REAL, VALIDATION, synthetic, **FAST)


def test_arms_are_checked():
    with pytest.raises(ValueError, match="a phase needs"):
        Phase()
    with pytest.raises(ValueError, match="a phase needs"):
        Phase(real=True, synthetic=-1)
    with pytest.raises(ValueError, match="at least one phase, got none for 'empty'"):
        Arm("empty", ())
    with pytest.raises(ValueError, match="count must be at least 0"):
        synthetic_labels(COUNTS, -1)
    with pytest.raises(ValueError, match="steps at least epochs"):
        run_arm(ARMS["pretrained"], REAL, VALIDATION, SYNTHETIC, **(FAST | {"steps": 1}))
