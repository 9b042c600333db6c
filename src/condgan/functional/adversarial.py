"""Adversarial losses on scores."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from condgan.functional.precision import precise


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
        >>> import torch
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
        >>> import torch
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
        >>> import torch
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
        >>> import torch
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
        >>> import torch
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
        >>> import torch
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
        >>> import torch
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
        >>> import torch
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
        >>> import torch
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
        >>> import torch
        >>> relativistic_generator(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 5.0]))
        tensor(0.6931)

    References:
        Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441, equation 2.
    """
    real_score, fake_score = _paired_scores(real_score, fake_score)
    return F.softplus(real_score - fake_score).mean()


def _scores(**scores: Tensor) -> list[Tensor]:
    for name, score in scores.items():
        if score.ndim != 1:
            raise ValueError(
                f"{name} must have the shape (N,), got {tuple(score.shape)}. A score of shape (N, 1) would broadcast "
                "silently: pass score.squeeze(1)."
            )
    return [precise(score) for score in scores.values()]


def _paired_scores(real_score: Tensor, fake_score: Tensor) -> list[Tensor]:
    scores = _scores(real_score=real_score, fake_score=fake_score)
    if real_score.shape != fake_score.shape:
        raise ValueError(
            f"A relativistic loss pairs scores row by row, got {len(real_score)} real and {len(fake_score)} fake "
            "ones. Use the same batch size for both, with the labels of the real batch for the fake one."
        )
    return scores
