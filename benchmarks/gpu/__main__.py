"""All measurements on a GPU machine, in a few minutes. See README.md.

Each part is a process with a time limit of its own and writes its results at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from parts import MODULES
from work import Task, Work

MINUTES = {"probe": 3.5, "study": 7.0}
REHEARSAL_MINUTES = {"probe": 1.6, "study": 1.2}


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run."""
    given = parse(arguments)
    sys.path += [str(folder) for folder in MODULES if str(folder) not in sys.path]
    if given.command == "part":
        task = Task(**json.loads(given.task))
        importlib.import_module(task.module).run(Work(task))
        return
    if given.command == "publish":
        print(importlib.import_module("publishing").publish(given.out, given.name))
        return
    if given.minutes is None:
        given.minutes = (REHEARSAL_MINUTES if given.rehearse else MINUTES)[given.command]
    given.device = given.device or ("cpu" if given.rehearse else "cuda")
    importlib.import_module({"probe": "probe_run", "study": "study_run"}[given.command]).run(given)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python benchmarks/gpu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    probe = commands.add_parser("probe", help="machine, tests, engines, several trainings at once")
    study = commands.add_parser("study", help="generators of the study's GPU sizes, and classifiers of their images")
    for command in (probe, study):
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="results, in few files")
        command.add_argument("--minutes", type=float, help="time for everything (by default 3.5 and 7)")
        command.add_argument("--device", help="by default cuda")
        command.add_argument("--rehearse", action="store_true", help="everything in miniature, on the CPU")
    probe.add_argument("--parts", help="some of them, separated by commas")
    _add_study_options(study)
    publish = commands.add_parser("publish", help="put the results of a run on CUDA into results/, for the docs")
    publish.add_argument("--out", type=Path, required=True, metavar="DIR", help="what the run wrote")
    publish.add_argument("--name", required=True, help="name of the file in results/, such as 2027-01-h100")
    part = commands.add_parser("part")  # how the others start their processes
    part.add_argument("task")
    return parser.parse_args(arguments)


def _add_study_options(study: argparse.ArgumentParser) -> None:
    study.add_argument("--merge", type=Path, action="append", default=[], metavar="DIR", help="what earlier runs wrote")
    study.add_argument("--work", type=Path, default=Path("runs/gpu"), metavar="DIR", help="where the studies grow")
    study.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("CONDGAN_CHEST_XRAY", "data/chest_xray"),
        help="folder with train, val and test ($CONDGAN_CHEST_XRAY, or data/chest_xray)",
    )
    study.add_argument("--size", action="append", help="some of the GPU sizes, in this order; by default all")
    study.add_argument("--classes", type=int, default=2, help="number of classes")
    study.add_argument("--recipe", action="append", metavar="PATTERN", help="recipes of these names only")
    study.add_argument("--seeds", help="generator seeds, such as 0,1; by default all of the size")
    study.add_argument(
        "--at-once",
        choices=("seeds", "recipes"),
        default="seeds",
        help="train all seeds of a recipe side by side in one process (the default), or one process for each recipe, "
        "seed by seed",
    )
    study.add_argument(
        "--engine",
        choices=("recorded iteration", "recorded updates", "eager"),
        help="what runs the generators' updates; by default the first of these that there is",
    )
    study.add_argument("--processes", type=int, help="generators' processes at a time; by default 1, or all recipes")
    study.add_argument("--most-mib", type=float, default=52, help="size of the packed files in all")


if __name__ == "__main__":
    main()
