"""`condgan train`, `condgan sample` and `condgan evaluate`: one generator in one folder."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch

from condgan.cli.folders import add_data_options, read_folder
from condgan.data import ArrayDataset, ImageFolder, check_disjoint
from condgan.images import to_uint8
from condgan.recipes import CONDITIONAL
from condgan.sampling import sample
from condgan.study.files import as_json, write_json
from condgan.study.generators import Pool, load_generator, save_picture, save_sheet, train_generator
from condgan.study.judge import judge_images, make_extractor
from condgan.study.plan import EXTRACTOR_NAMES, NETWORKS, RecipePlan, check_names
from condgan.training.setup import best_device

_DATA_OPTIONS = ("image_size", "channels", "groups", "split_seed", "held_out")


def add_train(commands: Any) -> None:
    """Add `condgan train`."""
    parser = commands.add_parser("train", help="train a generator, or go on with it")
    parser.add_argument("data", metavar="DATA", help="folder with one folder of images for each class")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the generator goes")
    add_data_options(parser)
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.15,
        metavar="SHARE",
        help="share of the patients that is not trained on, for condgan evaluate (0.15); 0 trains on all",
    )
    add_recipe_options(parser)
    parser.add_argument("--recipe", default="acwgan_gp", help=f"one of {', '.join(CONDITIONAL)} (acwgan_gp)")
    parser.add_argument("--networks", choices=NETWORKS, default="recipe", help="networks of the recipe, or others")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything (0)")
    parser.add_argument("--time-limit", type=float, metavar="MIN", help="minutes after which to stop for now")
    parser.set_defaults(run=train)


def add_sample(commands: Any) -> None:
    """Add `condgan sample`."""
    parser = commands.add_parser("sample", help="generate images of some classes")
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of condgan train, or of a study's generator")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the images go")
    parser.add_argument("--classes", metavar="NAMES", help="names of classes, with commas between; by default all")
    parser.add_argument("--count", type=int, default=16, metavar="N", help="images of each class (16)")
    parser.add_argument("--grid", action="store_true", help="one sheet, a row a class, instead of single files")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the images (0)")
    parser.add_argument("--device", help="cpu, cuda or mps; by default the fastest at hand")
    parser.set_defaults(run=draw)


def add_evaluate(commands: Any) -> None:
    """Add `condgan evaluate`."""
    parser = commands.add_parser("evaluate", help="judge the images of a generator: fidelity, diversity, memorization")
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of condgan train")
    parser.add_argument("data", metavar="DATA", help="the folder that it was trained on")
    parser.add_argument("--test", required=True, metavar="DIR", help="folder of test images of other patients")
    parser.add_argument("--extractor", choices=EXTRACTOR_NAMES, default="in_domain", help="network of the features")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="arithmetic of the passes (bf16)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything (0)")
    parser.add_argument("--no-real-images", action="store_true", help="write no picture of real images")
    parser.add_argument("--device", help="cpu, cuda or mps; by default the fastest at hand")
    parser.set_defaults(run=evaluate)


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the training of generators."""
    group = parser.add_argument_group("generators")
    group.add_argument("--steps", type=int, default=20_000, metavar="N", help="generator updates (20000)")
    group.add_argument("--batch-size", type=int, default=64, metavar="N", help="images of a critic step (64)")
    group.add_argument("--generator-batch-size", type=int, metavar="N", help="images of a generator step (the same)")
    group.add_argument("--base-channels", type=int, metavar="N", help="width of the networks; by default the recipe's")
    group.add_argument(
        "--augment",
        metavar="POLICY",
        help="DiffAugment, such as translation,cutout; by default the recipe's own, if it has any",
    )
    group.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="arithmetic of the passes (bf16)")
    group.add_argument("--device", help="cpu, cuda or mps; by default the fastest at hand")


def make_plan(given: argparse.Namespace, recipe: str, networks: str) -> RecipePlan:
    """Return the plan of a recipe that the options ask for."""
    return RecipePlan(
        recipe=recipe,
        networks=networks,
        steps=given.steps,
        batch_size=given.batch_size,
        generator_batch_size=given.generator_batch_size,
        base_channels=given.base_channels,
        augment=given.augment,
    )


def train(given: argparse.Namespace) -> None:
    """Run `condgan train`."""
    plan = make_plan(given, given.recipe, given.networks)
    data, _ = _split(read_folder(given.data, given), given)
    say(f"training on {data}")
    write_json(given.out / "data.json", {name: getattr(given, name) for name in _DATA_OPTIONS})
    done = train_generator(
        plan,
        data,
        given.out,
        seed=given.seed,
        precision=given.precision,
        device=given.device,
        deadline=math.inf if given.time_limit is None else time.monotonic() + 60 * given.time_limit,
        report=say,
    )
    say("stopped by the time limit: the same command goes on from here" if done is None else f"done: {given.out}")


def draw(given: argparse.Namespace) -> None:
    """Run `condgan sample`."""
    if given.count < 1:
        raise ValueError(f"--count must be at least 1, got {given.count}.")
    device = given.device or best_device()
    generator = load_generator(given.folder, device=device)
    names = _run_description(given.folder)["class_names"]
    chosen = names if given.classes is None else given.classes.split(",")
    check_names("--classes", chosen, names)
    y = torch.tensor([names.index(name) for name in chosen]).repeat_interleave(given.count)
    images = to_uint8(sample(generator, y, rng=torch.Generator(device).manual_seed(given.seed))).cpu()
    if given.grid:
        save_sheet(images, given.out / "samples.png", columns=given.count)
    else:
        for number, (image, label) in enumerate(zip(images, y.tolist(), strict=True)):
            save_picture(image, given.out / names[label] / f"{number % given.count:05d}.png")
    say(f"{len(images)} images in {given.out}")


def evaluate(given: argparse.Namespace) -> None:
    """Run `condgan evaluate`."""
    path = given.folder / "data.json"
    if not path.is_file():
        raise FileNotFoundError(f"{str(given.folder)!r} must be a folder of condgan train, and has no data.json.")
    options = argparse.Namespace(**json.loads(path.read_text(encoding="utf-8")))
    description = _run_description(given.folder)
    folder = read_folder(given.data, options)
    test = read_folder(given.test, options, class_names=folder.class_names)
    train_set, held_out = _split(folder, options)
    if held_out is None:
        raise ValueError("the generator was trained on all images (--held-out 0): none are left to compare with.")
    if train_set.fingerprint != description["train"]["fingerprint"]:
        raise ValueError(
            f"{str(given.data)!r} must be what the generator was trained on, fingerprint "
            f"{description['train']['fingerprint']}, got {train_set.fingerprint}. Has the folder changed?"
        )
    if folder.groups is not None:
        check_disjoint(training=folder, test=test)
    device = given.device or best_device()
    y = torch.arange(folder.num_classes).repeat_interleave(torch.tensor(train_set.class_counts))
    pool = Pool(
        load_generator(given.folder, device=device),
        y,
        seed=given.seed,
        class_names=folder.class_names,
        source=f"images of {given.folder}",
    )
    extractor = make_extractor(given.extractor, train_set, precision=given.precision, device=device, seed=given.seed)
    neighbors = None if given.no_real_images else given.folder / "neighbors.png"
    judged = judge_images(
        pool.first(len(y)), train_set, held_out, test, extractor, neighbors=neighbors, seed=given.seed
    )
    write_json(given.folder / "evaluation.json", as_json(judged))
    for line in _in_words(judged):
        say(line)
    say(f"all figures are in {given.folder / 'evaluation.json'}")


def say(line: str) -> None:
    """Tell the user something that is no result."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _split(data: ImageFolder, given: argparse.Namespace) -> tuple[ArrayDataset, ArrayDataset | None]:
    return data.split(given.held_out, seed=given.split_seed) if given.held_out else (data, None)


def _run_description(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} must be the folder of a trained generator, and has no run.json.")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _in_words(judged: dict[str, Any]) -> list[str]:
    lines = [f"{part} cannot be judged: {reason}" for part, reason in judged["refused"].items()]
    if judged["fidelity"] is not None:
        parts = {"all classes": judged["fidelity"]["overall"], **judged["fidelity"]["per_class"]}
        for name, scores in parts.items():
            kid, floor, difference = (scores["kid"][side] for side in ("generated", "floor", "difference"))
            lines.append(
                f"{name}: KID {kid['value']:.4f}, real training images {floor['value']:.4f}, difference "
                f"{difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
            )
    for part, key in (("diversity", "explanation"), ("memorization", "verdict")):
        if judged[part] is not None:
            lines += [f"{name}: {entry[key]}" for name, entry in judged[part]["per_class"].items()]
    return lines
