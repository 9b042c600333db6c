"""Training in several processes: ranks, each process's rows of a batch, averaged gradients, and shared decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of processes, `(0, 1)` without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def shard(count: int) -> slice:
    """Return this process's rows of a global batch.

    Raises:
        ValueError: If the batch size is not a multiple of the number of processes.
    """
    rank, world = rank_and_world()
    if count % world:
        raise ValueError(
            f"the batch size must be a multiple of {world}, the number of processes, got {count}. Change batch_size."
        )
    size = count // world
    return slice(rank * size, (rank + 1) * size)


def average(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors averaged over all processes, with a single all-reduce.

    Gradients are averaged here and not by a DistributedDataParallel wrapper: `torch.autograd.grad` through one
    silently does not reduce.
    """
    _, world = rank_and_world()
    if world == 1:
        return list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [torch.empty_like(tensor).copy_(part.view_as(tensor)) for part, tensor in zip(parts, tensors, strict=True)]


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors of all processes with those of the first, in place."""
    if rank_and_world()[1] > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process, so that all processes leave a loop in the same step."""
    if rank_and_world()[1] == 1:
        return flag
    flags = torch.tensor(float(flag), device=device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags)


def check_same(values: Mapping[str, object], device: torch.device) -> None:
    """Check that all processes were given the same values; it raises in each of them, so that none waits for another.

    Raises:
        ValueError: If they differ; the message says in what, and which process has which.
    """
    world = rank_and_world()[1]
    if world == 1:
        return
    given: list[dict[str, str]] = [{}] * world
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # NCCL sends what it pickled through it
        dist.all_gather_object(given, {name: str(value) for name, value in values.items()})
    differing = [
        f"{name} {', '.join(f'{one[name]} (rank {rank})' for rank, one in enumerate(given))}"
        for name in values
        if len({one[name] for one in given}) > 1
    ]
    if differing:
        raise ValueError(
            f"all processes must train alike, got {'; '.join(differing)}. Each process draws the same batches from the "
            "same seed and takes its own rows of them: pass all of them the same data and numbers."
        )
