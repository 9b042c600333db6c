"""Image files below a folder, each found once, whatever links lead where."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from condgan.data.dataset import listing
from condgan.data.decoding import EXTENSIONS

_OTHERS = (".dcm", ".dicom", ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".heic", ".svg", ".npy", ".npz")


class Found(NamedTuple):
    """What is below a folder, by paths relative to it, sorted: images, links not followed, image files not read."""

    images: list[Path]
    links: list[Path]
    others: list[Path]

    def warn(self, root: Path) -> None:
        """Warn of what was left out."""
        if self.links:
            warnings.warn(
                f"{len(self.links)} links in {str(root)!r} are not followed, because they lead to images that are read "
                f"anyway or to a folder above: {list_paths(self.links)}.",
                stacklevel=3,
            )
        if self.others:
            warnings.warn(
                f"{len(self.others)} image files in {str(root)!r} are not read, because they do not end in "
                f"{', '.join(EXTENSIONS)}: {list_paths(self.others)}. Convert them if they belong to the data.",
                stacklevel=3,
            )


def find_images(root: Path) -> Found:
    """Find the image files below a folder, except hidden ones.

    Links are followed after everything else: what is read where it is, is not read again through a link.

    Raises:
        OSError: If a folder cannot be read.
    """
    found = Found([], [], [])
    links: list[Path] = []
    read: set[Path] = set()
    others = (*_OTHERS, *Image.registered_extensions())
    for folder, real, names in _walk(root, read, found.links):
        for path in (folder / name for name in names if not name.startswith(".")):
            if not path.name.lower().endswith(EXTENSIONS):
                if path.name.lower().endswith(others):
                    found.others.append(path)
            elif (root / path).is_symlink():
                links.append(path)
            else:
                found.images.append(path)
                read.add(real / path.name)
    for path in sorted(links):
        target = (root / path).resolve()
        (found.links if target in read else found.images).append(path)
        read.add(target)
    return Found(*(sorted(paths, key=Path.as_posix) for paths in found))


def _walk(root: Path, read: set[Path], again: list[Path]) -> Iterator[tuple[Path, Path, list[str]]]:
    """Yield each folder once, relative and resolved, with its files; put links to those yielded before into `again`."""
    above = root.resolve().parents
    starts = [root]
    for start in starts:
        for parent, folders, files in os.walk(start, onerror=_refuse):
            folder, real = Path(parent), Path(parent).resolve()
            if real in read or real in above:
                again.append(folder.relative_to(root))
                folders.clear()
                continue
            read.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
            starts += [folder / name for name in folders if (folder / name).is_symlink()]
            yield folder.relative_to(root), real, files


def _refuse(error: OSError) -> None:
    raise error


def list_paths(paths: Iterable[Path]) -> str:
    """Return paths as text for a message, cut after ten."""
    return listing([path.as_posix() for path in paths])
