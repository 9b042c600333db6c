import json

import pytest
import torch

from condgan.data import ArrayDataset, ChestPhantom
from condgan.study.study import Study, Worker

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


@pytest.fixture
def judge(small_config, tmp_path, monkeypatch):
    def run(generated, sets, **options):
        monkeypatch.setattr(Worker, "_make_pool", lambda self, cell, y, **rest: Images(generated))
        config = small_config(arms=("real",), classifier_seeds=1, extractor="in_domain")
        study = Study(config, *sets, tmp_path / "study", device="cpu", **options)
        assert study.run()
        (cell,) = [cell for cell in study.results()["cells"] if cell["kind"] == "judge"]
        verdicts = {verdict["question"]: verdict["answer"] for verdict in study.results()["verdicts"]}
        return cell, verdicts

    return run


def relabelled(data):
    """Return the same images as if somebody had generated them."""
    return ArrayDataset(data.images, data.labels, class_names=data.class_names)


def test_fresh_images_of_the_same_kind_pass(judge, sets, tmp_path):
    fresh = relabelled(ChestPhantom((60, 60), classes=2, image_shape=(1, 16, 16), difficulty=0.0, seed=9))
    cell, verdicts = judge(fresh, sets)
    assert cell["refusals"] == {}
    assert "cross-fitted in 2 folds" in cell["fidelity"]["extractor"]["name"]
    assert cell["memorization"]["extractor"]["name"] == "pixels"
    assert set(cell["gan_test"]["recall"]) == {"normal", "pneumonia"}
    assert verdicts["Has acgan collapsed onto few images of a class?"] == "no"
    assert not verdicts["Do the images of acgan repeat training images or give patients away?"].startswith("yes")
    assert (tmp_path / "study" / "gans" / "gan-acgan-s0-p100" / "neighbors.png").is_file()
    assert (tmp_path / "study" / "test_evaluations.jsonl").read_text().count("acgan/fidelity") == 1


def test_a_copier_is_called_one_and_shows_no_real_image_unless_it_may(judge, sets, tmp_path):
    cell, verdicts = judge(relabelled(sets[0]), sets, real_images=False)
    assert verdicts["Do the images of acgan repeat training images or give patients away?"].startswith("yes: it copies")
    assert [path.name for path in (tmp_path / "study").rglob("*.png")] == ["samples.png"]
    json.dumps(cell, allow_nan=False)


def test_one_image_a_class_is_called_collapsed(judge, sets):
    fresh = ChestPhantom((60, 60), classes=2, image_shape=(1, 16, 16), seed=9)
    _, verdicts = judge(relabelled(fresh.subset(torch.tensor([0] * 60 + [60] * 60))), sets)
    assert verdicts["Has acgan collapsed onto few images of a class?"] == "yes: seed 0 (normal, pneumonia)"


def test_evidence_begins_with_what_the_answer_rests_on(judge, sets, tmp_path):
    fresh = ChestPhantom((60, 60), classes=2, image_shape=(1, 16, 16), seed=9)
    _, verdicts = judge(relabelled(fresh.subset(torch.tensor([*range(60), *[60] * 60]))), sets)
    question = "Has acgan collapsed onto few images of a class?"
    assert verdicts[question] == "yes: seed 0 (pneumonia)"
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    (evidence,) = [verdict["evidence"] for verdict in results["verdicts"] if verdict["question"] == question]
    assert evidence.startswith("Seed 0, pneumonia: Collapsed")
    assert "Seed 0, normal: Not collapsed" in evidence


def test_what_cannot_be_judged_says_why(judge, phantoms):
    cell, verdicts = judge(relabelled(phantoms[0]), phantoms)
    assert cell["fidelity"] is None
    assert "needs at least 20" in cell["refusals"]["fidelity"]
    if cell["diversity"] is None:
        assert verdicts["Has acgan collapsed onto few images of a class?"] == "cannot tell"
