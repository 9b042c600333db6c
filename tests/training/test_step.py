import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

import condgan as cg
from condgan.regularizers import CriticRegularizer, GeneratorRegularizer
from condgan.training import Networks, Terms, critic_step, generator_step
from condgan.types import StepInputs

SHAPE = {"num_classes": 3, "image_shape": (1, 16, 20), "base_channels": 2}

CRITICS = {
    "dcgan": lambda: cg.ACDCGANCritic(**SHAPE),
    "dcgan, spectral norm": lambda: cg.ACDCGANCritic(**SHAPE, spectral_norm=True),
    "resnet": lambda: cg.ACResNetCritic(**SHAPE),
    "resnet, spectral norm": lambda: cg.ACResNetCritic(**SHAPE, spectral_norm=True),
}

AUXILIARY = cg.AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=0.5, generator_weight=0.1)


def make_networks(make_critic, dtype=torch.float64) -> Networks:
    torch.manual_seed(0)
    return Networks(cg.DCGANGenerator(latent_dim=8, **SHAPE).to(dtype), make_critic().to(dtype))


def make_inputs(dtype=torch.float64, count=4, seed=1) -> StepInputs:
    rng = torch.Generator().manual_seed(seed)
    return StepInputs(
        x=torch.rand(count, *SHAPE["image_shape"], generator=rng, dtype=dtype) * 2 - 1,
        y=torch.randint(3, (count,), generator=rng),
        z=torch.randn(count, 8, generator=rng, dtype=dtype),
        y_fake=torch.randint(3, (count,), generator=rng),
        epsilon=torch.rand(count, generator=rng, dtype=dtype),
    )


def frozen_after_one_iteration(critic: nn.Module) -> nn.Module:
    """A copy whose spectral norms took one power iteration and take no more."""
    critic = copy.deepcopy(critic)
    for layer in critic.modules():
        if parametrize.is_parametrized(layer):
            _ = layer.weight
            layer.parametrizations.eval()
    return critic


def gradients_of(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters()]


def assert_equal_to_rounding(actual, expected):
    assert len(actual) == len(expected)
    assert sum(bool(gradient.any()) for gradient in expected) > len(expected) // 2
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("make_critic", CRITICS.values(), ids=CRITICS)
def test_critic_gradients_equal_the_tutorial(make_critic):
    networks, inputs = make_networks(make_critic), make_inputs()
    terms = Terms(cg.WassersteinLoss(), [AUXILIARY], [cg.GradientPenalty(10.0)])
    critic, generator = frozen_after_one_iteration(networks.critic), copy.deepcopy(networks.generator)

    x_fake = generator(inputs.z, inputs.y_fake).detach()
    real, fake = critic(inputs.x, inputs.y), critic(x_fake, inputs.y_fake)
    loss = fake.score.mean() - real.score.mean()
    loss = loss + F.cross_entropy(real.class_logits, inputs.y) + 0.5 * F.cross_entropy(fake.class_logits, inputs.y_fake)
    epsilon = inputs.epsilon[:, None, None, None]
    x_hat = (epsilon * inputs.x + (1 - epsilon) * x_fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x_hat, inputs.y).score.sum(), x_hat, create_graph=True)
    penalty = 10 * ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
    (loss + penalty).backward()

    result = critic_step(networks, terms, inputs)
    assert_equal_to_rounding(result.gradients, gradients_of(critic))
    torch.testing.assert_close(result.metrics["critic/gradient_penalty"], penalty.detach())
    torch.testing.assert_close(sum(result.metrics[f"critic/{name}"] for name in TERMS), (loss + penalty).detach())
    for own, theirs in zip(networks.critic.buffers(), critic.buffers(), strict=True):
        assert torch.equal(own, theirs), "the step made another number of power iterations than one"


TERMS = ("adversarial", "auxiliary_classifier", "gradient_penalty")


@pytest.mark.parametrize("make_critic", CRITICS.values(), ids=CRITICS)
@pytest.mark.parametrize("loss", [cg.WassersteinLoss(), cg.RelativisticLoss()], ids=["wasserstein", "relativistic"])
def test_generator_gradients_equal_the_tutorial(make_critic, loss):
    networks, inputs = make_networks(make_critic), make_inputs()
    critic, generator = frozen_after_one_iteration(networks.critic), copy.deepcopy(networks.generator)

    if loss.needs_real_scores:
        inputs = replace(inputs, y_fake=inputs.y)
    fake = critic(generator(inputs.z, inputs.y_fake), inputs.y_fake)
    if loss.needs_real_scores:
        expected = F.softplus(critic(inputs.x, inputs.y).score - fake.score).mean()
    else:
        inputs = replace(inputs, x=None, y=None)
        expected = -fake.score.mean()
    (expected + 0.1 * F.cross_entropy(fake.class_logits, inputs.y_fake)).backward()

    result = generator_step(networks, Terms(loss, [AUXILIARY]), inputs)
    assert_equal_to_rounding(result.gradients, gradients_of(generator))
    torch.testing.assert_close(result.metrics["generator/adversarial"], expected.detach())


def test_a_critic_with_batch_norm_sees_real_and_fake_apart():
    networks, inputs = make_networks(lambda: cg.ACDCGANCritic(**SHAPE, batch_norm=True)), make_inputs()
    critic, generator = copy.deepcopy(networks.critic), copy.deepcopy(networks.generator)
    x_fake = generator(inputs.z, inputs.y_fake).detach()
    real, fake = critic(inputs.x, inputs.y), critic(x_fake, inputs.y_fake)
    (F.softplus(-real.score).mean() + F.softplus(fake.score).mean()).backward()

    critic.class_head.requires_grad_(False)
    networks.critic.class_head.requires_grad_(False)
    result = critic_step(networks, Terms(cg.MinimaxLoss()), inputs)
    expected = [parameter.grad for parameter in critic.parameters() if parameter.requires_grad]
    assert_equal_to_rounding(result.gradients, expected)
    for own, theirs in zip(networks.critic.buffers(), critic.buffers(), strict=True):
        torch.testing.assert_close(own, theirs)


@pytest.mark.parametrize("step", [critic_step, generator_step])
def test_steps_draw_nothing_and_leave_grad_alone(step):
    networks, inputs = make_networks(CRITICS["dcgan"]), make_inputs()
    marker = torch.full_like(next(networks.critic.parameters()), 7.0)
    next(networks.critic.parameters()).grad = marker
    before = torch.get_rng_state()
    result = step(networks, Terms(cg.WassersteinLoss(), [AUXILIARY], [cg.GradientPenalty()]), inputs)
    assert torch.equal(torch.get_rng_state(), before)
    assert next(networks.critic.parameters()).grad is marker
    assert bool((marker == 7.0).all())
    assert all(parameter.grad is None for parameter in networks.generator.parameters())
    assert not any(value.requires_grad for value in (*result.gradients, *result.metrics.values()))


@pytest.mark.parametrize("make_critic", [CRITICS["dcgan"], CRITICS["resnet"]])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_fused_optimizer_applies_the_gradients_as_they_are(make_critic, memory_format):
    networks, inputs = make_networks(make_critic), make_inputs()
    networks.critic.to(memory_format=memory_format)
    result = critic_step(networks, Terms(cg.WassersteinLoss(), (), [cg.GradientPenalty()]), inputs)
    parameters = list(networks.critic.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    optimizer = cg.OptimizerConfig(lr=0.1, betas=(0.0, 0.9), eps=1.0).build(parameters)
    for parameter, gradient in zip(parameters, result.gradients, strict=True):
        assert gradient.stride() == parameter.stride()
        parameter.grad = gradient
    optimizer.step()
    for parameter, gradient, before in zip(parameters, result.gradients, start, strict=True):
        torch.testing.assert_close(parameter.detach(), before - 0.1 * gradient / (gradient.abs() + 1.0))


class ScoreDtypes(cg.WassersteinLoss):
    def critic(self, real_score, fake_score):
        assert (real_score.dtype, fake_score.dtype) == (torch.float32, torch.float32)
        assert not torch.is_autocast_enabled("cpu")
        return super().critic(real_score, fake_score)

    def generator(self, real_score, fake_score):
        assert fake_score.dtype == torch.float32
        return super().generator(real_score, fake_score)


@pytest.mark.parametrize("make_critic", [CRITICS["dcgan"], CRITICS["resnet, spectral norm"]])
def test_bf16_widens_scores_and_losses(make_critic):
    networks, inputs = make_networks(make_critic, torch.float32), make_inputs(torch.float32)
    assert not networks.scored_apart  # tried once, before the hooks
    seen = set()
    for module in networks.critic.blocks.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, args, out: seen.add(out.dtype))
    terms = Terms(ScoreDtypes(), [AUXILIARY], [cg.GradientPenalty()])
    exact = [step(copy.deepcopy(networks), terms, inputs) for step in (critic_step, generator_step)]
    assert seen == {torch.float32}
    seen.clear()
    terms = replace(terms, precision="bf16")
    rough = [step(copy.deepcopy(networks), terms, inputs) for step in (critic_step, generator_step)]
    assert seen == {torch.bfloat16}
    assert not torch.is_autocast_enabled("cpu")
    for one, other in zip(rough, exact, strict=True):
        assert {value.dtype for value in (*one.gradients, *one.metrics.values())} == {torch.float32}
        flat, expected = (torch.cat([g.flatten() for g in result.gradients]) for result in (one, other))
        assert F.cosine_similarity(flat, expected, dim=0) > 0.99


class Adversarial(cg.AuxiliaryClassifierLoss):
    pass


class Constant(CriticRegularizer):
    def penalty(self, critic, batch):
        assert not batch.x_fake.requires_grad, "the critic's step went through the generator"
        return batch.real.score.sum() * 0 + 1


class FakeMagnitude(GeneratorRegularizer):
    def penalty(self, generator, batch):
        return batch.x_fake.square().mean()


def test_terms_of_one_name_all_count():
    networks, inputs = make_networks(CRITICS["dcgan"]), make_inputs()
    regularizers = [Constant(2.0), Constant(3.0, every=2)]
    result = critic_step(networks, Terms(cg.WassersteinLoss(), [Adversarial()], regularizers), inputs)
    names = [name for name in result.metrics if "score" not in name and "accuracy" not in name]
    assert names == ["critic/adversarial", "critic/adversarial_2", "critic/constant", "critic/constant_2"]
    assert (result.metrics["critic/constant"], result.metrics["critic/constant_2"]) == (2, 6)
    without = critic_step(networks, Terms(cg.WassersteinLoss()), inputs)
    position = [name for name, _ in networks.critic.named_parameters()].index("class_head.weight")
    assert not without.gradients[position].any()
    assert result.gradients[position].any()


def test_a_generator_regularizer_reaches_the_generator():
    networks, inputs = make_networks(CRITICS["dcgan"]), make_inputs()
    plain = generator_step(networks, Terms(cg.WassersteinLoss()), inputs)
    penalized = generator_step(networks, Terms(cg.WassersteinLoss(), (), (), [FakeMagnitude(5.0)]), inputs)
    generator = copy.deepcopy(networks.generator)
    (5 * generator(inputs.z, inputs.y_fake).square().mean()).backward()
    expected = [a + b.grad for a, b in zip(plain.gradients, generator.parameters(), strict=True)]
    assert_equal_to_rounding(penalized.gradients, expected)


def test_augmentation_stands_in_front_of_the_critic_alone():
    class Negative:
        def draw(self, count, image_shape, *, rng, device):
            return {}

        def __call__(self, x, draws):
            return draws["factor"] * x

    networks, inputs = make_networks(CRITICS["dcgan"]), make_inputs()
    factors = ({"factor": torch.tensor(-0.5)}, {"factor": torch.tensor(0.25)})
    terms = Terms(cg.HingeLoss(), (), (), [FakeMagnitude(1.0)], augment=Negative())
    inputs = replace(inputs, augmentation=factors)
    x_fake = networks.generator(inputs.z, inputs.y_fake)
    result = critic_step(networks, terms, inputs)
    torch.testing.assert_close(result.metrics["critic/real_score"], networks.critic(-0.5 * inputs.x).score.mean())
    torch.testing.assert_close(result.metrics["critic/fake_score"], networks.critic(0.25 * x_fake).score.mean())
    result = generator_step(networks, terms, replace(inputs, x=None))
    torch.testing.assert_close(result.metrics["generator/fake_magnitude"], x_fake.square().mean())
    torch.testing.assert_close(result.metrics["generator/adversarial"], -networks.critic(0.25 * x_fake).score.mean())


def test_a_step_without_what_it_needs_says_so():
    networks, inputs = make_networks(CRITICS["dcgan"]), make_inputs()
    with pytest.raises(ValueError, match="real images"):
        critic_step(networks, Terms(cg.WassersteinLoss()), replace(inputs, x=None))
