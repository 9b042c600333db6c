"""ACWGAN-GP as tutorials write it, correct and without any saving; and each saving as a small change of it.

As in repositories that loops are copied from (eriklindernoren/PyTorch-GAN, implementations/wgan_gp), the fakes of a
critic step keep their graph, and the critic's loss runs backward through the generator too, for nothing. Others
detach them: ours over such a loop is reported as `.no_grad_fakes`.

Every subclass changes one thing and is otherwise the plain loop. All but bf16 and the single power iteration give
the same gradients from the same draws.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from subjects import CRITIC_STEPS, Config, make_data, make_networks, with_plain_layers
from torch import Tensor, nn
from torch.nn.utils import parametrize

import condgan as cg


class TutorialLoop:
    """Five critic steps and one generator step with `backward`, separate passes and PyTorch's layers.

    The networks are those of the library without what its layers save, so that both sides compute the same function
    with as many weights. Draws are made on the device and no loss is read.

    Args:
        generator: Maps latents and labels to images.
        critic: Returns scores and class logits.
        data: The images, resident in memory: the data path is measured elsewhere.
        batch_size: Images of each step.
        device: Where to train.
    """

    keeps: ClassVar[tuple[str, ...]] = ()
    """What the networks keep of `SAVINGS_IN_LAYERS`."""

    def __init__(
        self,
        generator: cg.Generator,
        critic: cg.Critic,
        data: cg.data.ArrayDataset,
        *,
        batch_size: int,
        device: str,
    ) -> None:
        self.device = device
        self.batch_size = batch_size
        self.num_classes = data.num_classes
        self.images = data.images.to(device)
        self.labels = data.labels.to(device)
        self.generator = self.place(with_plain_layers(generator, keep=self.keeps))
        self.critic = self.place(with_plain_layers(critic, keep=self.keeps))
        self.generator_optimizer = self.make_optimizer(self.generator)
        self.critic_optimizer = self.make_optimizer(self.critic)

    @classmethod
    def of(cls, config: Config, device: str, **critic_options: Any) -> Self:
        """Return the loop for a configuration of the benchmark."""
        networks = make_networks(config.kind, config.size, config.base, **critic_options)
        return cls(*networks, make_data(config.size), batch_size=config.batch, device=device)

    def repeat(self, times: int) -> None:
        """Do so many iterations."""
        for _ in range(times):
            self.iterate()

    def iterate(self) -> None:
        """Do one iteration."""
        for _step in range(CRITIC_STEPS):
            self.critic_step()
        self.generator_step()

    def critic_step(self) -> Tensor:
        """Update the critic and return its loss."""
        x, y = self.real()
        with self.autocast():
            x_fake = self.fakes(self.latents(), y).to(x.dtype)
            real, fake = self.judge(x, x_fake, y)
            loss = fake.score.mean() - real.score.mean() + F.cross_entropy(real.class_logits, y)
            loss = loss + 10 * self.penalty(x, x_fake.detach(), y)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        return loss.detach()

    def generator_step(self) -> Tensor:
        """Update the generator and return its loss."""
        z, y = self.latents(), torch.randint(self.num_classes, (self.batch_size,), device=self.device)
        with self.autocast():
            fake = self.critic(self.generator(z, y), y)
            loss = -fake.score.mean() + 0.1 * F.cross_entropy(fake.class_logits, y)
        self.generator_optimizer.zero_grad()
        loss.backward()
        self.generator_optimizer.step()
        return loss.detach()

    def penalty(self, x: Tensor, x_fake: Tensor, y: Tensor) -> Tensor:
        """Return the gradient penalty."""
        epsilon = torch.rand(len(x), 1, 1, 1, device=self.device)
        x_hat = (epsilon * x + (1 - epsilon) * x_fake).requires_grad_()
        (gradient,) = torch.autograd.grad(self.critic(x_hat, y).score.sum(), x_hat, create_graph=True)
        return ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()

    def real(self) -> tuple[Tensor, Tensor]:
        """Draw real images and their labels."""
        index = torch.randint(len(self.images), (self.batch_size,), device=self.device)
        return self.images[index] / 127.5 - 1, self.labels[index]

    def latents(self) -> Tensor:
        """Draw latents."""
        return torch.randn(self.batch_size, self.generator.latent_dim, device=self.device)

    def fakes(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the generated images of a critic step."""
        return self.generator(z, y)

    def judge(self, x: Tensor, x_fake: Tensor, y: Tensor) -> tuple[cg.CriticOutput, cg.CriticOutput]:
        """Return the critic's outputs on real and on generated images."""
        return self.critic(x, y), self.critic(x_fake, y)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of forward passes and losses."""
        return nullcontext()

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to where it is trained."""
        return network.to(self.device).train()

    def make_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a network."""
        return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.0, 0.9))


class NoGradFakes(TutorialLoop):
    """The fakes of a critic step are made without a graph, and nothing runs backward through the generator."""

    def fakes(self, z: Tensor, y: Tensor) -> Tensor:  # noqa: D102
        with torch.no_grad():
            return super().fakes(z, y)


class OneForward(TutorialLoop):
    """Real and generated images pass the critic in one batch."""

    def judge(self, x: Tensor, x_fake: Tensor, y: Tensor) -> tuple[cg.CriticOutput, cg.CriticOutput]:  # noqa: D102
        return self.critic(torch.cat([x, x_fake]), torch.cat([y, y])).split((len(x), len(x_fake)))


class NoZeroSecondDerivatives(TutorialLoop):
    """The library's activations stay: their second derivative is absent instead of a tensor of zeros."""

    keeps = ("activations",)


class WeightGradients(TutorialLoop):
    """The library's convolutions stay: the penalty's weight gradients are computed as weight gradients."""

    keeps = ("weight_gradients",)


class ResizedWeights(TutorialLoop):
    """The library's convolutions that enlarge or pool stay: it is done to their weights instead of the maps."""

    keeps = ("resized_weights",)


class FrozenCritic(TutorialLoop):
    """A generator step computes no gradients of the critic's weights."""

    def generator_step(self) -> Tensor:  # noqa: D102
        self.critic.requires_grad_(False)
        loss = super().generator_step()
        self.critic.requires_grad_(True)
        return loss


class FusedAdam(TutorialLoop):
    """One kernel updates all weights of a network."""

    def make_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:  # noqa: D102
        return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.0, 0.9), fused=True)


class ChannelsLast(TutorialLoop):
    """Weights, and so feature maps, have their channels last in memory."""

    def place(self, network: nn.Module) -> nn.Module:  # noqa: D102
        return super().place(network).to(memory_format=torch.channels_last)


class Bf16(TutorialLoop):
    """Forward passes run under autocast to bfloat16, those of the penalty too."""

    def autocast(self) -> AbstractContextManager[object]:  # noqa: D102
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)


class OnePowerIteration(TutorialLoop):
    """A spectrally normalized weight is computed once a critic step, not in each of its three passes.

    The power iteration then runs once instead of three times too, so that the weights differ a little.
    """

    def critic_step(self) -> Tensor:  # noqa: D102
        with parametrize.cached():
            return super().critic_step()


class AveragingLoop(TutorialLoop):
    """The loop with an exponential moving average of the generator, parameter by parameter."""

    def __init__(self, *networks_and_data: Any, **options: Any) -> None:
        super().__init__(*networks_and_data, **options)
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False)

    def generator_step(self) -> Tensor:  # noqa: D102
        loss = super().generator_step()
        self.average()
        return loss

    @torch.no_grad()
    def average(self) -> None:
        """Move the average towards the generator; buffers are copied."""
        for own, new in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
            own.mul_(0.999).add_(new, alpha=1 - 0.999)
        for own, new in zip(self.averaged.buffers(), self.generator.buffers(), strict=True):
            own.copy_(new)


class ForeachAverage(AveragingLoop):
    """One call averages all parameters."""

    @torch.no_grad()
    def average(self) -> None:  # noqa: D102
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.generator.parameters()), 1 - 0.999)
        for own, new in zip(self.averaged.buffers(), self.generator.buffers(), strict=True):
            own.copy_(new)


class ReadingLoop(TutorialLoop):
    """The loop with its losses read in each step, as tutorials do to print them."""

    def iterate(self) -> None:  # noqa: D102
        losses = [self.critic_step().item() for _ in range(CRITIC_STEPS)]
        self.losses = [*losses, self.generator_step().item()]


class HostDraws(TutorialLoop):
    """The loop with its latents drawn on the host and copied to the device."""

    def latents(self) -> Tensor:  # noqa: D102
        return torch.randn(self.batch_size, self.generator.latent_dim).to(self.device)
