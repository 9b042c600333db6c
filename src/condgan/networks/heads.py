"""Heads for critics, as mixins that stack: `class MyCritic(AuxiliaryClassifierMixin, ProjectionMixin, MyTrunk)`.

They rebuild the output field by field: `CriticOutput._replace` does the same, but torch 2.11 cannot compile it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from condgan.networks.base import Critic
from condgan.nn.layers import ClassConditional, check_labels
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
        projected = (self.class_projection(_require_labels(self, y, h)) * h).sum(1)
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
        embedded = self.class_embedding(_require_labels(self, y, h)).to(h.dtype)
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
