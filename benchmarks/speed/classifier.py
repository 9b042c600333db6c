"""How fast the judging classifier trains: `condgan.classifier.train_classifier` beside a plain loop.

Both sides build the same ResNet-18, take the same number of steps over random images, and look once at four validation
images. The plain loop has what tutorials have: a `TensorDataset` of ready float32 images in host memory in a shuffling
`DataLoader` (pinned on CUDA), contiguous tensors, AdamW without `fused`, and the loss read back in every step.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial

import torch
from subjects import make_data
from timing import Budget, Part, Repeat, Run, Settings, alternate, on_cuda, or_left_out, ratio, summary
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import condgan as cg
from condgan.classifier import train_classifier
from condgan.classifier.network import Precision, ResNet18
from condgan.images import to_float

STEPS_ON_CPU, STEPS_ON_CUDA, FIRST_STEPS = 20, 200, 4
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.05


def measure(settings: Settings) -> Part:
    """Measure 32 and 64 pixels in both precisions."""
    part = Part()
    steps, batch_size = (2, 8) if settings.quick else (STEPS_ON_CUDA if on_cuda(settings.device) else STEPS_ON_CPU, 64)
    for size in (64,) if settings.quick else (32, 64):
        columns = {"image_size": size, "batch_size": batch_size, "steps": steps}
        with or_left_out(part, columns):
            measure_size(size, batch_size, steps, settings, part)
    return part


def measure_size(size: int, batch_size: int, steps: int, settings: Settings, part: Part) -> None:
    """Enter one row, and the ratios of both precisions to the plain loop in float32."""
    subjects = make_subjects(size, batch_size, settings.device)
    budget = Budget(settings.limit)
    budget.foresee(FIRST_STEPS)
    for subject in subjects.values():
        budget.start(lambda times, subject=subject: subject(FIRST_STEPS * times), settings.device)  # type: ignore[misc]
    budget.foresee(steps)
    runs: dict[str, Run] = {name: partial(subject, steps) for name, subject in subjects.items()}
    seconds = alternate(runs, settings, warmup=1)
    part.rows.append(
        {
            "image_size": size,
            "batch_size": batch_size,
            "steps": steps,
            "rounds": settings.rounds,
            "seconds": {name: summary(values) for name, values in seconds.items()},
            "images_per_second": {
                name: steps * batch_size / statistics.median(values) for name, values in seconds.items()
            },
        }
    )
    pixels = "" if size == 64 else f"_{size}px"
    for precision in ("fp32", "bf16"):
        part.ratios[f"classifier{pixels}_{precision}.tutorial"] = ratio(
            seconds[f"condgan_{precision}"], seconds["tutorial_fp32"]
        )


def make_subjects(size: int, batch_size: int, device: str) -> dict[str, Repeat]:
    """Return functions that train for so many steps."""
    train, validation = make_data(size), make_data(size, count=4)

    def ours(precision: Precision) -> Repeat:
        return lambda steps: train_classifier(
            train, validation, steps=steps, epochs=1, batch_size=batch_size, precision=precision, device=device
        )

    return {
        "condgan_fp32": ours("fp32"),
        "condgan_bf16": ours("bf16"),
        "tutorial_fp32": lambda steps: train_plainly(train, validation, steps, batch_size, device),
    }


def train_plainly(
    train: cg.data.ArrayDataset, validation: cg.data.ArrayDataset, steps: int, batch_size: int, device: str
) -> Tensor:
    """Train as tutorials do and return the validation images' probabilities."""
    loader = DataLoader(
        TensorDataset(to_float(train.images), train.labels),
        batch_size,
        shuffle=True,
        drop_last=True,
        pin_memory=on_cuda(device),
    )
    channels, height, width = train.image_shape
    model = ResNet18((channels, height, width), train.num_classes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
    criterion = nn.CrossEntropyLoss()
    running_loss = 0.0
    model.train()
    for _, (x, y) in zip(range(steps), endless(loader), strict=False):
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        running_loss += loss.item()
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(to_float(validation.images).to(device))
    return logits.softmax(1).cpu()


def endless(loader: DataLoader[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches of one epoch after the other."""
    while True:
        yield from loader
