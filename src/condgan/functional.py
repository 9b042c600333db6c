"""The mathematics of losses and penalties, unweighted, as functions of tensors.

Every function returns a scalar unless it says otherwise, and reduces in
`torch.promote_types(dtype, torch.float32)`: bfloat16 scores are averaged in float32, float64 stays float64. The
weighted terms that a trainer adds up are in `condgan.losses` and `condgan.regularizers`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from condgan.types import CriticOutput

__all__ = [
    "class_cross_entropy",
    "dragan_penalty",
    "gradient_penalty",
    "hinge_critic",
    "hinge_generator",
    "interpolate",
    "least_squares_critic",
    "least_squares_generator",
    "minimax_critic",
    "minimax_generator",
    "r1",
    "r2",
    "relativistic_critic",
    "relativistic_generator",
    "wasserstein_critic",
    "wasserstein_generator",
]

CriticFunction = Callable[[Tensor, Tensor | None], CriticOutput]
"""A critic, or anything that is called like one: samples and their labels in, a `CriticOutput` out."""


def minimax_critic(real_score: Tensor, fake_score: Tensor) -> Tensor:
    r"""Return the critic's side of the minimax game on scores that are logits.

    $$-\mathbb{E}\log\sigma(D(x)) - \mathbb{E}\log(1 - \sigma(D(\tilde x)))$$

    Args:
        real_score: Scores of real samples.
        fake_score: Scores of generated samples.

    Shape:
        - `real_score`, `fake_score`: `(N,)`; their lengths may differ.
        - Returns: `()`, at least 0.

    Raises:
        ValueError: If a score is not of shape `(N,)`.

    Examples:
        >>> minimax_critic(torch.zeros(4), torch.zeros(4))
        tensor(1.3863)

    References:
        Goodfellow et al. 2014, arXiv:1406.2661, equation 1, negated.
    """
    real_score, fake_score = _scores(real_score=real_score, fake_score=fake_score)
    return F.softplus(-real_score).mean() + F.softplus(fake_score).mean()


def minimax_generator(fake_score: Tensor, *, saturating: bool = False) -> Tensor:
    r"""Return the generator's side of the minimax game on scores that are logits.

    $-\mathbb{E}\log\sigma(D(\tilde x))$, or with `saturating` the game itself,
    $\mathbb{E}\log(1 - \sigma(D(\tilde x)))$, whose gradient vanishes where the critic wins.

    Args:
        fake_score: Scores of generated samples.
        saturating: Minimize what the critic maximizes instead of the non-saturating loss.

    Shape:
        - `fake_score`: `(N,)`.
        - Returns: `()`, at least 0; at most 0 if `saturating`.

    Raises:
        ValueError: If the score is not of shape `(N,)`.

    Examples:
        >>> minimax_generator(torch.zeros(4)), minimax_generator(torch.zeros(4), saturating=True)
        (tensor(0.6931), tensor(-0.6931))

    References:
        Goodfellow et al. 2014, arXiv:1406.2661, equation 1 and section 3.
    """
    (fake_score,) = _scores(fake_score=fake_score)
    return -F.softplus(fake_score).mean() if saturating else F.softplus(-fake_score).mean()


def hinge_critic(real_score: Tensor, fake_score: Tensor) -> Tensor:
    r"""Return the critic's hinge loss, zero once every score is past its margin.

    $$\mathbb{E}\max(0, 1 - D(x)) + \mathbb{E}\max(0, 1 + D(\tilde x))$$

    Args:
        real_score: Scores of real samples.
        fake_score: Scores of generated samples.

    Shape:
        - `real_score`, `fake_score`: `(N,)`; their lengths may differ.
        - Returns: `()`, at least 0.

    Raises:
        ValueError: If a score is not of shape `(N,)`.

    Examples:
        >>> hinge_critic(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]))
        tensor(0.7500)

    References:
        Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, equation 16.
    """
    real_score, fake_score = _scores(real_score=real_score, fake_score=fake_score)
    return F.relu(1 - real_score).mean() + F.relu(1 + fake_score).mean()


def hinge_generator(fake_score: Tensor) -> Tensor:
    r"""Return the generator's side of the hinge game, $-\mathbb{E} D(\tilde x)$.

    Args:
        fake_score: Scores of generated samples.

    Shape:
        - `fake_score`: `(N,)`.
        - Returns: `()`, unbounded.

    Raises:
        ValueError: If the score is not of shape `(N,)`.

    Examples:
        >>> hinge_generator(torch.tensor([1.0, 3.0]))
        tensor(-2.)

    References:
        Miyato et al. 2018, arXiv:1802.05957, equation 17.
    """
    (fake_score,) = _scores(fake_score=fake_score)
    return -fake_score.mean()


def wasserstein_critic(real_score: Tensor, fake_score: Tensor) -> Tensor:
    r"""Return the critic's Wasserstein loss, $\mathbb{E} D(\tilde x) - \mathbb{E} D(x)$.

    Its negative estimates the Wasserstein-1 distance if the critic is 1-Lipschitz, which the loss does not enforce:
    add a `condgan.regularizers.GradientPenalty`.

    Args:
        real_score: Scores of real samples.
        fake_score: Scores of generated samples.

    Shape:
        - `real_score`, `fake_score`: `(N,)`; their lengths may differ.
        - Returns: `()`, unbounded.

    Raises:
        ValueError: If a score is not of shape `(N,)`.

    Examples:
        >>> wasserstein_critic(torch.tensor([4.0, 6.0]), torch.tensor([1.0, 3.0]))
        tensor(-3.)

    References:
        Arjovsky et al. 2017, arXiv:1701.07875, equation 2, negated.
    """
    real_score, fake_score = _scores(real_score=real_score, fake_score=fake_score)
    return fake_score.mean() - real_score.mean()


def wasserstein_generator(fake_score: Tensor) -> Tensor:
    r"""Return the generator's Wasserstein loss, $-\mathbb{E} D(\tilde x)$.

    Args:
        fake_score: Scores of generated samples.

    Shape:
        - `fake_score`: `(N,)`.
        - Returns: `()`, unbounded.

    Raises:
        ValueError: If the score is not of shape `(N,)`.

    Examples:
        >>> wasserstein_generator(torch.tensor([1.0, 3.0]))
        tensor(-2.)

    References:
        Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1.
    """
    (fake_score,) = _scores(fake_score=fake_score)
    return -fake_score.mean()


def least_squares_critic(real_score: Tensor, fake_score: Tensor) -> Tensor:
    r"""Return the critic's least-squares loss with targets 1 for real and 0 for generated samples.

    $$\tfrac12 \mathbb{E}(D(x) - 1)^2 + \tfrac12 \mathbb{E} D(\tilde x)^2$$

    Args:
        real_score: Scores of real samples.
        fake_score: Scores of generated samples.

    Shape:
        - `real_score`, `fake_score`: `(N,)`; their lengths may differ.
        - Returns: `()`, at least 0.

    Raises:
        ValueError: If a score is not of shape `(N,)`.

    Examples:
        >>> least_squares_critic(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0]))
        tensor(2.)

    References:
        Mao et al. 2017, arXiv:1611.04076, equation 9.
    """
    real_score, fake_score = _scores(real_score=real_score, fake_score=fake_score)
    return 0.5 * (real_score - 1).square().mean() + 0.5 * fake_score.square().mean()


def least_squares_generator(fake_score: Tensor) -> Tensor:
    r"""Return the generator's least-squares loss, $\tfrac12 \mathbb{E}(D(\tilde x) - 1)^2$.

    Args:
        fake_score: Scores of generated samples.

    Shape:
        - `fake_score`: `(N,)`.
        - Returns: `()`, at least 0.

    Raises:
        ValueError: If the score is not of shape `(N,)`.

    Examples:
        >>> least_squares_generator(torch.tensor([1.0, 3.0]))
        tensor(1.)

    References:
        Mao et al. 2017, arXiv:1611.04076, equation 9.
    """
    (fake_score,) = _scores(fake_score=fake_score)
    return 0.5 * (fake_score - 1).square().mean()


def relativistic_critic(real_score: Tensor, fake_score: Tensor) -> Tensor:
    r"""Return the critic's relativistic pairing loss: each real sample should score above its own generated one.

    $$\mathbb{E}\,\mathrm{softplus}(-(D(x) - D(\tilde x)))$$

    Args:
        real_score: Scores of real samples.
        fake_score: Scores of generated samples, row by row of the same class.

    Shape:
        - `real_score`, `fake_score`: `(N,)`.
        - Returns: `()`, at least 0.

    Raises:
        ValueError: If a score is not of shape `(N,)`, or the two differ in length.

    Examples:
        >>> relativistic_critic(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 5.0]))
        tensor(0.6931)

    References:
        Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441, equation 2.
    """
    real_score, fake_score = _paired_scores(real_score, fake_score)
    return F.softplus(fake_score - real_score).mean()


def relativistic_generator(real_score: Tensor, fake_score: Tensor) -> Tensor:
    r"""Return the generator's relativistic pairing loss, the critic's with the roles exchanged.

    $$\mathbb{E}\,\mathrm{softplus}(-(D(\tilde x) - D(x)))$$

    Args:
        real_score: Scores of real samples.
        fake_score: Scores of generated samples, row by row of the same class.

    Shape:
        - `real_score`, `fake_score`: `(N,)`.
        - Returns: `()`, at least 0.

    Raises:
        ValueError: If a score is not of shape `(N,)`, or the two differ in length.

    Examples:
        >>> relativistic_generator(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 5.0]))
        tensor(0.6931)

    References:
        Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441, equation 2.
    """
    real_score, fake_score = _paired_scores(real_score, fake_score)
    return F.softplus(real_score - fake_score).mean()


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
    logits = _precise(class_logits)
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


def interpolate(x: Tensor, x_fake: Tensor, epsilon: Tensor) -> Tensor:
    r"""Return points on the segments between paired samples, each at its own place.

    $$\hat x_i = \epsilon_i x_i + (1 - \epsilon_i) \tilde x_i$$

    Args:
        x: Samples reached at `epsilon` 1.
        x_fake: Samples reached at `epsilon` 0.
        epsilon: One place a sample. One for the whole batch would sample far fewer directions.

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
        epsilon: Places of the interpolates, one a sample, uniform in [0, 1).
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
        epsilon: Length of each perturbation, one a sample, uniform in [0, 1).
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
    return 0.5 * _precise(_input_gradient(critic, x, y)).square().sum(dim=1).mean()


def r2(critic: CriticFunction, x_fake: Tensor, y_fake: Tensor | None) -> Tensor:
    r"""Return half the mean squared norm of the critic's gradient at generated samples.

    $$R_2 = \tfrac12 \mathbb{E} \lVert \nabla_{\tilde x} D(\tilde x, y) \rVert_2^2$$

    The same function as `r1`, under the name that the place has in the literature.

    Args:
        critic: Maps samples and labels to a `CriticOutput`. Its score of a sample must not depend on the others.
        x_fake: Generated samples, which are detached.
        y_fake: Their labels; None without classes.

    Shape:
        - `x_fake`: `(N, *)`, floating point, any sample shape.
        - `y_fake`: `(N,)`, int64.
        - Returns: `()`, at least 0.

    Raises:
        ValueError: If the samples are not floating point, or the score does not depend on them.
        TypeError: If the critic does not return a `CriticOutput`.

    Examples:
        >>> def critic(x, y):
        ...     return CriticOutput(score=3 * x[:, 0] + 4 * x[:, 1])
        >>> r2(critic, torch.rand(8, 2), None)
        tensor(12.5000)

    References:
        Mescheder et al. 2018, arXiv:1801.04406, equation 10.
    """
    return r1(critic, x_fake, y_fake)


def _norm_penalty(
    critic: CriticFunction, x: Tensor, y: Tensor | None, *, target: float, one_sided: bool = False
) -> Tensor:
    if not target >= 0:
        raise ValueError(f"target must be at least 0, the smallest norm there is, got {target}.")
    gradient = _input_gradient(critic, x, y)
    # Unlike square().sum().sqrt(), vector_norm has the subgradient 0 at 0; the square root's infinite one makes NaN.
    excess = torch.linalg.vector_norm(gradient, dim=1, dtype=_precise_dtype(gradient)) - target
    return (F.relu(excess) if one_sided else excess).square().mean()


def _input_gradient(critic: CriticFunction, x: Tensor, y: Tensor | None) -> Tensor:
    """Return the gradient of each sample's score with respect to that sample, one row a sample."""
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
                f"The critic's score must have the shape {tuple(x.shape[:1])}, one value a sample, got "
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
            f"epsilon must have the shape {tuple(x.shape[:1])}, one value a sample, got {tuple(epsilon.shape)}. "
            f"Draw it as torch.rand({len(x)}, generator=rng)."
        )
    return epsilon.to(dtype).reshape(-1, *[1] * (x.ndim - 1))


def _scores(**scores: Tensor) -> list[Tensor]:
    for name, score in scores.items():
        if score.ndim != 1:
            raise ValueError(
                f"{name} must have the shape (N,), got {tuple(score.shape)}. A score of shape (N, 1) would broadcast "
                "silently: pass score.squeeze(1)."
            )
    return [_precise(score) for score in scores.values()]


def _paired_scores(real_score: Tensor, fake_score: Tensor) -> list[Tensor]:
    scores = _scores(real_score=real_score, fake_score=fake_score)
    if real_score.shape != fake_score.shape:
        raise ValueError(
            f"A relativistic loss pairs scores row by row, got {len(real_score)} real and {len(fake_score)} fake "
            "ones. Use the same batch size for both, with the labels of the real batch for the fake one."
        )
    return scores


def _precise(x: Tensor) -> Tensor:
    return x.to(_precise_dtype(x))


def _precise_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
