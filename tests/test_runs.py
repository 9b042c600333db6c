import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from condgan import AuxiliaryClassifierLoss, DCGANGenerator, DiffAugment, Tempered, runs
from condgan.data import ArrayDataset
from condgan.files import from_json, to_json
from condgan.metrics.extractors import module_extractor
from condgan.recipes import CONDITIONAL
from condgan.runs import (
    Pool,
    RecipeConfig,
    class_kid,
    held_out_kid,
    load_generator,
    load_run,
    locked,
    make_trainer,
    train_generator,
)

TINY = RecipeConfig(recipe="acgan", steps=6, batch_size=8, base_channels=4, keep="best_kid", evaluations=3)


class FromSamples:
    """A trainer that samples what it is given, class by class."""

    def __init__(self, by_class):
        self.by_class = by_class

    def sample(self, y, *, seed):
        rng = torch.Generator().manual_seed(seed)
        return torch.stack([self.by_class(int(label), rng) for label in y])


@pytest.fixture
def criterion():
    """Compares with two classes of flat images around -0.5 and 0.5, in the features "mean of each quarter"."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(80) % 2
    x = (y * 127 + 64 + 20 * torch.randn(80, generator=rng)).round().clamp(0, 255).byte()
    data = ArrayDataset(x.view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous(), y)
    pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    return class_kid(data, module_extractor(pool, name="quarters", image_shape=(1, 8, 8)))


def flat(value, spread, rng):
    return torch.full((1, 8, 8), float(value + spread * torch.randn((), generator=rng)))


def test_wrong_classes_and_collapse_are_worse_than_the_right_thing(criterion):
    right = criterion(FromSamples(lambda y, rng: flat(y - 0.5, 0.157, rng)))
    swapped = criterion(FromSamples(lambda y, rng: flat(0.5 - y, 0.157, rng)))
    collapsed = criterion(FromSamples(lambda y, rng: flat(y - 0.5, 0.0, rng)))
    assert abs(right) < 0.01
    assert right < collapsed < swapped
    assert swapped > 1


def test_training_leaves_the_kept_generator(phantoms, tmp_path):
    """The second evaluation is the best by decree; its generator is that of a run that ends there."""
    train = phantoms[0]

    def decree(trainer):
        return abs(trainer.state.step - 4)

    run = train_generator(TINY, train, tmp_path / "kept", criterion=decree, precision="fp32", device="cpu")
    assert run.kept.step == 4
    assert [entry.step for entry in run.kept.evaluations] == [2, 4, 6]
    assert run.kept.criterion == "best_kid"
    assert load_run(tmp_path / "kept") == run
    shorter = dataclasses.replace(TINY, steps=4, keep="last")
    train_generator(shorter, train, tmp_path / "short", precision="fp32", device="cpu")
    kept, short = (load_generator(tmp_path / name).state_dict() for name in ("kept", "short"))
    assert all(torch.equal(kept[name], short[name]) for name in kept)
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="needs a criterion"):
        train_generator(TINY, train, tmp_path / "other", device="cpu")


def test_what_is_kept_is_chosen_among_steps_with_a_critic(phantoms, tmp_path):
    config = RecipeConfig(
        recipe="small_data",
        steps=12,
        batch_size=8,
        base_channels=4,
        keep="best_kid",
        evaluations=3,
        options={"pretraining": 0.5},
    )
    run = train_generator(config, phantoms[0], tmp_path, criterion=lambda trainer: 0.0, device="cpu")
    assert [entry.step for entry in run.kept.evaluations] == [8, 10, 12]


def test_the_time_that_is_left_is_told_from_steps_with_a_critic(monkeypatch):
    """Six steps of a second without a critic, which say nothing about the others; then steps of a minute."""
    clock = accumulate([0.0] + [1.0] * 6 + [60.0] * 6)
    monkeypatch.setattr(runs, "_SECONDS_BETWEEN_REPORTS", -1.0)
    monkeypatch.setattr(runs.time, "perf_counter", lambda: next(clock))
    said = []
    watch = runs._Watch(math.inf, said.append)
    trainer = SimpleNamespace(state=SimpleNamespace(step=0, total_steps=12), pretraining_steps=6)
    watch.on_fit_start(trainer)
    for step in range(1, 13):
        trainer.state.step = step
        watch.on_step_end(trainer)
    monkeypatch.undo()
    watch.load_state_dict({"seconds": 5.0})  # as a checkpoint of an earlier version has it
    assert (watch.seconds, watch.before) == (5.0, 0.0)
    assert said[:6] == [f"step {step} of 12, without a critic so far" for step in range(1, 7)]
    assert said[6:8] == ["step 7 of 12, about 5 min left", "step 8 of 12, about 4 min left"]


def test_evaluations_do_not_change_the_training(phantoms, tmp_path):
    last = dataclasses.replace(TINY, keep="last")
    evaluated = train_generator(
        TINY, phantoms[0], tmp_path / "a", criterion=lambda t: -t.state.step, precision="fp32", device="cpu"
    )
    plain = train_generator(last, phantoms[0], tmp_path / "b", precision="fp32", device="cpu")
    assert evaluated.last_metrics == plain.last_metrics
    assert (tmp_path / "a" / "curve.json").read_bytes() == (tmp_path / "b" / "curve.json").read_bytes()


def test_an_interrupted_run_keeps_the_same_generator(phantoms, tmp_path):
    """The best evaluation comes before the interruption, and its value is remembered."""

    def decree(trainer):
        return abs(trainer.state.step - 2)

    options = {"criterion": decree, "precision": "fp32", "device": "cpu"}
    whole = train_generator(TINY, phantoms[0], tmp_path / "whole", **options)
    steps = []

    def stop(trainer):
        steps.append(trainer.state.step)
        if steps == [2, 4]:
            trainer.request_stop("test")
        return decree(trainer)

    assert train_generator(TINY, phantoms[0], tmp_path / "cut", **{**options, "criterion": stop}) is None
    resumed = train_generator(TINY, phantoms[0], tmp_path / "cut", **options)
    assert steps == [2, 4]
    assert resumed.kept == whole.kept
    assert resumed.kept.step == 2
    kept, other = (load_generator(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(kept[name], other[name]) for name in kept)


@pytest.mark.usefixtures("tiny_classifier")
def test_the_classifier_that_judges_is_trained_once(phantoms, tmp_path):
    train, held_out, _ = phantoms
    options = {"precision": "fp32", "device": "cpu"}
    judges = [held_out_kid(train, held_out, tmp_path / "judge.safetensors", seed=seed, **options) for seed in (0, 1)]
    noise = FromSamples(lambda y, rng: 2 * torch.rand(1, 16, 16, generator=rng) - 1)
    assert judges[0](noise) == judges[1](noise) > 0
    other = held_out_kid(train, held_out, tmp_path / "other.safetensors", seed=1, **options)
    assert other(noise) != judges[0](noise)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": "best"}, "Did you mean 'best_kid'"),
        ({"evaluations": 0}, "evaluations must be at least 1"),
        ({"networks": "resnets"}, "Did you mean 'resnet'"),
        ({"options": {"ema_decai": 0.9}}, "Did you mean 'ema_decay'"),
        ({"auxiliary": {"fake": 1.0}}, "auxiliary must be among fake_weight"),
        ({"auxiliary": {"fake_weight": "1"}}, "weights of auxiliary must be .* int or float, .* got fake_weight='1'"),
        ({"auxiliary": {"fake_weight": -1.0}}, "fake_weight must be at least 0"),
        ({"class_balance": "weight"}, "Did you mean 'weights'"),
        ({"sampling": "paired"}, "a distribution of the classes must be one of .* got 'paired'"),
        ({"sampling": Tempered(0.5)}, r"str, .* got sampling=Tempered\(exponent=0.5\)\. .* such as 'tempered:0.5'"),
        ({"label_distribution": "tempered:x"}, "with a number T, such as 'tempered:0.5', got 'tempered:x'"),
        ({"augment": DiffAugment()}, r"a policy must be .* str, .* got augment=DiffAugment"),
        ({"augment": "flips"}, "operations in policy must be among"),
        ({"steps": 2.5}, r"int, .* got steps=2.5\. Pass whole numbers"),
        ({"generator_batch_size": 0}, "generator_batch_size must be at least 1"),
        ({"options": {"sampling": "natural"}}, r"got 'sampling'\. Pass it beside the options: RecipeConfig\(sampling="),
        ({"options": {"loss": "hinge"}}, "options must be among"),
    ],
)
def test_wrong_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize(
    "value", [(0.5, 0.9), [1], {"a": 1}, None, math.inf, math.nan, np.float64(0.9), np.int64(3), torch.tensor(1), abs]
)
def test_options_that_a_file_would_change_are_refused(value):
    with pytest.raises(ValueError, match=r"options must be .*got ema_decay=.* Call the recipe itself"):
        dataclasses.replace(TINY, options={"ema_decay": value})


@pytest.mark.parametrize("value", [True, 3, 0.9, "linear"])
def test_options_come_back_from_a_file(value):
    config = dataclasses.replace(TINY, options={"schedule": value})
    again = from_json(RecipeConfig, json.loads(json.dumps(to_json(config))))
    assert again == config
    assert type(again.options["schedule"]) is type(value)


def three_classes():
    labels = torch.arange(3).repeat_interleave(torch.tensor([64, 16, 4]))
    return ArrayDataset(torch.zeros(84, 1, 16, 16, dtype=torch.uint8), labels)


def trainer_of(recipe="acgan", **options):
    return make_trainer(RecipeConfig(recipe=recipe, base_channels=2, **options), three_classes(), device="cpu")


def test_distributions_by_name_are_those_of_python():
    assert trainer_of(sampling="tempered:0.5", label_distribution="tempered:0.5").settings["sampling"] == repr(
        Tempered(0.5)
    )
    settings = trainer_of(sampling="natural", label_distribution="paired").settings
    assert (settings["sampling"], settings["label_distribution"]) == ("natural", "paired")
    settings = trainer_of().settings
    assert (settings["sampling"], settings["label_distribution"]) == ("balanced", "balanced")


def test_weights_that_are_not_given_are_those_of_the_recipe():
    (loss,) = trainer_of("acgan", auxiliary={"generator_weight": 0.5}).terms.auxiliary
    assert loss == AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=1.0, generator_weight=0.5)


@pytest.mark.parametrize(
    ("sampling", "probabilities"),
    [("natural", (16 / 21, 4 / 21, 1 / 21)), ("tempered:0.5", (4 / 7, 2 / 7, 1 / 7)), ("balanced", (1 / 3,) * 3)],
)
def test_the_class_loss_undoes_an_imbalance_of_what_is_sampled(sampling, probabilities):
    (loss,) = trainer_of(sampling=sampling, class_balance="prior").terms.auxiliary
    assert loss.class_prior == pytest.approx(probabilities)
    assert loss.class_weights is None
    (loss,) = trainer_of(sampling=sampling, class_balance="weights").terms.auxiliary
    assert loss.class_weights == pytest.approx([1 / p for p in probabilities])
    assert (loss.class_prior, loss.fake_weight, loss.generator_weight) == (None, 1.0, 1.0)


@pytest.mark.parametrize("recipe", CONDITIONAL)
@pytest.mark.parametrize("change", [{"class_balance": "prior"}, {"auxiliary": {"generator_weight": 0.1}}])
def test_a_recipe_with_another_class_loss_or_none_is_not_changed(recipe, change):
    losses = trainer_of(recipe).terms.auxiliary
    if any(isinstance(loss, AuxiliaryClassifierLoss) for loss in losses):
        (changed,) = trainer_of(recipe, **change).terms.auxiliary
        assert (changed.class_prior is None) is ("auxiliary" in change)
    else:
        message = f"change an AuxiliaryClassifierLoss, got recipe '{recipe}', which has none"
        with pytest.raises(ValueError, match=message):
            trainer_of(recipe, **change)


def test_a_pool_begins_with_the_images_of_a_smaller_one():
    torch.manual_seed(0)
    generator = DCGANGenerator(num_classes=2, image_shape=(1, 16, 16), base_channels=4)
    y = torch.arange(600) % 2

    def pool(labels):
        return Pool(generator, labels, seed=0, class_names=("a", "b"), source="images")

    whole = pool(y).first(600)
    assert torch.equal(whole.labels, y)
    for count in (4, 256, 300):
        assert torch.equal(pool(y).first(count).images, whole.images[:count])
    with pytest.raises(ValueError, match="the pool has 600 images, got a request for 601"):
        pool(y).first(601)


def test_pools_of_other_seeds_and_their_chunks_hold_other_images():
    torch.manual_seed(0)
    generator = DCGANGenerator(num_classes=2, image_shape=(1, 16, 16), base_channels=4)
    pools = [
        Pool(generator, torch.arange(512) % 2, seed=seed, class_names=("a", "b"), source="images")
        for seed in (0, 1, 1000, 2**33)
    ]
    chunks = [chunk for pool in pools for chunk in pool.first(512).images.split(256)]
    assert len({chunk.numpy().tobytes() for chunk in chunks}) == len(chunks)


def test_only_generators_of_the_library_are_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got no config\.json"):
        load_generator(tmp_path)
    (tmp_path / "generator").mkdir()
    for name in ("DCGANCritic", "Trainer", "os"):
        (tmp_path / "generator" / "config.json").write_text(f'{{"class": "{name}"}}')
        with pytest.raises(ValueError, match=f"must hold a generator of condgan.networks, got a {name}"):
            load_generator(tmp_path)


@pytest.fixture
def at_step(monkeypatch):
    """Return a report that does something when a step is done."""
    monkeypatch.setattr(runs, "_SECONDS_BETWEEN_REPORTS", -1.0)

    def at_step(step, act):
        return lambda line: act() if line.startswith(f"step {step} of") else None

    return at_step


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def kill():
    raise SystemExit


@pytest.mark.parametrize("keep", ["last", "best_kid"])
@pytest.mark.parametrize(("stop", "error"), [(interrupt, KeyboardInterrupt), (kill, SystemExit)])
def test_a_stopped_training_leaves_what_can_be_used(phantoms, tmp_path, monkeypatch, at_step, keep, stop, error, capfd):
    """By Ctrl-C after the fifth step, or by a kill in it; the first evaluation was at the third."""
    monkeypatch.setattr(runs, "_SECONDS_BETWEEN_GENERATORS", -1.0)
    config = dataclasses.replace(TINY, steps=9, keep=keep)
    options = {"criterion": lambda trainer: trainer.state.step, "precision": "fp32", "device": "cpu"}
    with pytest.raises(error):
        train_generator(config, phantoms[0], tmp_path, report=at_step(5, stop), **options)
    run = load_run(tmp_path)
    last = 5 if error is KeyboardInterrupt else 4
    assert (run.steps, run.total_steps, run.is_finished) == (last, 9, False)
    assert run.kept.step == (last if keep == "last" else 3)
    assert (tmp_path / "samples.png").is_file()
    shorter = train_generator(
        dataclasses.replace(config, steps=run.kept.step, keep="last"), phantoms[0], tmp_path / "short", **options
    )
    stopped, short = (load_generator(folder).state_dict() for folder in (tmp_path, tmp_path / "short"))
    assert shorter.is_finished
    assert all(torch.equal(stopped[name], short[name]) for name in stopped)
    assert ("Ctrl-C again stops at once" in capfd.readouterr().err) is (error is KeyboardInterrupt)


def test_a_training_that_stops_before_its_first_evaluation_leaves_the_generator_of_its_last_step(phantoms, tmp_path):
    options = {"criterion": lambda trainer: 0.0, "precision": "fp32", "device": "cpu"}
    assert train_generator(TINY, phantoms[0], tmp_path, deadline=0.0, **options) is None
    assert load_run(tmp_path).kept == runs.KeptStep(step=1)
    load_generator(tmp_path)


def test_one_process_at_a_time_trains_into_a_folder(phantoms, tmp_path):
    def train():
        return train_generator(dataclasses.replace(TINY, keep="last"), phantoms[0], tmp_path / "run", device="cpu")

    with locked(tmp_path / "run"):
        with pytest.raises(BlockingIOError, match=r"another process is at work in .*run'\. Wait until it ends"):
            train()
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert not (tmp_path / "run").exists()
    assert train().is_finished
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_process_that_dies_leaves_no_lock(tmp_path):
    script = f"import os, filelock; filelock.FileLock({str(tmp_path / '.lock')!r}).acquire(); os._exit(1)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 1
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "cannot be read"), ("\xff", "be read"), ("[1]", "got a list"), ('{"class_names": ["a"]}', "recipe is")],
)
def test_a_damaged_or_foreign_description_is_named(tmp_path, content, message):
    (tmp_path / "run.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"run\.json must .*{message}"):
        load_run(tmp_path)
