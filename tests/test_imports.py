from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import condgan

ROOT = Path(condgan.__file__).parent

GROUND = {"_version", "types", "files", "weights", "samples", "devices", "distributed", "schedules"}
MAY_IMPORT: dict[str, set[str]] = {
    **{part: set() for part in sorted(GROUND)},
    "files": {"_version"},
    "images": GROUND,
    "functional": GROUND,
    "nn": {*GROUND, "functional"},
    "losses": {*GROUND, "functional"},
    "auxiliary": {*GROUND, "functional"},
    "augmentation": {*GROUND, "functional"},
    "regularizers": {*GROUND, "functional", "nn", "augmentation"},
    "networks": {*GROUND, "functional", "nn"},
    "sampling": {*GROUND, "networks.base"},
    "training": {*GROUND, "images", "functional", "nn", "regularizers", "networks.base", "sampling"},
    "recipes": {*GROUND, "losses", "auxiliary", "regularizers", "augmentation", "networks", "training"},
    "stats": GROUND,
    "data": {*GROUND, "images"},
    "classifier": {*GROUND, "images", "networks.base", "training", "stats", "data"},
    "metrics": {*GROUND, "images", "functional", "networks.base", "sampling", "stats", "data", "classifier"},
}
"""Parts of the library from the ground up, and what of the rest each may import; a name stands for all below it."""

for above in ("runs", "budget", "study", "cli", "__init__", "__main__"):
    MAY_IMPORT[above] = {*MAY_IMPORT}


def module_name(path: Path) -> str:
    """Return a source file's module below `condgan`, such as `networks.base`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imports_of(module: str) -> Iterator[str]:
    """Yield the condgan modules that a module names in its imports, also those for types and inside of functions."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports by a relative name"
            base = node.module or ""
            inner = base.removeprefix("condgan").removeprefix(".")
            names = [
                f"{base}.{alias.name}" if f"{inner}.{alias.name}".lstrip(".") in MODULES else base
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "condgan":
                yield name.removeprefix("condgan").removeprefix(".") or "__init__"


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_go_one_way(part: str) -> None:
    allowed = MAY_IMPORT[part]
    wrong = {
        (module, target)
        for module in MODULES
        if module.split(".")[0] == part
        for target in imports_of(module)
        if target.split(".")[0] != part and not any(f"{target}.".startswith(f"{name}.") for name in allowed)
    }
    assert wrong == set(), f"condgan.{part} may import from {sorted(allowed)} only"


def test_every_part_has_its_place() -> None:
    assert {module.split(".")[0] for module in MODULES} == MAY_IMPORT.keys()
    order = list(MAY_IMPORT)
    for part, allowed in MAY_IMPORT.items():
        assert {name.split(".")[0] for name in allowed} <= {*order[: order.index(part)]}, f"{part} imports upward"


def test_no_import_cycles() -> None:
    below = {module: set(imports_of(module)) for module in MODULES}
    while free := [module for module, targets in below.items() if not targets & below.keys() - {module}]:
        for module in free:
            del below[module]
    assert not below, f"these modules import each other: {below}"


PROBE = """
import json, random, sys, time
import numpy, torch
states = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
filters, default, threads = len(__import__("warnings").filters), torch.get_default_dtype(), torch.get_num_threads()
before, start = set(sys.modules), time.process_time()
import condgan
seconds = time.process_time() - start
import condgan.metrics, condgan.stats
print(json.dumps({
    "seconds": seconds,
    "imported": sorted(name for name in set(sys.modules) - before if "." not in name),
    "undisturbed": {
        "torch seed": torch.equal(states[0], torch.get_rng_state()),
        "random seed": states[1] == random.getstate(),
        "numpy seed": states[2] == numpy.random.get_state()[1].tolist(),
        "warnings": filters == len(__import__("warnings").filters),
        "dtype": default == torch.get_default_dtype(),
        "threads": threads == torch.get_num_threads(),
        "cuda": not torch.cuda.is_initialized(),
    },
}))
"""


def test_import_is_light_and_has_no_side_effects(tmp_path: Path) -> None:
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    home.mkdir()
    cwd.mkdir()
    places = {"HOME": str(home), "USERPROFILE": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home)}
    paths = os.pathsep.join([str(ROOT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, **places, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:condgan", "-c", PROBE],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    result = json.loads(process.stdout)
    assert [name for name, fine in result["undisturbed"].items() if not fine] == []
    heavy = {
        "torchvision",
        "torch_fidelity",
        "matplotlib",
        "sklearn",
        "scipy",
        "jinja2",
        "cattrs",
        "tyro",
        "docstring_parser",
    }
    assert heavy & set(result["imported"]) == set()
    assert result["seconds"] < 3, "seconds of processor time beyond torch and numpy"
    assert [*home.rglob("*"), *cwd.rglob("*")] == []
