"""Published numbers on chest X-rays, and ours beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from page_parts import markdown_table, plain
from study_page import NOT_RUN
from study_tables import arms_of
from study_words import alone

from condgan.study.report_html import DASH, interval
from condgan.study.report_words import Results, Row


class Anchor(NamedTuple):
    """A published number."""

    source: str
    setting: str
    accuracy: str = DASH
    auroc: str = DASH


_MEDMNIST = "real images, ResNet-18 from ImageNet weights, same 624 test images, {size} px"

ANCHORS = (
    Anchor("MedMNIST+, Doerrich et al. 2025", _MEDMNIST.format(size=28), "0.831", "0.950"),
    Anchor("MedMNIST+, Doerrich et al. 2025", _MEDMNIST.format(size=64), "0.860", "0.943"),
    Anchor("MedMNIST+, Doerrich et al. 2025", _MEDMNIST.format(size=128), "0.899", "0.979"),
    Anchor("MedMNIST+, Doerrich et al. 2025", _MEDMNIST.format(size=224), "0.911", "0.980"),
    Anchor("Ayan et al. 2021", "real images, three classes, ensemble, 224 px; split not checked", "0.907"),
    Anchor("Manaf et al. 2025", "same split, real images", "0.853"),
    Anchor("Manaf et al. 2025", "same split, real images with classical augmentation", "0.861"),
    Anchor("Manaf et al. 2025", "same split, real and GAN images", "0.848"),
    Anchor("Manaf et al. 2025", "same split, real and GAN images with classical augmentation", "0.872"),
    Anchor("Peng et al. 2025", "same data, images of a general image model alone", auroc="0.824"),
    Anchor("public ACGAN notebooks", "other data (COVIDx), 112 px, real images", "0.87"),
    Anchor("public ACGAN notebooks", "other data (COVIDx), 112 px, generated images alone", "0.53 to 0.65"),
)


def published_table(studies: Mapping[str, Results | None]) -> str:
    """Return the published numbers and, by a name for readers, those of our studies as far as they were run."""
    rows: list[list[str]] = []
    for name, results in studies.items():
        rows += _ours(name, results) if results else [[f"**this study, {name}**", NOT_RUN, DASH, DASH]]
    return markdown_table(["source", "setting", "accuracy", "AUROC"], [*rows, *map(list, ANCHORS)])


def _ours(name: str, results: Results) -> list[list[str]]:
    arms, alone_arms = arms_of(results), alone(results)
    size = "x".join(map(str, results["data"]["image_shape"][1:]))
    shown = {"real images": arms.get((None, "real"))}
    shown |= {f"images of {recipe} alone": arms[arm] for recipe, arm in alone_arms.items()}
    how = f"ResNet-18 from scratch, {size} px"
    return [
        [
            f"**this study, {name}**",
            f"{plain(what)}, {how}",
            *(_score(found, metric) for metric in ("accuracy", "auroc")),
        ]
        for what, found in shown.items()
        if found
    ]


def _score(found: Mapping[str, Row], metric: str) -> str:
    return interval(found[metric]) if metric in found else DASH
