"""What a run takes from the library that an older tree may lack, by name: all of these names are here.

Whoever calls something that is missing gets a `Missing`, and its row says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, get_args

import torch
from configs import SIZES

import condgan as cg
from condgan.study.provenance import provenance
from condgan.training import engines

ENGINES = {"recorded iteration": "cuda_graph_iteration", "recorded updates": "cuda_graph", "eager": "eager"}
"""Engines of the trainer by what they do."""

COMMIT = "CONDGAN_COMMIT"
"""Environment variable with the commit of a tree that came without its repository."""


class Missing(RuntimeError):
    """The library has no such thing."""


def can_train_together() -> bool:
    """Return whether one process can train several GANs side by side."""
    return hasattr(cg.training, "fit_together")


def train_together(trainers: Sequence[cg.Trainer], data: cg.data.ArrayDataset, **arguments: Any) -> None:
    """Train several GANs side by side; arguments are those of `Trainer.fit`."""
    if not can_train_together():
        raise Missing("this library has no condgan.training.fit_together")
    cg.training.fit_together(trainers, data, **arguments)


def convolve_as_pytorch(module: torch.nn.Module) -> None:
    """Give a network's convolutions PyTorch's own second derivative back, in place."""
    own = getattr(cg.nn, "Conv2d", None)
    if own is None:
        raise Missing("this library has no condgan.nn.Conv2d")
    for child in module.modules():
        if type(child) is own:
            child.__class__ = torch.nn.Conv2d


def gpu_sizes() -> list[str]:
    """Return the names of the study's sizes for a GPU, in order."""
    return [name for name in SIZES if name.startswith("gpu")]


def origin(device: str) -> dict[str, Any]:
    """Return device, versions and commit of a run."""
    found = provenance(device)
    return {**found, "commit": found["commit"] or os.environ.get(COMMIT)}


def knows_engine(what: str) -> bool:
    """Return whether the trainer has an engine, by what it does."""
    return ENGINES[what] in get_args(engines.EngineName)


def best_engine() -> str:
    """Return what the fastest engine does."""
    return next(what for what in ENGINES if knows_engine(what))
