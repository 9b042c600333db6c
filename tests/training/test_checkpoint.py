from contextlib import suppress
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condgan.training.checkpoint import newest_step, read_newest_checkpoint, write_checkpoint
from saved import assert_same


def steps(folder):
    return sorted(int(path.stem.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-0*.pt"))


def test_the_newest_come_back_and_old_ones_go(tmp_path):
    folder = tmp_path / "deep" / "run"
    for step in (5, 10, 100):
        write_checkpoint(folder, step, {"step": step, "weights": torch.full((2,), float(step))}, keep=2)
    assert steps(folder) == [10, 100]
    content = read_newest_checkpoint(folder)
    assert content["step"] == 100
    assert torch.equal(content["weights"], torch.full((2,), 100.0))
    assert newest_step(folder) == 100


def test_other_files_are_neither_read_nor_deleted(tmp_path):
    (tmp_path / "checkpoint-best.pt").write_text("the user's own")
    (tmp_path / "checkpoint-000000007.partial").write_text("of a killed process")
    assert newest_step(tmp_path) is None
    assert read_newest_checkpoint(tmp_path) is None
    for step in (1, 2):
        write_checkpoint(tmp_path, step, {}, keep=1)
    assert (tmp_path / "checkpoint-best.pt").exists()
    assert steps(tmp_path) == [2]


@pytest.mark.parametrize("keep", [1, 2])
def test_the_file_just_written_is_always_kept(tmp_path, keep):
    for step in (20, 30):
        write_checkpoint(tmp_path, step, {})
    write_checkpoint(tmp_path, 10, {}, keep=keep)
    assert steps(tmp_path) == [10, 20, 30]


def test_a_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, 1, {"step": 1})

    def torn(content, file):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", torn)
    for step in (1, 2):
        with pytest.raises(OSError, match="no space"):
            write_checkpoint(tmp_path, step, {"step": step})
    monkeypatch.undo()
    assert read_newest_checkpoint(tmp_path)["step"] == 1


def test_files_that_cannot_be_read(tmp_path):
    write_checkpoint(tmp_path, 1, {"step": 1})
    (tmp_path / "checkpoint-000000002.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"skipping .*000000002\.pt, which cannot be read .*; .*000000001\.pt is used"):
        assert read_newest_checkpoint(tmp_path)["step"] == 1
    (tmp_path / "checkpoint-000000001.pt").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"none of the 2 checkpoints .*000000002\.pt, which.*000000001\.pt, which"):
        read_newest_checkpoint(tmp_path)


class Dangerous:
    def __reduce__(self):
        return (pytest.fail, ("code from a checkpoint was run",))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"step": Dangerous()}, tmp_path / "checkpoint-000000001.pt")
    with pytest.raises(ValueError, match=r"cannot be read \(Unsupported global"):
        read_newest_checkpoint(tmp_path)


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        write_checkpoint(tmp_path, 1, {}, keep=0)
    assert not list(tmp_path.iterdir())


def test_no_damaged_checkpoint_is_read_as_another(tmp_path):
    content = {"weights": torch.arange(40.0), "state": {"step": 3, "name": "x"}, "rng": torch.arange(9)}
    path = write_checkpoint(tmp_path, 3, content)
    expected, whole = read_newest_checkpoint(tmp_path), path.read_bytes()

    @settings(max_examples=300, deadline=None)
    @given(place=st.integers(0, len(whole) - 1), new=st.sampled_from([b"\0", b"1", b"\xff", bytes(64), b"\x08\0"]))
    def check(place, new):
        path.write_bytes(whole[:place] + new + whole[place + len(new) :])
        with suppress(ValueError):
            assert_same(read_newest_checkpoint(tmp_path), expected)

    check()


def test_an_entry_that_is_marked_as_a_folder_is_damaged(tmp_path):
    """PyTorch returns uninitialized memory for such an entry."""
    path = write_checkpoint(tmp_path, 1, {"weights": torch.arange(100.0)})
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02", 0, content.rindex(b"archive/data/0"))
    content[place + 38] |= 0x10
    path.write_bytes(content)
    with pytest.raises(ValueError, match="data/0 differs from its checksum, or is marked as a folder"):
        read_newest_checkpoint(tmp_path)


def test_checksums_are_written_whatever_the_default(tmp_path):
    default = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = write_checkpoint(tmp_path, 1, {"weights": torch.arange(100.0)})
        assert torch.serialization.get_crc32_options() is False
    finally:
        torch.serialization.set_crc32_options(default)
    content = path.read_bytes()
    place = content.index(torch.arange(100.0).numpy().tobytes())
    path.write_bytes(content[:place] + bytes(400) + content[place + 400 :])
    with pytest.raises(ValueError, match="differs from its checksum"):
        read_newest_checkpoint(tmp_path)


def test_a_checkpoint_without_a_part_is_damaged(tmp_path):
    write_checkpoint(tmp_path, 1, {"step": 1, "rng": 0})
    write_checkpoint(tmp_path, 2, {"step": 2})
    with pytest.warns(UserWarning, match=r"skipping .*000000002\.pt, which lacks rng; .*000000001\.pt is used instead"):
        assert read_newest_checkpoint(tmp_path, parts=["step", "rng"])["step"] == 1


def test_a_later_format_is_refused_even_if_an_earlier_one_is_there(tmp_path):
    write_checkpoint(tmp_path, 1, {"step": 1})
    write_checkpoint(tmp_path, 2, {"format": 2, "version": "9.0"})
    with pytest.raises(ValueError, match=r"000000002\.pt has format 2, written by condgan 9\.0"):
        read_newest_checkpoint(tmp_path, parts=["step"])


def test_numbers_of_numpy_come_back_as_pythons_own(tmp_path):
    write_checkpoint(tmp_path, 1, {"best": np.float64(0.5), "steps": [np.int64(3)], "by": {np.int64(1): np.True_}})
    content = read_newest_checkpoint(tmp_path)
    assert repr((content["best"], content["steps"], content["by"])) == "(0.5, [3], {1: True})"


@pytest.mark.parametrize("value", [Decimal(1), np.zeros(2), lambda x: x], ids=["Decimal", "array", "function"])
def test_what_could_not_be_read_again_is_not_written(tmp_path, value):
    write_checkpoint(tmp_path, 1, {"step": 1})
    with pytest.raises(TypeError, match="a checkpoint must consist of tensors and plain values"):
        write_checkpoint(tmp_path, 2, {"value": value}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000001.pt"]


def test_what_killed_processes_left_is_cleared_away(tmp_path):
    write_checkpoint(tmp_path, 1, {"a": 1})
    torn = tmp_path / "checkpoint-000000002.pt.99999.partial"
    torn.write_bytes(b"half of it")
    (tmp_path / "other.partial").write_bytes(b"of somebody else")
    write_checkpoint(tmp_path, 3, {"a": 3})
    names = ["checkpoint-000000001.pt", "checkpoint-000000003.pt", "other.partial"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
