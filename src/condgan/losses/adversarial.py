"""Adversarial losses: pairs of terms on the scores of real and generated samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from condgan import functional

__all__ = ["HingeLoss", "LeastSquaresLoss", "MinimaxLoss", "RelativisticLoss", "WassersteinLoss"]


@dataclass(frozen=True, kw_only=True)
class _WeightedLoss:
    """Weighs both sides of a game and checks what they are given; subclasses define the sides."""

    weight: float = 1.0

    needs_real_scores: ClassVar[bool] = False
    """Whether `generator` reads `real_score`, which must then be paired with `fake_score` within each class."""

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"weight must be at least 0, got {self.weight}.")

    def critic(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        """Return the critic's weighted loss.

        Shape:
            - `real_score`, `fake_score`: `(N,)`; paired row by row if the loss needs real scores, otherwise their
              lengths may differ.
            - Returns: `()`.
        """
        return self.weight * self._critic_side(real_score, fake_score)

    def generator(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        """Return the generator's weighted loss, which looks at `real_score` only if the loss needs real scores.

        Shape:
            - `real_score`, `fake_score`: `(N,)`.
            - Returns: `()`.

        Raises:
            ValueError: If the loss needs real scores and `real_score` is None.
        """
        return self.weight * self._generator_side(real_score, fake_score)

    def _critic_side(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        raise NotImplementedError

    def _generator_side(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class MinimaxLoss(_WeightedLoss):
    r"""The original GAN game on logits, non-saturating unless asked otherwise.

    Critic $-\mathbb{E}\log\sigma(D(x)) - \mathbb{E}\log(1 - \sigma(D(\tilde x)))$; generator
    $-\mathbb{E}\log\sigma(D(\tilde x))$, or $\mathbb{E}\log(1 - \sigma(D(\tilde x)))$ if saturating.

    Args:
        saturating: Let the generator minimize exactly what the critic maximizes. Its gradient vanishes where the
            critic wins.
        weight: Coefficient of both sides, at least 0.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> import torch
        >>> loss = MinimaxLoss()
        >>> loss.critic(torch.zeros(4), torch.zeros(4)), loss.generator(None, torch.zeros(4))
        (tensor(1.3863), tensor(0.6931))

    References:
        Goodfellow et al. 2014, arXiv:1406.2661, equation 1 and section 3.
    """

    saturating: bool = False

    def _critic_side(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        return functional.minimax_critic(real_score, fake_score)

    def _generator_side(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        return functional.minimax_generator(fake_score, saturating=self.saturating)


@dataclass(frozen=True, kw_only=True)
class HingeLoss(_WeightedLoss):
    r"""The hinge game, which ignores samples whose score is past the margin of 1.

    Critic $\mathbb{E}\max(0, 1 - D(x)) + \mathbb{E}\max(0, 1 + D(\tilde x))$; generator $-\mathbb{E} D(\tilde x)$.

    Args:
        weight: Coefficient of both sides, at least 0.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> import torch
        >>> HingeLoss().critic(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]))
        tensor(0.7500)

    References:
        Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, equations 16 and 17.
    """

    def _critic_side(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        return functional.hinge_critic(real_score, fake_score)

    def _generator_side(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        return functional.hinge_generator(fake_score)


@dataclass(frozen=True, kw_only=True)
class WassersteinLoss(_WeightedLoss):
    r"""The Wasserstein game, for a critic that something else keeps Lipschitz.

    Critic $\mathbb{E} D(\tilde x) - \mathbb{E} D(x)$; generator $-\mathbb{E} D(\tilde x)$. Use it with a
    `condgan.regularizers.GradientPenalty`.

    Args:
        weight: Coefficient of both sides, at least 0.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> import torch
        >>> WassersteinLoss().critic(torch.tensor([4.0, 6.0]), torch.tensor([1.0, 3.0]))
        tensor(-3.)

    References:
        Arjovsky et al. 2017, arXiv:1701.07875, equation 2 and algorithm 1.
    """

    def _critic_side(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        return functional.wasserstein_critic(real_score, fake_score)

    def _generator_side(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        return functional.wasserstein_generator(fake_score)


@dataclass(frozen=True, kw_only=True)
class LeastSquaresLoss(_WeightedLoss):
    r"""The least-squares game with targets 1 for real and 0 for generated samples.

    Critic $\tfrac12\mathbb{E}(D(x) - 1)^2 + \tfrac12\mathbb{E} D(\tilde x)^2$; generator
    $\tfrac12\mathbb{E}(D(\tilde x) - 1)^2$.

    Args:
        weight: Coefficient of both sides, at least 0.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> import torch
        >>> LeastSquaresLoss().critic(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0]))
        tensor(2.)

    References:
        Mao et al. 2017, arXiv:1611.04076, equation 9.
    """

    def _critic_side(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        return functional.least_squares_critic(real_score, fake_score)

    def _generator_side(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        return functional.least_squares_generator(fake_score)


@dataclass(frozen=True, kw_only=True)
class RelativisticLoss(_WeightedLoss):
    r"""The relativistic pairing game: a real sample should score above the generated one of its row, and vice versa.

    Critic $\mathbb{E}\,\mathrm{softplus}(-(D(x) - D(\tilde x)))$; generator
    $\mathbb{E}\,\mathrm{softplus}(-(D(\tilde x) - D(x)))$. Rows must pair samples of the same class, and both sides
    need the scores of real samples.

    Args:
        weight: Coefficient of both sides, at least 0.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> import torch
        >>> RelativisticLoss().generator(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 5.0]))
        tensor(0.6931)

    References:
        Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441, equation 2.
    """

    needs_real_scores: ClassVar[bool] = True

    def _critic_side(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        return functional.relativistic_critic(real_score, fake_score)

    def _generator_side(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        if real_score is None:
            raise ValueError(
                "real_score must be a tensor of shape (N,), got None. RelativisticLoss compares real with generated "
                "scores in the generator step too: score a real batch of the same labels."
            )
        return functional.relativistic_generator(real_score, fake_score)
