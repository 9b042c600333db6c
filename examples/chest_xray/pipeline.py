"""The study from data to report: every stage leaves a file, and a stage whose file is there is not run again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from presets import PRESETS, Preset
from report import write_figures, write_report
from source import Source, load

import condgan as cg
from condgan.images import to_uint8
from condgan.study.provenance import provenance
from condgan.training.setup import best_device

CHECKPOINTS = 10
"""Checkpoints over the training of a GAN."""


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    data: str
    classes: int
    recipes: tuple[str, ...]
    preset: str
    image_size: int | None
    steps: int | None
    seed: int
    out: Path | None
    resume: bool
    device: str | None
    real_images: bool

    @property
    def settings(self) -> dict[str, Any]:
        """What the results depend on: a run is resumed with equal settings only."""
        names = ("data", "classes", "recipes", "preset", "image_size", "steps", "seed", "device")
        return json.loads(json.dumps({name: getattr(self, name) for name in names}))


def run(options: Options) -> Path:
    """Run the study, or what is left of it, and return the folder of its results."""
    began = time.perf_counter()
    preset = PRESETS[options.preset]
    size = options.image_size or preset.image_size
    source = load(options.data, classes=options.classes, image_size=size, seed=options.seed, phantoms=preset.phantoms)
    banner(source.notice)
    folder = open_folder(options, source)
    print(f"results go to {folder}")

    device = options.device or str(best_device())
    gans = {name: train_gan(folder / name, name, preset, source, options, device) for name in options.recipes}
    synthetic = {name: synthesize(folder / name, name, source, options.seed) for name in options.recipes}
    arms = {}
    for name, images in {"real": source.train, **synthetic}.items():
        arms[name] = train_arm(folder / name, name, images, source, preset, options.seed, device)

    results = {
        "notice": source.notice,
        "settings": options.settings,
        "preset": asdict(preset) | {"image_size": size},
        **provenance(device),
        "data": describe(source),
        "gans": gans,
        "arms": arms,
        "test_evaluations": len(arms),
        "seconds": round(time.perf_counter() - began, 1),
    }
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    write_figures(folder, results, source, synthetic, real_images=options.real_images)
    report = write_report(folder, results)
    banner(f"{source.notice} The report is {report}")
    return folder


def open_folder(options: Options, source: Source) -> Path:
    """Return the folder of the run: a new one, or with `--resume` the one to go on with."""
    parent = Path("runs")
    settings = {**options.settings, "fingerprint": source.train.fingerprint}
    if options.resume:
        folder = options.out or max(parent.glob("chest_xray-*"), key=lambda path: path.stat().st_mtime, default=None)
        if folder is None or not (folder / "settings.json").is_file():
            raise SystemExit(f"there is no run to resume in {folder or parent}: leave out --resume to begin one.")
        found = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        changed = [name for name, value in settings.items() if found.get(name) != value]
        if changed:
            raise SystemExit(
                f"{folder} was begun with other settings ({', '.join(changed)}): give the same, or no --resume."
            )
        return folder
    folder = options.out or parent / f"chest_xray-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty: add --resume to go on with it, or choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder


def stage(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON at `path`; compute and write it where it is missing."""
    if not path.is_file():
        result = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


class Stopwatch(cg.Callback):
    """Adds up the seconds of training over interruptions."""

    seconds = 0.0

    def on_fit_start(self, trainer: cg.Trainer) -> None:
        """Start."""
        self._last = time.perf_counter()

    def on_step_end(self, trainer: cg.Trainer) -> None:
        """Add the step."""
        now = time.perf_counter()
        self.seconds += now - self._last
        self._last = now

    def state_dict(self) -> dict[str, Any]:
        """Remember the sum."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the sum up again."""
        self.seconds = state["seconds"]


def train_gan(folder: Path, name: str, preset: Preset, source: Source, options: Options, device: str) -> dict[str, Any]:
    """Train a GAN and save its averaged generator."""
    steps = options.steps or preset.steps.get(name, max(preset.steps.values()))
    every = max(1, steps // CHECKPOINTS)
    watch = Stopwatch()

    def compute() -> dict[str, Any]:
        trainer = preset.trainer(
            name,
            source.train,
            seed=options.seed,
            device=device,
            callbacks=[
                watch,
                cg.ProgressBar(description=name),
                cg.CSVLogger(folder / "metrics.csv", every=max(1, steps // 200)),
                cg.SampleGrid(folder / "samples", every=every),
                cg.Checkpoint(folder / "checkpoints", every=every),
            ],
        )
        trainer.resume(folder / "checkpoints")
        state = trainer.fit(
            source.train,
            steps=steps,
            batch_size=preset.batch_size,
            generator_batch_size=preset.generator_batch_size,
        )
        trainer.ema.save_pretrained(folder / "generator")
        return {
            "steps": state.step,
            "images_seen": state.images_seen,
            "seconds": round(watch.seconds, 1),
            "settings": trainer.settings,
            "generator_parameters": sum(p.numel() for p in trainer.networks.generator.parameters()),
            "critic_parameters": sum(p.numel() for p in trainer.networks.critic.parameters()),
            "last_metrics": state.metrics,
        }

    return stage(folder / "gan.json", compute)


def synthesize(folder: Path, name: str, source: Source, seed: int) -> cg.data.ArrayDataset:
    """Return as many images as the real training set has, of all classes alike, from a saved generator."""
    config = json.loads((folder / "generator" / "config.json").read_text(encoding="utf-8"))
    generator = getattr(cg, config["class"]).from_pretrained(folder / "generator")
    y = torch.arange(len(source.train)) % source.train.num_classes
    images = to_uint8(cg.sample(generator, y, rng=torch.Generator().manual_seed(seed)))
    return cg.data.ArrayDataset(images, y, class_names=source.train.class_names, source=f"images of {name}")


def train_arm(
    folder: Path, name: str, images: cg.data.ArrayDataset, source: Source, preset: Preset, seed: int, device: str
) -> dict[str, Any]:
    """Train a ResNet-18 on one set of images and test it on the real test set."""

    def compute() -> dict[str, Any]:
        print(f"ResNet-18 on {len(images)} images: {name}")
        classifier = cg.study.train_classifier(
            images,
            source.validation,
            epochs=preset.classifier_epochs,
            precision=preset.precision,
            device=device,
            seed=seed,
            progress=True,
        )
        return {
            "training_images": len(images),
            "training_counts": dict(zip(images.class_names, images.class_counts, strict=True)),
            "classifier": classifier.settings,
            "history": list(classifier.history),
            "seconds": round(classifier.seconds, 1),
            "test": classifier.evaluate(source.test, seed=seed).as_dict(),
        }

    return stage(folder / "classifier.json", compute)


def describe(source: Source) -> dict[str, Any]:
    """Return counts and fingerprints of the data."""
    parts = {"train": source.train, "validation": source.validation, "test": source.test}
    return {
        "name": source.name,
        "attribution": source.attribution,
        "class_names": list(source.train.class_names),
        "image_shape": list(source.train.image_shape),
        **{
            name: {
                "images": len(part),
                "patients": None if part.groups is None else len(part.groups.unique()),
                "counts": dict(zip(part.class_names, part.class_counts, strict=True)),
                "fingerprint": part.fingerprint,
            }
            for name, part in parts.items()
        },
    }


def banner(text: str) -> None:
    """Say something that must not be overlooked."""
    rule = "=" * min(100, len(text))
    print(f"\n{rule}\n{text}\n{rule}\n", flush=True)
