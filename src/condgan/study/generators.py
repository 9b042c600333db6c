"""Generators of a study: trained so that a killed run goes on, kept as files, drawn from again and again."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from condgan import networks
from condgan.augmentation import DiffAugment
from condgan.data.dataset import ArrayDataset
from condgan.images import image_grid, to_uint8
from condgan.losses import AuxiliaryClassifierLoss
from condgan.networks import ACDCGANCritic, ACResNetCritic, Critic, DCGANGenerator, Generator, ResNetGenerator
from condgan.recipes import RECIPES
from condgan.sampling import class_grid, sample
from condgan.study.files import write_json
from condgan.study.network import Precision
from condgan.study.plan import RecipePlan
from condgan.study.selection import Criterion, KeepBest
from condgan.training import Callback, Checkpoint, JSONLLogger, Trainer
from condgan.training.engines import EngineName

SHOWN = 8
"""Images of each class on a sheet of samples."""

_CHUNK = 256
_CHECKPOINTS, _ROWS = 20, 200
_SECONDS_BETWEEN_REPORTS = 30.0
_OWN_NETWORKS = {"cgan": "dcgan", "acgan": "dcgan", "acwgan_gp": "resnet", "small_data": "dcgan"}
_OTHER_NETWORKS: dict[tuple[str, str], Callable[..., tuple[Generator, Critic]]] = {
    ("acwgan_gp", "dcgan"): lambda **shape: (
        DCGANGenerator(conditioning="batch_norm", **shape),
        ACDCGANCritic(**shape),
    ),
    ("acgan", "resnet"): lambda **shape: (ResNetGenerator(**shape), ACResNetCritic(**shape)),
}


def make_trainer(
    plan: RecipePlan,
    data: ArrayDataset,
    *,
    seed: int = 0,
    precision: Precision = "bf16",
    engine: EngineName = "auto",
    device: torch.device | str | None = None,
    callbacks: tuple[Callback, ...] = (),
) -> Trainer:
    """Make the trainer of a plan; `seed` governs initial weights and all draws.

    Raises:
        ValueError: If the recipe does not exist on the networks that the plan asks for.
    """
    width = {} if plan.base_channels is None else {"base_channels": plan.base_channels}
    options: dict[str, Any] = {**width}
    if plan.networks not in ("recipe", _OWN_NETWORKS.get(plan.recipe)):
        if (plan.recipe, plan.networks) not in _OTHER_NETWORKS:
            have = sorted({n for r, n in _OTHER_NETWORKS if r == plan.recipe} | {"recipe"})
            raise ValueError(f"networks of {plan.recipe} must be among {', '.join(have)}, got {plan.networks!r}.")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the generator of the CPU alone, unlike torch.manual_seed
            generator, critic = _OTHER_NETWORKS[plan.recipe, plan.networks](
                num_classes=data.num_classes, image_shape=data.image_shape, **width
            )
        options |= {"generator": generator, "critic": critic}
    if plan.augment is not None:
        options["augment"] = DiffAugment(policy=plan.augment)
    if plan.auxiliary is not None:
        options["auxiliary"] = AuxiliaryClassifierLoss(**plan.auxiliary)
    options |= {**plan.options, "seed": seed, "precision": precision, "engine": engine, "device": device}
    options["callbacks"] = callbacks
    return RECIPES[plan.recipe](data, **options)


def train_generator(
    plan: RecipePlan,
    data: ArrayDataset,
    folder: str | Path,
    *,
    criterion: Criterion | None = None,
    seed: int = 0,
    precision: Precision = "bf16",
    device: torch.device | str | None = None,
    deadline: float = math.inf,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any] | None:
    """Train a generator, or go on with it, and leave it in a folder.

    The folder then holds `generator` (the averaged one, see `Generator.from_pretrained`), `samples.png` (one row a
    class), `curve.json` (metrics over the steps), `run.json` (what is returned) and `checkpoints`. A call that was cut
    off goes on from the newest checkpoint, and ends as if it had not been.

    Args:
        plan: Recipe, networks and sizes.
        data: Training images.
        folder: Where everything goes.
        criterion: What the kept step is chosen by, for a plan that does not keep the last one.
        seed: Seed of initial weights and all draws.
        precision: Arithmetic of the passes.
        device: Where to train.
        deadline: Time of `time.monotonic` at which to stop with a checkpoint.
        report: Called with a line of text from time to time.

    Returns:
        What was trained, ready for JSON; None if the deadline came first.

    Raises:
        ValueError: If the data do not fit, the folder holds another run, or the criterion is missing.
        TrainingDivergedError: If a loss or gradient was not finite.
    """
    return GeneratorTraining(
        plan,
        data,
        folder,
        criterion=criterion,
        seed=seed,
        precision=precision,
        device=device,
        deadline=deadline,
        report=report,
    ).run()


class GeneratorTraining:
    """A training of `train_generator` before it is run: its trainer is where the newest checkpoint left it.

    Call `run`; or run the trainer with `sizes` side by side with others, then call `finish`. Arguments and errors are
    those of `train_generator`, and the trainer's `engine`.

    Attributes:
        trainer: The trainer.
        sizes: Arguments of its `fit`.
    """

    def __init__(
        self,
        plan: RecipePlan,
        data: ArrayDataset,
        folder: str | Path,
        *,
        criterion: Criterion | None = None,
        seed: int = 0,
        precision: Precision = "bf16",
        engine: EngineName = "auto",
        device: torch.device | str | None = None,
        deadline: float = math.inf,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.plan, self.data, self.folder, self.seed = plan, data, Path(folder), seed
        self._keep = _make_keeper(plan, self.folder / "generator", criterion)
        self._rows = JSONLLogger(self.folder / "curve.jsonl", every=max(1, plan.steps // _ROWS))
        self._watch = _Watch(deadline, report)
        checkpoint = Checkpoint(self.folder / "checkpoints", every=max(1, plan.steps // _CHECKPOINTS))
        callbacks = (*([self._keep] if self._keep else []), self._watch, self._rows, checkpoint)
        self.trainer = make_trainer(
            plan, data, seed=seed, precision=precision, engine=engine, device=device, callbacks=callbacks
        )
        self.trainer.resume(self.folder / "checkpoints")
        self.sizes: dict[str, Any] = {
            "steps": plan.steps,
            "batch_size": plan.batch_size,
            "generator_batch_size": plan.generator_batch_size,
        }

    @property
    def deadline(self) -> float:
        """Time of `time.monotonic` at which training stops with a checkpoint."""
        return self._watch.deadline

    @deadline.setter
    def deadline(self, value: float) -> None:
        self._watch.deadline = value

    def run(self) -> dict[str, Any] | None:
        """Train alone, and return what `finish` does."""
        self.trainer.fit(self.data, **self.sizes)
        return self.finish()

    def finish(self) -> dict[str, Any] | None:
        """Leave generator, samples and curve in the folder and return what was trained; None before the last step."""
        plan, data, state, keep = self.plan, self.data, self.trainer.state, self._keep
        if state.step < plan.steps:
            return None
        if keep is None:
            self.trainer.ema.save_pretrained(self.folder / "generator")
        pool = Pool(
            load_generator(self.folder, device=self.trainer.device),
            class_grid(data.num_classes, SHOWN),
            seed=self.seed,
            class_names=data.class_names,
            source="samples",
        )
        save_sheet(pool.first(len(pool.labels)).images, self.folder / "samples.png", columns=SHOWN)
        if self._rows.path.is_file():
            write_json(self.folder / "curve.json", self._rows.read_rows())
        description = {
            "recipe": plan.recipe,
            "class_names": list(data.class_names),
            "steps": state.step,
            "images_seen": state.images_seen,
            "seconds": round(self._watch.seconds, 1),
            "kept": {"step": keep.step, "criterion": plan.keep, "looks": keep.looks} if keep else {"step": state.step},
            "settings": self.trainer.settings,
            "generator_parameters": sum(p.numel() for p in self.trainer.networks.generator.parameters()),
            "critic_parameters": sum(p.numel() for p in self.trainer.networks.critic.parameters()),
            "last_metrics": state.metrics,
            "train": {"source": data.source, "fingerprint": data.fingerprint, "class_counts": list(data.class_counts)},
        }
        write_json(self.folder / "run.json", description)
        return description


def _make_keeper(plan: RecipePlan, folder: Path, criterion: Criterion | None) -> KeepBest | None:
    if plan.keep == "last":
        return None
    if criterion is None:
        raise ValueError(f"keep={plan.keep!r} needs a criterion, got None. Pass one, or keep the last step.")
    return KeepBest(folder, criterion, every=max(1, plan.steps // plan.looks))


def load_generator(folder: str | Path, *, device: torch.device | str = "cpu") -> Generator:
    """Load the generator that `train_generator` left in a folder.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of a class that this library does not have.
    """
    folder = Path(folder) / "generator"
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{str(folder)!r} must hold a trained generator, and does not. Finish its training.")
    name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["class"]
    found = getattr(networks, name, None) if name in networks.__all__ else None
    if not (isinstance(found, type) and issubclass(found, Generator)):
        raise ValueError(f"{str(folder)!r} must hold a generator of condgan.networks, got a {name}.")
    return found.from_pretrained(folder, device=device)


class Pool:
    """Images of one generator, drawn as they are needed and the same every time.

    Chunks of 256 have a random generator each, so that a larger pool begins with the images of a smaller one.

    Args:
        generator: The generator.
        labels: Labels of all images that may ever be asked for.
        seed: Seed of the latents.
        class_names: Names of the classes.
        source: What the images are, for results.

    Shape:
        - `labels`: `(N,)`, int64 in `[0, K)`.
    """

    def __init__(
        self, generator: Generator, labels: Tensor, *, seed: int, class_names: tuple[str, ...], source: str
    ) -> None:
        self.generator, self.labels, self.seed = generator, labels, seed
        self.class_names, self.source = class_names, source
        self._chunks: list[Tensor] = []

    def first(self, count: int) -> ArrayDataset:
        """Return the first so many images.

        Raises:
            ValueError: If the pool has fewer labels.
        """
        if count > len(self.labels):
            raise ValueError(f"the pool has {len(self.labels)} images, got a request for {count}.")
        device = next(self.generator.parameters()).device
        for number in range(len(self._chunks), math.ceil(count / _CHUNK)):
            rng = torch.Generator(device).manual_seed(self.seed * 2**32 + number)
            y = self.labels[number * _CHUNK : (number + 1) * _CHUNK]
            self._chunks.append(to_uint8(sample(self.generator, y, rng=rng)).cpu())
        return ArrayDataset(
            torch.cat(self._chunks)[:count],
            self.labels[:count],
            class_names=self.class_names,
            source=self.source,
        )


def save_sheet(images: Tensor, path: Path, *, columns: int) -> None:
    """Save uint8 images on one sheet, row by row.

    Shape:
        - `images`: `(N, C, H, W)`, uint8, with 1 or 3 channels.
    """
    save_picture(image_grid(images, columns=columns), path)


def save_picture(image: Tensor, path: Path) -> None:
    """Save one uint8 image as PNG; the folder is made if missing.

    Shape:
        - `image`: `(C, H, W)`, uint8, with 1 or 3 channels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image.permute(1, 2, 0) if len(image) == 3 else image[0]).numpy()).save(path)


class _Watch(Callback):
    """Adds up the seconds of training over interruptions, tells how far it is, and stops it in time."""

    def __init__(self, deadline: float, report: Callable[[str], None] | None) -> None:
        super().__init__()
        self.deadline, self.report = deadline, report
        self.seconds = 0.0

    @override
    def on_fit_start(self, trainer: Trainer) -> None:
        self._last = self._reported = time.perf_counter()

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        now = time.perf_counter()
        self.seconds += now - self._last
        self._last = now
        state = trainer.state
        if time.monotonic() >= self.deadline:
            trainer.request_stop("time limit")
        if self.report is not None and now - self._reported > _SECONDS_BETWEEN_REPORTS:
            self._reported = now
            left = self.seconds * (state.total_steps / state.step - 1)
            self.report(f"step {state.step} of {state.total_steps}, about {in_words(left)} left")

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds = state["seconds"]


def in_words(seconds: float) -> str:
    """Return a length of time for humans.

    Examples:
        >>> in_words(42), in_words(600), in_words(9000)
        ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
