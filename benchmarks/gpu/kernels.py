"""The costliest kernels of an iteration."""

from __future__ import annotations

from functools import partial

import torch
from clocks import WARM_UP
from names import ENGINES
from runs import config_of, free, trainer_of
from subjects import Config, make_data
from timing import on_cuda, synchronize
from torch.profiler import ProfilerActivity, profile
from work import Row, Work

import condgan as cg

CONFIGS = ("dcgan-64", "resnet-64", "dcgan-32")
SHOWN = 25
ITERATIONS = 3


def run(work: Work) -> None:
    """Profile the engines that replay graphs."""
    for name in CONFIGS[: 1 if work.rehearse else None]:
        for engine in list(ENGINES)[:2]:
            config = config_of(name, work)
            columns = {**config.describe(), "engine": engine, "precision": "bf16"}
            work.measure(columns, partial(costliest, config, engine, work.device))
            free(work.device)


class _Window(cg.Callback):
    """Profiles some iterations in the middle of a training, and ends it."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        activity = ProfilerActivity.CUDA if on_cuda(device) else ProfilerActivity.CPU
        self.profile = profile(activities=[activity])
        self.first = WARM_UP if on_cuda(device) else 1

    def on_step_end(self, trainer: cg.Trainer) -> None:
        step = trainer.state.step
        if step == self.first:
            synchronize(self.device)
            self.profile.start()
        if step == self.first + ITERATIONS:
            synchronize(self.device)
            self.profile.stop()
            trainer.request_stop("seen")


def costliest(config: Config, engine: str, device: str) -> Row:
    """Return milliseconds, launches and name of the kernels that take the most time of an iteration."""
    window = _Window(device)
    trainer = trainer_of(config, device, engine=engine, precision="bf16", callbacks=(window,))
    trainer.fit(make_data(config.size), steps=window.first + ITERATIONS, batch_size=config.batch, progress=False)
    events = window.profile.key_averages()
    rows = [
        {"milliseconds": _seconds(event, device) * 1e3, "launches": event.count / ITERATIONS, "name": event.key[:120]}
        for event in events
    ]
    rows = sorted((row for row in rows if row["milliseconds"] > 0), key=lambda row: -row["milliseconds"])
    return {
        "ran": trainer.engine.name,
        "milliseconds": sum(row["milliseconds"] for row in rows),
        "launches": sum(row["launches"] for row in rows),
        "kernels": rows[:SHOWN],
    }


def _seconds(event: torch.autograd.profiler_util.FunctionEventAvg, device: str) -> float:
    microseconds = event.self_device_time_total if on_cuda(device) else event.self_cpu_time_total
    return float(microseconds) / 1e6 / ITERATIONS
