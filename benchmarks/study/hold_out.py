"""Draws the patients that are held out for the last study. Run once; the list is committed with the library.

`python benchmarks/study/hold_out.py TRAIN > src/condgan/data/kermany_held_out.txt` reads names of files, no image.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from condgan.data import group_split, kermany_label, kermany_patient
from condgan.data.kermany import CLASS_NAMES

SHARE = 0.1
SEED = 2026
VALIDATION = 0.15


def draw(paths: list[Path]) -> list[str]:
    """Return the patients to hold out: a tenth of the images of each cause.

    Patients of the validation sets that settings were chosen on so far (of two and of three classes) stay out of it.
    """
    patients = [kermany_patient(path) for path in paths]
    names = sorted(set(patients))
    groups = torch.tensor([names.index(name) for name in patients])
    used: set[str] = set()
    for classes in (2, 3):
        labels = labels_of(paths, classes)
        _, validation = group_split(labels, groups, fraction=VALIDATION, seed=0)
        used |= {patients[i] for i in validation.tolist()}
    unused = torch.tensor([i for i, name in enumerate(patients) if name not in used])
    share = SHARE * len(paths) / len(unused)
    _, part = group_split(labels_of(paths, 3)[unused], groups[unused], fraction=share, seed=SEED)
    return sorted({patients[i] for i in unused[part].tolist()})


def labels_of(paths: list[Path], classes: int) -> torch.Tensor:
    """Return the classes of images by their names."""
    label = kermany_label(classes)  # type: ignore[arg-type]
    return torch.tensor([CLASS_NAMES[classes].index(label(path)) for path in paths])


def main() -> None:
    """Print the list."""
    root = Path(sys.argv[1])
    paths = sorted((path.relative_to(root) for path in root.rglob("*.jpeg")), key=lambda path: path.as_posix())
    held_out = draw(paths)
    print(
        "# Patients of the official training split that are held out for the last study: a tenth of the images of\n"
        f"# each cause, drawn by benchmarks/study/hold_out.py with the seed {SEED} before any of them decided anything."
    )
    print("\n".join(held_out))


if __name__ == "__main__":
    main()
