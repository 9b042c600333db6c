"""The study on real chest X-rays, cell by cell: ACGAN against ACWGAN, by what a ResNet-18 learns from their images.

`python benchmarks/study --size cpu` goes on where it was stopped. Cells may be run in any order and on
several machines (`--cell`, `--merge`); `--publish` puts what there is into `results/`, from where `docs/update.py`
makes the page. A cell that was published before is compared with its committed interval when it is run again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from carry import pack, unpack
from configs import SIZES
from probe import probe
from rerun import compare
from xrays import load

from condgan.files import to_json, write_json
from condgan.runs import load_run
from condgan.study import Study, merge, summarize, write_report
from condgan.study.cells import Cell, make_cells
from condgan.study.folder import StudyFolder
from condgan.study.results import GeneratorOutcome

RESULTS = Path(__file__).parent / "results"
NAMES = {2: "two-classes", 3: "three-classes"}
CURVE_ROWS = 40


def with_needs(cells: list[Cell], patterns: list[str]) -> list[str]:
    """Return the names of the cells that fit a pattern, and of all that they need, in the order of the plan."""
    wanted = {cell.name for cell in cells if any(fnmatch(cell.name, pattern) for pattern in patterns)}
    for cell in reversed(cells):  # needs come first in a plan
        if cell.name in wanted:
            wanted |= set(cell.needs)
    return [cell.name for cell in cells if cell.name in wanted]


def publish(folder: Path, published: Path) -> None:
    """Copy all outcomes, sample sheets and thinned curves to where they are committed, without networks.

    `--merge benchmarks/study/results/cpu` goes on from there; networks that are needed are trained again. On another
    processor that gives another network, because training amplifies rounding. The outcome, samples and curve of the
    first one stay, and the description of the other goes into `trained_again`.
    """
    published.mkdir(parents=True, exist_ok=True)
    summarize(folder).write(published / "results.json")
    for name in ("real.png", "probes.json", "config.json", "test.npz", "test_evaluations.jsonl"):
        if (folder / name).is_file():
            shutil.copy(folder / name, published / name)
    shutil.copytree(folder / "cells", published / "cells", dirs_exist_ok=True)
    for gan in sorted((folder / "gans").glob("*")):  # missing where published results are summarized again
        if not (gan / "run.json").is_file():
            continue
        run, outcome = load_run(gan), StudyFolder(folder).read(gan.name)
        if isinstance(outcome, GeneratorOutcome) and (run.kept, run.last_metrics) != (
            outcome.kept,
            outcome.last_metrics,
        ):
            write_json(published / "trained_again" / f"{gan.name}.json", to_json(run))
            continue
        (published / "samples").mkdir(exist_ok=True)
        shutil.copy(gan / "samples.png", published / "samples" / f"{gan.name}.png")
        rows = json.loads((gan / "curve.json").read_text(encoding="utf-8"))
        thinned = [rows[round(i * (len(rows) - 1) / (CURVE_ROWS - 1))] for i in range(CURVE_ROWS)]
        write_json(published / "curves" / f"{gan.name}.json", [_short(row) for row in thinned])
    print(f"published in {published}")


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in row.items()}


def _move(given: argparse.Namespace, folder: Path, published: Path) -> None:
    if given.unpack:
        unpack(given.unpack, folder)
    if given.pack:
        print("\n".join(str(path) for path in pack(folder, given.pack)))
    if given.publish:
        publish(folder, published)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python benchmarks/study", description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="cpu")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the study (by default runs/study/SIZE)")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("CONDGAN_CHEST_XRAY", "data/chest_xray"),
        help="folder with train, val and test ($CONDGAN_CHEST_XRAY, or data/chest_xray)",
    )
    parser.add_argument(
        "--classes", type=int, choices=sorted(NAMES), action="append", help="by default all of the size"
    )
    parser.add_argument(
        "--cell",
        action="append",
        metavar="PATTERN",
        help="run only cells of these names and what they need, such as 'gan-acgan_dcgan-*'; may be repeated",
    )
    parser.add_argument("--list", action="store_true", help="print the names of all cells and run none")
    parser.add_argument("--time-limit", type=float, metavar="MIN", help="minutes after which to stop for now")
    parser.add_argument(
        "--merge", nargs="+", type=Path, metavar="DIR", help="put other folders of the study into --out first"
    )
    parser.add_argument("--pack", type=Path, metavar="DIR", help="put --out into files of at most 16 MiB; runs nothing")
    parser.add_argument("--unpack", type=Path, metavar="DIR", help="make --out from such files; runs nothing")
    parser.add_argument("--publish", action="store_true", help=f"put what there is into {RESULTS.name}/; runs nothing")
    parser.add_argument(
        "--probe",
        action="store_true",
        help="judge the generators, on training and validation images only, and write probes.json; trains nothing",
    )
    parser.add_argument("--device", help="cpu, cuda or mps; by default the fastest there is")
    given = parser.parse_args()

    given.out = given.out or Path("runs/study") / given.size
    if given.list:
        print("\n".join(cell.name for cell in make_cells(SIZES[given.size].config)))
        return
    try:
        fine = run(given)
    except (ValueError, FileNotFoundError) as error:  # of what was asked for: data, cells, folders
        raise SystemExit(f"error: {error}") from error
    sys.exit(0 if fine else 1)


def run(given: argparse.Namespace) -> bool:
    """Do what the command line asks for; return whether cells that were run again lie inside their intervals."""
    size, fine = SIZES[given.size], True
    for classes in given.classes or size.classes:
        folder, published = given.out / NAMES[classes], RESULTS / given.size / NAMES[classes]
        if given.merge:
            merge([other / NAMES[classes] for other in given.merge if (other / NAMES[classes]).is_dir()], folder)
        if given.publish or given.pack or given.unpack:
            _move(given, folder, published)
            continue
        data = load(Path(given.data), classes, size, given.out / "decoded")
        if given.probe:
            write_json(folder / "probes.json", probe(folder, data[0], data[1]))
            continue
        study = Study(
            size.config,
            *data,
            folder,
            device=given.device,
            progress=lambda line: print(line, flush=True),
            command=f"python benchmarks/study --size {given.size} --classes {classes}",
        )
        patterns = given.cell or ["*"]
        chosen = [*patterns, *with_needs(study.cells, patterns)]
        if not study.run(chosen, time_limit=None if given.time_limit is None else 60 * given.time_limit):
            break
        write_report(study.results(), folder)
        if given.cell:
            fine &= compare(folder, published, patterns)
    return fine


if __name__ == "__main__":
    main()
