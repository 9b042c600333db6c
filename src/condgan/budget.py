"""Sizes of a training that takes a given number of minutes: width, batch and steps, from steps that are measured."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from typing_extensions import override

from condgan.classifier.network import Precision
from condgan.data.dataset import ArrayDataset
from condgan.devices import best_device
from condgan.files import as_path, check_count, load_record, to_json, write_record
from condgan.runs import RecipeConfig, in_words, make_trainer
from condgan.training import Callback, Trainer
from condgan.training.checkpoint import newest_step

WIDTHS = (16, 32, 64)
"""Values of `base_channels` to choose from."""
ENOUGH_STEPS = 3_000
"""A wider network is chosen only if at least so many steps fit into the minutes."""
DEFAULT_MINUTES = 30.0
"""Minutes of a training that nobody gave a length."""

Clock = Callable[[], float]

_FILE = "plan.json"
_FEW_STEPS = 1_000
_WARM_UP, _MEASURED = 2, 5  # blocks of steps
_BLOCK_ON_CUDA = 20  # each kind of update runs three times, and is then captured as a graph


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How a generator will be trained, and how long it takes: the content of `plan.json` in the folder of a run.

    Args:
        config: The recipe, with its width, batch size and steps.
        image_shape: Channels, height and width of the images.
        device: Type of the device.
        seconds_per_step: Time of a step, measured; None if the steps were given, and none measured.
    """

    config: RecipeConfig
    image_shape: tuple[int, ...]
    device: str
    seconds_per_step: float | None = None

    def within(self, minutes: float) -> TrainingPlan:
        """Return the same plan with as many steps as fit into `minutes`, rounded down to two digits.

        Raises:
            ValueError: If `minutes` is not positive, or no step was measured.
        """
        _check_minutes(minutes)
        if self.seconds_per_step is None:
            raise ValueError("a plan needs measured steps to fit into minutes, got one without. Call plan_training.")
        steps = max(1, int(60 * minutes / self.seconds_per_step))
        unit = 10 ** max(0, len(str(steps)) - 2)
        return replace(self, config=replace(self.config, steps=steps // unit * unit))

    def save(self, folder: str | Path) -> None:
        """Write the plan into the folder of a run, for `plan_in`."""
        write_record(as_path(folder) / _FILE, to_json(self))

    def in_words(self) -> str:
        """Return the plan as one line for readers."""
        config, each = self.config, self.seconds_per_step
        steps = f"{config.steps:,}".replace(",", " ")
        width = "" if config.base_channels is None else f", base_channels {config.base_channels}"
        if each is None:
            return f"{steps} steps of {config.batch_size} images{width}"
        measured = f"{1000 * each:.0f} ms" if each < 1 else f"{each:.1f} s"
        line = (
            f"about {in_words(config.steps * each)}: {steps} steps of {config.batch_size} images{width}, measured "
            f"{measured} a step on average"
        )
        if config.steps >= _FEW_STEPS:
            return line
        return f"{line}. So few steps seldom suffice: allow more minutes, or take smaller images or networks"


def plan_training(
    config: RecipeConfig,
    data: ArrayDataset,
    *,
    minutes: float,
    batch_size: int | None = None,
    precision: Precision = "bf16",
    device: torch.device | str | None = None,
    clock: Clock = time.perf_counter,
) -> TrainingPlan:
    """Choose width, batch size and steps so that a training takes about `minutes` on this device.

    - The batch size is 32 on a CPU and 64 elsewhere; for images of more than 64x64 pixels it is halved with each
      doubling of the sides, to 8 at least.
    - The width is the largest `base_channels` of 16, 32 and 64 with which 3 000 steps or more fit into the minutes;
      otherwise 16. A width that `config` has is kept.
    - Steps are as many as fit, by the time of a few steps of a trainer that is thrown away afterwards. On
      CUDA it first runs until its updates are captured as graphs. Measuring takes a few percent of the minutes, and is
      not counted; nor is judging for `keep="best_kid"`.

    Nothing else of `config` is changed. Among several processes call it in one, and hand its plan to the others.

    Args:
        config: The recipe.
        data: Training images.
        minutes: How long training may take.
        batch_size: Images per critic step, in place of the rule above.
        precision: Precision of the passes.
        device: Where to train; by default CUDA, then MPS, then the CPU.
        clock: Returns the time in seconds.

    Raises:
        ValueError: If `minutes` is not positive, or the data do not fit the recipe.

    Examples:
        >>> from condgan.data import ChestPhantom
        >>> data = ChestPhantom((20, 20), classes=2, image_shape=(1, 16, 16))
        >>> plan = plan_training(RecipeConfig(recipe="small_data"), data, minutes=0.001, device="cpu")
        >>> plan.config.base_channels, plan.config.batch_size
        (16, 32)
    """
    _check_minutes(minutes)
    device = torch.device(device or best_device())
    config = replace(config, batch_size=batch_size or batch_size_for(data.image_shape, device.type))

    def with_width(width: int) -> TrainingPlan:
        plan = _unmeasured(replace(config, base_channels=width), data, device)
        return _measured(plan, data, precision, device, clock).within(minutes)

    widths = WIDTHS if config.base_channels is None else (config.base_channels,)
    chosen = with_width(widths[0])
    for width in widths[1:]:
        if chosen.config.steps < ENOUGH_STEPS:
            break
        wider = with_width(width)
        if wider.config.steps < ENOUGH_STEPS:
            break
        chosen = wider
    return chosen


def plan_in(
    folder: str | Path,
    config: RecipeConfig,
    data: ArrayDataset,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    precision: Precision = "bf16",
    device: torch.device | str | None = None,
    clock: Clock = time.perf_counter,
) -> TrainingPlan:
    """Return the plan of a run's folder: a new one, or the one that was saved there when its training began.

    Whoever continues a training keeps its width and batch size, and its steps unless others are given. Nothing is
    written: save the plan once nothing else speaks against the training.

    Args:
        folder: Folder of the run.
        config: The recipe; its steps and batch size are not used.
        data: Training images.
        steps: Generator updates in total.
        minutes: How long they take in total, instead of their number; 30 if neither is given.
        batch_size: Images per critic step; by default that of the saved plan, of `config` if there are `steps`, or
            chosen by `plan_training`.
        precision: Precision of the passes.
        device: Where to train.
        clock: Returns the time in seconds.

    Raises:
        ValueError: If both `steps` and `minutes` are given, a value is out of range, the data do not fit the recipe,
            the folder has the plan of another training, or more steps are done than are asked for.
    """
    check_length(steps=steps, minutes=minutes)
    path, device = as_path(folder) / _FILE, torch.device(device or best_device())
    if path.is_file():
        plan = load_record(TrainingPlan, path)
        _check_same(plan, config, data, device, batch_size=batch_size)
    elif steps is not None:
        plan = _unmeasured(replace(config, batch_size=batch_size or config.batch_size), data, device)
    else:
        minutes = DEFAULT_MINUTES if minutes is None else minutes
        plan = plan_training(
            config, data, minutes=minutes, batch_size=batch_size, precision=precision, device=device, clock=clock
        )
    if steps is not None:
        plan = replace(plan, config=replace(plan.config, steps=steps))
    elif minutes is not None:
        if plan.seconds_per_step is None:
            plan = _measured(plan, data, precision, device, clock)
        plan = plan.within(minutes)
    done = newest_step(as_path(folder) / "checkpoints") or 0
    if plan.config.steps < done:
        raise ValueError(
            f"steps must be at least the {done} that are done, got {plan.config.steps}. Ask for more, or choose "
            "another folder."
        )
    return plan


def batch_size_for(image_shape: tuple[int, ...], device: str) -> int:
    """Return the batch size for images of a shape on a type of device, by the rule of `plan_training`.

    Examples:
        >>> [batch_size_for((1, side, side), "cpu") for side in (32, 64, 65, 128)]
        [32, 32, 16, 16]
    """
    halvings = max(0, math.ceil(math.log2(math.prod(image_shape[1:]) / 64**2) / 2))
    return max(8, (32 if device == "cpu" else 64) >> halvings)


def seconds_per_step(
    config: RecipeConfig,
    data: ArrayDataset,
    *,
    precision: Precision = "bf16",
    device: torch.device | str | None = None,
    clock: Clock = time.perf_counter,
) -> float:
    """Return the time of a step, measured with a trainer that is thrown away: the median of a few.

    With pretraining it is the mean of the medians of both kinds of steps, by their shares of the training.

    Args:
        config: Recipe and sizes; its steps are not used.
        data: Training images.
        precision: Precision of the passes.
        device: Where to train.
        clock: Returns the time in seconds.
    """
    trainer = make_trainer(config, data, precision=precision, device=device)
    terms = (*trainer.terms.critic_regularizers, *trainer.terms.generator_regularizers)
    lazy = [term.every for term in terms]
    watch = _Stopwatch(clock, every=max(_BLOCK_ON_CUDA if trainer.device.type == "cuda" else 1, *lazy, 1))
    trainer.callbacks = (watch,)
    share = trainer.pretraining
    trainer.pretraining = 0.5 if share else 0.0  # both kinds are measured equally well, however short one is
    shares = [share, 1 - share] if share else [1.0]
    trainer.fit(
        data,
        steps=len(shares) * (_WARM_UP + _MEASURED) * watch.every,
        batch_size=config.batch_size,
        generator_batch_size=config.generator_batch_size,
        progress=False,
    )
    medians = [
        statistics.median(end - start for start, end in pairwise(watch.times[begin + _WARM_UP - 1 :][: _MEASURED + 1]))
        for begin in range(0, len(watch.times), _WARM_UP + _MEASURED)
    ]
    return sum(part * median for part, median in zip(shares, medians, strict=True)) / watch.every


def _unmeasured(config: RecipeConfig, data: ArrayDataset, device: torch.device) -> TrainingPlan:
    return TrainingPlan(config=config, image_shape=tuple(data.image_shape), device=device.type)


def _measured(
    plan: TrainingPlan, data: ArrayDataset, precision: Precision, device: torch.device, clock: Clock
) -> TrainingPlan:
    seconds = seconds_per_step(plan.config, data, precision=precision, device=device, clock=clock)
    return replace(plan, seconds_per_step=seconds)


def check_length(*, steps: int | None, minutes: float | None) -> None:
    """Check the length of a training.

    Raises:
        ValueError: If both are given, or a number is out of range.
    """
    if steps is not None and minutes is not None:
        raise ValueError(f"steps and minutes exclude each other, got {steps} steps and {minutes} minutes. Give one.")
    if steps is not None:
        check_count("steps", steps)
    if minutes is not None:
        _check_minutes(minutes)


def _check_minutes(minutes: float) -> None:
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes must be positive, got {minutes}. For 30 seconds pass 0.5.")


def _check_same(
    plan: TrainingPlan, config: RecipeConfig, data: ArrayDataset, device: torch.device, *, batch_size: int | None
) -> None:
    """Check that a plan is for a recipe, images and device, whatever its steps, and its sizes that are not given."""
    given = replace(
        config,
        steps=plan.config.steps,
        batch_size=batch_size or plan.config.batch_size,
        base_channels=config.base_channels or plan.config.base_channels,
    )
    then, now = (
        {**to_json(one.config), "image_shape": one.image_shape, "device": one.device}
        for one in (plan, _unmeasured(given, data, device))
    )
    changed = [f"{name} was {then[name]!r} and is {now[name]!r}" for name in then if then[name] != now[name]]
    if changed:
        raise ValueError(
            f"the folder must be new or of the same training, got one where {'; '.join(changed)}. Continue with the "
            "flags that it began with, or choose another folder."
        )


class _Stopwatch(Callback):
    """Notes the time after each block of steps, when the device has finished them."""

    def __init__(self, clock: Clock, *, every: int) -> None:
        super().__init__(every)
        self.clock = clock
        self.times: list[float] = []

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        trainer.read_metrics()  # waits for the device
        self.times.append(self.clock())
