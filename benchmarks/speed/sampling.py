"""How fast a trained generator makes images: `cg.sample` beside the loops that scripts have in its place.

Ours samples the averaged generator as a trainer keeps it, in the channels-last layout. The tutorial's loop goes class
by class in batches of the same size, under `no_grad` and in evaluation mode; other scripts call the generator once for
every image. All leave their images on the device. A call makes one batch of each class, or a few single images.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from subjects import Config, configurations, make_networks, make_trainer, with_plain_layers
from timing import Budget, Part, Repeat, Settings, alternate_iterations, or_left_out, ratio, summary
from torch import Tensor

import condgan as cg

CLASSES = 2
SINGLE_IMAGES = 8


def measure(settings: Settings) -> Part:
    """Measure both networks in both precisions, in batches of 64 and 256."""
    part = Part()
    budget = Budget(settings.limit)
    for config in configurations(settings, batches=(64, 256)):
        for precision in ("fp32", "bf16"):
            with or_left_out(part, {**config.describe(), "precision": precision}):
                measure_config(config, precision, settings, budget, part)
    if part.ratios:
        part.ratios["sampling.tutorial"] = statistics.median(
            value for name, value in part.ratios.items() if name.endswith(".tutorial")
        )
    return part


def measure_config(config: Config, precision: str, settings: Settings, budget: Budget, part: Part) -> None:
    """Enter one row, and the ratios to both loops."""
    budget.foresee(config.pixels)
    subjects = make_subjects(config, precision, settings.device)
    for subject in subjects.values():
        budget.start(subject, settings.device)
    calls = alternate_iterations(subjects, settings)
    images = {"condgan": CLASSES * config.batch, "tutorial": CLASSES * config.batch, "one_by_one": SINGLE_IMAGES}
    seconds = {name: [call / images[name] for call in values] for name, values in calls.items()}
    part.rows.append(
        {
            **config.describe(),
            "precision": precision,
            "rounds": settings.rounds,
            "seconds_per_image": {name: summary(values) for name, values in seconds.items()},
            "images_per_second": {name: 1 / statistics.median(values) for name, values in seconds.items()},
        }
    )
    for loop in ("tutorial", "one_by_one"):
        part.ratios[f"{config.name('sampling', precision)}.{loop}"] = ratio(seconds["condgan"], seconds[loop])


def make_subjects(config: Config, precision: str, device: str) -> dict[str, Repeat]:
    """Return functions that do so many calls."""
    ours = make_trainer(config.kind, config.size, base=config.base, device=device).ema
    theirs, _ = make_networks(config.kind, config.size, config.base)
    with_plain_layers(theirs.to(device).eval())
    labels = cg.sampling.class_grid(CLASSES, config.batch)
    ways: dict[str, Callable[[], object]] = {
        "condgan": lambda: cg.sample(ours, labels, batch_size=config.batch),
        "tutorial": lambda: class_by_class(theirs, config.batch, device),
        "one_by_one": lambda: one_by_one(theirs, SINGLE_IMAGES, device),
    }

    def repeat(way: Callable[[], object]) -> Repeat:
        def call(times: int) -> None:
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
                for _ in range(times):
                    way()

        return call

    return {name: repeat(way) for name, way in ways.items()}


@torch.no_grad()
def class_by_class(generator: cg.Generator, batch_size: int, device: str) -> Tensor:
    """Sample a batch of each class."""
    batches = []
    for label in range(CLASSES):
        z = torch.randn(batch_size, generator.latent_dim, device=device)
        y = torch.full((batch_size,), label, device=device)
        batches.append(generator(z, y))
    return torch.cat(batches)


@torch.no_grad()
def one_by_one(generator: cg.Generator, images: int, device: str) -> Tensor:
    """Sample single images of alternating classes."""
    samples = []
    for i in range(images):
        z = torch.randn(1, generator.latent_dim, device=device)
        samples.append(generator(z, torch.tensor([i % CLASSES], device=device)))
    return torch.cat(samples)
