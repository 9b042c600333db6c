import pytest
import torch

from condgan.training.checkpoint import newest_step, read_newest_checkpoint, write_checkpoint


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
