import json

import pytest
import torch

from condgan.data import ArrayDataset, ChestPhantom
from condgan.files import to_json
from condgan.study.results import Answer, Question, Reason, read_outcome
from condgan.study.study import Study

pytestmark = pytest.mark.usefixtures("tiny_classifier")


@pytest.fixture(scope="module")
def sets():
    """Enough patients of each class for every part of the judgement."""
    draw = {"classes": 2, "image_shape": (1, 16, 16), "difficulty": 0.0}
    return [ChestPhantom((60, 60), seed=seed, **draw) for seed in range(3)]


class Images:
    """Stands in for the images of a generator."""

    def __init__(self, data):
        self.data = data

    def first(self, count):
        return self.data


class StudyOfImages(Study):
    """Judges images that were made elsewhere."""

    generated: ArrayDataset

    def images_of(self, cell, y, *, seed):
        return Images(self.generated)


@pytest.fixture
def judge(small_config, tmp_path):
    """Return what judges images as those of the one generator: the outcome, and the answers to both questions."""

    def run(generated, sets, **options):
        config = small_config(arms=("real",), classifier_seeds=1, extractor="in_domain")
        study = StudyOfImages(config, *sets, tmp_path / "study", device="cpu", **options)
        study.generated = generated
        assert study.run()
        results = study.results()
        (cell,) = results.judged
        assert read_outcome(json.loads(json.dumps(to_json(cell), allow_nan=False))) == cell
        return cell, {verdict.question: verdict for verdict in results.verdicts}

    return run


def relabelled(data):
    """Return the same images as if somebody had generated them."""
    return ArrayDataset(data.images, data.labels, class_names=data.class_names)


def test_fresh_images_of_the_same_kind_pass(judge, sets, tmp_path):
    fresh = relabelled(ChestPhantom((60, 60), classes=2, image_shape=(1, 16, 16), difficulty=0.0, seed=9))
    cell, verdicts = judge(fresh, sets)
    assert cell.refusals == {}
    assert "cross-fitted in 2 folds" in cell.fidelity.extractor.name
    assert cell.memorization.extractor.name == "pixels"
    assert cell.gan_test.report.class_names == ("normal", "pneumonia")
    assert verdicts[Question.COLLAPSED].answer is Answer.NO
    assert verdicts[Question.COPIES].answer is not Answer.YES
    assert (tmp_path / "study" / "gans" / "gan-acgan-s0-p100" / "neighbors.png").is_file()
    assert (tmp_path / "study" / "test_evaluations.jsonl").read_text().count("acgan/fidelity") == 1


def test_a_copier_is_found_and_shows_no_real_image_unless_it_may(judge, sets, tmp_path):
    _, verdicts = judge(relabelled(sets[0]), sets, real_images=False)
    assert (verdicts[Question.COPIES].answer, verdicts[Question.COPIES].reason) == (Answer.YES, Reason.COPIES)
    assert [path.name for path in (tmp_path / "study").rglob("*.png")] == ["samples.png"]


def collapsed_classes(verdict):
    return [(found.seed, found.class_name) for found in verdict.evidence.classes if found.collapsed]


def test_one_image_per_class_is_a_collapse(judge, sets):
    fresh = ChestPhantom((60, 60), classes=2, image_shape=(1, 16, 16), seed=9)
    _, verdicts = judge(relabelled(fresh.subset(torch.tensor([0] * 60 + [60] * 60))), sets)
    assert verdicts[Question.COLLAPSED].answer is Answer.YES
    assert collapsed_classes(verdicts[Question.COLLAPSED]) == [(0, "normal"), (0, "pneumonia")]


def test_evidence_begins_with_what_the_answer_rests_on(judge, sets):
    fresh = ChestPhantom((60, 60), classes=2, image_shape=(1, 16, 16), seed=9)
    _, verdicts = judge(relabelled(fresh.subset(torch.tensor([*range(60), *[60] * 60]))), sets)
    found = verdicts[Question.COLLAPSED]
    assert found.answer is Answer.YES
    assert [(one.class_name, one.collapsed) for one in found.evidence.classes] == [
        ("pneumonia", True),
        ("normal", False),
    ]


def test_what_cannot_be_judged_says_why(judge, phantoms):
    cell, verdicts = judge(relabelled(phantoms[0]), phantoms)
    assert cell.fidelity is None
    assert "needs at least 20" in cell.refusals["fidelity"]
    if cell.diversity is None:
        found = verdicts[Question.COLLAPSED]
        assert (found.answer, found.reason) == (Answer.CANNOT_TELL, Reason.NOT_MEASURED)
        assert found.evidence.not_measured == (cell.refusals["diversity"],)
