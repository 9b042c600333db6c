"""Operations on many tensors in few kernel launches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor


def copy_all(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    """Copy each source into its target, grouped by type: PyTorch copies lists of mixed types one by one."""
    by_type = defaultdict[torch.dtype, list[tuple[Tensor, Tensor]]](list)
    for target, source in zip(targets, sources, strict=True):
        by_type[target.dtype].append((target, source))
    for pairs in by_type.values():
        torch._foreach_copy_([target for target, _ in pairs], [source for _, source in pairs])
