"""Training that begins without a critic."""

import copy
from dataclasses import replace

import pytest
import torch

import condgan as cg
from condgan.regularizers import GeneratorObjective, GeneratorRegularizer
from condgan.training import Callback, Networks, Terms, critic_step, fit_together, generator_step
from condgan.training.inputs import Request
from condgan.training.step import pretraining_step
from saved import assert_same, saved

SHAPE = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 4}


def build(**options) -> cg.Trainer:
    """Everything that a critic's state may consist of: batch norm, dropout, moments, an adaptive augmentation."""
    torch.manual_seed(0)
    defaults = {
        "loss": cg.MinimaxLoss(),
        "auxiliary": cg.AuxiliaryClassifierLoss(),
        "regularizers": [cg.FlowMatching(10.0), cg.LeCam()],
        "pretraining": 0.5,
        "critic_steps": 2,
        "augment": cg.DiffAugment(),
        "device": "cpu",
    }
    critic = cg.ACDCGANCritic(batch_norm=True, dropout=0.3, **SHAPE)
    return cg.Trainer(cg.FlowGenerator(**SHAPE), critic, **{**defaults, **options})


class Calls(Callback):
    """Notes which updates are done."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_critic_step_end(self, trainer):
        self.calls.append("critic")

    def on_generator_step_end(self, trainer):
        self.calls.append("generator")


class Watch(Calls):
    """Notes what has changed after each step, too."""

    def __init__(self):
        super().__init__()
        self.changes, self.metrics, self.images = [], [], []

    def on_fit_start(self, trainer):
        self.before = copy.deepcopy(saved(trainer))

    def on_step_end(self, trainer):
        after = copy.deepcopy(saved(trainer))
        self.changes.append({name for name in after if not is_same(self.before[name], after[name])})
        self.metrics.append(set(trainer.read_metrics()))
        self.images.append(trainer.state.images_seen)
        self.before = after


def is_same(one, other) -> bool:
    try:
        assert_same(one, other)
    except AssertionError:
        return False
    return True


def test_the_critic_waits_while_the_generator_learns(tiny_images):
    watch = Watch()
    state = build(callbacks=[watch]).fit(tiny_images, steps=4, batch_size=6, generator_batch_size=8)
    of_critic = {"critic", "critic_optimizer", "critic_regularizers", "critic_updates"}
    of_generator = {"generator", "generator_optimizer", "ema"}
    for changes in watch.changes[:2]:
        assert changes >= of_generator
        assert not changes & of_critic
    for changes in watch.changes[2:]:
        assert changes >= of_generator | of_critic
    assert watch.calls == ["generator"] * 2 + ["critic", "critic", "generator"] * 2
    assert watch.images == [6, 12, 24, 36], "a step of pretraining sees one batch, others two"
    assert watch.metrics[1] == {"generator/flow_matching", "generator/gradient_norm"}
    assert watch.metrics[2] > watch.metrics[1]
    assert {"critic/adversarial", "generator/adversarial", "critic/le_cam"} < watch.metrics[2]
    assert (state.step, state.total_steps) == (4, 4)


@pytest.mark.parametrize(("share", "steps", "without"), [(0.0, 3, 0), (0.3, 5, 2), (0.25, 4, 1), (0.99, 4, 4)])
def test_the_share_is_one_of_the_steps(share, steps, without, tiny_images):
    updates = Calls()
    build(pretraining=share, callbacks=[updates], critic_steps=1).fit(tiny_images, steps=steps, batch_size=4)
    assert updates.calls == ["generator"] * without + ["critic", "generator"] * (steps - without)


def test_its_steps_are_those_of_a_plain_loop(tiny_images):
    """Of the networks of a trainer, with the same draws."""
    trainer, plain = (build(generator_optimizer=cg.OptimizerConfig(lr=1e-2), pretraining=0.9) for _ in range(2))
    trainer.fit(tiny_images, steps=3, batch_size=6)
    generator = plain.networks.generator.train()
    sampler = plain._make_sampler(tiny_images, 2**32)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-2, betas=(0.0, 0.9), fused=True)
    for _ in range(3):
        inputs = sampler.draw(Request(6))
        t = inputs.epsilon[:, None, None, None]
        estimate = generator.denoise(t * inputs.x + (1 - t) * inputs.noise, inputs.epsilon, inputs.y)
        loss = (10 * ((estimate - inputs.x) / (1 - t).clamp(min=0.1)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in trainer.networks.generator.state_dict().items():
        torch.testing.assert_close(value, generator.state_dict()[name], atol=1e-5, rtol=1e-3)


class Stop(Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_step_end(self, trainer):
        if trainer.state.step == self.step:
            trainer.request_stop("test")


@pytest.mark.parametrize(("stop_at", "max_resident_bytes"), [(1, 2**32), (3, 2**32), (2, 0), (3, 0), (5, 0)])
def test_a_resumed_run_equals_the_uninterrupted_one(stop_at, max_resident_bytes, tiny_images, tmp_path):
    """Also where images are drawn ahead, across the end of pretraining."""

    def make(name, *callbacks):
        logger = cg.CSVLogger(tmp_path / name, every=1)
        rate = cg.PiecewiseLinearSchedule([(0.0, 1e-3), (0.5, 1e-3), (0.51, 1e-4)])
        return build(
            regularizers=[cg.FlowMatching(cg.CosineSchedule(10.0, 1.0)), cg.LeCam(every=2)],
            generator_optimizer=cg.OptimizerConfig(lr=rate),
            transition=(0.2, 0.8),
            dequantize=True,
            callbacks=[logger, *callbacks],
        )

    whole = make("whole.csv")
    whole.fit(tiny_images, steps=6, batch_size=6, generator_batch_size=8)
    cut = make("cut.csv", Stop(stop_at), cg.Checkpoint(tmp_path / "run"))
    cut.fit(tiny_images, steps=6, batch_size=6, generator_batch_size=8, max_resident_bytes=max_resident_bytes)
    resumed = make("cut.csv")
    assert resumed.resume(tmp_path / "run")
    assert resumed.state.step == stop_at
    resumed.fit(tiny_images, steps=6, batch_size=6, generator_batch_size=8, max_resident_bytes=max_resident_bytes)
    assert_same(saved(whole), saved(resumed))
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "cut.csv").read_bytes()


@pytest.mark.parametrize(
    ("share", "other", "message"),
    [
        (0.5, 0.25, "pretraining was 0.5 and is 0.25"),
        (0.5, 0.0, "pretraining was 0.5 and is None"),
        (0.0, 0.5, "pretraining was None and is 0.5"),
    ],
)
def test_another_share_is_refused_when_training_is_resumed(share, other, message, tiny_images, tmp_path):
    trainer = build(pretraining=share)
    trainer.fit(tiny_images, steps=1, batch_size=6)
    trainer.save(tmp_path)
    with pytest.raises(ValueError, match=f"other settings: {message}"):
        build(pretraining=other).resume(tmp_path)


def test_settings_have_the_share_only_if_there_is_one():
    assert build().settings["pretraining"] == 0.5
    assert "pretraining" not in build(pretraining=0.0).settings


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(ValueError, match=rf"pretraining must lie in \[0, 1\), a share of the steps, got {share}"):
        build(pretraining=share)


@pytest.mark.parametrize("regularizers", [[], [cg.LeCam()], [cg.FlowMatching(every=2)]])
def test_pretraining_without_an_objective_in_each_step_is_refused(regularizers):
    message = r"pretraining, a share of 0.5 .* needs a GeneratorObjective with every=1 .*FlowMatching\(\)"
    with pytest.raises(ValueError, match=message):
        build(regularizers=regularizers)
    build(regularizers=regularizers, pretraining=0.0)


def test_the_progress_bar_shows_steps_before_there_is_a_critic(tiny_images, capsys):
    build(callbacks=[cg.ProgressBar(every=1)]).fit(tiny_images, steps=4, batch_size=6)
    first, *_, last = [line for line in capsys.readouterr().err.split("\r") if "img/s" in line]
    assert "critic=" not in first
    assert "critic=" in last
    assert "4/4" in last


def test_trainers_together_equal_those_alone(tiny_images):
    alone, *together = (build(), build(), build())
    alone.fit(tiny_images, steps=4, batch_size=6)
    fit_together(together, tiny_images, steps=4, batch_size=6)
    for trainer in together:
        assert_same(saved(alone), saved(trainer))


class Reconstruct(GeneratorObjective):
    """An objective of any generator, without noise."""

    def objective(self, generator, inputs):
        assert inputs.noise is None
        return (generator(inputs.z, inputs.y) - inputs.x).square().mean()


class FakeMagnitude(GeneratorRegularizer):
    def penalty(self, generator, batch):
        return batch.x_fake.square().mean()


def test_any_generator_can_be_trained_by_an_objective_of_its_own(make_trainer, tiny_images):
    trainer = make_trainer(regularizers=[Reconstruct(1.0), FakeMagnitude(1.0)], pretraining=0.5, precision="bf16")
    watch = Watch()
    trainer.callbacks = (watch,)
    trainer.fit(tiny_images, steps=2, batch_size=6)
    assert watch.metrics[0] == {"generator/reconstruct", "generator/gradient_norm"}
    assert watch.metrics[1] > {"generator/reconstruct", "generator/fake_magnitude", "critic/adversarial"}


def in_float64(loss=None, **options) -> tuple[Networks, Terms, object]:
    trainer = build(loss=loss or cg.HingeLoss(), **options)
    networks = Networks(trainer.networks.generator.double(), cg.ACDCGANCritic(**SHAPE).double())
    with torch.no_grad():
        for parameter in networks.generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return networks, trainer.terms, trainer


def test_objectives_add_up_and_nothing_else_counts(tiny_images):
    terms = [cg.FlowMatching(2.0), FakeMagnitude(5.0), cg.FlowMatching(3.0), cg.LeCam()]
    networks, terms, trainer = in_float64(regularizers=terms)
    inputs = trainer._make_sampler(tiny_images, 2**32).draw(Request(6))
    result = pretraining_step(networks, terms, inputs)
    plain = cg.FlowMatching().objective(networks.generator, inputs)
    assert set(result.metrics) == {"generator/flow_matching", "generator/flow_matching_2"}
    torch.testing.assert_close(result.metrics["generator/flow_matching"], 2 * plain.detach())
    torch.testing.assert_close(result.metrics["generator/flow_matching_2"], 3 * plain.detach())
    expected = torch.autograd.grad(5 * plain, list(networks.generator.parameters()))
    for one, other in zip(result.gradients, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert all(parameter.grad is None for parameter in networks.generator.parameters())


def test_beside_a_loss_of_generated_scores_the_critic_sees_no_real_images_in_generator_steps(tiny_images):
    networks, terms, trainer = in_float64(pretraining=0.0)
    inputs = trainer._make_sampler(tiny_images, 2**32).draw(Request(6))
    assert not networks.scored_apart  # tried once, before the hook
    seen = []
    networks.critic.register_forward_hook(lambda _module, args, _out: seen.append(len(args[0])))
    both = generator_step(networks, terms, inputs)
    assert seen == [6]
    without = generator_step(networks, replace(terms, generator_regularizers=[]), replace(inputs, x=None, y=None))
    alone = pretraining_step(networks, terms, inputs)
    for total, *parts in zip(both.gradients, without.gradients, alone.gradients, strict=True):
        torch.testing.assert_close(total, sum(parts))
    seen.clear()
    critic_step(networks, replace(terms, critic_regularizers=[]), inputs)
    assert seen == [12]


@pytest.mark.parametrize("loss", [cg.HingeLoss(), cg.RelativisticLoss()])
@pytest.mark.parametrize("every", [1, 2])
def test_an_objective_is_a_regularizer_in_adversarial_training(loss, every, tiny_images):
    options = {"pretraining": 0.0, "label_distribution": "paired", "critic_steps": 1}
    trainer = build(loss=loss, regularizers=[cg.FlowMatching(every=every)], **options)
    metrics = trainer.fit(tiny_images, steps=2, batch_size=6, generator_batch_size=8).metrics
    assert metrics["generator/flow_matching"] > 0
    assert {"generator/adversarial", "critic/adversarial"} < set(metrics)


def test_classes_can_be_faded_in_during_pretraining(tiny_images):
    """Before, the embedding of the classes gets no gradient."""

    class Embedding(Callback):
        norms = ()

        def on_step_end(self, trainer):
            weight = trainer.networks.generator.class_embedding.embedding.weight
            self.norms = (*self.norms, float(weight.grad.norm()))

    embedding = Embedding()
    optimizer = cg.OptimizerConfig(lr=1e-2)
    trainer = build(transition=(0.5, 0.75), pretraining=0.9, generator_optimizer=optimizer, callbacks=[embedding])
    trainer.fit(tiny_images, steps=8, batch_size=6)
    assert not any(embedding.norms[:5])
    assert all(embedding.norms[5:])


def test_early_stopping_waits_for_the_critic(tiny_images):
    """A metric that never improves stops training after two evaluations of adversarial training."""
    callbacks = [cg.Evaluate(lambda trainer: {"score": 1.0}, every=1), cg.EarlyStopping("score", patience=2)]
    trainer = build(callbacks=callbacks)
    assert trainer.fit(tiny_images, steps=20, batch_size=4).step == 13


def test_latents_for_batch_statistics_are_drawn_only_if_there_are_any(tiny_images, monkeypatch):
    trainer = build()
    trainer.fit(tiny_images, steps=2, batch_size=4)
    monkeypatch.setattr(trainer._sampler, "latents_and_labels", lambda *_: pytest.fail("drew latents"))
    assert trainer.sample([0, 1, 2], seed=0).shape == (3, 1, 16, 16)


@pytest.mark.parametrize(("share", "steps", "first"), [(0.55, 100, 55), (0.9, 3300, 2970), (0.5, 3, 2), (0.0, 7, 0)])
def test_the_number_of_steps_without_a_critic(share, steps, first):
    trainer = build(pretraining=share)
    trainer.state.total_steps = steps
    assert trainer.pretraining_steps == first
