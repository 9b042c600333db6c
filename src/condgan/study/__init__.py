"""Studies of what a classifier learns from generated images, tested on real ones, with seeds and controls."""

from condgan.study.arms import ARMS, CONTROLS, Arm, Phase, run_arm, synthetic_labels
from condgan.study.cells import Cell, make_cells
from condgan.study.config import StudyConfig
from condgan.study.data import keep_patients
from condgan.study.report import write_report
from condgan.study.results import Results
from condgan.study.study import Study, merge
from condgan.study.summaries import relative_usefulness, summarize

__all__ = [
    "ARMS",
    "CONTROLS",
    "Arm",
    "Cell",
    "Phase",
    "Results",
    "Study",
    "StudyConfig",
    "keep_patients",
    "make_cells",
    "merge",
    "relative_usefulness",
    "run_arm",
    "summarize",
    "synthetic_labels",
    "write_report",
]
