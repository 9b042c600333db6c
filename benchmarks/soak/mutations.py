"""Ways in which a file is damaged or edited. The same random state gives the same mutation."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Change = Callable[[bytes, random.Random], bytes]

OTHER_VALUES: tuple[Any, ...] = (None, True, "text", -1, 0, 3.7, 10**12, [], {}, ["a"], {"a": 1})


def _block(whole: bytes, draw: random.Random, most: int = 4096) -> tuple[int, int]:
    """Return begin and end of a block of a size that is uniform in its logarithm."""
    size = min(len(whole), round(most ** draw.random()))
    begin = draw.randrange(len(whole) - size + 1)
    return begin, begin + size


def flip_bits(whole: bytes, draw: random.Random) -> bytes:
    """Invert one to three bits."""
    changed = bytearray(whole)
    for _ in range(draw.randint(1, 3)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def replace_byte(whole: bytes, draw: random.Random) -> bytes:
    """Put another byte in the place of one."""
    place = draw.randrange(len(whole))
    return whole[:place] + draw.randbytes(1) + whole[place + 1 :]


def zero_block(whole: bytes, draw: random.Random) -> bytes:
    """Zero a block, as a disk does that lost a sector."""
    begin, end = _block(whole, draw)
    return whole[:begin] + bytes(end - begin) + whole[end:]


def truncate(whole: bytes, draw: random.Random) -> bytes:
    """Cut the end off."""
    return whole[: draw.randrange(len(whole))]


def repeat_block(whole: bytes, draw: random.Random) -> bytes:
    """Write a block twice."""
    begin, end = _block(whole, draw)
    return whole[:end] + whole[begin:]


def insert(whole: bytes, draw: random.Random) -> bytes:
    """Insert random bytes."""
    place = draw.randrange(len(whole) + 1)
    return whole[:place] + draw.randbytes(draw.randint(1, 64)) + whole[place:]


def remove_block(whole: bytes, draw: random.Random) -> bytes:
    """Leave a block out."""
    begin, end = _block(whole, draw)
    return whole[:begin] + whole[end:]


def swap_blocks(whole: bytes, draw: random.Random) -> bytes:
    """Exchange two neighboring blocks."""
    begin, end = _block(whole, draw)
    middle = draw.randint(begin, end)
    return whole[:begin] + whole[middle:end] + whole[begin:middle] + whole[end:]


OF_BYTES: tuple[Change, ...] = (
    flip_bits,
    replace_byte,
    zero_block,
    truncate,
    repeat_block,
    insert,
    remove_block,
    swap_blocks,
)


def change_json(whole: bytes, draw: random.Random) -> bytes:
    """Change a number, remove or rename a key, or put a value of another type in, and leave the digest as it is."""
    content = json.loads(whole)
    _change_somewhere(content, draw)
    return json.dumps(content, indent=2).encode()


def edit_json(whole: bytes, draw: random.Random) -> bytes:
    """Change JSON likewise and delete its digest, as who edits a record by hand is told to."""
    content = json.loads(whole)
    content.pop("sha256", None)
    _change_somewhere(content, draw)
    return json.dumps(content, indent=2).encode()


OF_JSON: tuple[Change, ...] = (change_json, edit_json)


def changes_for(name: str) -> tuple[Change, ...]:
    """Return the changes that make sense for a file of this name."""
    return OF_BYTES + (OF_JSON if name.endswith(".json") else ())


def _change_somewhere(content: Any, draw: random.Random) -> None:
    """Change one of the values within, the deep ones as often as the others."""
    places = list(_places(content))
    if not places:
        return
    container, key = draw.choice(places)
    value = container[key]
    kind = draw.choice(("number", "remove", "type", "rename"))
    if kind == "number" and isinstance(value, (int, float)):
        container[key] = draw.choice((-value, value + 1, value * 10, value + 0.5, 0, 2**40))
    elif kind == "remove":
        del container[key]
    elif kind == "rename" and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    else:
        container[key] = draw.choice(OTHER_VALUES)


def _places(content: Any) -> Any:
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from _places(content[key])
