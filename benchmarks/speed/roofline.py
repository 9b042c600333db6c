r"""How close an iteration comes to what the device could do, operator by operator.

$$ \text{bound} = \sum_{o} \max\Big(\frac{\text{operations}(o)}{\text{rate of matrix products}},
   \frac{\text{bytes}(o)}{\text{rate of copies}}\Big), \qquad \text{share} = \frac{\text{bound}}{\text{measured}} $$

Both rates are measured on the device itself, in the type that the operator computes in.

What this bound leaves out. It belongs to the operators as they are dispatched: fusing them, or leaving some out, moves
the bound itself, so that a share of 1 is not the end of what can be gained. It knows neither launches nor the time
between operators, nor that small or oddly shaped products cannot reach the rate of large square ones; these make shares
small. It takes every byte from memory, though a cache may hold it from the operator before, and every convolution by
its plain formula, though fast algorithms (Winograd) need fewer operations; these can lift a share, in small
configurations even above 1.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from counting import Operator, count_iteration, total_bytes, total_operations
from subjects import Config, Ours, configurations
from timing import Budget, Part, Settings, alternate_iterations, or_left_out, summary, time_once

_SIZES = {"cpu": ((1024, 2048), 2**28), "cuda": ((4096, 8192, 16384), 2**30)}  # of matrices; bytes of a copy
_QUICK = ((256,), 2**24)


@dataclass(frozen=True)
class Rates:
    """What a device was seen to do: operations a second in matrix products by type, bytes a second in copies."""

    operations: dict[torch.dtype, float]
    bytes: float

    def bound(self, operators: Counter[Operator]) -> float:
        """Return the least seconds that these operators take."""
        return sum(times * max(self.seconds(operator)) for operator, times in operators.items())

    def seconds(self, operator: Operator) -> tuple[float, float]:
        """Return the seconds that its operations take and those that its bytes take."""
        rate = self.operations.get(operator.dtype or torch.float32, self.operations[torch.float32])
        return operator.operations / rate, operator.bytes / self.bytes

    def describe(self) -> dict[str, Any]:
        """Return the rates as plain values."""
        by_type = {str(dtype).removeprefix("torch."): rate for dtype, rate in self.operations.items()}
        return {"operations_per_second": by_type, "bytes_per_second": self.bytes}


def measure_rates(settings: Settings) -> Rates:
    """Measure the rates of large matrix products and of a copy, each the best of several runs."""
    device = settings.device
    sides, size = _QUICK if settings.quick else _SIZES[torch.device(device).type]
    operations = {
        dtype: max(_matrix_rate(n, dtype, device) for n in sides) for dtype in (torch.float32, torch.bfloat16)
    }
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Rates(operations, 2 * size / _fastest(partial(target.copy_, source), device))


def measure(settings: Settings) -> Part:
    """Compare our iterations with the bound, and say which operators it consists of."""
    part = Part()
    rates = measure_rates(settings)
    part.rows.append({"what": "measured rates", **rates.describe()})
    budget = Budget(settings.limit)
    for config in configurations(settings):
        for precision in ("fp32", "bf16"):
            with or_left_out(part, {**config.describe(), "precision": precision}):
                budget.foresee(config.pixels)
                part.rows.append(measure_share(config, precision, settings, rates, budget))
    return part


def measure_share(config: Config, precision: str, settings: Settings, rates: Rates, budget: Budget) -> dict[str, Any]:
    """Return the bound, what is measured, and the operators that make up most of the bound."""
    ours = Ours(config, settings.device, precision=precision)
    budget.start(ours, settings.device)
    seconds = alternate_iterations({"condgan": ours}, settings)["condgan"]
    operators = count_ours(config, precision, settings.device)
    bound = rates.bound(operators)
    return {
        "what": "iteration",
        **config.describe(),
        "precision": precision,
        "rounds": settings.rounds,
        "seconds": summary(seconds),
        "operations": total_operations(operators),
        "bytes": total_bytes(operators),
        "bound_seconds": bound,
        "share": bound / statistics.median(seconds),
        "bound_by": _largest(operators, rates),
    }


def count_ours(config: Config, precision: str, device: str) -> Counter[Operator]:
    """Return the operators of one of our iterations as it is written: replayed graphs have the same, unseen."""
    ours = Ours(config, device, precision=precision, engine="eager")
    ours(1)
    return count_iteration(ours)


def _largest(operators: Counter[Operator], rates: Rates, count: int = 8) -> dict[str, dict[str, float]]:
    """Return the seconds of the bound by name of operator: those set by operations, and those set by bytes."""
    by_name: dict[str, dict[str, float]] = {}
    for operator, times in operators.items():
        computing, moving = rates.seconds(operator)
        row = by_name.setdefault(operator.name, {"times": 0, "operations": 0.0, "bytes": 0.0})
        row["times"] += times
        row["operations" if computing > moving else "bytes"] += times * max(computing, moving)
    ordered = sorted(by_name.items(), key=lambda item: -item[1]["operations"] - item[1]["bytes"])
    return dict(ordered[:count])


def _matrix_rate(side: int, dtype: torch.dtype, device: str) -> float:
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    with _as_convolutions():
        return 2 * side**3 / _fastest(partial(torch.mm, a, b), device)


@contextmanager
def _as_convolutions() -> Iterator[None]:
    """Let float32 matrix products round to TF32 where float32 convolutions do, which is PyTorch's default for them."""
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = torch.backends.cudnn.conv.fp32_precision
    try:
        yield
    finally:
        products.fp32_precision = before


def _fastest(run: Any, device: str, repeats: int = 7) -> float:
    return min([time_once(run, device) for _ in range(repeats + 1)][1:])
