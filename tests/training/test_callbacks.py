import csv
import inspect
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import condgan as cg
from condgan import training
from condgan.training import Callback

HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


def subclasses(cls: type) -> list[type]:
    return [found for child in cls.__subclasses__() for found in (child, *subclasses(child))]


LIBRARY = [cls for cls in subclasses(Callback) if cls.__module__.startswith("condgan.")]
PUBLIC = [cls for cls in LIBRARY if cls.__module__.startswith("condgan.training.") and not cls.__name__.startswith("_")]


def construct(cls: type, folder, **options) -> Callback:
    """Make a callback from the arguments that it requires."""
    known = {
        "fn": lambda trainer: {"score": 1.0},
        "metric": "score",
        "folder": folder,
        "path": folder / "log",
        "every": 2,
    }
    parameters = inspect.signature(cls).parameters.values()
    required = {p.name: known[p.name] for p in parameters if p.default is p.empty}
    return cls(**{**required, **options})


def test_all_callbacks_are_known():
    assert len(HOOKS) == 7
    assert {cls.__name__ for cls in PUBLIC} >= {"Checkpoint", "CSVLogger", "SampleGrid", "ProgressBar", "Evaluate"}
    for cls in PUBLIC:
        assert getattr(training, cls.__name__) is cls
        assert getattr(cg, cls.__name__) is cls


@pytest.mark.parametrize("cls", LIBRARY)
def test_hooks_have_the_signatures_of_the_base(cls):
    own = [name for name in vars(cls) if name.startswith("on_")]
    assert set(own) <= set(HOOKS), "a hook that nobody calls"
    for name in own:
        assert inspect.signature(getattr(cls, name)) == inspect.signature(getattr(Callback, name)), name


@pytest.mark.parametrize("cls", PUBLIC)
def test_callbacks_check_every_and_survive_a_run_and_a_checkpoint(cls, make_trainer, tiny_images, tmp_path):
    callback = construct(cls, tmp_path)
    if "every" in inspect.signature(cls).parameters:
        with pytest.raises(ValueError, match="every must be at least 1, got 0"):
            construct(cls, tmp_path, every=0)
    evaluate = cg.Evaluate(lambda trainer: {"score": float(trainer.state.step)}, every=1)
    trainer = make_trainer(callbacks=[evaluate, callback])
    trainer.fit(tiny_images, steps=3, batch_size=6)
    trainer.save(tmp_path / "run")
    again = construct(cls, tmp_path)
    resumed = make_trainer(callbacks=[evaluate, again])
    resumed.resume(tmp_path / "run")
    assert again.state_dict() == callback.state_dict()
    resumed.fit(tiny_images, steps=4, batch_size=6)


def test_a_callback_of_ones_own_needs_no_super_init(make_trainer, tiny_images):
    class Bare(Callback):
        def __init__(self):
            self.steps = []

        def on_step_end(self, trainer):
            self.steps.append(trainer.state.step)

    bare = Bare()
    make_trainer(callbacks=[bare]).fit(tiny_images, steps=2, batch_size=6)
    assert bare.steps == [1, 2]


def test_evaluate_puts_plain_numbers_among_the_metrics(make_trainer, tiny_images, tmp_path):
    def count(trainer):
        return {"step": torch.tensor(trainer.state.step), "square": trainer.state.step**2}

    logger = cg.JSONLLogger(tmp_path / "log.jsonl", every=1)
    trainer = make_trainer(callbacks=[cg.Evaluate(count, every=2), logger])
    metrics = trainer.fit(tiny_images, steps=5, batch_size=6).metrics
    assert (metrics["step"], metrics["square"]) == (5.0, 25.0)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row.get("square") for row in rows] == [None, 4.0, 4.0, 16.0, 25.0]


def scripted(values):
    """An evaluation that returns the values one after the other."""
    values = iter(values)
    return lambda trainer: {"score": next(values)}


@pytest.mark.parametrize(
    ("values", "mode", "patience", "stopped_at"),
    [
        ([3, 2, 2, 2.5, 1], "min", 2, 4),
        ([1, 2, 2, 1.5, 3], "max", 2, 4),
        ([3, 2, 2, 1, 1, 0], "min", 2, None),
        ([1, 2, 3, 4, 5], "min", 3, 4),
        ([float("nan"), float("nan"), 1], "min", 2, 2),
    ],
)
def test_early_stopping(make_trainer, tiny_images, values, mode, patience, stopped_at):
    stopping = cg.EarlyStopping("score", patience=patience, mode=mode)
    trainer = make_trainer(callbacks=[stopping, cg.Evaluate(scripted(values), every=1)])
    state = trainer.fit(tiny_images, steps=len(values), batch_size=6)
    assert state.step == (stopped_at or len(values))


def test_early_stopping_counts_only_evaluations_of_its_metric(make_trainer, tiny_images):
    other = cg.Evaluate(lambda trainer: {"other": 0.0}, every=1)
    own = cg.Evaluate(scripted([3.0, 2.0, 1.0]), every=4)
    trainer = make_trainer(callbacks=[own, other, stopping := cg.EarlyStopping("score", patience=2)])
    with pytest.raises(KeyError, match=r"needs the metric 'score', got .*'other'"):
        trainer.fit(tiny_images, steps=12, batch_size=6)
    trainer = make_trainer(callbacks=[cg.Evaluate(scripted([4.0, 3.0, 2.0, 1.0]), every=4), other, stopping])
    trainer.state.metrics["score"] = 9.0
    assert trainer.fit(tiny_images, steps=12, batch_size=6).step == 12


def test_early_stopping_goes_on_counting_after_a_resume(make_trainer, tiny_images, tmp_path):
    def build(values):
        return make_trainer(callbacks=[cg.Evaluate(scripted(values), every=1), cg.EarlyStopping("score", patience=3)])

    trainer = build([1, 2, 3])
    trainer.fit(tiny_images, steps=3, batch_size=6)
    trainer.save(tmp_path)
    resumed = build([4, 5])
    resumed.resume(tmp_path)
    assert resumed.fit(tiny_images, steps=9, batch_size=6).step == 4


@pytest.mark.parametrize("options", [{"mode": "best"}, {"patience": 0}])
def test_early_stopping_refuses(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        cg.EarlyStopping("score", **options)


@pytest.mark.parametrize(
    ("values", "mode", "kept"),
    [
        ([3, 1, 2], "min", 2),
        ([1, 3, 2], "max", 2),
        ([1, 1, 1], "min", 1),
        ([float("nan"), 5, float("nan")], "max", 2),
        ([float("nan"), float("nan"), 5], "min", 3),
    ],
)
def test_the_generator_of_the_best_evaluation_is_kept(make_trainer, tiny_images, tmp_path, values, mode, kept):
    best = cg.KeepBest(tmp_path, "score", mode=mode)
    make_trainer(callbacks=[cg.Evaluate(scripted(values), every=1), best]).fit(tiny_images, steps=3, batch_size=6)
    assert (best.step, best.best) == (kept, values[kept - 1])
    assert list(best.evaluations) == [1, 2, 3]
    there = make_trainer()
    there.fit(tiny_images, steps=kept, batch_size=6)
    expected = there.ema.state_dict()
    found = cg.DCGANGenerator.from_pretrained(tmp_path).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_keeping_the_best_goes_on_after_a_resume(make_trainer, tiny_images, tmp_path):
    def build(values):
        best = cg.KeepBest(tmp_path / "best", "score")
        return best, make_trainer(callbacks=[cg.Evaluate(scripted(values), every=1), best])

    best, trainer = build([2, 1])
    trainer.fit(tiny_images, steps=2, batch_size=6)
    trainer.save(tmp_path / "run")
    weights = (tmp_path / "best" / "model.safetensors").read_bytes()
    best, resumed = build([1.5, 0.5])
    resumed.resume(tmp_path / "run")
    resumed.fit(tiny_images, steps=3, batch_size=6)
    assert (best.step, best.evaluations) == (2, {1: 2, 2: 1, 3: 1.5})
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == weights
    resumed.fit(tiny_images, steps=4, batch_size=6)
    assert best.step == 4
    assert (tmp_path / "best" / "model.safetensors").read_bytes() != weights


def test_keeping_the_best_needs_its_metric(make_trainer, tiny_images, tmp_path):
    with pytest.raises(ValueError, match="mode must be among max, min, got 'best'"):
        cg.KeepBest(tmp_path, "score", mode="best")
    callbacks = [cg.Evaluate(lambda trainer: {"other": 0.0}, every=1), cg.KeepBest(tmp_path / "a", "kid")]
    with pytest.raises(KeyError, match=r"KeepBest needs the metric 'kid', got .*'other'"):
        make_trainer(callbacks=callbacks).fit(tiny_images, steps=1, batch_size=6)
    best = cg.KeepBest(tmp_path / "a", "score")
    callbacks = [cg.Evaluate(scripted([1.0]), every=2), cg.Evaluate(lambda trainer: {"other": 0.0}, every=1), best]
    trainer = make_trainer(callbacks=callbacks)
    trainer.state.metrics["score"] = 9.0
    trainer.fit(tiny_images, steps=2, batch_size=6)
    assert best.evaluations == {2: 1.0}


def test_a_training_that_keeps_nothing_says_so(make_trainer, tiny_images, tmp_path):
    with pytest.raises(ValueError, match="KeepBest needs a number 'score' to keep a generator by, got no evaluation"):
        make_trainer(callbacks=[cg.KeepBest(tmp_path, "score")]).fit(tiny_images, steps=1, batch_size=6)
    callbacks = [cg.Evaluate(scripted([math.nan]), every=1), cg.KeepBest(tmp_path, "score")]
    with pytest.raises(ValueError, match=r"got \[nan\]"):
        make_trainer(callbacks=callbacks).fit(tiny_images, steps=1, batch_size=6)

    class Stop(cg.Callback):
        def on_step_end(self, trainer):
            trainer.request_stop("time limit")

    stopped = make_trainer(callbacks=[Stop(), cg.KeepBest(tmp_path, "score")])
    assert stopped.fit(tiny_images, steps=2, batch_size=6).step == 1, "its first evaluation may be to come"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_checkpoints_come_every_so_often_at_the_end_and_on_interrupts(make_trainer, tiny_images, tmp_path):
    make_trainer(callbacks=[cg.Checkpoint(tmp_path / "a", every=2, keep=9)]).fit(tiny_images, steps=5, batch_size=6)
    assert names(tmp_path / "a") == [f"checkpoint-{step:09d}.pt" for step in (2, 4, 5)]

    class Interrupt(Callback):
        def on_step_end(self, trainer):
            if trainer.state.step == 3:
                raise error

    for error, steps in ((KeyboardInterrupt(), [2, 3]), (RuntimeError("bug"), [2])):
        folder = tmp_path / type(error).__name__
        trainer = make_trainer(callbacks=[cg.Checkpoint(folder, every=2, keep=9), Interrupt()])
        with pytest.raises(type(error)):
            trainer.fit(tiny_images, steps=5, batch_size=6)
        assert names(folder) == [f"checkpoint-{step:09d}.pt" for step in steps]


def test_a_run_does_not_overwrite_another(make_trainer, tiny_images, tmp_path):
    def build():
        callbacks = [cg.CSVLogger(tmp_path / "log.csv", every=1), cg.Checkpoint(tmp_path, every=1)]
        return make_trainer(callbacks=callbacks)

    build().fit(tiny_images, steps=2, batch_size=6)
    log = (tmp_path / "log.csv").read_bytes()
    with pytest.raises(ValueError, match=r"holds a run of 2 steps.*resume"):
        build().fit(tiny_images, steps=4, batch_size=6)
    assert (tmp_path / "log.csv").read_bytes() == log
    again = build()
    again.resume(tmp_path)
    again.fit(tiny_images, steps=4, batch_size=6)
    assert names(tmp_path) == ["checkpoint-000000003.pt", "checkpoint-000000004.pt", "log.csv"]


def test_checkpoint_needs_to_keep_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="keep must be at least 1"):
        cg.Checkpoint(tmp_path, keep=0)


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_image(path):
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image))


def fit(make_trainer, tiny_images, *callbacks, steps=4, **options):
    trainer = make_trainer(callbacks=callbacks, **options)
    trainer.fit(tiny_images, steps=steps, batch_size=6)
    return trainer


def test_csv_rows_are_the_metrics(make_trainer, tiny_images, tmp_path):
    path = tmp_path / "deep" / "log.csv"
    trainer = fit(make_trainer, tiny_images, cg.CSVLogger(path, every=2), steps=5, critic_steps=2)
    rows = read_csv(path)
    assert [(row["step"], row["images_seen"]) for row in rows] == [("2", "24"), ("4", "48"), ("5", "60")]
    last = {name: float(value) for name, value in rows[-1].items() if name not in ("step", "images_seen")}
    assert last == trainer.state.metrics
    assert {"critic/adversarial", "generator/auxiliary_classifier", "critic/gradient_norm"} <= set(last)


def test_a_metric_that_comes_late_adds_a_column(make_trainer, tiny_images, tmp_path):
    path = tmp_path / "log.csv"
    evaluate = cg.Evaluate(lambda trainer: {"quality": trainer.state.step / 10}, every=3)
    fit(make_trainer, tiny_images, evaluate, cg.CSVLogger(path, every=1), steps=5)
    rows = read_csv(path)
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["quality"] for row in rows] == ["", "", "0.3", "0.3", "0.5"]
    assert path.read_text().count("quality") == 1


@pytest.mark.parametrize(("logger", "read"), [(cg.CSVLogger, read_csv), (cg.JSONLLogger, None)])
def test_rows_of_steps_that_are_redone_are_dropped(make_trainer, tiny_images, tmp_path, logger, read):
    read = read or (lambda path: [json.loads(line) for line in path.read_text().splitlines()])
    path, run = tmp_path / "log", tmp_path / "run"
    fit(make_trainer, tiny_images, logger(path, every=1), steps=2).save(run)
    first = path.read_text()
    resumed = make_trainer(callbacks=[logger(path, every=1)])
    resumed.resume(run)
    resumed.fit(tiny_images, steps=5, batch_size=6)
    whole = path.read_text()
    assert whole.startswith(first)
    with path.open("a") as file:
        file.write(whole.splitlines()[-1][:20])  # a killed process leaves half a line
    for _ in range(2):
        resumed = make_trainer(callbacks=[logger(path, every=1)])
        resumed.resume(run)
        resumed.fit(tiny_images, steps=5, batch_size=6)
        assert path.read_text() == whole
    assert [int(row["step"]) for row in read(path)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("logger", [cg.CSVLogger, cg.JSONLLogger])
def test_earlier_rows_survive_a_failure_while_they_are_written_anew(
    make_trainer, tiny_images, tmp_path, monkeypatch, logger
):
    def fail(descriptor):
        raise OSError("no space left on device")

    path = tmp_path / "log"
    fit(make_trainer, tiny_images, logger(path, every=1), steps=2).save(tmp_path)
    before = path.read_bytes()
    resumed = make_trainer(callbacks=[logger(path, every=1)])
    resumed.resume(tmp_path)
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        resumed.fit(tiny_images, steps=3, batch_size=6)
    assert path.read_bytes() == before


def test_every_line_is_json_whatever_the_metrics_are(make_trainer, tiny_images, tmp_path):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    path, run = tmp_path / "log.jsonl", tmp_path / "run"
    broken = cg.Evaluate(lambda trainer: {"recall": float("nan"), "distance": float("inf")}, every=1)
    fit(make_trainer, tiny_images, broken, cg.JSONLLogger(path, every=1), steps=2).save(run)
    resumed = make_trainer(callbacks=[broken, cg.JSONLLogger(path, every=1)])
    resumed.resume(run)
    resumed.fit(tiny_images, steps=3, batch_size=6)  # writes the earlier lines anew
    rows = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [(row["step"], row["recall"], row["distance"]) for row in rows] == [(n, None, None) for n in (1, 2, 3)]


def test_a_logger_that_never_wrote_leaves_an_earlier_file_alone(make_trainer, tiny_images, tmp_path):
    class Fail(Callback):
        def on_fit_start(self, trainer):
            raise RuntimeError

    path = tmp_path / "log.csv"
    fit(make_trainer, tiny_images, cg.CSVLogger(path), steps=1)
    before = path.read_text()
    with pytest.raises(RuntimeError):
        fit(make_trainer, tiny_images, cg.CSVLogger(path), Fail())
    assert path.read_text() == before


def test_sample_grids_have_a_row_for_each_class(make_trainer, tiny_images, tmp_path):
    trainer = fit(make_trainer, tiny_images, cg.SampleGrid(tmp_path, every=2, columns=5, seed=7), steps=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples-000000002.png", "samples-000000003.png"]
    pixels = read_image(tmp_path / "samples-000000003.png")
    assert pixels.shape == (3 * 18 + 2, 5 * 18 + 2)
    expected = cg.images.to_uint8(trainer.sample(cg.class_grid(3, 5), seed=7))
    assert torch.equal(pixels[2:18, 2:18], expected[0, 0])
    assert torch.equal(pixels[38:54, 20:36], expected[11, 0])


def test_sample_grids_of_colour_images_without_classes(tmp_path):
    shape = {"num_classes": None, "image_shape": (3, 16, 20), "base_channels": 2}
    data = cg.data.ArrayDataset(torch.zeros(8, 3, 16, 20, dtype=torch.uint8), [0, 1] * 4)
    trainer = cg.Trainer(
        cg.DCGANGenerator(latent_dim=4, **shape),
        cg.DCGANCritic(**shape),
        loss=cg.HingeLoss(),
        device="cpu",
        callbacks=[cg.SampleGrid(tmp_path, every=1, columns=3)],
    )
    trainer.fit(data, steps=1, batch_size=4)
    assert read_image(tmp_path / "samples-000000001.png").shape == (3 * 18 + 2, 3 * 22 + 2, 3)


def test_sample_grids_of_other_channels_show_the_first(tmp_path):
    shape = (2, 16, 16)
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, *shape), dtype=torch.uint8, generator=rng)
    data = cg.data.ArrayDataset(images, torch.arange(8) % 2)
    trainer = cg.recipes.acgan(data, base_channels=2, device="cpu", callbacks=[cg.SampleGrid(tmp_path, columns=3)])
    trainer.fit(data, steps=1, batch_size=4)
    assert read_image(tmp_path / "samples-000000001.png").shape == (2 * 18 + 2, 3 * 18 + 2)


def test_sample_grids_of_points_are_refused(point_networks, tmp_path):
    data = cg.data.ArrayDataset(torch.randn(8, 2), torch.arange(8) % 2)
    generator, critic = point_networks(2)
    callbacks = [cg.SampleGrid(tmp_path)]
    trainer = cg.Trainer(generator, critic, loss=cg.HingeLoss(), device="cpu", callbacks=callbacks)
    with pytest.raises(ValueError, match=r"images of shape \(C, H, W\), got samples of shape \(2,\)"):
        trainer.fit(data, steps=1, batch_size=4)


def test_the_progress_bar_shows_steps_and_losses(make_trainer, tiny_images, capsys):
    fit(make_trainer, tiny_images, cg.ProgressBar(every=2, description="phantom"), steps=5)
    shown = capsys.readouterr().err.split("\r")[-1]
    assert shown.startswith("phantom: 100%")
    assert "5/5" in shown
    assert "generator=" in shown
    assert "img/s=" in shown


def test_the_progress_bar_closes_on_errors(make_trainer, tiny_images, capsys):
    class Fail(Callback):
        def on_step_end(self, trainer):
            if trainer.state.step == 3:
                raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        fit(make_trainer, tiny_images, cg.ProgressBar(every=1), Fail())
    assert "3/4" in capsys.readouterr().err.split("\r")[-1]


def test_an_evaluation_must_return_metrics_by_name(make_trainer, tiny_images):
    trainer = make_trainer(callbacks=[cg.Evaluate(lambda trainer: 0.5, every=1)])
    with pytest.raises(TypeError, match=r"must be metrics by name, such as .*, got a float"):
        trainer.fit(tiny_images, steps=1, batch_size=6)


def test_a_tilde_is_the_home_folder(make_trainer, tiny_images, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    callbacks = [cg.Checkpoint("~/run", every=1), cg.CSVLogger("~/log.csv", every=1), cg.SampleGrid("~/grids", every=1)]
    trainer = make_trainer(callbacks=callbacks)
    trainer.fit(tiny_images, steps=1, batch_size=6)
    trainer.save_pretrained("~/pair")
    assert cg.DCGANGenerator.from_pretrained("~/pair/generator").num_classes == 3
    assert make_trainer().resume("~/run")
    assert sorted(path.name for path in home.iterdir()) == ["grids", "log.csv", "pair", "run"]
    assert not list(here.iterdir())
