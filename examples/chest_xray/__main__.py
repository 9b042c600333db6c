"""Train an ACGAN and an ACWGAN on chest X-rays, and a classifier on the images of each. Run with --help."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import Options, run
from presets import PRESETS

import condgan as cg


def parse() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python examples/chest_xray",
        description="Train conditional GANs on chest X-rays, train a ResNet-18 on the images of each, test it on real "
        "ones, and write a report. For research only.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--data",
        default="auto",
        help="a folder with the official splits of Kermany et al., a MedMNIST .npz file, phantom, or auto: "
        "$CONDGAN_CHEST_XRAY or data/chest_xray if there, else PneumoniaMNIST, else phantoms",
    )
    parser.add_argument("--classes", type=int, choices=(2, 3), default=2, help="2, or 3 with bacterial and viral")
    parser.add_argument("--recipes", default="acgan,acwgan_gp", help="names of condgan.recipes, with commas between")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="quick", help="how much is computed")
    parser.add_argument("--image-size", type=int, help="pixels, in place of the preset's")
    parser.add_argument("--steps", type=int, help="generator updates of every recipe, in place of the preset's")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything")
    parser.add_argument("--out", type=Path, help="folder of the results; by default a new one in runs/")
    parser.add_argument("--resume", action="store_true", help="go on with --out, or with the newest run")
    parser.add_argument("--device", help="cpu, cuda or mps; by default the fastest at hand")
    parser.add_argument("--no-real-images", action="store_true", help="show no real image, so that it can be shared")
    given = parser.parse_args()
    recipes = tuple(given.recipes.split(","))
    unknown = [name for name in recipes if name not in cg.recipes.CONDITIONAL]
    if unknown:
        parser.error(f"--recipes must be among {', '.join(cg.recipes.CONDITIONAL)}, got {', '.join(unknown)}")
    return Options(
        data=given.data,
        classes=given.classes,
        recipes=recipes,
        preset=given.preset,
        image_size=given.image_size,
        steps=given.steps,
        seed=given.seed,
        out=given.out,
        resume=given.resume,
        device=given.device,
        real_images=not given.no_real_images,
    )


if __name__ == "__main__":
    run(parse())
