"""ACWGAN-GP as tutorials write it: the loop that ours is measured against, correct and without any saving."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import condgan as cg


class TutorialLoop:
    """Five critic steps and one generator step with `backward`, separate passes and plain activations.

    The networks are those of the library with its activations replaced by PyTorch's, so that both sides compute the
    same function with as many weights.

    Args:
        generator: Maps latents and labels to images.
        critic: Returns scores and class logits.
        data: The images, resident in memory: the data path is measured elsewhere.
        batch_size: Images of each step.
        critic_steps: Critic steps for each generator step.
        device: Where to train.
    """

    def __init__(
        self,
        generator: cg.Generator,
        critic: cg.Critic,
        data: cg.data.ArrayDataset,
        *,
        batch_size: int,
        critic_steps: int,
        device: str,
    ) -> None:
        self.generator = generator.to(device).train()
        self.critic = with_plain_activations(critic).to(device).train()
        self.images = data.images.to(device)
        self.labels = data.labels.to(device)
        self.batch_size = batch_size
        self.critic_steps = critic_steps
        self.device = device
        self.generator_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.0, 0.9))
        self.critic_optimizer = torch.optim.Adam(critic.parameters(), lr=2e-4, betas=(0.0, 0.9))

    def iterate(self) -> None:
        """Do one iteration."""
        for _step in range(self.critic_steps):
            index = torch.randint(len(self.images), (self.batch_size,), device=self.device)
            x, y = self.images[index].float() / 127.5 - 1, self.labels[index]
            x_fake = self.generator(self.latents(), y).float()
            real, fake = self.critic(x, y), self.critic(x_fake.detach(), y)
            loss = fake.score.mean() - real.score.mean() + F.cross_entropy(real.class_logits, y)
            loss = loss + 10 * self.penalty(x, x_fake.detach(), y)
            self.critic_optimizer.zero_grad()
            loss.backward()
            self.critic_optimizer.step()
        y = torch.randint(2, (self.batch_size,), device=self.device)
        fake = self.critic(self.generator(self.latents(), y).float(), y)
        loss = -fake.score.mean() + 0.1 * F.cross_entropy(fake.class_logits, y)
        self.generator_optimizer.zero_grad()
        loss.backward()
        self.generator_optimizer.step()

    def latents(self) -> Tensor:
        """Draw latents."""
        return torch.randn(self.batch_size, self.generator.latent_dim, device=self.device)

    def penalty(self, x: Tensor, x_fake: Tensor, y: Tensor) -> Tensor:
        """Return the gradient penalty."""
        epsilon = torch.rand(len(x), 1, 1, 1, device=self.device)
        x_hat = (epsilon * x + (1 - epsilon) * x_fake).requires_grad_()
        (gradient,) = torch.autograd.grad(self.critic(x_hat, y).score.sum(), x_hat, create_graph=True)
        return ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def with_plain_activations(module: torch.nn.Module) -> torch.nn.Module:
    """Replace the library's activations by PyTorch's, in place, and return the module."""
    for name, child in module.named_children():
        if isinstance(child, cg.nn.LeakyReLU):
            setattr(module, name, torch.nn.LeakyReLU(child.negative_slope))
        elif isinstance(child, cg.nn.AvgPool2d):
            setattr(module, name, torch.nn.AvgPool2d(2, ceil_mode=True))
        else:
            with_plain_activations(child)
    return module
