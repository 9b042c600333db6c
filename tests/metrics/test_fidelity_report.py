import json

import pytest
import torch
from torch import nn

from condgan.data import ArrayDataset
from condgan.files import from_json, to_json
from condgan.metrics.extractors import CrossFit, Fold, module_extractor
from condgan.metrics.fidelity import density_coverage, fid, inception_score, kid, precision_recall
from condgan.metrics.fidelity_report import FIDELITY_METRICS, FidelityReport, fidelity_report

NAMES = ("kid", "fid", "precision", "recall", "density", "coverage", "inception_score")
QUICK = {"metrics": ("kid",), "kid_subsets": 2}


class Corners(nn.Module):
    """Means of the four corners of an image, and of one of them the sign as logits."""

    def forward(self, x):
        h = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return 8 * h, torch.stack([h[:, 0], -h[:, 0]], 1)


class Pixels(nn.Module):
    """No logits."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def corners(module=None, name="corners"):
    return module_extractor(module or Corners(), name=name, image_shape=(1, 4, 4), device="cpu")


def draw(counts, seed, *, shift=0.0, per_patient=1, class_names=("normal", "ill")):
    """Noise, brighter for the second class; images of one patient share a part of it."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    patients = torch.arange(len(y)) // per_patient
    level = torch.randn(len(y), 1, 1, 1, generator=rng)[patients]
    noise = torch.randn(len(y), 1, 4, 4, generator=rng)
    images = (110 + shift + 30 * y[:, None, None, None] + 15 * level + 30 * noise).clamp(0, 255).to(torch.uint8)
    groups = patients if per_patient > 1 else None
    return ArrayDataset(images, y, class_names=class_names, groups=groups, source="noise")


@pytest.fixture(scope="module")
def sets():
    return draw((150, 90), 0, shift=25), draw((80, 120), 1, per_patient=2), draw((60, 40), 2, per_patient=2)


@pytest.fixture(scope="module")
def report(sets):
    return fidelity_report(*sets, corners(), kid_subset_size=50, kid_subsets=5)


def test_all_scores_overall_and_per_class(report):
    assert tuple(report.overall) == NAMES
    assert list(report.per_class) == ["normal", "ill"]
    assert all(tuple(comparisons) == NAMES for comparisons in report.per_class.values())
    assert report.extractor == corners().info


def test_counts_are_equal_on_both_sides_and_said(report):
    for label, count, tests in (("normal", 80, 60), ("ill", 90, 40)):
        for name, comparison in report.per_class[label].items():
            for score in (comparison.generated, comparison.floor):
                assert score.samples == count
                assert score.reference_samples == (None if name == "inception_score" else tests)
    # in the proportion of the test set, 60 to 40: 80 and 53
    assert report.overall["kid"].generated.samples == report.overall["kid"].floor.samples == 133
    assert report.overall["kid"].generated.reference_samples == 100
    assert report.overall["kid"].generated.settings["subset_size"] == 50
    assert report.per_class["ill"]["kid"].generated.settings["subset_size"] == 40


def test_the_difference_is_that_of_the_scores(report):
    for comparisons in (report.overall, *report.per_class.values()):
        for comparison in comparisons.values():
            estimate = comparison.difference
            assert estimate.value == pytest.approx(comparison.generated.value - comparison.floor.value)
            assert estimate.low < estimate.value < estimate.high


def test_a_shift_is_seen(report):
    assert report.overall["kid"].difference.low > 0
    assert report.overall["fid"].difference.low > 0


def test_scores_are_those_of_the_features(sets):
    generated, train, test = (draw(counts, seed) for counts, seed in (((40, 30), 0), ((40, 30), 1), ((30, 30), 2)))
    found = fidelity_report(generated, train, test, corners(), kid_subset_size=20, seed=4).per_class["ill"]
    images = [data.images[data.labels == 1] for data in (generated, train, test)]
    (x, logits), (real, _), (y, _) = (corners().extract(part) for part in images)
    for side, features in (("generated", x), ("floor", real)):
        expected = [
            fid(features, y),
            *precision_recall(features, y),
            *density_coverage(features, y),
        ]
        for score in expected:
            assert getattr(found[score.metric], side).value == pytest.approx(score.value, rel=1e-5)
    # these two also depend on the order of the images, which the report shuffles
    assert found["kid"].generated.value == pytest.approx(kid(x, y, subset_size=20).value, rel=0.2)
    assert found["inception_score"].generated.value == pytest.approx(inception_score(logits).value, rel=0.05)


def test_real_images_in_the_place_of_the_generated_ones_are_the_floor(sets):
    _, train, test = sets
    report = fidelity_report(train, train, test, corners(), metrics=["kid", "fid"], kid_subset_size=30)
    for comparison in report.overall.values():
        assert comparison.difference.low < 0 < comparison.difference.high
    halves = fidelity_report(*(draw((60, 60), seed) for seed in (5, 6, 7)), corners(), **QUICK)
    assert halves.overall["kid"].difference.low < 0 < halves.overall["kid"].difference.high


def test_patients_widen_the_intervals(sets):
    _, train, _ = sets
    test = draw((60, 40), 2, per_patient=2)
    alone = ArrayDataset(test.images, test.labels, class_names=test.class_names)
    widths = []
    for reference in (test, alone):
        estimate = (
            fidelity_report(draw((80, 90), 0, shift=25), train, reference, corners(), **QUICK).overall["kid"].difference
        )
        widths.append(estimate.high - estimate.low)
    assert widths[0] > 1.05 * widths[1]


def test_same_seed_same_report(sets, report):
    again = fidelity_report(*sets, corners(), kid_subset_size=50, kid_subsets=5)
    assert again == report
    other = fidelity_report(*sets, corners(), kid_subset_size=50, kid_subsets=5, seed=1)
    assert other.overall["kid"] != report.overall["kid"]


def test_no_global_random_state_is_touched(sets):
    state = torch.get_rng_state()
    fidelity_report(*sets, corners(), **QUICK)
    assert torch.equal(torch.get_rng_state(), state)


def test_ready_for_json(report, sets):
    found = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert from_json(FidelityReport, found) == report
    assert found["overall"]["kid"]["floor"]["extractor"]["name"] == "corners"
    assert found["per_class"]["ill"]["fid"]["difference"]["level"] == 0.95
    assert found["settings"]["test"] == {"fingerprint": sets[2].fingerprint, "images": 100}
    assert found["settings"]["metrics"] == list(FIDELITY_METRICS)


def test_without_logits_no_inception_score(sets):
    report = fidelity_report(*sets, corners(Pixels()), metrics=["kid", "inception_score"], kid_subsets=2)
    assert tuple(report.overall) == ("kid",)
    with pytest.raises(ValueError, match="needs class logits, which corners does not return"):
        fidelity_report(*sets, corners(Pixels()), metrics=["inception_score"])


class Recorder(nn.Module):
    """Remembers the images it was shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen += [tuple(image.flatten().tolist()) for image in x]
        return Pixels()(x)


def crossfit(train, count=2, modules=None):
    parts = [torch.arange(number, len(train), count) for number in range(count)]
    modules = modules or [Corners() for _ in parts]
    folds = (Fold(corners(module), part) for module, part in zip(modules, parts, strict=True))
    return CrossFit(tuple(folds), train.fingerprint)


def test_each_fold_sees_its_own_images_only(sets):
    generated, train, test = sets
    extractors = crossfit(train, modules=[Recorder(), Recorder()])
    report = fidelity_report(generated, train, test, extractors, **QUICK)

    def keys(images):
        return {tuple(image.flatten().tolist()) for image in (images.float() / 255 - 0.5) / 0.5}

    seen = [set(fold.extractor.module.module.seen) for fold in extractors.folds]
    for own, fold in zip(seen, extractors.folds, strict=True):
        assert own & keys(train.images) <= keys(train.images[fold.held_out])
        assert keys(test.images) <= own
    assert seen[0] & seen[1] == keys(test.images)
    # 40 and 60 training images a fold, 75 and 45 generated ones
    assert report.per_class["normal"]["kid"].generated.samples == 80
    assert report.per_class["ill"]["kid"].generated.samples == 90
    assert report.settings.folds == 2
    assert report.extractor.name == "corners, cross-fitted in 2 folds"


def test_scores_are_means_over_the_folds(sets):
    generated, train, test = sets
    report = fidelity_report(generated, train, test, crossfit(train), kid_subset_size=30)
    single = fidelity_report(generated, train, test, corners(), kid_subset_size=30)
    for name in ("kid", "density", "inception_score"):
        comparison, whole = report.overall[name], single.overall[name]
        assert comparison.generated.value == pytest.approx(whole.generated.value, rel=0.3)
        # half of the images, twice: about as sure as all at once
        ratio = (comparison.difference.high - comparison.difference.low) / (
            whole.difference.high - whole.difference.low
        )
        assert 0.6 < ratio < 1.6
    assert len(report.overall["kid"].generated.settings["subset_std"]) == 2
    assert from_json(FidelityReport, json.loads(json.dumps(to_json(report)))) == report


def test_extractors_fitted_on_other_images_are_refused(sets):
    generated, train, test = sets
    with pytest.raises(ValueError, match="cross-fitted on train"):
        fidelity_report(generated, train, test, crossfit(test))


def test_sets_are_checked(sets):
    generated, train, test = sets
    with pytest.raises(ValueError, match="generated must have the classes of test"):
        fidelity_report(draw((30, 30), 0, class_names=("a", "b")), train, test, corners())
    large = ArrayDataset(
        torch.zeros(60, 1, 8, 8, dtype=torch.uint8), train.labels[50:110], class_names=train.class_names
    )
    with pytest.raises(ValueError, match="train must have the image shape of test"):
        fidelity_report(generated, large, test, corners())
    with pytest.raises(
        ValueError, match=r"at least 20 .* got 19 generated and training images and 60 test images of n"
    ):
        fidelity_report(draw((19, 30), 0), train, test, corners())
    with pytest.raises(ValueError, match="3 folds"):
        fidelity_report(draw((59, 90), 0), train, test, crossfit(train, 3))
    with pytest.raises(ValueError, match=r"metrics must be among .*, got 'isc'"):
        fidelity_report(*sets, corners(), metrics=["kid", "isc"])
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        fidelity_report(*sets, corners(), level=95)


def test_one_patient_is_no_ground_for_an_interval(sets):
    generated, train, _ = sets
    with pytest.raises(
        ValueError, match="60 images of class normal on the side 'test' must come from several groups, got 1"
    ):
        fidelity_report(generated, train, draw((60, 60), 0, per_patient=60), corners())
