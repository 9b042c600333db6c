"""Trials of the ablation: what is trained for how long, and what was found."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from contestants import Contestant, Draw
from entries import ENTRIES
from images import Parts

from condgan.data import ArrayDataset
from condgan.files import from_json
from condgan.images import save_sheet
from judging import CLASSIFIER_STEPS, Judge, Judgement

SHOWN = 12
_COLUMNS = ("set", "px", "min", "judged on", "classifier steps", "entry", "seeds", "AUROC", "balanced accuracy")
_COLUMNS += ("recognized", "coverage", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """The time of an entry on one quiet core: milliseconds of a step, and seconds to draw 1 000 images."""

    milliseconds: float
    draw_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One generator.

    Args:
        entry: Name of the entry.
        set: Name of the training images.
        side: Height and width of the images.
        minutes: Time of training and drawing.
        seed: Seed of the generator.
        classifier_steps: Training steps of the classifiers that judge its images.
    """

    entry: str
    set: str
    side: int
    minutes: float
    seed: int
    classifier_steps: int = CLASSIFIER_STEPS

    @property
    def name(self) -> str:
        """Name of its files."""
        judged = "" if self.classifier_steps == CLASSIFIER_STEPS else f"-{self.classifier_steps}steps"
        return f"{self.entry}-{self.set}-{self.side}px-{self.minutes:g}min-s{self.seed}{judged}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a trial found.

    Args:
        trial: The trial.
        contestant: The settings.
        steps: Training steps.
        images: Images of each class that the generator was trained on.
        drawn: Images that were drawn and judged, as many of each class.
        seconds: Wall-clock time of training and of drawing, on a machine that may have been busy.
        judged_on: `"validation"` or `"confirmation"`.
        judgement: What was found.
    """

    trial: Trial
    contestant: str
    steps: int
    images: tuple[int, ...]
    drawn: int
    seconds: tuple[float, float]
    judged_on: str
    judgement: Judgement


def measure(contestant: Contestant, data: ArrayDataset) -> StepTime:
    """Time an entry: the difference of two trainings, so that set-up does not count."""

    def timed(steps: int) -> tuple[float, Draw]:
        start = time.perf_counter()
        draw = contestant.train(data, steps=steps, seed=0)
        return time.perf_counter() - start, draw

    timed(1)  # imports, and what is made at the first call
    few, _ = timed(10)
    many, draw = timed(60)  # both have a tenth of steps with a critic where most have none
    draw(torch.arange(64) % data.num_classes, 0)
    start = time.perf_counter()
    draw(torch.arange(512) % data.num_classes, 0)
    return StepTime(
        milliseconds=round(1000 * (many - few) / 50, 2),
        draw_seconds=round((time.perf_counter() - start) * 1000 / 512, 3),
    )


def steps_of(trial: Trial, measured: StepTime, images: int) -> int:
    """Return the steps that fit into the time of a trial."""
    left = 60 * trial.minutes - measured.draw_seconds * images / 1000
    return max(1, int(1000 * left / measured.milliseconds)) if measured.milliseconds > 0.01 else 1


def run(trial: Trial, parts: Parts, judge: Judge, measured: StepTime, *, judged_on: str, folder: Path) -> Outcome:
    """Train, draw and judge."""
    data, contestant = parts.reduced(trial.set), ENTRIES[trial.entry]
    drawn = len(parts.train)
    steps = steps_of(trial, measured, drawn)
    start = time.perf_counter()
    draw = contestant.train(data, steps=steps, seed=trial.seed)
    trained = time.perf_counter()
    y = torch.arange(drawn) % data.num_classes
    x = draw(y, 10_000 + trial.seed)
    seconds = (round(trained - start, 1), round(time.perf_counter() - trained, 1))
    order = torch.cat([(y == label).nonzero().flatten()[:SHOWN] for label in range(data.num_classes)])
    save_sheet(x[order], folder / "samples" / f"{trial.name}.png", columns=SHOWN)
    images = ArrayDataset(x, y, class_names=data.class_names, source=f"images of {trial.name}")
    return Outcome(
        trial=trial,
        contestant=repr(contestant),
        steps=steps,
        images=data.class_counts,
        drawn=drawn,
        seconds=seconds,
        judged_on=judged_on,
        judgement=judge.judge(images, data, classifier_steps=trial.classifier_steps),
    )


def table(folder: Path) -> str:
    """Return the outcomes as a Markdown table: one row for all seeds of a trial, the best AUROC first."""
    rows: dict[tuple[str, ...], list[Outcome]] = {}
    for path in sorted((folder / "trials").glob("*.json")):
        outcome = from_json(Outcome, json.loads(path.read_text(encoding="utf-8")))
        trial = outcome.trial
        judged = (outcome.judged_on, str(trial.classifier_steps))
        key = (trial.set, str(trial.side), f"{trial.minutes:g}", *judged, trial.entry)
        rows.setdefault(key, []).append(outcome)
    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
    ]
    for key, found in sorted(rows.items(), key=lambda item: (item[0][:5], -mean(o.judgement.auroc for o in item[1]))):
        judged = [outcome.judgement for outcome in found]
        failed = sum(
            bool(j.collapsed) or "copies" in j.memorization.values() or min(j.recognized.values()) < 0.9 for j in judged
        )
        by_class = [
            " / ".join(f"{mean(getattr(j, part)[name] for j in judged):.2f}" for name in judged[0].recognized)
            for part in ("recognized", "coverage")
        ]
        scores = [_spread([j.auroc for j in judged]), _spread([j.balanced_accuracy for j in judged])]
        cells = [*key, str(len(found)), *scores, *by_class, str(failed)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    """Return the mean, and in brackets the smallest and the largest of several."""
    several = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{mean(values):.3f}{several}"
