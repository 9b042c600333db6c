"""The differentiable augmentations of Zhao et al."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from condgan.files import check_names
from condgan.types import AugmentationDraws


@dataclass(frozen=True)
class DiffAugment:
    r"""The differentiable augmentations of Zhao et al. for real and generated images alike.

    Both the critic's and the generator's losses see augmented images only, so the generator learns the images before
    augmentation. The operations, applied in the order of `policy`, each with its own draw for every image:

    - `brightness`: $x + b$, with $b$ uniform in [-0.5, 0.5);
    - `saturation`: $s (x - \bar x) + \bar x$ around the mean over channels, $s$ uniform in [0, 2); greyscale images
      are left as they are;
    - `contrast`: $c (x - \bar x) + \bar x$ around the mean of the image, $c$ uniform in [0.5, 1.5);
    - `translation`: a shift by up to `translation_ratio` of the height and width, filled with zeros;
    - `cutout`: a rectangle of `cutout_ratio` of the height and width set to zero, anywhere, possibly partly outside.

    The first three may leave [-1, 1], as in the authors' code, whose policy "color" is
    `"brightness,saturation,contrast"`. There are no flips: a mirrored chest is another diagnosis.

    Args:
        policy: Names of operations, separated by commas.
        translation_ratio: Largest shift, as a fraction of the size.
        cutout_ratio: Side of the rectangle, as a fraction of the size.

    Shape:
        - `x`: `(N, C, H, W)`, floating point; the result has the same shape and type.

    Raises:
        ValueError: If `policy` is empty, repeats a name or has an unknown one, or a ratio is outside [0, 1].

    Examples:
        >>> augment = DiffAugment("brightness,translation")
        >>> x = torch.rand(4, 1, 28, 28) * 2 - 1
        >>> rng = torch.Generator().manual_seed(0)
        >>> draws = augment.draw(4, (1, 28, 28), rng=rng, device=x.device)
        >>> augment(x, draws).shape
        torch.Size([4, 1, 28, 28])

    References:
        Zhao et al. 2020, arXiv:2006.10738, section 3, and the code of its authors.
    """

    policy: str = "brightness,contrast,translation,cutout"
    _: KW_ONLY
    translation_ratio: float = 0.125
    cutout_ratio: float = 0.5

    def __post_init__(self) -> None:
        check_names("the operations in policy", self.names, _OPERATIONS)
        for field in ("translation_ratio", "cutout_ratio"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} must be in [0, 1], a fraction of the size, got {getattr(self, field)}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The operations in the order of application."""
        return tuple(name.strip() for name in self.policy.split(","))

    def draw(
        self, count: int, image_shape: tuple[int, ...], *, rng: torch.Generator | None, device: torch.device
    ) -> AugmentationDraws:
        """Draw the parameters for `count` images.

        Args:
            count: Number of images.
            image_shape: Channels, height and width.
            rng: Source of randomness; None for the default one. If it lives on another device, the parameters are
                drawn there and moved.
            device: Where the parameters are needed.

        Returns:
            One tensor per operation, by name.

        Shape:
            - Returns: `brightness`, `saturation`, `contrast`: `(N,)`, float32; `translation`, `cutout`: `(N, 2)`,
              int64, rows and columns.

        Raises:
            ValueError: If `image_shape` is not `(C, H, W)`.
        """
        if len(image_shape) != 3:
            raise ValueError(f"DiffAugment needs images of shape (C, H, W), got the sample shape {image_shape}.")
        source = torch.device(device) if rng is None else rng.device

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(count, generator=rng, device=source) * (high - low) + low

        def integers(lows: list[int], highs: list[int]) -> Tensor:
            columns = [
                torch.randint(low, high + 1, (count,), generator=rng, device=source)
                for low, high in zip(lows, highs, strict=True)
            ]
            return torch.stack(columns, dim=1)

        sizes = image_shape[1:]
        shifts = [_rounded(size * self.translation_ratio) for size in sizes]
        # With an even rectangle a centre may also lie just past the last pixel, as it may on the first.
        last = [size - _rounded(size * self.cutout_ratio) % 2 for size in sizes]
        make: dict[str, Callable[[], Tensor]] = {
            "brightness": lambda: uniform(-0.5, 0.5),
            "saturation": lambda: uniform(0.0, 2.0),
            "contrast": lambda: uniform(0.5, 1.5),
            "translation": lambda: integers([-shift for shift in shifts], shifts),
            "cutout": lambda: integers([0, 0], last),
        }
        return {name: make[name]().to(device) for name in self.names}

    def __call__(self, x: Tensor, draws: AugmentationDraws) -> Tensor:
        """Apply the operations with the given parameters.

        Args:
            x: Images.
            draws: Parameters of as many images, from `draw`.

        Shape:
            - `x`: `(N, C, H, W)`, floating point.
            - Returns: `(N, C, H, W)`, of the same type.

        Raises:
            ValueError: If `x` is not a batch of floating-point images, or parameters are missing or of another number
                of images.
        """
        check_draws(x, draws, self.names)
        for name in self.names:
            x = _OPERATIONS[name](self, x, draws[name])
        return x

    def _brightness(self, x: Tensor, amount: Tensor) -> Tensor:
        return x + _broadcast(amount, x)

    def _saturation(self, x: Tensor, factor: Tensor) -> Tensor:
        if x.shape[1] == 1:
            return x
        mean = x.mean(dim=1, keepdim=True)
        return (x - mean) * _broadcast(factor, x) + mean

    def _contrast(self, x: Tensor, factor: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return (x - mean) * _broadcast(factor, x) + mean

    def _translation(self, x: Tensor, shift: Tensor) -> Tensor:
        for dim in (2, 3):
            size = x.shape[dim]
            source = torch.arange(size, device=x.device) - shift[:, dim - 2, None]
            shape = (len(x), 1, size, 1) if dim == 2 else (len(x), 1, 1, size)
            outside = ((source < 0) | (source >= size)).view(shape)
            index = source.clamp(0, size - 1).view(shape).expand_as(x)
            x = x.gather(dim, index).masked_fill(outside, 0)
        return x

    def _cutout(self, x: Tensor, centre: Tensor) -> Tensor:
        return x.masked_fill(cutout_mask(x, centre, self.cutout_ratio), 0)


def check_draws(x: Tensor, draws: AugmentationDraws, names: tuple[str, ...]) -> None:
    """Check that images can be augmented with these draws.

    Args:
        x: The images.
        draws: The parameters.
        names: The parameters that are needed.

    Shape:
        - `x`: `(N, C, H, W)`, floating point.

    Raises:
        ValueError: If `x` is not a batch of floating-point images, or parameters are missing or of another number of
            images.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(
            f"x must be floating-point images of shape (N, C, H, W), got {x.dtype} of shape {tuple(x.shape)}."
        )
    for name in names:
        if name not in draws or len(draws[name]) != len(x):
            got = f"{len(draws[name])} rows" if name in draws else "none"
            raise ValueError(
                f"draws must hold {len(x)} rows of {name!r}, one per image, got {got}. Draw them with this "
                "augmentation's draw(len(x), x.shape[1:], rng=rng, device=x.device)."
            )


def cutout_mask(x: Tensor, centre: Tensor, ratio: float) -> Tensor:
    """Return where a rectangle of `ratio` of the height and width around a centre lies in each image.

    Shape:
        - `x`: `(N, C, H, W)`; `centre`: `(N, 2)`, row and column. Returns: `(N, 1, H, W)`, bool.
    """
    inside = []
    for size, middle in zip(x.shape[2:], centre.unbind(dim=1), strict=True):
        side = _rounded(size * ratio)
        place = torch.arange(size, device=x.device) - (middle[:, None] - side // 2)
        inside.append((place >= 0) & (place < side))
    rows, columns = inside
    return rows[:, None, :, None] & columns[:, None, None, :]


_OPERATIONS: dict[str, Callable[[DiffAugment, Tensor, Tensor], Tensor]] = {
    "brightness": DiffAugment._brightness,
    "saturation": DiffAugment._saturation,
    "contrast": DiffAugment._contrast,
    "translation": DiffAugment._translation,
    "cutout": DiffAugment._cutout,
}


def _rounded(size: float) -> int:
    return int(size + 0.5)


def _broadcast(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype)[:, None, None, None]
