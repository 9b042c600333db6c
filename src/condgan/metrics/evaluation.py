"""Labels, fidelity, diversity and memorization of the images of one generator, in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch

from condgan.classifier.network import Precision
from condgan.data.dataset import ArrayDataset, check_same_classes
from condgan.devices import plain_defaults
from condgan.files import as_path, check_names
from condgan.images import save_picture, to_uint8
from condgan.metrics.crossfit import crossfit_extractor
from condgan.metrics.diversity import DiversityReport, diversity_report
from condgan.metrics.extractors import CrossFit, Extractor, clip, dinov2, inception
from condgan.metrics.fidelity_report import FidelityReport, fidelity_report
from condgan.metrics.labels import LabelReport, label_report
from condgan.metrics.memorization import MemorizationReport, memorization_report
from condgan.metrics.neighbors import find_duplicates, neighbor_grid
from condgan.networks.base import Generator
from condgan.sampling import sample

PRETRAINED: dict[str, Callable[..., Extractor]] = {"inception": inception, "dinov2": dinov2, "clip": clip}
ExtractorName = Literal["in_domain", "inception", "dinov2", "clip"]
EXTRACTOR_NAMES: tuple[str, ...] = get_args(ExtractorName)
_AT_ONCE = 256

Report = TypeVar("Report")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Labels, fidelity, diversity and memorization of the images of a generator, see `evaluate`.

    `condgan.files.to_json` and `from_json` write and read it.

    Args:
        labels: Whether classifiers of real images recognize their classes.
        fidelity: How similar they are to real test images, compared with real training images.
        diversity: How different they are from each other, compared with real images.
        memorization: Whether they copy training images or reveal training patients.
        refusals: Why a part is None, by the name of the part.
    """

    labels: LabelReport | None
    fidelity: FidelityReport | None
    diversity: DiversityReport | None
    memorization: MemorizationReport | None
    refusals: dict[str, str]


@plain_defaults()
def evaluate(
    generator: Generator | ArrayDataset,
    data: ArrayDataset,
    *,
    test: ArrayDataset,
    held_out: ArrayDataset | None = None,
    extractor: Extractor | CrossFit | ExtractorName = "in_domain",
    neighbors: str | Path | None = None,
    precision: Precision = "bf16",
    device: torch.device | str | None = None,
    seed: int = 0,
) -> Evaluation:
    """Measure labels, fidelity, diversity and memorization of the images of a generator.

    As many images of each class are generated as there are training images. Whether their classes are recognized is
    judged by the networks of the extractor `"in_domain"`, which are classifiers of the training images. Fidelity is
    measured on the features of the extractor; diversity and memorization too if it has not seen the training images,
    else on pixels, because features of images that a network was trained on are not comparable with those of others.

    A part that cannot be computed from these data is None, and `refusals` says why.

    Args:
        generator: A conditional generator, or its images with the labels that they were generated for.
        data: The real images that it was trained on.
        test: Real images of other patients to compare with, none of them a training image.
        held_out: Real images of patients from the source of `data` that it was not trained on. Without them,
            memorization is not measured, because without them a copy cannot be distinguished from a typical image. Pass
            the test images if they are from the same source.
        extractor: Network of the features: `"in_domain"` trains a ResNet-18 on `data`, cross-fitted by patient (see
            `crossfit_extractor`); `"inception"`, `"dinov2"` and `"clip"` are pretrained networks, whose weights must be
            on disk; or an extractor.
        neighbors: File for an image of the generated images that are most suspicious of being copies, each beside its
            nearest training images.
        precision: Precision in which an extractor is trained.
        device: Where an extractor is trained and applied. By default CUDA, then MPS, then the CPU.
        seed: Seed of all random draws.

    Raises:
        FileNotFoundError: If weights of a pretrained network are missing; the message says where to get them.
        ValueError: If the generator does not fit the data, at least half of the test images are training images, the
            extractor is unknown, or there are too few images to train one.

    Examples:
        ```python
        generator = condgan.runs.load_generator("runs/acgan")
        found = condgan.metrics.evaluate(generator, train, test=test, held_out=held_out)
        found.labels.per_class["ill"].verdict          # LabelVerdict.RECOGNIZED
        found.fidelity.overall["kid"].difference       # Estimate(value=..., low=..., high=..., level=0.95)
        found.memorization.per_class["ill"].verdict    # MemorizationVerdict.NO_SIGN
        condgan.files.to_json(found)                   # plain values, ready for json.dump
        ```
    """
    check_unseen(test, data)
    generated = _draw(generator, data, seed) if isinstance(generator, Generator) else generator
    network = (
        make_extractor(extractor, data, precision=precision, device=device, seed=seed)
        if isinstance(extractor, str)
        else extractor
    )
    unseen = network if isinstance(network, Extractor) else None
    refusals: dict[str, str] = {}

    def attempt(part: str, report: Callable[[], Report]) -> Report | None:
        try:
            return report()
        except ValueError as error:  # too few images or patients
            refusals[part] = str(error)
            return None

    def labels() -> LabelReport:
        if not isinstance(network, CrossFit):
            raise ValueError(
                f"labels need classifiers of the real images, got the extractor {network.info.name!r}. Evaluate with "
                "the extractor 'in_domain'."
            )
        return label_report(generated, test, network, seed=seed)

    def memorization() -> MemorizationReport:
        if held_out is None:
            raise ValueError(
                "memorization needs held_out=, real images that the generator was not trained on, got None."
            )
        report = memorization_report(generated, data, held_out, unseen, seed=seed)
        if neighbors is not None:
            save_picture(neighbor_grid(generated.images, data.images, report.neighbors), as_path(neighbors))
        return report

    return Evaluation(
        labels=attempt("labels", labels),
        fidelity=attempt("fidelity", lambda: fidelity_report(generated, data, test, network, seed=seed)),
        diversity=attempt("diversity", lambda: diversity_report(generated, data, unseen, seed=seed)),
        memorization=attempt("memorization", memorization),
        refusals=refusals,
    )


def check_unseen(test: ArrayDataset, train: ArrayDataset) -> None:
    """Check that test images are not the training images; a few of them among the test images are warned of.

    Images are compared bit by bit, wherever they come from.

    Raises:
        ValueError: If at least half of the test images are training images, or the shapes differ.
    """
    check_same_classes("test", test, "the training images", train.class_names, train.image_shape)
    original = find_duplicates(torch.cat([train.images.cpu(), test.images.cpu()]), tolerance=0.0).original
    count = int((original[len(train) :] < len(train)).sum())
    found = f"{count} of {len(test)} test images are training images, bit by bit"
    if count >= len(test) / 2:
        raise ValueError(
            f"test images must be others than those that the generator was trained on, but {found}. Pass images that "
            "were held out from the start."
        )
    if count:
        warnings.warn(
            f"{found}. Copies of them count as realistic images: leave these images out of one of the two.",
            stacklevel=4,  # the caller of evaluate
        )


def make_extractor(
    name: str,
    train: ArrayDataset,
    *,
    precision: Precision = "bf16",
    device: torch.device | str | None = None,
    seed: int = 0,
) -> Extractor | CrossFit:
    """Make an extractor by its name.

    Args:
        name: `"in_domain"`, or the name of a pretrained network, whose weights must be on disk.
        train: Real training images, which an extractor `"in_domain"` is trained on.
        precision: Precision of its training.
        device: Where to compute. By default CUDA, then MPS, then the CPU.
        seed: Seed of its training.

    Raises:
        FileNotFoundError: If weights are missing; the message says where to get them.
        ValueError: If the name is unknown or the training images are too few.
    """
    check_names("extractor", [name], EXTRACTOR_NAMES)
    if name in PRETRAINED:
        return PRETRAINED[name](device=device)
    return crossfit_extractor(train, precision=precision, device=device, seed=seed)


def _draw(generator: Generator, data: ArrayDataset, seed: int) -> ArrayDataset:
    """Generate as many images of each class as there are in a data set."""
    if generator.num_classes != data.num_classes or tuple(generator.image_shape) != tuple(data.image_shape):
        raise ValueError(
            f"the generator must make images of {data.num_classes} classes and the shape {tuple(data.image_shape)}, "
            f"as the data have, got {generator.num_classes} and {tuple(generator.image_shape)}. Pass the data that "
            "it was trained on."
        )
    rng = torch.Generator(next(generator.parameters()).device).manual_seed(seed)
    y = torch.arange(data.num_classes).repeat_interleave(torch.tensor(data.class_counts))
    parts = [to_uint8(sample(generator, labels, rng=rng)).cpu() for labels in y.split(_AT_ONCE)]
    return ArrayDataset(torch.cat(parts), y, class_names=data.class_names, source="generated images")
