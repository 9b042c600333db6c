from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import condgan

ROOT = Path(condgan.__file__).parent
SOURCES = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}

MODULES = [
    "condgan",
    *(
        f"condgan.{name}"
        for name in (
            "augmentation",
            "data",
            "functional",
            "images",
            "losses",
            "metrics",
            "networks",
            "nn",
            "recipes",
            "regularizers",
            "sampling",
            "study",
            "training",
            "types",
        )
    ),
]

BANNED = {"disc", "netD", "netG", "nz", "nc", "ngf", "ndf", "n_classes", "nb_classes", "lambda_", "lambd"}
"""Names that the library has other words for: critic, latent_dim, base_channels, num_classes, weight."""


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


OBJECTS = public_objects()
CLASSES = {name: value for name, value in OBJECTS.items() if inspect.isclass(value)}
every_object = pytest.mark.parametrize("name", OBJECTS)


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
def test_modules_list_what_exists_in_order(module_name: str) -> None:
    module = importlib.import_module(module_name)
    assert module.__doc__
    names = public_names(module)
    assert [name for name in names if not hasattr(module, name)] == []
    if hasattr(module, "__all__"):
        assert names == sorted(set(names), key=lambda name: (not name.isupper(), not name[0].isupper(), name))


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
            continue
        part = importlib.import_module(".".join(value.__module__.split(".")[:2]))
        assert getattr(part, name) is value
        assert name in public_names(part)


def test_all_modules_import() -> None:
    for module in pkgutil.walk_packages([str(ROOT)], "condgan."):
        if not module.name.endswith("__main__"):
            assert importlib.import_module(module.name).__doc__, module.name


@every_object
def test_documented(name: str) -> None:
    value = OBJECTS[name]
    doc = inspect.cleandoc(value.__doc__ or "")
    assert re.match(r"[\"'`$A-Z0-9][^\n]*(\n[^\n]+)*[.:]($|\n\n)", doc), (
        f"a summary that ends with a full stop, got {doc!r}"
    )
    assert not doc.startswith(f"{value.__name__}("), "dataclasses and named tuples document themselves with a signature"
    if inspect.isclass(value):
        bare = [m for m in public_methods(value) if not any(has_doc(base, m) for base in value.__mro__)]
        # `forward` is documented by its class.
        assert set(bare) <= {"forward", "extra_repr"}


def has_doc(base: type, name: str) -> bool:
    value = vars(base).get(name)
    return bool(getattr(value, "__doc__", None))


@every_object
def test_annotated(name: str) -> None:
    value = OBJECTS[name]
    functions = public_methods(value, special=("__init__", "__call__")) if inspect.isclass(value) else {name: value}
    for function_name, function in functions.items():
        parameters = list(inspect.signature(function).parameters.values())
        if inspect.isclass(value) and parameters and parameters[0].name in ("self", "cls"):
            parameters = parameters[1:]
        missing = [p.name for p in parameters if p.annotation is p.empty]
        assert missing == [], function_name
        assert inspect.signature(function).return_annotation is not inspect.Signature.empty, function_name


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


@every_object
def test_shapes_are_documented(name: str) -> None:
    """Functions with a tensor parameter, records with a tensor field, and classes with a method that takes a tensor."""
    value = OBJECTS[name]
    if inspect.isfunction(value):
        assert "Shape:" in value.__doc__ or not takes_arrays(value)
        return
    methods = public_methods(value, special=("__call__", "__init__"))
    shapeless = [
        method
        for method, function in methods.items()
        if takes_arrays(function) and "Shape:" not in method_documentation(value, method)
    ]
    fields = value.__annotations__ if dataclasses.is_dataclass(value) or hasattr(value, "_fields") else {}
    shapeless += [field for field, kind in fields.items() if is_array(kind) and "Shape:" not in documentation(value)]
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


@every_object
def test_raised_errors_are_documented(name: str) -> None:
    """Those that a public function raises itself; what its helpers raise cannot be read off."""
    value = OBJECTS[name]
    if inspect.isfunction(value):
        documented = {name: (value, value.__doc__ or "")}
    else:
        methods = public_methods(value, special=("__init__", "__post_init__", "__call__", "__getitem__"))
        documented = {m: (function, method_documentation(value, m)) for m, function in methods.items()}
    for function_name, (function, doc) in documented.items():
        section = doc.partition("Raises:")[2]
        missing = {error for error in raised(function) if error not in section}
        assert missing == set(), f"{function_name} lacks them in `Raises:`"


def identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=identifier) | ast.arg(arg=identifier) | ast.Attribute(attr=identifier):
                yield identifier
            case ast.keyword(arg=str(identifier)):
                yield identifier
            case ast.FunctionDef(name=identifier) | ast.ClassDef(name=identifier):
                yield identifier


def violations(source: str) -> list[str]:
    """Return what must never appear in the library, with line numbers."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Assert():
                what = "assert"
            case ast.ExceptHandler(type=None):
                what = "bare except"
            case ast.ImportFrom(names=[ast.alias(name="*")]):
                what = "import *"
            case ast.Call(func=ast.Name(id="print" | "exec" | "eval" as function)):
                what = f"{function}()"
            case ast.Call(func=ast.Attribute(attr="cuda")):
                what = ".cuda()"
            case ast.Call(func=ast.Attribute(attr="DataParallel" | "DistributedDataParallel" as wrapper)):
                what = wrapper
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load"), keywords=keywords) if not any(
                k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
                for k in keywords
            ):
                what = "torch.load without weights_only=True"
            case ast.FunctionDef(args=ast.arguments(defaults=defaults, kw_defaults=others)) if any(
                isinstance(default, (ast.List, ast.Dict, ast.Set)) for default in [*defaults, *others]
            ):
                what = "mutable default"
            case ast.arg(arg="generator", annotation=annotation) if annotation and "torch.Generator" in ast.unparse(
                annotation
            ):
                what = "a random generator that is not called rng"
            case _:
                continue
        found.append(f"{what}, line {getattr(node, 'lineno', 0)}")
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_source_keeps_the_rules(source: str) -> None:
    text = SOURCES[source].read_text(encoding="utf-8")
    assert violations(text) == []
    words = {identifier.lower() for identifier in identifiers(ast.parse(text))}
    banned = {name.lower() for name in BANNED}
    assert words & banned == set()
    assert {word for word in words if "discriminator" in word} == set()


@pytest.mark.parametrize(
    ("source", "violation"),
    [
        ("assert x", "assert"),
        ("try:\n    pass\nexcept:\n    pass", "bare except"),
        ("from a import *", "import *"),
        ("print(1)", "print()"),
        ("x.cuda()", ".cuda()"),
        ("torch.load(f)", "torch.load without weights_only=True"),
        ("torch.load(f, weights_only=False)", "torch.load without weights_only=True"),
        ("def f(*, a=[]): ...", "mutable default"),
        ("def f(generator: torch.Generator | None): ...", "a random generator that is not called rng"),
    ],
)
def test_the_rules_are_seen(source: str, violation: str) -> None:
    assert [found.split(", line")[0] for found in violations(source)] == [violation]


def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([.-]?\w+)*", condgan.__version__)
