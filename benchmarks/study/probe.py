"""Evaluates the images of a study's generators in detail, without training anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgan.classifier import Classifier
from condgan.data import ArrayDataset
from condgan.files import as_json, to_json
from condgan.metrics.crossfit import classifier_extractor
from condgan.metrics.diversity import diversity_report
from condgan.metrics.fidelity import kid
from condgan.runs import Pool, load_generator
from condgan.study.cells import make_cells
from condgan.study.folder import StudyFolder
from condgan.study.results import GeneratorOutcome

IMAGES = 400
"""Generated images per class."""


def fine_texture(images: Tensor) -> float:
    r"""Return the mean share of an image's variance at more than half of the highest frequency on either axis.

    Shape:
        - `images`: `(N, C, H, W)`, uint8.
    """
    spectrum = torch.fft.fft2(images.double()).abs().square()
    spectrum[..., 0, 0] = 0
    y, x = (torch.fft.fftfreq(side).abs() for side in images.shape[-2:])
    fine = (y[:, None] > 0.25) | (x > 0.25)
    return float((spectrum[..., fine].sum(-1) / spectrum.sum((-2, -1))).mean())


def probe(folder: Path, train: ArrayDataset, validation: ArrayDataset) -> list[dict[str, Any]]:
    """Return a row for each finished generator, and one for real training images; the test set is not used.

    For each class: the recall of the study's first classifier of real images (GAN-test), the KID to validation images
    in its features, the diversity beside that of real training images, and the share of fine texture.
    """
    files = StudyFolder(folder)
    cells = make_cells(files.study().config)
    name = next(cell.name for cell in cells if cell.kind == "classifier" and cell.recipe is None)
    classifier = Classifier.load(folder / "classifiers" / f"{name}.safetensors")
    extractor = classifier_extractor(classifier, name=name)
    of_validation = {k: extractor(validation.images[validation.labels == k]) for k in range(train.num_classes)}

    def row(images: ArrayDataset) -> dict[str, Any]:
        recall = classifier.evaluate(images, resamples=100).recall
        found = {}
        for label, class_name in enumerate(train.class_names):
            own = images.images[images.labels == label]
            found[class_name] = {
                "recognized": recall[label].value,
                "kid": kid(extractor(own), of_validation[label], subsets=10).value,
                "fine_texture": fine_texture(own),
            }
        return found

    rows: list[dict[str, Any]] = [{"name": "real training images", "per_class": row(train)}]
    y = torch.arange(IMAGES * train.num_classes) % train.num_classes
    for cell in cells:
        outcome = files.read(cell.name) if cell.kind == "gan" and files.is_finished(cell.name) else None
        if not isinstance(outcome, GeneratorOutcome):
            continue
        generator = load_generator(files.gan(cell))
        images = Pool(generator, y, seed=7, class_names=train.class_names, source=cell.name).first(len(y))
        diversity = diversity_report(images, train).per_class
        per_class = {name: values | {"diversity": to_json(diversity[name])} for name, values in row(images).items()}
        rows.append({"name": cell.name, "images": len(y), "kept": to_json(outcome.kept), "per_class": per_class})
    probed: list[dict[str, Any]] = as_json(rows)
    return probed
