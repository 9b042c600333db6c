"""One seed for everything that draws by default."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed the default generators of Python, NumPy and PyTorch (all devices).

    The library draws from generators of its own; this governs what does not: the initial weights of networks made
    afterwards, and code of yours.

    Args:
        seed: At least 0.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the legacy generator is the one that other code draws from
    torch.manual_seed(seed)
