"""Penalties on the gradient of a critic, and the cross entropy of class logits, as functions of tensors.

Everything here is unweighted. The weighted terms that a trainer adds up, and the adversarial losses, are in
`condgan.losses`, `condgan.auxiliary` and `condgan.regularizers`. Functions return a scalar unless they say otherwise,
and reduce in at least float32 (see `precise`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from condgan.types import CriticOutput

CriticFunction = Callable[[Tensor, Tensor | None], CriticOutput]
"""A critic, or anything that is called like one: samples and their labels in, a `CriticOutput` out."""


def precise(x: Tensor) -> Tensor:
    """Return a tensor in at least float32, the type in which losses are reduced; float64 stays float64.

    Shape:
        - `x`: any. Returns: the same shape, in `torch.promote_types(x.dtype, torch.float32)`.

    Examples:
        >>> precise(torch.ones(2, dtype=torch.bfloat16)).dtype, precise(torch.ones(2).double()).dtype
        (torch.float32, torch.float64)
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def interpolate(x: Tensor, x_fake: Tensor, epsilon: Tensor) -> Tensor:
    r"""Return one point on the segment between each pair of samples.

    $$\hat x_i = \epsilon_i x_i + (1 - \epsilon_i) \tilde x_i$$

    Args:
        x: Samples reached at `epsilon` 1.
        x_fake: Samples reached at `epsilon` 0.
        epsilon: Position on the segment, one per sample. One for the whole batch would cover far fewer points.

    Shape:
        - `x`, `x_fake`: `(N, *)`, any sample shape.
        - `epsilon`: `(N,)`, in [0, 1].
        - Returns: `(N, *)`.

    Raises:
        ValueError: If the samples differ in shape, or `epsilon` is not of shape `(N,)`.

    Examples:
        >>> interpolate(torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([0.25, 1.0]))
        tensor([[0.2500, 0.2500, 0.2500],
                [1.0000, 1.0000, 1.0000]])
    """
    if x.shape != x_fake.shape:
        raise ValueError(
            f"x and x_fake must have the same shape to be interpolated, got {tuple(x.shape)} and "
            f"{tuple(x_fake.shape)}. Pair each real sample with one generated sample."
        )
    epsilon = _per_sample(epsilon, x, dtype=torch.promote_types(x.dtype, x_fake.dtype))
    return epsilon * x + (1 - epsilon) * x_fake


def gradient_penalty(
    critic: CriticFunction,
    x: Tensor,
    x_fake: Tensor,
    y: Tensor | None,
    *,
    epsilon: Tensor,
    target: float = 1.0,
    one_sided: bool = False,
) -> Tensor:
    r"""Return the penalty on the norm of the critic's input gradient between real and generated samples.

    $$\mathbb{E}\,(\lVert \nabla_{\hat x} D(\hat x, y) \rVert_2 - k)^2, \qquad
    \hat x = \epsilon x + (1 - \epsilon) \tilde x$$

    with the target $k$; one-sided, $\max(0, \lVert\cdot\rVert_2 - k)^2$. Where the gradient vanishes the norm takes
    the subgradient 0, so the penalty's own gradient is finite there. The samples are detached: only the critic is
    penalized. Under autocast the critic runs in the lower precision; the norm, the square and the mean do not.

    Args:
        critic: Maps samples and labels to a `CriticOutput`. Its score of a sample must not depend on the others, as
            it would with batch statistics.
        x: Real samples.
        x_fake: Generated samples, row by row of the same class.
        y: Labels of the pairs; None without classes.
        epsilon: Positions of the interpolates, one per sample, uniform in [0, 1).
        target: Norm $k$ to attain, at least 0.
        one_sided: Penalize norms above the target only.

    Shape:
        - `x`, `x_fake`: `(N, *)`, floating point, any sample shape.
        - `y`: `(N,)`, int64.
        - `epsilon`: `(N,)`.
        - Returns: `()`, at least 0.

    Raises:
        ValueError: If shapes do not fit, samples are not floating point, `target` is negative, or the score does not
            depend on the samples.
        TypeError: If the critic does not return a `CriticOutput`.

    Examples:
        >>> def critic(x, y):
        ...     return CriticOutput(score=3 * x[:, 0] + 4 * x[:, 1])
        >>> gradient_penalty(critic, torch.ones(8, 2), torch.zeros(8, 2), None, epsilon=torch.rand(8))
        tensor(16.)

    References:
        Gulrajani et al. 2017, arXiv:1704.00028, equation 3 and, one-sided, section 4; Petzka et al. 2018,
        arXiv:1709.08894.
    """
    return _norm_penalty(critic, interpolate(x, x_fake, epsilon), y, target=target, one_sided=one_sided)


def dragan_penalty(
    critic: CriticFunction,
    x: Tensor,
    y: Tensor | None,
    *,
    noise: Tensor,
    epsilon: Tensor,
    scale: float = 0.5,
    target: float = 1.0,
) -> Tensor:
    r"""Return the penalty on the norm of the critic's input gradient around real samples.

    $$\mathbb{E}\,(\lVert \nabla_{\hat x} D(\hat x, y) \rVert_2 - k)^2, \qquad
    \hat x = x + \epsilon\, c\, \mathrm{std}(x)\, \delta, \qquad \delta \sim \mathcal{N}(0, I)$$

    where $\mathrm{std}(x)$ is the population standard deviation of all values of the batch. The paper perturbs by
    Gaussian noise; its authors' code by $\epsilon \cdot 0.5\, \mathrm{std}(x)\, U$ with $U$ uniform in [0, 1), which
    only ever brightens an image. This is the paper's noise with the code's scale and $\epsilon$; pass uniform
    `noise` for the code exactly.

    Args:
        critic: Maps samples and labels to a `CriticOutput`. Its score of a sample must not depend on the others.
        x: Real samples.
        y: Their labels; None without classes.
        noise: Directions $\delta$, standard normal.
        epsilon: Length of each perturbation, one per sample, uniform in [0, 1).
        scale: Coefficient $c$ of the perturbation.
        target: Norm $k$ to attain, at least 0.

    Shape:
        - `x`, `noise`: `(N, *)`, floating point, any sample shape.
        - `y`: `(N,)`, int64.
        - `epsilon`: `(N,)`.
        - Returns: `()`, at least 0.

    Raises:
        ValueError: If shapes do not fit, samples are not floating point, `target` is negative, or the score does not
            depend on the samples.
        TypeError: If the critic does not return a `CriticOutput`.

    Examples:
        >>> def critic(x, y):
        ...     return CriticOutput(score=3 * x[:, 0] + 4 * x[:, 1])
        >>> dragan_penalty(critic, torch.rand(8, 2), None, noise=torch.randn(8, 2), epsilon=torch.rand(8))
        tensor(16.)

    References:
        Kodali et al. 2017, arXiv:1705.07215, and the code of its authors.
    """
    if noise.shape != x.shape:
        raise ValueError(
            f"noise must have the shape of x, {tuple(x.shape)}, got {tuple(noise.shape)}. Draw it as "
            "torch.randn(x.shape, generator=rng)."
        )
    length = _per_sample(epsilon, x, dtype=x.dtype) * (scale * x.std(correction=0))
    return _norm_penalty(critic, x + length * noise.to(x), y, target=target)


def r1(critic: CriticFunction, x: Tensor, y: Tensor | None) -> Tensor:
    r"""Return half the mean squared norm of the critic's gradient at real samples.

    $$R_1 = \tfrac12 \mathbb{E} \lVert \nabla_x D(x, y) \rVert_2^2$$

    The half is part of it, so the usual coefficient $\gamma$ is the weight of the term. The samples are detached:
    only the critic is penalized. Under autocast the critic runs in the lower precision; square and mean do not.

    Args:
        critic: Maps samples and labels to a `CriticOutput`. Its score of a sample must not depend on the others.
        x: Real samples.
        y: Their labels; None without classes.

    Shape:
        - `x`: `(N, *)`, floating point, any sample shape.
        - `y`: `(N,)`, int64.
        - Returns: `()`, at least 0.

    Raises:
        ValueError: If the samples are not floating point, or the score does not depend on them.
        TypeError: If the critic does not return a `CriticOutput`.

    Examples:
        >>> def critic(x, y):
        ...     return CriticOutput(score=3 * x[:, 0] + 4 * x[:, 1])
        >>> r1(critic, torch.rand(8, 2), None)
        tensor(12.5000)

    References:
        Mescheder et al. 2018, arXiv:1801.04406, equation 9.
    """
    return 0.5 * precise(_input_gradient(critic, x, y)).square().sum(dim=1).mean()


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
    labels in the batch. So only their ratios matter, and in a batch of a single class they have no effect. The
    adjustment by the label prior $\pi$ is for training on labels that follow this prior; the unadjusted logits, which a
    critic returns, then estimate the posterior under balanced classes.

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
    num_classes = _check_labels(class_logits, y)
    for name, values in (("class_weights", class_weights), ("log_prior", log_prior)):
        if values is not None and values.shape != (num_classes,):
            raise ValueError(
                f"{name} must have one value per class, shape ({num_classes},), got {tuple(values.shape)}. "
                "Check num_classes of the critic against the data."
            )
    logits = precise(class_logits)
    if log_prior is not None:
        logits = logits + prior_strength * log_prior.to(logits)
    weight = None if class_weights is None else class_weights.to(logits)
    try:
        return F.cross_entropy(logits, y, weight=weight)
    except IndexError as error:
        raise _label_error(class_logits, y) from error


def label_logits(class_logits: Tensor, y: Tensor) -> Tensor:
    r"""Return each sample's logit of its own label, $f(x_i)_{y_i}$.

    Args:
        class_logits: One logit per class.
        y: Labels.

    Shape:
        - `class_logits`: `(N, K)`.
        - `y`: `(N,)`, int64 in `[0, K)`.
        - Returns: `(N,)`.

    Raises:
        ValueError: If shapes or types do not fit. Label values are checked on the CPU only: on other devices reading
            them back would stall the step.

    Examples:
        >>> label_logits(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0]))
        tensor([2., 3.])
    """
    _check_labels(class_logits, y)
    try:
        # Unlike gather's, its derivative is deterministic on every device.
        return -F.nll_loss(precise(class_logits), y, reduction="none")
    except IndexError as error:
        raise _label_error(class_logits, y) from error


def _check_labels(class_logits: Tensor, y: Tensor) -> int:
    """Check shapes and types of logits and labels, and return the number of classes."""
    if class_logits.ndim != 2:
        raise ValueError(f"class_logits must have the shape (N, K), got {tuple(class_logits.shape)}.")
    count, num_classes = class_logits.shape
    if y.shape != (count,) or y.dtype != torch.int64:
        raise ValueError(
            f"y must be int64 of shape ({count},), one label per row of class_logits, got {y.dtype} of shape "
            f"{tuple(y.shape)}. One-hot labels: pass y.argmax(1); a trailing axis: y.squeeze(1)."
        )
    return num_classes


def _label_error(class_logits: Tensor, y: Tensor) -> ValueError:
    return ValueError(
        f"y must have values in [0, {class_logits.shape[1]}), the classes of class_logits, got values in "
        f"[{int(y.min())}, {int(y.max())}]. Labels start at 0; otherwise give the critic more num_classes."
    )


def _norm_penalty(
    critic: CriticFunction, x: Tensor, y: Tensor | None, *, target: float, one_sided: bool = False
) -> Tensor:
    if not target >= 0:
        raise ValueError(f"target must be at least 0, got {target}.")
    gradient = _input_gradient(critic, x, y)
    # Unlike square().sum().sqrt(), vector_norm has the subgradient 0 at 0; the square root's infinite one makes NaN.
    excess = torch.linalg.vector_norm(precise(gradient), dim=1) - target
    return (F.relu(excess) if one_sided else excess).square().mean()


def _input_gradient(critic: CriticFunction, x: Tensor, y: Tensor | None) -> Tensor:
    """Return the gradient of each sample's score with respect to that sample, one row per sample."""
    if not x.is_floating_point():
        raise ValueError(
            f"Samples must be floating point to have a gradient, got {x.dtype}. Rescale images to floats in [-1, 1]."
        )
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        output = critic(x, y)
        if not isinstance(output, CriticOutput):
            raise TypeError(
                f"The critic must return a CriticOutput, got {type(output).__name__}. Wrap a plain score: "
                "lambda x, y: CriticOutput(score=critic(x))."
            )
        score = output.score
        if score.shape != x.shape[:1]:
            raise ValueError(
                f"The critic's score must have the shape {tuple(x.shape[:1])}, one value per sample, got "
                f"{tuple(score.shape)}. A trailing axis: return score.squeeze(1)."
            )
        gradient = None
        if score.requires_grad:
            # Autocast would also run the backward of layers that the critic keeps in float32 in low precision.
            with torch.autocast(x.device.type, enabled=False):
                (gradient,) = torch.autograd.grad(score.sum(), x, create_graph=create_graph, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "The critic's score must depend on the samples to have an input gradient, but autograd finds no path "
            "from one to the other. Look for detach(), torch.no_grad() or .data in the critic."
        )
    return gradient.reshape(len(x), -1)


def _per_sample(epsilon: Tensor, x: Tensor, *, dtype: torch.dtype) -> Tensor:
    if epsilon.shape != x.shape[:1]:
        raise ValueError(
            f"epsilon must have the shape {tuple(x.shape[:1])}, one value per sample, got {tuple(epsilon.shape)}. "
            f"Draw it as torch.rand({len(x)}, generator=rng)."
        )
    return epsilon.to(dtype).reshape(-1, *[1] * (x.ndim - 1))
