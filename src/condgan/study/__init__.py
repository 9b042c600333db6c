"""What a classifier learns from generated images: train on them, test on real ones, with seeds and controls."""

from condgan.study.arms import ARMS, CONTROLS, Arm, Phase, run_arm, synthetic_labels
from condgan.study.augmentation import Augment, ClassicalAugment
from condgan.study.classifier import Classifier, train_classifier
from condgan.study.extractor import crossfit_extractor
from condgan.study.plan import Cell, RecipePlan, StudyConfig, plan
from condgan.study.report import write_report
from condgan.study.results import summarize, write_results
from condgan.study.runner import Study, merge
from condgan.study.usefulness import gan_test, keep_patients, relative_usefulness

__all__ = [
    "ARMS",
    "CONTROLS",
    "Arm",
    "Augment",
    "Cell",
    "ClassicalAugment",
    "Classifier",
    "Phase",
    "RecipePlan",
    "Study",
    "StudyConfig",
    "crossfit_extractor",
    "gan_test",
    "keep_patients",
    "merge",
    "plan",
    "relative_usefulness",
    "run_arm",
    "summarize",
    "synthetic_labels",
    "train_classifier",
    "write_report",
    "write_results",
]
