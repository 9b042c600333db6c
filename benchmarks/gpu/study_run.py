"""The second run on a machine: generators by whole seeds, then their classifiers, packed for another machine."""

from __future__ import annotations

import argparse
import importlib.util
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from names import GPU_SIZES
from packing import bring, pack_new
from parts import run_together
from study_data import folder_of, generators, size_of
from work import Row, Task, append

from condgan.study.folder import StudyFolder

PACKING = 8.0
"""Seconds that are kept for the last packing."""

FINISHING = 6.0
"""Seconds that a process keeps for writing down what it has trained."""

CONTROLS = 60.0
"""Seconds for the controls of a size: a hang must not cost the generators."""

SILENCE = 90.0
"""Seconds of silence after which generators' processes are taken to hang: they report every 30 seconds."""

CLASSIFIERS_AT_ONCE = 6
LEAST_FOR_CLASSIFIERS = 20.0


def run(given: argparse.Namespace) -> None:
    """Run what the command line asks for."""
    began = time.monotonic()
    end = began + 60 * given.minutes - PACKING
    if not given.rehearse and not Path(given.data).is_dir():
        raise SystemExit(f"the X-rays must be in {given.data}: a folder with train, val and test. See README.md.")
    if importlib.util.find_spec("torch_fidelity") is None:
        raise SystemExit("torch-fidelity is missing: by its KID the study's generators are chosen. See README.md.")
    rows = given.out.resolve() / "study.jsonl"
    sizes = given.size or GPU_SIZES
    append(rows, {"part": "run", "minutes": given.minutes, "device": given.device, "rehearse": given.rehearse})
    work = given.work.resolve()
    if given.rehearse:
        work /= "rehearsal"
        shutil.rmtree(work, ignore_errors=True)
    folders = [folder_of(work, size, given.classes) for size in sizes]
    known = {f"{folder.parent.name}/{name}" for folder in folders for name in bring(given.merge, folder)}
    pack = partial(_pack_new, folders, rows.parent, known, given.most_mib)
    common = {
        "classes": given.classes,
        "engine": given.engine,
        "work": str(work),
        "data": str(Path(given.data).resolve()),
    }
    base = Task(part="", module="", rows=str(rows), device=given.device, seconds=0, planned=0, rehearse=given.rehearse)
    make = partial(_task, base, end)

    controls = [make(f"controls-{size}", "study_controls", {**common, "size": size}, most=CONTROLS) for size in sizes]
    run_together(controls, slots=1, end=end)
    side_by_side = given.at_once == "seeds"
    tasks = [
        make(name, "study_generators", {**common, **options}, silence=SILENCE)
        for name, options in trainings(sizes, given, side_by_side=side_by_side)
    ]
    if tasks:
        recipes = len({task.options["recipe"] for task in tasks})
        slots = given.processes or (1 if side_by_side else recipes)
        run_together(tasks, slots=slots, end=end, ended=pack)
    if end - time.monotonic() > LEAST_FOR_CLASSIFIERS:
        tasks = [
            make(f"classifiers-{size}-{recipe or 'real'}", "study_classifiers", {**common, "size": size, **options})
            for size, folder in zip(sizes, folders, strict=True)
            for recipe, options in classifiers(folder, given)
        ]
        if tasks:
            run_together(tasks, slots=CLASSIFIERS_AT_ONCE, end=end)
    pack()
    print(f"{rows.parent}: {time.monotonic() - began:.0f} s", flush=True)


def _task(
    base: Task,
    end: float,
    part: str,
    module: str,
    options: dict[str, Any],
    *,
    most: float = math.inf,
    silence: float | None = None,
) -> Task:
    """Return a task that may take all the time that is left, or `most` seconds."""
    seconds = min(most, end - time.monotonic())
    task = replace(base, part=part, module=module, options=options, silence=silence)
    return replace(task, seconds=seconds, planned=seconds - FINISHING)


def trainings(
    sizes: Sequence[str], given: argparse.Namespace, *, side_by_side: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and options of each process: for all seeds of a recipe, or seed by seed for each recipe."""
    seeds = parse_seeds(given.seeds)
    for size in sizes:
        cells = generators(size_of(size, rehearse=given.rehearse).config, given.recipe, seeds)
        recipes = list(dict.fromkeys(str(cell.recipe) for cell in cells))
        numbers = sorted({int(cell.seed or 0) for cell in cells})
        groups = [numbers] if side_by_side else [[number] for number in numbers]
        for group in groups:
            for recipe in recipes:
                name = f"{size}-{recipe}" + ("" if side_by_side else f"-s{group[0]}")
                yield name, {"size": size, "recipe": recipe, "seeds": group, "side_by_side": side_by_side}


def classifiers(folder: Path, given: argparse.Namespace) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield the recipes that have generators here, and None for real images in front."""
    if not (folder / "config.json").is_file():
        return
    seeds = parse_seeds(given.seeds)
    files = StudyFolder(folder)
    cells = generators(files.study().config, given.recipe, seeds)
    trained = [cell for cell in cells if (files.gan(cell) / "generator").is_dir() and files.is_finished(cell.name)]
    yield None, {"recipe": None, "seeds": seeds}
    for recipe in dict.fromkeys(cell.recipe for cell in trained):
        yield recipe, {"recipe": recipe, "seeds": seeds}


def parse_seeds(given: str | None) -> list[int] | None:
    """Return seeds from a command line."""
    return None if given is None else [int(seed) for seed in given.split(",")]


def _pack_new(folders: Sequence[Path], out: Path, known: set[str], most_mib: float, row: Row | None = None) -> None:
    """Pack what there is; after each process, so that an interrupted run keeps it.

    This may fail where another process is just moving a file: the next packing has it.
    """
    packed = pack_new(folders, out, known=known, most=most_mib * 2**20)
    if row is None:
        print("\n".join(f"{path} {path.stat().st_size / 2**20:.1f} MiB" for path in packed), flush=True)
