"""Put the results of a run into README and documentation: no figure there is written by hand.

`python docs/update.py --run FOLDER SECTION` takes a run of `examples/chest_xray` for the place between the marks
`<!-- SECTION -->` and `<!-- /SECTION -->`; `--speed FILE` a result of `benchmarks/speed`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "pages"
sys.path[:0] = [str(ROOT / folder) for folder in ("docs", "examples/chest_xray", "benchmarks/speed")]

import speed_page  # noqa: E402 - found through the path above
from report import findings, how, table_of_arms  # noqa: E402


def replace(path: Path, section: str, text: str) -> bool:
    """Put `text` between the marks of a section, and return whether the file has them."""
    old = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {section} -->\n).*?(<!-- /{section} -->)", flags=re.DOTALL)
    path.write_text(pattern.sub(lambda match: f"{match[1]}{text}\n{match[2]}", old), encoding="utf-8")
    return bool(pattern.search(old))


def study_body(results: dict[str, Any], prefix: str) -> str:
    """Return tables, findings and figures of a run; the figures lie in the folder `prefix`."""
    facts = "\n".join(f"- {sentence}" for sentence in findings(results))
    figures = "\n\n".join(f"![{Path(name).stem.replace('_', ' ')}]({prefix}/{name})" for name in pictures(results))
    return f"{table_of_arms(results)}\n\n{facts}\n\n{figures}\n\n{how(results)}"


def pictures(results: dict[str, Any]) -> list[str]:
    """Return the names of a run's figures that are shown."""
    return ["comparison.png", *[f"{name}_samples.png" for name in results["gans"]]]


def update_study(folder: Path, section: str) -> None:
    """Copy the figures of a run and show it."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assets = PAGES / "assets" / section
    assets.mkdir(parents=True, exist_ok=True)
    for name in (*pictures(results), "results.json"):
        shutil.copy(folder / name, assets / name)
    places = ((ROOT / "README.md", "docs/pages/assets"), (PAGES / "study.md", "assets"))
    found = [replace(path, section, study_body(results, f"{prefix}/{section}")) for path, prefix in places]
    if not any(found):
        raise SystemExit(f"no page has the marks <!-- {section} --> and <!-- /{section} -->")


def update_speed(file: Path) -> None:
    """Show the results of a benchmark of one kind of device, and draw its figures."""
    results = json.loads(file.read_text(encoding="utf-8"))
    kind = file.stem
    if kind not in ("cpu", "cuda"):
        raise SystemExit(f"the page takes cpu.json and cuda.json, got {file.name}: quick results are for no reader.")
    assets = PAGES / "assets" / "speed" / kind
    assets.mkdir(parents=True, exist_ok=True)
    for name, draw in speed_page.pictures(results).items():
        draw(assets / f"{name}.png")
    replace(PAGES / "speed.md", f"speed-{kind}", speed_page.body(results, f"assets/speed/{kind}"))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", nargs=2, action="append", default=[], metavar=("FOLDER", "SECTION"))
    parser.add_argument("--speed", type=Path, action="append", default=[], help="JSON file of a benchmark")
    given = parser.parse_args()
    for folder, section in given.run:
        update_study(Path(folder), section)
    for file in given.speed:
        update_speed(file)


if __name__ == "__main__":
    main()
