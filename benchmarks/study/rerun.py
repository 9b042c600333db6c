"""Compares cells that were run again with the committed ones."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from condgan.study.folder import StudyFolder


def prediction_interval(runs: Sequence[Sequence[float]]) -> tuple[float, float]:
    r"""Return where the score of one more run of an arm is expected with 95 % confidence, on the same test images.

    $\bar s \pm t\, \hat\sigma \sqrt{1 + 1/n}$ with the mean and the standard deviation of all n runs. Those of one
    generator resemble each other, so that t is the quantile for one degree of freedom less than there are generators,
    or classifiers where there is no generator.

    Args:
        runs: Scores in [0, 1] by generator, then classifier; of one list where there is no generator.
    """
    scores = [score for classifiers in runs for score in classifiers]
    units = len(runs) if len(runs) > 1 else len(scores)
    mean = statistics.fmean(scores)
    if units < 2:
        return 0.0, 1.0
    reach = float(stdtrit(units - 1, 0.975)) * statistics.stdev(scores) * math.sqrt(1 + 1 / len(scores))
    return max(0.0, mean - reach), min(1.0, mean + reach)


def compare(folder: Path, published: Path, patterns: Sequence[str]) -> bool:
    """Say of each cell that was run and published before whether it lies inside the published interval.

    On the same processor with the same versions a cell has the same networks again. Anywhere else it has others, as if
    from another seed, and its interval, which is over patients, does not allow for that: where one more run of the arm
    is expected is said beside it, and decides nothing.
    """
    if not (published / "results.json").is_file():
        return True
    committed = json.loads((published / "results.json").read_text(encoding="utf-8"))
    metric, fine, files = committed["config"]["primary_metric"], True, StudyFolder(folder)
    for cell in committed["cells"]:
        if "interval" not in cell or not any(fnmatch(cell["name"], pattern) for pattern in patterns):
            continue
        if not files.is_finished(cell["name"]):
            continue
        again, first = files.read(cell["name"]), StudyFolder(published).read(cell["name"])
        own, value = cell["interval"][metric], again["metrics"][metric]
        inside = own["low"] <= value <= own["high"]
        fine &= inside
        print(
            f"{cell['name']}: {metric} {value:.3f}, committed {own['value']:.3f} "
            f"[{own['low']:.3f}, {own['high']:.3f}]: {'inside' if inside else 'OUTSIDE'}"
        )
        if any(again[key] != first[key] for key in ("device", "versions")):
            low, high = prediction_interval(_runs(committed["cells"], cell, metric))
            print(
                "  another processor or other versions give other networks: one more run of this arm is expected in "
                f"[{low:.3f}, {high:.3f}]"
            )
    return fine


def _runs(cells: Sequence[dict[str, Any]], one: dict[str, Any], metric: str) -> list[list[float]]:
    """Return the scores of all runs of an arm, by generator."""
    found: dict[Any, list[float]] = {}
    for cell in cells:
        if cell["kind"] == "classifier" and all(cell[key] == one[key] for key in ("recipe", "arm", "p")):
            found.setdefault(cell["seed"], []).append(cell["metrics"][metric])
    return list(found.values())
