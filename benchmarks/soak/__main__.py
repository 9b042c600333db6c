"""Is anything lost or silently wrong when processes are killed and files are damaged? Run as `python benchmarks/soak`.

- `kills`: a training is ended by SIGKILL again and again, at random times and, every second time, while a checkpoint is
  written, and resumed each time. The last checkpoint must equal that of an undisturbed training bit for bit: networks,
  averages, optimizers, draws. Nor may the undisturbed process grow in memory.
- `checkpoint`, `weights`, `config`, `study`: files of a training, a generator, a run and a study are damaged in their
  bytes, or edited as JSON, and read by the library. What is read must equal the intact file, or be refused with a
  ValueError, or be replaced by an older checkpoint with a warning; a record that was edited and lost its digest on
  purpose may be read as it stands. A trainer that refuses must be as it was.
- `pickles`: files that would run code if they were unpickled, in the place of each kind of file.

Each part writes a file; parts whose file is there are left out: an interrupted run goes on where it stopped. The exit
status is 1 if a part found anything wrong.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import kills
from examination import WRONG, Finding
from readers import SUBJECTS
from worker import findings

from condgan.files import to_json, write_json
from condgan.study.provenance import provenance

PARTS = ("kills", *SUBJECTS, "pickles")


def damage(kind: str, seed: int, count: int) -> dict[str, Any]:
    """Return what came of reading damaged files of a kind."""
    intact, *damaged = findings(kind, seed, count)
    outcomes = Counter(found.outcome for found in damaged)
    names = [*sorted({*outcomes} - {*WRONG}), *WRONG]
    return {
        "files": len(damaged),
        "outcomes": {name: outcomes[name] for name in names},
        "peak_mib": round(max(found.peak for found in damaged) / 2**20),
        "peak_mib_with_intact_files": round(intact.peak / 2**20),
        "by_file": _table(damaged, "file"),
        "by_change": _table(damaged, "change"),
        "wrong": [to_json(found) for found in damaged if found.outcome in WRONG],
    }


def _table(found_in: list[Finding], by: str) -> dict[str, dict[str, int]]:
    """Return how many files had each outcome, by file or by change."""
    table: dict[str, Counter[str]] = {}
    for found in found_in:
        table.setdefault(getattr(found, by), Counter())[found.outcome] += 1
    return {name: dict(sorted(row.items())) for name, row in sorted(table.items())}


def is_right(part: str, result: dict[str, Any], given: argparse.Namespace) -> bool:
    """Return whether a part found nothing wrong, and took less than 1 GiB of memory."""
    if part == "kills":
        return kills.is_right(result, given.kills)
    return not result["wrong"] and result["peak_mib"] < 1024


def main() -> None:
    """Run the parts and write their results."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="those to run, with commas")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=800, help="steps of the training that is killed")
    parser.add_argument("--mutations", type=int, default=2500, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()

    wrong = []
    for part in given.parts.split(","):
        path = given.out / f"{part}.json"
        if not path.is_file():
            began, origin = time.perf_counter(), to_json(provenance("cpu"))
            if part == "kills":
                result = kills.examine(given.kills, given.steps, given.seed)
            else:
                result = damage(part, given.seed, given.mutations)
            seconds = round(time.perf_counter() - began, 1)
            write_json(path, {"part": part, **origin, "seed": given.seed, "seconds": seconds, **result})
        result = json.loads(path.read_text(encoding="utf-8"))
        print(part, result.get("outcomes") or {name: result[name] for name in ("kills", "differing", "memory_growth")})
        if not is_right(part, result, given):
            wrong.append(part)
    if wrong:
        raise SystemExit(f"wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
