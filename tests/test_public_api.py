from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import condgan
from public import MODULES, public_names, public_objects

ROOT = Path(condgan.__file__).parent

OBJECTS = public_objects()
CLASSES = {name: value for name, value in OBJECTS.items() if inspect.isclass(value)}


def own_bases(cls: type) -> list[type]:
    return [base for base in cls.__mro__ if base.__module__.split(".")[0] == "condgan"]


def public_methods(cls: type, *, special: tuple[str, ...] = ()) -> dict[str, Callable[..., Any]]:
    """Return the functions that a class of the library or its bases in the library define and do not hide."""
    methods: dict[str, Callable[..., Any]] = {}
    for base in reversed(own_bases(cls)):
        for name, value in vars(base).items():
            function = inspect.unwrap(value.__func__) if isinstance(value, (classmethod, staticmethod)) else value
            if isinstance(function, property):
                function = function.fget
            if inspect.isfunction(function) and (not name.startswith("_") or name in special):
                methods[name] = function
    return {name: function for name, function in methods.items() if function.__module__.startswith("condgan")}


def documentation(cls: type) -> str:
    """Return the docstrings of a class and its bases in the library: what holds for a base holds for it."""
    return "\n".join(inspect.cleandoc(base.__doc__ or "") for base in own_bases(cls))


def method_documentation(cls: type, name: str) -> str:
    docs = [inspect.getdoc(vars(base)[name]) or "" for base in own_bases(cls) if name in vars(base)]
    return "\n".join([*docs, documentation(cls)])


@pytest.mark.parametrize("module_name", MODULES)
def test_modules_list_what_exists(module_name: str) -> None:
    module = importlib.import_module(module_name)
    assert module.__doc__
    assert [name for name in public_names(module) if not hasattr(module, name)] == []


@pytest.mark.parametrize("module_name", [name for name in MODULES if hasattr(importlib.import_module(name), "__all__")])
def test_modules_list_all_they_offer(module_name: str) -> None:
    """In a package: what its `__init__` imports from inside. In a module: what it defines."""
    module = importlib.import_module(module_name)
    inside = f"{module_name}." if hasattr(module, "__path__") else module_name
    offered = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and f"{value.__module__}.".startswith(inside)
    }
    assert offered - set(module.__all__) == set()


def test_exports_of_the_root_are_exports_of_their_part() -> None:
    """Whoever looks for a name of the root in the part it comes from finds it there too."""
    for name in condgan.__all__:
        value = getattr(condgan, name)
        if isinstance(value, ModuleType):
            assert value.__name__ in MODULES
        if isinstance(value, (ModuleType, str)):
            continue
        part = importlib.import_module(".".join(value.__module__.split(".")[:2]))
        assert getattr(part, name) is value
        assert name in public_names(part)


def test_all_modules_import() -> None:
    for module in pkgutil.walk_packages([str(ROOT)], "condgan."):
        if not module.name.endswith("__main__"):
            assert importlib.import_module(module.name).__doc__, module.name


def test_every_public_name_is_documented() -> None:
    """With a sentence; the signature that dataclasses and named tuples write themselves is none."""
    bare = []
    for name, value in OBJECTS.items():
        doc = inspect.cleandoc(value.__doc__ or "")
        if not doc or doc.startswith(f"{value.__name__}("):
            bare.append(name)
        if inspect.isclass(value):
            methods = [m for m in public_methods(value) if not any(has_doc(base, m) for base in value.__mro__)]
            # `forward` is documented by its class.
            bare += [f"{name}.{method}" for method in methods if method not in {"forward", "extra_repr"}]
    assert bare == []


def has_doc(base: type, name: str) -> bool:
    value = vars(base).get(name)
    return bool(getattr(value, "__doc__", None))


def is_array(annotation: Any) -> bool:
    """Return whether a tensor or array itself is meant, alone or as one of several choices, and not a container."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    outer = re.sub(r"\[.*\]", "", text)
    return any(
        choice.strip().split(".")[-1] in {"Tensor", "ndarray", "NDArray", "Labels"} for choice in outer.split("|")
    )


def takes_arrays(function: Callable[..., Any]) -> bool:
    """Return whether a parameter is an array; what only returns one says in prose what."""
    return any(is_array(parameter.annotation) for parameter in inspect.signature(function).parameters.values())


def test_shapes_of_tensors_are_documented() -> None:
    """Functions with a tensor parameter, records with a tensor field, and classes with a method that takes a tensor."""
    shapeless = []
    for name, value in OBJECTS.items():
        if inspect.isfunction(value):
            if takes_arrays(value) and "Shape:" not in value.__doc__:
                shapeless.append(name)
            continue
        shapeless += [
            f"{name}.{method}"
            for method, function in public_methods(value, special=("__call__", "__init__")).items()
            if takes_arrays(function) and "Shape:" not in method_documentation(value, method)
        ]
        fields = value.__annotations__ if dataclasses.is_dataclass(value) or hasattr(value, "_fields") else {}
        shapeless += [
            f"{name}.{field}"
            for field, kind in fields.items()
            if is_array(kind) and "Shape:" not in documentation(value)
        ]
    assert shapeless == []


def raised(function: Callable[..., Any]) -> set[str]:
    """Return the names of the exceptions in a function's own `raise` statements; a bare `raise` passes one on."""
    if not function.__code__.co_filename.endswith(".py"):  # a dataclass wrote it
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            names.add(ast.unparse(called).split(".")[-1])
    return {name for name in names if name[0].isupper()} - {"NotImplementedError", "StopIteration", "AssertionError"}


def test_raised_errors_are_documented() -> None:
    """Those that a public function raises itself; what its helpers raise cannot be read off."""
    undocumented = []
    for name, value in OBJECTS.items():
        if inspect.isfunction(value):
            documented = {name: (value, value.__doc__ or "")}
        else:
            methods = public_methods(value, special=("__init__", "__post_init__", "__call__", "__getitem__"))
            documented = {f"{name}.{m}": (f, method_documentation(value, m)) for m, f in methods.items()}
        for function_name, (function, doc) in documented.items():
            section = doc.partition("Raises:")[2]
            undocumented += [f"{function_name}: {error}" for error in raised(function) if error not in section]
    assert undocumented == []


def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([.-]?\w+)*", condgan.__version__)
