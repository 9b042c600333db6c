"""The paediatric chest X-rays of Kermany et al. (2018): classes and patients by folder and file name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from condgan.data.dataset import ArrayDataset, check_disjoint
from condgan.data.folder import ImageFolder, OnError
from condgan.files import as_path
from condgan.types import ImageShape

KermanySplit = Literal["train", "val", "test"]
KermanyPatients = Literal["all", "development", "held_out"]

ATTRIBUTION = (
    "Chest X-rays: D. Kermany, K. Zhang, M. Goldbaum, Mendeley Data, doi 10.17632/rscbjbr9sj.2, CC BY 4.0; "
    "Kermany et al., Cell 172 (2018) 1122-1131. Resized."
)
CLASS_NAMES = {2: ("normal", "pneumonia"), 3: ("normal", "bacterial", "viral")}
_SPLITS = ("train", "val", "test")
_PATIENTS = ("all", "development", "held_out")
_FOLDERS = ("NORMAL", "PNEUMONIA")
_CAUSES = {"bacteria": "bacterial", "virus": "viral"}
_SOURCE_OF = {"all": "", "development": " without held-out patients", "held_out": ", held-out patients"}
_PATIENT = re.compile(
    r"(?P<person>person\d+)_|(?P<normal>(?:NORMAL\d*-)?IM-\d+)-|(?:BACTERIA|VIRUS|NORMAL)-(?P<number>\d+)-",
    re.IGNORECASE,
)


class Kermany(ImageFolder):
    """One official split of the paediatric chest X-rays of Kermany et al. (2018).

    The folder holds `train`, `val` and `test`, each with `NORMAL` and `PNEUMONIA`. Two classes take those folders;
    three classes take the cause of a pneumonia from the file name. Groups are patients.

    Three properties of these data that results should disclose: the official `val` has 16 images, too few to decide
    anything (split `train` by patient instead, `data.split(0.15)`); the 624 test images come from 427 patients;
    and 170 patient numbers occur with one cause in `train` and with the other in `test`, which may or may not be the
    same children (see `kermany_test_apart`).

    Args:
        root: Folder that holds the official splits.
        split: `"train"` (5216 images), `"val"` (16, none of them viral: two classes only) or `"test"` (624).
        classes: 2 for normal and pneumonia, 3 for normal, bacterial and viral.
        image_shape: Channels (1 or 3), height and width of the images in memory.
        patients: `"all"`, or one part of the split `"train"`: `"held_out"`, a tenth of the images of each cause, which
            no recipe or setting was chosen on (see `kermany_held_out`), or `"development"`, the rest.
        workers: Threads that decode, see `ImageFolder`.
        on_error: What happens when an image cannot be decoded, see `ImageFolder`.
        progress: Whether to show a progress bar.
        cache: Folder for a copy of the decoded images, see `ImageFolder`. None writes nothing.

    Raises:
        FileNotFoundError: If `root` lacks the folder of the split, or this that of a class.
        ValueError: If `split`, `classes` or `patients` is unknown, a part of the patients is chosen from another split
            than `"train"`, or `ImageFolder` refuses the images.

    Examples:
        >>> train = Kermany("chest_xray", "train", classes=3)  # doctest: +SKIP
        >>> train.class_names, train.class_counts  # doctest: +SKIP
        (('normal', 'bacterial', 'viral'), (1341, 2530, 1345))

    References:
        Kermany et al., "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning",
        Cell 172 (2018). Data: Mendeley Data, doi 10.17632/rscbjbr9sj.2, CC BY 4.0.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: KermanySplit = "train",
        classes: Literal[2, 3] = 2,
        image_shape: ImageShape = (1, 64, 64),
        *,
        patients: KermanyPatients = "all",
        workers: int | None = None,
        on_error: OnError = "raise",
        progress: bool = True,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        label = kermany_label(classes)
        folder = as_path(root)
        _check_patient_choice(patients, split)
        _check_split_folders(folder, split)
        super().__init__(
            folder / split,
            image_shape,
            label,
            kermany_patient,
            CLASS_NAMES[classes],
            select=None if patients == "all" else lambda path: _is_held_out(path) == (patients == "held_out"),
            workers=workers,
            on_error=on_error,
            progress=progress,
            cache=cache,
            source=f"Kermany chest X-rays, official {split} split{_SOURCE_OF[patients]}",
            attribution=ATTRIBUTION,
        )


def kermany_label(classes: Literal[2, 3]) -> Callable[[Path], str]:
    """Return the function that maps a path of these data to the name of its class.

    Args:
        classes: 2 for `"normal"` and `"pneumonia"`, 3 for `"normal"`, `"bacterial"` and `"viral"`.

    Raises:
        ValueError: If `classes` is neither 2 nor 3. The function raises it for a path that does not follow the naming.

    Examples:
        >>> from pathlib import Path
        >>> label = kermany_label(3)
        >>> label(Path("PNEUMONIA/person1000_bacteria_2931.jpeg"))
        'bacterial'
        >>> label(Path("NORMAL/IM-0115-0001.jpeg"))
        'normal'
    """
    if classes not in CLASS_NAMES:
        raise ValueError(f"classes must be 2 (normal, pneumonia) or 3 (normal, bacterial, viral), got {classes!r}.")

    def label(path: Path) -> str:
        folder = path.parent.name.upper()
        if folder not in _FOLDERS:
            raise ValueError(f"expected a folder {' or '.join(_FOLDERS)}, got {path.parent.name!r}")
        if folder == "NORMAL":
            return "normal"
        if classes == 2:
            return "pneumonia"
        causes = [name for word, name in _CAUSES.items() if word in path.name.lower()]
        if len(causes) != 1:
            raise ValueError("expected 'bacteria' or 'virus' in the name; pass classes=2 if it is unknown")
        return causes[0]

    return label


def kermany_patient(path: Path) -> str:
    """Return the patient that an image of these data shows, by its file name.

    A number counts as one patient whatever the cause: whether `person1_bacteria` and `person1_virus` are the same
    child is not documented, and taking two children for one does less harm than dividing one between training and
    test. Names of the later release (`BACTERIA-1025587-0001.jpeg`) are understood too.

    Raises:
        ValueError: If the name follows none of the patterns.

    Examples:
        >>> from pathlib import Path
        >>> kermany_patient(Path("PNEUMONIA/person1000_bacteria_2931.jpeg"))
        'person1000'
        >>> kermany_patient(Path("NORMAL/NORMAL2-IM-0501-0001-0002.jpeg"))
        'NORMAL2-IM-0501'
    """
    match = _PATIENT.match(path.name)
    if match is None:
        raise ValueError("expected a name such as 'person1000_bacteria_2931.jpeg' or 'IM-0115-0001.jpeg'")
    return match["person"] or match["normal"] or match["number"]


def kermany_case(path: Path) -> str:
    """Return the patient and the finding that an image of these data shows, such as `"person1000 bacterial"`.

    No case is in two of the official splits. See `kermany_test_apart`.

    Raises:
        ValueError: If the path does not follow the naming.

    Examples:
        >>> kermany_case(Path("PNEUMONIA/person1000_bacteria_2931.jpeg"))
        'person1000 bacterial'
    """
    return f"{kermany_patient(path)} {kermany_label(3)(path)}"


def kermany_test_apart(train: ArrayDataset, test: ArrayDataset) -> ArrayDataset:
    """Return the official test set with other names for its patients than in the official training set.

    170 patient numbers are in both official splits, with different causes of pneumonia; whether these are the same
    children is not documented. Data sets are compared by the names of their patients, so a study would refuse the two
    splits. This function checks that no case (`kermany_case`) is in both, and prefixes the patients of the test set
    with `test`. Say beside the results that these patients count as different.

    Args:
        train: Images of the official split `"train"`, or a part of them.
        test: Images of the official split `"test"`.

    Raises:
        ValueError: If a case is in both.

    Examples:
        >>> train = Kermany("chest_xray", "train", patients="development")  # doctest: +SKIP
        >>> test = kermany_test_apart(train, Kermany("chest_xray", "test"))  # doctest: +SKIP
        >>> test.group_names[0]  # doctest: +SKIP
        'test IM-0001'
    """
    check_disjoint(training=train.with_groups(kermany_case), test=test.with_groups(kermany_case))
    return test.with_groups(lambda path: f"test {kermany_patient(path)}")


@cache
def kermany_held_out() -> frozenset[str]:
    """Return the patients of the official training split, as `kermany_patient` names them, that are held out.

    They have a tenth of the images of each cause, and were drawn with a fixed seed from the patients that are not in
    the validation sets of earlier studies. A study that is tested on them cannot have been tuned on them.

    Examples:
        >>> len(kermany_held_out())
        280
    """
    lines = (files("condgan.data") / "kermany_held_out.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _is_held_out(path: Path) -> bool:
    return kermany_patient(path) in kermany_held_out()


def _check_patient_choice(patients: str, split: str) -> None:
    if patients not in _PATIENTS:
        raise ValueError(f"patients must be one of {', '.join(_PATIENTS)}, got {patients!r}.")
    if patients != "all" and split != "train":
        raise ValueError(f"patients are held out of the split 'train' alone, got split={split!r}. Pass patients='all'.")


def _check_split_folders(root: Path, split: str) -> None:
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {', '.join(_SPLITS)}, got {split!r}.")
    missing = [name for name in _FOLDERS if not (root / split / name).is_dir()]
    if not missing:
        return
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else None
    content = "a folder that does not exist" if found is None else f"the folders {found}"
    hint = "Download and unpack the data, or use condgan.data.ImageFolder for another layout."
    inner = root / "chest_xray"
    if (inner / split).is_dir():
        hint = f"Did you mean {str(inner)!r}?"
    elif found is not None and set(_FOLDERS) <= set(found):
        hint = f"This looks like one split: did you mean {str(root.resolve().parent)!r}?"
    raise FileNotFoundError(
        f"expected {' and '.join(f'{split}/{name}' for name in _FOLDERS)} in {str(root)!r}, got {content}. {hint}"
    )
