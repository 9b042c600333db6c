"""Training that begins without classes and fades them in."""

from __future__ import annotations

import torch

from condgan.nn.layers import ClassConditional
from condgan.training.step import Networks


class Transition:
    r"""Fades the classes in: their strength is 0 until `start`, 1 from `end` on, and linear in between.

    $$ \lambda(p) = \min\Big(1, \max\Big(0, \frac{p - p_0}{p_1 - p_0}\Big)\Big) $$

    A conditional GAN on little data can collapse where an unconditional one does not. $\lambda$ scales what depends on
    the class: in the generator the class embedding, or the distance of the gains and shifts of conditional norms from
    their means over classes; in the critic the class-dependent summand of the score; in the loss the auxiliary class
    terms, $L_\mathrm{unconditional} + \lambda L_\mathrm{conditional}$.

    Deviations from the paper, which is about StyleGAN2: a critic whose score depends on the class has a score
    $D(x) + \lambda D(x, y)$ and one loss, where the paper has a loss for each summand, the second with the weight
    $\lambda$; conditional norms stand for the paper's mapping network.

    Args:
        start: Progress $p_0$ of training, `step / total`, at which the classes begin to count.
        end: Progress $p_1$ at which they count in full.
        networks: The networks; their class-conditional parts get a strength of their own, in a buffer.

    Attributes:
        strength: The strength now, a scalar on the device.

    Raises:
        ValueError: If not $0 \le p_0 < p_1 < 1$, or the generator has no part that can be faded.

    References:
        Shahbazi et al. 2022, arXiv:2201.06578, section 4.
    """

    def __init__(self, start: float, end: float, networks: Networks) -> None:
        if not 0 <= start < end < 1:
            raise ValueError(
                f"transition must be (start, end) with 0 <= start < end < 1, got {(start, end)}. At the "
                "end of training the classes must count in full."
            )
        self.start, self.end = start, end
        in_generator, in_critic = (
            [part for part in network.modules() if isinstance(part, ClassConditional) and part.num_classes is not None]
            for network in (networks.generator, networks.critic)
        )
        if not in_generator:
            raise ValueError(
                f"transition fades in the classes of a generator, got a {type(networks.generator).__name__} without "
                "class-conditional layers. Build it with num_classes and from layers such as "
                "condgan.nn.ConcatenatedEmbedding or condgan.nn.ConditionalBatchNorm2d."
            )
        self.strength = torch.zeros((), device=next(networks.generator.parameters()).device)
        for part in (*in_generator, *in_critic):
            part.class_strength = self.strength  # the same tensor everywhere, so that one kernel moves it

    def move_to(self, progress: float) -> None:
        """Set the strength for a progress in [0, 1]."""
        self.strength.fill_(min(1.0, max(0.0, (progress - self.start) / (self.end - self.start))))
