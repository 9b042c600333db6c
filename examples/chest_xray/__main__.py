"""Train three conditional GANs on chest X-rays, and a classifier on the images of each. Run with --help."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from presets import PRESETS
from source import load

import condgan as cg
from condgan.study import Study, write_report
from condgan.study.report.words import answer_words, question_words

RUNS = Path("runs")
SETTINGS = ("classes", "recipes", "preset", "image_size", "steps", "seed")
"""Options that the results depend on, beside the data."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python examples/chest_xray",
        description="Train conditional GANs on chest X-rays, train a ResNet-18 on their images and on real ones, test "
        "it on real ones, evaluate the images, and write a report. For research only.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--data",
        default="auto",
        help="a folder with the official splits of Kermany et al., a MedMNIST .npz file, phantom, or auto: "
        "$CONDGAN_CHEST_XRAY or data/chest_xray if there, else PneumoniaMNIST, else phantoms",
    )
    parser.add_argument("--classes", type=int, choices=(2, 3), default=2, help="2, or 3 with bacterial and viral")
    parser.add_argument(
        "--recipes", default="small_data,acgan,acwgan_gp", help="names of condgan.recipes, separated by commas"
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="quick", help="how much is computed")
    parser.add_argument("--image-size", type=int, help="pixels, in place of the preset's")
    parser.add_argument("--steps", type=int, help="generator updates of every recipe, in place of the preset's")
    parser.add_argument("--seed", type=int, default=0, help="first seed of everything")
    parser.add_argument("--out", type=Path, help="folder of the results; by default a new one in runs/")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out, or the newest run")
    parser.add_argument("--device", help="cpu, cuda or mps; by default the fastest there is")
    parser.add_argument("--no-real-images", action="store_true", help="show no real image, so that it can be shared")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.recipes.split(",") if name not in cg.recipes.CONDITIONAL]
    if unknown:
        parser.error(f"--recipes must be among {', '.join(cg.recipes.CONDITIONAL)}, got {', '.join(unknown)}")
    return given


def run(given: argparse.Namespace) -> Path:
    """Run the study, or what is left of it, and return the folder of its results.

    Raises:
        ValueError: If the folder holds a run with other settings or data, or an option does not fit the data.
        FileNotFoundError: If the data are missing.
    """
    folder = choose_folder(given)
    preset = PRESETS[given.preset]
    config = preset.config(given.recipes.split(","), image_size=given.image_size, steps=given.steps, seed=given.seed)
    source = load(
        given.data, classes=given.classes, image_size=config.image_shape[1], seed=given.seed, phantoms=preset.phantoms
    )
    banner(source.notice)
    print(f"results go to {folder}")
    study = Study(
        config,
        source.train,
        source.validation,
        source.test,
        folder,
        device=given.device,
        real_images=not given.no_real_images,
        progress=lambda line: print(line, flush=True),
        command=command(given),
        notice=source.notice,
        notes=source.notes,
    )
    try:
        study.run()
    finally:  # an interrupted run gets a report too
        results = study.results()
        report = write_report(results, folder, real_images=not given.no_real_images)
    for verdict in results.verdicts:
        print(f"- {question_words(verdict)} {answer_words(verdict)}")
    banner(f"{source.notice} The report is {report}")
    return folder


def choose_folder(given: argparse.Namespace) -> Path:
    """Return the folder of the run: a new one, or with `--resume` the one to continue."""
    if given.resume:
        folder = given.out or max(RUNS.glob("chest_xray-*"), key=lambda path: path.stat().st_mtime, default=None)
        if folder is None or not (folder / "config.json").is_file():
            raise SystemExit(f"there is no run to resume in {folder or RUNS}: leave out --resume to start one.")
        return Path(folder)
    folder = given.out or RUNS / f"chest_xray-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty: add --resume to continue it, or choose another --out.")
    return Path(folder)


def command(given: argparse.Namespace) -> str:
    """Return the command that gives the same results; of the path of the data it has only the last part."""
    data = Path(given.data).name if Path(given.data).exists() else given.data
    words = ["python examples/chest_xray", f"--data {data}"]
    for name in SETTINGS:
        if getattr(given, name) is not None:
            words.append(f"--{name.replace('_', '-')} {getattr(given, name)}")
    return " ".join(words)


def banner(text: str) -> None:
    """Print text between two rules."""
    rule = "=" * min(100, len(text))
    print(f"\n{rule}\n{text}\n{rule}\n", flush=True)


if __name__ == "__main__":
    try:
        run(parse())
    except (ValueError, FileNotFoundError) as error:  # wrong data, seeds or sizes
        raise SystemExit(f"error: {error}") from error
