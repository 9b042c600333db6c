"""`results.json`: everything that a study has found so far, computed from the files of its cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from condgan.files import as_json, write_json
from condgan.study.cells import make_cells
from condgan.study.folder import SCHEMA, StudyFolder
from condgan.study.summaries import Outcomes, arm_keys, compare_arms, summarize_arms
from condgan.study.verdicts import verdicts

WHAT = "What a classifier learns from generated images"
_LEFT_OUT = ("versions", "history", "classifier")


def summarize(folder: str | Path) -> dict[str, Any]:
    """Return the results of a study as far as it has come.

    They depend on the files of the folder alone: those of several machines give the same results once merged. The
    schema is documented with the results.

    Args:
        folder: Folder of a study.

    Raises:
        FileNotFoundError: If the folder holds no study.
        ValueError: If it has another schema.
    """
    files = StudyFolder(folder)
    content, config = files.content, files.config
    planned = [cell.name for cell in make_cells(config)]
    cells = [files.read(name) for name in planned if files.is_finished(name)]
    labels, groups = files.test()
    by_arm = {
        key: {
            seed: {cell["classifier_seed"]: files.probabilities(cell["name"]) for cell in found if cell["seed"] == seed}
            for seed in dict.fromkeys(cell["seed"] for cell in found)
        }
        for key, found in arm_keys(cells).items()
    }
    data = content["data"]
    outcomes = Outcomes(config, tuple(data["class_names"]), labels, groups, by_arm)
    counts = data["counts"]["train"]
    summaries = summarize_arms(outcomes)
    comparisons = compare_arms(outcomes, summaries, counts)
    results = {
        "schema": SCHEMA,
        "what": WHAT,
        "command": content.get("command"),
        "config": content["config"],
        "data": data,
        "commit": _together([cell.get("commit") for cell in cells]),
        "device": _together([cell.get("device") for cell in cells]),
        "versions": _versions(cells),
        "cells_planned": len(planned),
        "cells": [{name: value for name, value in cell.items() if name not in _LEFT_OUT} for cell in cells],
        "summaries": summaries,
        "comparisons": comparisons,
        "verdicts": verdicts(outcomes, cells, summaries, comparisons, counts),
        "test_evaluations": files.test_evaluations(),
    }
    made: dict[str, Any] = as_json(results)
    return made


def write_results(folder: str | Path) -> Path:
    """Write `results.json` into the folder of a study and return its path."""
    path = Path(folder) / "results.json"
    write_json(path, summarize(folder))
    return path


def _together(values: Sequence[str | None]) -> str | None:
    distinct = [value for value in dict.fromkeys(values) if value is not None]
    return ", ".join(distinct) or None


def _versions(cells: Sequence[dict[str, Any]]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for cell in cells:
        for name, version in cell.get("versions", {}).items():
            found.setdefault(name, []).append(version)
    return {name: ", ".join(dict.fromkeys(versions)) for name, versions in found.items()}
