"""A ResNet-18 that judges images by what can be learned from them."""

from condgan.classifier.augmentation import Augment, ClassicalAugment
from condgan.classifier.network import ResNet18
from condgan.classifier.training import Classifier, train_classifier

__all__ = ["Augment", "ClassicalAugment", "Classifier", "ResNet18", "train_classifier"]
