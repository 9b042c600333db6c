"""The public names of the library."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

MODULES = [
    "condgan",
    *(
        f"condgan.{name}"
        for name in (
            "augmentation",
            "auxiliary",
            "classifier",
            "data",
            "files",
            "functional",
            "images",
            "losses",
            "metrics",
            "networks",
            "nn",
            "recipes",
            "regularizers",
            "runs",
            "sampling",
            "stats",
            "study",
            "training",
            "types",
        )
    ),
]


def public_names(module: ModuleType) -> list[str]:
    """Return `__all__`, or what a plain module without one defines and does not hide."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [name for name, value in vars(module).items() if not name.startswith("_") and defined_in(value, module)]


def defined_in(value: Any, module: ModuleType) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__


def public_objects() -> dict[str, Any]:
    """Return every public class and function once, under the shortest of its names."""
    found: dict[int, tuple[str, Any]] = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in public_names(module):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found.setdefault(id(value), (f"{module_name}.{name}", value))
    return dict(sorted(found.values(), key=lambda item: item[0]))
