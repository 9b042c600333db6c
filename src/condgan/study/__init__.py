"""What a classifier learns from generated images: train on them, test on real ones."""

from condgan.study.checks import check_disjoint
from condgan.study.classifier import Classifier, train_classifier

__all__ = ["Classifier", "check_disjoint", "train_classifier"]
