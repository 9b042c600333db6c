import json
from functools import partial

import pytest
import torch

import condgan as cg
from condgan.training.optimizer import schedule_factor, set_learning_rate
from saved import assert_same_networks, saved


@pytest.mark.parametrize(("weight_decay", "kind"), [(0.0, torch.optim.Adam), (0.1, torch.optim.AdamW)])
def test_one_step_is_adam_with_decoupled_decay(weight_decay, kind):
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    config = cg.OptimizerConfig(lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=weight_decay)
    optimizer = config.build([weight])
    assert type(optimizer) is kind
    gradient = torch.tensor([0.3, -0.004], dtype=torch.float64)
    weight.grad = gradient.clone()
    optimizer.step()
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    expected = start * (1 - 0.1 * weight_decay) - 0.1 * gradient / (gradient.abs() + 1e-3)
    torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("options", [{"lr": 0}, {"eps": -1}, {"weight_decay": -1}, {"betas": (0.9, 1.0)}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        cg.OptimizerConfig(**options)


def test_a_rate_on_the_device_is_float32_whatever_the_default_is():
    optimizer = cg.OptimizerConfig().build([torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))])
    optimizer.param_groups[0]["lr"] = torch.zeros((), device="meta")  # as if read into memory of another device
    torch.set_default_dtype(torch.float64)
    try:
        set_learning_rate(optimizer, 0.1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(optimizer.param_groups[0]["lr"], torch.tensor(0.1))


def test_schedules():
    assert [schedule_factor("linear", p) for p in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert schedule_factor("constant", 0.7) == 1.0
    assert schedule_factor(lambda p: p**2, 0.5) == 0.25
    with pytest.raises(ValueError, match=r"\['constant', 'linear'\] or a callable, got 'cosine'"):
        schedule_factor("cosine", 0.0)


class Rates(cg.Callback):
    """Notes the learning rates of generator and critic in each step."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_step_end(self, trainer):
        content = saved(trainer)
        names = ("generator_optimizer", "critic_optimizer")
        self.rates.append(tuple(float(content[name]["param_groups"][0]["lr"]) for name in names))


RATE = cg.PiecewiseLinearSchedule([(0.0, 0.01), (0.5, 0.02), (1.0, 0.0)])


@pytest.mark.parametrize("schedule", ["constant", "linear"])
@pytest.mark.parametrize("beta", [0.9, cg.CosineSchedule(0.9, 0.99)], ids=["Adam", "ScheduledAdam"])
def test_a_network_may_have_a_schedule_of_its_own(schedule, beta, make_trainer, tiny_images):
    trainer = make_trainer(
        generator_optimizer=cg.OptimizerConfig(lr=RATE, betas=(0.0, beta)),
        critic_optimizer=cg.OptimizerConfig(lr=0.04),
        schedule=schedule,
        callbacks=[rates := Rates()],
    )
    trainer.fit(tiny_images, steps=4, batch_size=4)
    factors = [1, 1, 1, 1] if schedule == "constant" else [1, 0.75, 0.5, 0.25]
    expected = zip([0.01, 0.015, 0.02, 0.01], factors, strict=True)
    assert rates.rates == [(pytest.approx(rate * factor), pytest.approx(0.04 * factor)) for rate, factor in expected]


def test_a_clipped_optimizer_follows_its_schedule_too(make_trainer, tiny_images, tmp_path):
    def build(lr=RATE, **options):
        return make_trainer(critic_optimizer=cg.WeightClipping(cg.OptimizerConfig(lr=lr)), **options)

    trainer = build(callbacks=[rates := Rates()])
    trainer.fit(tiny_images, steps=4, batch_size=4)
    assert [rate for _, rate in rates.rates] == pytest.approx([0.01, 0.015, 0.02, 0.01])
    trainer.save(tmp_path)
    assert build().resume(tmp_path)
    with pytest.raises(ValueError, match=r"critic_optimizer\.lr was"):
        build(lr=cg.PiecewiseLinearSchedule([(0.0, 0.01)])).resume(tmp_path)
    assert "lr" not in build(lr=0.01).settings["critic_optimizer"], "as before there were schedules"


def test_a_rate_may_begin_and_end_at_zero_but_not_below(make_trainer, tiny_images):
    config = cg.OptimizerConfig(lr=cg.PiecewiseLinearSchedule([(0.0, 0.0), (0.5, 0.01), (1.0, 0.0)]))
    trainer = make_trainer(generator_optimizer=config)
    start = [parameter.detach().clone() for parameter in trainer.networks.generator.parameters()]
    trainer.callbacks = (Compare(start, moved := []),)
    trainer.fit(tiny_images, steps=2, batch_size=4)
    assert moved == [False, True]
    for points in ([(0.0, -1e-3), (1.0, 1e-3)], [(0.0, 1e-3), (1.0, -1e-3)]):
        with pytest.raises(ValueError, match="a scheduled lr must be at least 0"):
            cg.OptimizerConfig(lr=cg.PiecewiseLinearSchedule(points))


def test_a_scheduled_rate_is_followed_whoever_builds_the_optimizer(make_trainer, tiny_images):
    config = cg.OptimizerConfig(lr=RATE)
    for make in (config, config.build, lambda parameters: config.build(parameters), cg.WeightClipping(config)):
        trainer = make_trainer(generator_optimizer=make)
        trainer.fit(tiny_images, steps=4, batch_size=4)
        assert trainer._updaters["generator"].optimizer.param_groups[0]["lr"] == pytest.approx(RATE(0.75))


class Compare(cg.Callback):
    """Notes after each step whether the generator has left its initial weights."""

    def __init__(self, start, moved):
        super().__init__()
        self.start, self.moved = start, moved

    def on_step_end(self, trainer):
        pairs = zip(self.start, trainer.networks.generator.parameters(), strict=True)
        self.moved.append(not all(torch.equal(before, after) for before, after in pairs))


def test_a_checkpoint_names_the_schedule_of_a_rate(make_trainer, tiny_images, tmp_path):
    def build(*points):
        return make_trainer(generator_optimizer=cg.OptimizerConfig(lr=cg.PiecewiseLinearSchedule(points)))

    trainer = build((0, 0.01), (1, 0))
    trainer.fit(tiny_images, steps=1, batch_size=4)
    trainer.save(tmp_path)
    written = saved(trainer)["settings"]["generator_optimizer"]
    assert written["lr"] == "PiecewiseLinearSchedule(points=((0.0, 0.01), (1.0, 0.0)))"
    assert json.loads(json.dumps(written))["lr"] == written["lr"]
    assert build((0.0, 0.01), (1.0, 0.0)).resume(tmp_path)
    with pytest.raises(ValueError, match=r"generator_optimizer.lr was .*\(1\.0, 0\.0\).* and is .*\(1\.0, 0\.005\)"):
        build((0.0, 0.01), (1.0, 0.005)).resume(tmp_path)
    settings = make_trainer(generator_optimizer=cg.OptimizerConfig(lr=lambda progress: 1e-3)).settings
    assert "lambda" in settings["generator_optimizer"]["lr"]
    assert "0x" not in settings["generator_optimizer"]["lr"]


def clipped(**options) -> torch.nn.Parameter:
    """Return a weight after one step of gradient descent by -1, 0 and 1, and clipping."""
    weight = torch.nn.Parameter(torch.tensor([0.0, 0.3, -0.05], dtype=torch.float64))
    optimizer = cg.WeightClipping(lambda p: torch.optim.SGD(p, lr=1.0), **options)([weight])
    weight.grad = torch.tensor([1.0, 0.0, -0.1], dtype=torch.float64)
    optimizer.step()
    return weight.detach()


def test_weights_are_clamped_after_the_step():
    assert clipped(limit=0.2).tolist() == pytest.approx([-0.2, 0.2, 0.05])
    assert clipped().tolist() == [-0.01, 0.01, 0.01]


def test_clipping_takes_the_settings_of_adam():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = cg.WeightClipping(cg.OptimizerConfig(lr=0.1, weight_decay=0.1), limit=0.5)([weight])
    assert type(optimizer) is torch.optim.AdamW
    weight.grad = torch.ones(2)
    optimizer.step()
    assert weight.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_that_do_not_limit_are_refused(limit):
    with pytest.raises(ValueError, match=f"limit must be positive and finite, got {limit}"):
        cg.WeightClipping(cg.OptimizerConfig(), limit)


def test_only_trainable_weights_are_clamped(make_trainer, tiny_images):
    trainer = make_trainer()
    critic = trainer.networks.critic
    frozen = critic.score_head.bias.requires_grad_(False)
    torch.nn.init.ones_(frozen)
    trainer = cg.Trainer(
        trainer.networks.generator,
        critic,
        loss=cg.WassersteinLoss(),
        critic_optimizer=cg.WeightClipping(cg.OptimizerConfig(), limit=0.02),
        device="cpu",
    )
    trainer.fit(tiny_images, steps=1, batch_size=4)
    assert frozen == 1
    largest = max(weight.detach().abs().max() for weight in critic.parameters() if weight.requires_grad)
    assert largest == pytest.approx(0.02)


def test_a_clipped_run_resumes_under_the_same_limit_only(make_trainer, tiny_images, tmp_path):
    def build(limit=0.03, **options):
        rmsprop = partial(torch.optim.RMSprop, lr=1e-3)
        return make_trainer(critic_optimizer=cg.WeightClipping(rmsprop, limit), **options)

    whole, cut = build(), build(callbacks=[cg.Checkpoint(tmp_path, every=3)])
    whole.fit(tiny_images, steps=6, batch_size=4)
    cut.fit(tiny_images, steps=3, batch_size=4)
    resumed = build()
    assert resumed.resume(tmp_path)
    resumed.fit(tiny_images, steps=6, batch_size=4)
    assert_same_networks(whole, resumed)
    assert whole.settings["critic_optimizer"]["groups"][0]["clipped_to"] == 0.03
    with pytest.raises(ValueError, match=r"other settings: critic_optimizer.groups was .*'clipped_to': 0.03"):
        build(limit=0.02).resume(tmp_path)
