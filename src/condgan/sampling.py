"""Latents, distributions of classes and labels, and samples from a generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, cast

import torch
from torch import Tensor

from condgan.devices import plain_defaults
from condgan.networks.base import Generator


@dataclass(frozen=True, slots=True)
class Tempered:
    r"""A distribution of the classes between balanced and empirical: $p_k \propto n_k^t$ for class counts $n_k$.

    Args:
        exponent: $t$; 0 is balanced, 1 empirical.
    """

    exponent: float

    def __call__(self, class_counts: Sequence[int]) -> list[float]:
        """Return the unnormalized probabilities for classes of these sizes."""
        return [float(n) ** self.exponent for n in class_counts]


ClassDistribution = Literal["balanced", "empirical", "natural"] | Callable[[Sequence[int]], Sequence[float]]
"""How classes are drawn, as a function of their counts: `"balanced"` is `Tempered(0)`, each class equally often;
`"empirical"` and `"natural"` are `Tempered(1)`, in proportion to the counts; a callable returns weights."""

LabelDistribution = Literal["paired"] | ClassDistribution
"""How the labels of generated images are drawn in training. `"paired"` gives them the labels of the real batch; in a
generator step without a real batch they are drawn as the classes of real images are."""

_NAMED = {"balanced": Tempered(0), "empirical": Tempered(1), "natural": Tempered(1)}


def named_distribution(name: str) -> ClassDistribution:
    """Return the distribution of a name, as configurations and the command line have it.

    Args:
        name: `"balanced"`, `"empirical"`, `"natural"`, or `"tempered:T"` for `Tempered(T)`.

    Raises:
        ValueError: If it is another name.

    Examples:
        >>> named_distribution("natural"), named_distribution("tempered:0.5")
        ('natural', Tempered(exponent=0.5))
    """
    if name in _NAMED:
        return cast(ClassDistribution, name)
    kind, _, exponent = name.partition(":")
    try:
        tempered = Tempered(float(exponent))
    except ValueError:
        tempered = Tempered(math.nan)
    if kind != "tempered" or not math.isfinite(tempered.exponent):
        raise ValueError(
            f"a distribution of the classes must be one of {sorted(_NAMED)} or 'tempered:T' with a number T, such as "
            f"'tempered:0.5', got {name!r}."
        )
    return tempered


@plain_defaults()
def class_probabilities(distribution: ClassDistribution, class_counts: Sequence[int]) -> Tensor:
    """Return the probabilities of the classes under a distribution, `(K,)` float64.

    Raises:
        ValueError: If the distribution is unknown, or does not give K finite weights of at least 0, one of them
            positive.

    Examples:
        >>> class_probabilities("balanced", [300, 100])
        tensor([0.5000, 0.5000], dtype=torch.float64)
        >>> class_probabilities("natural", [300, 100])
        tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    if isinstance(distribution, str):
        if distribution not in _NAMED:
            raise ValueError(
                f"a distribution of the classes must be one of {sorted(_NAMED)}, Tempered(t) or a callable, got "
                f'{distribution!r}. ("paired" is for the labels of generated images only.)'
            )
        distribution = _NAMED[distribution]
    weights = torch.as_tensor(distribution(class_counts), dtype=torch.float64)
    if weights.shape != (len(class_counts),) or not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        raise ValueError(
            f"a distribution must give {len(class_counts)} finite weights of at least 0, got {weights.tolist()}."
        )
    if float(weights.sum()) == 0:
        raise ValueError("a distribution must give at least one class a positive weight, got zeros only.")
    return weights / weights.sum()


def class_edges(probabilities: Tensor) -> Tensor:
    """Return the boundaries of the classes in the cumulative distribution, for `sample_classes`.

    Shape:
        - `probabilities`: `(K,)`. Output: `(K - 1,)`, from 0 to 1.

    Examples:
        >>> class_edges(torch.tensor([0.5, 0.25, 0.25]))
        tensor([0.5000, 0.7500])
    """
    sums = probabilities.cumsum(0)
    return sums[:-1] / sums[-1]  # exactly 1, despite rounding, where only classes of probability 0 follow


def sample_classes(edges: Tensor, count: int, *, rng: torch.Generator | None = None) -> Tensor:
    """Draw labels by inverting the cumulative distribution, without reading anything back from the device.

    Args:
        edges: Boundaries of the classes, from `class_edges`.
        count: Number of labels.
        rng: Source of randomness, on the device of `edges`; None for the default one.

    Shape:
        - `edges`: `(K - 1,)`. Output: `(count,)`, int64 in `[0, K)`, on the device of `edges`.
    """
    place = torch.rand(count, generator=rng, device=edges.device, dtype=edges.dtype)
    return torch.searchsorted(edges, place, right=True)


def sample_latents(
    count: int,
    latent_dim: int,
    *,
    rng: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw standard normal latents, `(count, latent_dim)`."""
    return torch.randn(count, latent_dim, generator=rng, device=device, dtype=dtype)


@plain_defaults()
def class_grid(num_classes: int, per_class: int) -> Tensor:
    """Return labels for a sheet with one row per class: `per_class` times 0, then 1, and so on.

    Examples:
        >>> class_grid(2, 3)
        tensor([0, 0, 0, 1, 1, 1])
    """
    return torch.arange(num_classes).repeat_interleave(per_class)


def interpolate_latents(start: Tensor, end: Tensor, steps: int) -> Tensor:
    r"""Return `steps` latents on the great arc from `start` to `end` (spherical linear interpolation).

    $$ z_t = \frac{\sin((1-t)\omega)}{\sin\omega} z_0 + \frac{\sin(t\omega)}{\sin\omega} z_1,
       \quad \cos\omega = \frac{z_0 \cdot z_1}{|z_0||z_1|} $$

    Shape:
        - `start`, `end`: `(Z,)`. Output: `(steps, Z)`.

    References:
        White 2016, arXiv:1609.04468.

    Examples:
        >>> interpolate_latents(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 3)[1]
        tensor([0.7071, 0.7071])
    """
    t = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[:, None]
    cosine = torch.dot(start, end) / (start.norm() * end.norm())
    omega = torch.acos(cosine.clamp(-1, 1))
    if torch.sin(omega) < 1e-6:
        return torch.lerp(start, end, t)
    return (torch.sin((1 - t) * omega) * start + torch.sin(t * omega) * end) / torch.sin(omega)


@torch.no_grad()
def sample(
    generator: Generator,
    y: Tensor | Sequence[int] | int,
    *,
    rng: torch.Generator | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Generate one image per label, in evaluation mode, batch by batch.

    Args:
        generator: Any generator; its mode is left as it was.
        y: Labels, or for an unconditional generator the number of images.
        rng: Source of the latents, on the generator's device.
        batch_size: Images per forward pass.

    Shape:
        - `y`: `(N,)`, integers in `[0, K)`. Output: `(N, C, H, W)`, float in [-1, 1], on the generator's device.

    Raises:
        ValueError: If labels lie outside `[0, K)`, are missing, or are given to an unconditional generator.
    """
    labels, count = _checked_labels(generator, y)
    weight = next(generator.parameters())
    z = sample_latents(count, generator.latent_dim, rng=rng, device=weight.device, dtype=weight.dtype)
    labels = None if labels is None else labels.to(weight.device)
    training = generator.training
    generator.eval()
    try:
        parts = [
            generator(z[i : i + batch_size], None if labels is None else labels[i : i + batch_size])
            for i in range(0, count, batch_size)
        ]
    finally:
        generator.train(training)
    return torch.cat(parts) if parts else z.new_zeros(0, *generator.image_shape)


@plain_defaults()
def _checked_labels(generator: Generator, y: Tensor | Sequence[int] | int) -> tuple[Tensor | None, int]:
    if generator.num_classes is None:
        if not isinstance(y, Integral):
            raise ValueError("an unconditional generator takes the number of images, got labels.")
        return None, int(y)
    if isinstance(y, Integral):
        raise ValueError(f"a generator of {generator.num_classes} classes takes labels, got the number {y}.")
    labels = torch.as_tensor(y)
    if labels.ndim != 1 or (labels.is_floating_point() and len(labels)):
        raise ValueError(f"y must be integers of shape (N,), got {labels.dtype} of shape {tuple(labels.shape)}.")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < generator.num_classes:
        raise ValueError(
            f"y must have values in [0, {generator.num_classes}), got values in "
            f"[{int(labels.min())}, {int(labels.max())}]."
        )
    return labels.to(torch.int64), len(labels)
