"""`condgan study`: generators, classifiers, judgement and a report in one resumable command."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from condgan.cli.folders import add_data_options, read_folder
from condgan.cli.generators import add_recipe_options, make_plan, say
from condgan.study.plan import EXTRACTOR_NAMES, KEPT, RecipePlan, StudyConfig
from condgan.study.report import write_report
from condgan.study.results import write_results
from condgan.study.runner import Study, merge

ARMS = (
    "real,real_augmented,real_weighted,real_augmented_weighted,real_oversampled,"
    "synthetic_1x,real_plus_synthetic_1to1,pretrained"
)
_TEST_SHARE, _VALIDATION_SHARE = 0.2, 0.15


def add_study(commands: Any) -> None:
    """Add `condgan study`."""
    parser = commands.add_parser(
        "study",
        help="find out what generated images are good for",
        description="Trains generators, trains classifiers on real and generated images, tests them on real ones, "
        "judges the images, and writes results.json and report.html. What is finished is never run again: the same "
        "command goes on where it was stopped.",
    )
    parser.add_argument("data", nargs="?", metavar="DATA", help="folder with one folder of images for each class")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the study")
    parser.add_argument(
        "--test", metavar="DIR", help="folder of test images of other patients; by default a fifth of the patients"
    )
    add_data_options(parser)
    _add_plan(parser)
    add_recipe_options(parser)
    run = parser.add_argument_group("running")
    run.add_argument(
        "--cells",
        default="*",
        metavar="PATTERNS",
        help="run only cells of these names, such as 'gan-*,classifier-real-*'",
    )
    run.add_argument("--list-cells", action="store_true", help="print the names of all cells and run none")
    run.add_argument("--time-limit", type=float, metavar="MIN", help="minutes after which to stop for now")
    run.add_argument(
        "--no-real-images", action="store_true", help="keep and show no real image, so that it can be shared"
    )
    run.add_argument(
        "--merge",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="put folders of the same study, run by several machines, into --out; nothing is run",
    )
    parser.set_defaults(run=study)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("plan")
    group.add_argument(
        "--recipes",
        default="acgan,acwgan_gp",
        metavar="NAMES",
        help="recipes with commas between; acwgan_gp:dcgan takes other networks than its own (acgan,acwgan_gp)",
    )
    group.add_argument("--arms", default=ARMS, metavar="NAMES", help=f"what classifiers are trained on ({ARMS})")
    group.add_argument("--seeds", type=int, default=3, metavar="N", help="generators of each recipe (3)")
    group.add_argument("--classifier-seeds", type=int, default=3, metavar="N", help="classifiers of each (3)")
    group.add_argument("--classifier-steps", type=int, default=1000, metavar="N", help="steps of classifiers (1000)")
    group.add_argument("--classifier-epochs", type=int, default=5, metavar="N", help="looks at validation images (5)")
    group.add_argument("--classifier-batch-size", type=int, default=64, metavar="N", help="images of their steps (64)")
    group.add_argument(
        "--keep",
        choices=KEPT,
        default="last",
        help="which step's generator is kept: the last, or the best by KID on validation images (last)",
    )
    group.add_argument("--reduced-class", metavar="NAME", help="class that the imbalance sweep makes rare")
    group.add_argument(
        "--percents", default="100", metavar="NUMBERS", help="percents of its patients to keep, such as 100,25,5 (100)"
    )
    group.add_argument(
        "--extractor",
        choices=(*EXTRACTOR_NAMES, "none"),
        default="in_domain",
        help="network of the features that images are judged in; none judges no images (in_domain)",
    )
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a StudyConfig as JSON, in the place of all other options of the plan",
    )


def study(given: argparse.Namespace) -> None:
    """Run `condgan study`."""
    if given.merge:
        merge(given.merge, given.out)
        _report(given)
        return
    if given.data is None:
        raise ValueError("DATA must name a folder of images, got none. Only --merge needs no data.")
    config = _config(given)
    runner = Study(
        config,
        *_read(given),
        given.out,
        device=given.device,
        real_images=not given.no_real_images,
        progress=say,
        command=given.command_line,
    )
    if given.list_cells:
        sys.stdout.write("\n".join(cell.name for cell in runner.cells) + "\n")
        return
    for note in runner.data.description["notes"]:
        say(f"NOTE: {note}")
    try:
        runner.run(given.cells.split(","), time_limit=None if given.time_limit is None else 60 * given.time_limit)
    finally:
        _report(given)


def _config(given: argparse.Namespace) -> StudyConfig:
    if given.config is not None:
        return StudyConfig.from_dict(json.loads(given.config.read_text(encoding="utf-8")))
    return StudyConfig(
        image_shape=(given.channels, given.image_size, given.image_size),
        recipes=dict(_recipe(entry, given) for entry in given.recipes.split(",")),
        arms=tuple(given.arms.split(",")),
        seeds=given.seeds,
        classifier_seeds=given.classifier_seeds,
        percents=tuple(_number(text) for text in given.percents.split(",")),
        reduced_class=given.reduced_class,
        classifier_steps=given.classifier_steps,
        classifier_epochs=given.classifier_epochs,
        classifier_batch_size=given.classifier_batch_size,
        precision=given.precision,
        extractor=None if given.extractor == "none" else given.extractor,
    )


def _recipe(entry: str, given: argparse.Namespace) -> tuple[str, RecipePlan]:
    recipe, _, networks = entry.partition(":")
    return entry.replace(":", "_"), replace(make_plan(given, recipe, networks or "recipe"), keep=given.keep)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--percents must be numbers with commas between, got {text!r}.") from None


def _read(given: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Return training, validation and test images, no patient in two of them."""
    folder = read_folder(given.data, given)
    if given.test is None:
        rest, test = folder.split(_TEST_SHARE, seed=given.split_seed)
    else:
        rest, test = folder, read_folder(given.test, given, class_names=folder.class_names)
    train, validation = rest.split(_VALIDATION_SHARE, seed=given.split_seed)
    return train, validation, test


def _report(given: argparse.Namespace) -> None:
    path = write_results(given.out)
    results = json.loads(path.read_text(encoding="utf-8"))
    report = write_report(results, given.out, real_images=not given.no_real_images)
    for verdict in results["verdicts"]:
        say(f"{verdict['question']} {verdict['answer']}")
    say(f"the report is {report}")
