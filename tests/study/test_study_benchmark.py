"""The runner of the study on chest X-rays, on phantoms; and the results that are committed."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from condgan.data import ArrayDataset, kermany_held_out
from condgan.files import from_json, to_json, write_json
from condgan.runs import RecipeConfig, RunDescription, load_generator, load_run
from condgan.study import Results, Study, StudyConfig, summarize
from condgan.study.cells import make_cells
from condgan.study.folder import StudyFolder
from condgan.study.provenance import Provenance

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "study"
COMMITTED = sorted((SCRIPTS / "results").glob("*/*/results.json"))
TINY = RecipeConfig(recipe="acgan", steps=4, batch_size=8, base_channels=4, keep="best_kid", evaluations=2)
OTHER = RecipeConfig(recipe="acwgan_gp", networks="dcgan", steps=2, batch_size=8, base_channels=4)


@pytest.fixture
def run(load, tiny_classifier, small_config, phantoms, monkeypatch, tmp_path):
    """Return the command, with phantoms for X-rays and a tiny configuration of two recipes."""
    configs = load("configs")
    config = small_config(recipes={"acgan": TINY, "other": OTHER}, arms=("real", "synthetic_1x"), classifier_seeds=2)
    monkeypatch.setitem(configs.SIZES, "cpu", configs.Size(config, "official", (2,)))
    space = runpy.run_path(str(SCRIPTS / "__main__.py"))
    main = space["main"]
    monkeypatch.setitem(main.__globals__, "load", lambda *given: phantoms)
    monkeypatch.setitem(main.__globals__, "RESULTS", tmp_path / "results")

    def call(*options, out="out"):
        folder = [] if out is None else ["--out", str(tmp_path / out)]
        command = ["study", "--size", "cpu", "--device", "cpu", *folder, *options]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return call


def test_held_out_patients_are_refused(load):
    check = load("xrays").check_not_held_out
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    patient = min(kermany_held_out())
    paths = [f"NORMAL/{patient}-0001.jpeg", *(f"PNEUMONIA/person{n}_virus_1.jpeg" for n in (20001, 20002, 20003))]
    fine = ArrayDataset(images, [0, 1, 0, 1], paths=[path.replace(patient, "IM-9999") for path in paths])
    check(fine)
    with pytest.raises(ValueError, match=f"1 patients who are held out for the last study, such as {patient}"):
        check(fine, ArrayDataset(images, [0, 1, 0, 1], paths=paths))


def publish_changed(published, results, name, change):
    cells = tuple(change(cell) if cell.name == name else cell for cell in results.cells)
    replace(results, cells=cells).write(published / "results.json")


def with_interval(cell, **ends):
    return replace(cell, report=replace(cell.report, balanced_accuracy=replace(cell.report.balanced_accuracy, **ends)))


def test_one_cell_runs_with_what_it_needs_and_lands_inside_the_committed_interval(run, tmp_path, capsys):
    assert run() == 0
    assert run("--publish") == 0
    published = tmp_path / "results" / "cpu" / "two-classes"
    results = Results.read(published / "results.json")
    assert len(results.cells) == results.cells_planned
    assert {path.name for path in (published / "samples").iterdir()} == {
        "gan-acgan-s0-p100.png",
        "gan-other-s0-p100.png",
    }
    name = "classifier-acgan-s0-synthetic_1x-c1-p100"
    assert run("--cell", name, out="again") == 0
    assert f"{name}: balanced_accuracy" in capsys.readouterr().out
    again = StudyFolder(tmp_path / "again" / "two-classes")
    assert sorted(path.stem for path in (again.path / "cells").glob("*.json")) == [
        name,
        "classifier-real-c0-p100",
        "gan-acgan-s0-p100",
    ]
    publish_changed(published, results, name, lambda cell: with_interval(cell, low=1.1, high=1.2))
    assert run("--cell", name, out="again") == 1
    assert "OUTSIDE" in capsys.readouterr().out
    results = Results.read(published / "results.json")
    abacus = Provenance(device="an abacus", commit=None, versions={})
    publish_changed(published, results, name, lambda cell: replace(cell, origin=abacus))
    assert run("--cell", name, out="again") == 1
    assert "OUTSIDE\n  another processor or other versions give other networks" in capsys.readouterr().out


def test_prediction_of_one_more_run(load):
    predict = load("rerun").prediction_interval
    reach = 12.7062 * 0.0129099 * 1.25**0.5  # t of one degree of freedom, standard deviation, 4 runs
    assert predict([[0.66, 0.67], [0.68, 0.69]]) == pytest.approx((0.675 - reach, 0.675 + reach), rel=1e-4)
    reach = 4.302653 * 0.1 * (4 / 3) ** 0.5
    assert predict([[0.6, 0.7, 0.8]]) == pytest.approx((0.7 - reach, 1), rel=1e-4)
    assert predict([[0.6]]) == (0, 1)


def test_a_generator_that_was_trained_again_does_not_replace_what_was_published(run, tmp_path):
    assert run("--cell", "gan-*") == 0
    gan = tmp_path / "out" / "two-classes" / "gans" / "gan-acgan-s0-p100"
    published = tmp_path / "results" / "cpu" / "two-classes"
    assert run("--publish") == 0
    assert not (published / "trained_again").exists()
    first = (published / "samples" / "gan-acgan-s0-p100.png").read_bytes()
    again = load_run(gan)
    write_json(gan / "run.json", to_json(replace(again, kept=replace(again.kept, step=1))))
    (gan / "samples.png").write_bytes(b"of another network")
    assert run("--publish") == 0
    assert (published / "samples" / "gan-acgan-s0-p100.png").read_bytes() == first
    assert [path.name for path in (published / "trained_again").iterdir()] == ["gan-acgan-s0-p100.json"]
    kept = from_json(RunDescription, json.loads((published / "trained_again" / "gan-acgan-s0-p100.json").read_text()))
    assert kept.kept.step == 1


def test_a_name_that_fits_no_cell_is_refused(run):
    said = run("--cell", "gan-acgan-s0", "--cell", "classifier-*")
    assert "error: every pattern must match a cell, got gan-acgan-s0" in said


def test_the_command_of_the_readme_needs_no_folder(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run("--classes", "2", out=None) == 0
    assert (tmp_path / "runs" / "study" / "cpu" / "two-classes" / "report.html").is_file()


def test_cells_are_listed_without_data(load, monkeypatch, tmp_path, capsys):
    load("configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["study", "--size", "cpu", "--list"])
    runpy.run_path(str(SCRIPTS / "__main__.py"))["main"]()
    assert "gan-acgan_dcgan-s0-p100" in capsys.readouterr().out.splitlines()
    assert list(tmp_path.iterdir()) == []


def test_several_machines_share_a_study(run, tmp_path):
    assert run("--cell", "*-acgan-*", out="a") == 0
    assert run("--cell", "*-other-*", out="b") == 0
    assert run("--merge", str(tmp_path / "a"), str(tmp_path / "b"), "--cell", "classifier-real-*", out="together") == 0
    results = Results.read(tmp_path / "together" / "two-classes" / "results.json")
    assert len(results.cells) == results.cells_planned


def test_a_study_is_carried_in_small_parts(load, small_config, phantoms, tmp_path, tiny_classifier):
    carry = load("carry")
    config = small_config(recipes={"acgan": TINY, "other": OTHER}, arms=("real", "synthetic_1x"), classifier_seeds=1)
    study = Study(config, *phantoms, tmp_path / "two-classes", device="cpu")
    study.run(["classifier-real-c0-p100", "gan-*", "classifier-acgan-s0-*"])
    parts = carry.pack(study.folder.path, tmp_path / "parts", part=20_000)
    assert len(parts) > 1
    assert all(path.stat().st_size <= 20_000 for path in parts)
    carry.unpack(tmp_path / "parts", tmp_path / "there" / "two-classes")
    there = Study(config, *phantoms, tmp_path / "there" / "two-classes", device="cpu")
    assert not (there.folder.path / "gans" / "gan-acgan-s0-p100" / "generator").exists()
    first, second = (load_generator(f / "gans" / "gan-other-s0-p100") for f in (study.folder.path, there.folder.path))
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, rtol=1e-3, atol=1e-3)
    assert there.run()
    known = ["gan-other-s0-p100", "classifier-real-c0-p100"]
    rest = carry.pack(study.folder.path, tmp_path / "rest", without=known)
    carry.unpack(tmp_path / "rest", tmp_path / "new" / "two-classes")
    names = {path.stem for path in (tmp_path / "new" / "two-classes" / "cells").glob("*.json")}
    assert names == {"gan-acgan-s0-p100", "classifier-acgan-s0-synthetic_1x-c0-p100"}
    assert [path.name for path in (tmp_path / "new" / "two-classes" / "gans").iterdir()] == ["gan-acgan-s0-p100"]
    assert len(rest) == 1
    assert carry.pack(study.folder.path, tmp_path / "parts") == [parts[0]]
    assert list((tmp_path / "parts").iterdir()) == [parts[0]]
    with pytest.raises(FileExistsError, match="unpack into a new folder"):
        carry.unpack(tmp_path / "parts", tmp_path / "there" / "two-classes")
    parts[0].unlink()
    with pytest.raises(FileNotFoundError, match="and all parts after it"):
        carry.unpack(tmp_path / "parts", tmp_path / "newer" / "two-classes")


def test_the_sizes_are_plans(load):
    for size in load("configs").SIZES.values():
        assert from_json(StudyConfig, json.loads(json.dumps(to_json(size.config)))) == size.config
        assert len(make_cells(size.config)) == len({cell.name for cell in make_cells(size.config)})


def test_recipes_of_a_size_train_equally_long(load):
    configs = load("configs")
    for name, plan_of in configs.CPU.recipes.items():
        recipe = next(recipe for recipe in configs.RECIPES if name.startswith(recipe))
        assert plan_of.steps * configs.MILLISECONDS[recipe, plan_of.networks] == pytest.approx(120e3, rel=0.02)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_committed_results_are_of_the_frozen_configuration(load, path):
    results = Results.read(path)
    assert results.config == load("configs").SIZES[path.parts[-3]].config
    images = 624 if path.parts[-3] in ("cpu", "longer", "gpu-32", "gpu-64") else sum(results.data.test.counts)
    assert results.classifiers
    assert all(sum(map(sum, cell.report.confusion)) == images for cell in results.classifiers)


def test_committed_results_are_those_of_their_cells():
    path = next(path for path in COMMITTED if path.parts[-3] == "diagnosis-16px")
    assert summarize(path.parent) == Results.read(path)
