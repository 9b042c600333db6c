"""Whether generated images show the class that they were generated for, as classifiers of real images see them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from condgan.data.dataset import check_same_classes
from condgan.devices import plain_defaults
from condgan.metrics.extractors import CrossFit, ExtractorInfo, ImagesInfo
from condgan.stats import ClassificationReport, Estimate, classification_report
from condgan.types import JudgedImages


class LabelVerdict(Enum):
    """What was found of one class, by the rule of `label_report`."""

    NOT_RECOGNIZED = "not_recognized"
    CANNOT_TELL = "cannot_tell"
    RECOGNIZED = "recognized"


@dataclass(frozen=True, slots=True)
class ClassLabels:
    """Whether the generated images of one class are recognized.

    Args:
        verdict: The finding, by the rule of `label_report`.
        explanation: The numbers that led to it.
    """

    verdict: LabelVerdict
    explanation: str


@dataclass(frozen=True, slots=True)
class LabelReport:
    """Verdicts on every class, and the scores that they rest on.

    Args:
        extractor: The classifiers.
        per_class: The classes by name.
        generated: Scores of the classifiers on the generated images, with the labels that they were generated for.
        real: Their scores on real test images.
        generated_images: The generated images.
        test_images: The test images.
    """

    extractor: ExtractorInfo
    per_class: dict[str, ClassLabels]
    generated: ClassificationReport
    real: ClassificationReport
    generated_images: ImagesInfo
    test_images: ImagesInfo


@plain_defaults()
def label_report(
    generated: JudgedImages, test: JudgedImages, extractor: CrossFit, *, resamples: int = 2000, seed: int = 0
) -> LabelReport:
    r"""Decide for each class whether classifiers of real images recognize the generated images of it.

    A generator that ignores the labels can make images as real as others. KID and FID over all classes do not see it,
    and a classifier that is trained on its images learns nothing.

    The probabilities are means over the cross-fitted networks, which have seen neither test images nor generated ones.
    With K classes, and $g$ and $r$ for the share of the generated and of the real test images of a class that are
    recognized as this class, the verdict is the first of these that holds:

    - `CANNOT_TELL`: the 95 % interval of $r$ reaches down to $\frac1K$, the share by guessing.
    - `NOT_RECOGNIZED`: that of $g$ lies below $\frac12 \left(\frac1K + r\right)$.
    - `RECOGNIZED`: that of $g$ lies above $\frac1K$.
    - `CANNOT_TELL`, too few images.

    Args:
        generated: Generated images, uint8, with the labels that they were generated for.
        test: Real images that the classifiers were not trained on.
        extractor: Networks cross-fitted on the real training images, which return class logits.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: If the sets do not fit each other or the classifiers, or a class has no images.

    References:
        Shmelkov, Schmid and Alahari 2018, arXiv:1807.09499 (GAN-test).
    """
    check_same_classes("generated", generated, "test", test.class_names, test.image_shape)
    ours, theirs = (
        classification_report(
            _probabilities(extractor, data),
            data.labels.cpu(),
            groups=data.groups,
            class_names=data.class_names,
            resamples=resamples,
            seed=seed,
        )
        for data in (generated, test)
    )
    return LabelReport(
        extractor=extractor.info,
        per_class={name: _judge_class(name, ours, theirs, label) for label, name in enumerate(generated.class_names)},
        generated=ours,
        real=theirs,
        generated_images=ImagesInfo.of(generated),
        test_images=ImagesInfo.of(test),
    )


def _probabilities(extractor: CrossFit, data: JudgedImages) -> Tensor:
    """Return the class probabilities of images, means over the networks."""
    logits = [fold.extractor.extract(data.images).logits for fold in extractor.folds]
    found = torch.stack([part.double().softmax(1) for part in logits if part is not None])
    if found.shape[2] != data.num_classes:
        raise ValueError(
            f"the classifiers must have the {data.num_classes} classes of the images, got {found.shape[2]}. Fit them "
            "on images of the same classes."
        )
    return found.mean(0)


def _judge_class(name: str, ours: ClassificationReport, theirs: ClassificationReport, label: int) -> ClassLabels:
    found, real = ours.recall[label], theirs.recall[label]
    guessing = 1 / len(ours.class_names)
    verdict = _decide(found, real, guessing)
    begin = {
        LabelVerdict.NOT_RECOGNIZED: "Not recognized as its class",
        LabelVerdict.CANNOT_TELL: "Whether it is recognized as its class cannot be told",
        LabelVerdict.RECOGNIZED: "Recognized as its class",
    }[verdict]
    counts = torch.tensor(ours.confusion[label])
    taken = int(counts.argmax())
    explanation = (
        f"{begin}: classifiers of real images recognize {_percent(found)} of its generated images and {_percent(real)} "
        f"of its real test images; {guessing:.0%} by guessing."
    )
    if taken != label:
        explanation += f" Most often they see {ours.class_names[taken]} ({int(counts[taken])} of {int(counts.sum())})."
    return ClassLabels(verdict, explanation)


def _decide(found: Estimate, real: Estimate, guessing: float) -> LabelVerdict:
    if real.low <= guessing:
        return LabelVerdict.CANNOT_TELL
    if found.high < (guessing + real.value) / 2:
        return LabelVerdict.NOT_RECOGNIZED
    return LabelVerdict.RECOGNIZED if found.low > guessing else LabelVerdict.CANNOT_TELL


def _percent(share: Estimate) -> str:
    return f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"
