"""What a study finds in generated images, from the images to the verdict."""

import pytest
import torch

from condgan.data import ArrayDataset, ChestPhantom
from condgan.metrics.memorization import MemorizationVerdict
from condgan.study import Study
from condgan.study.results import Answer, Question, Reason

pytestmark = pytest.mark.usefixtures("tiny_classifier")


def draw(seed):
    return ChestPhantom((60, 60), classes=2, image_shape=(1, 16, 16), difficulty=0.0, seed=seed)


@pytest.fixture(scope="module")
def sets():
    """Training, validation and test images: enough patients of each class for every part."""
    return [draw(seed) for seed in range(3)]


class Images:
    """In place of the images of a generator."""

    def __init__(self, data):
        self.data = ArrayDataset(data.images, data.labels, class_names=data.class_names)

    def first(self, count):
        assert count == len(self.data)
        return self.data


class WithImages(Study):
    """A study whose generator made given images."""

    given: Images

    def images_of(self, cell, y, *, seed):
        return self.given


@pytest.fixture
def judge(small_config, sets, tmp_path):
    """Run a study whose generator made these images; return what was found, and the verdicts."""

    def run(images, **options):
        config = small_config(arms=("real",), classifier_seeds=1, extractor="in_domain")
        study = WithImages(config, *sets, tmp_path / "study", device="cpu", **options)
        study.given = Images(images)
        assert study.run()
        results = study.results()
        return results.judged[0], {verdict.question: verdict for verdict in results.verdicts}

    return run


def test_fresh_images_of_the_same_kind_pass(judge, tmp_path):
    found, verdicts = judge(draw(9))
    assert found.refused == {}
    assert "cross-fitted in 2 folds" in found.fidelity.extractor.name
    assert found.memorization.extractor.name == "pixels"
    assert found.gan_test.classifier == "classifier-real-c0-p100"
    assert found.gan_test.report.class_names == ("normal", "pneumonia")
    assert found.gan_test.report.samples == 120
    assert verdicts[Question.COLLAPSED].answer is Answer.NO
    assert verdicts[Question.COPIES].answer is not Answer.YES
    folder = tmp_path / "study"
    assert (folder / "gans" / "gan-acgan-s0-p100" / "neighbors.png").is_file()
    assert (folder / "test_evaluations.jsonl").read_text().count("acgan/fidelity") == 1


def test_a_copier_is_recognized_and_no_real_image_is_shown_where_none_may_be(judge, sets, tmp_path):
    found, verdicts = judge(sets[0], real_images=False)
    assert {entry.verdict for entry in found.memorization.per_class.values()} == {MemorizationVerdict.COPIES}
    assert (verdicts[Question.COPIES].answer, verdicts[Question.COPIES].reason) == (Answer.YES, Reason.COPIES)
    assert [path.name for path in (tmp_path / "study").rglob("*.png")] == ["samples.png"]


def test_a_class_of_one_image_has_collapsed_and_comes_first_in_the_evidence(judge):
    _, verdicts = judge(draw(9).subset(torch.tensor([*range(60), *[60] * 60])))
    verdict = verdicts[Question.COLLAPSED]
    assert verdict.answer is Answer.YES
    found = [(one.class_name, one.collapsed) for one in verdict.evidence.classes]
    assert found == [("pneumonia", True), ("normal", False)]
