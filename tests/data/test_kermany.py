from __future__ import annotations

import ast
import os
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from condgan.data import (
    Kermany,
    check_disjoint,
    kermany_held_out,
    kermany_label,
    kermany_patient,
    kermany_test_apart,
)

NAMES = {
    "NORMAL": ("IM-0115-0001", "IM-0115-0001-0002", "NORMAL2-IM-9501-0001"),
    "PNEUMONIA": ("person1_bacteria_1", "person1_bacteria_2", "person1_virus_3", "person2_virus_4"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val", "test"):
        for folder, names in NAMES.items():
            (tmp_path / "chest_xray" / split / folder).mkdir(parents=True)
            for name in names:
                Image.new("RGB", (24, 24)).save(tmp_path / "chest_xray" / split / folder / f"{name}.jpeg")
    return tmp_path / "chest_xray"


@pytest.mark.parametrize(
    ("path", "two", "three", "patient"),
    [
        ("PNEUMONIA/person1000_bacteria_2931.jpeg", "pneumonia", "bacterial", "person1000"),
        ("PNEUMONIA/person1000_virus_1681.jpeg", "pneumonia", "viral", "person1000"),
        ("PNEUMONIA/person1372_virus_2362_2.jpeg", "pneumonia", "viral", "person1372"),
        ("NORMAL/IM-0115-0001.jpeg", "normal", "normal", "IM-0115"),
        ("NORMAL/IM-0001-0001-0002.jpeg", "normal", "normal", "IM-0001"),
        ("NORMAL/NORMAL2-IM-0501-0001-0002.jpeg", "normal", "normal", "NORMAL2-IM-0501"),
        ("PNEUMONIA/BACTERIA-1025587-0003.jpeg", "pneumonia", "bacterial", "1025587"),
        ("NORMAL/NORMAL-1049278-0001.jpeg", "normal", "normal", "1049278"),
    ],
)
def test_names(path: str, two: str, three: str, patient: str) -> None:
    assert kermany_label(2)(Path(path)) == two
    assert kermany_label(3)(Path(path)) == three
    assert kermany_patient(Path(path)) == patient


def test_names_that_do_not_follow() -> None:
    with pytest.raises(ValueError, match="NORMAL or PNEUMONIA, got 'COVID'"):
        kermany_label(2)(Path("COVID/a.jpeg"))
    with pytest.raises(ValueError, match="pass classes=2"):
        kermany_label(3)(Path("PNEUMONIA/person1_fungus_1.jpeg"))
    with pytest.raises(ValueError, match="expected a name such as"):
        kermany_patient(Path("NORMAL/scan.jpeg"))
    with pytest.raises(ValueError, match=r"classes must be 2 .* got 4"):
        kermany_label(4)  # type: ignore[arg-type]


def test_two_and_three_classes(root: Path) -> None:
    two = Kermany(root, "test", progress=False)
    assert (two.class_names, two.class_counts, two.image_shape) == (("normal", "pneumonia"), (3, 4), (1, 64, 64))
    three = Kermany(root, "train", classes=3, image_shape=(3, 28, 20), progress=False)
    assert (three.class_names, three.class_counts) == (("normal", "bacterial", "viral"), (3, 2, 2))
    assert three.group_names == ("IM-0115", "NORMAL2-IM-9501", "person1", "person2")
    assert three.image_shape == (3, 28, 20)
    assert "train" in three.source
    assert three.attribution is not None
    assert "10.17632/rscbjbr9sj.2" in three.attribution
    assert "CC BY 4.0" in three.attribution


def test_held_out_patients_are_not_even_opened(root: Path) -> None:
    held = sorted(kermany_held_out())[:1] + [name for name in sorted(kermany_held_out()) if "person" in name][:1]
    for folder, name in zip(("NORMAL", "PNEUMONIA"), held, strict=True):
        for number in (1, 2):
            cause = "-000" if folder == "NORMAL" else "_bacteria_"
            (root / "train" / folder / f"{name}{cause}{number}.jpeg").write_bytes(b"no image")
    data = Kermany(root, "train", patients="development", progress=False)
    assert not set(data.group_names) & kermany_held_out()
    assert len(data) == 7
    assert "without held-out patients" in data.source
    with pytest.raises(ValueError, match=r"4 of 4 images .* cannot be decoded"):
        Kermany(root, "train", patients="held_out", progress=False)
    with pytest.raises(ValueError, match="held out of the split 'train' alone, got split='test'"):
        Kermany(root, "test", patients="development", progress=False)
    with pytest.raises(ValueError, match="patients must be one of all, development, held_out, got 'none'"):
        Kermany(root, patients="none", progress=False)  # type: ignore[arg-type]


def test_the_test_set_is_named_apart_and_no_case_is_in_both(root: Path) -> None:
    test = Kermany(root, "test", progress=False)
    with pytest.raises(ValueError, match=r"training and test images must not share groups, got 5 in both: IM-0115"):
        kermany_test_apart(Kermany(root, "train", progress=False), test)
    shutil.rmtree(root / "train")
    for name in (
        "NORMAL/IM-0010-0001",
        "NORMAL/IM-0020-0001",
        "PNEUMONIA/person2_bacteria_1",
        "PNEUMONIA/person9_virus_1",
    ):
        path = root / "train" / f"{name}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24)).save(path)
    train = Kermany(root, "train", progress=False)
    assert set(train.group_names) & set(test.group_names) == {"person2"}
    apart = kermany_test_apart(train, test)
    check_disjoint(training=train, test=apart)
    assert apart.group_names == ("test IM-0115", "test NORMAL2-IM-9501", "test person1", "test person2")
    assert torch.equal(apart.groups, test.groups)
    assert apart.fingerprint == test.fingerprint


def test_layout_errors_point_to_the_right_folder(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Did you mean '.*chest_xray'\?"):
        Kermany(root.parent, progress=False)
    with pytest.raises(FileNotFoundError, match=r"looks like one split: did you mean '.*chest_xray'\?"):
        Kermany(root / "train", progress=False)
    with pytest.raises(FileNotFoundError, match=r"train/NORMAL and train/PNEUMONIA in .* a folder that does not exist"):
        Kermany(tmp_path / "nowhere", progress=False)
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'valid'"):
        Kermany(root, "valid", progress=False)  # type: ignore[arg-type]


@cache
def real(split: Any, classes: Any, patients: Any = "all") -> Kermany:
    return Kermany(os.environ["CONDGAN_CHEST_XRAY"], split, classes, (1, 8, 8), patients=patients, progress=False)


@pytest.mark.real_data
@pytest.mark.skipif("CONDGAN_CHEST_XRAY" not in os.environ, reason="$CONDGAN_CHEST_XRAY names no folder")
@pytest.mark.parametrize(
    ("split", "classes", "counts", "patients"),
    [
        ("train", 2, (1206, 3488), 2566),
        ("train", 3, (1206, 2278, 1210), 2566),
        ("val", 2, (8, 8), 15),
        ("test", 2, (234, 390), 427),
        ("test", 3, (234, 242, 148), 427),
    ],
)
def test_official_counts(split: str, classes: int, counts: tuple[int, ...], patients: int) -> None:
    data = real(split, classes, "development" if split == "train" else "all")
    assert data.class_counts == counts
    assert len(data.group_names) == patients
    if split == "test":
        train = real("train", 2)
        assert len(set(kermany_test_apart(train, data).group_names) - set(train.group_names)) == patients
    if split == "train":
        _, part = data.split(0.15)
        for held, size in zip(part.class_counts, counts, strict=True):
            assert held / size == pytest.approx(1 / 7, abs=0.002)


@pytest.mark.real_data
@pytest.mark.skipif("CONDGAN_CHEST_XRAY" not in os.environ, reason="$CONDGAN_CHEST_XRAY names no folder")
def test_a_tenth_of_each_cause_is_held_out() -> None:
    names = [path.relative_to(os.environ["CONDGAN_CHEST_XRAY"]) for path in _training_files()]
    held = [path for path in names if kermany_patient(path) in kermany_held_out()]
    drawn, whole = (Counter(map(kermany_label(3), paths)) for paths in (held, names))
    assert whole == {"normal": 1341, "bacterial": 2530, "viral": 1345}
    for cause, count in whole.items():
        assert drawn[cause] / count == pytest.approx(0.1, abs=0.002)
    assert {kermany_patient(path) for path in held} == kermany_held_out()


def _training_files() -> list[Path]:
    return sorted(Path(os.environ["CONDGAN_CHEST_XRAY"], "train").rglob("*.jpeg"))


def test_no_benchmark_or_example_loads_patients_who_are_held_out() -> None:
    repository = Path(__file__).parents[2]
    calls = [
        (path.name, ast.unparse(node))
        for folder in ("benchmarks", "examples")
        for path in (repository / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Kermany"
    ]
    assert len(calls) >= 4
    assert [call for call in calls if "'test'" not in call[1] and "patients='development'" not in call[1]] == []
