"""Trainers compared by what their checkpoints hold."""

from tempfile import TemporaryDirectory
from typing import Any

import torch

import condgan as cg
from condgan.training.checkpoint import read_newest_checkpoint


def saved(trainer: cg.Trainer) -> dict[str, Any]:
    """Return the content of a checkpoint of a trainer."""
    with TemporaryDirectory() as folder:
        trainer.save(folder)
        content = read_newest_checkpoint(folder)
    assert content is not None
    return content


def assert_same(one: object, other: object, path: str = "state") -> None:
    """Check that two values are equal bit for bit: tensors, numbers and containers of them."""
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}[{i}]")
    else:
        assert one == other or (one != one and other != other), path


def assert_same_networks(one: cg.Trainer, other: cg.Trainer) -> None:
    """Check that the weights of two trainers are equal bit for bit."""
    first, second = saved(one), saved(other)
    for part in ("generator", "critic", "ema"):
        assert_same(first[part], second[part], part)
