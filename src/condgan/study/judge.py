"""Everything that is asked of the images of one generator: fidelity, diversity, memorization, recognizability."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from condgan.data.dataset import ArrayDataset
from condgan.metrics.diversity import diversity_report
from condgan.metrics.features import CrossFit, Extractor
from condgan.metrics.fidelity_report import fidelity_report
from condgan.metrics.memorization import memorization_report
from condgan.metrics.neighbors import neighbor_grid
from condgan.metrics.pretrained import clip, dinov2, inception
from condgan.study.classifier import Classifier
from condgan.study.extractor import crossfit_extractor
from condgan.study.generators import save_picture
from condgan.study.network import Precision, build_network

PRETRAINED: dict[str, Callable[..., Extractor]] = {"inception": inception, "dinov2": dinov2, "clip": clip}


def make_extractor(
    name: str,
    train: ArrayDataset,
    *,
    precision: Precision = "bf16",
    device: torch.device | str | None = None,
    seed: int = 0,
) -> Extractor | CrossFit:
    """Make the extractor of a study by its name.

    Args:
        name: `"in_domain"`, or the name of a pre-trained network, whose weights must be at hand.
        train: Real training images, which the extractor of the domain is trained on.
        precision: Precision of its training.
        device: Where to compute.
        seed: Seed of its training.

    Raises:
        FileNotFoundError: If weights are not at hand; the message says where they come from.
        ValueError: If the training images are too few.
    """
    if name in PRETRAINED:
        return PRETRAINED[name](device=device)
    return crossfit_extractor(train, precision=precision, device=device, seed=seed)


def judge_images(
    generated: ArrayDataset,
    train: ArrayDataset,
    held_out: ArrayDataset,
    test: ArrayDataset,
    extractor: Extractor | CrossFit,
    *,
    neighbors: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge the images of a generator.

    Fidelity is measured in the features of the extractor; diversity and memorization too if it has not seen the
    training images, else on pixels, because an extractor knows what it was trained on.

    Args:
        generated: Generated images with the labels that they were asked for.
        train: The real images that the generator was trained on.
        held_out: Real images of other patients from the same source.
        test: Real images to compare with.
        extractor: Network of the features.
        neighbors: File for a picture of the generated images that are most suspicious of being copies, each beside
            its nearest training images.
        seed: Seed of everything random.

    Returns:
        `fidelity`, `diversity` and `memorization`, ready for JSON. Where the data allow no answer it is None, and
        `refused` says why, by its name.
    """
    unseen = extractor if isinstance(extractor, Extractor) else None

    def memorization() -> dict[str, Any]:
        report = memorization_report(generated, train, held_out, unseen, seed=seed)
        if neighbors is not None:
            save_picture(neighbor_grid(generated.images, train.images, report.neighbors), neighbors)
        return report.as_dict()

    reports: dict[str, Callable[[], dict[str, Any]]] = {
        "fidelity": lambda: fidelity_report(generated, train, test, extractor, seed=seed).as_dict(),
        "diversity": lambda: diversity_report(generated, train, unseen, seed=seed).as_dict(),
        "memorization": memorization,
    }
    found: dict[str, Any] = {}
    refused = {}
    for name, report in reports.items():
        try:
            found[name] = report()
        except ValueError as error:  # too few images or patients: an answer too
            found[name], refused[name] = None, str(error)
    return {**found, "refused": refused}


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Save the weights of a classifier; all else is in the outcome of its cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.cpu().contiguous() for name, value in classifier.model.state_dict().items()}, path)


def load_classifier(path: Path, outcome: dict[str, Any], *, device: torch.device | str = "cpu") -> Classifier:
    """Load a classifier from its weights and the outcome of its cell."""
    settings = outcome["classifier"]
    model = build_network(tuple(settings["image_shape"]), len(settings["class_names"]), seed=0)
    model.load_state_dict(load_file(path))
    return Classifier(
        model=model.to(device).eval(),
        class_names=tuple(settings["class_names"]),
        image_shape=tuple(settings["image_shape"]),
        threshold=settings["threshold"],
        history=tuple(outcome["history"]),
        settings=settings,
        seconds=outcome["seconds"],
    )
