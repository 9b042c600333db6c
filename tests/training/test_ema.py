import copy

import pytest
import torch
from torch import nn

import condgan as cg
from condgan.training import ExponentialMovingAverage, reestimate_statistics
from condgan.training.inputs import Sampler


def set_weights(generator: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.fill_(value)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_average_has_its_closed_form(point_networks, decay):
    generator, _ = point_networks(2, width=4)
    generator.double()
    set_weights(generator, 3.0)
    ema = ExponentialMovingAverage(generator, decay)
    values = [1.0, -2.0, 5.0, 0.25, 7.0]
    for value in values:
        set_weights(generator, value)
        ema.update(generator)
    decays = [min(decay, (1 + t) / (10 + t)) for t in range(len(values))]
    expected, rest = 0.0, 1.0
    for value, d in zip(reversed(values), reversed(decays), strict=True):
        expected, rest = expected + rest * (1 - d) * value, rest * d
    expected += rest * 3.0
    for parameter in ema.generator.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, expected))
        assert not parameter.requires_grad


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decays_out_of_range_are_refused(point_networks, decay):
    with pytest.raises(ValueError, match="ema_decay"):
        ExponentialMovingAverage(point_networks(2)[0], decay)


def norms_of(generator: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def true_statistics(generator: nn.Module, sampler: Sampler) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and variance of what each batch norm sees in one large batch."""
    found = []
    norms = norms_of(generator)
    for norm in norms:
        norm.train()
    hooks = [
        norm.register_forward_pre_hook(
            lambda module, args: found.append((args[0].mean((0, 2, 3)), args[0].var((0, 2, 3))))
        )
        for norm in norms
    ]
    generator(*sampler.latents_and_labels(4096, torch.Generator().manual_seed(99)))
    for norm, hook in zip(norms, hooks, strict=True):
        hook.remove()
        norm.eval()
    return found


def error(norms: list[nn.BatchNorm2d], truth) -> float:
    """Largest error of the running statistics, in standard deviations and as a factor of the variance."""
    return max(
        max(
            float(((norm.running_mean - mean) / var.sqrt()).abs().max()),
            float((norm.running_var / var).log().abs().max()),
        )
        for norm, (mean, var) in zip(norms, truth, strict=True)
    )


def test_statistics_are_those_of_the_averaged_weights(make_trainer, tiny_images):
    trainer = make_trainer(
        ema_decay=0.9,
        label_distribution="empirical",
        sampling="natural",
        generator_optimizer=cg.OptimizerConfig(lr=0.02),
        critic_optimizer=cg.OptimizerConfig(lr=0.002),
    )
    trainer.fit(tiny_images, steps=15, batch_size=8)
    stale = copy.deepcopy(trainer._ema.generator)
    before = norms_of(copy.deepcopy(stale))
    truth = true_statistics(stale, trainer._sampler)
    after = norms_of(trainer.ema)
    assert error(after, truth) < 0.2 < error(before, truth)
    assert not any(norm.training or norm.momentum != 0.1 for norm in after)
    assert torch.equal(trainer.networks.generator.norm.num_batches_tracked, torch.tensor(30))


def test_reestimation_is_a_plain_average_of_the_batches():
    generator = cg.DCGANGenerator(latent_dim=4, num_classes=None, image_shape=(1, 16, 16), base_channels=2).eval()
    batches = [(torch.randn(16, 4), None) for _ in range(3)]
    inputs = []
    hook = generator.norm.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    weights = [parameter.clone() for parameter in generator.parameters()]
    reestimate_statistics(generator, batches)
    hook.remove()
    torch.testing.assert_close(generator.norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0))
    torch.testing.assert_close(generator.norm.running_var, torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0))
    assert not generator.training
    assert not any(module.training for module in generator.modules())
    assert all(torch.equal(a, b) for a, b in zip(weights, generator.parameters(), strict=True))


def test_a_network_without_batch_norm_is_not_run(point_networks):
    reestimate_statistics(point_networks(2)[0], (pytest.fail("drew latents") for _ in range(1)))


def test_checkpoints_and_exports_have_the_statistics(make_trainer, tiny_images, tmp_path):
    trainer = make_trainer()
    trainer.fit(tiny_images, steps=3, batch_size=6)
    trainer.save(tmp_path)
    expected = trainer.sample([0, 1, 2], seed=0)
    resumed = make_trainer()
    resumed.resume(tmp_path)
    assert torch.equal(resumed.sample([0, 1, 2], seed=0), expected)
    trainer.ema.save_pretrained(tmp_path / "export")
    exported = cg.DCGANGenerator.from_pretrained(tmp_path / "export")
    x = cg.sample(exported, [0, 1, 2], rng=torch.Generator().manual_seed(0))
    assert torch.equal(x, expected)
