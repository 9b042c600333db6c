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

ANYTHING = None
MAY_IMPORT: dict[str, set[str] | None] = {
    "types": set(),
    "images": set(),
    "functional": {"types"},
    "losses": {"types", "functional"},
    "nn": {"types", "functional"},
    "regularizers": {"types", "functional", "nn.layers"},
    "augmentation": {"types"},
    "networks": {"types", "nn"},
    "sampling": {"types", "networks.base"},
    "training": {"types", "functional", "sampling", "images", "networks.base", "nn.layers", "regularizers"},
    "data": {"types", "images"},
    "files": set(),
    "stats": {"types"},
    "_version": set(),
    "classifier": {"types", "images", "data", "networks.base", "stats", "files", "training"},
    "metrics": {"types", "files", "images", "functional", "sampling", "networks.base", "data", "stats", "classifier"},
    "runs": {
        "types", "files", "images", "data", "networks", "losses", "augmentation", "recipes", "sampling", "training",
        "classifier.network", "metrics",
    },
    "study": ANYTHING,
    "recipes": ANYTHING,
    "cli": ANYTHING,
    "__main__": ANYTHING,
    "__init__": ANYTHING,
}
"""Parts of the library, and what of the rest each may import; a name stands for everything below it."""


def module_name(path: Path) -> str:
    """Return a source file's module below `condgan`, such as `networks.base`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imports_of(module: str) -> Iterator[tuple[str, bool]]:
    """Yield the condgan modules that a module names in its imports, and whether it needs them when it is loaded."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    later = {
        id(statement)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
        for statement in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["condgan", *module.split("."), *(["_"] if MODULES[module].name == "__init__.py" else [])]
                base = ".".join([*package[: -node.level], *([node.module] if node.module else [])])
            inner = base.removeprefix("condgan").removeprefix(".")
            names = [
                f"{base}.{alias.name}" if f"{inner}.{alias.name}".lstrip(".") in MODULES else base
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "condgan":
                yield name.removeprefix("condgan").removeprefix(".") or "__init__", id(node) not in later


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module: str) -> None:
    part = module.split(".")[0]
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what {part} may import"
    allowed = MAY_IMPORT[part]
    if allowed is ANYTHING:
        return
    wrong = {
        target
        for target, _ in imports_of(module)
        if target.split(".")[0] != part and not any(f"{target}.".startswith(f"{name}.") for name in allowed)
    }
    assert wrong == set(), f"condgan.{module} may import from {sorted(allowed)} only"


def test_no_import_cycles() -> None:
    below = {module: {target for target, now in imports_of(module) if now} for module in MODULES}
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
print(json.dumps({
    "seconds": time.process_time() - start,
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
    heavy = {"torchvision", "torch_fidelity", "matplotlib", "sklearn", "scipy", "pandas", "tensorboard"}
    assert heavy & set(result["imported"]) == set()
    assert result["seconds"] < 3, "seconds of processor time beyond torch and numpy"
    assert [*home.rglob("*"), *cwd.rglob("*")] == []
