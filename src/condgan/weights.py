"""Weights in files: finite when they are written, and the same when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters and buffers of a module, on the CPU, as safetensors takes them.

    Raises:
        ValueError: If a value is not finite.
    """
    weights = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in module.state_dict().items()}
    if bad := not_finite(weights.items()):
        raise ValueError(
            f"the weights of {type(module).__name__} must be finite to be saved, got NaN or infinity in "
            f"{', '.join(bad)}. Save those of an earlier step; a constant that is infinite on purpose, such as a mask, "
            "belongs in a buffer with persistent=False."
        )
    return weights


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity.

    Examples:
        >>> not_finite([("a", torch.tensor([1.0, float("nan")])), ("b", torch.tensor(2))])
        ['a']
    """
    return [name for name, tensor in tensors if not bool(tensor.isfinite().all())]


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values of tensors on the CPU, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, or a damaged one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return weights, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file, got one that cannot be read: {error}.") from error


def check_weights(weights: Mapping[str, Tensor], digest: str | None, source: str | Path) -> None:
    """Check that weights have the digest that was recorded when they were saved, if one was.

    Raises:
        ValueError: If they have another one; the message names the source.
    """
    if digest is not None and digest != weights_digest(weights):
        raise ValueError(
            f"the weights in {source} do not have the SHA-256 that was recorded with them: the file is damaged, or "
            "saving was interrupted. Restore it, or save again."
        )
