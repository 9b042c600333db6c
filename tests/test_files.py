"""Records to JSON and back, and files that are written whole or not at all."""

import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condgan.files import (
    NOT_IN_JSON,
    as_json,
    check_count,
    check_names,
    check_not_negative,
    from_json,
    plain_numbers,
    read_record,
    to_json,
    write_json,
    write_record,
    write_whole,
)


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    value: float
    size: int = 1

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}.")


@dataclass(frozen=True)
class Outer:
    color: Color
    inner: tuple[Inner, ...]
    by_name: dict[str, Inner]
    settings: dict[str, object]
    label: str | None = None
    scratch: list[int] = field(default_factory=list, compare=False, metadata=NOT_IN_JSON)


RECORD = Outer(
    color=Color.BLUE,
    inner=(Inner(0.5), Inner(2.0, 3)),
    by_name={"a": Inner(1.0)},
    settings={"betas": [0.5, 0.9], "name": "adam", "nested": {"none": None}},
    scratch=[1, 2],
)


def test_records_are_the_same_there_and_back():
    content = json.loads(json.dumps(to_json(RECORD), allow_nan=False))
    assert from_json(Outer, content) == RECORD
    assert from_json(Outer, content).scratch == []
    assert "scratch" not in content


def test_numbers_that_are_not_finite_are_none_in_json():
    content = to_json(Inner(math.inf))
    assert content == {"value": None, "size": 1}
    assert math.isnan(from_json(Inner, content).value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labell": "x"}, "unknown key 'labell', did you mean 'label'?"),
        ({"scratch": [1]}, "unknown key 'scratch'"),
        ({"color": "green"}, "color: 'green' is not a valid Color"),
        ({"inner": [{"value": 1.0}, {"value": 1.0, "size": 0}]}, "inner[1]: size must be at least 1, got 0."),
        ({"by_name": {"b": {"size": 1}}}, "by_name['b'].value is missing"),
        ({"by_name": {"b": {"value": "much"}}}, "by_name['b'].value: could not convert string to float: 'much'"),
        ({"inner": [{"value": "0.5"}]}, "inner[0].value: '0.5' has the wrong type, it would be read as 0.5"),
        ({"inner": [{"value": 1.0, "size": 3.7}]}, "inner[0].size: 3.7 has the wrong type, it would be read as 3"),
        ({"inner": [{"value": 1.0, "size": True}]}, "inner[0].size: True has the wrong type, it would be read as 1"),
        ({"label": 5}, "label: 5 has the wrong type, it would be read as '5'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(changes, message):
    with pytest.raises(ValueError, match="Outer cannot be read: ") as raised:
        from_json(Outer, {**to_json(RECORD), **changes})
    assert message in str(raised.value)


@pytest.mark.parametrize("content", [None, 3, "text", [RECORD]])
def test_a_record_is_an_object(content):
    with pytest.raises(ValueError, match=f"Outer cannot be read: it must be an object, got a {type(content).__name__}"):
        from_json(Outer, content)


def test_what_is_nested_too_deeply_is_refused(tmp_path):
    nested = json.loads("[" * 900 + "]" * 900)
    with pytest.raises(ValueError, match="Outer cannot be read: maximum recursion depth exceeded"):
        from_json(Outer, {**to_json(RECORD), "settings": {"nested": nested}})
    (tmp_path / "record.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"record\.json must hold JSON, got text that cannot be read"):
        read_record(tmp_path / "record.json")


def test_everything_that_is_wrong_is_said():
    with pytest.raises(ValueError, match="color is missing") as raised:
        from_json(Outer, {"inner": [], "by_name": {}})
    assert "settings is missing" in str(raised.value)


def test_a_file_that_was_not_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"first": 1})
    with pytest.raises(TypeError), write_whole(path) as file:
        file.writelines([b"half", None])
    assert json.loads(path.read_text()) == {"first": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_folder_is_synced_where_it_can_be(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino) or fsync(descriptor))
    write_json(tmp_path / "one.json", {})
    assert synced == [(tmp_path / "one.json").stat().st_ino, tmp_path.stat().st_ino]
    monkeypatch.delattr(os, "O_DIRECTORY")  # as on Windows
    write_json(tmp_path / "other.json", {})
    assert synced[2:] == [(tmp_path / "other.json").stat().st_ino]


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", {"value": math.nan})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["fid", "kit"], "metrics must be among fid, kid, got 'kit'. Did you mean 'kid'?"),
        (["x"], "metrics must be among fid, kid, got 'x'."),
        (["kid", "kid"], "metrics must differ from each other, got kid, kid."),
    ],
)
def test_unknown_and_repeated_names_are_refused(names, message):
    with pytest.raises(ValueError, match="metrics must") as raised:
        check_names("metrics", names, ("kid", "fid"))
    assert str(raised.value) == message
    check_names("metrics", ["kid", "fid"], ("kid", "fid"))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        check_count("steps", 0)
    for value in (-0.1, math.nan):
        with pytest.raises(ValueError, match=f"weight must be at least 0, got {value}"):
            check_not_negative("weight", value)
    check_count("steps", 1)
    check_not_negative("weight", 0.0)


CONTENT = {"format": 1, "steps": 20, "rate": 0.5, "names": ["a", "bä"], "nested": {"none": None, "flag": True}}


def test_records_come_back_without_their_digest(tmp_path):
    path = tmp_path / "new" / "record.json"
    write_record(path, {**CONTENT, "sides": (3, 4)})
    assert read_record(path) == {**CONTENT, "sides": [3, 4]}


@pytest.mark.parametrize("content", [CONTENT, {}])
def test_records_without_a_digest_are_read_as_they_are(tmp_path, content):
    write_json(tmp_path / "record.json", content)
    assert read_record(tmp_path / "record.json") == content


def test_no_damaged_record_is_read_as_another(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, CONTENT)
    whole = path.read_bytes()

    @settings(max_examples=150, deadline=None)
    @given(place=st.integers(0, len(whole) - 1), new=st.sampled_from([b"", b"1", b"\0", b"\0" * 16, b"z"]))
    def check(place, new):
        path.write_bytes(whole[:place] + new + whole[place + len(new) :])
        with suppress(ValueError):
            content = read_record(path)
            # else white space has changed, or the name of the digest itself, which makes an unknown key
            assert content == CONTENT or set(content) > set(CONTENT)

    check()


@pytest.mark.parametrize(("text", "message"), [("[1]", "must hold a JSON object, got a list"), ("{", "must hold JSON")])
def test_other_files_are_no_records(tmp_path, text, message):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_record(tmp_path / "record.json")


def test_numbers_of_numpy_become_pythons_own():
    content = {np.int64(1): (np.float32(0.5), [np.True_, "x"]), "none": None}
    plain = plain_numbers(content)
    assert repr(plain) == "{1: (0.5, [True, 'x']), 'none': None}"
    assert as_json({"value": np.float64("nan"), "count": np.int64(3)}) == {"value": None, "count": 3}
