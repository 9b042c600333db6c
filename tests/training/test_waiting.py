"""No step reads anything back from its device, or mixes in the host's memory: either would make it wait.

Steps run on the CPU, where a tape refuses the operations that wait, and on the device "meta", which holds no values.
"""

from contextlib import nullcontext
from dataclasses import fields, replace

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

import condgan as cg
from condgan.regularizers import CriticRegularizer
from condgan.training import critic_step, generator_step
from condgan.training.inputs import Request
from condgan.types import StepInputs
from fake_cuda import Tape

devices = pytest.mark.parametrize("device", ["cpu", "meta"])
SHAPE = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 8}


@pytest.fixture(autouse=True)
def no_autocast_on_meta(monkeypatch):
    real = torch.autocast

    def autocast(device, *args, **options):
        return nullcontext() if device == "meta" else real(device, *args, **options)

    monkeypatch.setattr(torch, "autocast", autocast)


def moved(inputs: StepInputs, device: str) -> StepInputs:
    def move(value):
        return value.to(device) if isinstance(value, torch.Tensor) else value

    return StepInputs(**{field.name: tree_map(move, getattr(inputs, field.name)) for field in fields(inputs)})


def run_steps(trainer: cg.Trainer, data: cg.data.ArrayDataset, device: str) -> None:
    """Do both steps with all lazy terms."""
    sampler = trainer._make_sampler(data, 2**32)
    networks = trainer.networks
    for network in (networks.generator, networks.critic):
        network.to(device)
    terms = replace(trainer.terms, critic_regularizers=nn.ModuleList(trainer.terms.critic_regularizers).to(device))
    for step in (critic_step, generator_step):
        inputs = moved(sampler.draw(Request(4)), device)
        with Tape():
            result = step(networks, terms, inputs)
        tensors = [*result.gradients, *result.metrics.values()]
        assert {tensor.device.type for tensor in tensors} == {device}


@pytest.mark.parametrize(("device", "precision"), [("cpu", "fp32"), ("cpu", "bf16"), ("meta", "fp32")])
@pytest.mark.parametrize("recipe", cg.recipes.RECIPES)
def test_the_steps_of_recipes_read_nothing_back(recipe, precision, device, tiny_images):
    trainer = cg.recipes.RECIPES[recipe](tiny_images, base_channels=8, precision=precision, device="cpu")
    run_steps(trainer, tiny_images, device)


@devices
@pytest.mark.parametrize("name", ["R1", "R2", "DraganPenalty", "GradientPenalty"])
@pytest.mark.parametrize("critic", [cg.ACResNetCritic, cg.ACDCGANCritic])
def test_regularizers_read_nothing_back(name, critic, device, tiny_images):
    trainer = cg.Trainer(
        cg.ResNetGenerator(latent_dim=8, **SHAPE),
        critic(spectral_norm=True, **SHAPE),
        loss=cg.RelativisticLoss(),
        auxiliary=cg.AuxiliaryClassifierLoss(),
        regularizers=[getattr(cg.regularizers, name)(1.0)],
        augment=cg.DiffAugment(policy="brightness,saturation,contrast,translation,cutout"),
        label_distribution="paired",
        dequantize=True,
        device="cpu",
    )
    run_steps(trainer, tiny_images, device)


@devices
@pytest.mark.parametrize("loss", [cg.MinimaxLoss(), cg.HingeLoss(), cg.WassersteinLoss(), cg.LeastSquaresLoss()])
def test_losses_read_nothing_back(loss, device, make_trainer, tiny_images):
    run_steps(make_trainer(loss=loss), tiny_images, device)


class ReadsBack(CriticRegularizer):
    def penalty(self, critic, batch):
        return batch.real.score.mean() * float(batch.real.score.detach().sum())


class PicksByMask(CriticRegularizer):
    def penalty(self, critic, batch):
        return batch.real.score[batch.real.score > 0].sum()


class BringsNumbers(CriticRegularizer):
    def penalty(self, critic, batch):
        return (batch.real.score * torch.tensor([1.0, 2.0, 3.0, 4.0], device=batch.x.device)).sum()


@pytest.mark.parametrize("term", [ReadsBack(1.0), PicksByMask(1.0), BringsNumbers(1.0)])
def test_a_term_that_waits_for_the_device_is_seen(term, make_trainer, tiny_images):
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        run_steps(make_trainer(regularizers=[term]), tiny_images, "cpu")
