"""Nearest neighbours among images or their features, and duplicates within a set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from condgan.devices import plain_defaults
from condgan.files import check_tensors
from condgan.images import image_grid

_BLOCK = 2**24  # float64 numbers held at once: 128 MiB
_IMAGES_AT_ONCE = 256
_THUMBNAIL = 16


class Neighbors(NamedTuple):
    """The nearest references of each query, the nearest first.

    Shape:
        - `indices`: `(N, k)`, int64, rows of the references.
        - `distances`: `(N, k)`, float64, Euclidean.
    """

    indices: Tensor
    distances: Tensor


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Which images of a set repeat an earlier one, exactly or nearly.

    Args:
        original: For each image the index of the earliest kept image that it repeats; its own index if it repeats none.
        exact: Whether it repeats an earlier one bit by bit.
        tolerance: The largest root mean square difference that counts as a repetition, in the units of the samples.

    Shape:
        - `original`: `(N,)`, int64; `exact`: `(N,)`, bool.
    """

    original: Tensor
    exact: Tensor
    tolerance: float

    @property
    def near(self) -> Tensor:
        """Whether an image repeats an earlier one within the tolerance but not bit by bit: `(N,)`, bool."""
        return (self.original != torch.arange(len(self.original), device="cpu")) & ~self.exact

    @property
    def kept(self) -> Tensor:
        """Indices of the images that do not repeat an earlier one: `(M,)`, int64, ascending."""
        return (self.original == torch.arange(len(self.original), device="cpu")).nonzero().flatten()


def nearest_neighbors(
    queries: Tensor, references: Tensor, *, k: int = 1, groups: tuple[Tensor, Tensor] | None = None
) -> Neighbors:
    r"""Find the k references nearest to each query in Euclidean distance, block by block.

    Squared distances by $\lVert q \rVert^2 - 2 q^\top r + \lVert r \rVert^2$ choose the neighbours; the distances to
    these are then computed from the differences, so that equal samples have the distance 0 exactly.

    Args:
        queries: Features of the queries.
        references: Features of the references.
        k: Number of neighbours.
        groups: The group of each query and of each reference; references of a query's own group are left out. Pass
            `(torch.arange(N), torch.arange(N))` to exclude self-matches, or patients to exclude images of the same
            patient.

    Shape:
        - `queries`: `(N, D)`; `references`: `(M, D)`; the two `groups`: `(N,)` and `(M,)`, int64.

    Raises:
        ValueError: If shapes do not fit, or fewer than k references are left for a query.

    Examples:
        >>> nearest_neighbors(torch.tensor([[0.0], [5.0]]), torch.tensor([[1.0], [4.0], [9.0]]))
        Neighbors(indices=tensor([[0],
                [1]]), distances=tensor([[1.],
                [1.]], dtype=torch.float64))
    """
    _check_features(queries, references, k)
    q, r = centered(queries, references)
    lengths = r.square().sum(1)
    own, theirs = (None, None) if groups is None else groups
    rows = max(1, _BLOCK // (len(r) + k * r.shape[1]))
    indices, distances = [], []
    for start in range(0, len(q), rows):
        block = q[start : start + rows]
        squared = torch.addmm(lengths, block, r.T, alpha=-2.0)
        if own is not None and theirs is not None:
            squared.masked_fill_(own[start : start + rows, None] == theirs, torch.inf)
        nearest = squared.topk(k, largest=False)
        if nearest.values.isinf().any():
            raise ValueError(
                f"every query needs at least k={k} references of other groups, got fewer. Add references or lower k."
            )
        exact, order = (block[:, None] - r[nearest.indices]).norm(dim=2).sort(1)
        indices.append(nearest.indices.gather(1, order))
        distances.append(exact)
    return Neighbors(torch.cat(indices), torch.cat(distances))


def centered(queries: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sets in float64, shifted so that the references have the mean 0.

    Distances by matrix products lose what is small against the lengths of the vectors: in float32, features of spread
    0.01 around 100 would all be at the distance 0.

    Shape:
        - `queries`: `(N, D)`; `references`: `(M, D)`. Output: the same shapes.
    """
    center = references.double().mean(0)
    return queries.double() - center, references.double() - center


def neighbor_radii(features: Tensor, neighborhood: int) -> Tensor:
    """Return the distance of each row of `centered` features to its `neighborhood`-th nearest other row.

    The distances are those of `torch.cdist`, rounding included, so that comparisons with other distances of
    `torch.cdist` are consistent: a point on the edge of a closed ball is inside. Use `nearest_neighbors` for exact
    distances.

    Shape:
        - `features`: `(N, D)`. Output: `(N,)`.
    """
    return neighbor_radii_among(features, [torch.ones(len(features), dtype=torch.bool)], neighborhood)[0]


def neighbor_radii_among(features: Tensor, kept: Sequence[Tensor], neighborhood: int) -> Tensor:
    """Return `neighbor_radii` within several selections of the rows; values of rows outside of one are meaningless.

    Shape:
        - `features`: `(N, D)`; each of the J `kept`: `(N,)`, bool. Output: `(J, N)`.
    """
    radii = []
    for chunk in torch.split(features, max(1, _BLOCK // len(features))):
        distances = torch.cdist(chunk, features)
        # a row is its own nearest neighbor
        radii.append(torch.stack([distances[:, rows].kthvalue(neighborhood + 1).values for rows in kept]))
    return torch.cat(radii, 1)


def relative_distance(neighbors: Neighbors) -> Tensor:
    r"""Return the distance to the nearest reference as a share of the mean distance to the next ones.

    $$\frac{d_1}{\frac{1}{k - 1} \sum_{i=2}^k d_i}$$

    A copy is far nearer to one reference than to all others, so its relative distance is small. An image that is merely
    smooth, or common, is nearer to all references: its plain distance is small too, but not its relative distance.

    Shape:
        - Output: `(N,)`, in [0, 1]; 1 where all distances are 0.

    Raises:
        ValueError: If there is only one neighbour.

    References:
        Carlini et al. 2023, arXiv:2301.13188, who divide by half the mean distance to 50 neighbours.
    """
    if neighbors.distances.shape[1] < 2:
        raise ValueError(
            "neighbors must hold at least two neighbors of each query, got one. Pass a larger k to find them."
        )
    nearest, others = neighbors.distances[:, 0], neighbors.distances[:, 1:].mean(1)
    return torch.where(others > 0, nearest / others, 1.0)


def neighbor_grid(
    generated: Tensor, train: Tensor, neighbors: Neighbors, *, count: int = 8, columns: int = 3
) -> Tensor:
    """Return a sheet of the generated images that are most suspicious of being copies, beside their nearest neighbors.

    Rows are in the order of `relative_distance`, the smallest first: these are not typical images.

    Args:
        generated: The queries of `neighbors`, as images.
        train: The references, as images.
        neighbors: What `nearest_neighbors` found, at least two of each.
        count: Number of rows.
        columns: Number of neighbours in a row.

    Shape:
        - `generated`: `(N, C, H, W)`; `train`: `(M, C, H, W)`, uint8. Output: `(C, height, width)`, uint8.

    Examples:
        >>> images = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)
        >>> found = nearest_neighbors(images[:3].flatten(1), images.flatten(1), k=2)
        >>> neighbor_grid(images[:3], images, found, count=3).shape
        torch.Size([1, 32, 32])
    """
    rows = relative_distance(neighbors).argsort(stable=True)[:count]
    pictures = torch.cat([generated.cpu()[rows, None], train.cpu()[neighbors.indices[rows, :columns]]], 1)
    return image_grid(pictures.flatten(0, 1), columns=pictures.shape[1])


@plain_defaults()
def find_duplicates(samples: Tensor, *, tolerance: float = 2.0, retained: int = 0) -> Duplicates:
    r"""Find images that repeat an earlier one: equal bit by bit, or nearly so.

    Nearly means a root mean square difference of at most `tolerance` over all pixels. Two grey levels cover a second
    encoding of one image, but not a second image of one patient. Images are taken in order, and each is compared with
    those that are kept: of a series whose images resemble their neighbors, the kept ones differ by more than the
    tolerance, and each other one repeats one of them.

    Sums over windows of $s \times s$ pixels, divided by $s$, are never farther apart than the pixels are, so distances
    of such thumbnails rule out most pairs before pixels are compared.

    Args:
        samples: Images; or vectors, of which exact repetitions are found with `tolerance=0`.
        tolerance: The largest root mean square difference that counts, in the units of the samples.
        retained: Number of images at the beginning that stay whatever they repeat, such as test images before those for
            training: the later ones are compared with all of these.

    Shape:
        - `samples`: `(N, C, H, W)`, uint8, or `(N, D)`.

    Examples:
        >>> a, b = torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.full((1, 1, 8, 8), 100, dtype=torch.uint8)
        >>> found = find_duplicates(torch.cat([a, b, a, b + 1]))
        >>> found.original, found.exact.sum(), found.near.sum()
        (tensor([0, 1, 0, 1]), tensor(1), tensor(1))
    """
    check_tensors(samples=samples)
    samples = samples.detach().cpu()
    first: dict[bytes, int] = {}
    digests = (hashlib.sha256(sample.contiguous().numpy()).digest() for sample in samples)
    original = torch.tensor([first.setdefault(digest, index) for index, digest in enumerate(digests)])
    exact = original != torch.arange(len(samples))
    if tolerance > 0:
        distinct = (~exact).nonzero().flatten()
        earliest = _earliest_within(samples[distinct], tolerance, int((distinct < retained).sum()))
        repeated = torch.empty_like(original).index_copy_(0, distinct, distinct[earliest])
        original = repeated[original]
    return Duplicates(original, exact, tolerance)


def _earliest_within(samples: Tensor, tolerance: float, retained: int) -> Tensor:
    """Return the earliest kept sample within the tolerance of each sample, or itself; the first `retained` are kept."""
    size = samples[0].numel()
    radius, at_once = tolerance**2 * size, max(1, _BLOCK // size)
    thumbnails = torch.cat([_thumbnails(part) for part in samples.split(_IMAGES_AT_ONCE)])
    thumbnails -= thumbnails.mean(0)
    earliest = torch.arange(len(samples))
    kept = earliest[:0]
    for block in earliest.clone().split(min(_IMAGES_AT_ONCE, at_once)):
        known = torch.cat([kept, block])
        close = _squared_distances(thumbnails[block], thumbnails[known]) <= 1.001 * radius + 1e-6
        close &= known < block[:, None]
        rows, columns = close.any(1).nonzero().flatten(), close.any(0).nonzero().flatten()
        for part in columns.split(at_once):
            squared = _squared_distances(samples[block[rows]].flatten(1), samples[known[part]].flatten(1))
            close[rows[:, None], part] &= squared <= radius
        stays = torch.ones(len(known), dtype=torch.bool)
        for row in rows.tolist():
            hits = known[close[row] & stays]
            if len(hits):
                earliest[block[row]] = hits[0]
                stays[len(kept) + row] = block[row] < retained
        kept = known[stays]
    return earliest


def _squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Return squared Euclidean distances in float64, of uint8 without rounding: all terms are whole numbers."""
    rows, columns = rows.double(), columns.double()
    return torch.addmm(columns.square().sum(1), rows, columns.T, alpha=-2.0) + rows.square().sum(1)[:, None]


def _thumbnails(samples: Tensor) -> Tensor:
    if samples.ndim != 4:
        return samples.flatten(1).double()
    side = max(1, min(samples.shape[2:]) // _THUMBNAIL)
    return (side * F.avg_pool2d(samples.double(), side)).flatten(1)


def _check_features(queries: Tensor, references: Tensor, k: int) -> None:
    check_tensors(queries=queries, references=references)
    if queries.ndim != 2 or references.ndim != 2 or queries.shape[1] != references.shape[1]:
        raise ValueError(
            f"queries and references must be features of the shapes (N, D) and (M, D), got {tuple(queries.shape)} and "
            f"{tuple(references.shape)}. Turn images into features with to_features, both by the same extractor."
        )
    if not 1 <= k <= len(references):
        raise ValueError(f"k must be in [1, {len(references)}], the number of references, got {k}.")
