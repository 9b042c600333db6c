"""How long the evaluation of generated images takes. Run as `python benchmarks/judging --help`.

Fidelity in the features of the cross-fitted extractor, diversity and memorization, of 5 000 images at 64 pixels and as
many training images: the real X-rays in `$CONDGAN_CHEST_XRAY`, or drawn phantoms. The training of the extractor is
timed separately, because it is done once per data set. The evaluated images are training images with noise: their
content does not affect the time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

import condgan as cg
from condgan.files import to_json, write_json
from condgan.metrics.crossfit import crossfit_extractor
from condgan.study.provenance import provenance

T = TypeVar("T")


def load(size: int) -> tuple[cg.data.ArrayDataset, cg.data.ArrayDataset, cg.data.ArrayDataset]:
    """Return training, held-out and test images of different patients."""
    folder = os.environ.get("CONDGAN_CHEST_XRAY")
    shape = (1, size, size)
    if folder:
        whole = cg.data.Kermany(folder, split="train", image_shape=shape, patients="development")
        test: cg.data.ArrayDataset = cg.data.Kermany(folder, split="test", image_shape=shape)
    else:
        whole = cg.data.ChestPhantom((1500, 4000), classes=2, image_shape=shape)
        test = cg.data.ChestPhantom((234, 390), classes=2, image_shape=shape, seed=1)
    train, held_out = whole.split(0.15, seed=0)
    return train, held_out, test


def make_generated(train: cg.data.ArrayDataset, count: int) -> cg.data.ArrayDataset:
    """Return this many images to evaluate."""
    rng = torch.Generator().manual_seed(0)
    index = torch.randint(len(train), (count,), generator=rng)
    noise = torch.randint(-12, 13, (count, *train.image_shape), generator=rng)
    images = (train.images[index].int() + noise).clamp(0, 255).to(torch.uint8)
    return cg.data.ArrayDataset(images, train.labels[index], class_names=train.class_names)


def timed(seconds: dict[str, float], name: str, run: Callable[[], T]) -> T:
    """Run, and record the seconds."""
    began = time.perf_counter()
    result = run()
    seconds[name] = round(time.perf_counter() - began, 2)
    print(f"{name:22} {seconds[name]:7.2f} s", flush=True)
    return result


def main() -> None:
    """Time the parts and write the result as JSON."""
    parser = argparse.ArgumentParser(prog="python benchmarks/judging", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--extractor-epochs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()

    origin = to_json(provenance(given.device))
    train, held_out, test = load(given.image_size)
    generated = make_generated(train, given.count)
    seconds: dict[str, float] = {}
    extractor = timed(
        seconds,
        "extractor's training",
        lambda: crossfit_extractor(train, epochs=given.extractor_epochs, device=given.device),
    )
    timed(seconds, "fidelity", lambda: cg.metrics.fidelity_report(generated, train, test, extractor))
    timed(seconds, "diversity", lambda: cg.metrics.diversity_report(generated, train))
    timed(seconds, "memorization", lambda: cg.metrics.memorization_report(generated, train, held_out))
    judging = round(sum(seconds[name] for name in ("fidelity", "diversity", "memorization")), 2)
    print(f"{'judging':22} {judging:7.2f} s")
    result: dict[str, Any] = {
        "what": f"judging {given.count} generated images at {given.image_size} px beside {len(train)} training, "
        f"{len(held_out)} held-out and {len(test)} test images ({train.source})",
        **origin,
        "seconds": seconds,
        "judging_seconds": judging,
    }
    path = given.out / f"{torch.device(given.device).type}.json"
    write_json(path, result)
    print(path)


if __name__ == "__main__":
    main()
