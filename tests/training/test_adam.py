import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import condgan as cg
from condgan.training import ScheduledAdam
from condgan.training.optimizer import Updater
from saved import assert_same, assert_same_networks, saved


def parameters() -> list[torch.nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    shapes = [(3,), (2, 4), ()]
    return [torch.nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64)) for s in shapes]


def train(optimizer, weights, steps=7, before=lambda step: None):
    rng = torch.Generator().manual_seed(1)
    for step in range(steps):
        before(step)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=rng, dtype=torch.float64)
        optimizer.step()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("betas", [(0.0, 0.9), (0.5, 0.999)])
@pytest.mark.parametrize(("weight_decay", "kind"), [(0.0, torch.optim.Adam), (0.1, torch.optim.AdamW)])
def test_with_constant_decays_it_is_adam(betas, weight_decay, kind):
    ours, theirs = parameters(), parameters()
    options = {"lr": 0.01, "betas": betas, "eps": 1e-3, "weight_decay": weight_decay}
    torch.testing.assert_close(
        train(ScheduledAdam(ours, **options), ours), train(kind(theirs, **options), theirs), rtol=1e-12, atol=1e-12
    )


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 0.999), st.floats(0, 0.999)), min_size=1, max_size=6))
def test_each_average_is_a_weighted_mean_of_what_came(history):
    """The weight of gradient `s` is (1 - beta_s) times all later betas, divided by the sum of these weights."""
    weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = ScheduledAdam([weight], lr=1.0, betas=(0.0, 0.0), eps=1e-2)
    expected = 0.0
    for t, (gradient, beta1, beta2) in enumerate(history):
        group = optimizer.param_groups[0]
        group["beta1"].fill_(beta1)
        group["beta2"].fill_(beta2)
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        means = []
        for power, which in ((1, 1), (2, 2)):
            after = [math.prod(later[which] for later in history[s + 1 : t + 1]) for s in range(t + 1)]
            shares = [(1 - row[which]) * rest for row, rest in zip(history, after, strict=False)]
            total = sum(share * row[0] ** power for share, row in zip(shares, history, strict=False))
            means.append(total / sum(shares))
        expected -= means[0] / (math.sqrt(means[1]) + 1e-2)
    assert weight.item() == pytest.approx(expected, abs=1e-6)


def test_a_loaded_state_goes_on_as_if_nothing_had_happened():
    ours, theirs = parameters(), parameters()
    first, second = (ScheduledAdam(weights, lr=0.1, betas=(0.5, 0.9)) for weights in (ours, theirs))
    train(first, ours)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for weight, source in zip(theirs, ours, strict=True):
        weight.data.copy_(source.data)
    for one, other in zip(train(first, ours), train(second, theirs), strict=True):
        assert torch.equal(one, other)


def test_parameters_without_gradient_stay():
    first, second = parameters()[:2]
    before = second.detach().clone()
    first.grad = torch.ones_like(first)
    ScheduledAdam([first, second], lr=0.1, betas=(0.0, 0.9)).step()
    assert torch.equal(second, before)


def config(**options) -> cg.OptimizerConfig:
    return cg.OptimizerConfig(betas=(0.0, cg.CosineSchedule(0.9, 0.99)), **options)


def test_an_updater_sets_scheduled_decays_and_describes_them():
    updater = Updater("critic", torch.nn.Linear(2, 1), config())
    assert isinstance(updater.optimizer, ScheduledAdam)
    held = updater.optimizer.param_groups[0]["beta2"]
    updater.set_progress(1.0, 1.0)
    assert updater.optimizer.param_groups[0]["beta2"] is held, "a captured graph reads the same tensor"
    assert held.item() == pytest.approx(0.99)
    updater.set_progress(1.0, 0.5)
    assert updater.optimizer.param_groups[0]["lr"].item() == pytest.approx(1e-4)
    assert updater.settings["betas"] == (0.0, "CosineSchedule(start=0.9, end=0.99, until=1.0)")
    assert updater.obstacle_to_graphs is None
    plain = Updater("critic", torch.nn.Linear(2, 1), cg.OptimizerConfig())
    plain.set_progress(0.5, 1.0)
    assert plain.optimizer.param_groups[0]["betas"] == (0.0, 0.9)


def test_decays_change_under_clipping_too():
    clipping = cg.WeightClipping(config(), limit=0.1)
    updater = Updater("critic", torch.nn.Linear(2, 1), clipping)
    updater.set_progress(1.0, 1.0)
    assert updater.optimizer.param_groups[0]["beta2"].item() == pytest.approx(0.99)
    assert updater.settings["betas"] == (0.0, "CosineSchedule(start=0.9, end=0.99, until=1.0)")


def test_functions_are_described_without_their_address():
    described = Updater("critic", torch.nn.Linear(2, 1), cg.OptimizerConfig(betas=(0.0, lambda p: 0.9))).settings
    assert described["betas"][1].endswith("<lambda>")


@pytest.mark.parametrize("betas", [(0.0, cg.CosineSchedule(0.9, 1.0)), (cg.CosineSchedule(-0.1, 0.5), 0.9)])
def test_schedules_out_of_range_are_refused(betas):
    with pytest.raises(ValueError, match=r"betas must lie in \[0, 1\)"):
        cg.OptimizerConfig(betas=betas)


def scheduled_trainer(*callbacks: cg.Callback) -> cg.Trainer:
    shape = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 4}
    torch.manual_seed(0)
    return cg.Trainer(
        cg.DCGANGenerator(latent_dim=8, **shape),
        cg.ProjectionDCGANCritic(**shape),
        loss=cg.RelativisticLoss(),
        regularizers=[cg.R1(cg.CosineSchedule(2.0, 0.2), every=2)],
        generator_optimizer=config(),
        critic_optimizer=config(lr=1e-3),
        schedule=cg.CosineSchedule(1.0, 0.25),
        label_distribution="paired",
        device="cpu",
        callbacks=callbacks,
    )


class Stop(cg.Callback):
    def on_step_end(self, trainer):
        if trainer.state.step == 5:
            trainer.request_stop("test")


def test_a_run_with_schedules_resumes_exactly(tmp_path, tiny_images):
    whole, cut, resumed = scheduled_trainer(), scheduled_trainer(Stop()), scheduled_trainer()
    whole.fit(tiny_images, steps=8, batch_size=4)
    cut.fit(tiny_images, steps=8, batch_size=4)
    cut.save(tmp_path)
    assert resumed.resume(tmp_path)
    assert resumed.state.step == 5
    resumed.fit(tiny_images, steps=8, batch_size=4)
    assert_same_networks(whole, resumed)
    for role in ("generator_optimizer", "critic_optimizer"):
        assert_same(saved(whole)[role], saved(resumed)[role])


def test_each_step_has_the_numbers_of_its_progress(tiny_images):
    seen = []

    class Look(cg.Callback):
        def on_critic_step_end(self, trainer):
            group = trainer._updaters["critic"].optimizer.param_groups[0]
            (penalty,) = trainer.terms.critic_regularizers
            seen.append([group["lr"].item(), group["beta2"].item(), penalty.weighted(torch.ones(())).item()])

    scheduled_trainer(Look()).fit(tiny_images, steps=4, batch_size=4)
    schedules = cg.CosineSchedule(1e-3, 2.5e-4), cg.CosineSchedule(0.9, 0.99), cg.CosineSchedule(4.0, 0.4)
    expected = [[schedule(step / 4) for schedule in schedules] for step in range(4)]
    torch.testing.assert_close(torch.tensor(seen), torch.tensor(expected))
