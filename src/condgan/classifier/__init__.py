"""A ResNet-18 classifier, which measures what can be learned from real or generated images."""

from condgan.classifier.augmentation import Augment, ClassicalAugment
from condgan.classifier.network import ResNet18
from condgan.classifier.training import Classifier, train_classifier

__all__ = ["Augment", "ClassicalAugment", "Classifier", "ResNet18", "train_classifier"]
