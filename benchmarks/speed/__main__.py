"""How long a training step takes beside a plain tutorial loop. Run as `python benchmarks/speed --help`."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tutorial import TutorialLoop

import condgan as cg

NETWORKS: dict[str, tuple[type[cg.Generator], type[cg.Critic]]] = {
    "dcgan": (cg.DCGANGenerator, cg.ACDCGANCritic),
    "resnet": (cg.ResNetGenerator, cg.ACResNetCritic),
}
CRITIC_STEPS = 5


def make_networks(kind: str, size: int, base: int) -> tuple[cg.Generator, cg.Critic]:
    """Return a generator and a critic of two classes, equal for equal arguments."""
    make_generator, make_critic = NETWORKS[kind]
    options: dict[str, Any] = {"num_classes": 2, "image_shape": (1, size, size), "base_channels": base}
    torch.manual_seed(0)
    return make_generator(conditioning="batch_norm", **options), make_critic(**options)


def make_ours(kind: str, size: int, base: int, batch: int, precision: str, device: str) -> Callable[[], object]:
    """Return a function that does one iteration with the library."""
    data = make_data(size)
    trainer = cg.recipes.acwgan_gp(
        data,
        **dict(zip(("generator", "critic"), make_networks(kind, size, base), strict=True)),
        schedule="constant",
        precision=precision,
        device=device,
    )
    trainer.fit(data, steps=1, batch_size=batch)

    def iterate() -> None:
        trainer.fit(data, steps=trainer.state.step + 1, batch_size=batch)

    return iterate


def make_tutorial(kind: str, size: int, base: int, batch: int, precision: str, device: str) -> Callable[[], object]:
    """Return a function that does one iteration of the tutorial loop."""
    generator, critic = make_networks(kind, size, base)
    loop = TutorialLoop(generator, critic, make_data(size), batch_size=batch, critic_steps=CRITIC_STEPS, device=device)

    def iterate() -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            loop.iterate()

    return iterate


def make_data(size: int) -> cg.data.ArrayDataset:
    """Return random images: speed does not depend on what they show."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (1024, 1, size, size), dtype=torch.uint8, generator=rng)
    return cg.data.ArrayDataset(images, torch.arange(1024) % 2)


def alternate(
    runs: dict[str, Callable[[], object]], *, rounds: int, warmup: int, device: str
) -> dict[str, list[float]]:
    """Time the runs in turn, so that a change of the machine's speed meets all of them."""
    synchronize = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(warmup + rounds):
        for name, iterate in runs.items():
            synchronize()
            began = time.perf_counter()
            iterate()
            synchronize()
            if i >= warmup:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def measure(kind: str, size: int, base: int, batch: int, precision: str, device: str, rounds: int) -> dict[str, Any]:
    """Return medians, quartiles and the median of the ratios of neighbouring runs."""
    arguments = (kind, size, base, batch, precision, device)
    seconds = alternate(
        {"condgan": make_ours(*arguments), "tutorial": make_tutorial(*arguments)},
        rounds=rounds,
        warmup=2,
        device=device,
    )
    ratios = [a / b for a, b in zip(seconds["condgan"], seconds["tutorial"], strict=True)]
    return {
        "networks": kind,
        "image_size": size,
        "base_channels": base,
        "batch_size": batch,
        "precision": precision,
        "rounds": rounds,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "quartiles": {name: statistics.quantiles(values, n=4)[::2] for name, values in seconds.items()},
        "images_per_second": {name: CRITIC_STEPS * batch / statistics.median(v) for name, v in seconds.items()},
        "ratio": statistics.median(ratios),
    }


def main() -> None:
    """Measure what the command line asks for and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python benchmarks/speed", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--networks", default="dcgan,resnet")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--base-channels", type=int, default=32)
    parser.add_argument("--batch-sizes", default="16")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()

    rows = []
    for kind in given.networks.split(","):
        for batch in map(int, given.batch_sizes.split(",")):
            for precision in given.precisions.split(","):
                row = measure(kind, given.image_size, given.base_channels, batch, precision, given.device, given.rounds)
                rows.append(row)
                print(f"{kind:7} batch {batch:3} {precision}: {row['ratio']:.2f} of the tutorial loop", flush=True)
    cuda = given.device.startswith("cuda")
    here = Path(__file__).parent
    described = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    result = {
        "what": "full ACWGAN-GP iteration: 5 critic steps and 1 generator step, draws and optimizers included",
        "device": torch.cuda.get_device_name()
        if cuda
        else f"CPU, {torch.get_num_threads()} threads, {platform.machine()}",
        "versions": {"condgan": cg.__version__, "python": platform.python_version(), "torch": torch.__version__},
        "commit": subprocess.run(described, cwd=here, capture_output=True, text=True, check=False).stdout.strip()
        or None,
        "ratios": {
            f"iteration_{row['networks']}_{row['precision']}_b{row['batch_size']}.tutorial": row["ratio"]
            for row in rows
        },
        "rows": rows,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{'cuda' if cuda else 'cpu'}_{given.image_size}px.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
