"""Weighted losses that a trainer adds up: adversarial losses on scores, auxiliary losses on class logits.

Each loss is a frozen dataclass with two methods, `critic` and `generator`, which return the losses of the two networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from condgan.files import check_not_negative
from condgan.functional import class_cross_entropy, precise
from condgan.types import CriticOutput


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
        return self.weight * (F.relu(1 - real_score).mean() + F.relu(1 + fake_score).mean())

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


@dataclass(frozen=True)
class AuxiliaryClassifierLoss:
    r"""The class term of ACGAN and ACWGAN-GP: both networks minimize the cross entropy of the critic's class logits.

    Critic $\lambda_r\,\mathrm{CE}(c(x), y) + \lambda_f\,\mathrm{CE}(c(\tilde x), \tilde y)$; generator
    $\lambda_g\,\mathrm{CE}(c(\tilde x), \tilde y)$, with the class logits $c$. The defaults are those of the code of
    ACWGAN-GP's authors; ACGAN has all three weights 1. A term of weight 0 is not computed.

    `class_weights` and `class_prior` are two ways to undo an imbalance of the **real labels as they are sampled**,
    so both act on the critic's real term only. The labels of generated images follow the label distribution,
    which is known and usually balanced: correcting their terms too would unbalance them. After training with
    `class_prior` the plain logits estimate the posterior under balanced classes, which is the right target for a
    generator with balanced labels. So pass the prior of the sampled labels (None if real sampling is balanced). With
    a `fake_weight` above 0 also choose balanced labels for generated images, because otherwise the critic's two terms
    assume different priors.

    Args:
        real_weight: Coefficient $\lambda_r$ of the critic's term on real images.
        fake_weight: Coefficient $\lambda_f$ of the critic's term on generated images.
        generator_weight: Coefficient $\lambda_g$ of the generator's term.
        class_weights: Positive weight of each class. Normalized as PyTorch's weighted cross entropy does it, by the
            sum of the weights of the labels in the batch: only ratios matter, and a batch of one class is unaffected.
        class_prior: Probability or count of each class among the sampled real labels; $\tau \log \pi$ is added to the
            logits of real images. It need not sum to 1.
        prior_strength: Strength $\tau$ of that adjustment.

    Raises:
        ValueError: If a weight is negative, a class weight or prior is not positive and finite, they differ in
            length, or they are given with a `real_weight` of 0.

    Examples:
        >>> output = CriticOutput(score=torch.zeros(2), class_logits=torch.zeros(2, 2))
        >>> y = torch.tensor([0, 1])
        >>> loss = AuxiliaryClassifierLoss()
        >>> loss.critic(output, y, output, y), loss.generator(output, y)
        (tensor(0.6931), tensor(0.0693))

    References:
        Odena et al. 2017, arXiv:1610.09585, equation 3; Gulrajani et al. 2017, arXiv:1704.00028, and the code of its
        authors; Menon et al. 2021, arXiv:2007.07314, equation 10.
    """

    real_weight: float = 1.0
    _: KW_ONLY
    fake_weight: float = 0.0
    generator_weight: float = 0.1
    class_weights: Sequence[float] | None = None
    class_prior: Sequence[float] | None = None
    prior_strength: float = 1.0

    def __post_init__(self) -> None:
        for name in ("real_weight", "fake_weight", "generator_weight", "prior_strength"):
            check_not_negative(name, getattr(self, name))
        for name in ("class_weights", "class_prior"):
            if getattr(self, name) is not None:
                self._freeze_per_class(name)
        weights, prior = self.class_weights, self.class_prior
        if weights is not None and prior is not None and len(weights) != len(prior):
            raise ValueError(
                f"class_weights and class_prior must have one value per class, got {len(weights)} and {len(prior)}."
            )

    def _freeze_per_class(self, name: str) -> None:
        values = tuple(float(value) for value in getattr(self, name))
        if not values or not all(0 < value < math.inf for value in values):
            raise ValueError(
                f"{name} must hold one positive finite value per class, got {values}. A class without real samples "
                "cannot be weighted: leave it out of the data."
            )
        if self.real_weight == 0:
            raise ValueError(
                f"{name} acts on the critic's term on real images, whose weight is 0. Set real_weight above 0, or "
                f"{name}=None."
            )
        object.__setattr__(self, name, values)

    @property
    def _log_prior(self) -> tuple[float, ...] | None:
        prior = self.class_prior
        return None if prior is None else tuple(math.log(value / sum(prior)) for value in prior)

    def critic(self, real: CriticOutput, y: Tensor | None, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        """Return the critic's weighted loss.

        Args:
            real: The critic's output on real images.
            y: Their labels.
            fake: The critic's output on generated images; read only if `fake_weight` is above 0.
            y_fake: Their labels.

        Shape:
            - `real.class_logits`, `fake.class_logits`: `(N, K)`.
            - `y`, `y_fake`: `(N,)`, int64 in `[0, K)`.
            - Returns: `()`, at least 0.

        Raises:
            ValueError: If class logits or labels are missing, or the number of classes does not fit.
        """
        loss = _zero(real)
        if self.real_weight:
            class_logits, y = _require(real, y, "y")
            loss = loss + self.real_weight * class_cross_entropy(
                class_logits,
                y,
                class_weights=_per_class(self.class_weights, class_logits),
                log_prior=_per_class(self._log_prior, class_logits),
                prior_strength=self.prior_strength,
            )
        if self.fake_weight:
            loss = loss + self.fake_weight * class_cross_entropy(*_require(fake, y_fake, "y_fake"))
        return loss

    def generator(self, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        """Return the generator's weighted loss.

        Args:
            fake: The critic's output on generated images.
            y_fake: Their labels.

        Shape:
            - `fake.class_logits`: `(N, K)`.
            - `y_fake`: `(N,)`, int64 in `[0, K)`.
            - Returns: `()`, at least 0.

        Raises:
            ValueError: If class logits or labels are missing, or the number of classes does not fit.
        """
        if not self.generator_weight:
            return _zero(fake)
        return self.generator_weight * class_cross_entropy(*_require(fake, y_fake, "y_fake"))


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


def _per_class(values: Sequence[float] | None, class_logits: Tensor) -> Tensor | None:
    if values is None:
        return None
    make = _new_constant if torch.compiler.is_compiling() else _constant
    return make(tuple(values), precise(class_logits).dtype, class_logits.device)


def _new_constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


@cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept for good: a copy from the host in every step would stall it, and cannot be captured in a CUDA graph.
    with torch.inference_mode(mode=False):
        return _new_constant(values, dtype, device)


def _zero(output: CriticOutput) -> Tensor:
    return precise(output.score.new_zeros(()))


def _require(output: CriticOutput, y: Tensor | None, name: str) -> tuple[Tensor, Tensor]:
    if output.class_logits is None:
        raise ValueError(
            "AuxiliaryClassifierLoss needs class_logits, got a critic output without them. Add the head to the critic: "
            "class ACCritic(AuxiliaryClassifierMixin, YourCritic)."
        )
    if y is None:
        raise ValueError(
            f"{name} must be int64 labels of shape (N,), got None. AuxiliaryClassifierLoss needs labelled data and "
            "networks with num_classes."
        )
    return output.class_logits, y
