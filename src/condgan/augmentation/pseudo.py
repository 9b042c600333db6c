"""Adaptive pseudo augmentation: generated images among the real ones."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from condgan.augmentation.strength import AdaptiveStrength
from condgan.types import Augmentation, AugmentationDraws


class AdaptivePseudoAugment(AdaptiveStrength):
    r"""The adaptive pseudo augmentation (APA) of Jiang et al.: it deceives a critic that overfits.

    In the critic's steps each real image is replaced by a generated one with the probability $p$, and the critic is
    told that it is real. `AdaptiveStrength` says how $p$ follows the critic's overfitting. The generator's steps and
    the images that it learns from are as before.

    Deviations: the generated images are those of the critic's own step, where the authors' code takes those of the
    last generator step; and they must be of the class of the images that they replace, where the code ignores classes:
    a `Trainer` requires `label_distribution="paired"`.

    Args:
        target: Value of $r_t$ to hold.
        augment: An augmentation of fixed strength, of real and generated images, after the replacement; None for none.
        images: Real images after which $p$ has risen from 0 to 1 at the earliest, see `AdaptiveStrength`.
        every: Critic steps between moves of $p$.
        relative: Judge overfitting by the difference of scores of a pair, for relativistic and Wasserstein losses.

    Shape:
        - `x`: `(N, C, H, W)`, floating point; the result has the same shape and type.

    Raises:
        ValueError: If a number is out of range.

    Examples:
        >>> AdaptivePseudoAugment(target=0.6)
        AdaptivePseudoAugment(target=0.6, images=50000, every=4, relative=False, augment=None)

    References:
        Jiang et al. 2021, arXiv:2111.06849, section 3.2, and the code of its authors.
    """

    def __init__(
        self,
        target: float = 0.6,
        *,
        augment: Augmentation | None = None,
        images: int = 50_000,
        every: int = 4,
        relative: bool = False,
    ) -> None:
        super().__init__(target, images=images, every=every, relative=relative)
        self.augment = augment

    def draw(
        self, count: int, image_shape: tuple[int, ...], *, rng: torch.Generator | None, device: torch.device
    ) -> AugmentationDraws:
        """Draw the parameters for `count` images.

        Args:
            count: Number of images.
            image_shape: Channels, height and width.
            rng: Source of randomness; None for the default one.
            device: Where the parameters are needed.

        Returns:
            Those of the augmentation, and `replace`: an image is replaced if its entry is below `p`.

        Shape:
            - Returns: `replace`: `(N,)`, float32.
        """
        source = torch.device(device) if rng is None else rng.device
        own = {"replace": torch.rand(count, generator=rng, device=source).to(device)}
        if self.augment is None:
            return own
        return own | self.augment.draw(count, image_shape, rng=rng, device=device)

    def replace_real(self, x: Tensor, x_fake: Tensor, draws: AugmentationDraws) -> Tensor:
        """Return the real images with some of them replaced by the generated ones of their rows.

        Shape:
            - `x`, `x_fake`: `(N, *)`. Returns: `(N, *)`.
        """
        replaced = (draws["replace"] < self.p).view(-1, *[1] * (x.ndim - 1))
        return torch.where(replaced, x_fake, x)

    @override
    def forward(self, x: Tensor, draws: AugmentationDraws) -> Tensor:
        return x if self.augment is None else self.augment(x, draws)

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, augment={self.augment!r}"
