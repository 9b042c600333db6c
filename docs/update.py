"""Put results into README and documentation: no figure there is written by hand.

`python docs/update.py --study FOLDER SECTION` takes the `results.json` of a study for the places between the marks
`<!-- SECTION -->` and `<!-- /SECTION -->` (in the README also `<!-- SECTION-picture -->`), and draws its pictures;
`--speed FILE` takes a result of `benchmarks/speed`, `--gpu` all of `benchmarks/gpu/results`, and `--ablation` all of
`benchmarks/ablation/results`. Sections that begin
with a size of the study (`cpu-...`) show what is in `benchmarks/study/results`; others, such as the example's, keep a
copy of their `results.json` beside their pictures.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "pages"
sys.path[:0] = [str(ROOT / folder) for folder in ("docs", "benchmarks/speed", "benchmarks/ablation")]

import gpu_page  # noqa: E402 - found through the path above
import speed_page  # noqa: E402
import study_page  # noqa: E402
import trials  # noqa: E402
from figures import draw_pictures  # noqa: E402

from condgan.study.results import Results  # noqa: E402

SIZES = ("cpu", "longer", "images-64px", "gpu-32", "gpu-64")
PUBLISHED = {"two classes": "cpu-two-classes", "three classes": "cpu-three-classes"}


def replace(path: Path, section: str, text: str) -> bool:
    """Put `text` between the marks of a section; return whether the file has these marks."""
    old = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {section} -->\n).*?(<!-- /{section} -->)", flags=re.DOTALL)
    path.write_text(pattern.sub(lambda match: f"{match[1]}{text}\n{match[2]}", old), encoding="utf-8")
    return bool(pattern.search(old))


def committed(section: str) -> Path:
    """Return the file of results that a section shows."""
    for size in SIZES:
        if section.startswith(f"{size}-"):
            return ROOT / "benchmarks/study/results" / size / section.removeprefix(f"{size}-") / "results.json"
    return PAGES / "assets" / section / "results.json"


def read(section: str) -> Results | None:
    """Return the results that a section shows, or None without any."""
    file = committed(section)
    return Results.read(file) if file.is_file() else None


def study_texts(section: str, results: Results) -> dict[tuple[Path, str], str]:
    """Return the text between the marks of a study, by file and mark."""
    pictures = {path.name for path in (PAGES / "assets" / section).glob("*.png")}
    file = committed(section)
    here = f"assets/{section}"
    if file.is_relative_to(PAGES):
        source = f"[results.json]({here}/results.json)"
    else:
        source = f"`{file.relative_to(ROOT).as_posix()}`"
    readme, page = ROOT / "README.md", PAGES / "study.md"
    return {
        (readme, section): study_page.readme_body(
            results, f"docs/pages/{here}", pictures, "[the study page](docs/pages/study.md)"
        ),
        (readme, f"{section}-picture"): study_page.sample_picture(results, f"docs/pages/{here}", pictures),
        (page, section): study_page.page_body(results, here, pictures, source),
    }


def published_text() -> str:
    """Return the table of published numbers and ours."""
    return study_page.published_table({name: read(section) for name, section in PUBLISHED.items()})


def update_study(folder: Path, section: str) -> None:
    """Draw the pictures of a study and put its results into README and pages."""
    folder, file = folder.resolve(), committed(section)
    assets = PAGES / "assets" / section
    try:
        results = Results.read(folder / "results.json")
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if file.parent not in (folder, assets):
        raise SystemExit(f"{section} shows {file.relative_to(ROOT)}: publish the results there, and name that folder.")
    if folder != assets:  # otherwise only the text is renewed
        shutil.rmtree(assets, ignore_errors=True)
        draw_pictures(results, folder, assets)
        if file.parent == assets:
            shutil.copy(folder / "results.json", file)
    found = [replace(path, mark, text) for (path, mark), text in study_texts(section, results).items()]
    if not any(found):
        raise SystemExit(f"no page has the marks <!-- {section} --> and <!-- /{section} -->")
    replace(PAGES / "study.md", "published", published_text())


def update_speed(file: Path) -> None:
    """Put the results of a benchmark of one kind of device into its page, and draw its figures."""
    results = json.loads(file.read_text(encoding="utf-8"))
    kind = file.stem
    if kind not in ("cpu", "cuda"):
        raise SystemExit(f"the page takes cpu.json and cuda.json, got {file.name}: quick results are not published.")
    assets = PAGES / "assets" / "speed" / kind
    assets.mkdir(parents=True, exist_ok=True)
    for name, draw in speed_page.pictures(results).items():
        draw(assets / f"{name}.png")
    replace(PAGES / "speed.md", f"speed-{kind}", speed_page.body(results, f"assets/speed/{kind}"))


def gpu_text() -> str:
    """Return the text of the page on GPUs from the committed runs."""
    files = sorted((ROOT / "benchmarks/gpu/results").glob("*.json"))
    return gpu_page.body({file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files})


def ablation_text() -> str:
    """Return the table of the committed trials."""
    return trials.table(ROOT / "benchmarks/ablation/results")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", nargs=2, action="append", default=[], metavar=("FOLDER", "SECTION"))
    parser.add_argument("--speed", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--ablation", action="store_true")
    given = parser.parse_args()
    for folder, section in given.study:
        update_study(Path(folder), section)
    for file in given.speed:
        update_speed(file)
    if given.gpu:
        replace(PAGES / "gpu.md", "gpu", gpu_text())
    if given.ablation:
        replace(PAGES / "methods.md", "ablation", ablation_text())


if __name__ == "__main__":
    main()
