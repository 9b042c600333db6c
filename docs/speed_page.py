"""The measured part of the speed page: tables and figures, all from one file of results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from page_parts import markdown_table
from speed_figures import AXES, Row, config_of, draw_bars, draw_growth, iterations, points

Section = Callable[[list[Row], Mapping[str, float]], list[str]]

HEADLINE_SIZE = 64
PRECISIONS = ("fp32", "bf16")
UNSAVED = {"fp32": "without_weight_gradients", "bf16": "without_weight_gradients_bf16"}
"""The library with PyTorch's weight gradients of the penalty."""


def body(results: Row, folder: str) -> str:
    """Return what stands between the marks of a device; the figures lie in `folder`."""
    blocks = [origin(results)]
    for name, (title, section) in SECTIONS.items():
        if part := results["parts"].get(name):
            blocks += [f"### {title}", *section(part["rows"], results["ratios"])]
            blocks += [f"![{title}]({folder}/{name}.png)"] if name in pictures(results) else []
            blocks += [left_out(part["left_out"])]
    return "\n\n".join(filter(None, blocks))


def pictures(results: Row) -> dict[str, Callable[[Path], None]]:
    """Return what draws each figure that there are rows for."""
    parts = results["parts"]
    draws: dict[str, Callable[[Path], None]] = {
        name: partial(draw_bars, name, parts[name]["rows"], results["ratios"])
        for name in ("iteration", "savings", "roofline", "data_paths")
        if name in parts and iterations(parts[name]["rows"])
    }
    if "scaling" in parts and points(parts["scaling"]["rows"]):
        draws["scaling"] = partial(draw_growth, parts["scaling"]["rows"])
    return draws


def origin(results: Row) -> str:
    """Return device, versions, commits and commands."""
    commits: dict[str, list[str]] = {}
    commands: dict[str, list[str]] = {}
    for part_name, part in results["parts"].items():
        given = part["settings"]
        options = f"--device {given['device']} --rounds {given['rounds']} --limit {given['limit']:g}"
        for name in ("only", "without"):
            options += f" --{name} {','.join(given[name])}" if given.get(name) else ""
        commits.setdefault(f"`{part['commit']}`", []).append(part_name)
        commands.setdefault(f"`python benchmarks/speed {options}`", []).append(part_name)
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"Measured on: {results['device']}; {versions}. Commit: {by_part(commits)}. Command: {by_part(commands)}. "
        "Times are medians of the rounds, ratios the medians of the ratios of neighbouring runs. Small ratios are good."
    )


def by_part(found: Mapping[str, list[str]]) -> str:
    """Return what all parts share, or which parts have what."""
    return "; ".join(found if len(found) == 1 else (f"{what} ({', '.join(names)})" for what, names in found.items()))


def iteration(rows: list[Row], ratios: Mapping[str, float]) -> list[str]:
    """Return the headline, and what a fresh process needs until its first iteration is done."""
    measured = iterations(rows)
    shown = [row for row in measured if row["image_size"] == HEADLINE_SIZE] or measured
    fresh = [row for row in rows if row["what"] != "iteration"]
    return [
        table(
            {
                **setting(row, precision),
                "condgan, ms": milliseconds(row["seconds"][f"condgan_{precision}"]),
                "tutorial, ms": milliseconds(row["seconds"]["tutorial"]),
                **{
                    f"over {rival.replace('_', ' in ')}": over("iteration", row, precision, rival, ratios)
                    for rival in ("tutorial", "tutorial_bf16", "torchgan", "mimicry")
                },
                "over PyTorch's weight gradients": over("iteration", row, precision, UNSAVED[precision], ratios),
                "memory over tutorial": over("peak_memory", row, precision, "tutorial", ratios),
            }
            for row in shown
            for precision in PRECISIONS
        ),
        "The first iteration of a fresh process, with everything made in it:" if fresh else "",
        table(
            {
                **setting(row, row["precision"]),
                "condgan, ms": milliseconds(row["seconds"]["condgan_fp32"]),
                "tutorial, ms": milliseconds(row["seconds"]["tutorial"]),
                "over tutorial": over("first_iteration", row, row["precision"], "tutorial", ratios),
            }
            for row in fresh
        ),
        "All sizes and batches:" if measured else "",
    ]


def savings(rows: list[Row], ratios: Mapping[str, float]) -> list[str]:
    """Say what the figure shows, and set all savings beside a loop that already has the largest of them."""
    beside = {name: value for name, value in ratios.items() if name.endswith(".no_grad_fakes")}
    counted = {name: value for name, value in ratios.items() if name.startswith("operations")}
    return [
        "The library over a loop whose fakes are made without a graph, and counted operations over those of both:",
        table_of_ratios(beside | counted, ""),
        "Time of an iteration with a saving over the time without:" if rows else "",
    ]


def engines(rows: list[Row], ratios: Mapping[str, float]) -> list[str]:
    """Return recorded beside eager iterations, and eager beside compiled critic steps."""
    steps = [row for row in rows if row["what"] == "critic step"]
    return [
        table(
            {
                **setting(row, row["precision"]),
                "recorded iteration, ms": milliseconds(row["seconds"]["cuda_graph"]),
                "eager, ms": milliseconds(row["seconds"]["eager"]),
                "recorded over eager": bold(row["ratio"]),
            }
            for row in iterations(rows)
        ),
        table(
            {
                **setting(row, row["precision"]),
                "eager critic step, ms": milliseconds(row["seconds"]["condgan"]),
                "compiled, ms": milliseconds(row["seconds"]["compiled"]),
                "eager over compiled": bold(row["ratio"]),
                "until compiled, s": f"{row['first_call_seconds']:.1f}",
                "relative difference": f"{row['relative_difference']:.0e}",
            }
            for row in steps
            if "ratio" in row
        ),
        *(f"Could not be compiled: {describe(row)}: `{row['error']}`" for row in steps if "error" in row),
    ]


def roofline(rows: list[Row], ratios: Mapping[str, float]) -> list[str]:
    """Return the rates of the device, and say what the figure shows."""
    return [
        "Rates that were measured: "
        + ", ".join(f"{rate / 1e12:.3g} Top/s in {name}" for name, rate in row["operations_per_second"].items())
        + f", {row['bytes_per_second'] / 1e9:.3g} GB/s. The least time that the operators need, over the measured time:"
        for row in rows
        if "bytes_per_second" in row
    ]


def data_paths(rows: list[Row], ratios: Mapping[str, float]) -> list[str]:
    """Return the ratios, and say what the figure shows."""
    return [table_of_ratios(ratios, "data_path"), "Time until a batch is on the device:" if rows else ""]


def sampling(rows: list[Row], ratios: Mapping[str, float]) -> list[str]:
    """Return images per second, and the ratios."""
    return [
        table(
            {
                **setting(row, row["precision"]),
                **per_second(row),
                "over tutorial": over("sampling", row, row["precision"], "tutorial", ratios),
                "over one by one": over("sampling", row, row["precision"], "one_by_one", ratios),
            }
            for row in rows
        )
    ]


def classifier(rows: list[Row], ratios: Mapping[str, float]) -> list[str]:
    """Return images per second, and the ratios."""
    return [
        table(
            {"size": f"{row['image_size']} px", "batch": str(row["batch_size"]), "steps": str(row["steps"])}
            | per_second(row)
            for row in rows
        ),
        table_of_ratios(ratios, "classifier"),
    ]


def scaling(rows: list[Row], ratios: Mapping[str, float]) -> list[str]:
    """Return the exponents of the growth, and the ratios of ends."""
    return [
        table(
            {
                "over": AXES[row["axis"]],
                "from": str(row["from"]),
                "to": str(row["to"]),
                "time grows by the power": f"{row['exponent']:.2f}",
            }
            for row in rows
            if "exponent" in row
        ),
        table_of_ratios(ratios, "scaling"),
        "Time and peak memory of an iteration:" if points(rows) else "",
    ]


SECTIONS: dict[str, tuple[str, Section]] = {
    "iteration": ("Whole iterations", iteration),
    "savings": ("Each saving alone", savings),
    "engines": ("Engines", engines),
    "roofline": ("Share of the roofline", roofline),
    "data_paths": ("Data paths", data_paths),
    "sampling": ("Sampling", sampling),
    "classifier": ("Classifier", classifier),
    "scaling": ("Scaling", scaling),
}
"""What shows each part of the benchmark, with its title."""


def table(rows: Iterable[dict[str, str]]) -> str:
    """Return a table without the columns that have no cell filled, or nothing without rows."""
    found = list(rows)
    columns = [name for name in (found[0] if found else ()) if any(row[name] for row in found)]
    return markdown_table(columns, [[row[name] for name in columns] for row in found]) if found else ""


def table_of_ratios(ratios: Mapping[str, float], prefix: str) -> str:
    """Return the ratios whose names begin so."""
    return table(
        {"ratio": f"`{name}`", "value": bold(value)} for name, value in ratios.items() if name.startswith(prefix)
    )


def over(what: str, row: Row, precision: str, rival: str, ratios: Mapping[str, float]) -> str:
    """Return the ratio to a rival, or nothing if it was not measured."""
    return bold(ratios.get(f"{config_of(row).name(what, precision)}.{rival}"))


def setting(row: Row, precision: str) -> dict[str, str]:
    """Return the columns that say what was run."""
    return {
        "networks": f"{row['networks']}, {row['base_channels']} channels",
        "size": f"{row['image_size']} px",
        "batch": str(row["batch_size"]),
        "precision": precision,
    }


def per_second(row: Row) -> dict[str, str]:
    """Return images per second of each way."""
    return {f"{name.replace('_', ' ')}, images/s": f"{rate:.4g}" for name, rate in row["images_per_second"].items()}


def bold(ratio: float | None) -> str:
    """Return a ratio in bold."""
    return "" if ratio is None else f"**{ratio:.2f}**" if ratio >= 0.1 else f"**{ratio:.2g}**"


def milliseconds(summary: Mapping[str, float]) -> str:
    """Return the median in milliseconds."""
    value = 1e3 * summary["median"]
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def left_out(rows: list[Row]) -> str:
    """List what was not measured, and why."""
    reasons = [": ".join(filter(None, (describe(row), row["reason"]))) for row in rows]
    return "\n".join(["Not measured:", "", *(f"- {reason}" for reason in reasons)]) if rows else ""


def describe(row: Row) -> str:
    """Return the columns of a row in words."""
    values = {name: value for name, value in row.items() if name not in ("reason", "error") and value is not None}
    return ", ".join(
        value if isinstance(value, str) else f"{name.replace('_', ' ')} {round(value, 1):g}"
        for name, value in values.items()
        if isinstance(value, str | int | float)
    )
