import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from condgan.classifier import Classifier, train_classifier
from condgan.classifier.augmentation import ClassicalAugment
from condgan.classifier.network import build_network
from condgan.data.dataset import ArrayDataset
from condgan.weights import weights_of


def bright_or_dark(n, seed=0, *, classes=2, size=8, **options):
    """Images whose mean grey level tells the class, with much noise."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    level = 60 + 130 * y / (classes - 1)
    noise = 25 * torch.randn(n, 1, size, size, generator=rng)
    images = (level[:, None, None, None] + noise).clamp(0, 255).to(torch.uint8)
    return ArrayDataset(images, y, groups=torch.arange(n) // 2 + 1000 * seed, **options)


TINY = {"epochs": 2, "batch_size": 16, "precision": "fp32", "device": "cpu"}


class SmallNetwork(nn.Sequential):
    """Stands in for the ResNet-18, whose optimizer alone takes a tenth of a second a step."""

    stem = "3x3 convolution"

    def __init__(self, in_channels, num_classes):
        super().__init__(
            nn.Conv2d(in_channels, 8, 3, stride=2),
            nn.BatchNorm2d(8, momentum=0.5),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, num_classes),
        )


@pytest.fixture(scope="module", autouse=True)
def _small_network():
    def build(image_shape, num_classes, *, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return SmallNetwork(image_shape[0], num_classes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("condgan.classifier.training.build_network", build)
        yield


@pytest.fixture(scope="module")
def classifier():
    return train_classifier(bright_or_dark(96), bright_or_dark(40, 1), **TINY, learning_rate=0.03)


def test_learns_and_evaluates(classifier):
    report = classifier.evaluate(bright_or_dark(60, 2), resamples=50)
    assert report.auroc.value > 0.95
    assert report.groups == 30
    assert report.at_threshold.threshold == classifier.threshold
    assert report.at_threshold.balanced_accuracy.value > 0.9


def test_records_how_it_came_about(classifier):
    settings = json.loads(json.dumps(classifier.settings, allow_nan=False))
    assert settings["stem"].startswith("3x3")
    assert settings["steps"] == 12
    assert settings["train"]["fingerprint"] == bright_or_dark(96).fingerprint
    assert [row["step"] for row in classifier.history] == [6, 12]
    assert classifier.seconds > 0


def test_keeps_the_epoch_with_the_best_validation_auroc(classifier):
    areas = [row["validation/auroc"] for row in classifier.history]
    best = classifier.settings["best_epoch"]
    assert areas[best - 1] == max(areas)
    validation = bright_or_dark(40, 1)
    again = classifier.evaluate(validation, resamples=10)
    assert again.auroc.value == areas[best - 1]
    assert again.balanced_accuracy.value == classifier.history[best - 1]["validation/balanced_accuracy"]
    assert again.at_threshold.balanced_accuracy.value >= again.balanced_accuracy.value


def test_same_seed_is_bit_equal_and_leaves_the_global_state_alone(classifier):
    state = torch.get_rng_state()
    again = train_classifier(bright_or_dark(96), bright_or_dark(40, 1), **TINY, learning_rate=0.03)
    assert torch.equal(torch.get_rng_state(), state)
    for first, second in zip(classifier.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(first, second)
    other = train_classifier(bright_or_dark(96), bright_or_dark(40, 1), **TINY, seed=1)
    assert not torch.equal(next(other.model.parameters()), next(again.model.parameters()))


def test_probabilities_do_not_depend_on_the_batch(classifier):
    images = bright_or_dark(20, 3).images
    together = classifier.predict_proba(images)
    assert together.dtype == torch.float64
    assert torch.allclose(together.sum(1), torch.ones(20, dtype=torch.float64))
    alone = torch.cat([classifier.predict_proba(image) for image in images.split(1)])
    assert torch.allclose(alone, together, atol=1e-5)
    assert not classifier.model.training


def test_steps_do_not_depend_on_the_size_of_the_set():
    classifier = train_classifier(bright_or_dark(12), bright_or_dark(12, 1), **(TINY | {"epochs": 3}), steps=5)
    assert [row["step"] for row in classifier.history] == [1, 3, 5]
    assert classifier.settings["batch_size"] == 12


def test_an_epoch_has_whole_batches_only():
    classifier = train_classifier(bright_or_dark(33), bright_or_dark(12, 1), **(TINY | {"epochs": 1}))
    assert classifier.settings["steps"] == 2


def test_three_classes_have_no_threshold_and_bf16_works():
    train, validation = bright_or_dark(60, classes=3), bright_or_dark(30, 1, classes=3)
    classifier = train_classifier(train, validation, **(TINY | {"epochs": 1, "precision": "bf16"}))
    assert classifier.threshold is None
    report = classifier.evaluate(validation, resamples=10)
    assert report.at_threshold is None
    assert len(report.recall) == 3


def test_balanced_weights_change_nothing_for_balanced_classes():
    train, validation = bright_or_dark(32), bright_or_dark(12, 1)
    runs = [
        train_classifier(train, validation, **(TINY | {"epochs": 1}), class_weights=weights)
        for weights in ("balanced", None)
    ]
    for first, second in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(first, second)


def test_fine_tuning_starts_from_the_given_weights_and_leaves_them_alone(classifier):
    before = {name: value.clone() for name, value in classifier.model.state_dict().items()}
    slow = TINY | {"epochs": 1, "learning_rate": 1e-9, "seed": 5}
    tuned = train_classifier(bright_or_dark(40, 4), bright_or_dark(40, 1), **slow, weight_decay=0.0, initial=classifier)
    for first, second in zip(tuned.model.parameters(), classifier.model.parameters(), strict=True):
        assert torch.allclose(first, second, atol=1e-6)
    after = classifier.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert tuned.settings["initial"] == classifier.settings
    assert tuned.settings["network"] == "ResNet-18, fine-tuned"
    json.dumps(tuned.settings, allow_nan=False)


def test_fine_tuning_needs_the_same_classes_and_shape(classifier):
    for data in (bright_or_dark(12, size=9), bright_or_dark(12, class_names=["a", "b"])):
        with pytest.raises(ValueError, match="initial must have the classes and image shape"):
            train_classifier(data, data, **TINY, initial=classifier)


def test_augmentation_changes_every_batch_by_the_seed():
    class Recorder:
        def __init__(self):
            self.batches, self.draws = [], []

        def __call__(self, images, *, rng):
            self.batches.append(images.clone())
            self.draws.append(torch.rand((), generator=rng))
            return images

        def __repr__(self):
            return "Recorder()"

    train, validation = bright_or_dark(48), bright_or_dark(40, 1)
    recorders = [Recorder() for _ in range(3)]
    trained = [
        train_classifier(train, validation, **TINY, augment=recorder, seed=seed)
        for recorder, seed in zip(recorders, (0, 0, 1), strict=True)
    ]
    plain = train_classifier(train, validation, **TINY)
    assert [len(recorder.draws) for recorder in recorders] == [6, 6, 6]
    assert len(set(recorders[0].draws)) == 6
    assert recorders[0].draws == recorders[1].draws != recorders[2].draws
    assert torch.equal(torch.cat(recorders[0].batches[:3]).float().sum(), train.images.float().sum())
    assert plain.history == trained[0].history, "an augmentation that changes nothing changes nothing"
    assert trained[0].settings["augment"] == "Recorder()"
    assert plain.settings["augment"] is None
    dark = train_classifier(train, validation, **TINY, augment=lambda images, *, rng: images // 2)
    assert dark.history != plain.history


def test_an_augmentation_must_return_images_as_they_are_stored():
    for augment in (lambda images, *, rng: images.float(), lambda images, *, rng: images[:1]):
        with pytest.raises(ValueError, match="augment must return uint8 images of the shape"):
            train_classifier(bright_or_dark(32), bright_or_dark(12, 1), **TINY, augment=augment)


@pytest.mark.cuda
def test_on_the_gpu_updates_stay_recorded_with_an_augmentation():
    """Warnings are errors here: training that fell back to updates as written would raise one."""
    options = TINY | {"epochs": 1, "precision": "bf16", "device": "cuda"}
    train_classifier(bright_or_dark(160), bright_or_dark(40, 1), **options, augment=ClassicalAugment())


def test_resnet_trains_from_weights_that_follow_the_seed():
    state = torch.get_rng_state()
    first, second, other = (build_network((1, 16, 16), 2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.backbone.conv1.weight, second.backbone.conv1.weight)
    assert not torch.equal(first.backbone.conv1.weight, other.backbone.conv1.weight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("condgan.classifier.training.build_network", build_network)
        # At 8 pixels the last maps are one pixel, and oneDNN's gradient of a 3x3 convolution there, in bf16 and with
        # stride 2, depends on what lay in memory before.
        data = bright_or_dark(8, size=16)
        runs = [train_classifier(data, data, **(TINY | {"epochs": 1, "precision": "bf16"})) for _ in range(2)]
    assert runs[0].history == runs[1].history
    for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"steps": 1}, "steps at least epochs"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"precision": "fp16"}, 'precision must be "fp32" or "bf16"'),
        ({"class_weights": "equal"}, 'class_weights must be "balanced" or None'),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        train_classifier(bright_or_dark(12), bright_or_dark(12, 1), **(TINY | options))


def test_data_are_checked(classifier):
    train, validation = bright_or_dark(12), bright_or_dark(12, 1)
    with pytest.raises(ValueError, match="validation set must have the image shape"):
        train_classifier(train, bright_or_dark(12, size=9), **TINY)
    with pytest.raises(ValueError, match="validation set must have the classes"):
        train_classifier(train, bright_or_dark(12, classes=3), **TINY)
    with pytest.raises(ValueError, match="training set must hold uint8"):
        train_classifier(ArrayDataset(torch.rand(8, 1, 8, 8), torch.arange(8) % 2), validation, **TINY)
    with pytest.raises(ValueError, match="test set must have the classes"):
        classifier.evaluate(bright_or_dark(12, class_names=["a", "b"]))
    with pytest.raises(ValueError, match="to_uint8"):
        classifier.predict_proba(torch.zeros(2, 1, 8, 8))


def test_divergence_is_reported():
    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        train_classifier(bright_or_dark(32), bright_or_dark(12, 1), **TINY, learning_rate=1e30)


def test_a_saved_classifier_comes_back(classifier, tmp_path):
    path = tmp_path / "new" / "classifier.safetensors"
    classifier.save(path)
    images = bright_or_dark(12, 2).images
    loaded = Classifier.load(path)
    assert torch.equal(loaded.predict_proba(images), classifier.predict_proba(images))
    assert (loaded.settings, loaded.history, loaded.threshold) == (
        json.loads(json.dumps(classifier.settings)),
        classifier.history,
        classifier.threshold,
    )


@pytest.mark.parametrize("place", [3, 40, 200, -1, -30], ids=str)
def test_a_damaged_classifier_is_refused(classifier, tmp_path, place):
    path = tmp_path / "classifier.safetensors"
    classifier.save(path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"classifier\.safetensors"):
        Classifier.load(path)


def test_weights_alone_are_no_classifier(classifier, tmp_path):
    save_file(weights_of(classifier.model), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="must hold a classifier"):
        Classifier.load(tmp_path / "weights.safetensors")
