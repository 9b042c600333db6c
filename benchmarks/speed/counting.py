"""What an iteration asks of a machine: operators, floating-point operations and bytes, the same on every run.

Floating-point operations are those of matrix products and convolutions, two for each multiplication and addition, by
the formulas of `torch.utils.flop_counter`; a second derivative of a convolution is dispatched as convolutions and is
counted like them. Arithmetic on single elements is not counted: its bytes are what it costs.

Bytes are the sizes of all tensors that an operator reads or writes, each once: what a cache keeps from one operator to
the next is counted again, and what an operator needs inside (the columns of an unfolded image, say) is not counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from timing import Repeat, Run
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_PICKS_ROWS = ("index", "index_select", "embedding", "gather")
_OVERWRITES = ("copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "_foreach_copy_", "_foreach_zero_")
_MOVES_NOTHING = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view")


class Operator(NamedTuple):
    """One dispatched operator: its name, floating-point operations, bytes, and the type it computes in."""

    name: str
    operations: int
    bytes: int
    dtype: torch.dtype | None


class OperatorCounter(TorchDispatchMode):
    """Counts all operators below autograd in `operators`; views and allocations move nothing and are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[Operator] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if not func.is_view and name not in _MOVES_NOTHING:
            formula = flop_registry.get(func.overloadpacket)
            operations = formula(*args, **kwargs, out_val=out) if formula else 0
            inputs, changed = _tensors((args, kwargs)), _changed(func, args, kwargs)
            read, written = _read(name, inputs, changed), _distinct([*changed, *_tensors(out)])
            size = 2 * _size(written) if name in _PICKS_ROWS else _size(read) + _size(written)
            self.operators[Operator(name, operations, size, inputs[0].dtype if inputs else None)] += 1
        return out


def count(run: Run) -> Counter[Operator]:
    """Return the operators of one call."""
    with OperatorCounter() as counter:
        run()
    return counter.operators


def count_iteration(subject: Repeat) -> Counter[Operator]:
    """Return the operators of one iteration, without those that every call has."""
    return count(lambda: subject(1)) - count(lambda: subject(0))


def total_operations(operators: Counter[Operator]) -> int:
    """Return the floating-point operations."""
    return sum(times * operator.operations for operator, times in operators.items())


def total_bytes(operators: Counter[Operator]) -> int:
    """Return the bytes that are read and written."""
    return sum(times * operator.bytes for operator, times in operators.items())


def count_launches(subject: Repeat) -> dict[str, int]:
    """Return the kernels and the replayed graphs of one iteration on a CUDA device."""
    none, one = _launches(subject, 0), _launches(subject, 1)
    return {name: one[name] - none[name] for name in one}


def _launches(subject: Repeat, iterations: int) -> dict[str, int]:
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        subject(iterations)
        torch.cuda.synchronize()
    events = profiler.events() or []
    on_device = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    return {
        "kernels": sum(
            not e.name.startswith(("Memcpy", "Memset")) and not getattr(e, "is_user_annotation", False)
            for e in on_device
        ),
        "graph_replays": sum(e.name == "cudaGraphLaunch" for e in events),
    }


def _tensors(part: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(part) if isinstance(leaf, Tensor)]


def _changed(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Return the arguments that an operator changes in place."""
    names = {argument.name: argument for argument in func._schema.arguments}
    given = dict(zip(names, args, strict=False)) | kwargs
    return _tensors([v for k, v in given.items() if (info := names[k].alias_info) is not None and info.is_write])


def _read(name: str, inputs: list[Tensor], changed: list[Tensor]) -> list[Tensor]:
    overwritten = {id(t) for t in changed} if name in _OVERWRITES else set()
    return [t for t in inputs if id(t) not in overwritten]


def _distinct(tensors: list[Tensor]) -> list[Tensor]:
    return list({id(t): t for t in tensors}.values())


def _size(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors; an expanded dimension is in memory once."""
    return sum(
        math.prod(side for side, stride in zip(t.shape, t.stride(), strict=True) if stride) * t.element_size()
        for t in tensors
    )
