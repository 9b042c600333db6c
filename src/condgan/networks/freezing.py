"""Fine-tuning a critic with its lower blocks frozen."""

from __future__ import annotations

from torch import nn

from condgan.networks.base import Critic


def freeze_lower_blocks(critic: Critic, count: int) -> Critic:
    """Freeze the first `count` blocks of a critic, those next to the image, in place (Freeze-D).

    Fine-tuned on little data, a critic whose lower blocks keep what they learned on more data overfits less. Call it
    before the `Trainer` is made, whose optimizers and gradients take up only what can be trained.

    Batch norms of frozen blocks go on normalizing by the batch.

    Args:
        critic: A critic whose `blocks` are an `nn.Sequential`, as those of the library; usually one of
            `from_pretrained`.
        count: Blocks to freeze; activations and other parts without weights are not counted.

    Returns:
        The same critic.

    Raises:
        TypeError: If the critic has no such blocks.
        ValueError: If it has fewer blocks, or `count` is less than 1.

    Examples:
        >>> from condgan.networks import DCGANCritic
        >>> critic = DCGANCritic(num_classes=None, image_shape=(1, 32, 32), base_channels=4)
        >>> frozen = freeze_lower_blocks(critic, 2)
        >>> [all(p.requires_grad for p in block.parameters()) for block in frozen.blocks]
        [False, False, True]

    References:
        Mo et al. 2020, arXiv:2002.10964.
    """
    found = getattr(critic, "blocks", None)
    if not isinstance(found, nn.Sequential):
        raise TypeError(
            f"the critic must have its blocks in an nn.Sequential named blocks, from the image up, got a "
            f"{type(critic).__name__}. Freeze its parameters with requires_grad_(False)."
        )
    blocks = [block for block in found if any(True for _ in block.parameters())]
    if not 1 <= count <= len(blocks):
        raise ValueError(f"count must be from 1 to {len(blocks)}, the blocks of the critic, got {count}.")
    for block in blocks[:count]:
        block.requires_grad_(False)
    return critic
