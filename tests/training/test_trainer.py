import json
import math
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

import condgan as cg
from condgan.regularizers import CriticRegularizer, GeneratorRegularizer
from condgan.training import Callback, fit_together
from condgan.training.checkpoint import newest_step, read_newest_checkpoint, write_checkpoint
from saved import assert_same, assert_same_networks, saved


class Recorder(Callback):
    """Writes down every hook that is called, with the steps done by then."""

    def __init__(self, every: int = 1):
        super().__init__(every)
        self.calls = []

    def __getattribute__(self, name):
        if name.startswith("on_"):
            return lambda trainer, *rest: self.calls.append((name, trainer.state.step))
        return super().__getattribute__(name)


class At(Callback):
    """Calls a function at the end of one step."""

    def __init__(self, step, fn):
        super().__init__()
        self.step, self.fn = step, fn

    def on_step_end(self, trainer):
        if trainer.state.step == self.step:
            self.fn(trainer)


class RunningMeanScore(CriticRegularizer):
    """A regularizer with state: pulls scores towards their running mean."""

    def __init__(self, weight, *, every=1):
        super().__init__(weight, every=every)
        self.register_buffer("mean", torch.zeros(()))

    def penalty(self, critic, batch):
        self.mean.lerp_(batch.real.score.detach().mean(), 0.1)
        return (batch.real.score - self.mean).square().mean()


class FakeMagnitude(GeneratorRegularizer):
    def penalty(self, generator, batch):
        return batch.x_fake.square().mean()


RICH = {
    "critic_steps": 2,
    "schedule": "linear",
    "dequantize": True,
    "label_distribution": "paired",
    "augment": cg.DiffAugment(),
}


def rich(make_trainer, **options) -> cg.Trainer:
    regularizers = [RunningMeanScore(0.1, every=3), FakeMagnitude(0.1, every=2)]
    return make_trainer(**{**RICH, "regularizers": regularizers, **options})


def test_the_same_seed_twice_is_bit_equal(make_trainer, tiny_images):
    first, again, other = (rich(make_trainer, seed=seed) for seed in (5, 5, 6))
    for trainer in (first, again, other):
        torch.rand(3)
        trainer.fit(tiny_images, steps=4, batch_size=6)
    assert_same(saved(first), saved(again))
    with pytest.raises(AssertionError):
        assert_same(saved(first)["generator"], saved(other)["generator"])


def test_dropout_draws_from_states_of_the_trainer(make_trainer, tiny_images):
    quiet, noisy = make_trainer(), make_trainer(callbacks=[At(2, lambda trainer: torch.manual_seed(0))])
    for trainer in (quiet, noisy):
        trainer.fit(tiny_images, steps=4, batch_size=6)
    assert_same(quiet.networks.critic.state_dict(), noisy.networks.critic.state_dict())


def test_fit_leaves_the_default_generators_alone(make_trainer, tiny_images):
    before = torch.get_rng_state()
    trainer = make_trainer()
    trainer.fit(tiny_images, steps=2, batch_size=6)
    trainer.sample(torch.tensor([0, 1]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("stop_at", "max_resident_bytes"), [(1, 2**32), (3, 2**32), (3, 0)])
def test_a_resumed_run_equals_the_uninterrupted_one(make_trainer, tiny_images, tmp_path, stop_at, max_resident_bytes):
    def build(name):
        evaluate = cg.Evaluate(lambda trainer: {"mean": float(trainer.sample([0, 1]).mean())}, every=2)
        loggers = [cg.CSVLogger(tmp_path / f"{name}.csv", every=1), cg.JSONLLogger(tmp_path / f"{name}.jsonl", every=2)]
        return rich(make_trainer, callbacks=[evaluate, cg.EarlyStopping("mean", patience=99), *loggers])

    whole = build("whole")
    whole.fit(tiny_images, steps=6, batch_size=6)
    cut = build("cut")
    stop = At(stop_at, lambda trainer: trainer.request_stop("test"))
    cut.callbacks = (*cut.callbacks, stop, At(stop_at, lambda trainer: trainer.save(tmp_path / "run")))
    cut.fit(tiny_images, steps=6, batch_size=6, max_resident_bytes=max_resident_bytes)
    assert cut.state.step == stop_at

    resumed = build("cut")
    nn.init.zeros_(next(resumed.networks.generator.parameters()))
    assert resumed.resume(tmp_path / "run")
    torch.rand(7)
    resumed.fit(tiny_images, steps=6, batch_size=6, max_resident_bytes=max_resident_bytes)
    assert_same(saved(whole), saved(resumed))
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "cut.csv").read_bytes()
    assert (tmp_path / "whole.jsonl").read_bytes() == (tmp_path / "cut.jsonl").read_bytes()
    assert torch.equal(whole.sample([0, 1, 2]), resumed.sample([0, 1, 2]))


def test_values_of_lazy_terms_survive_a_resume(make_trainer, tiny_images, tmp_path):
    def build(name):
        logger = cg.CSVLogger(tmp_path / name, every=3)
        return make_trainer(regularizers=[RunningMeanScore(1.0, every=4)], callbacks=[logger])

    whole, cut = build("whole.csv"), build("cut.csv")
    whole.fit(tiny_images, steps=3, batch_size=6)
    cut.callbacks = (*cut.callbacks, At(2, lambda trainer: trainer.save(tmp_path)))
    cut.fit(tiny_images, steps=3, batch_size=6)
    resumed = build("cut.csv")
    resumed.resume(tmp_path)
    resumed.fit(tiny_images, steps=3, batch_size=6)
    assert "running_mean_score" in (tmp_path / "whole.csv").read_text()
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "cut.csv").read_bytes()


def test_checkpoints_hold_what_other_callbacks_did_in_their_step(make_trainer, tiny_images, tmp_path):
    class Fail(Callback):
        def on_critic_step_end(self, trainer):
            if trainer.state.step == 2:
                raise RuntimeError("bug")

    trainer = make_trainer(callbacks=[cg.Checkpoint(tmp_path, every=1), StepCounter(), Fail()])
    with pytest.raises(RuntimeError, match="bug"):
        trainer.fit(tiny_images, steps=9, batch_size=6)
    again = StepCounter()
    make_trainer(callbacks=[again]).resume(tmp_path)
    assert again.count == 2


class StepCounter(Callback):
    count = 0

    def on_step_end(self, trainer):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_callbacks_may_come_and_go_between_runs(make_trainer, tiny_images, tmp_path):
    counter = StepCounter()
    trainer = make_trainer(callbacks=[Callback(), counter])
    trainer.fit(tiny_images, steps=2, batch_size=6)
    trainer.save(tmp_path)
    again, new = StepCounter(), StepCounter()
    assert make_trainer(callbacks=[Recorder(), again, new]).resume(tmp_path)
    assert (again.count, new.count) == (2, 0)


def test_steps_are_the_total(make_trainer, tiny_images):
    recorder = Recorder()
    trainer = make_trainer(callbacks=[recorder], critic_steps=2)
    state = trainer.fit(tiny_images, steps=3, batch_size=6)
    assert (state.step, state.images_seen, state.total_steps) == (3, 36, 3)
    weights = saved(trainer)
    assert trainer.fit(tiny_images, steps=3, batch_size=6).step == 3
    assert_same(saved(trainer), weights)
    assert trainer.fit(tiny_images, steps=4, batch_size=6).step == 4
    assert recorder.calls[:5] == [
        ("on_fit_start", 0),
        ("on_critic_step_end", 0),
        ("on_critic_step_end", 0),
        ("on_generator_step_end", 1),
        ("on_step_end", 1),
    ]
    assert recorder.calls.count(("on_fit_end", 3)) == 2


def test_on_step_end_is_called_every_so_often_and_in_the_last_step(make_trainer, tiny_images):
    recorder = Recorder(every=3)
    make_trainer(callbacks=[recorder]).fit(tiny_images, steps=8, batch_size=6)
    assert [step for hook, step in recorder.calls if hook == "on_step_end"] == [3, 6, 8]
    assert [step for hook, step in recorder.calls if hook == "on_generator_step_end"] == list(range(1, 9))


class Rates(Callback):
    def __init__(self):
        super().__init__()
        self.rates = []

    def on_step_end(self, trainer):
        content = saved(trainer)
        self.rates.append(
            tuple(content[f"{role}_optimizer"]["param_groups"][0]["lr"] for role in ("generator", "critic"))
        )


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("constant", [1, 1, 1, 1]), ("linear", [1, 0.75, 0.5, 0.25]), (lambda p: (1 - p) ** 2, [1, 0.5625, 0.25, 0.0625])],
)
def test_schedules_hit_their_rates(make_trainer, tiny_images, schedule, factors):
    rates = Rates()
    optimizers = {
        "generator_optimizer": cg.OptimizerConfig(lr=0.01),
        "critic_optimizer": cg.OptimizerConfig(lr=0.04),
    }
    trainer = make_trainer(callbacks=[rates], schedule=schedule, **optimizers)
    trainer.fit(tiny_images, steps=4, batch_size=6)
    assert rates.rates == [(pytest.approx(0.01 * f), pytest.approx(0.04 * f)) for f in factors]


def test_a_schedule_scales_the_updates(make_trainer, tiny_images):
    trainer = make_trainer(schedule=lambda progress: 0.0 if progress else 1.0)
    trainer.fit(tiny_images, steps=1, batch_size=6)
    start = [p.detach().clone() for p in trainer.networks.critic.parameters()]
    trainer.fit(tiny_images, steps=3, batch_size=6)
    assert all(torch.equal(a, b) for a, b in zip(start, trainer.networks.critic.parameters(), strict=True))


class Count(CriticRegularizer):
    def __init__(self, *, every):
        super().__init__(2.0, every=every)
        self.values = []

    def penalty(self, critic, batch):
        return batch.real.score.new_ones(())

    def forward(self, critic, batch):
        self.values.append(super().forward(critic, batch))
        return self.values[-1]


def test_lazy_terms_rest_between_their_turns(make_trainer, tiny_images):
    regularizer = Count(every=4)
    trainer = make_trainer(critic_steps=3, regularizers=[regularizer])
    trainer.fit(tiny_images, steps=3, batch_size=6)
    assert [float(value) for value in regularizer.values] == [8.0, 8.0, 8.0]  # critic updates 0, 4 and 8 of 9


class Explode(Callback):
    """Puts NaN into one weight of the network after a step."""

    def __init__(self, step, network):
        super().__init__()
        self.step, self.network = step, network

    def on_step_end(self, trainer):
        if trainer.state.step == self.step:
            with torch.no_grad():
                next(getattr(trainer.networks, self.network).parameters()).fill_(math.nan)


@pytest.mark.parametrize("options", [{}, {"regularizers": [RunningMeanScore(1.0, every=100)]}])
def test_divergence_names_step_and_term_and_is_never_saved(make_trainer, tiny_images, tmp_path, options):
    callbacks = [cg.Checkpoint(tmp_path, every=2, keep=9), Explode(3, "critic"), Recorder()]
    trainer = make_trainer(callbacks=callbacks, **options)
    with pytest.raises(cg.TrainingDivergedError, match="critic/adversarial was not finite in step 3") as caught:
        trainer.fit(tiny_images, steps=20, batch_size=6)
    assert (caught.value.step, caught.value.term) == (3, "critic/adversarial")
    assert trainer.state.step == 4  # found at the next checkpoint
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000002.pt"]
    assert ("on_exception", 4) in callbacks[2].calls
    for use in (trainer.read_metrics, lambda: trainer.save(tmp_path), lambda: trainer.sample([0])):
        with pytest.raises(cg.TrainingDivergedError):
            use()
    assert trainer.resume(tmp_path)
    assert trainer.sample([0]).isfinite().all()


def test_divergence_is_found_at_the_end_without_callbacks(make_trainer, tiny_images):
    trainer = make_trainer(callbacks=[Explode(1, "generator")])
    with pytest.raises(cg.TrainingDivergedError, match="in step 1"):
        trainer.fit(tiny_images, steps=2, batch_size=6)


def test_a_torn_checkpoint_is_passed_over(make_trainer, tiny_images, tmp_path):
    trainer = make_trainer(callbacks=[cg.Checkpoint(tmp_path, every=2, keep=2)])
    trainer.fit(tiny_images, steps=4, batch_size=6)
    newest = tmp_path / "checkpoint-000000004.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    resumed = make_trainer(callbacks=[cg.Checkpoint(tmp_path, every=1, keep=1)])
    with pytest.warns(UserWarning, match=r"skipping .*000000004\.pt"):
        assert resumed.resume(tmp_path)
    assert resumed.state.step == 2
    resumed.fit(tiny_images, steps=4, batch_size=6)
    assert_same(saved(trainer)["ema"], saved(resumed)["ema"])
    assert make_trainer().resume(tmp_path)


def test_resume_without_checkpoints_is_false(make_trainer, tmp_path):
    assert not make_trainer().resume(tmp_path)
    assert not make_trainer().resume(tmp_path / "missing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "seed was 0 and is 1."),
        ({"loss": cg.HingeLoss()}, f"loss was '{cg.MinimaxLoss()!r}' and is '{cg.HingeLoss()!r}'."),
        (
            {"critic_optimizer": cg.OptimizerConfig(lr=1e-3)},
            "critic_optimizer.lr was 0.0002 and is 0.001.",
        ),
        (
            {"label_distribution": cg.Tempered(0.5), "precision": "bf16"},
            "label_distribution was 'balanced' and is 'Tempered(exponent=0.5)'; precision was 'fp32' and is 'bf16'.",
        ),
        ({"regularizers": [FakeMagnitude(1.0)]}, "regularizers was [] and is"),
    ],
)
def test_resume_refuses_other_settings_and_names_both_values(make_trainer, tiny_images, tmp_path, options, message):
    trainer = make_trainer()
    trainer.fit(tiny_images, steps=1, batch_size=6)
    trainer.save(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"other settings: {message}")):
        make_trainer(**options).resume(tmp_path)


def other_critic(**options):
    return cg.ACDCGANCritic(**{"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 4, **options})


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"dropout": 0.5, "batch_norm": True}, "critic_arguments.dropout was 0.3 and is 0.5."),
        ({"dropout": 0.3, "batch_norm": False}, "critic_arguments.batch_norm was True and is False."),
    ],
)
def test_resume_refuses_other_networks(make_trainer, tiny_images, tmp_path, network, message):
    trainer = make_trainer()
    trainer.fit(tiny_images, steps=1, batch_size=6)
    trainer.save(tmp_path)
    other = cg.Trainer(
        trainer.networks.generator,
        other_critic(**network),
        loss=cg.MinimaxLoss(),
        auxiliary=cg.AuxiliaryClassifierLoss(),
        device="cpu",
    )
    with pytest.raises(ValueError, match=re.escape(f"other settings: {message}")):
        other.resume(tmp_path)


class ScaledLoss:
    """A loss of the user's own, whose `repr` does not tell its weight."""

    needs_real_scores = False

    def __init__(self, scale):
        self.scale = scale

    def critic(self, real_score, fake_score):
        return self.scale * (fake_score.mean() - real_score.mean())

    def generator(self, real_score, fake_score):
        return -self.scale * fake_score.mean()


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        ({"loss": ScaledLoss(1.0)}, {"loss": ScaledLoss(2.0)}, r"term_attributes.loss was .*1\.0.* and is .*2\.0"),
        ({"schedule": lambda p: 1.0}, {"schedule": lambda p: 1 - p}, r"schedules.schedule was \[1.0, 1.*0.875"),
        (
            {"critic_optimizer": cg.OptimizerConfig(lr=lambda p: 1e-3)},
            {"critic_optimizer": cg.OptimizerConfig(lr=lambda p: 2e-3)},
            r"schedules.critic_optimizer, 0 was \[0.001.* and is \[0.002",
        ),
        (
            {"regularizers": [FakeMagnitude(lambda p: 1.0)]},
            {"regularizers": [FakeMagnitude(lambda p: p)]},
            r"schedules.weight of regularizer 0 was \[1.0.* and is \[0.0",
        ),
    ],
)
def test_resume_compares_functions_and_terms_of_the_users_own(make_trainer, tiny_images, tmp_path, then, now, message):
    trainer = make_trainer(**then)
    trainer.fit(tiny_images, steps=1, batch_size=6)
    trainer.save(tmp_path)
    with pytest.raises(ValueError, match=message):
        make_trainer(**now).resume(tmp_path)
    assert make_trainer(**then).resume(tmp_path)


@pytest.mark.parametrize(
    ("options", "now", "fit", "message"),
    [
        ({}, {}, {"batch_size": 4}, "batch_size was 6 and is 4; generator_batch_size was 6 and is 4."),
        ({}, {}, {"generator_batch_size": 8}, "generator_batch_size was 6 and is 8."),
        ({"schedule": "linear"}, {}, {"steps": 3}, "steps was 2 and is 3."),
        (
            {"sampling": lambda n: [1, 1, 1], "label_distribution": "paired"},
            {"sampling": lambda n: [2, 1, 1], "label_distribution": "paired"},
            {},
            "sampling was [0.333333",
        ),
        (
            {"label_distribution": lambda n: [1, 1, 1]},
            {"label_distribution": lambda n: [1 + 1e-6, 1, 1]},
            {},
            "label_distribution was [0.333333",
        ),
    ],
)
def test_fit_says_what_differs_from_before_a_resume(make_trainer, tiny_images, tmp_path, options, now, fit, message):
    stop = At(1, lambda trainer: trainer.request_stop("test"))
    trainer = make_trainer(callbacks=[stop, cg.Checkpoint(tmp_path)], **options)
    trainer.fit(tiny_images, steps=2, batch_size=6)
    resumed = make_trainer(**{**options, **now})
    assert resumed.resume(tmp_path)
    with pytest.warns(UserWarning, match=re.escape(f"in another way than it was saved: {message}")) as warned:
        resumed.fit(tiny_images, **{"steps": 2, "batch_size": 6, **fit})
    assert warned[0].filename == __file__


def test_training_longer_is_no_change_where_nothing_follows_progress(make_trainer, tiny_images, tmp_path):
    make_trainer(callbacks=[cg.Checkpoint(tmp_path)]).fit(tiny_images, steps=1, batch_size=6)
    resumed = make_trainer()
    assert resumed.resume(tmp_path)
    assert resumed.fit(tiny_images, steps=2, batch_size=6).step == 2


def poison(trainer, part):
    with torch.no_grad():
        next(iter(trainer._modules()[part].state_dict().values())).view(-1)[0] = math.nan


@pytest.mark.parametrize("part", ["generator", "critic", "ema", "critic_regularizers"])
def test_nothing_that_is_not_finite_is_saved(make_trainer, tiny_images, tmp_path, part):
    checkpoint = cg.Checkpoint(tmp_path, every=1)
    last = At(3, lambda trainer: poison(trainer, part))
    trainer = make_trainer(callbacks=[checkpoint, last], regularizers=[RunningMeanScore(1.0)])
    with pytest.raises(cg.TrainingDivergedError, match=rf"{part}\.\S+ was not finite in step 2"):
        trainer.fit(tiny_images, steps=3, batch_size=6)
    assert newest_step(tmp_path) == 2
    for use in (lambda: trainer.save_pretrained(tmp_path / "pair"), lambda: trainer.sample([0])):
        with pytest.raises(cg.TrainingDivergedError):
            use()
    assert not (tmp_path / "pair").exists()


def test_networks_that_are_not_finite_are_refused_before_training(make_trainer, tiny_images):
    trainer = make_trainer()
    poison(trainer, "critic")
    with pytest.raises(ValueError, match=r"must be finite, got NaN or infinity in critic\.\S+ before the first step"):
        trainer.fit(tiny_images, steps=1, batch_size=6)


def rewritten(folder, change):
    """Change the content of the newest checkpoint as its writer could."""
    content = read_newest_checkpoint(folder)
    change(content)
    write_checkpoint(folder, newest_step(folder), content)


def shrink(content):
    name, value = next(iter(content["critic"].items()))
    content["critic"][name] = value[:-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shrink, r"critic\.\S+ was \(0, .* of torch.float32 and is \(1, "),
        (lambda content: content["ema"].popitem(), r"ema\.\S+ was absent and is \("),
        (lambda content: content["generator"].update(more=torch.ones(2)), r"generator.more was \(2,\) .* is absent"),
        (
            lambda content: content["generator"].update((k, v.double()) for k, v in content["generator"].items()),
            "generator.* of torch.float64 and is .* of torch.float32",
        ),
        (
            lambda content: content["critic_optimizer"]["param_groups"][0]["params"].pop(),
            r"critic_optimizer.group 0 was \d+ parameters and is \d+ parameters",
        ),
    ],
    ids=["shape", "absent", "more", "dtype", "optimizer"],
)
def test_a_checkpoint_of_other_networks_leaves_the_trainer_as_it_was(
    make_trainer, tiny_images, tmp_path, change, message
):
    trainer = make_trainer(network_seed=1)
    trainer.fit(tiny_images, steps=1, batch_size=6)
    trainer.save(tmp_path)
    rewritten(tmp_path, change)
    resumed = make_trainer()
    with pytest.raises(ValueError, match=message):
        resumed.resume(tmp_path)
    assert resumed.state.step == 0
    assert_same_networks(resumed, make_trainer())


def test_a_checkpoint_that_lacks_a_part_gives_way_to_the_one_before(make_trainer, tiny_images, tmp_path):
    make_trainer(callbacks=[cg.Checkpoint(tmp_path, every=1)]).fit(tiny_images, steps=2, batch_size=6)
    rewritten(tmp_path, lambda content: content.pop("ema"))
    resumed = make_trainer()
    with pytest.warns(UserWarning, match=r"000000002\.pt, which lacks ema; .*000000001\.pt is used instead"):
        assert resumed.resume(tmp_path)
    assert resumed.state.step == 1


def as_on_cuda(content):
    """Give a checkpoint what is different in one that was written on CUDA."""
    content["settings"]["device"] = "cuda"
    content["rng"] = content["sample_rng"] = torch.zeros(16, dtype=torch.uint8)
    content["default_rngs"]["cuda"] = torch.zeros(16, dtype=torch.uint8)
    for role in ("generator", "critic"):
        for group in content[f"{role}_optimizer"]["param_groups"]:
            group |= {"capturable": True, "lr": torch.tensor(group["lr"])}


def test_a_checkpoint_of_another_device_gives_its_generator_and_continues(make_trainer, tiny_images, tmp_path):
    trainer = make_trainer()
    trainer.fit(tiny_images, steps=1, batch_size=6)
    trainer.save(tmp_path)
    rewritten(tmp_path, as_on_cuda)
    resumed = make_trainer(network_seed=1)
    with pytest.warns(UserWarning, match=r"was written on cuda, got a trainer on cpu\..*not bit for bit"):
        assert resumed.resume(tmp_path)
    assert torch.equal(resumed.sample([0, 1], seed=0), trainer.sample([0, 1], seed=0))
    assert resumed.fit(tiny_images, steps=3, batch_size=6).step == 3
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        make_trainer(seed=1).resume(tmp_path)


class Remembers(Callback):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_numbers_of_numpy_train_and_resume_as_pythons_own(make_trainer, tiny_images, tmp_path):
    def build(number=lambda value: value):
        return make_trainer(
            seed=number(3),
            critic_steps=number(2),
            ema_decay=number(0.5),
            generator_optimizer=cg.OptimizerConfig(lr=number(1e-3), betas=(number(0.0), number(0.5))),
            callbacks=[Remembers(number(0.5)), cg.JSONLLogger(tmp_path / "log.jsonl", every=1)],
        )

    as_numpy = np.array([1])[0].dtype.type
    numpy_number = lambda value: np.float64(value) if isinstance(value, float) else as_numpy(value)  # noqa: E731
    trainer = build(numpy_number)
    trainer.fit(tiny_images, steps=np.int64(1), batch_size=np.int64(6))
    trainer.save(tmp_path)
    json.dumps(trainer.settings)
    resumed = build()
    assert resumed.resume(tmp_path)
    assert resumed.callbacks[0].value == 0.5
    resumed.fit(tiny_images, steps=2, batch_size=6)
    whole = build()
    whole.fit(tiny_images, steps=2, batch_size=6)
    assert_same_networks(whole, resumed)


def test_states_that_cannot_be_saved_are_refused_before_training(make_trainer, tiny_images):
    trainer = make_trainer(callbacks=[Remembers({1, 2}), Remembers(object())])
    with pytest.raises(TypeError, match="the state of Remembers must consist of tensors and plain values"):
        trainer.fit(tiny_images, steps=1, batch_size=6)
    assert trainer.state.step == 0


@pytest.mark.parametrize("seed", [2**32, 2**62 - 1])
def test_long_seeds_train_and_resume(make_trainer, tiny_images, tmp_path, seed):
    trainer = make_trainer(seed=seed)
    trainer.fit(tiny_images, steps=1, batch_size=6)
    trainer.save(tmp_path)
    assert make_trainer(seed=seed).resume(tmp_path)


@pytest.mark.parametrize("seed", [-1, 2**62])
def test_seeds_out_of_range_are_refused(make_trainer, seed):
    with pytest.raises(ValueError, match=r"seed must lie in \[0, 2\*\*62\), got"):
        make_trainer(seed=seed)


class LossWithoutRepr:
    needs_real_scores = False

    def critic(self, real_score, fake_score):
        return fake_score.mean() - real_score.mean()

    def generator(self, real_score, fake_score):
        return -fake_score.mean()


def test_settings_name_parts_of_the_users_own_without_addresses(make_trainer):
    parts = {"schedule": lambda p: 1 - p, "label_distribution": lambda counts: counts, "loss": LossWithoutRepr()}
    settings = make_trainer(**parts).settings
    assert "lambda" in settings["schedule"]
    assert "LossWithoutRepr" in settings["loss"]
    assert "0x" not in repr(settings)


def test_fit_refuses_other_data_after_a_resume(make_trainer, tiny_images, tmp_path):
    trainer = make_trainer()
    trainer.fit(tiny_images, steps=1, batch_size=6)
    trainer.save(tmp_path)
    resumed = make_trainer()
    resumed.resume(tmp_path)
    other = cg.data.ArrayDataset(255 - tiny_images.images, tiny_images.labels)
    with pytest.raises(ValueError, match="other data"):
        resumed.fit(other, steps=2, batch_size=6)


def test_save_within_a_step_is_refused(make_trainer, tiny_images, tmp_path):
    class Impatient(Callback):
        def on_critic_step_end(self, trainer):
            trainer.save(tmp_path)

    with pytest.raises(RuntimeError, match="within a step"):
        make_trainer(callbacks=[Impatient()]).fit(tiny_images, steps=1, batch_size=6)


def test_an_interrupt_within_a_step_leaves_the_checkpoints_as_they_were(make_trainer, tiny_images, tmp_path):
    class Interrupt(Callback):
        def on_critic_step_end(self, trainer):
            if trainer.state.step == 2:
                raise KeyboardInterrupt

    trainer = make_trainer(callbacks=[Interrupt(), cg.Checkpoint(tmp_path, every=2)])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(tiny_images, steps=4, batch_size=6)
    whole = make_trainer()
    whole.fit(tiny_images, steps=4, batch_size=6)
    resumed = make_trainer()
    resumed.resume(tmp_path)
    assert resumed.state.step == 2
    resumed.fit(tiny_images, steps=4, batch_size=6)
    assert_same(saved(whole)["critic"], saved(resumed)["critic"])


def test_samples_depend_on_their_seed_alone_and_disturb_nothing(make_trainer, tiny_images):
    def draw(trainer):
        trainer.sample([0, 1, 2])
        trainer.sample([0, 1, 2], seed=1)

    quiet, sampled = make_trainer(), make_trainer(callbacks=[At(step, draw) for step in (1, 2, 3)])
    for trainer in (quiet, sampled):
        trainer.fit(tiny_images, steps=4, batch_size=6)
    for part in ("generator", "critic", "ema", "rng", "generator_optimizer"):
        assert_same(saved(quiet)[part], saved(sampled)[part])
    x = quiet.sample(torch.tensor([2, 0]), seed=3)
    assert x.shape == (2, 1, 16, 16)
    assert torch.equal(x, sampled.sample([2, 0], seed=3))
    assert not torch.equal(x, quiet.sample([2, 0], seed=4))
    assert not torch.equal(quiet.sample([2, 0]), quiet.sample([2, 0]))
    assert not quiet.networks.generator.embedding.embedding.weight.grad.isnan().any()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 3], r"values in \[0, 3\), got values in \[0, 3\]"),
        ([-1, 0], r"got values in \[-1, 0\]"),
        (4, "takes labels, got the number 4"),
        (torch.tensor([0.0]), "must be integers"),
        (torch.zeros(2, 2, dtype=torch.int64), r"of shape \(N,\)"),
    ],
)
def test_labels_out_of_range_are_refused(make_trainer, y, message):
    with pytest.raises(ValueError, match=message):
        make_trainer().sample(y)


def test_unconditional_training(point_networks):
    rng = torch.Generator().manual_seed(0)
    data = cg.data.ArrayDataset(torch.randn(64, 2, generator=rng), [0, 1] * 32)
    trainer = cg.Trainer(
        *point_networks(None),
        loss=cg.WassersteinLoss(),
        regularizers=[cg.GradientPenalty()],
        critic_steps=2,
        device="cpu",
    )
    metrics = trainer.fit(data, steps=3, batch_size=8, generator_batch_size=4).metrics
    assert trainer.sample(5, seed=0).shape == (5, 2)
    assert not any("class" in name for name in metrics)
    with pytest.raises(ValueError, match="takes the number of images"):
        trainer.sample([0, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_from_numpy_train_networks_of_either_precision(point_networks, dtype):
    points = torch.randn(16, 2, dtype=torch.float64).numpy()
    data = cg.data.ArrayDataset(points, [0, 1] * 8)
    generator, critic = point_networks(2, head="class")
    trainer = cg.Trainer(
        generator.to(dtype), critic.to(dtype), loss=cg.RelativisticLoss(), label_distribution="paired", device="cpu"
    )
    trainer.fit(data, steps=2, batch_size=4)
    assert trainer.sample([0, 1]).dtype == dtype


@pytest.mark.parametrize("hook", ["on_critic_step_end", "on_generator_step_end", "on_step_end", "on_fit_start"])
def test_a_callback_may_stop_training(make_trainer, tiny_images, hook):
    class Stop(Callback):
        pass

    def stop(trainer):
        if trainer.state.step >= 2 or hook == "on_fit_start":
            trainer.request_stop("enough")

    callback, recorder = Stop(), Recorder()
    setattr(callback, hook, stop)
    trainer = make_trainer(callbacks=[callback, recorder])
    steps = {"on_fit_start": 0, "on_critic_step_end": 3}.get(hook, 2)
    assert trainer.fit(tiny_images, steps=9, batch_size=6).step == steps
    assert recorder.calls[-1] == ("on_fit_end", steps)
    delattr(callback, hook)
    assert trainer.fit(tiny_images, steps=4, batch_size=6).step == 4


def test_networks_may_have_frozen_parts(make_trainer, tiny_images):
    trainer = make_trainer()
    frozen = make_trainer().networks
    frozen.critic.blocks[0].requires_grad_(False)
    trainer = cg.Trainer(frozen.generator, frozen.critic, loss=cg.HingeLoss(), device="cpu")
    before = frozen.critic.blocks[0].conv.weight.clone(), frozen.critic.blocks[1].conv.weight.clone()
    trainer.fit(tiny_images, steps=1, batch_size=6)
    assert torch.equal(frozen.critic.blocks[0].conv.weight, before[0])
    assert not torch.equal(frozen.critic.blocks[1].conv.weight, before[1])


def test_regularizers_must_be_regularizers(make_trainer):
    with pytest.raises(TypeError, match=r"regularizers must be a list of .*, got a AuxiliaryClassifierLoss"):
        make_trainer(regularizers=[cg.AuxiliaryClassifierLoss()])


@pytest.fixture
def terminal(monkeypatch, capsys):
    """Standard error that says it is a terminal; returns how many progress bars it has shown."""
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda stream: True)

    def bars():
        shown = capsys.readouterr()
        assert shown.out == ""
        return shown.err.count("\n"), shown.err

    return bars


def test_fit_shows_a_bar_on_a_terminal(make_trainer, tiny_images, terminal):
    make_trainer().fit(tiny_images, steps=3, batch_size=6)
    count, text = terminal()
    assert count == 1
    assert "3/3" in text
    assert "critic=" in text


def test_fit_is_silent_when_asked_or_without_a_terminal(make_trainer, tiny_images, terminal, monkeypatch):
    make_trainer().fit(tiny_images, steps=2, batch_size=6, progress=False)
    fit_together([make_trainer()], tiny_images, steps=2, batch_size=6, progress=False)
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda stream: False)
    make_trainer().fit(tiny_images, steps=2, batch_size=6)
    fit_together([make_trainer()], tiny_images, steps=2, batch_size=6)
    assert terminal() == (0, "")


def test_only_the_main_process_shows_a_bar(make_trainer, tiny_images, terminal, monkeypatch):
    monkeypatch.setattr(cg.Trainer, "is_main_process", False)
    make_trainer().fit(tiny_images, steps=2, batch_size=6)
    assert terminal() == (0, "")


def test_a_progress_bar_among_the_callbacks_is_the_only_one(make_trainer, tiny_images, terminal):
    make_trainer(callbacks=[cg.ProgressBar()]).fit(tiny_images, steps=2, batch_size=6)
    assert terminal()[0] == 1
    fit_together([make_trainer(callbacks=[cg.ProgressBar()])], tiny_images, steps=2, batch_size=6)
    assert terminal()[0] == 1


def test_trainers_together_share_one_bar(make_trainer, tiny_images, terminal):
    fit_together([make_trainer(), make_trainer(seed=1)], tiny_images, steps=3, batch_size=6)
    count, text = terminal()
    assert count == 1
    assert "6/6" in text


def test_a_bar_changes_nothing_that_is_saved(make_trainer, tiny_images, terminal):
    shown, silent = make_trainer(), make_trainer()
    shown.fit(tiny_images, steps=3, batch_size=6)
    silent.fit(tiny_images, steps=3, batch_size=6, progress=False)
    assert_same(saved(shown), saved(silent))


OPTIMIZERS = {
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=5e-4),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9),
    "groups": lambda parameters: torch.optim.AdamW(
        [{"params": parameters[:2], "lr": 1e-3}, {"params": parameters[2:]}], lr=1e-4
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_with_an_optimizer_of_the_users_resumes_exactly(name, make_trainer, tiny_images, tmp_path):
    def build(**options):
        factory = OPTIMIZERS[name]
        return make_trainer(generator_optimizer=factory, critic_optimizer=factory, schedule="linear", **options)

    whole, cut, resumed = build(), build(callbacks=[At(3, lambda trainer: trainer.request_stop("test"))]), build()
    whole.fit(tiny_images, steps=6, batch_size=6)
    cut.fit(tiny_images, steps=6, batch_size=6)
    cut.save(tmp_path)
    assert resumed.resume(tmp_path)
    resumed.fit(tiny_images, steps=6, batch_size=6)
    assert_same(saved(whole), saved(resumed))
    start = make_trainer().networks
    for network in ("generator", "critic"):
        pairs = zip(getattr(start, network).parameters(), getattr(whole.networks, network).parameters(), strict=True)
        assert all(not torch.equal(before, after) for before, after in pairs)


def test_a_schedule_scales_the_rate_of_each_group(make_trainer, tiny_images):
    trainer = make_trainer(critic_optimizer=OPTIMIZERS["groups"], schedule="linear")
    trainer.fit(tiny_images, steps=4, batch_size=6)
    rates = [group["lr"] for group in saved(trainer)["critic_optimizer"]["param_groups"]]
    assert rates == [pytest.approx(1e-3 / 4), pytest.approx(1e-4 / 4)]


def test_an_optimizer_is_described_by_class_and_hyperparameters(make_trainer, tiny_images, tmp_path):
    trainer = make_trainer(critic_optimizer=OPTIMIZERS["RMSprop"])
    trainer.fit(tiny_images, steps=1, batch_size=6)
    described = trainer.settings["critic_optimizer"]
    assert (described["class"], [group["lr"] for group in described["groups"]]) == ("RMSprop", [5e-4])
    assert described["groups"][0]["alpha"] == 0.99
    json.dumps(described)
    trainer.save(tmp_path)
    assert make_trainer(critic_optimizer=OPTIMIZERS["RMSprop"]).resume(tmp_path)
    other = make_trainer(critic_optimizer=lambda parameters: torch.optim.RMSprop(parameters, lr=1e-3))
    with pytest.raises(ValueError, match=r"critic_optimizer.groups was .*'lr': 0.0005.* and is .*'lr': 0.001"):
        other.resume(tmp_path)
    with pytest.raises(ValueError, match=r"critic_optimizer.class was 'RMSprop' and is None"):
        make_trainer().resume(tmp_path)


def test_a_factory_must_make_an_optimizer_of_the_parameters_it_is_given(make_trainer):
    with pytest.raises(TypeError, match=r"generator_optimizer must be .* got a str"):
        make_trainer(generator_optimizer=lambda parameters: "adam")
    with pytest.raises(ValueError, match=r"critic_optimizer is given, got one of 1 parameters"):
        make_trainer(critic_optimizer=lambda parameters: torch.optim.SGD(parameters[:1], lr=0.1))
