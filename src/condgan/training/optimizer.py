"""Optimizers, learning-rate schedules, and the update of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, NoReturn
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from condgan.distributed import average
from condgan.files import plain_numbers
from condgan.schedules import Scheduled, ends, value_at
from condgan.training.adam import ScheduledAdam, set_number
from condgan.training.step import StepResult, trainable

Role = Literal["generator", "critic"]

Schedule = Literal["constant", "linear"] | Callable[[float], float]
"""Factor of the learning rate as a function of the progress `step / total` in [0, 1): constant 1, linear decay to 0,
or a callable."""

OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
"""Makes the optimizer of a network's trainable parameters, such as `lambda p: torch.optim.RMSprop(p, lr=5e-5)`."""

_NAMED_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
}

_SCHEDULED: WeakKeyDictionary[torch.optim.Optimizer, Callable[[float], float]] = WeakKeyDictionary()
"""Schedules of the learning rates of optimizers, which have no place for them."""

_IMPLEMENTATION = {"params", "initial_lr", "foreach", "fused", "capturable", "differentiable"}
"""Entries of a parameter group that do not change what an optimizer computes."""


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """Settings of an Adam optimizer, or of AdamW if `weight_decay` is positive; both are fused.

    Args:
        lr: Learning rate before the `schedule` of a `Trainer`, which is one for both networks; or a function of the
            progress of training for this network alone, such as a `PiecewiseLinearSchedule`, never negative.
        betas: Decay of the first and second moments; each may be a function of the progress of training, such as a
            `CosineSchedule` (then the optimizer is a `ScheduledAdam`, which is not fused).
        eps: Term added to the denominator.
        weight_decay: Decoupled weight decay.

    Raises:
        ValueError: If a value is out of range.

    References:
        Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    lr: Scheduled = 2e-4
    betas: tuple[Scheduled, Scheduled] = (0.0, 0.9)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, plain_numbers(getattr(self, entry.name)))
        if (not callable(self.lr) and self.lr <= 0) or self.eps <= 0 or self.weight_decay < 0:
            raise ValueError(f"lr and eps must be positive and weight_decay at least 0, got {self}.")
        if any(value < 0 for value in ends(self.lr)):
            raise ValueError(f"a scheduled lr must be at least 0, got {self}.")
        if not all(0 <= value < 1 for beta in self.betas for value in ends(beta)):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}.")

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Make the optimizer. On CUDA its learning rate is a tensor, and its steps can be captured in a graph.

        A scheduled learning rate has its first value, and follows its schedule in a `Trainer`.
        """
        optimizer = self._build(list(parameters), value_at(self.lr, 0.0))
        if callable(self.lr):
            _SCHEDULED[optimizer] = self.lr
        return optimizer

    def _build(self, parameters: list[Tensor], lr: float) -> torch.optim.Optimizer:
        if any(map(callable, self.betas)):
            return ScheduledAdam(parameters, lr=lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)
        kind = torch.optim.AdamW if self.weight_decay else torch.optim.Adam
        cuda = bool(parameters) and parameters[0].is_cuda
        return kind(
            parameters,
            lr=_rate_on(parameters[0].device, lr) if cuda else lr,
            betas=(value_at(self.betas[0], 0.0), value_at(self.betas[1], 0.0)),
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=True,
            capturable=cuda,
        )


@dataclass(frozen=True, slots=True)
class WeightClipping:
    r"""An optimizer that clamps all weights to $[-c, c]$ after each of its steps, as the original WGAN does.

    It makes the critic's function Lipschitz with some constant, which depends on $c$ and the architecture: pass it as
    `critic_optimizer` to a `Trainer`. Every trainable parameter is clamped, those of batch norms too, as in the paper's
    code.

    Args:
        optimizer: Settings of the optimizer, or a factory.
        limit: Bound $c$, positive. It is the entry `clipped_to` of the optimizer's parameter groups, and so recorded
            in the trainer's settings and in checkpoints.

    Shape:
        - `parameters`: any.

    Raises:
        ValueError: If `limit` is not positive and finite.

    Examples:
        >>> weight = nn.Parameter(torch.tensor([0.5, -0.004]))
        >>> optimizer = WeightClipping(lambda p: torch.optim.SGD(p, lr=1.0), limit=0.01)([weight])
        >>> weight.grad = torch.zeros(2)
        >>> optimizer.step()
        >>> weight.detach()
        tensor([ 0.0100, -0.0040])

    References:
        Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1.
    """

    optimizer: OptimizerConfig | OptimizerFactory
    limit: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.limit < math.inf:
            raise ValueError(f"limit must be positive and finite, got {self.limit}.")

    def __call__(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer of the parameters."""
        make = self.optimizer.build if isinstance(self.optimizer, OptimizerConfig) else self.optimizer
        optimizer = make(parameters)
        for group in optimizer.param_groups:
            group["clipped_to"] = self.limit
        optimizer.register_step_post_hook(_clip)
        return optimizer


@torch.no_grad()
def _clip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for group in optimizer.param_groups:
        torch._foreach_clamp_min_(group["params"], -group["clipped_to"])
        torch._foreach_clamp_max_(group["params"], group["clipped_to"])


class Updater:
    """Applies the gradients of a step to one network.

    Args:
        role: Prefix of its metrics.
        network: The network; its trainable parameters are updated.
        make: Settings of its optimizer, or a factory.

    Attributes:
        optimizer: The optimizer.
        settings: Its class and hyperparameters before the schedule, as plain values.

    Raises:
        TypeError: If a factory returns something other than an optimizer.
        ValueError: If the optimizer does not hold exactly the trainable parameters of the network.
    """

    def __init__(self, role: Role, network: nn.Module, make: OptimizerConfig | OptimizerFactory) -> None:
        self.role = role
        self.network = network.to(memory_format=torch.channels_last)  # faster on CPUs and tensor cores alike
        parameters = trainable(network)
        if isinstance(make, OptimizerConfig):
            self.optimizer = make.build(parameters)
            self._rates: list[Scheduled] = [make.lr]
            self.settings = {entry.name: _plain(getattr(make, entry.name)) for entry in fields(make)}
            return
        self.optimizer = make(parameters) if callable(make) else _refuse(role, make)
        _check_optimizer(role, self.optimizer, parameters)
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        groups = [_hyperparameters(group) for group in self.optimizer.param_groups]
        self.settings = {"class": type(self.optimizer).__name__, "groups": groups}
        if schedule := _SCHEDULED.get(self.optimizer):
            self._rates = [schedule] * len(self._rates)
            self.settings["lr"] = _plain(schedule)
        if isinstance(self.optimizer, ScheduledAdam):
            self.settings["betas"] = _plain(self.optimizer.betas)
        if parameters and parameters[0].is_cuda and self.obstacle_to_graphs is None:
            for group in self.optimizer.param_groups:
                group["capturable"] = True
                group["lr"] = _rate_on(parameters[0].device, float(group["lr"]))

    @property
    def obstacle_to_graphs(self) -> str | None:
        """Why steps of the optimizer cannot be captured in a CUDA graph, or None if they can."""
        if all("capturable" in group for group in self.optimizer.param_groups):
            return None
        return f"steps of {type(self.optimizer).__name__} cannot be captured: it has no option capturable"

    @property
    def scheduled(self) -> list[Scheduled]:
        """The numbers that may follow the progress of training."""
        betas = self.optimizer.betas if isinstance(self.optimizer, ScheduledAdam) else ()
        return [*self._rates, *betas]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of the optimizer, perhaps from another device: its rates and implementation stay."""
        own = [
            {name: value for name, value in group.items() if name in {*_IMPLEMENTATION, "lr"} - {"params"}}
            for group in self.optimizer.param_groups
        ]
        groups = [{**saved, **kept} for saved, kept in zip(state["param_groups"], own, strict=True)]
        self.optimizer.load_state_dict({**state, "param_groups": groups})

    def set_progress(self, progress: float, factor: float) -> None:
        """Set scheduled numbers to their values at `progress`, and multiply learning rates by `factor`."""
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            set_number(group, "lr", value_at(rate, progress) * factor)
        if isinstance(self.optimizer, ScheduledAdam):
            self.optimizer.set_progress(progress)

    def update(self, result: StepResult) -> dict[str, Tensor]:
        """Average gradients and metrics over all processes, take one optimizer step, and return the metrics."""
        averaged = average([*result.gradients, *result.metrics.values()])
        gradients, values = averaged[: len(result.gradients)], averaged[len(result.gradients) :]
        for parameter, gradient in zip(trainable(self.network), gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        return dict(zip(result.metrics, values, strict=True)) | {f"{self.role}/gradient_norm": norm}


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameter groups, in place where it is a tensor on the parameters' device."""
    for group in optimizer.param_groups:
        set_number(group, "lr", lr)


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


def _rate_on(device: torch.device, lr: float) -> Tensor:
    # whatever the default dtype: fused optimizers read the memory of the rate as float32
    return torch.tensor(lr, dtype=torch.float32, device=device)


def _refuse(role: Role, value: object) -> NoReturn:
    raise TypeError(
        f"{role}_optimizer must be an OptimizerConfig or return an optimizer of a list of parameters, got a "
        f"{type(value).__name__}. Pass, for instance, lambda p: torch.optim.RMSprop(p, lr=5e-5)."
    )


def _check_optimizer(role: Role, optimizer: object, parameters: list[nn.Parameter]) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        _refuse(role, optimizer)
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if {id(parameter) for parameter in held} != {id(parameter) for parameter in parameters}:
        raise ValueError(
            f"the optimizer of the {role} must hold the {len(parameters)} trainable parameters that {role}_optimizer "
            f"is given, got one of {len(held)} parameters. Freeze parameters with requires_grad_(False)."
        )


def _hyperparameters(group: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in group.items() if name not in _IMPLEMENTATION}


def _plain(value: Any) -> Any:
    """Return a value in a form that a checkpoint can hold: `torch.load(weights_only=True)` runs no code."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if callable(value):
        return getattr(value, "__qualname__", repr(value))  # a function's repr has an address, which is never the same
    return value if value is None or isinstance(value, (bool, int, float, str)) else type(value).__qualname__
