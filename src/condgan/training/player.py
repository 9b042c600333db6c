"""One side of the game: a network and its optimizer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from condgan.training.distributed import average
from condgan.training.optimizer import OptimizerConfig, set_learning_rate
from condgan.training.step import StepResult, trainable

Role = Literal["generator", "critic"]


class Player:
    """Applies the gradients of a step to a network.

    Args:
        role: Prefix of its metrics.
        network: The network; its trainable parameters are updated.
        config: Settings of its optimizer.
    """

    def __init__(self, role: Role, network: nn.Module, config: OptimizerConfig) -> None:
        self.role = role
        self.network = network.to(memory_format=torch.channels_last)  # faster on CPUs and tensor cores alike
        self.config = config
        self.optimizer = config.build(trainable(network))

    def set_learning_rate(self, factor: float) -> None:
        """Set the learning rate to `factor` times that of the settings."""
        set_learning_rate(self.optimizer, self.config.lr * factor)

    def update(self, result: StepResult) -> dict[str, Tensor]:
        """Average gradients and metrics over all processes, take one optimizer step, and return the metrics."""
        averaged = average([*result.gradients, *result.metrics.values()])
        gradients, values = averaged[: len(result.gradients)], averaged[len(result.gradients) :]
        for parameter, gradient in zip(trainable(self.network), gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        return dict(zip(result.metrics, values, strict=True)) | {f"{self.role}/gradient_norm": norm}
