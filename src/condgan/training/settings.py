"""What a training depends on, as plain values that two trainings can be compared by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from condgan.files import plain_numbers


def stable_repr(part: object) -> str:
    """Return the `repr` of a part without memory addresses, so that it is the same in every process."""
    return part if isinstance(part, str) else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(part))


def as_plain(value: Any) -> Any:
    """Return a value as numbers, text, lists and dictionaries; of anything else the `repr`.

    Examples:
        >>> as_plain({"image_shape": (1, 16, 16), "activation": nn.ReLU()})
        {'image_shape': [1, 16, 16], 'activation': 'ReLU()'}
    """
    value = plain_numbers(value)
    if isinstance(value, Mapping):
        return {str(name): as_plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(entry) for entry in value]
    return value if value is None or isinstance(value, (bool, int, float)) else stable_repr(value)


def attributes(term: object) -> dict[str, Any]:
    """Return the public attributes of a term that are numbers or text, where its `repr` may not show them.

    Examples:
        >>> class Scaled:
        ...     def __init__(self) -> None:
        ...         self.scale = 0.5
        >>> attributes(Scaled())
        {'scale': 0.5}
    """
    if type(term).__repr__ not in (object.__repr__, nn.Module.__repr__):
        return {}
    return {
        name: as_plain(value)
        for name, value in getattr(term, "__dict__", {}).items()
        if not name.startswith("_") and name != "training" and isinstance(value, (bool, int, float, str))
    }


def over_progress(schedule: Callable[[float], float]) -> list[float]:
    """Return the values of a function of the progress of training at 0, 1/8, ..., 7/8."""
    return [float(schedule(i / 8)) for i in range(8)]


def changes(then: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Yield the settings that differ, with both values.

    Examples:
        >>> list(changes({"seed": 0, "adam": {"lr": 0.1}}, {"seed": 0, "adam": {"lr": 0.2}}))
        ['adam.lr was 0.1 and is 0.2']
    """
    for name in {**now, **then}:
        before, after = then.get(name), now.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from changes(before, after, f"{place}{name}.")
        elif before != after:
            yield f"{place}{name} was {before!r} and is {after!r}"
