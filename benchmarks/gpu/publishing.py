"""Collects the results of a run on CUDA in one file, which is committed and which the docs show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from work import Row, read

RESULTS = Path(__file__).parent / "results"
COMMANDS = ("probe", "study")


def publish(out: Path, name: str) -> Path:
    """Write `results/NAME.json` from what `probe` and `study` left in a folder, and return the file.

    Raises:
        SystemExit: If there is nothing, or it is of a rehearsal or of another device than CUDA.
    """
    found = {command: out / f"{command}.jsonl" for command in COMMANDS}
    content = {command: collect(read(path)) for command, path in found.items() if path.is_file()}
    if not content:
        raise SystemExit(f"{out} must hold {' or '.join(path.name for path in found.values())}, and does not.")
    for command, run in content.items():
        if run["rehearse"] or not run["device"].startswith("cuda"):
            raise SystemExit(f"only runs on CUDA are published, {command} in {out} is a rehearsal.")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"schema": 1, **content}, indent=1) + "\n", encoding="utf-8")
    return path


def collect(rows: list[Row]) -> dict[str, Any]:
    """Return rows by part. Where a command was repeated, a part is that of its last time."""
    run: dict[str, Any] = {"parts": {}}
    again: set[str] = set()
    for row in rows:
        part, columns = row["part"], {name: value for name, value in row.items() if name != "part"}
        if part == "run":
            again = set(run["parts"])
            run |= columns
            continue
        if part in again:
            again.remove(part)
            del run["parts"][part]
        own = run["parts"].setdefault(part, {"ended": None, "seconds": None, "rows": []})
        if "ended" in columns:
            own |= columns
        elif columns.get("what") == "origin":
            run["origin"] = {name: value for name, value in columns.items() if name != "what"}
        else:
            own["rows"].append(columns)
    return run
