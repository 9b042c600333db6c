r"""How far a fidelity score would move with other images: linearizations and jackknives over whole groups.

Everything here is a `Deviations`: for each side that was sampled (generated, train, test) one number for each of its
groups, and the sum of all squares is the variance of the score. Deviations of scores on the same groups add and
subtract as the scores do, which is what makes the difference of two scores against one test set a paired one.

- KID, FID and the Inception Score are smooth, so the influence of each image is summed over its group. For the KID,
  a U-statistic, this is the jackknife but for terms of higher order; like it, it is a little too wide where the KID
  is near 0, never too narrow.
- Precision, recall, density and coverage depend on balls that other images shape, which their influences miss: with
  them, the worst intervals in simulations were less than half as wide as they should be. Leaving out one block of
  groups at a time takes the balls along, and is too wide rather than too narrow (Efron and Stein 1981).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

import torch
from torch import Tensor

from condgan.metrics.fidelity import neighbor_radii
from condgan.metrics.statistics import Estimate

Deviations = dict[str, Tensor]

_BLOCK = 2**24  # kernel values or distances held at once


def combine(terms: Iterable[tuple[float, Deviations]]) -> Deviations:
    """Return the deviations of a weighted sum of scores. Sides of one name are the same groups in the same order."""
    total: Deviations = {}
    for weight, deviations in terms:
        for side, values in deviations.items():
            total[side] = total[side] + weight * values if side in total else weight * values
    return total


def interval(value: float, deviations: Deviations, *, level: float) -> Estimate:
    """Return a value with its normal interval."""
    error = math.sqrt(sum(float(values.square().sum()) for values in deviations.values()))
    width = NormalDist().inv_cdf((1 + level) / 2) * error
    return Estimate(value, value - width, value + width, level)


def group_deviations(influence: Tensor, owners: Tensor) -> Tensor:
    r"""Sum the influences of the images of each group.

    Shape:
        - `influence`: `(N,)`: the influence function of the score at each image, up to a constant.
        - `owners`: `(N,)`, int64 in `[0, G)`. Output: `(G,)`, float64.
    """
    count = int(owners.max()) + 1
    centered = (influence.double() - influence.double().mean()) / len(influence)
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, owners, centered)
    return sums * math.sqrt(count / (count - 1))


def kid_influence(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the influence of each row of both sets on their KID from all pairs.

    Shape:
        - `x`: `(N, D)`; `y`: `(M, D)`. Output: `(N,)` and `(M,)`, float64.
    """
    within = [_kernel_means(x, x, itself=True), _kernel_means(y, y, itself=True)]
    across = [_kernel_means(x, y), _kernel_means(y, x)]
    return 2 * (within[0] - across[0]), 2 * (within[1] - across[1])


def _kernel_means(x: Tensor, y: Tensor, *, itself: bool = False) -> Tensor:
    """Return the mean kernel of each row of `x` with the rows of `y`, without itself where they are the same."""
    sums = []
    for chunk in torch.split(x, max(1, _BLOCK // len(y))):
        kernel = (chunk @ y.T / x.shape[1] + 1) ** 3
        sums.append(kernel.sum(1, dtype=torch.float64))
    total = torch.cat(sums)
    if not itself:
        return total / len(y)
    return (total - (x.square().sum(1).double() / x.shape[1] + 1) ** 3) / (len(y) - 1)


def fid_influence(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the influence of each row of both sets on their FID.

    With centered rows $X = Q_1 R_1$ and $Y = Q_2 R_2$ of $N$ and $M$ images, the trace of
    $(\Sigma_1 \Sigma_2)^{1/2}$ is the sum $\nu$ of the singular values of $R_1 R_2^\top = U S V^\top$ over
    $\sqrt{(N - 1) (M - 1)}$. To first order, weight on row $i$ raises $\nu$ by half of
    $N (Q_1 U S U^\top Q_1^\top)_{ii}$, over the second root.

    Shape:
        - `x`: `(N, D)`; `y`: `(M, D)`. Output: `(N,)` and `(M,)`, float64.
    """
    x, y = x.double(), y.double()
    shift = x.mean(0) - y.mean(0)
    x, y = x - x.mean(0), y - y.mean(0)
    (q1, r1), (q2, r2) = torch.linalg.qr(x), torch.linalg.qr(y)
    u, s, vh = torch.linalg.svd(r1 @ r2.T, full_matrices=False)
    s = s / math.sqrt((len(x) - 1) * (len(y) - 1))
    return (
        2 * x @ shift + x.square().sum(1) - len(x) * ((q1 @ u).square() @ s),
        -2 * y @ shift + y.square().sum(1) - len(y) * ((q2 @ vh.T).square() @ s),
    )


def inception_influence(logits: Tensor) -> Tensor:
    """Return the influence of each row of logits on the Inception Score of all.

    Shape:
        - `logits`: `(N, K)`. Output: `(N,)`, float64.
    """
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    divergence = (p * (log_p - p.mean(0).log())).nan_to_num(0.0).sum(1)
    return divergence.mean().exp() * divergence


def neighborhood_deviations(
    x: Tensor, y: Tensor, x_blocks: Tensor, y_blocks: Tensor, *, narrow: int, wide: int
) -> tuple[Tensor, Tensor]:
    """Jackknife precision, recall, density and coverage over blocks of images.

    Args:
        x: Features of generated images.
        y: Features of real images.
        x_blocks: Block of each row of `x`; a group lies in one block.
        y_blocks: Block of each row of `y`.
        narrow: Neighborhood of precision and recall.
        wide: Neighborhood of density and coverage.

    Shape:
        - `x`: `(N, D)`; `y`: `(M, D)`; `x_blocks`, `y_blocks`: `(N,)` and `(M,)`, int64 in `[0, J)`.
        - Output: deviations of the four scores, by block of `x` and by block of `y`, each `(J, 4)`, float64.
    """
    x_radii, y_radii, y_wide = neighbor_radii(x, narrow), neighbor_radii(y, narrow), neighbor_radii(y, wide)
    distances = torch.cdist(x, y)
    without_x = [
        neighborhood_scores(distances[kept], radii[kept], y_radii, y_wide, wide=wide)
        for kept, radii in _radii_without(x, x_blocks, narrow)
    ]
    without_y = [
        neighborhood_scores(distances[:, kept], x_radii, radii[kept], wider[kept], wide=wide)
        for (kept, radii), (_, wider) in zip(
            _radii_without(y, y_blocks, narrow), _radii_without(y, y_blocks, wide), strict=True
        )
    ]
    return _jackknife(torch.stack(without_x)), _jackknife(torch.stack(without_y))


def _radii_without(x: Tensor, blocks: Tensor, neighborhood: int) -> list[tuple[Tensor, Tensor]]:
    """Return for each block which rows lie outside, and the radii of all among them (those inside are not used)."""
    kept = [blocks != block for block in range(int(blocks.max()) + 1)]
    radii = []
    for chunk in torch.split(x, max(1, _BLOCK // len(x))):
        distances = torch.cdist(chunk, x)
        radii.append(torch.stack([distances[:, rows].kthvalue(neighborhood + 1).values for rows in kept]))
    return list(zip(kept, torch.cat(radii, 1), strict=True))


def neighborhood_scores(distances: Tensor, x_radii: Tensor, y_radii: Tensor, y_wide: Tensor, *, wide: int) -> Tensor:
    """Return precision, recall, density and coverage from distances and the radii of all balls.

    Shape:
        - `distances`: `(N, M)`; `x_radii`: `(N,)`; `y_radii`, `y_wide`: `(M,)`. Output: `(4,)`, float64.
    """
    return torch.stack(
        [
            (distances <= y_radii).any(1).double().mean(),
            (distances <= x_radii[:, None]).any(0).double().mean(),
            (distances <= y_wide).sum() / torch.tensor(wide * len(distances), dtype=torch.float64),
            (distances.amin(0) <= y_wide).double().mean(),
        ]
    )


def _jackknife(values: Tensor) -> Tensor:
    count = len(values)
    return (values - values.mean(0)) * math.sqrt((count - 1) / count)
