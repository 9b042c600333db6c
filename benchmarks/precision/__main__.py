"""Whether training in bf16 goes as training in float32 does. Run as `python benchmarks/precision --help`.

An ACWGAN-GP is trained with several seeds in each precision, on drawn chest phantoms or, where `$CONDGAN_CHEST_XRAY`
names them, on real X-rays. Each loss is averaged over the last quarter of a run; reported is the difference of the
precisions' means over seeds in standard errors of that difference.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

import condgan as cg
from condgan.files import to_json, write_json
from condgan.study.provenance import provenance

METRICS = (
    "critic/adversarial",
    "critic/auxiliary_classifier",
    "critic/gradient_penalty",
    "generator/adversarial",
    "generator/auxiliary_classifier",
)
SIZE = 32


class Record(cg.Callback):
    """Keeps the losses of every tenth step."""

    def __init__(self) -> None:
        super().__init__(every=10)
        self.rows: list[dict[str, float]] = []

    def on_step_end(self, trainer: cg.Trainer) -> None:
        """Read the losses."""
        values = trainer.read_metrics()
        self.rows.append({"step": trainer.state.step, **{name: values[name] for name in METRICS}})


def load_data() -> cg.data.ArrayDataset:
    """Return the official training images if they are there, else phantoms."""
    folder = os.environ.get("CONDGAN_CHEST_XRAY")
    if folder:
        return cg.data.Kermany(folder, split="train", image_shape=(1, SIZE, SIZE), patients="development")
    return cg.data.ChestPhantom((1500, 1500), classes=2, image_shape=(1, SIZE, SIZE))


def train(precision: str, seed: int, steps: int, device: str) -> dict[str, Any]:
    """Train once and return the averages of the last quarter and the curve."""
    torch.set_num_threads(1)
    data = load_data()
    shape: dict[str, Any] = {"num_classes": data.num_classes, "image_shape": data.image_shape, "base_channels": 32}
    cg.seed_everything(seed)
    record = Record()
    trainer = cg.recipes.acwgan_gp_2017(
        data,
        generator=cg.DCGANGenerator(conditioning="batch_norm", **shape),
        critic=cg.ACDCGANCritic(**shape),
        precision=precision,
        device=device,
        seed=seed,
        callbacks=[record],
    )
    began = time.perf_counter()
    trainer.fit(data, steps=steps, batch_size=32, progress=False)
    late = [row for row in record.rows if row["step"] > 0.75 * steps]
    return {
        "precision": precision,
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 1),
        "data": data.source,
        "late_means": {name: statistics.fmean(row[name] for row in late) for name in METRICS},
        "curve": {name: [round(row[name], 4) for row in record.rows[4::5]] for name in ("step", *METRICS)},
    }


def compare(cells: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return, for each loss, both means over seeds and their difference in standard errors."""
    out = {}
    for name in METRICS:
        by_precision = {
            precision: [cell["late_means"][name] for cell in cells if cell["precision"] == precision]
            for precision in ("fp32", "bf16")
        }
        means = {precision: statistics.fmean(values) for precision, values in by_precision.items()}
        error = math.sqrt(sum(statistics.variance(values) / len(values) for values in by_precision.values()))
        difference = means["bf16"] - means["fp32"]
        out[name] = {**means, "standard_error": error, "difference_in_standard_errors": difference / error}
    return out


def main() -> None:
    """Train all runs and write the comparison as JSON."""
    parser = argparse.ArgumentParser(prog="python benchmarks/precision", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, at least 2")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()

    origin = to_json(provenance(given.device))  # that of the code that runs, whatever changes meanwhile
    with ProcessPoolExecutor(given.jobs) as pool:
        futures = [
            pool.submit(train, precision, seed, given.steps, given.device)
            for seed in range(given.seeds)
            for precision in ("fp32", "bf16")
        ]
        cells = [future.result() for future in futures]
    comparison = compare(cells)
    for name, row in comparison.items():
        print(
            f"{name:31} fp32 {row['fp32']:8.4f}  bf16 {row['bf16']:8.4f}  "
            f"difference {row['difference_in_standard_errors']:+.2f} standard errors"
        )
    result = {
        "what": f"ACWGAN-GP, DCGAN networks of 32 base channels, {SIZE} px, batch 32, {given.steps} steps; "
        "means over the last quarter of the steps",
        **origin,
        "comparison": comparison,
        "cells": cells,
    }
    path = given.out / f"{torch.device(given.device).type}.json"
    write_json(path, result)
    print(path)


if __name__ == "__main__":
    main()
