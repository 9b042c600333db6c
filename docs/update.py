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
sys.path.insert(0, str(ROOT / "examples" / "chest_xray"))

from report import findings, how, markdown_table, table_of_arms  # noqa: E402 - found through the path above


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
    """Take the ratios of a benchmark."""
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    head = ["networks", "batch", "precision", "condgan, s", "tutorial, s", "ratio"]
    rows = [
        [
            row["networks"],
            str(row["batch_size"]),
            row["precision"],
            f"{row['seconds']['condgan']:.3f}",
            f"{row['seconds']['tutorial']:.3f}",
            f"**{row['ratio']:.2f}**",
        ]
        for row in results["rows"]
    ]
    first = results["rows"][0]
    note = (
        f"Measured: {results['what']}; {first['image_size']} px, {first['base_channels']} base channels, medians of "
        f"{first['rounds']} alternated rounds. {results['device']}, torch {results['versions']['torch']}, commit "
        f"{results['commit']}. Small ratios are good."
    )
    kind = file.stem.split("_")[0]
    replace(PAGES / "speed.md", f"iteration-{kind}", f"{markdown_table(head, rows)}\n\n{note}")


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
