"""Adaptive augmentation: operations that leave a radiograph a radiograph, as often as the critic's overfitting asks."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from typing_extensions import override

from condgan.augmentation.diffaugment import check_draws, cutout_mask
from condgan.augmentation.strength import AdaptiveStrength
from condgan.augmentation.warp import warp
from condgan.files import check_names
from condgan.types import AugmentationDraws

_NEUTRAL = {"translation": 0.0, "scale": 1.0, "rotation": 0.0, "brightness": 0.0, "contrast": 1.0}
_OPERATIONS = (*_NEUTRAL, "cutout")
_MOST_ROTATION = math.radians(10)
_TRANSLATION, _CUTOUT = 0.125, 0.5  # fractions of the size


class AdaptiveAugment(AdaptiveStrength):
    r"""The adaptive discriminator augmentation (ADA) of Karras et al., with operations that suit radiographs.

    Each operation is applied to each image with the probability $p$, independently of the others, to real and
    generated images alike. `AdaptiveStrength` says how $p$ follows the critic's overfitting. The operations, always in
    this order:

    - `scale`: by $2^{0.2 n}$, the same in both directions, with $n$ standard normal;
    - `rotation`: by an angle uniform in [-10°, 10°];
    - `translation`: a shift by whole pixels, uniform up to an eighth of the height and width;
    - `brightness`: $x + 0.2 n$;
    - `contrast`: $2^{0.5 n} x$;
    - `cutout`: a square of half the size, anywhere, set to zero.

    The default policy leaves out brightness and contrast, because they carry the class of a radiograph, and there are
    no flips: a mirrored chest is another diagnosis.

    Deviations from the paper: the missing operations (flips, turns by 90°, anisotropic scaling, hues, filters, noise);
    rotation by small angles only; shifts after scaling and rotation instead of before; bilinear interpolation without
    a low-pass filter, and zeros, not a mirror image, beyond the border.

    Args:
        target: Value of $r_t$ to hold.
        policy: Names of operations, separated by commas.
        images: Real images after which $p$ has risen from 0 to 1 at the earliest, see `AdaptiveStrength`.
        every: Critic steps between moves of $p$.
        relative: Judge overfitting by the difference of scores of a pair, for relativistic and Wasserstein losses.

    Shape:
        - `x`: `(N, C, H, W)`, floating point; the result has the same shape and type.

    Raises:
        ValueError: If `policy` is empty, repeats a name or has an unknown one, or a number is out of range.

    Examples:
        >>> augment = AdaptiveAugment(target=0.6)
        >>> x = torch.rand(4, 1, 28, 28) * 2 - 1
        >>> draws = augment.draw(4, (1, 28, 28), rng=torch.Generator().manual_seed(0), device=x.device)
        >>> torch.equal(augment(x, draws), x)  # p is 0 at first
        True
        >>> for _ in range(4):
        ...     _ = augment.observe(real_score=torch.ones(64), fake_score=-torch.ones(64))
        >>> augment.p
        tensor(0.0051)

    References:
        Karras et al. 2020, arXiv:2006.06676, sections 2.3 and 3, appendix B.
    """

    def __init__(
        self,
        target: float = 0.6,
        *,
        policy: str = "translation,scale,rotation,cutout",
        images: int = 50_000,
        every: int = 4,
        relative: bool = False,
    ) -> None:
        super().__init__(target, images=images, every=every, relative=relative)
        self.names = tuple(name.strip() for name in policy.split(","))
        check_names("the operations in policy", self.names, _OPERATIONS)

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
            The parameters of each operation by its name, and `gate`: an operation is applied to an image if its entry
            is below `p`.

        Shape:
            - Returns: float32; `gate`: `(N, operations)`; `translation`, `cutout`: `(N, 2)`, pixels in rows and
              columns; all others `(N,)`.

        Raises:
            ValueError: If `image_shape` is not `(C, H, W)`.
        """
        if len(image_shape) != 3:
            raise ValueError(f"AdaptiveAugment needs images of shape (C, H, W), got the sample shape {image_shape}.")
        source = torch.device(device) if rng is None else rng.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=rng, device=source)

        def places(low: float, high: float) -> Tensor:
            return torch.stack([(low + (high - low) * uniform(count)) * size for size in image_shape[1:]], dim=1)

        def normal() -> Tensor:
            return torch.randn(count, generator=rng, device=source)

        make = {
            "translation": lambda: places(-_TRANSLATION, _TRANSLATION).round(),
            "scale": lambda: torch.exp2(0.2 * normal()),
            "rotation": lambda: (2 * uniform(count) - 1) * _MOST_ROTATION,
            "brightness": lambda: 0.2 * normal(),
            "contrast": lambda: torch.exp2(0.5 * normal()),
            "cutout": lambda: places(0, 1).floor(),
        }
        draws = {"gate": uniform(count, len(self.names))} | {name: make[name]() for name in self.names}
        return {name: value.to(device) for name, value in draws.items()}

    @override
    def forward(self, x: Tensor, draws: AugmentationDraws) -> Tensor:
        check_draws(x, draws, ("gate", *self.names))
        gates = dict(zip(self.names, (draws["gate"] < self.p).unbind(1), strict=True))
        amounts = {
            name: torch.where(gates[name].view(-1, *[1] * (draws[name].ndim - 1)), draws[name], neutral)
            for name, neutral in _NEUTRAL.items()
            if name in gates
        }
        if amounts.keys() & {"translation", "scale", "rotation"}:
            shift = amounts.get("translation", draws["gate"].new_zeros(len(x), 2))
            scale = amounts.get("scale", draws["gate"].new_ones(len(x)))
            x = warp(x, shift=shift, scale=scale, angle=amounts.get("rotation", torch.zeros_like(scale)))
        if "brightness" in amounts:
            x = x + amounts["brightness"].to(x.dtype)[:, None, None, None]
        if "contrast" in amounts:
            x = x * amounts["contrast"].to(x.dtype)[:, None, None, None]
        if "cutout" in gates:
            hidden = cutout_mask(x, draws["cutout"], _CUTOUT) & gates["cutout"][:, None, None, None]
            x = x.masked_fill(hidden, 0)
        return x

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, policy={','.join(self.names)!r}"
