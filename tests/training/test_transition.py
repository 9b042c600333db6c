import copy

import pytest
import torch

import condgan as cg
from condgan.nn import ClassConditional
from condgan.training import Networks, Transition, critic_step, generator_step
from condgan.training.inputs import Request
from saved import assert_same, saved

SHAPE = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 4}
GENERATORS = {
    "concatenation": lambda: cg.DCGANGenerator(latent_dim=8, embed_dim=4, **SHAPE),
    "batch norm": lambda: cg.DCGANGenerator(latent_dim=8, conditioning="batch_norm", **SHAPE),
    "residual": lambda: cg.ResNetGenerator(latent_dim=8, **SHAPE),
}
CRITICS = {
    "class head": cg.ACDCGANCritic,
    "projection": cg.ProjectionResNetCritic,
    "concatenation": cg.ConcatenationDCGANCritic,
}


def randomize(network):
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return network


def networks(generator="batch norm", critic="projection") -> Networks:
    torch.manual_seed(0)
    return Networks(randomize(GENERATORS[generator]()).double(), randomize(CRITICS[critic](**SHAPE)).double())


def build(generator="batch norm", critic="projection", **options) -> cg.Trainer:
    both = networks(generator, critic)
    defaults = {"loss": cg.HingeLoss(), "device": "cpu", "transition": (0.25, 0.75), "label_distribution": "paired"}
    auxiliary = {"auxiliary": cg.AuxiliaryClassifierLoss()} if critic == "class head" else {}
    return cg.Trainer(both.generator, both.critic, **{**defaults, **auxiliary, **options})


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("critic", CRITICS)
def test_without_strength_the_class_means_nothing_and_with_full_strength_all(generator, critic):
    both = networks(generator, critic)
    plain = copy.deepcopy(both)
    transition = Transition(0.25, 0.75, both)
    z, x = torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 1, 16, 16, dtype=torch.float64)
    one, other = torch.tensor([0, 1, 2, 0]), torch.tensor([2, 2, 0, 1])
    assert torch.equal(both.generator(z, one), both.generator(z, other))
    assert torch.equal(both.critic(x, one).score, both.critic(x, other).score)
    transition.move_to(0.5)
    assert not torch.allclose(both.generator(z, one), both.generator(z, other))
    transition.move_to(1.0)
    for y in (one, other):
        torch.testing.assert_close(both.generator(z, y), plain.generator(z, y))
        torch.testing.assert_close(both.critic(x, y).score, plain.critic(x, y).score)


def test_values_by_hand():
    norm = cg.nn.ConditionalBatchNorm2d(2, 2).eval()
    with torch.no_grad():
        norm.gain.copy_(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
        norm.shift.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    norm.class_strength = torch.tensor(0.5)
    out = norm(torch.ones(1, 2, 1, 1), torch.tensor([1])).flatten()
    # means (2, 4) and (0.5, -0.5); half way to (3, 6) and (1, -1)
    torch.testing.assert_close(out, torch.tensor([2.5 + 0.75, 5.0 - 0.75]), atol=1e-4, rtol=0)

    embedding = cg.nn.ConcatenatedEmbedding(2, 3)
    embedding.class_strength = torch.tensor(0.25)
    out = embedding(torch.ones(1, 2), torch.tensor([1]))
    torch.testing.assert_close(out, torch.cat([torch.ones(1, 2), 0.25 * embedding.embedding.weight[1:]], 1))

    critic = networks(critic="projection").critic
    x, y = torch.randn(3, 1, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2])
    scores = []
    for strength in (0.0, 0.3, 1.0):
        critic.class_strength = torch.tensor(strength)
        scores.append(critic(x, y).score)
    torch.testing.assert_close(scores[1], scores[0] + 0.3 * (scores[2] - scores[0]), atol=1e-6, rtol=1e-6)


def test_strength_follows_the_progress():
    transition = Transition(0.2, 0.6, networks())
    strengths = []
    for progress in (0.0, 0.2, 0.3, 0.4, 0.6, 1.0):
        transition.move_to(progress)
        strengths.append(transition.strength.item())
    assert strengths == pytest.approx([0, 0, 0.25, 0.5, 1, 1])


def test_class_terms_are_weighted_and_the_rest_is_not(tiny_images):
    trainer = build(critic="class head")
    plain = build(critic="class head", transition=None)
    inputs = trainer._make_sampler(tiny_images, 2**32).draw(Request(6))
    for step, side in ((critic_step, "critic"), (generator_step, "generator")):
        trainer.transition.move_to(1.0)
        full = step(trainer.networks, trainer.terms, inputs).metrics
        expected = step(plain.networks, plain.terms, inputs).metrics
        for name in expected:
            torch.testing.assert_close(full[name], expected[name])
        # the strength of the terms alone: that of the layers stays where it is
        trainer.transition.strength.fill_(1.0)
        terms = copy.copy(trainer.terms)
        object.__setattr__(terms, "class_strength", torch.tensor(0.25))
        faded = step(trainer.networks, terms, inputs).metrics
        name = f"{side}/auxiliary_classifier"
        torch.testing.assert_close(faded[name], 0.25 * full[name])
        torch.testing.assert_close(faded[f"{side}/adversarial"], full[f"{side}/adversarial"])


def test_before_the_transition_class_parameters_get_no_gradient(tiny_images):
    trainer = build("concatenation", "projection")
    inputs = trainer._make_sampler(tiny_images, 2**32).draw(Request(6))
    for step, network, own in (
        (critic_step, trainer.networks.critic, "class_projection.weight"),
        (generator_step, trainer.networks.generator, "embedding.embedding.weight"),
    ):
        gradients = dict(
            zip(dict(network.named_parameters()), step(trainer.networks, trainer.terms, inputs).gradients, strict=True)
        )
        assert not gradients[own].any()
        assert sum(bool(gradient.any()) for gradient in gradients.values()) > len(gradients) / 2


@pytest.mark.parametrize(("generator", "critic"), [("batch norm", "projection"), ("concatenation", "class head")])
def test_a_resumed_run_equals_the_uninterrupted_one(generator, critic, tiny_images, tmp_path):
    class Stop(cg.Callback):
        def on_step_end(self, trainer):
            if trainer.state.step == 5:
                trainer.request_stop("test")

    whole = build(generator, critic)
    whole.fit(tiny_images, steps=8, batch_size=6)
    cut = build(generator, critic, callbacks=[Stop(), cg.Checkpoint(tmp_path)])
    cut.fit(tiny_images, steps=8, batch_size=6)
    resumed = build(generator, critic)
    assert resumed.resume(tmp_path)
    assert torch.equal(resumed.sample([0, 1, 2], seed=0), cut.sample([0, 1, 2], seed=0))
    resumed.fit(tiny_images, steps=8, batch_size=6)
    assert_same(saved(whole), saved(resumed))
    assert whole.settings["transition"] == (0.25, 0.75)
    with pytest.raises(ValueError, match="transition was"):
        build(generator, critic, transition=(0.25, 0.5)).resume(tmp_path)


def test_the_average_and_what_is_saved_have_the_strength_of_the_training(tiny_images, tmp_path):
    trainer = build(transition=(0.0, 0.9))
    trainer.fit(tiny_images, steps=4, batch_size=6)
    strengths = {
        part.class_strength.item()
        for network in (trainer.ema, trainer.networks.generator, trainer.networks.critic)
        for part in network.modules()
        if isinstance(part, ClassConditional) and part.num_classes is not None
    }
    assert strengths == {trainer.transition.strength.item()}
    assert trainer.transition.strength.item() == pytest.approx(0.75 / 0.9)
    loaded = cg.DCGANGenerator.from_pretrained(trainer.ema.float().save_pretrained(tmp_path))
    z, y = torch.randn(3, 8), torch.tensor([0, 1, 2])
    assert torch.equal(loaded(z, y), trainer.ema(z, y))


def test_without_a_transition_nothing_is_different():
    trainer = build(transition=None)
    assert trainer.transition is None
    assert "transition" not in trainer.settings
    assert not [name for name in trainer.networks.generator.state_dict() if "class_strength" in name]


@pytest.mark.parametrize("transition", [(0.5, 0.5), (-0.1, 0.5), (0.5, 1.1), (0.6, 0.2)])
def test_bad_shares_are_refused(transition):
    with pytest.raises(ValueError, match="0 <= start < end < 1, got"):
        build(transition=transition)


def test_generators_that_cannot_be_faded_are_refused(point_networks):
    for classes in (None, 3):
        generator, critic = point_networks(classes)
        with pytest.raises(ValueError, match="PointGenerator without class-conditional layers"):
            cg.Trainer(generator, critic, loss=cg.HingeLoss(), device="cpu", transition=(0.2, 0.6))
