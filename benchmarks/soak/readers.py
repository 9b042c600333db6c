"""The files that are damaged, and how the library reads them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import condgan as cg
from condgan.budget import TrainingPlan
from condgan.cli import Folders, TrainedOn
from condgan.files import load_record, to_json, write_record
from condgan.runs import RecipeConfig, load_generator, load_run, train_generator
from condgan.study.folder import StudyFolder
from condgan.study.results import Results
from condgan.training.checkpoint import read_newest_checkpoint

COMMITTED_STUDY = Path(__file__).parents[1] / "study" / "results" / "images-64px" / "two-classes"


@dataclass(frozen=True)
class Subject:
    """A file and a function that reads it.

    Args:
        path: The file, within the folder of its kind.
        read: Returns all that is read; called with the folder.
        older: What is read, with a warning, in the place of a damaged file; None if there is nothing else.
        agrees: Whether what was read is what the JSON of an edited file states.
        is_log: Whether lines are added over time, so that fewer lines are what it was, or might have been.
    """

    path: str
    read: Callable[[Path], Any]
    older: Any = None
    agrees: Callable[[Any, Any], bool] = lambda found, stated: False
    is_log: bool = False


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Yield where two values differ: tensors bit for bit, numbers, text and containers of them."""
    if isinstance(one, (list, tuple)) and type(one) is type(other):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        for name in one:
            yield from differences(one[name], other[name], f"{place}.{name}")
    elif isinstance(one, dict) or type(one) is not type(other) or not _same(one, other):
        yield place


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and _bytes(one) == _bytes(other)
    return bool(one == other) or (one != one and other != other)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def holds(found: Any, stated: Any) -> bool:
    """Return whether what was found has all that was stated; what was removed may have a default."""
    if isinstance(found, dict) and isinstance(stated, dict):
        return all(name in found and holds(found[name], value) for name, value in stated.items())
    if isinstance(found, list) and isinstance(stated, list):
        return len(found) == len(stated) and all(map(holds, found, stated))
    return found == stated and isinstance(found, bool) == isinstance(stated, bool)


def make_data() -> cg.data.ArrayDataset:
    """Return a few small images."""
    return cg.data.ChestPhantom((12, 24), classes=2, image_shape=(1, 16, 16))


class Resumed:
    """Resumes a trainer, and returns its whole state; a trainer that refuses must be as it was."""

    def __init__(self, *, steps: tuple[int, ...]) -> None:
        self.data, self.steps = make_data(), steps
        self.new = self._state(self._make())

    def _make(self) -> cg.Trainer:
        shape: dict[str, Any] = {"num_classes": 2, "image_shape": (1, 16, 16), "base_channels": 2}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            generator = cg.DCGANGenerator(latent_dim=4, embed_dim=2, **shape)
            critic = cg.ACDCGANCritic(batch_norm=True, dropout=0.3, **shape)
        terms: dict[str, Any] = {"loss": cg.HingeLoss(), "auxiliary": cg.AuxiliaryClassifierLoss()}
        return cg.Trainer(generator, critic, **terms, regularizers=[cg.LeCam()], device="cpu")

    @staticmethod
    def _state(trainer: cg.Trainer) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            trainer.save(folder)
            return read_newest_checkpoint(folder) or {}

    def make(self, folder: Path) -> list[dict[str, Any]]:
        """Train, write a checkpoint after each of the steps, and return the states."""
        trainer, states = self._make(), []
        for step in self.steps:
            trainer.fit(self.data, steps=step, batch_size=8, progress=False)
            trainer.save(folder)
            states.append(self._state(trainer))
        return states

    def __call__(self, folder: Path) -> dict[str, Any]:
        """Resume in a folder.

        Raises:
            RuntimeError: If the trainer refused, but has changed.
        """
        trainer = self._make()
        try:
            trainer.resume(folder)
        except ValueError:
            if changed := list(differences(self._state(trainer), self.new)):
                raise RuntimeError(f"a trainer that refused has changed: {', '.join(changed[:5])}") from None
            raise
        return self._state(trainer)


def checkpoints(folder: Path) -> list[Subject]:
    """Return a checkpoint beside an older one, and one alone."""
    resumed = Resumed(steps=(1, 2))
    older, _ = resumed.make(folder / "two")
    (folder / "one").mkdir()
    shutil.copy(folder / "two" / "checkpoint-000000002.pt", folder / "one")
    return [
        Subject("two/checkpoint-000000002.pt", lambda at: resumed(at / "two"), older),
        Subject("one/checkpoint-000000002.pt", lambda at: resumed(at / "one")),
    ]


def _make_run(folder: Path) -> None:
    config = RecipeConfig(recipe="acgan", steps=2, batch_size=8, base_channels=4)
    train_generator(config, make_data(), folder, precision="fp32", device="cpu")
    TrainingPlan(config=config, image_shape=(1, 16, 16), device="cpu", seconds_per_step=0.1).save(folder)
    write_record(folder / "data.json", to_json(TrainedOn(folders=Folders(image_shape=(1, 16, 16)), held_out=0.15)))


def _generator(folder: Path) -> Any:
    generator = load_generator(folder)
    return {"class": type(generator).__name__, "arguments": generator.config, **generator.state_dict()}


def weights(folder: Path) -> list[Subject]:
    """Return the weights of a generator."""
    cg.DCGANGenerator(latent_dim=8, num_classes=2, image_shape=(1, 16, 16), base_channels=4).save_pretrained(
        folder / "generator"
    )
    return [Subject("generator/model.safetensors", _generator)]


def configs(folder: Path) -> list[Subject]:
    """Return the JSON files of a run."""
    _make_run(folder)
    return [
        Subject("generator/config.json", _generator, agrees=_is_network),
        _record("run.json", load_run),
        _record("data.json", lambda at: load_record(TrainedOn, at / "data.json")),
        _record("plan.json", lambda at: load_record(TrainingPlan, at / "plan.json")),
    ]


def _is_network(found: Any, stated: Any) -> bool:
    return all(holds(_as_json(found[name]), stated[name]) for name in ("class", "arguments"))


def _record(path: str, read: Callable[[Path], object]) -> Subject:
    return Subject(path, lambda at: _as_json(to_json(read(at))), agrees=holds)


def _as_json(content: Any) -> Any:
    return json.loads(json.dumps(content))


def studies(folder: Path) -> list[Subject]:
    """Return the files of a study: a committed one, written anew."""
    theirs, study = StudyFolder(COMMITTED_STUDY), StudyFolder(folder)
    study.begin(theirs.study(), theirs.test())
    names = sorted(path.stem for path in (theirs.path / "cells").glob("*.json"))
    classifiers = [name for name in names if name.startswith("classifier")]
    for name in names:
        study.write(theirs.read(name), theirs.probabilities(name) if name in classifiers else None)
    cells = {cell.name: cell for cell in cg.study.make_cells(theirs.study().config)}
    for name in names:
        study.count_test_use(name.partition("-c0")[0], cells[name])
    Results.read(theirs.path / "results.json").write(folder / "results.json")
    return [
        _record("config.json", lambda at: StudyFolder(at).study()),
        _record("results.json", lambda at: Results.read(at / "results.json")),
        *(_record(f"cells/{name}.json", partial(_outcome, name=name)) for name in names),
        *(Subject(f"cells/{name}.npz", partial(_probabilities, name=name)) for name in classifiers),
        Subject("test.npz", lambda at: StudyFolder(at).test()),
        Subject("test_evaluations.jsonl", lambda at: StudyFolder(at).test_evaluations(), is_log=True),
    ]


def _outcome(folder: Path, *, name: str) -> object:
    return StudyFolder(folder).read(name)


def _probabilities(folder: Path, *, name: str) -> torch.Tensor:
    return StudyFolder(folder).probabilities(name)


SUBJECTS: dict[str, Callable[[Path], list[Subject]]] = {
    "checkpoint": checkpoints,
    "weights": weights,
    "config": configs,
    "study": studies,
}
