"""Which generator teaches a classifier most, for the time of one core: recipes, their ingredients, and peers.

Every trial gets the same time, of which drawing as many images as there are training images is a part. Time means
steps: `--measure` times each entry on a quiet core and writes `results/step_times.json`, from which the steps of every
trial follow. A trial is one file in `results/trials`; those that exist are not run again. Settings are chosen on
validation patients; `--confirm` judges on patients that nothing was chosen on. Predictions and outcomes are in LOG.md.

    OMP_NUM_THREADS=1 python benchmarks/ablation --measure
    OMP_NUM_THREADS=1 python benchmarks/ablation --stage screen
    python benchmarks/ablation --table
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from contestants import Contestant
from entries import ENTRIES, STAGES
from images import Parts, load
from judging import Judge, Judgement

from condgan.data import ArrayDataset
from condgan.files import from_json, to_json, write_json
from condgan.images import save_sheet

RESULTS = Path(__file__).parent / "results"
SHOWN = 12


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
    """

    entry: str
    set: str
    side: int
    minutes: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.entry}-{self.set}-{self.side}px-{self.minutes:g}min-s{self.seed}"


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
    durations, draw = {}, None
    for steps in (6, 36):
        start = time.perf_counter()
        draw = contestant.train(data, steps=steps, seed=0)
        durations[steps] = time.perf_counter() - start
    assert draw is not None
    draw(torch.arange(64) % data.num_classes, 0)
    start = time.perf_counter()
    draw(torch.arange(512) % data.num_classes, 0)
    return StepTime(
        milliseconds=round(1000 * (durations[36] - durations[6]) / 30, 2),
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
        judgement=judge.judge(images, data),
    )


def table(folder: Path) -> str:
    """Return the outcomes as a Markdown table: one row for all seeds of a trial, the best AUROC first."""
    rows: dict[tuple[str, ...], list[Outcome]] = {}
    for path in sorted((folder / "trials").glob("*.json")):
        outcome = from_json(Outcome, json.loads(path.read_text(encoding="utf-8")))
        trial = outcome.trial
        key = (trial.set, str(trial.side), f"{trial.minutes:g}", outcome.judged_on, trial.entry)
        rows.setdefault(key, []).append(outcome)
    lines = [
        "| set | px | min | judged on | entry | seeds | AUROC | balanced accuracy | recognized | coverage | failed |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, found in sorted(rows.items(), key=lambda item: (item[0][:4], -mean(o.judgement.auroc for o in item[1]))):
        judged = [outcome.judgement for outcome in found]
        failed = sum(
            bool(j.collapsed) or "copies" in j.memorization.values() or min(j.recognized.values()) < 0.9 for j in judged
        )
        by_class = [
            " / ".join(f"{mean(getattr(j, part)[name] for j in judged):.2f}" for name in judged[0].recognized)
            for part in ("recognized", "coverage")
        ]
        scores = [mean(j.auroc for j in judged), mean(j.balanced_accuracy for j in judged)]
        cells = [*key, str(len(found)), *(f"{score:.4f}" for score in scores), *by_class, str(failed)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("CONDGAN_CHEST_XRAY", "data/chest_xray"),
        help="folder with train, val and test ($CONDGAN_CHEST_XRAY, or data/chest_xray)",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--stage", choices=sorted(STAGES))
    parser.add_argument("--entry", action="append", choices=sorted(ENTRIES), help="only these entries; may be repeated")
    parser.add_argument("--measure", action="store_true", help="time the entries that have no time yet")
    parser.add_argument("--confirm", action="store_true", help="judge on the patients that nothing was chosen on")
    parser.add_argument("--list", action="store_true", help="print the trials that are left, and run none")
    parser.add_argument("--table", action="store_true", help="print the outcomes, and run nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table:
        print(table(given.out))
        return
    trials = [Trial(**values) for values in (STAGES[given.stage]() if given.stage else [])]
    trials = [trial for trial in trials if given.entry is None or trial.entry in given.entry]
    judged_on = "confirmation" if given.confirm else "validation"
    suffix = "-confirmed" if given.confirm else ""
    left = [trial for trial in trials if not (given.out / "trials" / f"{trial.name}{suffix}.json").is_file()]
    if given.list:
        print("\n".join(trial.name for trial in left))
        return
    _measure_all(given, trials)
    for side in sorted({trial.side for trial in left}):
        parts = load(given.data, (1, side, side))
        judge = Judge(parts.train, getattr(parts, judged_on), given.out / "classifiers")
        for trial in [trial for trial in left if trial.side == side]:
            measured = _times(given.out)[f"{trial.entry}-{side}px"]
            outcome = run(trial, parts, judge, measured, judged_on=judged_on, folder=given.out)
            write_json(given.out / "trials" / f"{trial.name}{suffix}.json", to_json(outcome))
            found = outcome.judgement
            print(f"{trial.name}{suffix}: AUROC {found.auroc:.4f}, balanced accuracy {found.balanced_accuracy:.4f}", flush=True)


def _times(folder: Path) -> dict[str, StepTime]:
    path = folder / "step_times.json"
    return from_json(dict[str, StepTime], json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _measure_all(given: argparse.Namespace, trials: list[Trial]) -> None:
    """Time the entries of these trials, or with `--measure` all, that have no time yet."""
    times = _times(given.out)
    sides = {(trial.entry, trial.side) for trial in trials}
    if given.measure and not trials:
        sides = {(entry, 32) for entry in given.entry or ENTRIES}
    for entry, side in sorted(sides):
        name = f"{entry}-{side}px"
        if name in times:
            continue
        times[name] = measure(ENTRIES[entry], load(given.data, (1, side, side)).train)
        write_json(given.out / "step_times.json", to_json(dict(sorted(times.items()))))
        print(f"{name}: {times[name].milliseconds} ms a step, {times[name].draw_seconds} s for 1 000 images", flush=True)


if __name__ == "__main__":
    main()
