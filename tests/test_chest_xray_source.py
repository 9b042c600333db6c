from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from condgan.data import check_disjoint

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "chest_xray" / "source.py"


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Load the example's module as in a place without data or network."""
    spec = importlib.util.spec_from_file_location("chest_xray_source", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "chest_xray_source", module)
    spec.loader.exec_module(module)

    def unreachable(*_: object, **__: object) -> Path:
        raise ConnectionError("no network")

    monkeypatch.setattr(module, "download_medmnist", unreachable)
    monkeypatch.setattr(module, "FOLDER", Path("no/such/folder"))
    monkeypatch.delenv(module.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for first, split in zip((9000, 9100, 9200), ("train", "val", "test"), strict=True):
        for i in range(first, first + 12):
            for name in (f"NORMAL/IM-{i:04}-0001", f"PNEUMONIA/person{i}_bacteria_1", f"PNEUMONIA/person{i}_virus_2"):
                path = tmp_path / "chest_xray" / split / f"{name}.jpeg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (24, 24), i % 256).save(path)
    return tmp_path / "chest_xray"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    content = {}
    for split in ("train", "val", "test"):
        content[f"{split}_images"] = np.full((6, 64, 64), 100, dtype=np.uint8)
        content[f"{split}_labels"] = np.arange(6)[:, None] % 2
    np.savez(tmp_path / "pneumoniamnist_64.npz", **content)
    return tmp_path / "pneumoniamnist_64.npz"


@pytest.mark.parametrize("classes", [2, 3])
def test_phantoms_say_so_and_share_no_patient(source: ModuleType, classes: int) -> None:
    data = source.load("phantom", classes=classes, image_size=16, phantoms=90)
    assert data.notice.startswith("NO REAL X-RAY WAS USED")
    assert data.name == "phantom"
    assert data.train.attribution is None
    sets = [set(part.group_names) for part in (data.train, data.validation, data.test)]
    assert not sets[0] & sets[1]
    assert not (sets[0] | sets[1]) & sets[2]
    assert {part.num_classes for part in (data.train, data.validation, data.test)} == {classes}
    other = source.load("phantom", classes=classes, image_size=16, phantoms=90, seed=1)
    assert not set(other.train.group_names) & sets[2]


def test_a_folder(source: ModuleType, folder: Path) -> None:
    data = source.load(str(folder), classes=3, image_size=20, progress=False)
    assert data.train.image_shape == (1, 20, 20)
    assert len(data.train) + len(data.validation) == len(data.test) == 36
    check_disjoint(training=data.train, validation=data.validation, test=data.test)
    assert data.notice.startswith("REAL X-RAYS")
    assert "CC BY 4.0" in data.train.attribution


def test_a_published_file_is_resized(source: ModuleType, archive: Path) -> None:
    data = source.load(str(archive), image_size=32)
    assert data.train.image_shape == data.test.image_shape == (1, 32, 32)
    assert data.name == "pneumoniamnist_64"
    with pytest.raises(ValueError, match=r"classes=3 does not fit .* has 2: normal, pneumonia"):
        source.load(str(archive), classes=3)


def test_auto_takes_what_is_there(
    source: ModuleType, folder: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"image_size": 16, "phantoms": 90, "progress": False}
    data = source.load("auto", classes=2, **options)
    assert data.name == "phantom"
    assert "could not be downloaded" in data.notice
    assert "two classes only" in source.load("auto", classes=3, **options).notice

    monkeypatch.setattr(source, "download_medmnist", lambda *_, **__: archive)
    assert source.load("auto", classes=2, **options).name == "pneumoniamnist_64"
    assert source.load("auto", classes=3, **options).name == "phantom"

    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(source, "FOLDER", Path("chest_xray"))
    assert source.load("auto", **options).name == "kermany"

    monkeypatch.setenv(source.VARIABLE, str(folder))
    monkeypatch.setattr(source, "FOLDER", Path("no/such/folder"))
    assert source.load("auto", **options).name == "kermany"


def test_downloads_go_to_the_cache_folder(
    source: ModuleType, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(name: str, size: int, *, folder: Path) -> Path:
        asked.append((name, size, folder))
        return archive

    monkeypatch.setattr(source, "download_medmnist", download)
    for image_size in (32, 64, 100, 256):
        source.load("auto", image_size=image_size)
    assert [size for _, size, _ in asked] == [64, 64, 128, 224]
    assert asked[0][2] == tmp_path / "cache" / "condgan"


def test_errors(source: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"classes must be 2 .* got 4"):
        source.load("phantom", classes=4)
    with pytest.raises(FileNotFoundError, match="'phantom' or 'auto', got 'phantoms', which does not exist"):
        source.load("phantoms")
    monkeypatch.setenv(source.VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"\$CONDGAN_CHEST_XRAY must name a folder of X-rays"):
        source.load("auto")
