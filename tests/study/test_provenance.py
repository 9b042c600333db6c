from pathlib import Path

import pytest
import torch

from condgan.study import provenance as module
from condgan.study.provenance import provenance


def outside_of_a_repository(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(module, "__file__", str(folder / "provenance.py"))


def test_sources_outside_of_a_repository_have_the_commit_that_the_environment_names(tmp_path, monkeypatch):
    outside_of_a_repository(monkeypatch, tmp_path)
    monkeypatch.delenv("CONDGAN_COMMIT", raising=False)
    assert provenance("cpu").commit is None
    monkeypatch.setenv("CONDGAN_COMMIT", "0123456789ab")
    assert provenance("cpu").commit == "0123456789ab"


def test_precision_of_float32_is_recorded_where_it_can_vary(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    found = provenance("cuda")
    assert found.device == "a GPU"
    assert found.fp32_precision == {
        "convolutions": torch.backends.cudnn.conv.fp32_precision,
        "matrix products": torch.backends.cuda.matmul.fp32_precision,
    }
    assert provenance("cpu").fp32_precision is None
