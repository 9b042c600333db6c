"""Files that would run code if they were unpickled: each would leave a file, the canary."""

from __future__ import annotations

import builtins
import io
import itertools
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

Container = Callable[[Any, int, bytes], bytes]


class Call:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        """Return the call."""
        return self.call


def calls(canary: str) -> dict[str, Call]:
    """Return calls that make the canary, by what they call."""
    write = f"open({canary!r}, 'w').close()"
    return {
        "os.system": Call(os.system, f'"{sys.executable}" -c "{write}"'),
        "subprocess": Call(subprocess.check_output, [sys.executable, "-c", write]),
        "eval": Call(builtins.eval, write),
        "exec": Call(builtins.exec, write),
        "os.mkdir": Call(os.mkdir, canary),
        "pathlib": Call(pathlib.Path.touch, pathlib.Path(canary)),
        "shutil.copy": Call(shutil.copy, os.devnull, canary),
        "torch.save": Call(torch.save, {}, canary),
        "numpy.save": Call(np.save, canary, 0),
    }


def plain(call: Any, protocol: int, whole: bytes) -> bytes:
    """Return a pickle without a container."""
    return pickle.dumps(call, protocol)


def archive(call: Any, protocol: int, whole: bytes) -> bytes:
    """Return an archive of torch; one of the intact file with one value replaced, if it is one."""
    try:
        content = {**torch.load(io.BytesIO(whole), weights_only=True), "data_fingerprint": call}
    except (pickle.PickleError, RuntimeError, EOFError, ValueError):
        content = call
    file = io.BytesIO()
    torch.save(content, file, pickle_protocol=protocol)
    return file.getvalue()


def arrays(call: Any, protocol: int, whole: bytes) -> bytes:
    """Return an archive of arrays of objects."""
    file = io.BytesIO()
    objects = np.array([call], dtype=object)
    np.savez(file, labels=objects, groups=objects, probabilities=objects)
    return file.getvalue()


CONTAINERS: tuple[Container, ...] = (plain, archive, arrays)


def pickles(canary: str) -> list[tuple[str, Callable[[bytes], bytes]]]:
    """Return descriptions of pickles, and functions that make them of the intact content of a file."""
    return [
        (f"{container.__name__} {name}, protocol {protocol}", partial(container, call, protocol))
        for container, (name, call), protocol in itertools.product(CONTAINERS, calls(canary).items(), (2, 4))
    ]
