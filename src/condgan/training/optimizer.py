"""Optimizer settings and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Schedule = Literal["constant", "linear"] | Callable[[float], float]
"""Factor of the learning rate as a function of the progress `step / total` in [0, 1): constant 1, linear decay to 0,
or a callable."""

_NAMED_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
}


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """Settings of an Adam optimizer (of AdamW where `weight_decay` is positive), fused where the device has it.

    Args:
        lr: Learning rate before the schedule.
        betas: Decay of the first and second moments.
        eps: Term added to the denominator.
        weight_decay: Decoupled weight decay.

    Raises:
        ValueError: If a value is out of range.

    References:
        Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.9)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.eps <= 0 or self.weight_decay < 0:
            raise ValueError(f"lr and eps must be positive and weight_decay at least 0, got {self}.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}.")

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Make the optimizer. On CUDA its learning rate is a tensor, and its steps can be recorded in a graph."""
        kind = torch.optim.AdamW if self.weight_decay else torch.optim.Adam
        parameters = list(parameters)
        cuda = bool(parameters) and parameters[0].is_cuda
        return kind(
            parameters,
            lr=_rate_on(parameters[0].device, self.lr) if cuda else self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=True,
            capturable=cuda,
        )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate, in place where it is a tensor on the parameters' device."""
    for group in optimizer.param_groups:
        place = group["params"][0].device
        if not isinstance(group["lr"], Tensor):
            group["lr"] = lr
        elif group["lr"].device == place:
            group["lr"].fill_(lr)
        else:  # read from a checkpoint into the memory of the host
            group["lr"] = _rate_on(place, lr)


def _rate_on(device: torch.device, lr: float) -> Tensor:
    # float32 whatever the default type is: fused optimizers read the rate's memory as float32
    return torch.tensor(lr, dtype=torch.float32, device=device)


def schedule_factor(schedule: Schedule, progress: float) -> float:
    """Return the factor of the learning rate at `progress`.

    Raises:
        ValueError: If the schedule is unknown.
    """
    if isinstance(schedule, str):
        if schedule not in _NAMED_SCHEDULES:
            raise ValueError(f"schedule must be one of {sorted(_NAMED_SCHEDULES)} or a callable, got {schedule!r}.")
        schedule = _NAMED_SCHEDULES[schedule]
    return schedule(progress)
