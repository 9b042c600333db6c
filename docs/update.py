"""Put the results of a run into README and documentation: no figure there is written by hand.

`python docs/update.py --run FOLDER` takes a run of `examples/chest_xray`, `--speed FILE` one of `benchmarks/speed`.
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


def replace(path: Path, name: str, text: str) -> None:
    """Put `text` between the marks `<!-- name -->` and `<!-- /name -->` of a Markdown file."""
    old = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", flags=re.DOTALL)
    if not pattern.search(old):
        raise SystemExit(f"{path} lacks the marks <!-- {name} --> and <!-- /{name} -->")
    path.write_text(pattern.sub(lambda match: f"{match[1]}{text}\n{match[2]}", old), encoding="utf-8")


def update_study(folder: Path) -> None:
    """Take tables, findings and figures from a run."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    classes = len(results["data"]["class_names"])
    assets = PAGES / "assets" / f"study-{classes}"
    assets.mkdir(parents=True, exist_ok=True)
    pictures = ["comparison.png", *[f"{name}_samples.png" for name in results["gans"]]]
    for picture in pictures:
        shutil.copy(folder / picture, assets / picture)

    def shown(prefix: str) -> str:
        lines = [
            f"![{Path(picture).stem.replace('_', ' ')}]({prefix}study-{classes}/{picture})" for picture in pictures
        ]
        return "\n\n".join(lines)

    facts = "\n".join(f"- {sentence}" for sentence in findings(results))
    pages = {PAGES / "study.md": "assets/"}
    if classes == 2:
        pages[ROOT / "README.md"] = "docs/pages/assets/"
    for path, prefix in pages.items():
        body = f"{table_of_arms(results)}\n\n{facts}\n\n{shown(prefix)}\n\n{how(results)}"
        replace(path, f"results-{classes}", body)


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
        f"{results['what'].capitalize()}; {first['image_size']} px, {first['base_channels']} base channels, medians of "
        f"{first['rounds']} alternated rounds. {results['device']}, torch {results['versions']['torch']}, commit "
        f"{results['commit']}. Small ratios are good."
    )
    kind = file.stem.split("_")[0]
    replace(PAGES / "speed.md", f"results-{kind}", f"{markdown_table(head, rows)}\n\n{note}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, action="append", default=[], help="folder of a run")
    parser.add_argument("--speed", type=Path, action="append", default=[], help="JSON file of a benchmark")
    given = parser.parse_args()
    for folder in given.run:
        update_study(folder)
    for file in given.speed:
        update_speed(file)


if __name__ == "__main__":
    main()
