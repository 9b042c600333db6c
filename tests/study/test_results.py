import json
from types import SimpleNamespace

import pytest
import torch

from condgan.data import ArrayDataset
from condgan.metrics.classification import classification_report
from condgan.metrics.seeds import seed_interval
from condgan.runs import RecipeConfig
from condgan.study.cells import make_cells
from condgan.study.folder import StudyFolder
from condgan.study.results import summarize, write_results
from condgan.study.study import Study, Worker
from condgan.study.summaries import ArmKey, Outcomes, summarize_arms

TINY = RecipeConfig(recipe="acgan", steps=2, batch_size=8, base_channels=4)
LABELS = torch.arange(400) % 2
GROUPS = torch.arange(400) // 4
RECIPES = {"acgan": TINY, "acwgan_gp": TINY}


def invent(folder, config, quality, *, keep=lambda cell: True):
    """Write a study whose classifiers are right as often as `quality` says of their cell."""
    files = StudyFolder(folder)
    data = {
        "source": "invented",
        "attribution": None,
        "class_names": ["normal", "ill"],
        "counts": {"train": [100, 300]},
        "notes": [],
    }
    files.begin(config, data, (LABELS, GROUPS))
    shared = torch.rand(400, generator=torch.Generator().manual_seed(0))
    for number, cell in enumerate(make_cells(config)):
        if cell.kind != "classifier" or not keep(cell):
            continue
        rng = torch.Generator().manual_seed(number + 1)
        threshold = quality(cell)
        right = (0.7 * shared + 0.3 * torch.rand(400, generator=rng)) < threshold
        confidence = torch.where(right, LABELS, 1 - LABELS) * 0.6 + 0.2 + 0.1 * torch.rand(400, generator=rng)
        p = torch.stack([1 - confidence, confidence], 1).double()
        report = classification_report(p, LABELS, resamples=2).as_dict()
        files.write(cell, {"confusion": report["confusion"], "seconds": 1.0, "commit": "abc", "device": "cpu"}, p)
    return summarize(folder)


def by_question(results, words):
    (found,) = [verdict for verdict in results["verdicts"] if words in verdict["question"]]
    return found


@pytest.fixture
def full_config(small_config):
    def make(**changes):
        arms = ("real", "real_weighted", "synthetic_1x", "real_plus_synthetic_1to1")
        return small_config(**{"recipes": RECIPES, "arms": arms, "seeds": 3, "classifier_seeds": 3, **changes})

    return make


def test_every_arm_is_summarized_with_its_seeds(full_config, tmp_path):
    results = invent(tmp_path, full_config(), lambda cell: 0.7)
    rows = [row for row in results["summaries"] if row["metric"] == "balanced_accuracy"]
    assert len(rows) == 2 + 2 * 2
    metrics = {row["metric"] for row in results["summaries"]}
    assert metrics == {"accuracy", "balanced_accuracy", "auroc", "macro_f1", "recall/normal", "recall/ill"}
    synthetic = next(row for row in rows if row["recipe"] == "acgan")
    assert (synthetic["generator_seeds"], synthetic["classifier_seeds"]) == (3, 3)
    assert (synthetic["patients"], synthetic["images"]) == (100, 400)
    control = next(row for row in rows if row["arm"] == "real")
    assert (control["generator_seeds"], control["classifier_seeds"]) == (0, 3)
    for row in results["summaries"]:
        assert row["low"] <= row["value"] <= row["high"]
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_summaries_are_the_scores_of_the_probabilities(full_config, tmp_path):
    config = full_config(seeds=1, classifier_seeds=1)
    results = invent(tmp_path, config, lambda cell: 0.7)
    p = StudyFolder(tmp_path).probabilities("classifier-real-c0-p100")
    report = classification_report(p, LABELS, class_names=["normal", "ill"], resamples=2)
    found = {row["metric"]: row["value"] for row in results["summaries"] if row["arm"] == "real"}
    assert found["auroc"] == pytest.approx(report.auroc.value)
    assert found["balanced_accuracy"] == pytest.approx(report.balanced_accuracy.value)
    assert found["accuracy"] == pytest.approx(report.accuracy.value)
    assert found["macro_f1"] == pytest.approx(report.macro_f1.value)
    assert found["recall/ill"] == pytest.approx(report.recall[1].value)


def test_relative_usefulness_is_one_for_real_images_in_disguise(full_config, tmp_path):
    results = invent(tmp_path, full_config(), lambda cell: 0.7)
    rows = [row for row in results["summaries"] if row["metric"] == "balanced_accuracy"]
    assert all(row["relative_usefulness"] is None for row in rows if row["recipe"] is None)
    assert all(abs(row["relative_usefulness"] - 1) < 0.25 for row in rows if row["recipe"] is not None)


def test_help_is_said_against_the_best_control_only(full_config, tmp_path):
    def quality(cell):
        return {"real": 0.5, "real_weighted": 0.72, "real_plus_synthetic_1to1": 0.7}.get(cell.arm, 0.4)

    results = invent(tmp_path, full_config(), quality)
    primary = [row for row in results["comparisons"] if row["primary"]]
    assert len(primary) == 4
    assert {row["b"]["arm"] for row in primary} == {"real_weighted"}
    assert by_question(results, "Do generated images help")["answer"] != "yes"


def test_help_is_said_where_there_is_help(full_config, tmp_path):
    def quality(cell):
        return {"real": 0.5, "real_weighted": 0.55, "real_plus_synthetic_1to1": 0.85}.get(cell.arm, 0.4)

    results = invent(tmp_path, full_config(), quality)
    verdict = by_question(results, "Do generated images help")
    assert verdict["answer"] == "yes"
    assert "real_plus_synthetic_1to1 less real_weighted" in verdict["evidence"]
    assert "Not run: real_augmented" in verdict["evidence"]
    for row in results["comparisons"]:
        assert row["p_holm"] >= row["p_value"]
        assert row["simultaneous"]["low"] <= row["low"] <= row["difference"] <= row["high"]
        assert row["secondary"]["mcnemar"]["p_value"] <= 1
        assert row["secondary"]["delong"] is not None


def test_no_help_is_said_where_there_is_none(full_config, tmp_path):
    results = invent(tmp_path, full_config(), lambda cell: 0.85 if cell.entry is None else 0.4)
    assert by_question(results, "Do generated images help")["answer"] == "no"


def test_one_seed_tells_nothing(full_config, tmp_path):
    results = invent(tmp_path, full_config(seeds=1), lambda cell: 0.9 if cell.arm != "real" else 0.5)
    for words in ("Do generated images help", "Which images teach more", "Do the images of acgan raise"):
        assert by_question(results, words)["answer"] == "cannot tell: fewer than three seeds"
    assert by_question(results, "learn the classes from images of acgan")["answer"].endswith("1 generator seed only")


def test_the_rarest_class_is_compared_with_real_images_alone(full_config, tmp_path):
    results = invent(tmp_path, full_config(), lambda cell: 0.7)
    rows = [row for row in results["comparisons"] if row["family"] == "rare"]
    assert {(row["metric"], row["b"]["arm"]) for row in rows} == {("recall/normal", "real")}
    assert by_question(results, "Do the images of acwgan_gp raise the recall of normal")


def test_recipes_are_compared_with_each_other(full_config, tmp_path):
    results = invent(tmp_path, full_config(), lambda cell: 0.85 if cell.entry == "acwgan_gp" else 0.5)
    (row,) = [row for row in results["comparisons"] if row["family"] == "recipes"]
    assert (row["a"]["recipe"], row["b"]["recipe"], row["a"]["arm"]) == ("acgan", "acwgan_gp", "synthetic_1x")
    assert by_question(results, "Which images teach more")["answer"] == "acwgan_gp"


def test_the_sweep_is_compared_within_each_percentage(full_config, tmp_path):
    config = full_config(percents=(100.0, 10.0), reduced_class="ill")
    results = invent(tmp_path, config, lambda cell: 0.9 if cell.percent == 10 and cell.entry else 0.5)
    assert all(row["a"]["p"] == row["b"]["p"] for row in results["comparisons"])
    assert by_question(results, "With 10 % of the patients of ill")["answer"] == "yes"


def test_partial_results_take_what_is_complete(full_config, tmp_path):
    def keep(cell):
        return cell.entry is None or (
            cell.entry == "acgan" and (cell.seed, cell.classifier_seed) in {(0, 0), (0, 1), (1, 0)}
        )

    results = invent(tmp_path, full_config(), lambda cell: 0.7, keep=keep)
    row = next(row for row in results["summaries"] if row["recipe"] == "acgan")
    assert (row["generator_seeds"], row["classifier_seeds"]) == (1, 2)
    assert by_question(results, "Is the study finished")["answer"] == "no"


def test_a_study_without_any_cell_has_results(full_config, tmp_path):
    results = invent(tmp_path, full_config(), lambda cell: 0.7, keep=lambda cell: False)
    assert results["summaries"] == results["comparisons"] == results["cells"] == []
    assert write_results(tmp_path).is_file()


def test_three_classes_have_no_delong():
    y = torch.arange(30) % 3
    p = torch.nn.functional.one_hot(y, 3).double()
    found = Outcomes(None, ("a", "b", "c"), y, torch.arange(30), {ArmKey(None, "real", 100.0): {None: {0: p}}})
    weights = torch.ones(1, 30, dtype=torch.float64)
    assert set(found.scores) == {
        "accuracy",
        "balanced_accuracy",
        "auroc",
        "macro_f1",
        "recall/a",
        "recall/b",
        "recall/c",
    }
    for score in found.scores.values():
        assert float(score(p, weights)) == pytest.approx(1.0)


def test_a_recall_is_judged_on_the_patients_of_its_class():
    y, groups = torch.tensor([0] * 12 + [1] * 18), torch.arange(30) // 2
    decided = torch.cat([torch.tensor([0, 0, 1] * 4), torch.ones(18, dtype=torch.int64)])
    p = torch.nn.functional.one_hot(decided, 2).double()
    key = ArmKey(None, "real", 100.0)
    config = SimpleNamespace(level=0.95)
    rows = summarize_arms(Outcomes(config, ("well", "ill"), y, groups, {key: {None: {0: p}}}))
    well, ill, balanced = (
        next(row for row in rows if row["metric"] == metric)
        for metric in ("recall/well", "recall/ill", "balanced_accuracy")
    )
    assert [(row["images"], row["patients"]) for row in (well, ill, balanced)] == [(12, 6), (18, 9), (30, 15)]
    alone = seed_interval(lambda p, w: w @ (p.argmax(1) == 0).double() / w.sum(1), [p[:12]], groups[:12])
    assert (well["low"], well["value"], well["high"]) == pytest.approx((alone.low, 2 / 3, alone.high))
    assert (ill["low"], ill["value"], ill["high"]) == (pytest.approx(0.025 ** (1 / 9)), 1, 1)


class Copier:
    """Stands in for a generator: real training images, under their own labels or under such as say nothing of them."""

    def __init__(self, real, y, *, shuffled):
        of_class = [(real.labels == label).nonzero().flatten() for label in range(real.num_classes)]
        place = torch.arange(len(y)) // 2  # as labels alternate
        shown = torch.where(place % 2 == 1, 1 - y, y) if shuffled else y
        index = torch.stack(
            [of_class[k][i % len(of_class[k])] for k, i in zip(shown.tolist(), place.tolist(), strict=True)]
        )
        self.data = ArrayDataset(real.images[index], y, class_names=real.class_names, source="copies")

    def first(self, count):
        return self.data.subset(torch.arange(count))


def bright_or_dark(n, seed):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    images = 60 + 130 * y[:, None, None, None] + 25 * torch.randn(n, 1, 16, 16, generator=rng)
    return ArrayDataset(images.clamp(0, 255).byte(), y, groups=torch.arange(n) // 2 + 1000 * seed)


@pytest.mark.usefixtures("tiny_classifier")
def test_labels_that_say_nothing_drop_synthetic_only_arms_to_chance(small_config, tmp_path, monkeypatch):
    # A classifier that learned nothing still leans to one side by brightness: chance is what several average to. And
    # one look at the validation images: the best of several would be the luckiest.
    sets = [bright_or_dark(n, seed) for seed, n in enumerate((200, 40, 80))]
    arms = {"arms": ("real", "synthetic_1x"), "classifier_steps": 40, "classifier_epochs": 1, "seeds": 4}
    found = {}
    for shuffled in (False, True):
        monkeypatch.setattr(
            Worker, "_make_pool", lambda self, _, y, s=shuffled, **rest: Copier(self.real(100), y, shuffled=s)
        )
        study = Study(small_config(recipes={"acgan": TINY}, **arms), *sets, tmp_path / str(shuffled), device="cpu")
        assert study.run()
        results = study.results()
        rows = [row for row in results["summaries"] if row["metric"] == "balanced_accuracy"]
        found[shuffled] = {row["arm"]: row for row in rows}
        found[shuffled]["verdict"] = by_question(results, "learn the classes from images of acgan")["answer"]
    assert found[False]["real"]["value"] > 0.9
    assert found[False]["synthetic_1x"]["value"] > 0.9
    assert found[False]["verdict"] == "yes"
    assert found[True]["synthetic_1x"]["low"] < 0.5 < found[True]["synthetic_1x"]["high"]
    assert abs(found[True]["synthetic_1x"]["value"] - 0.5) < 0.15
    assert found[True]["verdict"] == "not distinguishable from guessing"
