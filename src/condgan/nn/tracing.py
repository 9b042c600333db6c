"""Whether code runs as written, where custom derivatives are right, or under something that rewrites it."""

import torch


def is_transformed() -> bool:
    """Return whether a compiler, an export, a trace or a functorch transform is at work.

    A custom `torch.autograd.Function` gives wrong second derivatives under a compiled `torch.func.grad`, has no rule
    for `vmap`, and cannot be written to a file.
    """
    return bool(torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or torch._C._is_tracing())
