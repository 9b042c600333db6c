"""Weighted auxiliary losses, on a critic's other outputs and labels: class logits and embeddings.

Each loss is a frozen dataclass with two methods, `critic` and `generator`. A `Trainer` adds them to those of its
adversarial loss, which it always has.
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
from condgan.functional import class_cross_entropy, label_logits, precise
from condgan.types import CriticOutput


class _AuxiliaryLoss:
    """A pair of weighted losses on outputs and labels; subclasses define both sides, and whose outputs they read."""

    _mixin: ClassVar[str]

    def critic(self, real: CriticOutput, y: Tensor | None, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        """Return the critic's weighted loss.

        Args:
            real: The critic's output on real images.
            y: Their labels.
            fake: The critic's output on generated images.
            y_fake: Their labels.

        Shape:
            - `class_logits`, `twin_logits`: `(N, K)`; `embedding`: `(N, D)`.
            - `y`, `y_fake`: `(N,)`, int64 in `[0, K)`.
            - Returns: `()`.

        Raises:
            ValueError: If outputs or labels are missing that the loss reads, or do not fit each other.
        """
        raise NotImplementedError

    def generator(self, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        """Return the generator's weighted loss.

        Args:
            fake: The critic's output on generated images.
            y_fake: Their labels.

        Shape:
            - `class_logits`, `twin_logits`: `(N, K)`; `embedding`: `(N, D)`.
            - `y_fake`: `(N,)`, int64 in `[0, K)`.
            - Returns: `()`.

        Raises:
            ValueError: If outputs or labels are missing that the loss reads, or do not fit each other.
        """
        raise NotImplementedError

    def _read(self, output: CriticOutput, *names: str) -> list[Tensor]:
        """Return outputs of the critic by name."""
        values: list[Tensor | None] = [getattr(output, name) for name in names]
        found = [value for value in values if value is not None]
        if len(found) < len(names):
            missing = [name for name, value in zip(names, values, strict=True) if value is None]
            raise ValueError(
                f"{type(self).__name__} needs {' and '.join(missing)}, got a critic output without. Add the head to "
                f"the critic: class MyCritic({self._mixin}, YourCritic)."
            )
        return found

    def _labels(self, name: str, y: Tensor | None) -> Tensor:
        if y is None:
            raise ValueError(
                f"{name} must be int64 labels of shape (N,), got None. {type(self).__name__} needs labelled data and "
                "networks with num_classes."
            )
        return y


@dataclass(frozen=True)
class AuxiliaryClassifierLoss(_AuxiliaryLoss):
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
            With several processes, each divides by the sum over its own rows.
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

    _mixin: ClassVar[str] = "AuxiliaryClassifierMixin"

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

    @override
    def critic(self, real: CriticOutput, y: Tensor | None, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        loss = _zero(real)
        if self.real_weight:
            (class_logits,) = self._read(real, "class_logits")
            loss = loss + self.real_weight * class_cross_entropy(
                class_logits,
                self._labels("y", y),
                class_weights=_per_class(self.class_weights, class_logits),
                log_prior=_per_class(self._log_prior, class_logits),
                prior_strength=self.prior_strength,
            )
        if self.fake_weight:
            loss = loss + self.fake_weight * self._cross_entropy_on_fakes(fake, y_fake)
        return loss

    @override
    def generator(self, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        if not self.generator_weight:
            return _zero(fake)
        return self.generator_weight * self._cross_entropy_on_fakes(fake, y_fake)

    def _cross_entropy_on_fakes(self, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        (class_logits,) = self._read(fake, "class_logits")
        return class_cross_entropy(class_logits, self._labels("y_fake", y_fake))


@dataclass(frozen=True)
class MultiClassHingeLoss(_AuxiliaryLoss):
    r"""The hinge loss of Crammer and Singer on class logits: a label's logit must lead all others by a margin of 1.

    $$\mathrm{MH}(x, y) = \max\big(0,\, 1 - c_y(x) + \max_{k \ne y} c_k(x)\big)$$

    Critic $\lambda_r\,\mathbb{E}\,\mathrm{MH}(x, y)$, on real images only; generator
    $\lambda_g\,\mathbb{E}\,\mathrm{MH}(\tilde x, \tilde y)$. It judges classes and not realism, so it needs an
    adversarial loss beside it: the authors' critic has a projection score under `condgan.losses.HingeLoss`, such as
    `condgan.networks.ACProjectionResNetCritic`.

    This is the auxiliary form of the paper, with K logits. Its other form, for partly labelled data, has generated
    images as a further class in place of the score, and trains the generator to match features. That one is left out:
    here every critic has a score.

    Args:
        real_weight: Coefficient $\lambda_r$ of the critic's term.
        generator_weight: Coefficient $\lambda_g$ of the generator's term. The authors' scripts have 0.05 for ImageNet
            at 128 pixels and 0.1 for smaller images.

    Raises:
        ValueError: If a weight is negative.

    Examples:
        >>> output = CriticOutput(score=torch.zeros(2), class_logits=torch.tensor([[2.0, 0.5], [0.0, 0.5]]))
        >>> MultiClassHingeLoss().critic(output, torch.tensor([0, 1]), output, torch.tensor([0, 1]))
        tensor(0.2500)

    References:
        Kavalerov et al. 2021, arXiv:1912.04216, and the code of its authors; Crammer and Singer 2001, "On the
        Algorithmic Implementation of Multiclass Kernel-based Vector Machines".
    """

    _mixin: ClassVar[str] = "AuxiliaryClassifierMixin"

    real_weight: float = 1.0
    _: KW_ONLY
    generator_weight: float = 0.1

    def __post_init__(self) -> None:
        check_not_negative("real_weight", self.real_weight)
        check_not_negative("generator_weight", self.generator_weight)

    @override
    def critic(self, real: CriticOutput, y: Tensor | None, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        return self.real_weight * self._hinge(real, self._labels("y", y))

    @override
    def generator(self, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        return self.generator_weight * self._hinge(fake, self._labels("y_fake", y_fake))

    def _hinge(self, output: CriticOutput, y: Tensor) -> Tensor:
        (class_logits,) = self._read(output, "class_logits")
        own = label_logits(class_logits, y)
        best_other = precise(class_logits).scatter(1, y[:, None], -math.inf).amax(1)
        return F.relu(1 - own + best_other).mean()


@dataclass(frozen=True)
class _SingleWeightLoss(_AuxiliaryLoss):
    """An auxiliary loss with one coefficient of both sides."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_not_negative("weight", self.weight)


@dataclass(frozen=True)
class TwinAuxiliaryClassifierLoss(_SingleWeightLoss):
    r"""The class terms of TAC-GAN: a twin head learns the classes of generated images, and the generator deceives it.

    Critic $\lambda\,[\mathrm{CE}(c(x), y) + \mathrm{CE}(t(\tilde x), \tilde y)]$; generator
    $\lambda\,[\mathrm{CE}(c(\tilde x), \tilde y) - \mathrm{CE}(t(\tilde x), \tilde y)]$, with the class logits $c$ and
    the twin logits $t$. The generator's second term undoes the bias of ACGAN towards images that are easy to classify:
    at the optimum of both heads its loss is the divergence between the generated and the real posterior of classes.
    As in the authors' code, the class head learns from real images only.

    Args:
        weight: Coefficient $\lambda$ of both sides, at least 0.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> output = CriticOutput(torch.zeros(2), class_logits=torch.zeros(2, 2), twin_logits=torch.zeros(2, 2))
        >>> y, loss = torch.tensor([0, 1]), TwinAuxiliaryClassifierLoss()
        >>> loss.critic(output, y, output, y), loss.generator(output, y)
        (tensor(1.3863), tensor(0.))

    References:
        Gong et al. 2019, arXiv:1907.02690, and the code of its authors.
    """

    _mixin: ClassVar[str] = "TwinAuxiliaryClassifierMixin"

    @override
    def critic(self, real: CriticOutput, y: Tensor | None, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        (class_logits,), (twin_logits,) = self._read(real, "class_logits"), self._read(fake, "twin_logits")
        on_real = class_cross_entropy(class_logits, self._labels("y", y))
        return self.weight * (on_real + class_cross_entropy(twin_logits, self._labels("y_fake", y_fake)))

    @override
    def generator(self, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        class_logits, twin_logits = self._read(fake, "class_logits", "twin_logits")
        y_fake = self._labels("y_fake", y_fake)
        return self.weight * (class_cross_entropy(class_logits, y_fake) - class_cross_entropy(twin_logits, y_fake))


@dataclass(frozen=True)
class DiscriminativeClassifierLoss(_SingleWeightLoss):
    r"""The class terms of ADC-GAN: one classifier of 2K classes tells real images of a class from generated ones.

    With the class logits $c$ for "real, of class $k$" and the twin logits $t$ for "generated, of class $k$",

    $$p(k, \text{real} \mid x) = \frac{e^{c_k(x)}}{\sum_j e^{c_j(x)} + e^{t_j(x)}}, \qquad
    p(k, \text{fake} \mid x) = \frac{e^{t_k(x)}}{\sum_j e^{c_j(x)} + e^{t_j(x)}},$$

    critic $-\lambda\,\mathbb{E}\,[\log p(y, \text{real} \mid x) + \log p(\tilde y, \text{fake} \mid \tilde x)]$;
    generator

    $$-\lambda\,\mathbb{E}\,[\log p(\tilde y, \text{real} \mid \tilde x) - \log p(\tilde y, \text{fake} \mid \tilde x)]
    = \lambda\,\mathbb{E}\,[t_{\tilde y}(\tilde x) - c_{\tilde y}(\tilde x)].$$

    Args:
        weight: Coefficient $\lambda$ of both sides, at least 0.

    Raises:
        ValueError: If `weight` is negative.

    Examples:
        >>> output = CriticOutput(torch.zeros(2), class_logits=torch.zeros(2, 2), twin_logits=torch.ones(2, 2))
        >>> y, loss = torch.tensor([0, 1]), DiscriminativeClassifierLoss()
        >>> loss.critic(output, y, output, y), loss.generator(output, y)
        (tensor(3.0128), tensor(1.))

    References:
        Hou et al. 2022, arXiv:2107.10060, and the code of its authors.
    """

    _mixin: ClassVar[str] = "DiscriminativeClassifierMixin"

    @override
    def critic(self, real: CriticOutput, y: Tensor | None, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        real_half, other_half = self._read(real, "class_logits", "twin_logits")
        on_real = _joint_cross_entropy(real_half, other_half, self._labels("y", y))
        other_half, fake_half = self._read(fake, "class_logits", "twin_logits")
        return self.weight * (on_real + _joint_cross_entropy(fake_half, other_half, self._labels("y_fake", y_fake)))

    @override
    def generator(self, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        real_half, fake_half = self._read(fake, "class_logits", "twin_logits")
        y_fake = self._labels("y_fake", y_fake)
        return self.weight * (label_logits(fake_half, y_fake) - label_logits(real_half, y_fake)).mean()


@dataclass(frozen=True)
class DataToDataCrossEntropyLoss(_SingleWeightLoss):
    r"""The data-to-data cross entropy of ReACGAN: embeddings are near their class's proxy, and far from other classes.

    With unit embeddings $f_i$, unit proxies $v_k$ and the samples $\mathcal N(i)$ of other classes in the batch,

    $$-\frac{\lambda}{N} \sum_i \log \frac{e^{a_i}}{e^{a_i} + \sum_{j \in \mathcal N(i)} e^{r_{ij}}}, \qquad
    a_i = \frac{\min(0, f_i^\top v_{y_i} - m_p)}{\tau}, \qquad r_{ij} = \frac{\max(0, f_i^\top f_j - m_n)}{\tau},$$

    with $m_n = 1 - m_p$: what is similar enough to its proxy, or dissimilar enough to another class, has no gradient of
    its own. Critic: on real images; generator: on generated ones. A batch of a single class has the loss 0.

    This is the equation of the paper. Its authors' code shifts the second kind of exponent by the largest similarity
    without shifting the first. In several processes each compares the samples of its own part of the batch, where the
    authors' code compares those of all.

    Args:
        weight: Coefficient $\lambda$ of both sides, at least 0.
        margin: Similarity $m_p$ to its proxy that suffices, in [-1, 1].
        temperature: Divisor $\tau$ of similarities, positive.

    Raises:
        ValueError: If `weight` is negative, `margin` not in [-1, 1], or `temperature` not positive.

    Examples:
        >>> unit = torch.eye(2)
        >>> output = CriticOutput(score=torch.zeros(2), class_logits=unit, embedding=unit)
        >>> loss = DataToDataCrossEntropyLoss(margin=1.0, temperature=1.0, weight=1.0)
        >>> loss.generator(output, torch.tensor([0, 1]))  # log(1 + 1)
        tensor(0.6931)
        >>> loss.generator(output, torch.tensor([1, 1]))
        tensor(0.)

    References:
        Kang et al. 2021, arXiv:2111.01118, equation 6, and the code of its authors.
    """

    _mixin: ClassVar[str] = "ContrastiveMixin"

    weight: float = 0.5
    _: KW_ONLY
    margin: float = 0.98
    temperature: float = 0.5

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.margin <= 1:
            raise ValueError(f"margin must lie in [-1, 1], as cosines do, got {self.margin}.")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}.")

    @override
    def critic(self, real: CriticOutput, y: Tensor | None, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        return self.weight * self._cross_entropy(real, self._labels("y", y))

    @override
    def generator(self, fake: CriticOutput, y_fake: Tensor | None) -> Tensor:
        return self.weight * self._cross_entropy(fake, self._labels("y_fake", y_fake))

    def _cross_entropy(self, output: CriticOutput, y: Tensor) -> Tensor:
        embedding, cosines = self._read(output, "embedding", "class_logits")
        attraction = (label_logits(cosines, y) - self.margin).clamp(max=0) / self.temperature
        embedding = precise(embedding)
        repulsion = F.relu(embedding @ embedding.T - (1 - self.margin)) / self.temperature
        of_others = repulsion.masked_fill(y[:, None] == y, -math.inf)
        return (torch.cat([attraction[:, None], of_others], dim=1).logsumexp(1) - attraction).mean()


def _joint_cross_entropy(own_half: Tensor, other_half: Tensor, y: Tensor) -> Tensor:
    """Return the cross entropy of 2K classes whose logits come in two halves, with labels in the first."""
    own = label_logits(own_half, y)
    return (precise(torch.cat([own_half, other_half], dim=1)).logsumexp(1) - own).mean()


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
