"""Which generator teaches a classifier most, for the time of one core: recipes, their ingredients, and peers.

Every trial gets the same time, of which drawing as many images as there are training images is a part. Time means
steps: `--measure` times each entry on a quiet core and writes `results/step_times.json`, from which the steps of every
trial follow. A trial is one file in `results/trials`; those that exist are not run again. Settings are chosen on
validation patients; `--confirm` judges on patients that nothing was chosen on. Predictions and outcomes are in LOG.md.

    OMP_NUM_THREADS=1 python benchmarks/ablation --measure
    OMP_NUM_THREADS=1 python benchmarks/ablation --stage first
    python benchmarks/ablation --table
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch
from entries import ENTRIES, STAGES
from images import load
from trials import StepTime, Trial, measure, run, table

from condgan.files import from_json, to_json, write_json
from judging import Judge

RESULTS = Path(__file__).parent / "results"


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
            print(f"{trial.name}{suffix}: AUROC {found.auroc:.4f}, {found.balanced_accuracy:.4f}", flush=True)


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
        print(f"{name}: {times[name]}", flush=True)


if __name__ == "__main__":
    main()
