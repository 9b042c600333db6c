"""The first run on a machine: its rates, the tests on CUDA, and the speed of training."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import mps
from parts import Part, run_parts
from work import Task, append

PARTS = (
    Part("machine", "machine", 20),
    # if cuDNN hangs in a convolution of PyTorch, it costs this part alone
    Part("layers", "layers", 24),
    Part("penalty", "penalty", 30),
    Part("tests", "cuda_tests", 60),
    *(
        Part(f"iterations-{name}", "iterations", share, {"config": name})
        for name, share in {"dcgan-64": 25, "dcgan-32": 18, "resnet-32": 20, "resnet-64": 28}.items()
    ),
    Part("kernels", "kernels", 18),
    Part("one-process", "several", 18, {"how": "one process", "counts": [1, 3, 6]}),
    Part("processes", "several", 26, {"how": "processes", "counts": [1, 6]}),
    Part("processes-mps", "several", 20, {"how": "processes with MPS", "counts": [6]}),
)
"""Parts and their shares of the time."""

REHEARSED_BY_OTHERS = ("iterations-dcgan-32", "iterations-resnet-64")
"""Parts that differ from others in sizes alone."""


def run(given: argparse.Namespace) -> None:
    """Run the parts that the command line asks for."""
    began = time.monotonic()
    chosen = given.parts.split(",") if given.parts else [part.name for part in PARTS]
    known = [part.name for part in PARTS]
    if unknown := sorted(set(chosen) - set(known)):
        raise SystemExit(f"--parts must be among {', '.join(known)}, got {', '.join(unknown)}")
    if given.rehearse and not given.parts:
        chosen = [name for name in chosen if name not in REHEARSED_BY_OTHERS]
    rows = given.out.resolve() / "probe.jsonl"
    append(rows, {"part": "run", "minutes": given.minutes, "device": given.device, "rehearse": given.rehearse})
    base = Task(part="", module="", rows=str(rows), device=given.device, seconds=0, planned=0, rehearse=given.rehearse)
    parts = [part for part in PARTS if part.name in chosen]
    try:
        run_parts(parts, base, 60 * given.minutes - 2 - seconds_to_stop(parts))
    finally:
        mps.stop()
    print(f"{rows.parent}: {time.monotonic() - began:.0f} s", flush=True)


def seconds_to_stop(parts: Sequence[Part]) -> float:
    """Return the seconds that stopping the multi-process service may take, if one of the parts starts it."""
    starts = any(part.options.get("how") == "processes with MPS" for part in parts)
    return mps.STOPPING if starts and mps.is_there() else 0.0
