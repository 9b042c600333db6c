"""Compares cells that were run again with the committed ones."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from scipy.special import stdtrit

from condgan.study.folder import StudyFolder
from condgan.study.results import ArmKey, ClassifierOutcome, Results


def prediction_interval(runs: Sequence[Sequence[float]]) -> tuple[float, float]:
    r"""Return where the score of one more run of an arm is expected with 95 % confidence, on the same test images.

    $\bar s \pm t\, \hat\sigma \sqrt{1 + 1/n}$ with the mean and the standard deviation of all n runs. Those of one
    generator resemble each other, so that t is the quantile for one degree of freedom fewer than there are generators,
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
    """Print whether each cell that was run again lies inside its published interval; return whether all do.

    On the same processor with the same versions a cell gives the same networks. Anywhere else it gives others, as if
    from another seed, and its interval, which is over patients, does not allow for that: where one more run of the arm
    is expected is printed beside it, and decides nothing.
    """
    if not (published / "results.json").is_file():
        return True
    committed, files = Results.read(published / "results.json"), StudyFolder(folder)
    metric, fine = committed.config.primary_metric, True
    for first in committed.classifiers:
        if not any(fnmatch(first.name, pattern) for pattern in patterns) or not files.is_finished(first.name):
            continue
        again = files.read(first.name)
        if not isinstance(again, ClassifierOutcome):
            continue
        own, value = first.report.metrics[metric], again.report.metrics[metric].value
        inside = own.low <= value <= own.high
        fine &= inside
        print(f"{first.name}: {metric} {value:.3f}, committed {own}: {'inside' if inside else 'OUTSIDE'}")
        if (again.origin.device, again.origin.versions) != (first.origin.device, first.origin.versions):
            low, high = prediction_interval(_scores(committed, first.key, metric))
            print(
                "  another processor or other versions give other networks: one more run of this arm is expected in "
                f"[{low:.3f}, {high:.3f}]"
            )
    return fine


def _scores(results: Results, key: ArmKey, metric: str) -> list[list[float]]:
    """Return the scores of all runs of an arm, by generator."""
    found: dict[int | None, list[float]] = {}
    for cell in results.classifiers:
        if cell.key == key:
            found.setdefault(cell.seed, []).append(cell.report.metrics[metric].value)
    return list(found.values())
