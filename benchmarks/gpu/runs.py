"""The trainings that are timed: networks, sizes and batches, with the library's trainer and with a plain loop."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from clocks import Laps
from names import ENGINES
from subjects import SAVINGS_IN_LAYERS, Config, make_data, make_trainer
from timing import on_cuda
from tutorial import Bf16, TutorialLoop
from work import Row, Work

import condgan as cg
from condgan.training import trainer as trainer_module

CONFIGS = {
    "dcgan-64": Config("dcgan", 64, 64, 64),
    "dcgan-32": Config("dcgan", 32, 32, 32),
    "resnet-32": Config("resnet", 32, 16, 32),
    "resnet-64": Config("resnet", 64, 64, 64),
}
"""Those of the study on the CPU at 32 pixels, and those of the papers at 64."""

REHEARSED = {"dcgan": Config("dcgan", 32, 4, 4), "resnet": Config("resnet", 32, 4, 4)}
ENDLESS = 1_000_000


def config_of(name: str, work: Work) -> Config:
    """Return a configuration, or the smallest of its networks for a rehearsal."""
    return REHEARSED[CONFIGS[name].kind] if work.rehearse else CONFIGS[name]


def trainer_of(
    config: Config,
    device: str,
    *,
    engine: str,
    precision: str,
    without: str | None = None,
    callbacks: tuple[cg.Callback, ...] = (),
    **options: Any,
) -> cg.Trainer:
    """Return the library's trainer, by what its engine does, without one of `SAVINGS_IN_LAYERS` or with all."""
    keep = [saving for saving in SAVINGS_IN_LAYERS if saving != without]
    return make_trainer(
        config.kind,
        config.size,
        base=config.base,
        device=device,
        engine=ENGINES[engine],
        precision=precision,
        callbacks=callbacks,
        keep=keep,
        **options,
    )


def time_trainer(config: Config, device: str, **how: Any) -> Row:
    """Return the seconds of an iteration, and what ran it."""
    laps = Laps(device)
    with noted_warnings() as said:
        trainer = trainer_of(config, device, callbacks=(laps,), **how)
        trainer.fit(make_data(config.size), steps=ENDLESS, batch_size=config.batch, progress=False)
    return {"seconds": laps.summary(), "ran": trainer.engine.name, **({"warnings": said} if said else {})}


def tutorial_of(config: Config, device: str, precision: str) -> TutorialLoop:
    """Return the loop as tutorials write it."""
    return (Bf16 if precision == "bf16" else TutorialLoop).of(config, device)


@contextmanager
def cudnn_benchmark(enabled: bool) -> Iterator[None]:
    """Let cuDNN try its algorithms or not, in trainers too, which by themselves always let it."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = enabled
    try:
        with patch.object(trainer_module, "fastest_convolutions", lambda device: nullcontext()):
            yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Yield a list that will hold each warning from inside once."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += dict.fromkeys(str(warning.message) for warning in caught)


def free(device: str) -> None:
    """Give memory of what is gone back to the device."""
    gc.collect()
    if on_cuda(device):
        torch.cuda.empty_cache()
