"""A study in few small files, to move it between machines that share no folder."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path

from safetensors.torch import load_file, save

from condgan.files import read_record, with_digest
from condgan.study.cells import make_cells
from condgan.study.folder import StudyFolder
from condgan.weights import weights_digest

PART = 16 * 2**20
WEIGHTS = "model.safetensors"


def pack(folder: Path, out: Path, *, part: int = PART, without: Collection[str] = ()) -> list[Path]:
    """Write the finished cells of a study, and the generators that unfinished ones need, in parts of at most 16 MiB.

    Averaged generators are stored in half precision. A generator whose cells are all finished is left out except
    for its pictures and curves: nothing needs it any more. Checkpoints of unfinished trainings and the weights of
    classifiers are left out, and are trained again where they are needed.

    Args:
        folder: Folder of a study.
        out: Folder of the parts, made if missing; those of an earlier call are replaced.
        part: Largest size of a part in bytes.
        without: Names of cells to leave out, such as those that are there already where the parts go.

    Returns:
        The parts, in order.
    """
    buffer = io.BytesIO()
    # Half-precision weights hardly get smaller by more work.
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for path in _to_carry(folder, without):
            content = _carried(path)
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    packed = buffer.getvalue()
    out.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, begin in enumerate(range(0, len(packed), part)):
        parts.append(out / f"{folder.name}.tar.gz.{number:03d}")
        partial = parts[-1].with_name(f"{parts[-1].name}.partial")
        partial.write_bytes(packed[begin : begin + part])
        partial.replace(parts[-1])
    for path in set(out.glob(f"{folder.name}.tar.gz.*")).difference(parts):
        path.unlink()
    return parts


def unpack(parts: Path, folder: Path) -> None:
    """Put a study that was packed into a new folder, from where it goes on or is merged.

    Args:
        parts: Folder of the parts; they are found by the name of `folder`.
        folder: Folder to make.

    Raises:
        FileNotFoundError: If there are no parts, or one is missing.
        FileExistsError: If the folder exists.
    """
    found = sorted(parts.glob(f"{folder.name}.tar.gz.*"))
    if not found or [path.name[-3:] for path in found] != [f"{number:03d}" for number in range(len(found))]:
        raise FileNotFoundError(
            f"{str(parts)!r} must hold {folder.name}.tar.gz.000 and all parts after it, got "
            f"{[path.name for path in found]}."
        )
    if folder.exists():
        raise FileExistsError(f"{str(folder)!r} exists: unpack into a new folder and merge it.")
    content = io.BytesIO(b"".join(path.read_bytes() for path in found))
    with tarfile.open(fileobj=content, mode="r:gz") as archive:
        archive.extractall(folder, filter="data")


def _to_carry(folder: Path, without: Collection[str]) -> Iterator[Path]:
    files = StudyFolder(folder)
    missing = [cell for cell in make_cells(files.study().config) if not files.is_finished(cell.name)]
    needed = {name for cell in missing for name in cell.needs}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if not path.is_file() or {"checkpoints", "classifiers"} & set(inside) or path.name.endswith(".partial"):
            continue
        if not {path.stem, *inside[1:2]}.isdisjoint(without):  # cells/NAME.json and gans/NAME
            continue
        unfinished = inside[0] == "gans" and not files.is_finished(inside[1])
        idle = path.parent.name == "generator" and inside[1] not in needed
        if not unfinished and not idle:
            yield path


def _carried(path: Path) -> bytes:
    """Return a file's content, or for a generator weights in half precision and a description with their digest."""
    weights = path.with_name(WEIGHTS)
    if path.name not in (WEIGHTS, "config.json") or not weights.is_file():
        return path.read_bytes()
    halved = {name: value.half() if value.is_floating_point() else value for name, value in load_file(weights).items()}
    if path.name == WEIGHTS:
        return save(halved, metadata={"format": "pt"})
    return json.dumps(with_digest({**read_record(path), "weights_sha256": weights_digest(halved)})).encode()
