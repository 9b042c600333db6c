"""Whole iterations with all savings of the library's layers, and without those that convolutions make."""

from __future__ import annotations

from functools import partial

from runs import config_of, cudnn_benchmark, free, time_trainer
from subjects import Config
from work import Work

CONFIGS = ("dcgan-64", "resnet-64", "resnet-32")
WITHOUT = (None, "resized_weights", "weight_gradients")
"""What the layers do not save. PyTorch's weight gradients are last, because they might hang."""


def run(work: Work) -> None:
    """Time all of them."""
    for without in WITHOUT:
        for precision in ("bf16",) if work.rehearse else ("bf16", "fp32"):
            for name in CONFIGS[: 2 if work.rehearse else None]:
                measure(work, config_of(name, work), without, precision)


def measure(work: Work, config: Config, without: str | None, precision: str) -> None:
    """Write one row."""
    how = {"engine": "recorded updates", "precision": precision, "without": without}
    columns = {**config.describe(), **how, "cudnn_benchmark": True}  # as trainers have it by themselves
    with cudnn_benchmark(True):
        work.measure(columns, partial(time_trainer, config, work.device, **how))
    free(work.device)
