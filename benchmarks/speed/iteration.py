"""Critic step, generator step and whole iteration: the library beside the tutorial loop and other libraries.

Whole iterations are timed as a user runs them, in one call for several where they are short. Single steps are timed in
iterations of their own, because waiting for the device after each step costs time. Other libraries know float32 only;
the tutorial loop runs in bfloat16 too, under autocast.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import peers
import torch
from counting import count, count_launches, total_bytes, total_operations
from roofline import Rates, count_ours, measure_rates
from subjects import CRITIC_STEPS, Config, Ours, configurations
from timing import (
    Budget,
    Part,
    Repeat,
    Settings,
    alternate_iterations,
    on_cuda,
    or_left_out,
    ratio,
    summary,
    synchronize,
)
from tutorial import Bf16, TutorialLoop

import condgan as cg

SIZES = (32, 64, 128)
BATCHES = (16, 64, 256)
OURS = {"condgan_fp32": "fp32", "condgan_bf16": "bf16"}
WITHOUT = {"without_weight_gradients": "fp32", "without_weight_gradients_bf16": "bf16"}
"""The library with PyTorch's weight gradients of the penalty: the youngest saving, compared on whole iterations too."""
TUTORIALS = {"tutorial": TutorialLoop, "tutorial_bf16": Bf16}


class Stamps(cg.Callback):
    """Notes the seconds of each step, the device's work included, in iterations that ask for it.

    Args:
        device: The device to wait for.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.active = False
        self.seconds: dict[str, list[float]] = {"critic": [], "generator": []}
        self._last = 0.0

    def start(self) -> None:
        """Begin the first step."""
        if self.active:
            synchronize(self.device)
            self._last = time.perf_counter()

    def end(self, role: str) -> None:
        """End an update, and begin the next."""
        if self.active:
            began = self._last
            self.start()
            self.seconds[role].append(self._last - began)

    def on_fit_start(self, trainer: cg.Trainer) -> None:
        """Begin after what `fit` does once."""
        self.start()

    def on_critic_step_end(self, trainer: cg.Trainer) -> None:
        """End a critic step."""
        self.end("critic")

    def on_generator_step_end(self, trainer: cg.Trainer) -> None:
        """End a generator step."""
        self.end("generator")


def measure(settings: Settings) -> Part:
    """Measure every configuration."""
    part = Part(left_out=[{"subject": name, "reason": reason} for name, reason in peers.missing().items()])
    rates = measure_rates(settings)
    measured: list[Config] = []
    for kind in dict.fromkeys(config.kind for config in configurations(settings)):
        budget = Budget(settings.limit)
        for config in configurations(settings, kinds=(kind,), sizes=SIZES, batches=BATCHES):
            with or_left_out(part, config.describe()):
                budget.foresee(config.pixels)
                measure_config(config, settings, budget, rates, part)
                measured.append(config)
    if "fresh" in settings.without:
        part.left_out.append({"what": "first iteration in a fresh process", "reason": "left out"})
        return part
    for config in configurations(settings, batches=(16,) if on_cuda(settings.device) else (16, 64)):
        if config in measured:
            measure_fresh(config, settings, part)
    return part


def measure_config(config: Config, settings: Settings, budget: Budget, rates: Rates, part: Part) -> None:
    """Enter one row, and the ratios of all subjects."""
    device = settings.device
    stamps = {name: Stamps(device) for name in (*OURS, *TUTORIALS)}
    subjects: dict[str, Repeat] = {}
    peak_bytes: dict[str, int] = {}
    for name, make in makers(config, device, stamps).items():
        with peak_memory(name, device, peak_bytes):
            subjects[name] = make()
            budget.start(subjects[name], device)
    seconds = alternate_iterations(subjects, settings)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    steps = measure_steps(subjects, stamps, settings)
    part.rows.append(
        {
            "what": "iteration",
            **config.describe(),
            "rounds": settings.rounds,
            "seconds": {name: summary(values) for name, values in seconds.items()},
            "images_per_second": {name: CRITIC_STEPS * config.batch / median for name, median in medians.items()},
            **{f"{role}_step_seconds": times for role, times in steps.items()},
            **({"peak_bytes": peak_bytes} if peak_bytes else {}),
            **count_work(config, subjects, medians, rates, device),
        }
    )
    measured = {"iteration": seconds, **{f"{role}_step": times for role, times in steps.items()}}
    for what, by_name in measured.items():
        part.ratios |= ratios(config, what, by_name)
    if peak_bytes:
        part.ratios |= ratios(config, "peak_memory", peak_bytes)


def makers(config: Config, device: str, stamps: Mapping[str, Stamps]) -> dict[str, Callable[[], Repeat]]:
    """Return what makes each subject: a function that does so many iterations."""
    return {
        **{
            name: partial(Ours, config, device, precision=precision, callbacks=(stamps[name],))
            for name, precision in OURS.items()
        },
        **{
            name: partial(Ours, config, device, precision=precision, keep=("activations", "resized_weights"))
            for name, precision in WITHOUT.items()
        },
        **{name: partial(make_stamped, loop, config, device, stamps[name]) for name, loop in TUTORIALS.items()},
        **{name: partial(make_peer, name, config, device) for name in peers.available()},
    }


def make_stamped(loop: type[TutorialLoop], config: Config, device: str, stamps: Stamps) -> Repeat:
    """Return the tutorial loop with stamps."""
    made = loop.of(config, device)

    def iterate(times: int) -> None:
        for _ in range(times):
            stamps.start()
            for _step in range(CRITIC_STEPS):
                made.critic_step()
                stamps.end("critic")
            made.generator_step()
            stamps.end("generator")

    return iterate


def make_peer(name: str, config: Config, device: str) -> Repeat:
    """Return the training loop of another library."""
    run = peers.PEERS[name](config.kind, config.size, base=config.base, batch=config.batch, device=device)

    def iterate(times: int) -> None:
        for _ in range(times):
            run()

    return iterate


def measure_steps(
    subjects: Mapping[str, Repeat], stamps: Mapping[str, Stamps], settings: Settings
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the medians and quartiles of critic steps and of generator steps, from half as many rounds."""
    for stamp in stamps.values():
        stamp.active = True
    alternate_iterations(
        {name: subjects[name] for name in stamps}, replace(settings, rounds=max(2, settings.rounds // 2)), warmup=0
    )
    for stamp in stamps.values():
        stamp.active = False
    return {
        role: {name: summary(stamp.seconds[role]) for name, stamp in stamps.items()} for role in ("critic", "generator")
    }


def count_work(
    config: Config, subjects: Mapping[str, Repeat], medians: Mapping[str, float], rates: Rates, device: str
) -> dict[str, Any]:
    """Return operators, operations, bytes and the share of the roofline, and on CUDA kernels and replayed graphs."""
    operators = {name: count_ours(config, precision, device) for name, precision in OURS.items()}
    operators |= {name: count(partial(subjects[name], 1)) for name in TUTORIALS}
    work: dict[str, Any] = {
        "engine": {
            name: subject.trainer.engine.name for name, subject in subjects.items() if isinstance(subject, Ours)
        },
        "operators": {name: found.total() for name, found in operators.items()},
        "operations": {name: total_operations(found) for name, found in operators.items()},
        "bytes": {name: total_bytes(found) for name, found in operators.items()},
        "roofline_seconds": {name: rates.bound(found) for name, found in operators.items()},
    }
    work["roofline_share"] = {name: bound / medians[name] for name, bound in work["roofline_seconds"].items()}
    if on_cuda(device):
        work["launches"] = {name: count_launches(subject) for name, subject in subjects.items()}
    return work


def ratios(config: Config, what: str, measured: Mapping[str, Any]) -> dict[str, float]:
    """Return ours over each of its rivals."""
    return {
        f"{config.name(what, precision)}.{name}": quotient(measured[ours], theirs)
        for ours, precision in OURS.items()
        for name, theirs in measured.items()
        if ours in measured and is_rival(name, precision)
    }


def is_rival(name: str, precision: str) -> bool:
    """Return whether a subject is compared with ours of a precision: in float32 not what runs in bfloat16."""
    if name in WITHOUT:
        return WITHOUT[name] == precision
    return name not in OURS and not (precision == "fp32" and name == "tutorial_bf16")


def quotient(ours: Any, theirs: Any) -> float:
    """Return the ratio of lists of alternated seconds, of summaries or of numbers."""
    if isinstance(ours, list):
        return ratio(ours, theirs)
    if isinstance(ours, dict):
        return float(ours["median"] / theirs["median"])
    return float(ours / theirs)


@contextmanager
def peak_memory(name: str, device: str, found: dict[str, int]) -> Iterator[None]:
    """Enter the most bytes of a CUDA device that were in use inside at a time, beyond those from before."""
    if not on_cuda(device):
        yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield
    found[name] = torch.cuda.max_memory_allocated(device) - before


def measure_fresh(config: Config, settings: Settings, part: Part) -> None:
    """Enter the time to the first iteration and, on the CPU, the memory, each of a process of its own."""
    names = ("condgan_fp32", "tutorial")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    peak_bytes: dict[str, int] = {}
    for _ in range(min(3, settings.rounds)):
        for name in names:
            result = run_fresh(name, config, settings.device)
            seconds[name].append(result["seconds"])
            if result["peak_bytes"] is not None:
                peak_bytes[name] = result["peak_bytes"]
    part.rows.append(
        {
            "what": "first iteration in a fresh process",
            **config.describe(),
            "precision": "fp32",
            "rounds": len(seconds["tutorial"]),
            "seconds": {name: summary(values) for name, values in seconds.items()},
            **({"peak_bytes": peak_bytes} if peak_bytes else {}),
        }
    )
    part.ratios |= ratios(config, "first_iteration", seconds) | ratios(config, "peak_memory", peak_bytes)


def run_fresh(name: str, config: Config, device: str) -> dict[str, Any]:
    """Return what `fresh.py` measures of a subject."""
    task = json.dumps({"name": name, "config": asdict(config), "device": device})
    script = Path(__file__).with_name("fresh.py")
    done = subprocess.run([sys.executable, str(script), task], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script.name} failed on {task}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
