"""Every reader of files gives what was written, or refuses it with an error that it documents; nothing else.

The files, the ways to damage them and the judgement are those of `benchmarks/soak`, which tries many more.
"""

import json
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from condgan.budget import TrainingPlan
from condgan.classifier import Classifier
from condgan.cli import TrainedOn
from condgan.files import from_json, to_json, write_arrays
from condgan.runs import RecipeConfig, RunDescription
from condgan.study.config import StudyConfig
from condgan.study.folder import StudyDescription, StudyFolder
from condgan.study.results import Results

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "soak"
RECORDS = (RecipeConfig, RunDescription, TrainingPlan, TrainedOn, StudyConfig, StudyDescription, Results)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize(("kind", "examples"), [("checkpoint", 4), ("weights", 20), ("config", 30), ("study", 50)])
def test_damaged_files_are_read_as_they_were_or_refused(load, tmp_path, kind, examples):
    module = load("examination")
    examination = module.Examination(kind, 1, tmp_path)

    @settings(max_examples=examples, deadline=None)
    @given(number=st.integers(0, 2**32))
    def check(number):
        found = examination.examine(number)
        assert found.outcome not in module.WRONG, found

    check()


@pytest.mark.parametrize("kind", ["weights", "config", "study"])
def test_other_files_are_refused(load, tmp_path, kind):
    examination = load("examination").Examination(kind, 1, tmp_path)
    subjects = [(root, subject) for root, subject in examination.subjects if not subject.is_log]

    @settings(max_examples=8, deadline=None)
    @given(content=st.binary(max_size=99) | JSON.map(lambda value: json.dumps(value).encode()))
    def check(content):
        for root, subject in subjects:
            path = root / subject.path
            whole = path.read_bytes()
            path.write_bytes(content)
            with pytest.raises(ValueError, match=kind):
                subject.read(root)
            path.write_bytes(whole)

    check()


@pytest.mark.parametrize("cls", RECORDS)
def test_records_are_what_the_json_states_or_refused(load, cls):
    holds = load("readers").holds

    @settings(max_examples=20, deadline=None)
    @given(content=JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(cls.__dataclass_fields__, JSON)))
    def check(content):
        with suppress(ValueError):
            assert holds(json.loads(json.dumps(to_json(from_json(cls, content)))), content)

    check()


def test_edited_records_are_what_they_state_or_refused(load):
    holds, change = load("readers").holds, load("mutations").edit_json
    config = StudyConfig(image_shape=(1, 16, 16), recipes={"a": RecipeConfig(recipe="acgan", steps=4)}, level=0.5)
    whole = json.dumps(to_json(config)).encode()

    @settings(max_examples=150, deadline=None)
    @given(draw=st.randoms(use_true_random=False))
    def check(draw):
        edited = json.loads(change(whole, draw))
        with suppress(ValueError):
            assert holds(json.loads(json.dumps(to_json(from_json(StudyConfig, edited)))), edited)

    check()


def test_any_bit_of_an_archive_of_arrays_may_change(tmp_path):
    path = tmp_path / "test.npz"
    write_arrays(path, labels=torch.arange(4).numpy(), groups=torch.arange(4).numpy())
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 128]) + whole[place + 1 :])
        with suppress(ValueError):
            assert [part.tolist() for part in StudyFolder(tmp_path).test()] == [[0, 1, 2, 3]] * 2, place


def test_an_array_that_seems_smaller_is_refused(tmp_path):
    """NumPy reads no further than the shape says, and so would not come to the checksum."""
    path = tmp_path / "test.npz"
    np.savez(path, labels=np.arange(40), groups=np.arange(40))
    whole = path.read_bytes()
    assert whole.count(b"(40,)") == 2
    path.write_bytes(whole.replace(b"(40,)", b"(20,)"))
    with pytest.raises(ValueError, match=r"test\.npz.* differs from its checksum"):
        StudyFolder(tmp_path).test()


def test_a_damaged_classifier_is_read_as_it_was_or_refused(load, tmp_path, monkeypatch):
    def build(*_, **__):
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))

    monkeypatch.setattr("condgan.classifier.training.build_network", build)
    subjects, mutations = load("readers"), load("mutations")
    path = tmp_path / "classifier.safetensors"
    Classifier(build(), ("a", "b"), (1, 2, 2), 0.5, ({"loss": 0.25},), {"precision": "fp32"}, 1.5).save(path)
    whole = path.read_bytes()

    def read():
        found = Classifier.load(path)
        return [
            found.class_names,
            found.image_shape,
            found.threshold,
            found.history,
            *found.model.state_dict().values(),
        ]

    intact = read()

    @settings(max_examples=100, deadline=None)
    @given(draw=st.randoms(use_true_random=False), change=st.sampled_from(mutations.OF_BYTES))
    def check(draw, change):
        path.write_bytes(change(whole, draw))
        with suppress(ValueError):
            assert not list(subjects.differences(read(), intact))

    check()


def test_pickles_that_run_code_would_have(load, tmp_path):
    """Otherwise it means nothing that none of them runs when the library reads it."""
    for call in load("pickles").calls(str(tmp_path / "canary")).values():
        with suppress(Exception):
            pickle.loads(pickle.dumps(call))
        (canary,) = tmp_path.iterdir()
        canary.rmdir() if canary.is_dir() else canary.unlink()
