"""Adam with decays that may change in the course of training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from condgan.schedules import Scheduled, value_at


class ScheduledAdam(torch.optim.Optimizer):
    r"""Adam whose learning rate and decays are tensors, which can change between the replays of a CUDA graph.

    $$ m_t = \beta_{1,t} m_{t-1} + (1 - \beta_{1,t}) g_t, \qquad
       v_t = \beta_{2,t} v_{t-1} + (1 - \beta_{2,t}) g_t^2, \qquad
       \theta_t = (1 - \eta \lambda)\,\theta_{t-1} - \eta\,
           \frac{m_t / (1 - \prod_s \beta_{1,s})}{\sqrt{v_t / (1 - \prod_s \beta_{2,s})} + \epsilon} $$

    The products are the weight that is left of the zeros that $m$ and $v$ began with; with constant decays they are
    powers, and this is Adam. PyTorch's optimizers keep decays as Python numbers, or wait for the device to read them.

    Args:
        parameters: What to optimize; all on one device.
        lr: Learning rate $\eta$.
        betas: Decays $\beta_1$ and $\beta_2$; each may be a function of the progress of training.
        eps: Term $\epsilon$ added to the denominator.
        weight_decay: Decoupled weight decay $\lambda$.

    References:
        Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter 2019, arXiv:1711.05101 (weight decay).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[Scheduled, Scheduled],
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        beta1, beta2 = (value_at(beta, 0.0) for beta in betas)
        fixed = {"eps": eps, "weight_decay": weight_decay, "capturable": True}
        super().__init__(list(parameters), {"lr": lr, "beta1": beta1, "beta2": beta2, **fixed})
        for group in self.param_groups:
            like = group["params"][0]
            for name in ("lr", "beta1", "beta2"):
                group[name] = torch.tensor(group[name], dtype=like.dtype, device=like.device)
        self.betas = betas

    def set_progress(self, progress: float) -> None:
        """Set the decays to their values at a progress in [0, 1)."""
        for group in self.param_groups:
            for name, beta in zip(("beta1", "beta2"), self.betas, strict=True):
                set_number(group, name, value_at(beta, progress))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; a closure is not supported."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                _update(parameters, [self._state_of(parameter) for parameter in parameters], group)

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            for name in ("mean", "square"):
                state[name] = torch.zeros_like(parameter)
                state[f"{name}_unseen"] = parameter.new_ones(())
        return state


def set_number(group: dict[str, Any], name: str, value: float) -> None:
    """Set a number of a parameter group, in place where it is a tensor on the parameters' device."""
    place = group["params"][0].device
    if not isinstance(group[name], Tensor):
        group[name] = value
    elif group[name].device == place:
        group[name].fill_(value)
    else:  # loaded from a checkpoint, on the CPU
        group[name] = torch.full_like(group[name], value, device=place)


def _update(parameters: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]) -> None:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    squares = list(torch._foreach_mul(gradients, gradients))
    steps = _averaged("mean", gradients, states, group["beta1"])
    scales = _averaged("square", squares, states, group["beta2"])
    torch._foreach_sqrt_(scales)
    torch._foreach_add_(scales, group["eps"])
    torch._foreach_div_(steps, scales)
    torch._foreach_mul_(steps, group["lr"])
    if group["weight_decay"]:
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
    torch._foreach_sub_(parameters, steps)


def _averaged(name: str, values: list[Tensor], states: list[dict[str, Tensor]], beta: Tensor) -> list[Tensor]:
    """Move the averages of this name towards `values`, and return them without the share of the zeros they began as."""
    average, unseen = ([state[key] for state in states] for key in (name, f"{name}_unseen"))
    torch._foreach_mul_(average, beta)
    torch._foreach_add_(average, list(torch._foreach_mul(values, 1 - beta)))
    torch._foreach_mul_(unseen, beta)
    return list(torch._foreach_div(average, [1 - rest for rest in unseen]))
