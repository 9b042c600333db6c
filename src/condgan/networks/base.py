"""Base classes of generators and critics: how they are called, saved and rebuilt."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

import torch
from safetensors.torch import save
from torch import Tensor, nn
from typing_extensions import override

from condgan._version import __version__
from condgan.files import (
    as_path,
    check_count,
    check_format,
    check_names,
    check_seed,
    plain_numbers,
    read_record,
    write_record,
    write_whole,
)
from condgan.types import CriticOutput, ImageShape
from condgan.weights import check_weights, read_weights, weights_digest, weights_of

FORMAT = 1
"""Format of `config.json`, in which 0 had neither version nor digests."""

Conditioning = Literal["concatenation", "batch_norm"]
"""How a generator uses its labels: by a class embedding concatenated with the latents, or by class-conditional batch
norms."""


class Network(nn.Module):
    """A module that records its constructor arguments, so that it can be rebuilt from JSON and weights."""

    config: dict[str, Any]
    """Arguments of the outermost constructor, defaults included."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments; unlike `__init__`, this is called once, for the outermost class."""
        self = super().__new__(cls)
        self.__dict__["config"] = _bound_arguments(cls, args, kwargs)
        return self

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `config.json` to `folder`, which is made if missing.

        Returns:
            The folder.

        Raises:
            TypeError: If a constructor argument has no name or cannot be written as JSON.
            ValueError: If a weight is not finite.
        """
        folder = as_path(folder)
        unnamed = [name for name in _unnamed_parameters(type(self)) if name in self.config]
        if unnamed:
            raise TypeError(
                f"the constructor of {type(self).__name__} must name its arguments to be rebuilt from JSON, "
                f"got positional ones in {', '.join(unnamed)}. Give them names, or save state_dict() instead."
            )
        try:
            json.dumps(self.config, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"the constructor arguments of {type(self).__name__} must be plain JSON values (finite numbers, "
                f"strings, lists), got {self.config}. Save state_dict() instead, or pass plain values."
            ) from error
        weights = weights_of(self)
        with write_whole(folder / "model.safetensors") as file:
            file.write(save(weights, metadata={"format": "pt"}))
        config = {
            "format": FORMAT,
            "version": __version__,
            "class": type(self).__name__,
            "arguments": self.config,
            "weights_sha256": weights_digest(weights),
        }
        write_record(folder / "config.json", config)  # last, because it vouches for the weights
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: torch.device | str = "cpu") -> Self:
        """Rebuild a network from a folder that `save_pretrained` wrote, in evaluation mode and the default dtype.

        The class is the one that this method is called on; the name in the file is compared with it, never imported.

        Raises:
            FileNotFoundError: If the folder lacks `config.json` or `model.safetensors`.
            ValueError: If a file is damaged, a later version wrote it, the folder holds a network of another class, or
                its arguments do not fit its weights.
        """
        folder = as_path(folder)
        missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder} must hold config.json and model.safetensors as save_pretrained writes them, "
                f"missing {' and '.join(missing)}."
            )
        config = read_record(folder / "config.json")
        check_format(config, FORMAT, folder / "config.json")
        entries = {"class", "arguments", *(("format", "version", "weights_sha256") if "format" in config else ())}
        if set(config) != entries:
            raise ValueError(f"{folder / 'config.json'} must have the entries {sorted(entries)}, got {sorted(config)}.")
        if config["class"] != cls.__name__:
            raise ValueError(
                f"{folder} holds a {config['class']}, got a call on {cls.__name__}. "
                f"Call {config['class']}.from_pretrained instead."
            )
        weights, _ = read_weights(folder / "model.safetensors")
        check_weights(weights, config.get("weights_sha256"), folder / "model.safetensors")
        try:
            with seeded_weights():  # they are overwritten
                network = cls(**config["arguments"])
            network.load_state_dict(weights)
        except Exception as error:  # wrong arguments can fail in any way
            raise ValueError(
                f"{folder / 'config.json'} must hold the arguments of the {cls.__name__} whose weights are beside it, "
                f"got {config['arguments']}: {error}"
            ) from error
        return network.to(device).eval()


class Generator(Network):
    """Base of generators: `generator(z, y)` returns images in [-1, 1]. Subclass it and define `forward`.

    Args:
        latent_dim: Latent features Z.
        num_classes: Classes K, or None for an unconditional generator.
        image_shape: Shape of one sample, `(C, H, W)` for images.

    Shape:
        - `z`: `(N, Z)`, standard normal; `y`: `(N,)`, int64 in `[0, K)`, or None without classes.
        - output: `(N, C, H, W)`, float in [-1, 1].

    Raises:
        ValueError: If a size is not positive.
    """

    def __init__(self, *, latent_dim: int, num_classes: int | None, image_shape: tuple[int, ...]) -> None:
        super().__init__()
        _check_classes_and_shape(num_classes, image_shape)
        check_count("latent_dim", latent_dim)
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.image_shape = tuple(image_shape)

    if TYPE_CHECKING:  # nn.Module's own call is typed as returning anything

        def __call__(self, z: Tensor, y: Tensor | None = None) -> Tensor: ...  # noqa: D102

    @override
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define forward(z, y).")


class Critic(Network):
    r"""Base of critics: shared features with heads on top. Subclass it and define `features`, not `forward`.

    The score head is linear, $D(x) = w^\top h(x) + b$; mixins add to the score or to the output with
    `super().heads(h, y)._replace(...)`, and make their parameters in `make_heads`.

    Args:
        feature_dim: Features D that `features` returns.
        num_classes: Classes K, or None without classes.
        image_shape: Shape of one sample, `(C, H, W)` for images.

    Shape:
        - `x`: `(N, C, H, W)`, float in [-1, 1]; `y`: `(N,)`, int64 in `[0, K)`, or None.
        - output: a `CriticOutput`.

    Raises:
        ValueError: If a size is not positive.

    Examples:
        >>> from condgan.networks.heads import AuxiliaryClassifierMixin
        >>> class TinyCritic(Critic):
        ...     def __init__(self, num_classes: int) -> None:
        ...         super().__init__(feature_dim=8, num_classes=num_classes, image_shape=(1, 16, 16))
        ...         self.body = nn.Linear(256, 8)
        ...     def features(self, x: Tensor) -> Tensor:
        ...         return self.body(x.flatten(1)).relu()
        >>> class TinyACCritic(AuxiliaryClassifierMixin, TinyCritic):
        ...     pass
        >>> out = TinyACCritic(3)(torch.randn(5, 1, 16, 16))
        >>> out.score.shape, out.class_logits.shape
        (torch.Size([5]), torch.Size([5, 3]))
    """

    score_needs_labels: ClassVar[bool] = False
    """Whether `score` depends on `y`."""

    def __init__(self, *, feature_dim: int, num_classes: int | None, image_shape: tuple[int, ...]) -> None:
        super().__init__()
        _check_classes_and_shape(num_classes, image_shape)
        check_count("feature_dim", feature_dim)
        self.feature_dim = feature_dim
        self.num_classes = num_classes
        self.image_shape = tuple(image_shape)
        self.make_heads()

    if TYPE_CHECKING:  # nn.Module's own call is typed as returning anything

        def __call__(self, x: Tensor, y: Tensor | None = None) -> CriticOutput: ...  # noqa: D102

    def make_heads(self) -> None:
        """Make the parameters of the heads; `feature_dim` and `num_classes` are set. Mixins extend it."""
        self.score_head = nn.Linear(self.feature_dim, 1)

    def features(self, x: Tensor) -> Tensor:
        """Return the features `(N, D)` that all heads share."""
        raise NotImplementedError(f"{type(self).__name__} must define features(x).")

    def heads(self, h: Tensor, y: Tensor | None) -> CriticOutput:
        """Return the outputs of all heads on features `h`."""
        return CriticOutput(score=self.score_head(h).squeeze(1))

    @override
    def forward(self, x: Tensor, y: Tensor | None = None) -> CriticOutput:
        return self.heads(self.features(x), y)


@contextmanager
def seeded_weights(seed: int = 0) -> Iterator[None]:
    """Draw the initial weights of networks made inside from a seed, without advancing the default generator.

    They are made on the CPU, whatever the default device, so that the seed gives the same weights everywhere.

    Args:
        seed: Seed of the CPU's default generator; accelerators are not touched, unlike by `torch.manual_seed`.

    Examples:
        >>> with seeded_weights(seed=3):
        ...     first = nn.Linear(2, 1)
        >>> with seeded_weights(seed=3):
        ...     second = nn.Linear(2, 1)
        >>> torch.equal(first.weight, second.weight)
        True
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(check_seed(seed))
        yield


def channels_and_sides(image_shape: ImageShape) -> ImageShape:
    """Return channels, height and width.

    Raises:
        ValueError: If the shape does not have three entries.
    """
    if len(image_shape) != 3:
        raise ValueError(f"image_shape must be (C, H, W), got {tuple(image_shape)}. Greyscale images have C = 1.")
    return image_shape


def conditional_classes(conditioning: Conditioning, num_classes: int | None) -> tuple[int | None, int | None]:
    """Return `num_classes` of the concatenated embedding and of the batch norms; it is None for one of them.

    Raises:
        ValueError: If `conditioning` is unknown.
    """
    check_names("conditioning", [conditioning], get_args(Conditioning))
    return (num_classes, None) if conditioning == "concatenation" else (None, num_classes)


def _bound_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        bound = inspect.signature(cls).bind(*args, **kwargs)
    except TypeError:
        return {}  # copy.copy passes no arguments, and sets the state later; otherwise __init__ raises a better error
    bound.apply_defaults()
    arguments: dict[str, Any] = plain_numbers(dict(bound.arguments))
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name)
        elif parameter.kind is parameter.VAR_POSITIONAL and not arguments[name]:
            del arguments[name]
    return arguments


def _unnamed_parameters(cls: type) -> list[str]:
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)
    return [name for name, parameter in inspect.signature(cls).parameters.items() if parameter.kind in unnamed]


def _check_classes_and_shape(num_classes: int | None, shape: tuple[int, ...]) -> None:
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}. Pass None for an unconditional network.")
    if not shape or min(shape) < 1:
        raise ValueError(f"image_shape must be positive sizes such as (1, 64, 64), got {tuple(shape)}.")
