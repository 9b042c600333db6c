"""Folders of images as data sets, with the patients that a rule reads off their paths."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from condgan.data import ImageFolder

Rule = Callable[[Path], str]


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how folders are read."""
    group = parser.add_argument_group("data")
    group.add_argument("--image-size", type=int, default=64, metavar="N", help="height and width in pixels (64)")
    group.add_argument("--channels", type=int, choices=(1, 3), default=1, help="1 for greyscale, 3 for colour (1)")
    group.add_argument(
        "--groups",
        metavar="REGEX|CSV",
        help="which images belong to one patient: a regular expression whose captured groups, or whole match, in the "
        "path name the patient; or a .csv file with the columns path and group",
    )
    group.add_argument("--split-seed", type=int, default=0, metavar="N", help="seed of the splits (0)")


def read_folder(
    root: str | Path,
    given: argparse.Namespace,
    *,
    class_names: Sequence[str] | None = None,
) -> ImageFolder:
    """Read a folder that holds one folder for each class.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If its images or classes do not fit, or no patient can be read off a path.
    """
    shape = (given.channels, given.image_size, given.image_size)
    rule = None if given.groups is None else group_rule(given.groups, Path(root))
    return ImageFolder(root, shape, group=rule, class_names=class_names, progress=False)


def group_rule(groups: str, root: Path) -> Rule:
    r"""Return the rule that maps a path relative to `root` to its patient.

    A path in a CSV file is relative to `root`, or begins with the name of `root`.

    Args:
        groups: A regular expression, or the name of a `.csv` file.
        root: The folder of the images.

    Raises:
        ValueError: If the expression is none, or the file lacks a column. The rule raises it for a path without
            patient.
        FileNotFoundError: If the file does not exist.

    Examples:
        >>> rule = group_rule(r"person(\d+)_(bacteria|virus)|IM-(\d+)", Path("train"))
        >>> rule(Path("ill/person7_virus_1.png")), rule(Path("normal/IM-0115-1.png"))
        ('7-virus', '0115')
    """
    if groups.lower().endswith(".csv"):
        return _csv_rule(Path(groups), root)
    try:
        pattern = re.compile(groups)
    except re.error as error:
        raise ValueError(f"--groups must be a regular expression or a .csv file, got {groups!r}: {error}.") from error

    def rule(path: Path) -> str:
        match = pattern.search(path.as_posix())
        if match is None:
            raise ValueError("--groups does not match")
        return "-".join(part for part in match.groups() if part is not None) or match.group()

    return rule


def _csv_rule(file: Path, root: Path) -> Rule:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines)
        missing = {"path", "group"} - set(table.fieldnames or ())
        if missing:
            raise ValueError(f"{str(file)!r} must have the columns path and group, got {table.fieldnames}.")
        known = {row["path"].replace("\\", "/"): row["group"] for row in table}
    name = root.resolve().name

    def rule(path: Path) -> str:
        for key in (f"{name}/{path.as_posix()}", path.as_posix()):
            if key in known:
                return known[key]
        raise ValueError(f"not in {file.name}")

    return rule
