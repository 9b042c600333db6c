"""Auxiliary losses: pairs of terms on the class outputs of a critic and the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from condgan import functional
from condgan.types import CriticOutput

__all__ = ["AuxiliaryClassifierLoss"]


@dataclass(frozen=True, kw_only=True)
class AuxiliaryClassifierLoss:
    r"""The class term of ACGAN and ACWGAN-GP: the critic classifies, the generator wants its images recognized.

    Critic $\lambda_r\,\mathrm{CE}(c(x), y) + \lambda_f\,\mathrm{CE}(c(\tilde x), \tilde y)$; generator
    $\lambda_g\,\mathrm{CE}(c(\tilde x), \tilde y)$, with the class logits $c$. The defaults are those of the code of
    ACWGAN-GP's authors; ACGAN has all three weights 1. A term of weight 0 is not computed.

    `class_weights` and `class_prior` are two ways to undo an imbalance of the **real labels as they are sampled**,
    so both act on the critic's real term only. The labels of generated images follow the label law, which is known
    and usually uniform: correcting their terms too would tilt balanced labels. After training with `class_prior` the
    plain logits estimate the posterior under balanced classes, which is the right teacher for a generator with
    uniform labels. Hence: give the prior of the sampled labels (none, if real sampling is balanced), and with a
    `fake_weight` above 0 ask for uniform fake labels, or the critic's two terms pull the logits apart.

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
    fake_weight: float = 0.0
    generator_weight: float = 0.1
    class_weights: Sequence[float] | None = None
    class_prior: Sequence[float] | None = None
    prior_strength: float = 1.0

    def __post_init__(self) -> None:
        for name in ("real_weight", "fake_weight", "generator_weight", "prior_strength"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}.")
        for name in ("class_weights", "class_prior"):
            if getattr(self, name) is not None:
                self._freeze_per_class(name)
        weights, prior = self.class_weights, self.class_prior
        if weights is not None and prior is not None and len(weights) != len(prior):
            raise ValueError(
                f"class_weights and class_prior must have one value a class, got {len(weights)} and {len(prior)}."
            )

    def _freeze_per_class(self, name: str) -> None:
        values = tuple(float(value) for value in getattr(self, name))
        if not values or not all(0 < value < math.inf for value in values):
            raise ValueError(
                f"{name} must hold one positive finite value a class, got {values}. A class without real samples "
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
            fake: The critic's output on generated images; looked at only if `fake_weight` is above 0.
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
            loss = loss + self.real_weight * functional.class_cross_entropy(
                class_logits,
                y,
                class_weights=_per_class(self.class_weights, class_logits),
                log_prior=_per_class(self._log_prior, class_logits),
                prior_strength=self.prior_strength,
            )
        if self.fake_weight:
            loss = loss + self.fake_weight * functional.class_cross_entropy(*_require(fake, y_fake, "y_fake"))
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
        return self.generator_weight * functional.class_cross_entropy(*_require(fake, y_fake, "y_fake"))


def _per_class(values: Sequence[float] | None, class_logits: Tensor) -> Tensor | None:
    if values is None:
        return None
    make = _new_constant if torch.compiler.is_compiling() else _constant
    return make(tuple(values), torch.promote_types(class_logits.dtype, torch.float32), class_logits.device)


def _new_constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


@cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept for good: a copy from the host in every step would stall it, and cannot be captured in a CUDA graph.
    with torch.inference_mode(mode=False):
        return _new_constant(values, dtype, device)


def _zero(output: CriticOutput) -> Tensor:
    score = output.score
    return score.new_zeros((), dtype=torch.promote_types(score.dtype, torch.float32))


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
