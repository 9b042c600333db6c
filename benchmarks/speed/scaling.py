"""How time and memory of a training iteration grow with images, batch, classes and data.

The library's trainer alone, a DCGAN in float32. All points of an axis run in turn. Peak memory is taken in a process of
its own for each point: on the CPU what it grew by beyond that of a tiny training, on CUDA what tensors took.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace

import torch
from subjects import make_data, make_trainer
from timing import Budget, Part, Settings, iterations_per_call, on_cuda, or_left_out, ratio, summary, synchronize

import condgan as cg

AXES: dict[str, tuple[int, ...]] = {
    "image_size": (32, 64, 128),
    "batch_size": (16, 64, 256),
    "num_classes": (2, 10, 100, 1000),
    "images": (1_000, 10_000, 100_000),
}
QUICK_AXES: dict[str, tuple[int, ...]] = {
    "image_size": (16, 32),
    "batch_size": (2, 4),
    "num_classes": (2, 1000),
    "images": (1_000, 100_000),
}
FORKING = "forkserver"
"""Not "spawn": on Linux a new program's `ru_maxrss` starts at the peak of the process that started it."""


@dataclass(frozen=True)
class Point:
    """What is trained."""

    image_size: int = 32
    batch_size: int = 64
    num_classes: int = 2
    images: int = 2_000
    base_channels: int = 64

    @property
    def pixels(self) -> int:
        """Pixels of a batch, a measure of the work."""
        return self.batch_size * self.image_size**2


TINY = Point(image_size=16, batch_size=2, base_channels=4)


class Training:
    """A trainer at a point that notes the seconds of its last call of `fit`, without what `fit` prepares."""

    def __init__(self, point: Point, device: str) -> None:
        self.clock = Clock(device)
        self.batch_size = point.batch_size
        self.data = make_data(point.image_size, point.num_classes, point.images)
        self.trainer = make_trainer(
            "dcgan",
            point.image_size,
            base=point.base_channels,
            num_classes=point.num_classes,
            device=device,
            callbacks=(self.clock,),
        )

    def __call__(self, times: int) -> None:
        """Do so many iterations."""
        self.trainer.fit(self.data, steps=self.trainer.state.step + times, batch_size=self.batch_size, progress=False)


class Clock(cg.Callback):
    """Takes the time of `fit` between its hooks."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.began = self.seconds = 0.0

    def on_fit_start(self, trainer: cg.Trainer) -> None:
        """Start."""
        synchronize(self.device)
        self.began = time.perf_counter()

    def on_fit_end(self, trainer: cg.Trainer) -> None:
        """Stop."""
        synchronize(self.device)
        self.seconds = time.perf_counter() - self.began


def measure(settings: Settings) -> Part:
    """Measure all axes."""
    part = Part()
    for axis, values in (QUICK_AXES if settings.quick else AXES).items():
        measure_axis(axis, values, settings, part)
    return part


def measure_axis(axis: str, values: tuple[int, ...], settings: Settings, part: Part) -> None:
    """Enter a row for each point, the exponent of the time's growth, and the ratio of its ends."""
    budget = Budget(settings.limit)
    subjects: dict[int, tuple[Point, Training]] = {}
    for value in values:
        point = replace(base_point(axis, settings), **{axis: value})
        with or_left_out(part, {"axis": axis, **asdict(point)}):
            budget.foresee(point.pixels)
            subject = Training(point, settings.device)
            budget.start(subject, settings.device)
            subjects[value] = (point, subject)
    seconds = time_in_turn({value: subject for value, (_, subject) in subjects.items()}, settings)
    medians = {value: statistics.median(s) for value, s in seconds.items()}
    for value, (point, _) in subjects.items():
        peak = {} if settings.quick and value != values[0] else {"peak_bytes": peak_in_own_process(point, settings)}
        part.rows.append(
            {"axis": axis, **asdict(point), "rounds": settings.rounds, "seconds": summary(seconds[value]), **peak}
        )
    if len(subjects) > 1:
        first, last = min(subjects), max(subjects)
        exponent = math.log(medians[last] / medians[first]) / math.log(last / first)
        part.rows.append({"axis": axis, "from": first, "to": last, "exponent": exponent})
        if axis in ("num_classes", "images"):
            name = f"classes_{last}" if axis == "num_classes" else f"images_{last:.0e}".replace("+0", "")
            part.ratios[f"scaling.{name}"] = ratio(seconds[last], seconds[first])


def base_point(axis: str, settings: Settings) -> Point:
    """Return the point that an axis runs through; image sizes grow at a small batch on the CPU, so that they end."""
    if settings.quick:
        return TINY
    small = axis == "image_size" and not on_cuda(settings.device)
    return Point(batch_size=16) if small else Point()


def time_in_turn(subjects: dict[int, Training], settings: Settings) -> dict[int, list[float]]:
    """Return the seconds of an iteration of each subject; all have been started."""
    times = {value: iterations_per_call(subject, settings.device) for value, subject in subjects.items()}
    seconds: dict[int, list[float]] = {value: [] for value in subjects}
    for round_number in range(settings.rounds + 1):
        for value, subject in subjects.items():
            subject(times[value])
            if round_number > 0:
                seconds[value].append(subject.clock.seconds / times[value])
    return seconds


def peak_in_own_process(point: Point, settings: Settings) -> int:
    """Return the peak memory of training at a point, in bytes."""
    context = multiprocessing.get_context(FORKING)
    context.set_forkserver_preload(["torch", "condgan"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(peak_bytes, point, settings.device).result()


def peak_bytes(point: Point, device: str) -> int:
    """Train a little and return the peak memory in bytes; it counts for this process alone."""
    Training(TINY, device)(1)  # loads code, which is no memory of the training's
    before = resident_peak()
    subject = Training(point, device)
    if on_cuda(device):
        subject(6)  # graphs are recorded in the fourth
        return torch.cuda.max_memory_allocated(device)
    subject(2)
    return resident_peak() - before


def resident_peak() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
