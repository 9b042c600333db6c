"""The report of a study as one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from condgan.files import as_path, to_json, write_whole
from condgan.metrics.diversity import MeanWithError
from condgan.metrics.memorization import MemorizationVerdict
from condgan.stats import OVERALL_METRICS
from condgan.study.report import charts, view, words
from condgan.study.report.view import GeneratorView, make_view
from condgan.study.results import Results

if TYPE_CHECKING:
    from jinja2 import Environment

RESEARCH_ONLY = "For research only. Nothing in this report may be used to diagnose or treat anybody."

REAL, SAMPLES, NEIGHBORS = "real.png", "samples.png", "neighbors.png"
"""Pictures: sheets of images, one row per class, of real images in the folder of the study and of generated ones in the
folder of their generator; and there the images most likely to be copies, each beside its nearest training images."""


def write_report(results: Results, folder: str | os.PathLike[str], *, real_images: bool = True) -> Path:
    """Write `report.html` into the folder of a study: verdicts first, then what they rest on.

    The file contains its pictures and style, loads nothing and runs no script. It says what has not been measured and
    which pictures are missing.

    Args:
        results: The results of the study.
        folder: The folder of the study, for its pictures.
        real_images: Whether to show real images. Without them the report leaves out real samples and nearest
            neighbors, and also the samples of a generator that copies its training images.

    Returns:
        The path of the file.
    """
    path = as_path(folder) / "report.html"
    page = _environment().get_template("report.html.j2")
    text = page.render(study=make_view(results), pictures=_Pictures(path.parent), real_images=real_images)
    with write_whole(path) as file:
        file.write(text.encode())
    return path


@dataclass(frozen=True, slots=True)
class _Picture:
    """A PNG: its bytes as base64, or None if it is missing, and the width in pixels to show it at."""

    name: str
    data: str | None
    width: int


@dataclass(frozen=True, slots=True)
class _Pictures:
    """The pictures in the folder of a study."""

    folder: Path

    def real(self) -> _Picture:
        return self._read(self.folder / REAL, 560)

    def samples(self, generator: GeneratorView) -> _Picture:
        return self._read(self.folder / "gans" / generator.record.name / SAMPLES, 560)

    def neighbors(self, generator: str) -> _Picture:
        return self._read(self.folder / "gans" / generator / NEIGHBORS, 280)

    def _read(self, path: Path, width: int) -> _Picture:
        name = f"{path.parent.name}/{path.name}"
        if not path.is_file():
            return _Picture(name, None, 0)
        with Image.open(path) as picture:
            own_width = picture.width
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        # a whole factor keeps pixels square
        return _Picture(name, data, own_width * max(1, round(width / own_width)))


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters()
    environment.tests["figure"] = words.is_figure
    environment.globals |= {
        "css": Markup((here / "report.css").read_text(encoding="utf-8")),
        "dash": words.DASH,
        "grounds": view.grounds,
        "memorization_words": words.MEMORIZATION_WORDS,
        "number": words.number,
        "overall_metrics": tuple(name for name in words.METRIC_NAMES if name in OVERALL_METRICS),
        "research_only": RESEARCH_ONLY,
        "side_name": words.side_name,
        "significant": words.significant,
    }
    return environment


def filters() -> dict[str, Callable[..., object]]:
    """Return the functions that turn values of a view into text, for templates."""
    return {
        "arm_name": words.arm_name,
        "as_json": lambda record: json.dumps(to_json(record), indent=1, ensure_ascii=False),
        "badness": _badness,
        "call": _call,
        "interval": words.interval,
        "metric_name": words.metric_name,
        "number": words.number,
        "p_value": words.p_value,
        "plural": words.plural,
        "seeds": view.seeds_of,
        "series_style": charts.series_style,
        "significant": words.significant,
        "with_error": _with_error,
    }


def _call(argument: object, function: Callable[[object], object]) -> object:
    return function(argument)


def _with_error(found: MeanWithError) -> str:
    return f"{words.significant(found.value)} ± {words.significant(found.standard_error)}"


def _badness(verdict: MemorizationVerdict) -> bool | None:
    """Return whether a verdict is bad; None where it is open."""
    return None if verdict is MemorizationVerdict.CANNOT_TELL else verdict is not MemorizationVerdict.NO_SIGN
