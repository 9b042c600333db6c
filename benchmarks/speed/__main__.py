"""How long training takes beside a plain tutorial loop and other libraries. Run as `python benchmarks/speed --help`.

Everything that is compared runs in turn, in one process, after a warm-up; medians are reported. Ratios are ours over
theirs: small is good.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import data_paths
import engines
import iteration
import peers
import roofline
import sampling
import savings
import scaling
import torch
from timing import Part, Settings, on_cuda

import classifier
from condgan.files import to_json
from condgan.study.provenance import provenance

WITHOUT = ("fresh", "compiled", "scaling")
PARTS: dict[str, Callable[[Settings], Part]] = {
    "iteration": iteration.measure,
    "savings": savings.measure,
    "engines": engines.measure,
    "roofline": roofline.measure,
    "data_paths": data_paths.measure,
    "sampling": sampling.measure,
    "classifier": classifier.measure,
    "scaling": scaling.measure,
}


def main(arguments: list[str] | None = None) -> None:
    """Measure the parts that the command line asks for, and write the results after each of them."""
    parser = argparse.ArgumentParser(prog="python benchmarks/speed", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="alternated rounds, at least 2")
    parser.add_argument("--limit", type=float, default=20.0, help="leave out what takes more seconds an iteration")
    parser.add_argument("--only", default="", help="configurations, such as dcgan-64-16,resnet-64-16; all by default")
    parser.add_argument("--without", default="", help=f"some of {','.join(WITHOUT)}: what takes longest for its worth")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that all runs; written to *_quick.json")
    given = parser.parse_args(arguments)
    without = tuple(filter(None, given.without.split(",")))
    names = [name for name in given.parts.split(",") if name not in without]
    if unknown := sorted(set(without) - set(WITHOUT)):
        parser.error(f"--without must be among {', '.join(WITHOUT)}, got {', '.join(unknown)}")
    if unknown := sorted(set(names) - set(PARTS)):
        parser.error(f"--parts must be among {', '.join(PARTS)}, got {', '.join(unknown)}")
    if given.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {given.rounds}")

    only = tuple(filter(None, given.only.split(",")))
    settings = Settings(given.device, 2 if given.quick else given.rounds, given.limit, given.quick, only, without)
    kind = "cuda" if on_cuda(given.device) else "cpu"
    path = given.out / f"{kind}{'_quick' if given.quick else ''}.json"
    origin = to_json(provenance(given.device))
    origin["versions"] |= peers.versions()
    results = read(path, origin)
    for name in names:
        print(f"{name} ...", flush=True)
        began = time.perf_counter()
        part = PARTS[name](settings)
        results["parts"][name] = {
            "commit": origin["commit"],
            "settings": asdict(settings),
            "seconds": round(time.perf_counter() - began, 1),
            **asdict(part),
        }
        write(path, results | origin)
        for key, value in part.ratios.items():
            print(f"  {key}: {value:.2f}", flush=True)
    print(path)


def read(path: Path, origin: dict[str, Any]) -> dict[str, Any]:
    """Return earlier results, to be completed; they must come from the same device and versions."""
    if not path.exists():
        return {"parts": {}}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name in ("device", "versions"):
        if results[name] != origin[name]:
            raise SystemExit(
                f"{path} has results of another {name.removesuffix('s')}: {results[name]}, here it is {origin[name]}. "
                "Choose another --out, or delete the file."
            )
    return results


def write(path: Path, results: dict[str, Any]) -> None:
    """Write the results, with all ratios in one flat object."""
    what = "time, memory or operations of condgan over those of the other side, by name; small is good"
    parts = {name: results["parts"][name] for name in PARTS if name in results["parts"]}
    flat = {name: value for part in parts.values() for name, value in part["ratios"].items()}
    head = {name: results[name] for name in ("device", "versions", "commit")}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"what": what, **head, "ratios": flat, "parts": parts}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
