import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import condgan
from condgan.data import ArrayDataset
from condgan.recipes import CONDITIONAL
from condgan.runs import RecipeConfig, locked
from condgan.study.folder import StudyFolder
from condgan.study.results import ClassifierOutcome, FailedOutcome
from condgan.study.study import Study, merge

pytestmark = pytest.mark.usefixtures("tiny_classifier")

TINY = RecipeConfig(recipe="acgan", steps=4, batch_size=8, base_channels=4)


def outcomes(folder):
    """Return all outcomes without what differs between runs."""
    files = StudyFolder(folder)
    names = sorted(path.stem for path in (Path(folder) / "cells").glob("*.json"))
    return {name: replace(files.read(name), seconds=0.0) for name in names}


@pytest.fixture
def study(small_config, phantoms, tmp_path):
    def make(folder="study", **changes):
        options = {key: changes.pop(key) for key in ("real_images", "progress") if key in changes}
        return Study(small_config(**changes), *phantoms, tmp_path / folder, device="cpu", **options)

    return make


@pytest.fixture(scope="module")
def whole(small_config, phantoms, classify_tinily, tmp_path_factory):
    """A study of all cells, run once: its folder, only to be read, and what it said."""
    folder, lines = tmp_path_factory.mktemp("studies") / "whole", []
    with classify_tinily():
        assert Study(small_config(), *phantoms, folder, device="cpu", progress=lines.append).run()
    return folder, lines


def test_every_cell_leaves_what_it_promises(whole, phantoms):
    folder, lines = whole
    found = outcomes(folder)
    assert len(found) == 2 * 2 + 1 + 2 * 2
    cell = found["classifier-acgan-s0-synthetic_1x-c1-p100"]
    assert (cell.recipe, cell.seed, cell.arm, cell.classifier_seed) == ("acgan", 0, "synthetic_1x", 1)
    assert sum(map(sum, cell.report.confusion)) == cell.report.samples == len(phantoms[2])
    assert cell.report.class_names == ("normal", "pneumonia")
    assert cell.train_counts == (32, 32)
    gan = folder / "gans" / "gan-acgan-s0-p100"
    assert sorted(p.name for p in gan.iterdir()) == [
        "curve.json",
        "curve.jsonl",
        "generator",
        "run.json",
        "samples.png",
    ]
    assert (folder / "real.png").is_file()
    assert any("left" in line for line in lines)
    assert lines[-1].endswith("done")


def test_finished_cells_are_never_run_again(study, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "study")
    before = outcomes(tmp_path / "study")
    uses = (tmp_path / "study" / "test_evaluations.jsonl").read_text()
    lines = []
    assert study(progress=lines.append).run()
    assert lines == []
    assert outcomes(tmp_path / "study") == before
    assert (tmp_path / "study" / "test_evaluations.jsonl").read_text() == uses


def test_uses_of_the_test_set_are_counted_by_configuration(study):
    first = study()
    first.run(["classifier-real-*"])
    assert first.folder.test_evaluations() == {"real": 2}
    first.run()
    assert first.folder.test_evaluations() == {
        "acgan/real_plus_synthetic_1to1": 2,
        "acgan/synthetic_1x": 2,
        "real": 2,
        "real_oversampled": 2,
    }


def test_the_same_study_in_two_folders_is_the_same(study, whole, tmp_path):
    other = study("two")
    other.run(["gan-*"])
    other.run(["classifier-acgan-*"])  # in another order, in another session
    study("two").run()
    assert outcomes(whole[0]) == outcomes(tmp_path / "two")


def test_classifiers_of_different_generators_share_no_seed(study, tmp_path):
    study(seeds=2, arms=("real", "synthetic_1x")).run()
    cells = outcomes(tmp_path / "study").values()
    seeds = [cell.settings["seed"] for cell in cells if isinstance(cell, ClassifierOutcome)]
    assert len(set(seeds)) == len(seeds) == 6


def test_a_time_limit_stops_and_the_rest_goes_on(study, whole, tmp_path):
    first = study("parts")
    assert not first.run(time_limit=0)
    assert outcomes(tmp_path / "parts") == {}
    assert first.run(["classifier-real-*"], time_limit=1000)
    assert first.run()
    assert outcomes(tmp_path / "parts") == outcomes(whole[0])


def test_a_generator_stopped_in_the_middle_goes_on_from_there(study, tmp_path, monkeypatch):
    study("whole").run(["gan-*"])
    from condgan import runs

    stopped = study("parts")
    with monkeypatch.context() as patch:
        times = iter([0.0, 0.0, 1e9, 1e9, 1e9])
        patch.setattr(runs.time, "monotonic", lambda: next(times))
        assert stopped.train(stopped.cells[4], deadline=1.0) is None
    assert list((tmp_path / "parts" / "gans").glob("*/checkpoints/checkpoint-000000003.pt"))
    assert study("parts").run(["gan-*"])
    assert outcomes(tmp_path / "parts") == outcomes(tmp_path / "whole")
    weights = [
        (tmp_path / f / "gans/gan-acgan-s0-p100/generator/model.safetensors").read_bytes() for f in ("parts", "whole")
    ]
    assert weights[0] == weights[1]


SCRIPT = """
import sys, torch
from condgan.data import ChestPhantom
from condgan.study.folder import StudyFolder
from condgan.study.study import Study
torch.set_num_threads(1)
draw = {"classes": 2, "image_shape": (1, 16, 16), "difficulty": 0.0}
sets = [ChestPhantom(counts, seed=seed, **draw) for seed, counts in enumerate([(24, 40), (12, 12), (20, 30)])]
Study(StudyFolder(sys.argv[1]).study().config, *sets, sys.argv[1], device="cpu").run(["gan-*"])
"""


@pytest.mark.slow  # guards a study against SIGKILL in another process; stopping within one is tested below by default
def test_a_killed_study_goes_on_and_gives_the_same(study, tmp_path):
    long = {"recipes": {"acgan": RecipeConfig(recipe="acgan", steps=300, batch_size=8, base_channels=4)}}
    study("parts", **long)
    environment = {**os.environ, "PYTHONPATH": str(Path(condgan.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "parts")], env=environment)
    checkpoints = tmp_path / "parts" / "gans" / "gan-acgan-s0-p100" / "checkpoints"
    while killed.poll() is None and not list(checkpoints.glob("*.pt")):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert outcomes(tmp_path / "parts") == {}
    assert list(checkpoints.glob("*.pt"))
    assert study("parts", **long).run(["gan-*"])
    study("whole", **long).run(["gan-*"])
    assert outcomes(tmp_path / "parts") == outcomes(tmp_path / "whole") != {}
    for name in ("generator/model.safetensors", "samples.png", "curve.json"):
        one, two = ((tmp_path / f / "gans/gan-acgan-s0-p100" / name).read_bytes() for f in ("parts", "whole"))
        assert one == two, name


def test_another_configuration_or_other_data_are_refused(study, small_config, phantoms, tmp_path):
    study()
    with pytest.raises(ValueError, match=r"holds another study: config\.classifier_steps is 6, got 7"):
        study(classifier_steps=7)
    train, validation, test = phantoms
    fewer = train.subset(torch.arange(len(train) - 1))
    with pytest.raises(ValueError, match=r"data.train.counts is \[24, 40\], got \[24, 39\]"):
        Study(small_config(), fewer, validation, test, tmp_path / "study", device="cpu")


def test_folders_of_several_machines_merge(study, whole, tmp_path):
    study("one").run(["classifier-real*"])
    study("two").run(["gan-*", "classifier-acgan-*"])
    merge([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")
    assert outcomes(tmp_path / "merged") == outcomes(whole[0])
    assert study("merged").run()
    assert study("merged").folder.test_evaluations() == StudyFolder(whole[0]).test_evaluations()
    merge([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")
    assert study("merged").folder.test_evaluations() == StudyFolder(whole[0]).test_evaluations()


def test_folders_of_different_studies_do_not_merge(study, tmp_path):
    study("one").run(["classifier-real-*"])
    study("two", classifier_steps=7)
    with pytest.raises(ValueError, match=r"different studies: config.classifier_steps is 6, got 7"):
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")
    shutil.copytree(tmp_path / "one", tmp_path / "changed")
    changed = StudyFolder(tmp_path / "changed")
    outcome = changed.read("classifier-real-c0-p100")
    changed.write(replace(outcome, train_counts=(1, 2)))
    with pytest.raises(ValueError, match=r"different outcomes.*: train_counts is \[24, 40\], got \[1, 2\]"):
        merge([tmp_path / "changed"], tmp_path / "one")
    with pytest.raises(FileNotFoundError, match="must hold a study"):
        merge([tmp_path / "nowhere"], tmp_path / "one")


def test_cells_are_chosen_by_patterns(study):
    with pytest.raises(ValueError, match="every pattern must match a cell, got gan-wgan"):
        study().run(["gan-wgan"])
    with pytest.raises(ValueError, match="needs gan-acgan-s0-p100, which is neither finished nor among"):
        study().run(["classifier-acgan-*"])


def patients(data):
    return [data.group_names[number] for number in data.groups]


def test_a_test_patient_in_the_training_set_raises_before_anything_is_trained(small_config, phantoms, tmp_path):
    train, validation, test = phantoms
    leaky = ArrayDataset(
        torch.cat([train.images, test.images[:1]]),
        torch.cat([train.labels, test.labels[:1]]),
        class_names=train.class_names,
        groups=[*patients(train), patients(test)[0]],
    )
    with pytest.raises(ValueError, match="training and test images must not share groups"):
        Study(small_config(), leaky, validation, test, tmp_path / "study", device="cpu")
    with pytest.raises(ValueError, match="training and validation images"):
        Study(small_config(), train, train, test, tmp_path / "study", device="cpu")
    assert not (tmp_path / "study").exists()


def test_repeated_images_are_removed_first_and_reported(small_config, phantoms, tmp_path):
    train, validation, test = phantoms
    new = ["x", "y", "z"]
    dirty = ArrayDataset(
        torch.cat([train.images, train.images[:2], test.images[:1]]),
        torch.cat([train.labels, train.labels[:2], test.labels[:1]]),
        class_names=train.class_names,
        groups=[*patients(train), *new],
    )
    study = Study(small_config(), dirty, validation, test, tmp_path / "study", device="cpu")
    assert len(study.data.train) == len(train)
    assert study.data.description.duplicates_removed == 2
    assert study.data.description.repeats_of_other_sets_removed == 1
    assert study.data.description.train.counts == train.class_counts


def test_data_without_patients_say_so(small_config, phantoms, tmp_path):
    bare = [ArrayDataset(d.images, d.labels, class_names=d.class_names) for d in phantoms]
    study = Study(small_config(), *bare, tmp_path / "study", device="cpu")
    assert [part.patients for part in study.data.description.parts.values()] == [None] * 3
    assert "could not be checked" in study.data.description.notes[0]


def test_data_that_do_not_fit_are_refused(small_config, phantoms, tmp_path):
    train, validation, test = phantoms
    with pytest.raises(ValueError, match="the training set must have the image shape"):
        Study(small_config(image_shape=(1, 32, 32)), *phantoms, tmp_path / "s", device="cpu")
    with pytest.raises(ValueError, match="reduced_class must be among"):
        Study(small_config(percents=(50.0,), reduced_class="ill"), *phantoms, tmp_path / "s", device="cpu")
    one = ArrayDataset(test.images, test.labels, class_names=test.class_names, groups=test.labels + 10**9)
    with pytest.raises(ValueError, match="at least two patients, got 1 of normal"):
        Study(small_config(), train, validation, one, tmp_path / "s", device="cpu")


def test_no_real_image_is_kept_if_none_may_be(study, tmp_path):
    study(real_images=False).run(["classifier-real-*"])
    assert list((tmp_path / "study").rglob("*.png")) == []


class Diverging(Study):
    """The generators of one recipe diverge."""

    def train(self, cell, **options):
        if cell.recipe == "acgan":
            raise condgan.TrainingDivergedError(3, "critic/adversarial")
        return super().train(cell, **options)


def test_a_diverged_generator_is_an_outcome(small_config, phantoms, tmp_path):
    config = small_config(recipes={"acgan": TINY, "good": TINY}, seeds=1, classifier_seeds=1)
    study = Diverging(config, *phantoms, tmp_path / "study", device="cpu")
    assert study.run()
    found = outcomes(tmp_path / "study")
    failed = found["gan-acgan-s0-p100"]
    assert isinstance(failed, FailedOutcome)
    assert (failed.of, failed.error.count("critic/adversarial")) == ("gan", 1)
    assert not any(name.startswith("classifier-acgan") for name in found)
    assert any(name.startswith("classifier-good") for name in found)
    assert study.results().failed[0].name == failed.name


def test_every_conditional_recipe_has_arms(study, tmp_path):
    recipes = {name: replace(TINY, recipe=name, steps=1, base_channels=2) for name in CONDITIONAL}
    assert study(recipes=recipes, arms=("synthetic_1x",), classifier_seeds=1, classifier_steps=2).run()
    found = outcomes(tmp_path / "study")
    assert {cell.recipe for cell in found.values() if isinstance(cell, ClassifierOutcome)} == {*CONDITIONAL}
    assert not any(isinstance(cell, FailedOutcome) for cell in found.values())


def test_the_sweep_trains_on_fewer_patients(study, tmp_path):
    study(percents=(100.0, 50.0), reduced_class="pneumonia", arms=("real", "synthetic_1x"), classifier_seeds=1).run()
    found = outcomes(tmp_path / "study")
    assert found["gan-acgan-s0-p100"].train.class_counts == (24, 40)
    half = found["gan-acgan-s0-p50"].train.class_counts
    assert half[0] == 24
    assert 10 <= half[1] <= 30
    assert found["classifier-real-c0-p50"].train_counts == half
    assert StudyFolder(tmp_path / "study").test_evaluations()["acgan/synthetic_1x@50%"] == 1


def test_a_cell_has_the_name_of_its_recipe_in_the_configuration(study, tmp_path):
    study(recipes={"small_acgan": TINY}).run(["gan-*"])
    (found,) = outcomes(tmp_path / "study").values()
    assert (found.name, found.recipe) == ("gan-small_acgan-s0-p100", "small_acgan")


def test_networks_that_were_not_kept_are_trained_again_where_they_are_needed(study):
    """The generator's training needs its reference classifier: both are made again, and no outcome changes."""
    chosen = {
        "recipes": {"acgan": RecipeConfig(recipe="acgan", steps=4, batch_size=8, base_channels=4, keep="best_kid")},
        "arms": ("real", "synthetic_1x", "real_plus_synthetic_1to1"),
        "classifier_seeds": 1,
    }
    whole, parts = study("whole", **chosen), study("parts", **chosen)
    assert whole.run()
    assert parts.run(["gan-*", "classifier-real-*", "classifier-*-synthetic_1x-*"])
    before = {path.name: path.read_bytes() for path in (parts.folder.path / "cells").iterdir()}
    for networks in ("gans", "classifiers"):
        shutil.rmtree(parts.folder.path / networks)
    run = []
    again = study("parts", **chosen, progress=run.append)
    assert again.run()
    assert [line.split()[1].rstrip(":") for line in run] == [
        "classifier-real-c0-p100",
        "gan-acgan-s0-p100",
        "classifier-acgan-s0-real_plus_synthetic_1to1-c0-p100",
    ]
    assert outcomes(parts.folder.path) == outcomes(whole.folder.path)
    assert all((parts.folder.path / "cells" / name).read_bytes() == content for name, content in before.items())
    shutil.rmtree(parts.folder.path / "gans")
    assert again.run()
    assert not (parts.folder.path / "gans").exists()  # nobody needs it any more


def test_the_kept_step_is_chosen_on_validation_images(study):
    recipe = replace(TINY, steps=6, keep="best_kid", evaluations=3)
    chosen = study(recipes={"acgan": recipe}, arms=("real", "synthetic_1x"), classifier_seeds=1)
    (gan,) = (cell for cell in chosen.cells if cell.kind == "gan")
    assert gan.needs == ("classifier-real-c0-p100",)
    assert chosen.run()
    kept = chosen.folder.read(gan.name).kept
    assert [found.step for found in kept.evaluations] == [2, 4, 6]
    assert kept.step == min(kept.evaluations, key=lambda found: found.value).step
    assert chosen.folder.test_evaluations() == {"acgan/synthetic_1x": 1, "real": 1}


class Failing(Study):
    """Cells whose names contain `part` fail in some way, as long as there is an error to raise."""

    part, error = "-synthetic_1x-c0-", None

    def classify(self, cell):
        if self.error is not None and self.part in cell.name:
            raise self.error
        return super().classify(cell)


@pytest.fixture
def failing(small_config, phantoms, tmp_path):
    def make(error, *, part=Failing.part, **changes):
        study = Failing(small_config(**changes), *phantoms, tmp_path / "study", device="cpu")
        study.error, study.part = error, part
        return study

    return make


@pytest.mark.parametrize(
    "error",
    [
        FloatingPointError("the mean loss of epoch 1 must be finite"),
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB"),
        MemoryError(),
    ],
)
def test_a_failed_cell_is_recorded_and_the_rest_goes_on_until_it_is_retried(failing, whole, error):
    study = failing(error)
    assert study.run()
    found = outcomes(study.folder.path)
    (failed,) = (cell for cell in found.values() if isinstance(cell, FailedOutcome))
    assert (failed.name, failed.of) == ("classifier-acgan-s0-synthetic_1x-c0-p100", "classifier")
    assert failed.error == (" ".join(str(error).split()) or "MemoryError")
    assert len(found) == len(outcomes(whole[0]))
    study.error = None
    assert study.run()
    assert outcomes(study.folder.path) == found
    assert study.run(retry_failed=True)
    assert outcomes(study.folder.path) == outcomes(whole[0])


def test_what_needs_a_failed_cell_is_skipped_and_so_is_what_needs_that(failing):
    study = failing(
        MemoryError(),
        part="classifier-real-c0-",
        recipes={"acgan": replace(TINY, keep="best_kid"), "good": TINY},
        arms=("real", "synthetic_1x"),
        classifier_seeds=1,
    )
    assert study.run()
    assert sorted(outcomes(study.folder.path)) == [
        "classifier-good-s0-synthetic_1x-c0-p100",
        "classifier-real-c0-p100",
        "gan-good-s0-p100",
    ]
    study.error = None
    assert study.run(retry_failed=True)
    assert len(outcomes(study.folder.path)) == 5


def test_damaged_outcomes_are_set_aside_and_run_again(study, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "study")
    cells = tmp_path / "study" / "cells"
    damaged = ["classifier-acgan-s0-synthetic_1x-c0-p100", "classifier-real-c0-p100", "classifier-real-c1-p100"]
    (cells / f"{damaged[0]}.json").write_text("")
    (cells / f"{damaged[1]}.json").write_bytes((cells / f"{damaged[1]}.json").read_bytes()[:-100])
    (cells / f"{damaged[2]}.npz").write_bytes((cells / f"{damaged[2]}.npz").read_bytes()[:50])
    (tmp_path / "study" / "test.npz").write_text("")
    lines = []
    again = study(progress=lines.append)
    with pytest.raises(ValueError, match=rf"{damaged[0]}\.json must hold JSON, got text"):
        again.folder.read(damaged[0])
    with pytest.raises(ValueError, match=rf"{damaged[2]}\.npz' must be an archive with probabilities"):
        again.folder.probabilities(damaged[2])
    assert again.run()
    for name in damaged:
        assert (cells / f"{name}.json.damaged").is_file()
        assert any(f"{name}.json.damaged; its cell is run again" in line for line in lines)
    assert outcomes(tmp_path / "study") == outcomes(whole[0])
    assert again.results().verdicts == Study.results(study()).verdicts


def test_a_damaged_outcome_is_not_merged(study, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "other")
    (tmp_path / "other" / "cells" / "classifier-real-c0-p100.json").write_text("{")
    with pytest.warns(UserWarning, match="classifier-real-c0-p100 .* is damaged and left out"):
        merge([tmp_path / "other"], tmp_path / "merged")
    assert {*outcomes(whole[0])} - {*outcomes(tmp_path / "merged")} == {"classifier-real-c0-p100"}


def test_half_a_line_in_the_log_of_test_uses_is_one_use_that_is_not_counted(study):
    folder = study().folder
    cell = study().cells[0]
    folder.count_test_use("real", cell)
    log = folder.path / "test_evaluations.jsonl"
    log.write_bytes(log.read_bytes() + b'{"key": "re')
    folder.count_test_use("real", cell)
    with pytest.warns(UserWarning, match=r"line 2 of .*test_evaluations\.jsonl' is damaged and not counted"):
        assert folder.test_evaluations() == {"real": 2}


def test_a_use_of_the_test_set_is_counted_once_and_as_what_it_was(study):
    folder = study().folder
    for key in ("real", "rare"):
        folder.count_test_use(key, study().cells[0])
    log = folder.path / "test_evaluations.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole * 2)
    assert folder.test_evaluations() == {"rare": 1, "real": 1}
    for changed in (whole.replace(b'"rare"', b'"real"'), whole.partition(b"\n")[0] + b'\n{"key": "real"}\n'):
        log.write_bytes(changed)
        with pytest.warns(UserWarning, match=r"line 2 of .*test_evaluations\.jsonl' is damaged and not counted"):
            assert folder.test_evaluations() == {"real": 1}


def test_uses_of_the_test_set_without_a_digest_are_counted(study):
    folder = study().folder
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / "test_evaluations.jsonl").write_text('{"key": "real", "cell": "x", "time_ns": 1}\n')
    assert folder.test_evaluations() == {"real": 1}


@pytest.mark.parametrize(
    ("content", "message"), [("", "cannot be read"), ("[]", "got a list"), ('{"schema": 2}', "config is")]
)
def test_a_damaged_study_is_named(study, content, message):
    path = study().folder.path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"config\.json must .*{message}"):
        study()


def test_a_cell_that_another_process_runs_is_left_to_it(study, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("condgan.study.study._SECONDS_BETWEEN_LOOKS", 0.0)
    ours = study("shared")
    name = "gan-acgan-s0-p100"
    with ExitStack() as other:
        other.enter_context(locked(ours.folder.path / "cells", f"{name}.lock"))
        lines = []

        def progress(line):
            lines.append(line)
            if line.startswith("waiting"):
                other.close()  # the other process ends without having finished its cell

        ours.progress = progress
        assert ours.run()
    order = [line for line in lines if line.startswith(("[", "waiting"))]
    assert [name in line for line in order].index(True) == 5
    assert order[4].startswith("waiting")
    assert all("classifier-real" in line for line in order[:4])
    assert outcomes(ours.folder.path) == outcomes(whole[0])
    assert not list((ours.folder.path / "cells").glob("*.lock"))


def test_a_time_limit_ends_waiting(study, monkeypatch):
    monkeypatch.setattr("condgan.study.study._SECONDS_BETWEEN_LOOKS", 0.01)
    ours = study("shared")
    with locked(ours.folder.path / "cells", "gan-acgan-s0-p100.lock"):
        assert not ours.run(["gan-*"], time_limit=0.05)


@pytest.mark.slow  # two processes; their rules are tested above by default
def test_two_processes_share_a_folder(study, whole, tmp_path):
    study("shared")
    environment = {**os.environ, "PYTHONPATH": str(Path(condgan.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-c",
        SCRIPT.replace('"gan-*"', '"gan-*", "classifier-real-*"'),
        str(tmp_path / "shared"),
    ]
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    assert {*outcomes(tmp_path / "shared")} < {*outcomes(whole[0])}
    assert len(outcomes(tmp_path / "shared")) == 3


def test_a_training_that_was_begun_here_is_replaced_by_the_finished_one(study, whole, tmp_path):
    begun = study("begun")
    (gan,) = (cell for cell in begun.cells if cell.kind == "gan")
    assert begun.train(gan, deadline=0.0) is None
    weights = begun.folder.gan(gan) / "generator" / "model.safetensors"
    assert weights.is_file()
    merge([whole[0]], tmp_path / "begun")
    assert weights.read_bytes() == (StudyFolder(whole[0]).gan(gan) / "generator/model.safetensors").read_bytes()


def test_a_network_that_is_not_finished_again_is_none(study, whole, tmp_path):
    """Its outcome is there, its generator is that of a stopped training."""
    shutil.copytree(whole[0], tmp_path / "again")
    again = study("again")
    (gan,) = (cell for cell in again.cells if cell.kind == "gan")
    assert again.folder.has_network(gan)
    shutil.rmtree(again.folder.gan(gan))
    assert not again.folder.has_network(gan)
    assert again.train(gan, deadline=0.0) is None
    assert (again.folder.gan(gan) / "generator" / "model.safetensors").is_file()
    assert not again.folder.has_network(gan)


def test_a_network_that_cannot_be_made_again_is_tried_once(study, whole, tmp_path, monkeypatch):
    shutil.copytree(whole[0], tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "gans")
    (tmp_path / "again" / "cells" / "classifier-acgan-s0-synthetic_1x-c0-p100.json").unlink()
    again, tried = study("again"), []

    def train(cell, **options):
        tried.append(cell.name)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(again, "train", train)
    before = outcomes(tmp_path / "again")
    assert again.run()
    assert tried == ["gan-acgan-s0-p100"]
    assert outcomes(tmp_path / "again") == before
