"""The measured part of the page about GPUs: tables of all runs on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from page_parts import bullets, folded, plain
from speed_page import bold, milliseconds, table

Row = dict[str, Any]

NOT_RUN = "Nothing has run on CUDA yet."
"""Placeholder for results."""

RAN_AS = {"recorded iteration": "cuda_graph_iteration", "recorded updates": "cuda_graph", "eager": "eager"}
"""Names of the trainer's engines by what they do."""

ENGINES = (*RAN_AS, "tutorial")


def body(runs: Mapping[str, Row]) -> str:
    """Return the text between the marks: one section per run, or a sentence that nothing has run."""
    if not runs:
        return NOT_RUN
    blocks = []
    for name, run in runs.items():
        for command, found in run.items():
            if command in SECTIONS:
                blocks += [f"### {name}: {command}", origin(found)]
                blocks += [block for section in SECTIONS[command] for block in section(found["parts"])]
                blocks += [missing(found["parts"])]
    return "\n\n".join(filter(None, blocks))


def origin(run: Row) -> str:
    """Return device, versions, commit and time."""
    if "origin" not in run:
        return "The run ended before it said where it was."
    found = run["origin"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"On: {plain(found['device'])}; {versions}. Commit: `{found['commit']}`. Time: {run['minutes']:g} minutes."


def machine(parts: Row) -> Iterator[str]:
    """Yield the machine's rates."""
    said = []
    for row in rows_of(parts, "machine"):
        if row["what"] == "copy" and "bytes_per_second" in row:
            said.append(f"copies {row['bytes_per_second'] / 1e12:.3g} TB/s")
        if row["what"] == "matrix product" and "operations_per_second" in row:
            said.append(f"matrix products {row['operations_per_second'] / 1e12:.3g} Top/s in {row['kind']}")
        if row["what"] == "launch" and "host_seconds" in row:
            said.append(f"a launch {row['host_seconds'] * 1e6:.2g} us of the host")
        if row["what"] == "machine":
            said.append(f"multi-process service: {'there' if row['mps'] else 'not there'}")
    yield f"Rates: {', '.join(said)}." if said else ""


def tests(parts: Row) -> Iterator[str]:
    """Yield the outcome of the tests that need CUDA."""
    for row in rows_of(parts, "tests"):
        if "returncode" in row:
            counts = ", ".join(f"{count} {name}" for name, count in row["counts"].items())
            unfinished = "" if row["returncode"] is not None else ", then their time was up"
            yield f"Tests that need CUDA: {counts or 'none'}{unfinished}."
            yield bullets(f"`{plain(line)}`" for line in row["failures"])


def layers(parts: Row) -> Iterator[str]:
    """Yield the times of a penalty's weight gradients, layer by layer."""
    found = joined(rows_of(parts, "layers"), ("networks", "layer", "precision", "cudnn_benchmark"))
    found = [row for row in found if "seconds_weight_gradient" in row]
    yield "Weight gradients of the penalty by layer:" if found else ""
    yield table(
        {
            "critic": row["networks"],
            "layer": row["layer"],
            "maps": "x".join(map(str, row["input"])),
            "kernel": "x".join(map(str, row["kernel"])),
            "stride": str(row["stride"]),
            "precision": row["precision"],
            "cuDNN benchmark": on_off(row["cudnn_benchmark"]),
            "forward, ms": milliseconds(row["seconds_forward"]),
            "weight-gradient kernel, ms": milliseconds(row["seconds_weight_gradient"]),
            "PyTorch's, ms": milliseconds(row["seconds_pytorch"]) if "seconds_pytorch" in row else "",
            "kernel over PyTorch's": bold(median(row["seconds_weight_gradient"]) / median(row["seconds_pytorch"]))
            if "seconds_pytorch" in row
            else "",
        }
        for row in found
    )


def penalty(parts: Row) -> Iterator[str]:
    """Yield whole iterations with and without what convolutions save."""
    groups = by(rows_of(parts, "penalty"), lambda row: row["without"], cudnn_setting)
    yield "Whole iterations, with the library's convolutions and without what they save:" if groups else ""
    yield table(
        {
            **dict(columns),
            "library's, ms": ms(found.get(None)),
            "maps are resized, ms": ms(found.get("resized_weights")),
            "PyTorch's weight gradients, ms": ms(found.get("weight_gradients")),
            "library's over resized maps": over(found.get(None), found.get("resized_weights")),
            "library's over PyTorch's weight gradients": over(found.get(None), found.get("weight_gradients")),
        }
        for columns, found in groups.items()
    )


def iterations(parts: Row) -> Iterator[str]:
    """Yield the engines and the tutorial's loop, all with the same setting of cuDNN."""
    rows = [
        row for name in parts for row in rows_of(parts, name) if name.startswith("iterations-") and "seconds" in row
    ]
    groups = by(rows, lambda row: row["engine"], cudnn_setting)
    yield "Whole iterations by engine, and the loop as tutorials write it:" if groups else ""
    yield table(
        {
            **dict(columns),
            **{f"{engine}, ms": ms(found.get(engine)) for engine in ENGINES},
            "recorded iteration over updates": over(found.get("recorded iteration"), found.get("recorded updates")),
            "recorded updates over eager": over(found.get("recorded updates"), found.get("eager")),
            "recorded updates over tutorial": over(found.get("recorded updates"), found.get("tutorial")),
        }
        for columns, found in groups.items()
    )
    tried = by(rows, lambda row: row["cudnn_benchmark"], lambda row: (*setting(row), ("engine", row["engine"])))
    tried = {columns: pair for columns, pair in tried.items() if True in pair}
    yield "With `cudnn.benchmark`, over without:" if tried else ""
    yield table(
        {**dict(columns), "ms": ms(pair[True]), "over without": over(pair[True], pair.get(False))}
        for columns, pair in tried.items()
    )


def several(parts: Row) -> Iterator[str]:
    """Yield the iterations per second of one device with several trainings."""
    rows = [row for name in ("one-process", "processes", "processes-mps") for row in rows_of(parts, name)]
    rows = [row for row in rows if "iterations_per_second" in row]
    alone = next((row["iterations_per_second"] for row in rows if row["count"] == 1), None)
    yield "Several trainings on one device:" if rows else ""
    yield table(
        {
            **dict(setting(row)),
            "how": row["how"],
            "trainings": str(row["count"]),
            "iterations/s in all": f"{row['iterations_per_second']:.4g}",
            "of one alone": "" if alone is None else f"{row['iterations_per_second'] / alone:.2f}",
        }
        for row in rows
    )


def kernels(parts: Row) -> Iterator[str]:
    """Yield the costliest kernels."""
    for row in rows_of(parts, "kernels"):
        if "kernels" in row:
            said = ", ".join(value for _, value in setting(row))
            yield folded(
                f"Costliest kernels of an iteration: {said}, {row['engine']}; {row['launches']:.0f} kernels in all, "
                f"{row['milliseconds']:.3g} ms",
                table(
                    {
                        "ms": f"{one['milliseconds']:.3g}",
                        "launches": f"{one['launches']:g}",
                        "kernel": f"`{plain(one['name'])}`",
                    }
                    for one in row["kernels"]
                ),
            )


def generators(parts: Row) -> Iterator[str]:
    """Yield the trained generators of the study, recipe by recipe."""
    rows = [row for name in parts for row in rows_of(parts, name) if row.get("what") == "generator" and "steps" in row]
    yield table(
        {
            "size": row["size"],
            "classes": str(row["classes"]),
            "recipe": f"`{row['recipe']}`",
            "seed": str(row["seed"]),
            "steps": str(row["steps"]),
            "seconds": f"{row['seconds']:.0f}",
            "trained side by side": str(row["side_by_side"]),
        }
        for row in rows
    )
    done = sum(row["finished"] for name in parts for row in rows_of(parts, name) if "finished" in row)
    yield f"Trained classifiers: {done}." if done else ""


def missing(parts: Row) -> str:
    """List what was not measured, and why."""
    said: list[str] = []
    for name, part in parts.items():
        if part["ended"] != 0:
            said.append(f"{name} ended early: {ending(part['ended'])}")
        reasons: dict[str, int] = {}
        for row in part["rows"]:
            if "skipped" in row:
                reasons[row["skipped"]] = reasons.get(row["skipped"], 0) + 1
        said += [f"{name}: {times} of {len(part['rows'])} rows: {plain(why)}" for why, times in reasons.items()]
    return "\n\n".join(["Not measured:", bullets(said)]) if said else ""


def ending(how: object) -> str:
    """Return how a part ended, in words."""
    words = {
        "limit": "its time was up",
        "silent": "it seemed to hang",
        "no time": "no time was left for it",
        None: "the run was cut off",
    }
    return words[how] if how is None or isinstance(how, str) else f"its process ended with {how}"


SECTIONS: dict[str, tuple[Callable[[Row], Iterator[str]], ...]] = {
    "probe": (machine, tests, layers, penalty, iterations, several, kernels),
    "study": (generators,),
}
"""What is shown of each command's results."""


def rows_of(parts: Row, name: str) -> list[Row]:
    """Return the rows of a part."""
    return parts[name]["rows"] if name in parts else []


def joined(rows: Iterable[Row], names: Sequence[str]) -> list[Row]:
    """Return one row for those that have the same in these columns."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), {}).update(row)
    return list(found.values())


def by(rows: Iterable[Row], key: Callable[[Row], Any], group: Callable[[Row], Any]) -> dict[Any, dict[Any, Row]]:
    """Return the rows that were measured by group, then by key."""
    found: dict[Any, dict[Any, Row]] = {}
    for row in rows:
        if "seconds" in row:
            found.setdefault(group(row), {})[key(row)] = row
    return found


def setting(row: Row) -> tuple[tuple[str, str], ...]:
    """Return the columns that say what was trained."""
    return (
        ("networks", f"{row['networks']}, {row['base_channels']} channels"),
        ("size", f"{row['image_size']} px"),
        ("batch", str(row["batch_size"])),
        ("precision", row["precision"]),
    )


def cudnn_setting(row: Row) -> tuple[tuple[str, str], ...]:
    """Return the columns that say what was trained, and whether cuDNN tried its algorithms."""
    return (*setting(row), ("cuDNN benchmark", on_off(row["cudnn_benchmark"])))


def ms(row: Row | None) -> str:
    """Return the milliseconds of a row; what ran in a simpler way than asked says so."""
    if row is None:
        return ""
    return milliseconds(row["seconds"]) + (f" (ran as {row['ran']})" if fell_back(row) else "")


def fell_back(row: Row) -> bool:
    """Return whether another engine ran than was asked for."""
    return "ran" in row and row["ran"] != RAN_AS[row["engine"]]


def over(row: Row | None, other: Row | None) -> str:
    """Return the ratio of two rows."""
    if row is None or other is None or fell_back(row) or fell_back(other):
        return ""
    return bold(median(row["seconds"]) / median(other["seconds"]))


def median(summary: Mapping[str, float]) -> float:
    """Return the median of a summary."""
    return summary["median"]


def on_off(value: bool) -> str:
    """Return a switch in words."""
    return "on" if value else "off"
