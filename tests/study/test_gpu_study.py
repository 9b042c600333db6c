"""The study of a GPU machine in miniature: seeds side by side, what does not fit, what is brought and taken home."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

import condgan as cg
from condgan.study.folder import StudyFolder

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks" / "gpu"


@pytest.fixture
def beside(load, monkeypatch):
    """Load modules of the benchmark, which find those of the others beside theirs."""
    for folder in ("speed", "study", "gpu"):
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / folder))
    return load


@pytest.fixture
def trained_together(monkeypatch):
    """Stand in for `fit_together`, and list how many were trained each time."""
    together = []

    def fit_together(trainers, data, **sizes):
        together.append(len(trainers))
        for trainer in trainers:
            trainer.fit(data, **sizes)

    monkeypatch.setattr(cg.training, "fit_together", fit_together, raising=False)
    return together


@pytest.fixture
def train(beside, tiny_classifier, tmp_path):
    """Return what trains the generators of one recipe and returns the rows so far."""
    work = beside("work")
    size = beside("names").GPU_SIZES[0]
    recipe = next(iter(beside("study_data").size_of(size, rehearse=True).config.recipes))
    options = {
        "size": size,
        "classes": 2,
        "engine": None,
        "work": str(tmp_path / "work"),
        "data": str(tmp_path / "none"),
    }
    options |= {"recipe": recipe, "seeds": None, "side_by_side": True}

    def train(*, seconds=60.0, **changes):
        rows = str(tmp_path / "rows.jsonl")
        task = work.Task("part", "", rows, "cpu", seconds, seconds, True, options | changes)
        beside("study_controls").train_reference(work.Work(task))
        beside("study_generators").run(work.Work(task))
        return work.read(tmp_path / "rows.jsonl") if (tmp_path / "rows.jsonl").exists() else []

    train.folder = beside("study_data").folder_of(options["work"], size, 2)
    return train


def parse(*options):
    return runpy.run_path(str(SCRIPTS / "__main__.py"))["parse"](["study", "--out", "out", "--rehearse", *options])


def seeds(rows):
    return [(row["seed"], row["side_by_side"], row["steps"]) for row in rows if row["what"] == "generator"]


def test_seeds_are_trained_side_by_side(train, trained_together):
    found = train()
    assert seeds(found) == [(0, 2, 4), (1, 2, 4)]
    assert trained_together == [2]
    assert not list(train.folder.glob("gans/*/checkpoints"))
    assert train() == found  # nothing is missing any more


def test_fewer_are_trained_where_all_do_not_fit(train, trained_together, beside, monkeypatch):
    generators = beside("study_generators")
    monkeypatch.setattr(generators, "TRIAL", 0.0)
    monkeypatch.setattr(generators, "fits", lambda trainings, *_: len(trainings) == 1)
    assert seeds(train()) == [(0, 1, 4), (1, 1, 4)]
    assert trained_together == [2, 1, 1, 1, 1]  # a trial of both, then a trial and the rest of each


def test_the_warm_up_of_a_trial_does_not_count(beside, monkeypatch):
    generators, now = beside("study_generators"), [0.0]
    monkeypatch.setattr(generators, "time", SimpleNamespace(monotonic=lambda: now[0]))
    trainers = [SimpleNamespace(state=SimpleNamespace(step=10)) for _ in range(2)]
    trainings = [SimpleNamespace(trainer=trainer, deadline=1000.0) for trainer in trainers]
    trial = generators.Trial(trainings, "cpu")
    for seconds in (50.0, 0.25, 0.75):
        now[0] += seconds
        trainers[0].state.step += 1
        trial.on_step_end(trainers[0])
    trial.on_fit_end(trainers[0])
    assert trial.seconds_of_step == 0.5
    assert [training.deadline for training in trainings] == [50 + generators.TRIAL] * 2


def test_what_does_not_fit_is_left(train, trained_together, beside, monkeypatch):
    generators = beside("study_generators")
    monkeypatch.setattr(generators, "TRIAL", 0.0)
    monkeypatch.setattr(generators, "fits", lambda *_: False)
    assert [row["skipped"] for row in train()] == ["more than there is time for"]
    assert not list((train.folder / "cells").glob("gan-*"))


def test_each_goes_on_alone_where_together_fails(train, monkeypatch):
    def fail(*given, **named):
        raise RuntimeError("one of them diverged")

    monkeypatch.setattr(cg.training, "fit_together", fail, raising=False)
    rows = train()
    assert rows[0]["skipped"] == "side by side: RuntimeError: one of them diverged"
    assert seeds(rows) == [(0, 1, 4), (1, 1, 4)]


def test_what_is_known_at_home_is_not_packed_again(train, beside, tmp_path):
    packing, out = beside("packing"), tmp_path / "out"
    train(side_by_side=False, seeds=[0])
    (first,) = packing.pack_new([train.folder], out, known=(), most=2**20)
    size = train.folder.parent.name
    assert first == out / size / "two-classes.tar.gz.000"

    new = tmp_path / "new" / size / "two-classes"
    known = packing.bring([out, tmp_path / "nothing"], new)
    assert known == {"classifier-real-c0-p100", next(new.glob("gans/*")).name}
    assert packing.bring([train.folder.parents[1]], new) == known  # folders do as well
    names = {f"{size}/{name}" for name in known}
    packing.pack_new([new], tmp_path / "again", known=names, most=2**20)
    beside("carry").unpack(tmp_path / "again" / size, tmp_path / "unpacked" / "two-classes")
    assert not list((tmp_path / "unpacked").rglob("*p100*"))


def test_a_generator_that_does_not_fit_is_left_out_whole(train, beside, tmp_path, capsys):
    packing = beside("packing")
    train(side_by_side=False)
    size = train.folder.parent.name
    weights = next(train.folder.rglob("model.safetensors")).stat().st_size
    packing.pack_new([train.folder], tmp_path / "out", known=(), most=0.75 * weights)
    beside("carry").unpack(tmp_path / "out" / size, tmp_path / "there" / "two-classes")
    there = StudyFolder(tmp_path / "there" / "two-classes")
    cells = [
        cell
        for cell in cg.study.make_cells(there.study().config)
        if cell.kind == "gan" and there.is_finished(cell.name)
    ]
    assert [cell.seed for cell in cells] == [0]
    assert "is not packed: it does not fit" in capsys.readouterr().out


def test_classifiers_are_those_of_generators_that_are_here(train, beside, tmp_path):
    train(side_by_side=False)
    run, work = beside("study_run"), beside("work")
    given = parse("--seeds", "0,1")
    (_, control), (recipe, options) = run.classifiers(train.folder, given)
    assert control == {"recipe": None, "seeds": [0, 1]}
    options |= {
        "size": train.folder.parent.name,
        "classes": 2,
        "engine": None,
        "work": str(train.folder.parents[1]),
        "data": "none",
    }
    task = work.Task("part", "", str(tmp_path / "other.jsonl"), "cpu", 60, 60, True, options)
    beside("study_classifiers").run(work.Work(task))
    (row,) = work.read(tmp_path / "other.jsonl")
    assert (row["recipe"], row["finished"], row["of"]) == (recipe, 2, 2)


def test_what_hangs_does_not_cost_the_rest(beside, monkeypatch, tmp_path):
    pytest.importorskip("torch_fidelity")
    run, tasks = beside("study_run"), []
    monkeypatch.setattr(run, "run_together", lambda given, **options: tasks.extend(given))
    given = parse("--out", str(tmp_path), "--work", str(tmp_path / "work"), "--minutes", "7", "--device", "cpu")
    run.run(given)
    controls = [task for task in tasks if task.module == "study_controls"]
    assert [task.seconds for task in controls] == [run.CONTROLS] * len(beside("names").GPU_SIZES)
    trainings = [task for task in tasks if task.module == "study_generators"]
    assert trainings
    assert all(task.silence < 120 < task.seconds for task in trainings)


def test_processes_take_whole_seeds_or_whole_recipes(beside):
    run = beside("study_run")
    size = beside("names").GPU_SIZES[0]
    given = parse("--seeds", "0,1", "--recipe", "*_dcgan")
    given.rehearse = False
    recipes = [name for name in beside("configs").SIZES[size].config.recipes if name.endswith("_dcgan")]
    assert len(recipes) > 1
    together = [options for _, options in run.trainings([size], given, side_by_side=True)]
    assert [(options["recipe"], options["seeds"]) for options in together] == [(name, [0, 1]) for name in recipes]
    apart = [options for _, options in run.trainings([size], given, side_by_side=False)]
    assert [(o["recipe"], o["seeds"]) for o in apart] == [(name, [seed]) for seed in (0, 1) for name in recipes]
