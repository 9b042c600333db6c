"""Where a trainer runs, and how it is set up, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from condgan.training.sampler import Sampler
from condgan.training.stores import ImageStore
from condgan.types import LabelledData

if TYPE_CHECKING:
    from condgan.training.trainer import Trainer


def best_device() -> torch.device:
    """Return the present CUDA device, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def describe(trainer: Trainer) -> dict[str, Any]:
    """Return everything about a trainer that results depend on, as plain values."""
    terms = trainer.terms
    regularizers = (*terms.critic_regularizers, *terms.generator_regularizers)
    return {
        "generator": type(trainer.networks.generator).__name__,
        "critic": type(trainer.networks.critic).__name__,
        "loss": _in_words(terms.loss),
        "auxiliary": [_in_words(term) for term in terms.auxiliary],
        "regularizers": [_in_words(term) for term in regularizers],
        "augment": None if terms.augment is None else _in_words(terms.augment),
        "critic_steps": trainer.critic_steps,
        "generator_optimizer": asdict(trainer.players["generator"].config),
        "critic_optimizer": asdict(trainer.players["critic"].config),
        "schedule": _in_words(trainer.schedule),
        "ema_decay": trainer.ema_decay,
        "label_law": _in_words(trainer.label_law),
        "sampling": _in_words(trainer.sampling),
        "dequantize": trainer.dequantize,
        "precision": terms.precision,
        "device": trainer.device.type,
        "seed": trainer.seed,
    }


@contextmanager
def fastest_convolutions(device: torch.device) -> Iterator[None]:
    """Let cuDNN try all its kernels for a convolution once and keep the fastest: shapes do not change during training.

    Which one that is may differ from run to run, so not where PyTorch is told to be deterministic.
    """
    before = torch.backends.cudnn.benchmark
    deterministic = torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    if device.type == "cuda" and not deterministic:
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def make_sampler(
    trainer: Trainer, data: LabelledData, max_resident_bytes: int, *, store: ImageStore | None = None
) -> Sampler:
    """Return the sampler of what a trainer's steps need."""
    generator, terms = trainer.networks.generator, trainer.terms
    return Sampler(
        data,
        latent_dim=generator.latent_dim,
        conditional=generator.num_classes is not None,
        label_law=trainer.label_law,
        sampling=trainer.sampling,
        dequantize=trainer.dequantize,
        augment=terms.augment,
        noise=any(regularizer.needs_noise for regularizer in terms.critic_regularizers),
        rng=trainer.rng,
        device=trainer.device,
        dtype=next(generator.parameters()).dtype,
        max_resident_bytes=max_resident_bytes,
        store=store,
    )


def _in_words(part: object) -> str:
    """Return what tells a part from others in every process: its `repr` without the address."""
    return part if isinstance(part, str) else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(part))
