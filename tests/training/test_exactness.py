"""Every saving of a step is exact: the same gradients and the same training as a loop that saves nothing.

The loop here is written from the formulas, with PyTorch's own layers, separate passes, `backward`, and an optimizer
that is not fused.
"""

import copy
import itertools
from types import MethodType

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

import condgan as cg
from condgan.training import Networks, Terms, critic_step, generator_step
from condgan.training.inputs import Request
from condgan.types import StepInputs


@pytest.fixture(autouse=True)
def weight_gradients_everywhere(monkeypatch):
    """The maps here are so small that they would not pay."""
    monkeypatch.setattr("condgan.nn.convolution.pays", lambda *_: True)


SHAPE = {"num_classes": 3, "image_shape": (1, 16, 20), "base_channels": 2}
CRITICS = {"dcgan": cg.ACDCGANCritic, "resnet": cg.ACResNetCritic}
GENERATORS = {"dcgan": cg.DCGANGenerator, "resnet": cg.ResNetGenerator}


def plain(module: nn.Module) -> nn.Module:
    """Put PyTorch's activations, pooling, enlarging and convolutions in the place of the library's."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            forward = next((f for layer, f in PLAIN.items() if isinstance(child, layer)), convolve)
            child.forward = MethodType(forward, child)  # keeps the parameters, spectrally normalized or not
        elif isinstance(child, cg.nn.LeakyReLU):
            setattr(module, name, nn.LeakyReLU(child.negative_slope))
        elif isinstance(child, cg.nn.AvgPool2d):
            setattr(module, name, nn.AvgPool2d(2, ceil_mode=True))
        else:
            plain(child)
    return module


def convolve(layer, x):
    return F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)


PLAIN = {
    cg.nn.ConvPool2d: lambda layer, x: F.avg_pool2d(convolve(layer, x), 2, ceil_mode=True),
    cg.nn.UpsampleConv2d: lambda layer, x, size: convolve(layer, F.interpolate(x, size)),
}


def input_gradient(critic, x, y):
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x, y).score.sum(), x, create_graph=True)
    return gradient.flatten(1)


def gradient_penalty(critic, inputs, x_fake):
    epsilon = inputs.epsilon[:, None, None, None]
    x_hat = epsilon * inputs.x + (1 - epsilon) * x_fake
    return 10 * ((input_gradient(critic, x_hat, inputs.y).norm(dim=1) - 1) ** 2).mean()


def dragan_penalty(critic, inputs, x_fake):
    length = inputs.epsilon[:, None, None, None] * 0.5 * inputs.x.std(correction=0)
    return 10 * ((input_gradient(critic, inputs.x + length * inputs.noise, inputs.y).norm(dim=1) - 1) ** 2).mean()


def r1(critic, inputs, x_fake):
    return 10 * 0.5 * input_gradient(critic, inputs.x, inputs.y).square().sum(1).mean()


def r2(critic, inputs, x_fake):
    return 10 * 0.5 * input_gradient(critic, x_fake, inputs.y_fake).square().sum(1).mean()


PENALTIES = {
    "gradient penalty": (cg.GradientPenalty(10.0), gradient_penalty),
    "dragan": (cg.DraganPenalty(10.0), dragan_penalty),
    "r1": (cg.R1(10.0), r1),
    "r2": (cg.R2(10.0), r2),
}


def critic_loss(generator, critic, inputs, penalty):
    x_fake = generator(inputs.z, inputs.y_fake).detach()
    real, fake = critic(inputs.x, inputs.y), critic(x_fake, inputs.y_fake)
    loss = fake.score.mean() - real.score.mean() + F.cross_entropy(real.class_logits, inputs.y)
    return loss + penalty(critic, inputs, x_fake)


def generator_loss(generator, critic, inputs):
    fake = critic(generator(inputs.z, inputs.y_fake), inputs.y_fake)
    return -fake.score.mean() + 0.1 * F.cross_entropy(fake.class_logits, inputs.y_fake)


def make_networks(kind: str, spectral_norm: bool, device: str) -> Networks:
    torch.manual_seed(0)
    generator = GENERATORS[kind](latent_dim=6, conditioning="batch_norm", **SHAPE)
    critic = CRITICS[kind](spectral_norm=spectral_norm, **SHAPE)
    return Networks(generator.double().to(device), critic.double().to(device))


def make_trainer(networks: Networks, regularizer, **options) -> cg.Trainer:
    return cg.Trainer(
        networks.generator,
        networks.critic,
        loss=cg.WassersteinLoss(),
        auxiliary=AUXILIARY,
        regularizers=[regularizer],
        label_distribution="paired",
        critic_steps=2,
        device=next(networks.critic.parameters()).device,
        **options,
    )


def make_data() -> cg.data.ArrayDataset:
    images = torch.randint(256, (24, *SHAPE["image_shape"]), generator=torch.Generator().manual_seed(0))
    return cg.data.ArrayDataset(images.to(torch.uint8), [0, 1, 2] * 8)


AUXILIARY = cg.AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=0.0, generator_weight=0.1)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
EVERYWHERE = list(itertools.product(CRITICS, (False, True), PENALTIES))
PAIRS = [(kind, (i + j) % 2 == 1, name) for i, kind in enumerate(CRITICS) for j, name in enumerate(PENALTIES)]
"""Every two of them together; that the gradients of all three are right does not depend on the step."""


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kind", "spectral_norm", "penalty"), EVERYWHERE)
def test_gradients_equal_those_of_plain_double_backward(kind, spectral_norm, penalty, device):
    networks = make_networks(kind, spectral_norm, device)
    regularizer, formula = PENALTIES[penalty]
    generator, critic = (plain(copy.deepcopy(network)) for network in (networks.generator, networks.critic))
    inputs = make_trainer(networks, regularizer)._make_sampler(make_data(), 0).draw(Request(4))

    with parametrize.cached():  # one power iteration
        critic_loss(generator, critic, inputs, formula).backward()
    result = critic_step(networks, Terms(cg.WassersteinLoss(), [AUXILIARY], [regularizer]), inputs)

    for (name, parameter), gradient in zip(critic.named_parameters(), result.gradients, strict=True):
        scale = parameter.grad.abs().max()
        assert scale > 0 or name.endswith("score_head.bias")
        assert (gradient - parameter.grad).abs().max() <= 1e-12 * scale, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kind", "spectral_norm", "penalty"), PAIRS)
def test_twenty_iterations_equal_those_of_a_plain_loop(kind, spectral_norm, penalty, device):
    networks = make_networks(kind, spectral_norm, device)
    regularizer, formula = PENALTIES[penalty]
    generator, critic = (plain(copy.deepcopy(network)) for network in (networks.generator, networks.critic))
    # The rate is a power of two, which float32 holds exactly; so large an eps keeps updates smooth in the gradient.
    config = cg.OptimizerConfig(lr=2**-10, eps=1e-3)
    trainer = make_trainer(networks, regularizer, generator_optimizer=config, critic_optimizer=config, seed=3)
    twin = make_trainer(make_networks(kind, spectral_norm, device), regularizer, seed=3)
    sampler = twin._make_sampler(make_data(), 2**32)
    trainer.fit(make_data(), steps=20, batch_size=4)

    optimizers = [
        torch.optim.Adam(network.parameters(), lr=2**-10, betas=(0.0, 0.9), eps=1e-3, foreach=False)
        for network in (generator, critic)
    ]
    for _ in range(20):
        for _ in range(2):
            with parametrize.cached():
                loss = critic_loss(generator, critic, sampler.draw(Request(4)), formula)
                optimizers[1].zero_grad()
                loss.backward()
            optimizers[1].step()
        with parametrize.cached():
            loss = generator_loss(generator, critic, sampler.draw(Request(4, real=False)))
            optimizers[0].zero_grad()
            loss.backward()
        optimizers[0].step()

    for plain_network, network in ((generator, networks.generator), (critic, networks.critic)):
        for (name, expected), value in zip(
            plain_network.state_dict().items(), network.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9, msg=name)


ODD = {"num_classes": 3, "image_shape": (2, 19, 34), "base_channels": 2}
OTHER_CRITICS = {
    "dropout": lambda: cg.ACDCGANCritic(dropout=0.3, **ODD),
    "concatenation": lambda: cg.ConcatenationDCGANCritic(spectral_norm=True, **ODD),
    "projection": lambda: cg.ProjectionResNetCritic(spectral_norm=True, **ODD),
    "attention": lambda: cg.ACResNetCritic(attention_at=10, **ODD | {"base_channels": 8}),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("penalties", [["gradient penalty"], ["r1", "r2"]])
@pytest.mark.parametrize("critic", OTHER_CRITICS)
def test_steps_of_other_critics_equal_those_with_plain_layers(critic, penalties, device):
    torch.manual_seed(0)
    networks = Networks(cg.ResNetGenerator(latent_dim=6, **ODD), OTHER_CRITICS[critic]())
    networks = Networks(*(network.double().to(device) for network in (networks.generator, networks.critic)))
    copies = Networks(*(plain(copy.deepcopy(network)) for network in (networks.generator, networks.critic)))
    auxiliary = [AUXILIARY] if isinstance(networks.critic, cg.AuxiliaryClassifierMixin) else []
    terms = Terms(cg.WassersteinLoss(), auxiliary, [PENALTIES[name][0] for name in penalties])
    rng = torch.Generator().manual_seed(1)
    x, z = (torch.randn(4, *shape, generator=rng, dtype=torch.float64) for shape in (ODD["image_shape"], (6,)))
    y, epsilon = torch.tensor([0, 1, 2, 0]), torch.rand(4, generator=rng, dtype=torch.float64)
    inputs = StepInputs(*(value.to(device) for value in (x, y, z, y)), epsilon=epsilon.to(device))
    for step in (critic_step, generator_step):
        results = []
        for players in (networks, copies):
            torch.manual_seed(2)  # the masks of dropout
            results.append(step(players, terms, inputs).gradients)
        distance, norm = (torch.stack([g.norm() for g in gradients]).norm() for gradients in (
            [a - b for a, b in zip(*results, strict=True)], results[1],
        ))  # fmt: skip
        assert distance <= 1e-12 * norm
