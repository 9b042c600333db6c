"""Packing of new results of the studies, and unpacking of those of earlier runs."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from carry import WEIGHTS, pack, unpack

from condgan.study import merge
from condgan.study.cells import make_cells
from condgan.study.folder import StudyFolder


def bring(sources: Sequence[Path], folder: Path) -> set[str]:
    """Merge a study from where earlier runs or `benchmarks/study --publish` left it; return the cells that are known.

    A source holds `SIZE/two-classes`, as a folder or packed.
    """
    known: set[str] = set()
    for source in sources:
        place = source / folder.parent.name
        if (place / folder.name / "config.json").is_file():
            known |= _merge(place / folder.name, folder)
        if list(place.glob(f"{folder.name}.tar.gz.*")):
            with tempfile.TemporaryDirectory() as name:
                unpack(place, Path(name) / folder.name)
                known |= _merge(Path(name) / folder.name, folder)
    return known


def _merge(source: Path, folder: Path) -> set[str]:
    merge([source], folder)
    return {path.stem for path in (source / "cells").glob("*.json")}


def pack_new(folders: Sequence[Path], out: Path, *, known: Collection[str], most: float) -> list[Path]:
    """Pack what is new in the studies, in few files; generators beyond `most` bytes are left out.

    `known` holds names of cells as `SIZE/NAME`.
    """
    packed = []
    for folder in folders:
        if not (folder / "config.json").is_file():
            continue
        size = folder.parent.name
        there = {name.partition("/")[2] for name in known if name.startswith(f"{size}/")}
        too_many = set(_beyond(folder, there, most))
        packed += pack(folder, out / size, without=there | too_many)
        most -= sum(path.stat().st_size for path in (out / size).glob(f"{folder.name}.tar.gz.*"))
    return packed


def _beyond(folder: Path, known: Collection[str], most: float) -> Iterator[str]:
    """Yield the generators that do not fit, and what needs them: without its network a generator is to be run again."""
    files = StudyFolder(folder)
    left_out: set[str] = set()
    for cell in make_cells(files.study().config):
        weights = files.gan(cell) / "generator" / WEIGHTS if cell.kind == "gan" else None
        if cell.name not in known and weights is not None and files.is_finished(cell.name) and weights.is_file():
            most -= weights.stat().st_size / 2  # in half precision
            if most < 0:
                print(f"{cell.name} is not packed: it does not fit", flush=True)
                left_out.add(cell.name)
        if cell.name in left_out or left_out.intersection(cell.needs):
            yield cell.name
