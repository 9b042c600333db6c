import json

import numpy as np
import pytest
import torch
from torch import nn

from condgan import DCGANGenerator, metrics
from condgan.cli import _evaluation_words
from condgan.data import ArrayDataset, ChestPhantom
from condgan.files import from_json, to_json
from condgan.metrics import (
    Evaluation,
    LabelVerdict,
    MemorizationVerdict,
    crossfit_extractor,
    evaluate,
    label_report,
    module_extractor,
)
from condgan.metrics.evaluation import EXTRACTOR_NAMES, make_extractor


@pytest.fixture(scope="module")
def sets():
    """Training, held-out and test images: enough patients of each class for every part."""
    return [ChestPhantom((60, 60), classes=2, image_shape=(1, 16, 16), difficulty=0.0, seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def pool():
    """An extractor that has seen nothing."""
    module = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    return module_extractor(module, name="pool", image_shape=(1, 16, 16), device="cpu")


@pytest.fixture
def judge(sets, pool):
    train, held_out, test = sets

    def run(generator, **options):
        return evaluate(generator, train, **{"test": test, "held_out": held_out, "extractor": pool, **options})

    return run


def as_generated(data):
    """Return the same images as if somebody had generated them."""
    return ArrayDataset(data.images, data.labels, class_names=data.class_names)


def fresh():
    return ChestPhantom((60, 60), classes=2, image_shape=(1, 16, 16), difficulty=0.0, seed=9)


def verdicts(found):
    return {entry.verdict for entry in found.memorization.per_class.values()}


def test_fresh_images_of_the_same_kind_pass(judge, pool):
    found = judge(as_generated(fresh()))
    assert found.labels is None
    assert found.refusals.keys() == {"labels"}
    assert "got the extractor 'pool'" in found.refusals["labels"]
    assert found.fidelity.extractor == found.diversity.extractor == found.memorization.extractor == pool.info
    estimate = found.fidelity.overall["kid"].difference
    assert estimate.low < 0 < estimate.high
    assert found.diversity.collapsed == ()
    assert MemorizationVerdict.COPIES not in verdicts(found)


def test_it_comes_back_from_json(judge):
    for found in (judge(as_generated(fresh())), judge(as_generated(fresh()), held_out=None)):
        assert from_json(Evaluation, json.loads(json.dumps(to_json(found), allow_nan=False))) == found


def test_a_copier_is_found_and_shown(judge, sets, tmp_path):
    found = judge(as_generated(sets[0]), neighbors=tmp_path / "neighbors.png")
    assert verdicts(found) == {MemorizationVerdict.COPIES}
    assert (tmp_path / "neighbors.png").is_file()
    judge(as_generated(sets[0]))
    assert [path.name for path in tmp_path.iterdir()] == ["neighbors.png"]


def test_one_image_per_class_is_collapsed(judge):
    repeated = fresh().subset(torch.tensor([0] * 60 + [60] * 60))
    assert judge(as_generated(repeated)).diversity.collapsed == ("normal", "pneumonia")


def test_a_generator_is_judged_by_as_many_images_as_there_are_training_images(judge, sets):
    torch.manual_seed(0)
    generator = DCGANGenerator(num_classes=2, image_shape=(1, 16, 16), base_channels=8)
    found = judge(generator, seed=3)
    assert found.diversity.per_class["normal"].generated.images == 60
    assert found.fidelity.overall["kid"].difference.low > 0
    assert judge(generator, seed=3) == found
    assert judge(generator, seed=4) != found
    wrong = DCGANGenerator(num_classes=3, image_shape=(1, 16, 16), base_channels=8)
    with pytest.raises(ValueError, match=r"must make images of 2 classes .* got 3"):
        judge(wrong)


def test_without_held_out_images_memorization_is_refused(judge):
    found = judge(as_generated(fresh()), held_out=None)
    assert found.memorization is None
    assert found.fidelity is not None
    assert "needs held_out=" in found.refusals["memorization"]


def test_what_cannot_be_judged_says_why(judge):
    few = fresh().subset(torch.tensor([*range(12), *range(60, 72)]))
    found = judge(as_generated(few))
    assert found.fidelity is None
    assert "needs at least 20" in found.refusals["fidelity"]
    assert found.memorization is not None


@pytest.mark.usefixtures("tiny_classifier")
def test_an_extractor_of_the_domain_measures_labels_and_fidelity(judge):
    found = judge(as_generated(fresh()), extractor="in_domain", device="cpu", precision="fp32")
    assert found.refusals == {}
    assert "cross-fitted in 2 folds" in found.fidelity.extractor.name
    assert found.fidelity.settings.folds == 2
    assert found.labels.extractor == found.fidelity.extractor
    assert found.diversity.extractor.name == found.memorization.extractor.name == "pixels"


def lit(data):
    """The same images, those of class 1 brighter."""
    images = data.images // 2 + 120 * data.labels[:, None, None, None].byte()
    return ArrayDataset(images, data.labels, class_names=data.class_names)


@pytest.mark.usefixtures("tiny_classifier")
def test_classes_that_are_not_recognized_are_named_first(sets):
    train, test, generated = map(lit, (sets[0], sets[2], fresh()))
    classifiers = crossfit_extractor(train, epochs=6, batch_size=8, precision="fp32", device="cpu")
    report = label_report(generated, test, classifiers)
    assert {entry.verdict for entry in report.per_class.values()} == {LabelVerdict.RECOGNIZED}
    blind = ArrayDataset(generated.images, generated.labels.roll(30), class_names=train.class_names)
    found = evaluate(blind, train, test=test, extractor=classifiers)
    assert from_json(Evaluation, json.loads(json.dumps(to_json(found), allow_nan=False))) == found
    assert {entry.verdict for entry in found.labels.per_class.values()} == {LabelVerdict.NOT_RECOGNIZED}
    first, second, *_ = _evaluation_words(found)
    assert first.startswith("normal: Not recognized as its class")
    assert second.startswith("pneumonia: Not recognized as its class")


FEATURES, IMAGES = np.zeros((20, 3)), np.zeros((4, 1, 32, 32), np.uint8)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda pool: metrics.kid(FEATURES, FEATURES), "generated"),
        (lambda pool: metrics.fid(torch.zeros(20, 3), FEATURES), "reference"),
        (lambda pool: metrics.precision_recall(FEATURES, FEATURES), "generated"),
        (lambda pool: metrics.density_coverage(FEATURES, FEATURES), "generated"),
        (lambda pool: metrics.inception_score(FEATURES), "logits"),
        (lambda pool: metrics.nearest_neighbors(torch.zeros(20, 3), FEATURES), "references"),
        (lambda pool: metrics.c_t(FEATURES, FEATURES, FEATURES), "queries"),
        (lambda pool: metrics.copy_test(FEATURES[:, 0], torch.zeros(4)), "generated"),
        (lambda pool: metrics.own_radius(FEATURES), "queries"),
        (lambda pool: metrics.find_duplicates(IMAGES), "samples"),
        (lambda pool: metrics.ms_ssim(IMAGES, IMAGES), "x"),
        (lambda pool: metrics.to_features(IMAGES), "samples"),
        (lambda pool: pool(IMAGES), "images"),
    ],
)
def test_arrays_of_numpy_are_refused_by_name(pool, call, name):
    with pytest.raises(TypeError, match=rf"{name} must be a torch.Tensor, got a ndarray. Pass torch.from_numpy"):
        call(pool)


def test_unknown_extractors_get_a_near_name(judge, sets):
    assert EXTRACTOR_NAMES == ("in_domain", "inception", "dinov2", "clip")
    with pytest.raises(ValueError, match="Did you mean 'inception'"):
        make_extractor("incepton", sets[0])


def test_training_images_are_no_test_images(judge, sets):
    """By their content, whatever their patients are called."""
    train, held_out, test = sets
    elsewhere = as_generated(ArrayDataset(torch.cat([train.images, held_out.images[:40]]), torch.arange(160) % 2))
    elsewhere.class_names = train.class_names
    with pytest.raises(ValueError, match="but 120 of 160 test images are training images, bit by bit"):
        judge(as_generated(fresh()), test=elsewhere)
    few = as_generated(test)
    few.images = torch.cat([train.images[:3], test.images[3:]])
    with pytest.warns(UserWarning, match="3 of 120 test images are training images") as caught:
        judge(as_generated(fresh()), test=few)
    assert caught[0].filename == __file__
