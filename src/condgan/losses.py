"""Weighted adversarial losses on scores; the losses on a critic's other outputs are in `condgan.auxiliary`.

Each loss is a frozen dataclass with two methods, `critic` and `generator`, which return the losses of the two networks.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from condgan.files import check_not_negative
from condgan.functional import precise


@dataclass(frozen=True)
class _AdversarialLoss:
    """A pair of weighted losses on scores; subclasses define both sides."""

    weight: float = 1.0

    needs_real_scores: ClassVar[bool] = False
    """Whether `generator` reads `real_score`, which must then be paired with `fake_score` within each class."""

    def __post_init__(self) -> None:
        check_not_negative("weight", self.weight)

    def critic(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        """Return the critic's weighted loss.

        Args:
            real_score: Scores of real samples.
            fake_score: Scores of generated samples.

        Shape:
            - `real_score`, `fake_score`: `(N,)`; paired row by row if the loss needs real scores, otherwise their
              lengths may differ.
            - Returns: `()`.

        Raises:
            ValueError: If a score is not of shape `(N,)`, or paired scores differ in length.
        """
        raise NotImplementedError

    def generator(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        """Return the generator's weighted loss, which reads `real_score` only if the loss needs real scores.

        Args:
            real_score: Scores of real samples, or None.
            fake_score: Scores of generated samples.

        Shape:
            - `real_score`, `fake_score`: `(N,)`.
            - Returns: `()`.

        Raises:
            ValueError: If a score is not of shape `(N,)`, or the loss needs real scores and `real_score` is None or
                of another length.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class MinimaxLoss(_AdversarialLoss):
    r"""The original GAN loss on logits, by default in its non-saturating form.

    Critic $-\mathbb{E}\log\sigma(D(x)) - \mathbb{E}\log(1 - \sigma(D(\tilde x)))$; generator
    $-\mathbb{E}\log\sigma(D(\tilde x))$, or $\mathbb{E}\log(1 - \sigma(D(\tilde x)))$ if saturating.

    Args:
        weight: Coefficient of both sides, at least 0.
        saturating: Let the generator minimize exactly what the critic maximizes. Its gradient vanishes where the
            critic recognizes generated samples with confidence.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> loss = MinimaxLoss()
        >>> loss.critic(torch.zeros(4), torch.zeros(4)), loss.generator(None, torch.zeros(4))
        (tensor(1.3863), tensor(0.6931))
        >>> MinimaxLoss(saturating=True).generator(None, torch.zeros(4))
        tensor(-0.6931)

    References:
        Goodfellow et al. 2014, arXiv:1406.2661, equation 1 and section 3.
    """

    _: KW_ONLY
    saturating: bool = False

    @override
    def critic(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        real_score, fake_score = _scores(real_score=real_score, fake_score=fake_score)
        return self.weight * (F.softplus(-real_score).mean() + F.softplus(fake_score).mean())

    @override
    def generator(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        (fake_score,) = _scores(fake_score=fake_score)
        return self.weight * (-F.softplus(fake_score).mean() if self.saturating else F.softplus(-fake_score).mean())


@dataclass(frozen=True)
class HingeLoss(_AdversarialLoss):
    r"""The hinge loss, under which the critic ignores samples whose score is beyond the margin of 1.

    Critic $\mathbb{E}\max(0, 1 - D(x)) + \mathbb{E}\max(0, 1 + D(\tilde x))$; generator $-\mathbb{E} D(\tilde x)$.

    Args:
        weight: Coefficient of both sides, at least 0.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> HingeLoss().critic(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]))
        tensor(0.7500)

    References:
        Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, equations 16 and 17.
    """

    @override
    def critic(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        real_score, fake_score = _scores(real_score=real_score, fake_score=fake_score)
        return self.weight * (torch.relu(1 - real_score).mean() + torch.relu(1 + fake_score).mean())

    @override
    def generator(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        (fake_score,) = _scores(fake_score=fake_score)
        return self.weight * -fake_score.mean()


@dataclass(frozen=True)
class WassersteinLoss(_AdversarialLoss):
    r"""The Wasserstein loss, for a critic that a regularizer keeps Lipschitz.

    Critic $\mathbb{E} D(\tilde x) - \mathbb{E} D(x)$; generator $-\mathbb{E} D(\tilde x)$. The critic's loss, negated,
    estimates the Wasserstein-1 distance if the critic is 1-Lipschitz, which the loss does not enforce: add a
    `condgan.regularizers.GradientPenalty`.

    Args:
        weight: Coefficient of both sides, at least 0.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> WassersteinLoss().critic(torch.tensor([4.0, 6.0]), torch.tensor([1.0, 3.0]))
        tensor(-3.)

    References:
        Arjovsky et al. 2017, arXiv:1701.07875, equation 2 (negated) and algorithm 1.
    """

    @override
    def critic(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        real_score, fake_score = _scores(real_score=real_score, fake_score=fake_score)
        return self.weight * (fake_score.mean() - real_score.mean())

    @override
    def generator(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        (fake_score,) = _scores(fake_score=fake_score)
        return self.weight * -fake_score.mean()


@dataclass(frozen=True)
class LeastSquaresLoss(_AdversarialLoss):
    r"""The least-squares loss with targets 1 for real and 0 for generated samples.

    Critic $\tfrac12\mathbb{E}(D(x) - 1)^2 + \tfrac12\mathbb{E} D(\tilde x)^2$; generator
    $\tfrac12\mathbb{E}(D(\tilde x) - 1)^2$.

    Args:
        weight: Coefficient of both sides, at least 0.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> LeastSquaresLoss().critic(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0]))
        tensor(2.)

    References:
        Mao et al. 2017, arXiv:1611.04076, equation 9.
    """

    @override
    def critic(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        real_score, fake_score = _scores(real_score=real_score, fake_score=fake_score)
        return self.weight * (0.5 * (real_score - 1).square().mean() + 0.5 * fake_score.square().mean())

    @override
    def generator(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        (fake_score,) = _scores(fake_score=fake_score)
        return self.weight * (0.5 * (fake_score - 1).square().mean())


@dataclass(frozen=True)
class RelativisticLoss(_AdversarialLoss):
    r"""The relativistic pairing loss: each real sample is compared with the generated sample of its row.

    Critic $\mathbb{E}\,\mathrm{softplus}(-(D(x) - D(\tilde x)))$; generator
    $\mathbb{E}\,\mathrm{softplus}(-(D(\tilde x) - D(x)))$. Rows must pair samples of the same class, and both losses
    need the scores of real samples.

    Args:
        weight: Coefficient of both sides, at least 0.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> RelativisticLoss().generator(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 5.0]))
        tensor(0.6931)

    References:
        Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441, equation 2.
    """

    needs_real_scores: ClassVar[bool] = True

    @override
    def critic(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        real_score, fake_score = _paired_scores(real_score, fake_score)
        return self.weight * F.softplus(fake_score - real_score).mean()

    @override
    def generator(self, real_score: Tensor | None, fake_score: Tensor) -> Tensor:
        if real_score is None:
            raise ValueError(
                "real_score must be a tensor of shape (N,), got None. RelativisticLoss compares real with generated "
                "scores in the generator step too: score a real batch of the same labels."
            )
        real_score, fake_score = _paired_scores(real_score, fake_score)
        return self.weight * F.softplus(real_score - fake_score).mean()


def _scores(**scores: Tensor) -> list[Tensor]:
    """Check the shape of scores, and return them in the type in which losses are reduced."""
    for name, score in scores.items():
        if score.ndim != 1:
            raise ValueError(
                f"{name} must have the shape (N,), got {tuple(score.shape)}. A score of shape (N, 1) would broadcast "
                "silently: pass score.squeeze(1)."
            )
    return [precise(score) for score in scores.values()]


def _paired_scores(real_score: Tensor, fake_score: Tensor) -> list[Tensor]:
    scores = _scores(real_score=real_score, fake_score=fake_score)
    if real_score.shape != fake_score.shape:
        raise ValueError(
            f"A relativistic loss pairs scores row by row, got {len(real_score)} real and {len(fake_score)} fake "
            "ones. Use the same batch size for both, with the labels of the real batch for the fake one."
        )
    return scores
