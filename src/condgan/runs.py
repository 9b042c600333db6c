"""Runs: training a generator into a folder, where a killed run goes on, and the images that it makes afterwards."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, cast, get_args

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from typing_extensions import override

from condgan import networks
from condgan.augmentation import DiffAugment
from condgan.auxiliary import AuxiliaryClassifierLoss
from condgan.classifier import Classifier, train_classifier
from condgan.classifier.network import Precision
from condgan.data.dataset import ArrayDataset
from condgan.devices import best_device
from condgan.files import (
    as_json,
    as_path,
    check_count,
    check_names,
    check_not_negative,
    load_record,
    read_record,
    to_json,
    write_json,
    write_record,
)
from condgan.images import save_sheet, to_uint8
from condgan.metrics.crossfit import classifier_extractor
from condgan.metrics.extractors import Extractor
from condgan.metrics.fidelity import kid
from condgan.networks import Generator
from condgan.recipes import CONDITIONAL, RECIPES, WITH_CLASSIFIER, NetworkFamily
from condgan.sampling import class_grid, class_probabilities, named_distribution, sample
from condgan.training import Callback, Checkpoint, JSONLLogger, KeepBest, Trainer
from condgan.training.engines import EngineName

Networks = Literal["recipe", NetworkFamily]
Kept = Literal["last", "best_kid"]
ClassBalance = Literal["weights", "prior"]
SHOWN = 8
"""Images of each class on a sheet of samples."""

Criterion = Callable[[Trainer], float]
"""Scores the averaged generator of a trainer; smaller is better."""

# keywords of recipes and of the trainer that have a field or an argument of their own
_NOT_OPTIONS = {"data", "trainer_options", "generator", "critic", "networks", "base_channels", "augment", "auxiliary"}
_NOT_OPTIONS |= {"precision", "engine", "device", "seed", "callbacks", "label_distribution", "sampling"}
# and those that are objects
_NOT_OPTIONS |= {"loss", "regularizers", "generator_optimizer", "critic_optimizer"}
_AUXILIARY_WEIGHTS = ("real_weight", "fake_weight", "generator_weight")
_CHUNK = 256
_CHECKPOINTS, _ROWS = 20, 200
_SECONDS_BETWEEN_REPORTS, _SECONDS_BETWEEN_GENERATORS = 30.0, 10.0
_KID_IMAGES = 200  # of each class, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeConfig:
    """How a generator is trained: a recipe, its networks and sizes.

    Args:
        recipe: Name of a conditional recipe.
        steps: Generator updates.
        batch_size: Images per critic step.
        generator_batch_size: Images per generator step; by default `batch_size`.
        networks: `"recipe"` for those of its paper, else `"dcgan"`, `"resnet"` or `"r3gan"`: two recipes on the same
            networks differ in their losses only. For `small_data` they are those of the critic.
        base_channels: Width of the networks; None for the recipe's default.
        augment: Policy of a `DiffAugment` in front of the critic, such as `"translation,cutout"`; None for the
            augmentation of the recipe, if it has one.
        auxiliary: Weights of the recipe's `AuxiliaryClassifierLoss`, such as `{"generator_weight": 0.2}`; those that
            are not given are the recipe's.
        class_balance: How the class loss undoes an imbalance of the real classes as they are sampled: by
            `"weights"` inverse to their probabilities, or by these as class `"prior"`, see `AuxiliaryClassifierLoss`.
            None leaves the imbalance; under balanced sampling there is none.
        sampling: Distribution of the classes of real images: `"balanced"`, `"natural"`, or between them
            `"tempered:T"`, such as `"tempered:0.5"`, see `Tempered`; None for the recipe's.
        label_distribution: Distribution of the labels of generated images: `"balanced"`, `"empirical"`,
            `"tempered:T"`, or `"paired"`, the labels of the real batch; None for the recipe's.
        keep: Which step's generator is kept: `"last"`, or `"best_kid"`, the one of the smallest KID on validation
            images, class by class, in the features of a classifier of real images (see `class_kid`). The latter uses
            real images that are not trained on.
        evaluations: Number of evaluations to choose that step by, evenly spaced over the steps with a critic, the last
            included.
        options: Further keywords of the recipe and of the `Trainer`, numbers and strings only, such as
            `{"ema_decay": 0.9}`.

    Raises:
        ValueError: If a name is unknown, a number is out of range, a value cannot be written as JSON and read again,
            or the recipe has another class loss than the one to be changed.
    """

    recipe: str = "small_data"
    steps: int = 20_000
    batch_size: int = 64
    generator_batch_size: int | None = None
    networks: Networks = "recipe"
    base_channels: int | None = None
    augment: str | None = None
    auxiliary: dict[str, float] | None = None
    class_balance: ClassBalance | None = None
    sampling: str | None = None
    label_distribution: str | None = None
    keep: Kept = "last"
    evaluations: int = 10
    options: dict[str, bool | int | float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.recipe in RECIPES and self.recipe not in CONDITIONAL:
            raise ValueError(
                f"recipe must generate images of a class that is asked for, got {self.recipe!r}, which has no classes. "
                f"Train it from Python: condgan.recipes.{self.recipe}(data)."
            )
        check_names("recipe", [self.recipe], CONDITIONAL)
        if self._given("auxiliary", "class_balance") and self.recipe not in WITH_CLASSIFIER:
            raise ValueError(
                f"auxiliary and class_balance change an AuxiliaryClassifierLoss, got recipe {self.recipe!r}, which has "
                f"none. Leave them out, or choose among {', '.join(WITH_CLASSIFIER)}."
            )
        check_names("networks", [self.networks], get_args(Networks))
        check_names("auxiliary", self.auxiliary or {}, _AUXILIARY_WEIGHTS)
        check_names("class_balance", self._given("class_balance").values(), get_args(ClassBalance))
        check_names("keep", [self.keep], get_args(Kept))
        for name in {entry.name for entry in fields(self)} & {*self.options}:
            raise ValueError(
                f"options must be keywords without an argument of their own, got {name!r}. Pass it beside the options: "
                f"RecipeConfig({name}=...)."
            )
        check_names("options", self.options, _options_of(self.recipe))
        self._check_values()

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def _check_values(self) -> None:
        sizes = self._given("steps", "batch_size", "generator_batch_size", "base_channels", "evaluations")
        _check_plain("sizes", sizes, int, hint="Pass whole numbers.")
        for name, value in sizes.items():
            check_count(name, value)
        _check_plain("weights of auxiliary", self.auxiliary or {}, int, float, hint="Pass plain numbers.")
        for name, value in (self.auxiliary or {}).items():
            check_not_negative(name, value)
        distributions = self._given("sampling", "label_distribution")
        _check_plain("distributions", distributions, str, hint="Pass its name, such as 'tempered:0.5'.")
        for name, value in distributions.items():
            if (name, value) != ("label_distribution", "paired"):
                named_distribution(value)
        for policy in self._given("augment").values():
            _check_plain("a policy", {"augment": policy}, str, hint="Pass its operations, 'translation,cutout'.")
            DiffAugment(policy)
        hint = "Call the recipe itself, a function of condgan.recipes, with other objects."
        _check_plain("options", self.options, bool, int, float, str, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionValue:
    """The value, at a step, of the criterion that the kept step is chosen by."""

    step: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStep:
    """Which step's generator was kept.

    Args:
        step: The step.
        criterion: What it was chosen by, see `RecipeConfig.keep`; None for the last step.
        evaluations: Values of the criterion, in order.
    """

    step: int
    criterion: str | None = None
    evaluations: tuple[CriterionValue, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingImages:
    """The images that a generator was trained on.

    Args:
        source: Where they come from.
        fingerprint: Digest of images and labels.
        class_counts: Number of images of each class.
    """

    source: str
    fingerprint: str
    class_counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDescription:
    """What was trained: the content of `run.json`.

    Args:
        recipe: Name of the recipe.
        class_names: Names of the classes.
        steps: Generator updates.
        images_seen: Real images that the critic has seen, and in pretraining the generator.
        seconds: Training time without interruptions.
        kept: The step whose generator was kept.
        settings: Networks, terms and options of the trainer, see `Trainer.settings`.
        generator_parameters: Number of weights of the generator.
        critic_parameters: Number of weights of the critic.
        last_metrics: Losses of the last step that was logged.
        train: The training images.
        total_steps: Generator updates that were asked for; None in files of earlier versions, which describe finished
            trainings only.
    """

    recipe: str
    class_names: tuple[str, ...]
    steps: int
    images_seen: int
    seconds: float
    kept: KeptStep
    settings: dict[str, object]
    generator_parameters: int
    critic_parameters: int
    last_metrics: dict[str, float]
    train: TrainingImages
    total_steps: int | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.total_steps is None or self.steps >= self.total_steps


@contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Keep other processes that ask for the same lock out of a folder, which is made if missing.

    The operating system frees the lock of a process that ends in any way.

    Args:
        folder: The folder.
        name: File of the lock; it is deleted afterwards, and so is the folder if nothing was written.

    Raises:
        BlockingIOError: If another process has the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / name, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(
            f"another process is at work in {str(folder)!r}. Wait until it ends, or choose another folder."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes no open file
            (folder / name).unlink()
        lock.release()
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def load_run(folder: str | Path) -> RunDescription:
    """Read the description that `train_generator` wrote into a folder.

    Raises:
        FileNotFoundError: If the folder has no such file.
        ValueError: If it cannot be read; the message names the file.
    """
    path = as_path(folder) / "run.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} must be the folder of a trained generator, got one without run.json. Train one with "
            "condgan train."
        )
    return load_record(RunDescription, path)


def train_generator(
    config: RecipeConfig,
    data: ArrayDataset,
    folder: str | Path,
    *,
    criterion: Criterion | None = None,
    seed: int = 0,
    precision: Precision = "bf16",
    device: torch.device | str | None = None,
    deadline: float = math.inf,
    report: Callable[[str], None] | None = None,
) -> RunDescription | None:
    """Train a generator into a folder, or continue an interrupted training.

    The folder then holds `generator` (the averaged one, see `load_generator`), `samples.png` (one row per class),
    `curve.json` (metrics over the steps), `run.json` (what is returned, see `load_run`) and `checkpoints`. An
    interrupted training continues from the newest checkpoint and ends with the same weights as an uninterrupted one;
    a stopped one leaves the same files, of the step where it stopped, and a killed one of a checkpoint. Nothing is
    written before all arguments are checked.

    Args:
        config: Recipe, networks and sizes.
        data: Training images.
        folder: Where everything goes.
        criterion: What the kept step is chosen by; required unless the configuration keeps the last step.
        seed: Seed of initial weights and all draws.
        precision: Precision of the passes.
        device: Where to train.
        deadline: Time of `time.monotonic` at which to stop with a checkpoint.
        report: Called with a line of progress about every 30 seconds.

    Returns:
        What was trained; None if the deadline came first.

    Raises:
        ValueError: If the data do not fit the recipe, the folder holds another run, or the criterion is missing.
        BlockingIOError: If another process trains into the folder.
        TrainingDivergedError: If a loss or gradient was not finite.
    """
    with locked(as_path(folder)):
        return GeneratorTraining(
            config,
            data,
            folder,
            criterion=criterion,
            seed=seed,
            precision=precision,
            device=device,
            deadline=deadline,
            report=report,
        ).run()


class Sizes(TypedDict):
    """Arguments of `Trainer.fit` that a `RecipeConfig` gives."""

    steps: int
    batch_size: int
    generator_batch_size: int | None


class GeneratorTraining:
    """The training that `train_generator` runs, in the state of the newest checkpoint.

    Call `run`; or train several of them side by side with `fit_together` and `sizes`, then call `finish` of each.
    Arguments and errors are those of `train_generator`, and the trainer's `engine`. The constructor writes nothing. See
    to it that no other process uses the folder, see `locked`.

    Attributes:
        trainer: The trainer.
        sizes: Arguments of its `fit`.
    """

    def __init__(
        self,
        config: RecipeConfig,
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
        self.config, self.data, self.folder, self.seed = config, data, as_path(folder), seed
        self._keeper = None if config.keep == "last" else KeepBest(self.folder / "generator", config.keep)
        self._rows = JSONLLogger(self.folder / "curve.jsonl", every=max(1, config.steps // _ROWS))
        self._watch = _Watch(deadline, report)
        every = max(1, config.steps // _CHECKPOINTS)
        written = (Checkpoint(self.folder / "checkpoints", every=every), _WriteUnfinished(self.write, every=every))
        keepers = [] if self._keeper is None else [self._keeper, self._make_judge(self._keeper, criterion)]
        self.trainer = make_trainer(
            config,
            data,
            seed=seed,
            precision=precision,
            engine=engine,
            device=device,
            callbacks=(*keepers, self._watch, self._rows, *written),
        )
        self.trainer.resume(self.folder / "checkpoints")
        self.trainer.check_same_data(data)
        self.sizes: Sizes = {
            "steps": config.steps,
            "batch_size": config.batch_size,
            "generator_batch_size": config.generator_batch_size,
        }

    @property
    def deadline(self) -> float:
        """Time of `time.monotonic` at which training stops with a checkpoint."""
        return self._watch.deadline

    @deadline.setter
    def deadline(self, value: float) -> None:
        self._watch.deadline = value

    def run(self) -> RunDescription | None:
        """Train, and return what `finish` returns."""
        self.trainer.fit(self.data, progress=False, **self.sizes)
        return self.finish()

    def finish(self) -> RunDescription | None:
        """Write generator, samples, curve and description; return the description, or None before the last step."""
        description = self.write()
        return description if description.is_finished else None

    def write(self) -> RunDescription:
        """Write generator, samples, curve and description of the current step, and return the description."""
        if self._keeper is None or not self._keeper.step:
            self.trainer.ema.save_pretrained(self.folder / "generator")
        self._save_samples()
        if self._rows.path.is_file():
            write_json(self.folder / "curve.json", as_json(self._rows.read_rows()))
        description = self._describe()
        write_record(self.folder / "run.json", to_json(description))
        return description

    def _make_judge(self, keeper: KeepBest, criterion: Criterion | None) -> _Judge:
        config = self.config
        if criterion is None:
            raise ValueError(f"keep={config.keep!r} needs a criterion, got None. Pass one, or keep the last step.")
        return _Judge(keeper, criterion, evaluations=config.evaluations)

    def _save_samples(self) -> None:
        pool = Pool(
            load_generator(self.folder, device=self.trainer.device),
            class_grid(self.data.num_classes, SHOWN),
            seed=self.seed,
            class_names=self.data.class_names,
            source="samples",
        )
        images = pool.first(len(pool.labels)).images
        save_sheet(images, self.folder / "samples.png", columns=SHOWN, row_names=self.data.class_names)

    def _describe(self) -> RunDescription:
        data, state, keeper, networks = self.data, self.trainer.state, self._keeper, self.trainer.networks
        return RunDescription(
            recipe=self.config.recipe,
            class_names=data.class_names,
            steps=state.step,
            total_steps=self.config.steps,
            images_seen=state.images_seen,
            seconds=round(self._watch.seconds, 1),
            kept=KeptStep(step=state.step)
            if keeper is None or not keeper.step
            else KeptStep(
                step=keeper.step,
                criterion=self.config.keep,
                evaluations=tuple(CriterionValue(step=s, value=v) for s, v in keeper.evaluations.items()),
            ),
            settings=as_json(self.trainer.settings),
            generator_parameters=sum(p.numel() for p in networks.generator.parameters()),
            critic_parameters=sum(p.numel() for p in networks.critic.parameters()),
            last_metrics=state.metrics,
            train=TrainingImages(source=data.source, fingerprint=data.fingerprint, class_counts=data.class_counts),
        )


def make_trainer(
    config: RecipeConfig,
    data: ArrayDataset,
    *,
    seed: int = 0,
    precision: Precision = "bf16",
    engine: EngineName = "auto",
    device: torch.device | str | None = None,
    callbacks: tuple[Callback, ...] = (),
) -> Trainer:
    """Make the trainer of a configuration; `seed` determines initial weights and all draws."""
    options: dict[str, Any] = {}
    if config.networks != "recipe":
        options["networks"] = config.networks
    if config.base_channels is not None:
        options["base_channels"] = config.base_channels
    if config.augment is not None:
        options["augment"] = DiffAugment(config.augment)
    if config.sampling is not None:
        options["sampling"] = named_distribution(config.sampling)
    if config.label_distribution is not None:
        paired = config.label_distribution == "paired"
        options["label_distribution"] = "paired" if paired else named_distribution(config.label_distribution)
    options |= {**config.options, "seed": seed, "precision": precision, "engine": engine, "device": device}
    options["callbacks"] = callbacks
    trainer = RECIPES[config.recipe](data, **options)
    _change_class_loss(trainer, config, data)
    return trainer


def _change_class_loss(trainer: Trainer, config: RecipeConfig, data: ArrayDataset) -> None:
    """Put the weights of the configuration, and those that undo an imbalance, into the class loss of the recipe."""
    changes: dict[str, Any] = {**(config.auxiliary or {})}
    if config.class_balance is not None:
        sampled = class_probabilities(trainer.sampling, data.class_counts)
        if config.class_balance == "weights":
            changes["class_weights"] = (1 / sampled).tolist()
        else:
            changes["class_prior"] = sampled.tolist()
    if not changes:
        return
    losses = [replace(cast(AuxiliaryClassifierLoss, loss), **changes) for loss in trainer.terms.auxiliary]
    trainer.terms = replace(trainer.terms, auxiliary=losses)


def load_generator(folder: str | Path, *, device: torch.device | str = "cpu") -> Generator:
    """Load the generator that `train_generator` wrote into a folder.

    Raises:
        FileNotFoundError: If the folder holds none.
        ValueError: If its class is not a generator of `condgan.networks`, or its arguments do not fit its weights.
    """
    folder = as_path(folder) / "generator"
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} must hold a trained generator, got no config.json. Train one with condgan train."
        )
    content = read_record(folder / "config.json")
    name = content.get("class")
    found = getattr(networks, name, None) if name in networks.__all__ else None
    if not (isinstance(found, type) and issubclass(found, Generator)):
        raise ValueError(f"{str(folder)!r} must hold a generator of condgan.networks, got a {name}.")
    _check_size(found, content.get("arguments"), folder)
    return found.from_pretrained(folder, device=device)


def _check_size(cls: type[Generator], arguments: Any, folder: Path) -> None:
    """Check that arguments describe a network about as large as the weights beside them, before it takes memory."""
    path, weights = folder / "config.json", folder / "model.safetensors"
    try:
        with torch.device("meta"):
            size = sum(tensor.nbytes for tensor in cls(**arguments).state_dict().values())
    except Exception as error:  # wrong arguments can fail in any way
        raise ValueError(
            f"{str(path)!r} must hold the arguments of a {cls.__name__}, got {arguments}: {error}"
        ) from error
    if weights.is_file() and size > 8 * weights.stat().st_size:  # weights may be in half precision
        raise ValueError(
            f"{str(path)!r} must describe the weights beside it, {weights.stat().st_size:,} bytes, got arguments of a "
            f"{cls.__name__} of {size:,} bytes."
        )


class Pool:
    """Images of one generator, made as they are needed and the same every time.

    Each chunk of 256 has a random generator of its own, so that a larger pool begins with the images of a smaller one.

    Args:
        generator: The generator.
        labels: Labels of all images of the pool.
        seed: Seed of the latents.
        class_names: Names of the classes.
        source: Description of the images, for results.

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
        """Return the first `count` images.

        Raises:
            ValueError: If the pool has fewer labels.
        """
        if count > len(self.labels):
            raise ValueError(f"the pool has {len(self.labels)} images, got a request for {count}.")
        device = next(self.generator.parameters()).device
        for number in range(len(self._chunks), math.ceil(count / _CHUNK)):
            # 32 bits of both numbers: the generator of the CPU takes no more of a seed
            (mixed,) = np.random.SeedSequence([self.seed, number]).generate_state(1).tolist()
            rng = torch.Generator(device).manual_seed(mixed)
            y = self.labels[number * _CHUNK : (number + 1) * _CHUNK]
            self._chunks.append(to_uint8(sample(self.generator, y, rng=rng)).cpu())
        return ArrayDataset(
            torch.cat(self._chunks)[:count],
            self.labels[:count],
            class_names=self.class_names,
            source=self.source,
        )


def class_kid(validation: ArrayDataset, extractor: Extractor, *, seed: int = 0) -> Criterion:
    r"""Return the criterion "mean KID over classes": of generated against real validation images, class by class.

    $$ \frac1K \sum_k \mathrm{KID}(\tilde x \mid \tilde y = k,\; x \mid y = k) $$

    It is large for a generator that confuses classes or repeats one image, even if single images look real. The
    estimate is unbiased in the number of images. At most 200 images of each class are compared, and the latents are
    the same in every evaluation.

    Args:
        validation: Real images of patients that the generator is not trained on.
        extractor: Network of the features.
        seed: Seed of the latents.

    References:
        Bińkowski et al. 2018, arXiv:1801.01401, which lowers the learning rate by the KID on held-out images.
    """
    shown = min(_KID_IMAGES, *validation.class_counts)
    real = [
        extractor(validation.images[(validation.labels == label).nonzero().flatten()[:_KID_IMAGES]])
        for label in range(validation.num_classes)
    ]
    y = class_grid(validation.num_classes, shown)

    def distance(trainer: Trainer) -> float:
        features = extractor(to_uint8(trainer.sample(y, seed=seed)).cpu())
        scores = [kid(features[y == k], x, subsets=1, subset_size=_KID_IMAGES) for k, x in enumerate(real)]
        return sum(score.value for score in scores) / len(scores)

    return distance


def classifier_kid(
    classifier: Classifier, validation: ArrayDataset, *, name: str, device: torch.device | str | None = None
) -> Criterion:
    """Return the criterion `class_kid` in the features of a classifier of real images.

    Args:
        classifier: A classifier trained on real images of other patients than those of `validation`.
        validation: Real images of patients that the generator is not trained on.
        name: Name of the features.
        device: Where to compute them. By default CUDA, then MPS, then the CPU.
    """
    return class_kid(validation, classifier_extractor(classifier, name=name, device=device))


def held_out_kid(
    train: ArrayDataset,
    held_out: ArrayDataset,
    path: str | Path,
    *,
    precision: Precision = "bf16",
    device: torch.device | str | None = None,
    seed: int = 0,
) -> Criterion:
    """Return the criterion `class_kid` on held-out images, in the features of a classifier of the training images.

    The classifier is trained in the first call and kept in a file, so that a training that continues is judged by the
    same network. Its best epoch is chosen on the held-out images.

    Args:
        train: Real images that the generator is trained on.
        held_out: Real images of other patients.
        path: File of the classifier.
        precision: Precision of its training.
        device: Where to compute. By default CUDA, then MPS, then the CPU.
        seed: Seed of its training.
    """
    if not as_path(path).is_file():
        train_classifier(train, held_out, precision=precision, device=device, seed=seed).save(path)
    classifier = Classifier.load(path, device=best_device() if device is None else device)
    return classifier_kid(classifier, held_out, name=f"ResNet-18 trained on {train.source}", device=device)


def in_words(seconds: float) -> str:
    """Return a duration for readers.

    Examples:
        >>> in_words(42), in_words(600), in_words(9000)
        ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class _Judge(Callback):
    """Scores the averaged generator for a `KeepBest`. The score is not among the metrics of the training."""

    def __init__(self, keeper: KeepBest, criterion: Criterion, *, evaluations: int) -> None:
        super().__init__()
        self.keeper, self.criterion, self.evaluations = keeper, criterion, evaluations

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        first, last = trainer.pretraining_steps, trainer.state.total_steps
        every = max(1, (last - first) // self.evaluations)
        done = trainer.state.step - first
        if done > 0 and (done % every == 0 or trainer.state.step == last):
            self.keeper.consider(trainer, self.criterion(trainer))


class _WriteUnfinished(Callback):
    """Writes what can be used of a training that may be killed, after checkpoints, but not more often than needed."""

    runs_last = True

    def __init__(self, write: Callable[[], object], *, every: int) -> None:
        super().__init__(every)
        self.write = write

    @override
    def on_fit_start(self, trainer: Trainer) -> None:
        self._written = time.perf_counter()

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        if time.perf_counter() - self._written > _SECONDS_BETWEEN_GENERATORS:
            self.write()
            self._written = time.perf_counter()

    @override
    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt) and trainer.between_steps:
            self.write()


class _Watch(Callback):
    """Adds up the seconds of training over interruptions, reports progress, and stops training at the deadline."""

    def __init__(self, deadline: float, report: Callable[[str], None] | None) -> None:
        super().__init__()
        self.deadline, self.report = deadline, report
        self.seconds = self.before = 0.0  # in all, and before there was a critic

    @override
    def on_fit_start(self, trainer: Trainer) -> None:
        self._last = self._reported = time.perf_counter()

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        now = time.perf_counter()
        self.seconds += now - self._last
        self._last = now
        state = trainer.state
        if state.step <= trainer.pretraining_steps:
            self.before = self.seconds
        if time.monotonic() >= self.deadline:
            trainer.request_stop("time limit")
        if self.report is not None and now - self._reported > _SECONDS_BETWEEN_REPORTS:
            self._reported = now
            self.report(f"step {state.step} of {state.total_steps}, {self._left(trainer)}")

    def _left(self, trainer: Trainer) -> str:
        done = trainer.state.step - trainer.pretraining_steps
        if done <= 0:
            return "without a critic so far"
        each = (self.seconds - self.before) / done
        return f"about {in_words(each * (trainer.state.total_steps - trainer.state.step))} left"

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "before": self.before}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds = state["seconds"]
        self.before = state.get("before", 0.0)  # not in checkpoints from before there was pretraining


def _check_plain(role: str, values: Mapping[str, object], *kinds: type, hint: str) -> None:
    for name, value in values.items():
        if type(value) not in kinds or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(
                f"{role} must be finite and of type {' or '.join(kind.__name__ for kind in kinds)}, which files can "
                f"hold, got {name}={value!r}. {hint}"
            )


def _options_of(recipe: str) -> set[str]:
    parameters = {*inspect.signature(Trainer).parameters, *inspect.signature(RECIPES[recipe]).parameters}
    return parameters - _NOT_OPTIONS
