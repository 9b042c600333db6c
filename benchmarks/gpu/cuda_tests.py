"""The tests that need a CUDA device, on several workers; their output goes to `tests.txt`."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from parts import ROOT
from work import Row, Work

MARK = "mark" + ".cuda"  # in two parts, so that this file is not found itself
WORKERS = 8
SECONDS_OF_A_TEST = 60

MARGIN = 3.0
"""Seconds that are kept for counting what pytest has said, where it does not finish."""

WORDS = {"PASSED": "passed", "FAILED": "failed", "SKIPPED": "skipped", "ERROR": "errors"}


def run(work: Work) -> None:
    """Run them, and write how many passed and which failed."""
    work.measure({"what": "tests"}, lambda: run_pytest(work))


def run_pytest(work: Work) -> Row:
    """Return the counts of outcomes and the lines about what did not pass."""
    if importlib.util.find_spec("pytest") is None:
        return {"skipped": "no pytest here"}
    log = work.out / "tests.txt"
    code = run_until(command(work), log, max(1.0, work.left_to_live() - MARGIN))
    said = log.read_text(encoding="utf-8", errors="replace")
    return {"returncode": code, **(outcome(said) if code is not None else outcome_so_far(said))}


def run_until(given: Sequence[str], log: Path, seconds: float) -> int | None:
    """Run a command with its output in a file, and return its exit code, or None if it took too long."""
    with log.open("w", encoding="utf-8") as file:
        # To a file, not through a pipe: what was said before a limit is there.
        try:
            return subprocess.run(
                given, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False, timeout=seconds
            ).returncode
        except subprocess.TimeoutExpired:
            return None


def command(work: Work) -> list[str]:
    """Return the command, without options of plugins that are not installed."""
    given = [sys.executable, "-m", "pytest", "-v", "-m", "cuda", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    # An unexpected warning is reported and ends no test.
    given += ["-W", "default", "-rfE", "--tb=short", "--continue-on-collection-errors"]
    if importlib.util.find_spec("xdist") is not None:
        # One failed recording can spoil its process: more of them spoil fewer tests.
        given += ["-n", str(1 if work.rehearse else WORKERS), "--dist=worksteal"]
    else:
        work.write({"what": "tests", "note": "no pytest-xdist here: all tests in one process"})
    if importlib.util.find_spec("pytest_timeout") is not None:
        given += [f"--timeout={SECONDS_OF_A_TEST}"]
    else:
        work.write({"what": "tests", "note": "no pytest-timeout here: a test that hangs ends them all"})
    files = files_with_cuda_tests(ROOT / "tests")
    return given + [str(path.relative_to(ROOT)) for path in (files[:1] if work.rehearse else files)]


def files_with_cuda_tests(folder: Path) -> list[Path]:
    """Return the files that mark a test so; collecting the others would only take time."""
    return [path for path in sorted(folder.rglob("test_*.py")) if MARK in path.read_text(encoding="utf-8")]


def outcome(said: str) -> Row:
    """Return what pytest said at its end."""
    lines = said.splitlines()
    last = next((line for line in reversed(lines) if re.search(r" in [\d.]+s", line)), "")
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)}
    return {"counts": counts, "failures": [line[:300] for line in lines if line.startswith(("FAILED ", "ERROR "))]}


def outcome_so_far(said: str) -> Row:
    """Return the outcomes of the tests that had ended, from the lines of `pytest -v`, on workers or not."""
    results: list[tuple[str, str]] = []
    for line in said.splitlines():
        if on_worker := re.match(r"\[gw\d+\] \[ *\d+%\] ([A-Z]+) (\S+::.*)", line):
            results.append((on_worker[1], on_worker[2].strip()))
        elif alone := re.match(r"(\S+::.*) ([A-Z]+) .*\[ *\d+%\]$", line):
            results.append((alone[2], alone[1]))
    counts = Counter(WORDS[word] for word, _ in results if word in WORDS)
    failures = [f"{word} {test}"[:300] for word, test in results if word in ("FAILED", "ERROR")]
    return {"counts": dict(counts), "failures": failures}
