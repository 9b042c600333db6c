"""The chest X-ray example from data to report, small, interrupted and resumed."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from condgan.study import Results, Study

SCRIPTS = Path(__file__).parents[2] / "examples" / "chest_xray"
BASE = ["--data", "phantom", "--preset", "smoke", "--device", "cpu", "--recipes", "acgan,acwgan_gp", "--out"]


@pytest.fixture
def example(load, monkeypatch, tiny_classifier, tmp_path):
    """Return the example's command, with a preset that takes seconds, in an empty working directory."""
    monkeypatch.delenv("CONDGAN_CHEST_XRAY", raising=False)
    monkeypatch.chdir(tmp_path)
    presets = load("presets")
    smoke = presets.PRESETS["smoke"]
    tiny = dataclasses.replace(
        smoke,
        image_size=16,
        steps={"acgan": 4, "acwgan_gp": 2},
        training={"base_channels": 4, "batch_size": 8},
        study=smoke.study | {"classifier_steps": 4, "classifier_batch_size": 8, "precision": "fp32", "resamples": 20},
        phantoms=120,
    )
    monkeypatch.setitem(presets.PRESETS, "smoke", tiny)
    space = runpy.run_path(str(SCRIPTS / "__main__.py"))

    def call(out="out", *more):
        folder: Path = space["run"](space["parse"]([*BASE, out, *more]))
        return folder

    call.module = space["run"].__globals__
    return call


def results_of(folder):
    return Results.read(folder / "results.json")


def without_times(results):
    cells = tuple(dataclasses.replace(cell, seconds=0.0) for cell in results.cells)
    return dataclasses.replace(results, cells=cells, command=None)


def test_a_run_leaves_everything_it_promises(example, capsys):
    folder = example("out", "--classes", "3", "--seed", "5")
    results = results_of(folder)
    assert [cell.name for cell in results.cells] == [
        "classifier-real-c5-p100",
        "gan-acgan-s5-p100",
        "classifier-acgan-s5-synthetic_1x-c5-p100",
        "gan-acwgan_gp-s5-p100",
        "classifier-acwgan_gp-s5-synthetic_1x-c5-p100",
    ]
    for cell in results.classifiers:
        assert sum(map(sum, cell.report.confusion)) == sum(results.data.test.counts)
    assert results.data.class_names == ("normal", "bacterial", "viral")
    assert results.test_evaluations == {"acgan/synthetic_1x": 1, "acwgan_gp/synthetic_1x": 1, "real": 1}
    assert results.command == (
        "python examples/chest_xray --data phantom --classes 3 --recipes acgan,acwgan_gp --preset smoke --seed 5"
    )
    page = (folder / "report.html").read_text()
    notice = "NO REAL X-RAY WAS USED"
    assert page.index(notice) < page.index("In short")
    assert "For research only" in page
    assert results.data.notice.startswith(notice)
    assert capsys.readouterr().out.count(notice) == 2
    for name in ("gan-acgan-s5-p100", "gan-acwgan_gp-s5-p100"):
        assert (folder / "gans" / name / "generator" / "model.safetensors").is_file()
        assert (folder / "gans" / name / "samples.png").is_file()


def test_all_recipes_run_unless_some_are_named(example):
    given = example.module["parse"](["--data", "phantom"])
    assert given.recipes == "small_data,acgan,acwgan_gp"
    folder = example("out", "--recipes", "small_data")
    assert [cell.name for cell in results_of(folder).generators] == ["gan-small_data-s0-p100"]


@pytest.mark.usefixtures("example")
def test_every_preset_is_a_plan_with_what_it_promises():
    import presets

    for name in ("quick", "full"):
        config = presets.PRESETS[name].config(["small_data", "acgan", "acwgan_gp"], image_size=None, steps=None, seed=0)
        assert {"real", "real_augmented", "real_weighted", "real_oversampled"} <= set(config.controls)
        assert "synthetic_1x" in config.synthetic_arms
        assert config.extractor == "in_domain"
    longer = presets.PRESETS["quick"].config(["cgan"], image_size=64, steps=7, seed=0)
    assert (longer.image_shape, longer.recipes["cgan"].steps) == ((1, 64, 64), 7)


def test_an_interrupted_run_resumes_to_the_same_results(example, monkeypatch, tmp_path):
    whole = results_of(example("whole"))
    classify, calls = Study.classify, []

    def interrupted(self, cell):
        calls.append(cell.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return classify(self, cell)

    with monkeypatch.context() as patch:
        patch.setattr(Study, "classify", interrupted)
        with pytest.raises(KeyboardInterrupt):
            example("parts")
    assert "Is the study finished?" in (tmp_path / "parts" / "report.html").read_text()
    resumed = results_of(example("parts", "--resume"))
    assert without_times(resumed) == without_times(whole)


def test_a_used_folder_and_changed_settings_are_refused(example):
    example("out", "--recipes", "acgan")
    with pytest.raises(SystemExit, match="is not empty: add --resume"):
        example("out", "--recipes", "acgan")
    with pytest.raises(ValueError, match=r"holds another study: config.first_seed is 0, got 1"):
        example("out", "--recipes", "acgan", "--seed", "1", "--resume")
    with pytest.raises(SystemExit, match="no run to resume"):
        example("nowhere", "--resume")
    with pytest.raises(SystemExit):
        example("other", "--recipes", "stylegan")


def test_a_report_to_share_shows_no_real_image(example):
    import presets

    judged = presets.PRESETS["smoke"].study | {"extractor": "in_domain"}
    presets.PRESETS["smoke"] = dataclasses.replace(presets.PRESETS["smoke"], study=judged)  # undone by the fixture
    folder = example("shared", "--recipes", "acgan", "--no-real-images")
    assert [path.name for path in folder.rglob("*.png")] == ["samples.png"]
    assert "Real images are left out of this report" in (folder / "report.html").read_text()
    assert [cell.recipe for cell in results_of(folder).judged] == ["acgan"]
    other = example("other", "--recipes", "acgan")
    assert sorted(path.name for path in other.rglob("*.png")) == ["neighbors.png", "real.png", "samples.png"]
