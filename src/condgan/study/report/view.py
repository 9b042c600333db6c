"""What is shown of a study, from its results: read by the templates of the HTML report and of the documentation.

Nothing here knows HTML or Markdown. Numbers stay numbers; the templates turn them into text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from condgan.files import to_json
from condgan.metrics.copying import CopyTest, DataCopying
from condgan.metrics.diversity import Diversity
from condgan.metrics.fidelity_report import FidelityComparison, FidelityReport
from condgan.stats import Estimate
from condgan.study.report.charts import REFERENCE, DotChart, LinePanel, Mark, dot_chart, line_panel
from condgan.study.report.words import (
    METRIC_NAMES,
    SCORE_NAMES,
    arm_name,
    listed,
    metric_name,
    number,
    p_value,
    percent_intervals,
    plural,
    recall_class,
    side_name,
)

FAMILIES = {
    "control": "{metric}: difference from the best control, {other}",
    "rare": "{metric}: difference from {other}",
    "recipes": "{metric}: recipes against each other",
}
"""Headings of the families of comparisons; each family is corrected by itself."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a study has come."""

    finished: str
    done: int
    planned: int
    failed: tuple[tuple[str, str], ...]  # name and error
    missing: tuple[tuple[str, int], ...]  # kind of cell and number
    not_begun: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerdictView:
    question: str
    answer: str
    evidence: str
    recipes: tuple[str, ...]
    is_open: bool
