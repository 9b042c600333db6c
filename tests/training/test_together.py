import math
import os
import signal

import pytest
import torch

import condgan as cg
from condgan.training import Callback, fit_together
from saved import assert_same, saved


class At(Callback):
    """Calls a function at the end of one step."""

    def __init__(self, step, fn):
        super().__init__()
        self.step, self.fn = step, fn

    def on_step_end(self, trainer):
        if trainer.state.step == self.step:
            self.fn(trainer)


class Ends(Callback):
    """Remembers how training ended."""

    how = None

    def on_fit_end(self, trainer):
        self.how = "as planned"

    def on_exception(self, trainer, error):
        self.how = type(error).__name__


@pytest.fixture
def make(make_trainer, tmp_path):
    """A trainer of a seed, in float64, with an evaluation, a log and checkpoints in a folder of its own."""

    def make(seed, *callbacks, folder=None, **options):
        folder = tmp_path / (folder or f"seed-{seed}")
        evaluate = cg.Evaluate(lambda trainer: {"mean": float(trainer.sample([0, 1]).mean())}, every=2)
        built_in = [evaluate, cg.CSVLogger(folder / "log.csv", every=1), cg.Checkpoint(folder, every=2)]
        trainer = make_trainer(network_seed=seed, critic_steps=2, schedule="linear", label_distribution="paired")
        return cg.Trainer(
            trainer.networks.generator.double(),
            trainer.networks.critic.double(),
            seed=seed,
            callbacks=[*callbacks, *built_in],
            **{
                "loss": cg.HingeLoss(),
                "auxiliary": cg.AuxiliaryClassifierLoss(),
                "critic_steps": 2,
                "schedule": "linear",
                "augment": cg.DiffAugment(),
                "dequantize": True,
                "device": "cpu",
                **options,
            },
        )

    return make


def fit(trainer, data, steps=6):
    return trainer.fit(data, steps=steps, batch_size=6, generator_batch_size=4)


def fit_all(trainers, data, steps=6, **options):
    return fit_together(trainers, data, steps=steps, batch_size=6, generator_batch_size=4, **options)


@pytest.mark.parametrize("max_resident_bytes", [2**32, 0])
def test_each_trainer_ends_as_if_it_were_alone(make, tiny_images, tmp_path, max_resident_bytes):
    alone = [make(seed, folder=f"alone-{seed}") for seed in (0, 1)]
    other_kind = {"loss": cg.WassersteinLoss(), "critic_steps": 3}
    alone.append(make(2, folder="alone-2", **other_kind))
    for trainer in alone:
        fit(trainer, tiny_images)
    together = [make(0), make(1), make(2, **other_kind)]
    before = torch.get_rng_state()
    states = fit_all(together, tiny_images, max_resident_bytes=max_resident_bytes)
    assert torch.equal(torch.get_rng_state(), before)
    assert states == [trainer.state for trainer in alone]
    for one, other in zip(alone, together, strict=True):
        assert_same(saved(one), saved(other))
    for seed in (0, 1, 2):
        logs = [(tmp_path / name / "log.csv").read_bytes() for name in (f"seed-{seed}", f"alone-{seed}")]
        assert logs[0] == logs[1]


def test_trainers_on_a_device_share_the_images(make, tiny_images):
    trainers = [make(0), make(1)]
    fit_all(trainers, tiny_images, steps=1)
    assert trainers[0]._sampler.store is trainers[1]._sampler.store


def test_one_that_was_resumed_further_along_ends_earlier(make, tiny_images):
    alone = [make(seed, folder=f"alone-{seed}") for seed in (0, 1)]
    for trainer in alone:
        fit(trainer, tiny_images)
    cut = make(0, At(4, lambda trainer: trainer.request_stop("test")))
    fit(cut, tiny_images)
    order = []
    trainers = [
        make(seed, *(At(step, lambda t: order.append((t.seed, t.state.step))) for step in (5, 6))) for seed in (0, 1)
    ]
    assert trainers[0].resume(next(c for c in trainers[0].callbacks if isinstance(c, cg.Checkpoint)).folder)
    states = fit_all(trainers, tiny_images)
    assert [state.step for state in states] == [6, 6]
    assert order == [(0, 5), (0, 6), (1, 5), (1, 6)]
    for one, other in zip(alone, trainers, strict=True):
        other.callbacks = one.callbacks  # their states are in a checkpoint too
        assert_same(saved(one), saved(other))


def explode(trainer):
    with torch.no_grad():
        next(trainer.networks.critic.parameters()).fill_(math.nan)


def test_a_trainer_that_fails_leaves_the_others_their_work(make, tiny_images):
    def fail(trainer):
        raise OSError("the disk is full")

    ends = [Ends() for _ in range(4)]
    alone = [make(seed, Ends(), folder=f"alone-{seed}") for seed in (0, 3)]
    for trainer in alone:
        fit(trainer, tiny_images)
    trainers = [make(0, ends[0]), make(1, ends[1], At(3, explode)), make(2, ends[2], At(2, fail)), make(3, ends[3])]
    with pytest.raises(ExceptionGroup, match="2 of 4 trainers failed; the others are trained") as caught:
        fit_all(trainers, tiny_images)
    assert [end.how for end in ends] == ["as planned", "TrainingDivergedError", "OSError", "as planned"]
    full, diverged = caught.value.exceptions
    assert isinstance(full, OSError)
    assert isinstance(diverged, cg.TrainingDivergedError)
    assert full.__notes__ == ["in trainer 2 of those trained together (seed 2)"]
    assert diverged.__notes__ == ["in trainer 1 of those trained together (seed 1)"]
    for one, other in zip(alone, (trainers[0], trainers[3]), strict=True):
        assert_same(saved(one), saved(other))
    assert trainers[1].resume(next(c for c in trainers[1].callbacks if isinstance(c, cg.Checkpoint)).folder)
    assert trainers[1].state.step == 2


def interruption(how):
    def interrupt(trainer):
        if how == "a callback":
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGINT)

    return interrupt


@pytest.mark.parametrize("how", ["Ctrl-C", "a callback"])
def test_an_interrupt_ends_all_between_steps_and_each_resumes_exactly(make, tiny_images, tmp_path, how):
    ends = [Ends() for _ in range(3)]
    handler = signal.getsignal(signal.SIGINT)
    trainers = [make(0, ends[0]), make(1, ends[1], At(3, interruption(how))), make(2, ends[2])]
    with pytest.raises(KeyboardInterrupt):
        fit_all(trainers, tiny_images)
    assert signal.getsignal(signal.SIGINT) is handler
    assert [end.how for end in ends] == ["KeyboardInterrupt"] * 3
    assert [trainer.state.step for trainer in trainers] == [3, 3, 2]
    resumed = [make(0), make(1), make(2)]
    assert all(trainer.resume(tmp_path / f"seed-{trainer.seed}") for trainer in resumed)
    assert [trainer.state.step for trainer in resumed] == [trainer.state.step for trainer in trainers]
    fit_all(resumed, tiny_images)
    for trainer in resumed:
        alone = make(trainer.seed, folder=f"alone-{trainer.seed}")
        fit(alone, tiny_images)
        assert_same(saved(alone), saved(trainer))


@pytest.mark.parametrize(
    ("how", "note"),
    [
        ("Ctrl-C", "failed before: TrainingDivergedError"),
        ("a callback", "the trainer with seed 1 could not end normally: TrainingDivergedError"),
    ],
)
def test_an_interrupt_is_raised_even_if_a_trainer_has_failed(make, tiny_images, how, note):
    ends = Ends()
    trainers = [
        make(0, At(3, interruption(how))),
        make(1, At(1, explode)),
        make(2, ends),
    ]
    trainers[1].callbacks = tuple(c for c in trainers[1].callbacks if isinstance(c, (At, cg.Checkpoint)))
    trainers[1].callbacks[-1].every = 99
    with pytest.raises(KeyboardInterrupt) as caught:
        fit_all(trainers, tiny_images)
    assert caught.value.__notes__[0].startswith(note)
    assert ends.how == "KeyboardInterrupt"


def test_one_may_stop_before_the_others(make, tiny_images):
    trainers = [make(0, At(2, lambda trainer: trainer.request_stop("enough"))), make(1)]
    assert [state.step for state in fit_all(trainers, tiny_images, steps=4)] == [2, 4]


def test_what_does_not_fit_is_refused_before_any_training(make, tiny_images):
    other = cg.data.ArrayDataset(255 - tiny_images.images, tiny_images.labels)
    first, second = make(0), make(1)
    fit(second, other, steps=1)
    with pytest.raises(ValueError, match="other data"):
        fit_all([first, second], tiny_images)
    assert first.state.step == 0
    with pytest.raises(ValueError, match="trainers must differ from each other, got one of 2 twice"):
        fit_all([first, first], tiny_images)
    assert fit_all([], tiny_images) == []
