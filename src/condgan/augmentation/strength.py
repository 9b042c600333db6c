"""The probability of an augmentation, adapted to how far the critic overfits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from condgan.distributed import average, rank_and_world
from condgan.files import check_count


class AdaptiveStrength(nn.Module):
    r"""Base of augmentations that are applied with a probability $p$, which follows the critic's overfitting.

    $$r_t = \mathbb{E}\,\mathrm{sign}\,D(x)$$

    over the real images of `every` critic steps. It is 0 for a critic that knows nothing and 1 for one that knows all
    training images. After these steps $p$ moves up by $\Delta$ if $r_t$ is above the target, and else down; $\Delta$ is
    the number of images seen since the last move, divided by `images`.

    Deviations: $p$ is kept below 1 too, so that it falls at once when it should; with `relative=True`
    $r_t = \mathbb{E}\,\mathrm{sign}(D(x) - D(\tilde x))$ over pairs, which is our own, for losses that ignore a common
    shift of all scores (relativistic, Wasserstein), under which the sign of one score means nothing.

    The state is in buffers: it is saved in checkpoints, and moves without waiting for the device. Averages are those
    over all processes.

    Args:
        target: Value of $r_t$ to hold.
        images: Real images after which $p$ has risen from 0 to 1 at the earliest. In the paper 500 000, for trainings
            on 25 million; the default is for trainings on a few hundred thousand.
        every: Critic steps between moves.
        relative: Judge by the difference of scores of a pair.

    Attributes:
        p: The probability, a scalar.

    Raises:
        ValueError: If `target` is outside [-1, 1], or a number is less than 1.

    References:
        Karras et al. 2020, arXiv:2006.06676, section 3, equation 1.
    """

    p: Tensor
    signs: Tensor
    steps: Tensor

    def __init__(self, target: float = 0.6, *, images: int = 50_000, every: int = 4, relative: bool = False) -> None:
        super().__init__()
        if not -1 <= target <= 1:
            raise ValueError(f"target must be in [-1, 1], a mean of signs, got {target}.")
        check_count("images", images)
        check_count("every", every)
        self.target = target
        self.images = images
        self.every = every
        self.relative = relative
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("signs", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def reads_differences(self) -> bool:
        """Return whether it reads only differences between real and generated scores."""
        return self.relative

    @torch.no_grad()
    def observe(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        """Take note of the scores of a critic step, and move `p` if it is time to.

        Shape:
            - `real_score`, `fake_score`: `(N,)`.
            - Returns: `()`, a copy of `p` before it is moved.
        """
        before = self.p.clone()
        scores = real_score - fake_score if self.relative else real_score
        (mean,) = average([scores.sign().mean()])
        self.signs.add_(mean)
        self.steps.add_(1)
        due = self.steps >= self.every
        seen = self.every * len(real_score) * rank_and_world()[1]
        move = torch.sign(self.signs / self.every - self.target) * (seen / self.images)
        self.p.copy_(torch.where(due, (self.p + move).clamp(0, 1), self.p))
        self.signs.mul_(~due)
        self.steps.mul_(~due)
        return before

    @override
    def extra_repr(self) -> str:
        return f"target={self.target}, images={self.images}, every={self.every}, relative={self.relative}"
