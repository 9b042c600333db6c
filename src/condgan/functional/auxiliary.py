"""Losses on class logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from condgan.functional.precision import precise


def class_cross_entropy(
    class_logits: Tensor,
    y: Tensor,
    *,
    class_weights: Tensor | None = None,
    log_prior: Tensor | None = None,
    prior_strength: float = 1.0,
) -> Tensor:
    r"""Return the cross entropy of class logits, with optional class weights and logit adjustment.

    $$\frac{\sum_i w_{y_i} \ell_i}{\sum_i w_{y_i}}, \qquad
    \ell_i = -\log \mathrm{softmax}(f(x_i) + \tau \log \pi)_{y_i}$$

    Class weights $w$ are normalized as PyTorch's weighted cross entropy does it: by the sum of the weights of the
    labels in the batch. So only their ratios matter, and in a batch of a single class they do nothing. The adjustment
    by the label prior $\pi$ is for training on labels that follow it; the logits without it, which a critic returns,
    then estimate the posterior under balanced classes.

    Args:
        class_logits: Unnormalized log probabilities; no softmax before.
        y: Labels.
        class_weights: Weight $w$ of each class, positive.
        log_prior: Logarithm of the label prior $\pi$; a constant added to it changes nothing.
        prior_strength: Exponent $\tau$ of the prior.

    Shape:
        - `class_logits`: `(N, K)`.
        - `y`: `(N,)`, int64 in `[0, K)`.
        - `class_weights`, `log_prior`: `(K,)`.
        - Returns: `()`, at least 0.

    Raises:
        ValueError: If shapes, types or the number of classes do not fit. Label values are checked on the CPU only:
            on other devices reading them back would stall the step.

    Examples:
        >>> logits, y = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
        >>> class_cross_entropy(logits, y)
        tensor(0.6931)
        >>> class_cross_entropy(logits, y, log_prior=torch.tensor([0.9, 0.1]).log())
        tensor(1.2040)

    References:
        Menon et al. 2021, arXiv:2007.07314, equation 10 (logit adjustment).
    """
    if class_logits.ndim != 2:
        raise ValueError(f"class_logits must have the shape (N, K), got {tuple(class_logits.shape)}.")
    count, num_classes = class_logits.shape
    if y.shape != (count,) or y.dtype != torch.int64:
        raise ValueError(
            f"y must be int64 of shape ({count},), one label a row of class_logits, got {y.dtype} of shape "
            f"{tuple(y.shape)}. One-hot labels: pass y.argmax(1); a trailing axis: y.squeeze(1)."
        )
    for name, values in (("class_weights", class_weights), ("log_prior", log_prior)):
        if values is not None and values.shape != (num_classes,):
            raise ValueError(
                f"{name} must have one value a class, shape ({num_classes},), got {tuple(values.shape)}. "
                "Check num_classes of the critic against the data."
            )
    logits = precise(class_logits)
    if log_prior is not None:
        logits = logits + prior_strength * log_prior.to(logits)
    weight = None if class_weights is None else class_weights.to(logits)
    try:
        return F.cross_entropy(logits, y, weight=weight)
    except IndexError as error:
        raise ValueError(
            f"y must have values in [0, {num_classes}), the classes of class_logits, got values in "
            f"[{int(y.min())}, {int(y.max())}]. Labels start at 0; otherwise give the critic more num_classes."
        ) from error
