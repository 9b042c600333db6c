"""The command line: `condgan train | sample | evaluate | study | info` for any folder of labelled images.

A flag is a field of a command below, or a keyword of what the command calls (`RecipeConfig`, `StudyConfig`,
`train_generator`, `metrics.evaluate`), with the default and the documentation of that keyword. `--config FILE` reads
flags from a TOML file.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import math
import re
import shlex
import sys
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, cast, get_args, get_origin, get_type_hints
from unicodedata import normalize

import torch
import tyro
from docstring_parser import parse as parse_docstring
from torch import Tensor

from condgan._version import __version__
from condgan.budget import check_length, plan_in
from condgan.data import ArrayDataset, ImageFolder, check_disjoint
from condgan.devices import best_device, check_device, device_names
from condgan.files import as_path, check_names, check_not_negative, load_record, to_json, write_record
from condgan.images import save_picture, save_sheet, to_uint8
from condgan.metrics import Evaluation, LabelVerdict, evaluate
from condgan.metrics.crossfit import FOLDS
from condgan.networks import Generator
from condgan.runs import (
    Criterion,
    GeneratorTraining,
    RecipeConfig,
    RunDescription,
    held_out_kid,
    load_generator,
    load_run,
    locked,
    train_generator,
)
from condgan.sampling import sample
from condgan.study import Study, StudyConfig, make_cells, merge, write_report
from condgan.study.cells import choose_cells
from condgan.study.data import too_few_to_judge
from condgan.study.provenance import versions
from condgan.study.report.words import answer_words, question_words
from condgan.study.summaries import summarize
from condgan.training import TrainingDivergedError
from condgan.training.checkpoint import newest_step
from condgan.types import ImageShape

__all__ = ["main"]

RESEARCH_ONLY = "For research only: its results must not be used to diagnose anybody."
_TEST_SHARE, _VALIDATION_SHARE = 0.2, 0.15

_AT_ONCE = 256  # images in memory
# what paths or file systems give a meaning: separators, a dot in front, a dot or space at the end, devices of Windows
_MEANINGFUL = re.compile(
    r"""[\x00-\x1f\x7f/\\:*?"<>|%]|^\.|[. ]$|^(?=(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)).""", re.IGNORECASE
)

Flags = Any  # an instance of a class that `_flags` made
Rule = Callable[[Path], str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    It is 0, 2 for an error in flags or data, 130 for Ctrl-C, or 1 for a fault of the library, whose traceback is kept.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if words == ["--version"]:
        sys.stdout.write(f"condgan {__version__}\n")
        return 0
    name = " ".join(["condgan", *words[:1]])

    def tell(kind: str, text: object) -> None:
        say(f"{name}: {kind}: {_with_flags(' '.join(str(text).split()), words[0])}")

    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *place: tell("warning", message)
            command = parse(words)
            check_flags(command)
            command.execute(words)
    except (ValueError, OSError, FloatingPointError, TrainingDivergedError) as error:
        tell("error", error)
        return 2
    except (MemoryError, torch.OutOfMemoryError) as error:
        tell("error", f"memory is short. Take smaller images, batches or networks. {error}")
        return 2
    except KeyboardInterrupt:
        say(f"{name}: interrupted; run the same command again to continue")
        return 130
    except Exception as error:
        with NamedTemporaryFile("w", prefix="condgan-", suffix=".txt", delete=False, encoding="utf-8") as file:
            traceback.print_exc(file=file)
        tell("fault", f"{type(error).__name__}: {error}. This is a mistake in condgan. Please report {file.name}")
        return 1
    return 0


def say(line: str) -> None:
    """Tell the user something that is not a result."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _flags(about: str, target: Callable[..., Any], *names: str) -> type[Any]:
    """Return a dataclass of keywords of a function or dataclass, with their types and defaults, and their help.

    Args:
        about: Heading of these flags in the help.
        target: The function or dataclass; its docstring describes the keywords.
        *names: The keywords.
    """
    hints = get_type_hints(target)
    help_of = {entry.arg_name: entry.description for entry in parse_docstring(inspect.getdoc(target) or "").params}
    factories = {entry.name: entry.default_factory for entry in fields(target)} if is_dataclass(target) else {}
    made = []
    for name, parameter in inspect.signature(target).parameters.items():
        if name not in names:
            continue
        text = " ".join((help_of[name] or "").replace("`", "").split())
        factory = factories.get(name, MISSING)
        default = field(default=parameter.default) if factory is MISSING else field(default_factory=factory)
        made.append((name, Annotated[_without_objects(hints[name]), tyro.conf.arg(help=text)], default))
    return make_dataclass("Flags", made, namespace={"__doc__": about}, frozen=True, kw_only=True)


def _without_objects(hint: Any) -> Any:
    """Return the parts of a union that can be typed on a command line: text and numbers, but no devices or networks."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    typed = [part for part in get_args(hint) if not inspect.isclass(part) or part.__module__ == "builtins"]
    return Union[tuple(typed)]  # noqa: UP007 - made when the program runs


def _with_flags(text: str, command: str) -> str:
    """Write keywords in a message as flags: `batch_size` as `--batch-size`, `steps=3` as `--steps 3`."""
    known = _flag_names(command) if command in _COMMANDS else set()

    def flag(found: re.Match[str]) -> str:
        name, equals = found.groups()
        is_flag = name in known and ("_" in name or equals)
        return f"--{name.replace('_', '-')}{' ' if equals else ''}" if is_flag else found[0]

    return re.sub(r"(?<![\w./\\'\"-])(\w+)\b(=?)(?![/\\.'\"]\w)", flag, text)


def _flag_names(command: str) -> set[str]:
    """Return the names of the fields of a command that are flags: no positional folders, no groups of flags."""
    others = ("data", "folder", "folders", "generator", "generators", "running", "how", "plan")
    cls = _COMMANDS[command]
    return {name for part in (cls, *cls.groups) for name in _all_but(part, *others)}


def check_flags(command: Command) -> None:
    """Check what several commands have, before anything is read.

    Raises:
        ValueError: If a device is absent, or a number is out of range.
    """
    parts = [command, *(getattr(command, entry.name) for entry in fields(command))]
    given = {entry.name: getattr(part, entry.name) for part in parts if is_dataclass(part) for entry in fields(part)}
    if given.get("device") is not None:
        check_device("--device", given["device"])
    if given.get("time_limit") is not None:
        check_not_negative("--time-limit", given["time_limit"])
    for name in {"seed", "split_seed"} & given.keys():
        if not 0 <= given[name] < 2**32:
            raise ValueError(f"--{name.replace('_', '-')} must lie in [0, {2**32}), got {given[name]}.")


def _all_but(cls: type[Any], *names: str) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(cls) if entry.name not in names)


def _given(flags: Flags) -> dict[str, Any]:
    """Return the values of flags as keyword arguments."""
    return {entry.name: getattr(flags, entry.name) for entry in fields(flags)}


_GENERATOR = "How generators are trained."
_SIZES = ("steps", "batch_size", "base_channels")
_TrainFlags = _flags(_GENERATOR, RecipeConfig, *_all_but(RecipeConfig, *_SIZES))
_RecipeFlags = _flags(_GENERATOR, RecipeConfig, *_all_but(RecipeConfig, "recipe", "networks"))
_StudyFlags = _flags("What the study computes.", StudyConfig, *_all_but(StudyConfig, "image_shape", "recipes"))
_RunFlags = _flags("How training is run.", train_generator, "seed", "precision", "device")
_EvaluateFlags = _flags("How images are evaluated.", evaluate, "extractor", "precision", "device", "seed")


@dataclass(frozen=True, kw_only=True)
class Folders:
    """How folders of images are read.

    Args:
        image_shape: Channels (1 for greyscale, 3 for color), height and width in pixels, to which images are resized.
        groups: How the patient of an image is found: a regular expression whose captured groups, or else whole match,
            in the path name the patient; or a .csv file with the columns path and group.
        split_seed: Seed of the splits.
    """

    image_shape: ImageShape = (1, 64, 64)
    groups: str | None = None
    split_seed: int = 0

    def read(self, root: Path, *, class_names: Sequence[str] | None = None) -> ImageFolder:
        """Read a folder with one folder of images per class.

        Raises:
            FileNotFoundError: If it does not exist.
            ValueError: If its images or classes do not fit, or a path names no patient.
        """
        rule = None if self.groups is None else group_rule(self.groups, root)
        return ImageFolder(root, self.image_shape, group=rule, class_names=class_names, progress=False)

    def split(self, data: ArrayDataset, share: float) -> tuple[ArrayDataset, ArrayDataset]:
        """Split off a share of the patients."""
        return data.split(share, seed=self.split_seed)


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """What `condgan evaluate` needs to know about the training: the content of `data.json`.

    Args:
        folders: How the folder was read.
        held_out: Share of the patients that was not trained on.
    """

    folders: Folders
    held_out: float


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a generator, or continue its training.

    Args:
        data: Folder with one folder of images per class.
        out: Folder of the generator.
        minutes: How long training takes in total: network width, batch size and steps are chosen accordingly, after
            a few measured steps. 30 if there are no steps either.
        steps: Generator updates, instead of minutes.
        batch_size: Images per critic step; by default chosen by minutes, and 64 if there are steps.
        base_channels: Width of the networks; by default chosen by minutes, and the recipe's if there are steps.
        held_out: Share of the patients that is not trained on, for condgan evaluate and for --keep best_kid, which then
            chooses the step by the same patients; 0 trains on all.
        time_limit: Minutes after which to stop; the same command continues later.
        config: TOML file with flags, such as steps = 4500; those of the command line override it.
    """

    data: tyro.conf.Positional[Path]
    out: Path
    minutes: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    base_channels: int | None = None
    held_out: float = 0.15
    time_limit: float | None = None
    config: Path | None = None
    folders: Folders = Folders()
    generator: Annotated[Flags, tyro.conf.arg(constructor=_TrainFlags)]
    running: Annotated[Flags, tyro.conf.arg(constructor=_RunFlags)]

    groups: ClassVar[tuple[type[Any], ...]] = (Folders, _TrainFlags, _RunFlags)

    def execute(self, words: Sequence[str]) -> None:
        """Run the command."""
        sizes = {name: getattr(self, name) for name in _SIZES if getattr(self, name) is not None}
        config = RecipeConfig(**sizes, **_given(self.generator))
        check_length(steps=self.steps, minutes=self.minutes)
        if not 0 <= self.held_out < 1:
            raise ValueError(f"--held-out must lie in [0, 1), a share of the patients, got {self.held_out}.")
        if config.keep != "last" and not self.held_out:
            raise ValueError(
                f"--keep {config.keep} chooses the step by patients that are not trained on, got --held-out 0. Hold "
                "some out, or keep the last step."
            )
        folder = self.folders.read(self.data)
        data, held_out = self.folders.split(folder, self.held_out) if self.held_out else (folder, None)
        say(f"training on {_in_words(data)}" + ("" if held_out is None else f"; held out: {_in_words(held_out)}"))
        few = "" if held_out is None else too_few_to_judge(training=data, folds=FOLDS, held_out=held_out)
        if few:
            say(f"NOTE: condgan evaluate needs more images of {few}")
        with locked(self.out):
            self._train(config, data, held_out)

    def _train(self, config: RecipeConfig, data: ArrayDataset, held_out: ArrayDataset | None) -> None:
        running = _given(self.running)
        done_before = newest_step(self.out / "checkpoints")
        if done_before is None and (self.out / "run.json").is_file():
            raise ValueError(
                f"--out must be a new folder or one with checkpoints to continue from, got {str(self.out)!r}, which "
                "holds a trained generator without checkpoints. Choose another folder."
            )
        plan = plan_in(
            self.out,
            config,
            data,
            steps=self.steps,
            minutes=self.minutes,
            batch_size=self.batch_size,
            precision=running["precision"],
            device=running["device"],
        )
        say(plan.in_words() if self.steps or self.minutes else f"{plan.in_words()} (change it with --minutes)")
        if done_before:
            say(f"{done_before} of {plan.config.steps} steps are done")
        training = GeneratorTraining(
            plan.config,
            data,
            self.out,
            criterion=None if config.keep == "last" or held_out is None else self._criterion(data, held_out),
            deadline=math.inf if self.time_limit is None else time.monotonic() + 60 * self.time_limit,
            report=say,
            **running,
        )
        plan.save(self.out)  # now that nothing speaks against the training
        write_record(self.out / "data.json", to_json(TrainedOn(folders=self.folders, held_out=self.held_out)))
        done = training.run()
        say(f"done: {self.out}" if done else "stopped by the time limit: run the same command again to continue")

    def _criterion(self, train: ArrayDataset, held_out: ArrayDataset) -> Criterion:
        say("judging by a classifier of the training images")
        return held_out_kid(train, held_out, self.out / "judge.safetensors", **_given(self.running))


@dataclass(frozen=True, kw_only=True)
class SampleCommand:
    """Generate images of some classes.

    Args:
        folder: Folder of condgan train, or of a generator of a study.
        out: Folder of the images, a new or empty one.
        classes: Names of classes; by default all.
        count: Images per class.
        grid: One sheet, a row per class, instead of single files.
        overwrite: Write into a folder that is not empty, and delete the images of an earlier call there.
        seed: Seed of the images.
        device: Where to compute; by default CUDA, then MPS, then the CPU.
        config: TOML file with flags; those of the command line override it.
    """

    folder: tyro.conf.Positional[Path]
    out: Path
    classes: tuple[str, ...] = ()
    count: int = 16
    grid: bool = False
    overwrite: bool = False
    seed: int = 0
    device: str | None = None
    config: Path | None = None

    groups: ClassVar[tuple[type[Any], ...]] = ()

    def execute(self, words: Sequence[str]) -> None:
        """Run the command."""
        if self.count < 1:
            raise ValueError(f"--count must be at least 1, got {self.count}.")
        device = self.device or best_device()
        run = load_run(self.folder)
        chosen = self.classes or run.class_names
        check_names("--classes", chosen, run.class_names)
        folders = [self.out / folder_name(name) for name in chosen]
        if len({normalize("NFC", str(folder).casefold()) for folder in folders}) < len(folders):
            raise ValueError(
                f"--classes must differ in more than case, which some file systems ignore, got {', '.join(chosen)}. "
                "Choose one of them at a time."
            )
        generator = load_generator(self.folder, device=device)
        self._make_room([self.out / folder_name(name) for name in run.class_names])
        _say_if_unfinished(run)
        y = torch.tensor([run.class_names.index(name) for name in chosen]).repeat_interleave(self.count)
        images = self._draw(generator, y, device)
        if self.grid:
            sheet = torch.stack(list(images))
            save_sheet(sheet, self.out / "samples.png", columns=self.count, row_names=chosen)
        else:
            for number, image in enumerate(images):
                file = folders[number // self.count] / f"{number % self.count:05d}.png"
                save_picture(image, file, sync=False)  # the same command makes it again
        say(f"{len(y)} images in {self.out}")

    def _draw(self, generator: Generator, y: Tensor, device: torch.device | str) -> Iterator[Tensor]:
        """Yield one uint8 image per label, a few at a time in memory."""
        rng = torch.Generator(device).manual_seed(self.seed)
        for labels in y.split(_AT_ONCE):
            yield from to_uint8(sample(generator, labels, rng=rng)).cpu()

    def _make_room(self, folders: Sequence[Path]) -> None:
        """Refuse a folder that is not empty, or delete the images of an earlier call."""
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return
        if not self.overwrite:
            raise ValueError(
                f"--out must be a new or empty folder, got {str(self.out)!r}. Choose another one, or let --overwrite "
                "replace the images in it."
            )
        numbered = (path for folder in folders for path in folder.glob("*.png") if re.fullmatch(r"\d{5,}", path.stem))
        for earlier in (self.out / "samples.png", *numbered):  # and nothing else that lies there
            earlier.unlink(missing_ok=True)


def folder_name(name: str) -> str:
    r"""Return the name of a folder for a name from a file: never a path, and another one for every name.

    Letters, digits and most other characters stay. Those that a path gives a meaning are percent-encoded.

    Examples:
        >>> [folder_name(name) for name in ("normal", "../../up", "/etc", "", "50 %", "NUL", "Ärger.")]
        ['normal', '%2E.%2F..%2Fup', '%2Fetc', '%', '50 %25', '%4EUL', 'Ärger%2E']
    """
    return _MEANINGFUL.sub(lambda found: f"%{ord(found[0]):02X}", name) or "%"


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """Evaluate the images of a generator: labels, fidelity, diversity, memorization.

    Args:
        folder: Folder of condgan train.
        data: The folder that it was trained on.
        test: Folder of test images of other patients.
        no_real_images: Write no picture that shows real images.
        config: TOML file with flags; those of the command line override it.
    """

    folder: tyro.conf.Positional[Path]
    data: tyro.conf.Positional[Path]
    test: Path
    no_real_images: bool = False
    config: Path | None = None
    how: Annotated[Flags, tyro.conf.arg(constructor=_EvaluateFlags)]

    groups: ClassVar[tuple[type[Any], ...]] = (_EvaluateFlags,)

    def execute(self, words: Sequence[str]) -> None:
        """Run the command."""
        path = self.folder / "data.json"
        if not path.is_file():
            raise FileNotFoundError(f"{str(self.folder)!r} must be a folder of condgan train, got no data.json in it.")
        trained_on = load_record(TrainedOn, path)
        run = load_run(self.folder)
        if not trained_on.held_out:
            raise ValueError(
                "evaluation needs held-out patients, got a generator that was trained on all images (--held-out 0). "
                "Train one with --held-out 0.15."
            )
        _say_if_unfinished(run)
        folder = trained_on.folders.read(self.data)
        test = trained_on.folders.read(self.test, class_names=folder.class_names)
        train, held_out = trained_on.folders.split(folder, trained_on.held_out)
        if train.fingerprint != run.train.fingerprint:
            raise ValueError(
                f"{str(self.data)!r} must be what the generator was trained on, fingerprint "
                f"{run.train.fingerprint}, got {train.fingerprint}. Has the folder changed?"
            )
        if folder.groups is not None:
            check_disjoint(training=folder, test=test)
        given = _given(self.how)
        found = evaluate(
            load_generator(self.folder, device=given["device"] or best_device()),
            train,
            test=test,
            held_out=held_out,
            neighbors=None if self.no_real_images else self.folder / "neighbors.png",
            **given,
        )
        write_record(self.folder / "evaluation.json", to_json(found))
        for line in _evaluation_words(found):
            say(line)
        say(f"all results are in {self.folder / 'evaluation.json'}")


@dataclass(frozen=True, kw_only=True)
class StudyCommand:
    """Measure what generated images are good for.

    Trains generators, trains classifiers on real and generated images, tests them on real ones, evaluates the images,
    and writes results.json and report.html. Finished parts are never run again: the same command continues where it
    stopped.

    Args:
        data: Folder with one folder of images per class.
        out: Folder of the study.
        test: Folder of test images of other patients; by default a fifth of the patients.
        recipes: Recipes of the generators; acwgan_gp:dcgan takes other networks than its own. A table [recipes.NAME] of
            the TOML file describes one with flags of its own.
        cells: Run only cells whose names match these patterns, such as 'gan-*' 'classifier-real-*'.
        list_cells: Print the names of the cells and write nothing.
        retry_failed: Run cells again that failed earlier.
        time_limit: Minutes after which to stop; the same command continues later.
        no_real_images: Keep and show no real image, so that the folder can be shared.
        merge: Merge folders of the same study, run on several machines, into --out; nothing is run.
        device: Where to compute; by default CUDA, then MPS, then the CPU.
        config: TOML file with flags, such as seeds = 5; those of the command line override it.
    """

    data: tyro.conf.Positional[Path | None] = None
    out: Path
    test: Path | None = None
    recipes: tuple[str, ...] = ("acgan", "acwgan_gp")
    cells: tuple[str, ...] = ("*",)
    list_cells: bool = False
    retry_failed: bool = False
    time_limit: float | None = None
    no_real_images: bool = False
    merge: tuple[Path, ...] = ()
    device: str | None = None
    config: Path | None = None
    folders: Folders = Folders()
    generators: Annotated[Flags, tyro.conf.arg(constructor=_RecipeFlags)]
    plan: Annotated[Flags, tyro.conf.arg(constructor=_StudyFlags)]

    groups: ClassVar[tuple[type[Any], ...]] = (Folders, _RecipeFlags, _StudyFlags)

    def execute(self, words: Sequence[str]) -> None:
        """Run the command."""
        if self.merge:
            merge(self.merge, self.out)
            self._report()
            return
        config = self.study_config(words)
        cells = choose_cells(make_cells(config), self.cells)
        if self.list_cells:
            sys.stdout.write("\n".join(cell.name for cell in cells) + "\n")
            return
        if self.data is None:
            raise ValueError("condgan study needs a folder of images, got none. Only --merge works without one.")
        study = Study(
            config,
            *self._read(self.data),
            self.out,
            real_images=not self.no_real_images,
            progress=say,
            command=shlex.join(["condgan", *words]),
            device=self.device,
        )
        for note in (*study.data.description.notes, *study.cautions):
            say(f"NOTE: {note}")
        try:
            limit = None if self.time_limit is None else 60 * self.time_limit
            study.run(self.cells, time_limit=limit, retry_failed=self.retry_failed)
        finally:
            self._report()

    def study_config(self, words: Sequence[str]) -> StudyConfig:
        """Return the configuration of the study."""
        return StudyConfig(
            image_shape=self.folders.image_shape,
            recipes=dict(self._recipe(entry, words) for entry in self.recipes),
            **_given(self.plan),
        )

    def _recipe(self, entry: str, words: Sequence[str]) -> tuple[str, RecipeConfig]:
        """Return the name and configuration of an entry: a table of the file, or `recipe` or `recipe:networks`."""
        recipe, _, networks = entry.partition(":")
        table = _recipe_tables(self.config).get(entry)
        flags = _given(self.generators)
        if table is not None:
            flags = _given(cast("StudyCommand", parse(words, table=table)).generators)
            recipe, networks = table.get("recipe", entry), table.get("networks", "")
        if networks:
            flags["networks"] = networks
        return entry.replace(":", "_"), RecipeConfig(recipe=recipe, **flags)

    def _read(self, root: Path) -> tuple[ArrayDataset, ArrayDataset, ArrayDataset]:
        """Return training, validation and test images, no patient in two of them."""
        folder = self.folders.read(root)
        if self.test is None:
            rest, test = self.folders.split(folder, _TEST_SHARE)
        else:
            rest, test = folder, self.folders.read(self.test, class_names=folder.class_names)
        return *self.folders.split(rest, _VALIDATION_SHARE), test

    def _report(self) -> None:
        results = summarize(self.out)
        results.write(self.out / "results.json")
        report = write_report(results, self.out, real_images=not self.no_real_images)
        for verdict in results.verdicts:
            say(f"{question_words(verdict)} {answer_words(verdict)}")
        if results.failed:
            say(f"failed, to be run again with --retry-failed: {', '.join(cell.name for cell in results.failed)}")
        say(f"the report is {report}")


@dataclass(frozen=True, kw_only=True)
class InfoCommand:
    """Print versions and devices, and where weights of extractors are looked for."""

    groups: ClassVar[tuple[type[Any], ...]] = ()

    def execute(self, words: Sequence[str]) -> None:
        """Run the command."""
        default = best_device().type
        lines = {
            **versions(),
            "devices": ", ".join(device_names()),
            "default device": f"{default}, {torch.get_num_threads()} threads" if default == "cpu" else default,
            "weights of extractors": Path(torch.hub.get_dir()) / "checkpoints",
        }
        sys.stdout.write("".join(f"{name}: {value}\n" for name, value in lines.items()))


Command = TrainCommand | SampleCommand | EvaluateCommand | StudyCommand | InfoCommand
_COMMANDS: dict[str, type[Any]] = {
    "train": TrainCommand,
    "sample": SampleCommand,
    "evaluate": EvaluateCommand,
    "study": StudyCommand,
    "info": InfoCommand,
}


def parse(words: Sequence[str], *, table: Mapping[str, Any] | None = None) -> Command:
    """Read a command: the flags of its TOML file, overridden by those of a table of it, and by the command line."""
    name, rest = (words[0], words[1:]) if words else ("", [])
    if name in _COMMANDS:
        file = _config_file(rest)
        content = {} if file is None else _read_toml(file)
        tables = content.get("recipes")
        if isinstance(tables, dict):
            content["recipes"] = list(tables)
        known = _flag_names(name) - {"config"}
        check_names(f"keys of {file}", content, known)
        given = {**content, **{key: value for key, value in (table or {}).items() if key not in ("recipe", "networks")}}
        # after the positional folders, which a list would swallow; before the flags of the command line, which override
        at = next((place for place, word in enumerate(rest) if word.startswith("-")), len(rest))
        rest = [*rest[:at], *(word for key, value in given.items() for word in _as_words(key, value)), *rest[at:]]
    commands: Any = Union[tuple(Annotated[cls, tyro.conf.subcommand(key)] for key, cls in _COMMANDS.items())]  # noqa: UP007
    parsed: Command = tyro.cli(
        commands,
        prog="condgan",
        description="Train conditional GANs on labelled images, and measure what the generated images are good for. "
        + RESEARCH_ONLY,
        args=[*words[:1], *rest],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
        registry=_PATHS,
    )
    return parsed


_PATHS = tyro.constructors.ConstructorRegistry()


@_PATHS.primitive_rule
def _path_rule(hint: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Path] | None:
    """Read paths with `~` as the home folder, which shells leave to us in `--out=~/run` and in files."""
    if hint.type is not Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: as_path(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def _config_file(words: Sequence[str]) -> Path | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=as_path)
    file: Path | None = parser.parse_known_args(list(words))[0].config
    return file


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{str(file)!r} must be TOML: {error}.") from error


def _recipe_tables(file: Path | None) -> dict[str, dict[str, Any]]:
    """Return the tables `[recipes.NAME]` of a file; their keys are checked."""
    tables = {} if file is None else _read_toml(file).get("recipes", {})
    if not isinstance(tables, dict):
        return {}
    for name, table in tables.items():
        check_names(f"keys of [recipes.{name}]", table, _all_but(RecipeConfig))
    return tables


def _as_words(key: str, value: Any) -> list[str]:
    """Return a key of a TOML file as words of a command line."""
    flag = "--" + key.replace("_", "-")
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, list):
        return [flag, *map(str, value)]
    if isinstance(value, dict):
        return [flag, *(str(part) for pair in value.items() for part in pair)]
    return [f"{flag}={value}"]


def group_rule(groups: str, root: Path) -> Rule:
    r"""Return the rule that maps a path relative to `root` to its patient.

    Paths in a CSV file are relative to `root`, or begin with its name.

    Args:
        groups: A regular expression, or the name of a `.csv` file.
        root: The folder of the images.

    Raises:
        ValueError: If it is not a regular expression, or the file lacks a column. The rule raises it for a path
            without patient.
        FileNotFoundError: If the file does not exist.

    Examples:
        >>> rule = group_rule(r"person(\d+)_(bacteria|virus)|IM-(\d+)", Path("train"))
        >>> rule(Path("ill/person7_virus_1.png")), rule(Path("normal/IM-0115-1.png"))
        ('7-virus', '0115')
    """
    if groups.lower().endswith(".csv"):
        return _csv_rule(as_path(groups), root)
    try:
        pattern = re.compile(groups)
    except re.error as error:
        raise ValueError(f"--groups must be a regular expression or a .csv file, got {groups!r}: {error}.") from error

    def rule(path: Path) -> str:
        match = pattern.search(path.as_posix())
        if match is None:
            raise ValueError(f"--groups {groups!r} does not match")
        return "-".join(part for part in match.groups() if part is not None) or match.group()

    return rule


def _csv_rule(file: Path, root: Path) -> Rule:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines)
        missing = {"path", "group"} - set(table.fieldnames or ())
        if missing:
            raise ValueError(f"{str(file)!r} must have the columns path and group, got {table.fieldnames}.")
        known = {row["path"].replace("\\", "/"): row["group"] for row in table}
    name = root.resolve().name

    def rule(path: Path) -> str:
        for key in (f"{name}/{path.as_posix()}", path.as_posix()):
            if key in known:
                return known[key]
        raise ValueError(f"{file.name} has no such path")

    return rule


def _in_words(data: ArrayDataset) -> str:
    counts = ", ".join(f"{name}: {count}" for name, count in zip(data.class_names, data.class_counts, strict=True))
    return f"{len(data)} images ({counts})"


def _say_if_unfinished(run: RunDescription) -> None:
    if not run.is_finished:
        say(f"this training is not finished: the generator is that of step {run.kept.step} of {run.total_steps}")


def _evaluation_words(found: Evaluation) -> list[str]:
    labels = {} if found.labels is None else found.labels.per_class
    # a generator that ignores the labels may have the best of the other figures
    missed = [name for name, entry in labels.items() if entry.verdict is LabelVerdict.NOT_RECOGNIZED]
    lines = [f"{name}: {labels[name].explanation}" for name in missed]
    lines += [f"{part} cannot be evaluated: {reason}" for part, reason in found.refusals.items()]
    lines += [f"{name}: {entry.explanation}" for name, entry in labels.items() if name not in missed]
    if found.fidelity is not None:
        for name, scores in {"all classes": found.fidelity.overall, **found.fidelity.per_class}.items():
            kid = scores["kid"]
            lines.append(
                f"{name}: KID {kid.generated.value:.4f}, real training images {kid.floor.value:.4f}, difference "
                f"{kid.difference.value:+.4f} [{kid.difference.low:+.4f}, {kid.difference.high:+.4f}]"
            )
    if found.diversity is not None:
        lines += [f"{name}: {entry.explanation}" for name, entry in found.diversity.per_class.items()]
    if found.memorization is not None:
        lines += [f"{name}: {entry.verdict.words}" for name, entry in found.memorization.per_class.items()]
    return lines
