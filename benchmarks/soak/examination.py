"""Files that are damaged and read, and what comes of it."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutations import changes_for, edit_json
from pickles import pickles
from readers import SUBJECTS, Subject, differences

WRONG = ("silent", "crash", "hang", "executed")
"""Outcomes that must not be."""


@dataclass(frozen=True)
class Finding:
    """What came of reading one file.

    Args:
        outcome: `"equal"`: what the intact file holds was read; `"refused"`; `"older used"`: that of an older file was
            read, with a warning; `"part left out"`: likewise some of a log; `"as edited"`: a record without a digest
            was read as it stands there; `"lines missing"`: a log has fewer lines, all whole. Wrong are
            `"silent"`: other values without a word, `"crash"`: another error than documented, or a dead process,
            `"hang"` and `"executed"`.
        file: The file.
        change: How it was changed.
        error: Type and message of the error, if there was one.
        peak: The most resident memory of the process so far, in bytes; 0 if it was not measured.
    """

    outcome: str
    file: str
    change: str
    error: str | None = None
    peak: int = 0


class Examination:
    """Damages and reads the files of one kind, in a folder of its own."""

    def __init__(self, kind: str, seed: int, folder: Path) -> None:
        self.kind, self.seed, self.canary = kind, seed, folder / "canary"
        kinds = SUBJECTS if kind == "pickles" else {kind: SUBJECTS[kind]}
        self.subjects = [(folder / name, subject) for name, make in kinds.items() for subject in make(folder / name)]
        self.intact = [subject.read(root) for root, subject in self.subjects]
        self.pickles = pickles(str(self.canary))

    def examine(self, index: int) -> Finding:
        """Damage a file, read it, and put the intact one back."""
        which = index % len(self.subjects)
        (root, subject), intact = self.subjects[which], self.intact[which]
        path = root / subject.path
        whole = path.read_bytes()
        change, damaged = self._damage(index, subject.path, whole)
        path.write_bytes(damaged)
        try:
            outcome, error = self._outcome(root, subject, intact, edited=change == edit_json.__name__)
        finally:
            path.write_bytes(whole)
        if self.canary.exists():
            outcome = "executed"
            shutil.rmtree(self.canary) if self.canary.is_dir() else self.canary.unlink()
        if outcome == "silent" and subject.is_log and _lacks_lines(damaged, whole):
            outcome = "lines missing"
        return Finding(outcome, subject.path, change, error)

    def _damage(self, index: int, path: str, whole: bytes) -> tuple[str, bytes]:
        number = index // len(self.subjects)
        if self.kind == "pickles":
            name, make = self.pickles[number % len(self.pickles)]
            return name, make(whole)
        changes = changes_for(path)
        change = changes[number % len(changes)]
        return change.__name__, change(whole, random.Random(f"{self.seed} {self.kind} {index}"))

    def _outcome(self, root: Path, subject: Subject, intact: Any, *, edited: bool) -> tuple[str, str | None]:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                found = subject.read(root)
            except Exception as error:
                outcome = "refused" if type(error) in (ValueError, FileNotFoundError) else "crash"
                return outcome, f"{type(error).__name__}: {error}"
        if not list(differences(found, intact)):
            return "equal", None
        if said and subject.older is not None and not list(differences(found, subject.older)):
            return "older used", None
        if said and subject.is_log and all(count <= intact.get(key, 0) for key, count in found.items()):
            return "part left out", None
        if edited and subject.agrees(found, json.loads((root / subject.path).read_bytes())):
            return "as edited", None
        return "silent", f"read otherwise: {', '.join([*differences(found, intact)][:5])}"


def _lacks_lines(damaged: bytes, whole: bytes) -> bool:
    return {*damaged.splitlines()} < {*whole.splitlines()}
