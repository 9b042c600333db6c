"""Names for readers, and small questions to the results, for the sections of the HTML report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from condgan.study.report_figures import Mark
from condgan.study.report_html import percent_intervals

Results = Mapping[str, Any]
Row = Mapping[str, Any]

ARM_NAMES = {
    "real": "real images",
    "real_augmented": "real, augmented",
    "real_weighted": "real, class weights",
    "real_augmented_weighted": "real, augmented, class weights",
    "real_oversampled": "real, rare classes repeated",
    "synthetic_1x": "generated only, as many as real",
    "synthetic_2x": "generated only, 2 times as many",
    "synthetic_5x": "generated only, 5 times as many",
    "real_plus_synthetic_2to1": "real + generated, 2 to 1",
    "real_plus_synthetic_1to1": "real + generated, 1 to 1",
    "real_plus_synthetic_1to2": "real + generated, 1 to 2",
    "pretrained": "generated first, then real",
}
"""Names of arms for readers; an arm that is not here goes by its own name."""

METRIC_NAMES = {
    "balanced_accuracy": "Balanced accuracy",
    "auroc": "AUROC",
    "macro_f1": "Macro-F1",
    "accuracy": "Accuracy",
}
"""Names of metrics for readers, in the order of the report."""


def arm_name(arm: str) -> str:
    """Return the name of an arm for readers."""
    return ARM_NAMES.get(arm, arm.replace("_", " "))


def side_name(side: Row) -> str:
    """Return the name of one side of a comparison for readers.

    Examples:
        >>> side_name({"recipe": "acgan", "arm": "synthetic_2x"}), side_name({"recipe": None, "arm": "real"})
        ('acgan: generated only, 2 times as many', 'real images')
    """
    return f"{side['recipe']}: {arm_name(side['arm'])}" if side["recipe"] else arm_name(side["arm"])


def recall_class(metric: str) -> str | None:
    """Return the class whose recall a metric is.

    Examples:
        >>> recall_class("recall/normal"), recall_class("auroc")
        ('normal', None)
    """
    head, _, name = metric.partition("/")
    return name if head == "recall" and name else None


def metric_name(metric: str) -> str:
    """Return the name of a metric for readers."""
    name = recall_class(metric)
    return f"Recall, {name}" if name else METRIC_NAMES.get(metric, metric.replace("_", " "))


def cells_of(results: Results, kind: str) -> list[Row]:
    """Return the finished cells of a kind; those whose training failed are not among them."""
    return [cell for cell in results.get("cells", []) if cell["kind"] == kind and "error" not in cell]


def recipes_of(results: Results) -> list[str]:
    """Return the recipes of a study in the order of their first appearance."""
    entries = [*results.get("cells", []), *results.get("summaries", [])]
    return list(dict.fromkeys(entry["recipe"] for entry in entries if entry["recipe"]))


def series_of(results: Results, recipe: str | None) -> int:
    """Return the number of the colour and shape of a recipe; 0 for controls."""
    return recipes_of(results).index(recipe) + 1 if recipe else 0


def summary_mark(results: Results, summary: Row, note: str = "") -> Mark:
    """Return how a row of the summaries is drawn."""
    series = series_of(results, summary["recipe"])
    return Mark(arm_name(summary["arm"]), summary["value"], summary["low"], summary["high"], series, note)


def intervals_name(results: Results) -> str:
    """Return what intervals of the study are called."""
    return percent_intervals(results.get("config", {}).get("level"))


def size_of_test(summaries: Sequence[Row]) -> str:
    """Return what the rows were tested on; recalls, which rest on a part of it, say it only where they are alone."""
    whole = [summary for summary in summaries if not summary["metric"].startswith("recall/")]
    sizes = dict.fromkeys((summary["images"], summary["patients"]) for summary in whole or summaries)
    return " or ".join(f"{images} test images of {patients} patients" for images, patients in sizes)


def seeds_of(summary: Row) -> str:
    """Return how many seeds of each kind a row rests on."""
    kinds = {"generator seed": summary["generator_seeds"], "classifier seed": summary["classifier_seeds"]}
    return " x ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in kinds.items() if count)
