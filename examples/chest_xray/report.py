"""The report of a run: tables, figures and sentences, all from its results."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from source import Source

import condgan as cg
from condgan.metrics import Estimate
from condgan.study.figures import chance_levels, comparison_chart, report_estimates, sample_grid, training_curves

SHOWN = 8
"""Images of each class in the figures."""

RESEARCH_ONLY = "For research only: nothing here may be used to diagnose anybody."


def write_figures(
    folder: Path,
    results: dict[str, Any],
    source: Source,
    synthetic: dict[str, cg.data.ArrayDataset],
    *,
    real_images: bool,
) -> None:
    """Draw sample grids beside real images, training curves and the comparison of the arms."""
    names = source.train.class_names
    real = first_of_each(source.train) if real_images else None
    credit = source.attribution if real is not None else None
    for recipe, images in synthetic.items():
        gan = results["gans"][recipe]
        caption = f"{recipe}, {source.name} data, {gan['steps']} generator steps, not selected. {credit or ''}".strip()
        sample_grid(
            first_of_each(images), names, folder / f"{recipe}_samples.png", f"{recipe}", real=real, caption=caption
        )
        with (folder / recipe / "metrics.csv").open(newline="", encoding="utf-8") as file:
            training_curves(list(csv.DictReader(file)), folder / f"{recipe}_training.png", f"{recipe}: training")
    comparison_chart(
        {name: report_estimates(arm["test"]) for name, arm in results["arms"].items()},
        folder / "comparison.png",
        "ResNet-18 on the real test set, by its training images",
        chance=chance_levels(names),
        caption="Bars: 95 % intervals over test patients, for one seed of each network. Dashed: chance.",
    )


def first_of_each(data: cg.data.ArrayDataset) -> torch.Tensor:
    """Return the first images of each class, `(K, SHOWN, C, H, W)`."""
    chosen = [data.images[data.labels == c] for c in range(data.num_classes)]
    count = min(SHOWN, *map(len, chosen))
    return torch.stack([images[:count] for images in chosen])


def write_report(folder: Path, results: dict[str, Any]) -> Path:
    """Write `report.md`."""
    data = results["data"]
    title = "Chest phantoms" if data["name"] == "phantom" else "Chest X-rays"
    parts = [
        f"**{results['notice']}**",
        f"# {title}: what a classifier learns from synthetic images",
        "\n".join(f"- {sentence}" for sentence in findings(results)),
        f"![comparison of the arms](comparison.png)\n\n{RESEARCH_ONLY}",
        "## Test results\n\nA ResNet-18 is trained from scratch on each set of images and tested on "
        f"{data['test']['images']} {'drawn' if data['name'] == 'phantom' else 'real'} test images"
        f"{patients(data['test'])}. Epoch and threshold were chosen on {data['validation']['images']} validation images"
        f"{patients(data['validation'])} that no network was trained on. In brackets: 95 % bootstrap intervals over "
        "test patients (over images where patients are unknown); they do not cover the chance of training, for which "
        f"one seed says nothing.\n\n{table_of_arms(results)}",
        *[confusion(name, arm["test"]) for name, arm in results["arms"].items()],
        "## Synthetic images",
        *[gan_section(name, gan) for name, gan in results["gans"].items()],
        f"## Data\n\n{table_of_data(data)}",
        f"## How it was run\n\n{how(results)}",
    ]
    if data["attribution"]:
        parts.append(data["attribution"])
    path = folder / "report.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def findings(results: dict[str, Any]) -> list[str]:
    """Return what the figures say, in sentences that claim no more than the intervals bear."""
    arms, names = results["arms"], results["data"]["class_names"]
    chance = 1 / len(names)
    counts = results["data"]["train"]["counts"]
    rare = min(names, key=lambda name: counts[name])
    real = arms["real"]["test"]
    said = []
    for recipe in results["gans"]:
        test = arms[recipe]["test"]
        balanced = Estimate(**test["balanced_accuracy"])
        verdict = (
            "above chance" if balanced.low > chance else "below chance" if balanced.high < chance
            else "not distinguishable from chance"
        )  # fmt: skip
        said.append(
            f"Trained on `{recipe}` images alone, the classifier's balanced accuracy is {balanced}, {verdict} "
            f"({chance:.2f}), and its AUROC {Estimate(**test['auroc'])}; trained on the real images they are "
            f"{Estimate(**real['balanced_accuracy'])} and {Estimate(**real['auroc'])}."
        )
    recalls = {recipe: Estimate(**arms[recipe]["test"]["recall"][rare]) for recipe in results["gans"]}
    if len(recalls) > 1:
        best = max(recalls, key=lambda recipe: recalls[recipe].value)
        others = [recipe for recipe in recalls if recipe != best]
        apart = all(recalls[best].low > recalls[other].high for other in others)
        listed = ", ".join(f"`{recipe}` {value}" for recipe, value in recalls.items())
        said.append(
            f"Recall of the rarest class, {rare} ({counts[rare]} training images): {listed}; with real images "
            f"{Estimate(**real['recall'][rare])}. "
            + (
                f"`{best}` serves it better in this run."
                if apart
                else "The intervals overlap: this run does not say which serves it better."
            )
        )
    said.append(
        "Every figure comes from one training run of each network: another seed can change the order. Whether adding "
        "synthetic images to real ones helps was not tested here."
    )
    return said


def table_of_arms(results: dict[str, Any]) -> str:
    """Return the arms as a table, with the results at the validation threshold where there is one."""
    names = results["data"]["class_names"]
    head = [
        "training images",
        "number",
        "accuracy",
        "balanced accuracy",
        "AUROC",
        *[f"recall, {name}" for name in names],
    ]
    rows = []
    for arm, entry in results["arms"].items():
        test = entry["test"]
        cells = [test["accuracy"], test["balanced_accuracy"], test["auroc"], *test["recall"].values()]
        rows.append([arm, str(entry["training_images"]), *[str(Estimate(**cell)) for cell in cells]])
        tuned = test["at_threshold"]
        if tuned:
            cells = [tuned["accuracy"], tuned["balanced_accuracy"], *tuned["recall"].values()]
            shown = [str(Estimate(**cell)) for cell in cells]
            rows.append(
                [f"{arm}, at the validation threshold {tuned['threshold']:.2f}", "", *shown[:2], "", *shown[2:]]
            )
    return markdown_table(head, rows)


def confusion(name: str, test: dict[str, Any]) -> str:
    """Return a confusion matrix as a table."""
    names = test["class_names"]
    rows = [[f"truly {true}", *map(str, row)] for true, row in zip(names, test["confusion"], strict=True)]
    return f"Confusion matrix, trained on {name}:\n\n" + markdown_table(["", *[f"called {n}" for n in names]], rows)


def gan_section(name: str, gan: dict[str, Any]) -> str:
    """Return figures and sizes of one GAN."""
    settings = gan["settings"]
    return (
        f"### {name}\n\n![samples of {name}]({name}_samples.png)\n\n"
        f"{gan['steps']} generator steps, {gan['images_seen']} real images seen, {gan['seconds']:.0f} s. "
        f"{settings['generator']} ({gan['generator_parameters']:,} parameters) against {settings['critic']} "
        f"({gan['critic_parameters']:,}), {settings['loss']}, {'; '.join(settings['auxiliary'])}"
        f"{'; ' if settings['regularizers'] else ''}{'; '.join(settings['regularizers'])}; "
        f"{settings['critic_steps']} critic update{'s' * (settings['critic_steps'] > 1)} a step. "
        f"The weights are in `{name}/generator`.\n\n"
        f"![training of {name}]({name}_training.png)"
    )


def table_of_data(data: dict[str, Any]) -> str:
    """Return counts of images and patients."""
    names = data["class_names"]
    rows = [
        [
            part,
            str(data[part]["images"]),
            str(data[part]["patients"] or "unknown"),
            *[str(data[part]["counts"][n]) for n in names],
        ]
        for part in ("train", "validation", "test")
    ]
    return markdown_table(["", "images", "patients", *names], rows)


def how(results: dict[str, Any]) -> str:
    """Return the command and the circumstances."""
    settings = results["settings"]
    command = f"python examples/chest_xray --data {settings['data']} --preset {settings['preset']}"
    command += f" --classes {settings['classes']} --seed {settings['seed']} --recipes {','.join(settings['recipes'])}"
    for option in ("steps", "image_size", "device"):
        if settings[option] is not None:
            command += f" --{option.replace('_', '-')} {settings[option]}"
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"```\n{command}\n```\n\nCommit {results['commit']}, {versions}, on {results['device']}; "
        f"the last session took {results['seconds']:.0f} s. The test set was used {results['test_evaluations']} times, "
        "once for each arm, and nothing was chosen on it. All figures with their settings are in `results.json`."
    )


def patients(part: dict[str, Any]) -> str:
    """Return the number of patients as an apposition, or nothing where it is unknown."""
    return f" of {part['patients']} patients" if part["patients"] else ""


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
