"""Whole iterations with the library's convolutions, and with PyTorch's."""

from __future__ import annotations

from functools import partial

from runs import config_of, free, time_trainer
from work import Work

CONFIGS = ("dcgan-64", "resnet-64", "resnet-32")


def run(work: Work) -> None:
    """Time both; PyTorch's last, because they might hang."""
    for own in (True, False):
        for precision in ("bf16",) if work.rehearse else ("bf16", "fp32"):
            for name in CONFIGS[: 2 if work.rehearse else None]:
                config = config_of(name, work)
                how = {"engine": "recorded updates", "precision": precision, "own_convolutions": own}
                work.measure({**config.describe(), **how}, partial(time_trainer, config, work.device, **how))
                free(work.device)
