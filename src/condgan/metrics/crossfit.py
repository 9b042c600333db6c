"""Feature extractors trained on the real training images, cross-fitted by patient."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from condgan.classifier.network import Precision, ResNet18
from condgan.classifier.training import Classifier, train_classifier
from condgan.data.dataset import ArrayDataset
from condgan.data.splits import group_folds, groups_per_class
from condgan.devices import plain_defaults
from condgan.metrics.extractors import CrossFit, Extractor, Fold, module_extractor

FOLDS = 2
_VALIDATION = 0.1


@plain_defaults()
def crossfit_extractor(
    train: ArrayDataset,
    *,
    folds: int = FOLDS,
    epochs: int = 3,
    precision: Precision = "bf16",
    batch_size: int = 64,
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> CrossFit:
    """Train one ResNet-18 for each fold of patients, on the real images of all other folds.

    Its features represent what distinguishes the classes of these images, which features of networks for photographs
    need not do. But a network memorizes the images that it was trained on, so each is applied only to images of
    patients that it has not seen, see `condgan.metrics.CrossFit`. A tenth of the patients of the other folds is held
    out to choose the best epoch.

    Features are those before the head (512 of them), in float32; the logits of the head give the Inception Score.

    Use it for fidelity, never to search for memorized images: each network has seen most of the training set.

    Args:
        train: Real training images of the generator. Without groups the folds are made by image, and one patient's
            images may be in several folds: the name of the extractor says so.
        folds: Number of folds K. Each network sees (K - 1) / K of the patients; more folds train better networks and
            leave fewer images for each comparison.
        epochs: Epochs of each training.
        precision: Precision of the training, see `train_classifier`.
        batch_size: Number of images per batch, in training and afterwards.
        device: Where to compute. By default CUDA, then MPS, then the CPU.
        seed: Seed of the folds and of the trainings.
        progress: Whether to show progress bars.

    Raises:
        ValueError: If there are fewer than two folds, or a class has too few images or patients for them.

    References:
        Chernozhukov et al. 2018, arXiv:1608.00060 (cross-fitting).
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}: one network would have seen all images.")
    held_out = group_folds(train.labels, train.groups, folds, seed=seed)
    unit = "image (no groups given)" if train.groups is None else "group"
    fitted = []
    for number, index in enumerate(held_out):
        seen = torch.ones(len(train), dtype=torch.bool).index_fill_(0, index, False).nonzero().flatten()
        rest = train.subset(seen)
        fewest = int(groups_per_class(rest.labels, rest.groups).min())
        fit, validation = rest.split(min(0.5, max(_VALIDATION, 2 / fewest)), seed=seed)
        classifier = train_classifier(
            fit,
            validation,
            epochs=epochs,
            batch_size=batch_size,
            precision=precision,
            device=device,
            seed=seed + number,
            progress=progress,
        )
        name = f"ResNet-18 trained on {train.source}, by {unit}"
        fitted.append(Fold(classifier_extractor(classifier, name=name, batch_size=batch_size, device=device), index))
    return CrossFit(tuple(fitted), train.fingerprint)


def classifier_extractor(
    classifier: Classifier, *, name: str, batch_size: int = 64, device: torch.device | str | None = None
) -> Extractor:
    """Return the extractor of the features before the head of a classifier, with the logits of the head.

    Do not apply it to images that the classifier was trained on: it has memorized them, and their features differ from
    those of other images.

    Args:
        classifier: A ResNet-18 of `train_classifier`.
        name: Name of the extractor, for results.
        batch_size: Number of images per batch.
        device: Where to compute. By default CUDA, then MPS, then the CPU.
    """
    channels, height, width = classifier.image_shape
    return module_extractor(
        _FeaturesAndLogits(cast("ResNet18", classifier.model)),
        name=name,
        image_shape=(channels, height, width),
        batch_size=batch_size,
        device=device,
    )


class _FeaturesAndLogits(nn.Module):
    def __init__(self, network: ResNet18) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.network.backbone(x.contiguous(memory_format=torch.channels_last))
        return h, self.network.head(h)
