import json

import pytest
import torch
from torch import nn

from condgan.data import ArrayDataset
from condgan.files import from_json, to_json
from condgan.metrics import CrossFit, Fold, LabelReport, LabelVerdict, label_report, module_extractor
from condgan.metrics.labels import _decide
from condgan.stats import Estimate


class Levels(nn.Module):
    """Reads the class from the grey level, class k from (k + 1) / (K + 1) on."""

    def __init__(self, num_classes):
        super().__init__()
        self.register_buffer("centers", torch.linspace(-1, 1, num_classes + 2)[1:-1])

    def forward(self, x):
        level = x.mean((1, 2, 3))[:, None]
        return level, -1000 * (level - self.centers).square()


class Guesses(Levels):
    def forward(self, x):
        return x.flatten(1), torch.zeros(len(x), len(self.centers))


def crossfit(module=Levels, num_classes=10):
    networks = [module_extractor(module(num_classes), name="levels", image_shape=(1, 8, 8), device="cpu")] * 2
    return CrossFit(tuple(Fold(network, torch.arange(0)) for network in networks), "0123")


def greys(shown, labels=None, num_classes=10):
    """Images of the classes `shown`, with other labels if given."""
    level = 255 * (shown.float() + 1) / (num_classes + 1)
    images = level.round().to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).clone()
    return ArrayDataset(images, shown if labels is None else labels, class_names=list("abcdefghij"[:num_classes]))


def verdicts(report):
    return [entry.verdict for entry in report.per_class.values()]


EVENLY = torch.arange(10).repeat_interleave(40)


def test_images_of_their_classes_are_recognized():
    report = label_report(greys(EVENLY), greys(EVENLY[::2]), crossfit(), resamples=50)
    assert verdicts(report) == [LabelVerdict.RECOGNIZED] * 10
    assert (report.generated.samples, report.real.samples) == (400, 200)
    assert report.extractor.name == "levels, cross-fitted in 2 folds"
    assert from_json(LabelReport, json.loads(json.dumps(to_json(report), allow_nan=False))) == report


def test_images_as_real_as_others_under_labels_by_chance_are_not():
    shown = EVENLY[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    report = label_report(greys(shown, EVENLY), greys(EVENLY), crossfit(), resamples=200)
    assert verdicts(report) == [LabelVerdict.NOT_RECOGNIZED] * 10
    assert report.per_class["a"].explanation.startswith("Not recognized as its class: classifiers of real images")
    assert "10% by guessing" in report.per_class["a"].explanation


def test_one_confused_class_is_named_with_what_it_looks_like():
    shown = torch.where(EVENLY == 3, 4, EVENLY)
    report = label_report(greys(shown, EVENLY), greys(EVENLY), crossfit(), resamples=50)
    assert [name for name, found in report.per_class.items() if found.verdict is LabelVerdict.NOT_RECOGNIZED] == ["d"]
    assert report.per_class["d"].explanation.endswith("Most often they see e (40 of 40).")


def test_classifiers_that_guess_can_tell_nothing():
    report = label_report(greys(EVENLY), greys(EVENLY), crossfit(Guesses), resamples=50)
    assert verdicts(report)[1:] == [LabelVerdict.CANNOT_TELL] * 9


@pytest.mark.parametrize(
    ("generated", "real", "verdict"),
    [
        ((0.9, 0.8, 0.95), (0.9, 0.8, 0.95), LabelVerdict.RECOGNIZED),
        ((0.6, 0.55, 0.69), (0.9, 0.8, 0.95), LabelVerdict.NOT_RECOGNIZED),
        ((0.6, 0.55, 0.71), (0.9, 0.8, 0.95), LabelVerdict.RECOGNIZED),
        ((0.6, 0.4, 0.8), (0.9, 0.8, 0.95), LabelVerdict.CANNOT_TELL),
        ((0.1, 0.0, 0.2), (0.6, 0.5, 0.7), LabelVerdict.CANNOT_TELL),
    ],
)
def test_the_rule(generated, real, verdict):
    assert _decide(Estimate(*generated), Estimate(*real), 0.5) is verdict


def test_messages():
    with pytest.raises(ValueError, match="must have the 10 classes of the images, got 5"):
        label_report(greys(EVENLY), greys(EVENLY), crossfit(num_classes=5))
    with pytest.raises(ValueError, match="generated must have the classes of test"):
        label_report(greys(EVENLY % 5, num_classes=5), greys(EVENLY), crossfit())
