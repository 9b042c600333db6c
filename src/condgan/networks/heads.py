"""Heads for critics, as mixins that stack: `class MyCritic(AuxiliaryClassifierMixin, ProjectionMixin, MyTrunk)`.

They rebuild the output field by field: `CriticOutput._replace` does the same, but torch 2.11 cannot compile it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from condgan.functional import precise
from condgan.networks.base import Critic
from condgan.nn.layers import ClassConditional, check_labels, embed, without_autocast
from condgan.types import CriticOutput


class AuxiliaryClassifierMixin(Critic):
    r"""Adds a linear class head on the critic's features: `class_logits` $= W h(x) + b$.

    Raises:
        ValueError: If the critic has no classes.

    References:
        Odena et al. 2017, arXiv:1610.09585.
    """

    @override
    def make_heads(self) -> None:
        super().make_heads()
        self.class_head = nn.Linear(self.feature_dim, _require_classes(self))

    @override
    def heads(self, h: Tensor, y: Tensor | None) -> CriticOutput:
        out = super().heads(h, y)
        return CriticOutput(out.score, self.class_head(h), *out[2:])


class TwinAuxiliaryClassifierMixin(AuxiliaryClassifierMixin):
    r"""Adds two linear class heads: `class_logits` $= W h(x) + b$ and `twin_logits` $= W' h(x) + b'$.

    `condgan.auxiliary.TwinAuxiliaryClassifierLoss` trains the first on real images and the second on generated ones.

    Raises:
        ValueError: If the critic has no classes.

    References:
        Gong et al. 2019, arXiv:1907.02690.
    """

    @override
    def make_heads(self) -> None:
        super().make_heads()
        self.twin_head = nn.Linear(self.feature_dim, _require_classes(self))

    @override
    def heads(self, h: Tensor, y: Tensor | None) -> CriticOutput:
        out = super().heads(h, y)
        return CriticOutput(out.score, out.class_logits, self.twin_head(h), *out[3:])


class DiscriminativeClassifierMixin(Critic):
    r"""Adds one linear head with 2K outputs: `class_logits` for "real, of class k", `twin_logits` for "generated, ...".

    The first half of its outputs are the class logits; the authors' code interleaves the halves, with the same result.

    Raises:
        ValueError: If the critic has no classes.

    References:
        Hou et al. 2022, arXiv:2107.10060.
    """

    @override
    def make_heads(self) -> None:
        super().make_heads()
        self.class_head = nn.Linear(self.feature_dim, 2 * _require_classes(self))

    @override
    def heads(self, h: Tensor, y: Tensor | None) -> CriticOutput:
        out = super().heads(h, y)
        of_real, of_fake = self.class_head(h).chunk(2, dim=1)
        return CriticOutput(out.score, of_real, of_fake, *out[3:])


class ContrastiveMixin(Critic):
    r"""Adds a unit embedding, and its cosines with one learned proxy per class as `class_logits`.

    $$ f(x) = \frac{W h(x) + b}{\lVert W h(x) + b \rVert}, \qquad c_k(x) = f(x)^\top \frac{v_k}{\lVert v_k \rVert} $$

    Norms and cosines are computed in at least float32. `embed_dim` is a class variable, to be overridden in a subclass:
    512, as in the paper's experiment on CIFAR-10.

    Raises:
        ValueError: If the critic has no classes.

    References:
        Kang et al. 2021, arXiv:2111.01118.
    """

    embed_dim: ClassVar[int] = 512

    @override
    def make_heads(self) -> None:
        super().make_heads()
        self.embedding_head = nn.Linear(self.feature_dim, self.embed_dim)
        self.class_proxies = nn.Embedding(_require_classes(self), self.embed_dim)

    @override
    def heads(self, h: Tensor, y: Tensor | None) -> CriticOutput:
        out = super().heads(h, y)
        embedding = F.normalize(precise(self.embedding_head(h)), dim=1)
        proxies = F.normalize(precise(self.class_proxies.weight), dim=1)
        with without_autocast(h):
            return CriticOutput(out.score, F.linear(embedding, proxies), out.twin_logits, embedding)


class ProjectionMixin(ClassConditional, Critic):
    r"""Adds the inner product of features and class embedding to the score: $D(x, y) \mathrel{+}= v_y^\top h(x)$.

    Raises:
        ValueError: If the critic has no classes, or is called without labels.

    References:
        Miyato and Koyama 2018, arXiv:1802.05637.
    """

    score_needs_labels: ClassVar[bool] = True

    @override
    def make_heads(self) -> None:
        super().make_heads()
        self.class_projection = nn.Embedding(_require_classes(self), self.feature_dim)
        nn.init.xavier_uniform_(self.class_projection.weight)
        self.register_buffer("class_strength", None)

    @override
    def heads(self, h: Tensor, y: Tensor | None) -> CriticOutput:
        out = super().heads(h, y)
        projected = (embed(_require_labels(self, y, h), self.class_projection.weight) * h).sum(1)
        return CriticOutput(out.score + self.fade(projected), *out[1:])


class ConcatenationMixin(ClassConditional, Critic):
    r"""Adds a joint score of features and label: $D(x, y) \mathrel{+}= u^\top \max(0, V [h(x); e_y])$.

    Mirza and Osindero combine the hidden representations of image and label in one further layer. They use maxout
    units, here it is ReLU.

    Raises:
        ValueError: If the critic has no classes, or is called without labels.

    References:
        Mirza and Osindero 2014, arXiv:1411.1784.
    """

    score_needs_labels: ClassVar[bool] = True
    joint_dim: ClassVar[int] = 128

    @override
    def make_heads(self) -> None:
        super().make_heads()
        self.class_embedding = nn.Embedding(_require_classes(self), self.joint_dim)
        self.joint_head = nn.Sequential(
            nn.Linear(self.feature_dim + self.joint_dim, self.joint_dim), nn.ReLU(), nn.Linear(self.joint_dim, 1)
        )
        self.register_buffer("class_strength", None)

    @override
    def heads(self, h: Tensor, y: Tensor | None) -> CriticOutput:
        out = super().heads(h, y)
        embedded = embed(_require_labels(self, y, h), self.class_embedding.weight).to(h.dtype)
        joint = self.joint_head(torch.cat([h, embedded], dim=1)).squeeze(1)
        return CriticOutput(out.score + self.fade(joint), *out[1:])


def _require_classes(critic: Critic) -> int:
    if critic.num_classes is None:
        raise ValueError(f"{type(critic).__name__} has a class head and needs num_classes, got None.")
    return critic.num_classes


def _require_labels(critic: Critic, y: Tensor | None, h: Tensor) -> Tensor:
    if y is None:
        raise ValueError(f"the score of {type(critic).__name__} depends on the labels: call critic(x, y), got y=None.")
    return check_labels(y, h)
