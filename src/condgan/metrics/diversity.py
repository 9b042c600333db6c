"""How different the generated images of a class are from each other: MS-SSIM, feature distances, near-duplicates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from condgan.data.dataset import check_same_classes
from condgan.devices import plain_defaults
from condgan.files import check_tensors
from condgan.metrics.extractors import ExtractorInfo, ImagesInfo, describe, to_features
from condgan.metrics.neighbors import nearest_neighbors
from condgan.types import JudgedImages

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5
_PAIRS_AT_ONCE = 256
_FEWEST = 10
_ONE_SIDED = 1.645  # 95 % of a normal distribution lie below


@dataclass(frozen=True, slots=True)
class MeanWithError:
    """A mean and its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Diversity:
    """How different the images of one class of one set are from each other.

    Args:
        images: Number of images.
        groups: Number of groups (patients) they come from.
        pairs: Number of pairs compared, each of two groups.
        ms_ssim: Mean MS-SSIM of the pairs.
        distance: Mean distance between the features of the pairs.
        nearest: Mean distance of an image to the nearest one of another group, among `compared` images.
        compared: Number of images among which the nearest was searched.
    """

    images: int
    groups: int
    pairs: int
    ms_ssim: MeanWithError
    distance: MeanWithError
    nearest: MeanWithError
    compared: int


@dataclass(frozen=True, slots=True)
class ClassDiversity:
    """Diversity of the generated images of a class and that of the real ones.

    Args:
        generated: The generated images.
        real: The real images.
        collapsed: Whether one of the rules of `diversity_report` holds.
        explanation: The ratios of the rules that hold, or of all if none does.
    """

    generated: Diversity
    real: Diversity
    collapsed: bool
    explanation: str


@dataclass(frozen=True, slots=True)
class DiversitySettings:
    """Everything that a `DiversityReport` depends on: arguments of `diversity_report`, and the images.

    Args:
        pairs: Largest number of pairs per class and side.
        margin: How much less diverse than real images counts as collapsed.
        ms_ssim_scales: Number of scales of the MS-SSIM at this image size.
        seed: Seed of the pairs.
        generated: The generated images.
        real: The real images.
    """

    pairs: int
    margin: float
    ms_ssim_scales: int
    seed: int
    generated: ImagesInfo
    real: ImagesInfo


@dataclass(frozen=True, slots=True)
class DiversityReport:
    """Diversity of every class.

    Args:
        extractor: What the features are.
        per_class: The classes by name.
        settings: Everything the numbers depended on.
    """

    extractor: ExtractorInfo
    per_class: dict[str, ClassDiversity]
    settings: DiversitySettings

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Names of the classes that have collapsed."""
        return tuple(name for name, found in self.per_class.items() if found.collapsed)


@plain_defaults()
def diversity_report(
    generated: JudgedImages,
    real: JudgedImages,
    extractor: Callable[[Tensor], Tensor] | None = None,
    *,
    pairs: int = 1000,
    margin: float = 0.5,
    seed: int = 0,
) -> DiversityReport:
    r"""Compare how different generated images of a class are from each other with how different real ones are.

    There are three numbers per class: the mean MS-SSIM $s$ of random pairs, the mean feature distance $d$ of the same
    pairs, and the mean distance $e$ to the nearest other image, among equally many images on both sides. The images of
    a pair, and an image and its neighbour, are of different patients.

    A class has *collapsed* if at least one of three ratios to the real images, each 1 for a perfect generator, is
    below $1 -$ `margin` by more than its uncertainty (one-sided, 95 %):

    - $(1 - s) / (1 - s_\text{real})$: pairs look alike.
    - $d / d_\text{real}$: the features of pairs lie close together.
    - $(e / d) / (e_\text{real} / d_\text{real})$: images have near-duplicates, as when the generator returns a handful
      of images, which random pairs seldom show. The division by $d$ corrects for smooth images, which are near to all
      others.

    With a margin of one half, blurred images and averages of two images of a class are not called collapsed, averages
    of five are. Standard errors of means over pairs include the covariance of pairs that share a patient; those of $e$
    treat its images as independent.

    Args:
        generated: Images of the generator with the labels they were asked for.
        real: Real images of the same classes.
        extractor: Maps uint8 images to features. Without one, the pixels are the features.
        pairs: Largest number of pairs per class and side.
        margin: How much less diverse than real images counts as collapsed, between 0 and 1.
        seed: Seed of the pairs.

    Raises:
        ValueError: If classes or image shapes differ, images are too small or not uint8, or a class has fewer than
            ten groups on a side.

    References:
        Odena et al. 2017, arXiv:1610.09585 (MS-SSIM within a class); Aronow, Samii and Assenova 2015, arXiv:1312.3398
        (variance of means over pairs); Arora and Zhang 2017, arXiv:1706.08224 (near-duplicates show a small support).
    """
    check_same_classes("generated", generated, "the real images", real.class_names, real.image_shape)
    if not 0 < margin < 1 or pairs < 1:
        raise ValueError(f"margin must lie between 0 and 1 and pairs be at least 1, got {margin} and {pairs}.")
    rng = torch.Generator().manual_seed(seed)
    fakes, reals = (to_features(data.images, extractor) for data in (generated, real))
    per_class = {}
    for label, name in enumerate(generated.class_names):
        compared = min(generated.class_counts[label], real.class_counts[label])
        ours = _diversity_of_class(generated, fakes, label, pairs, compared, rng)
        theirs = _diversity_of_class(real, reals, label, pairs, compared, rng)
        per_class[name] = _compare_class(ours, theirs, margin)
    settings = DiversitySettings(
        pairs=pairs,
        margin=margin,
        ms_ssim_scales=ms_ssim_scales(generated.image_shape),
        seed=seed,
        generated=ImagesInfo.of(generated),
        real=ImagesInfo.of(real),
    )
    return DiversityReport(describe(extractor), per_class, settings)


def _diversity_of_class(
    data: JudgedImages, features: Tensor, label: int, pairs: int, compared: int, rng: torch.Generator
) -> Diversity:
    rows = (data.labels.cpu() == label).nonzero().flatten()
    owner = torch.arange(len(data.labels)) if data.groups is None else data.groups.cpu()
    distinct = len(owner[rows].unique())
    if distinct < _FEWEST:
        raise ValueError(
            f"every class needs at least {_FEWEST} {'images' if data.groups is None else 'groups (patients)'}, got "
            f"{distinct} of {data.class_names[label]}. Fewer do not show how diverse a class is: add images."
        )
    order = rows[torch.randperm(len(rows), generator=rng)]
    # pair each image with the next ones in a random circle: no pair occurs twice, and each image equally often
    rounds = min(math.ceil(pairs / len(order)), (len(order) - 1) // 2)
    first = order.repeat(rounds)
    second = torch.cat([order.roll(-shift) for shift in range(1, rounds + 1)])
    chosen = (owner[first] != owner[second]).nonzero().flatten()[:pairs]
    first, second = first[chosen], second[chosen]
    images = data.images.cpu()
    similarity = ms_ssim(images[first], images[second]).double()
    distance = (features[first] - features[second]).norm(dim=1)
    among = order[:compared]
    nearest = nearest_neighbors(features[among], features[among], groups=(owner[among], owner[among])).distances
    return Diversity(
        images=len(rows),
        groups=distinct,
        pairs=len(first),
        ms_ssim=_mean_over_pairs(similarity, owner[first], owner[second]),
        distance=_mean_over_pairs(distance, owner[first], owner[second]),
        nearest=MeanWithError(float(nearest.mean()), float(nearest.std()) / math.sqrt(compared)),
        compared=compared,
    )


def _mean_over_pairs(values: Tensor, first: Tensor, second: Tensor) -> MeanWithError:
    residual = values - values.mean()
    _, members = torch.cat([first, second]).unique(return_inverse=True)
    of_group = torch.zeros(int(members.max()) + 1, dtype=torch.float64).index_add(0, members, residual.repeat(2))
    # sum over all ordered pairs of pairs that share a group; a pair and itself share two, and are counted twice
    own = residual.square().sum()
    variance = torch.maximum(of_group.square().sum() - own, own) / len(values) ** 2
    return MeanWithError(float(values.mean()), float(variance.sqrt()))


def _compare_class(generated: Diversity, real: Diversity, margin: float) -> ClassDiversity:
    unlike = [MeanWithError(1 - side.ms_ssim.value, side.ms_ssim.standard_error) for side in (generated, real)]
    twins = [_ratio(side.nearest, side.distance) for side in (generated, real)]
    ratios = {
        "pairs look {:.0%} as different (1 - MS-SSIM)": _ratio(*unlike),
        "features of pairs lie {:.0%} as far apart": _ratio(generated.distance, real.distance),
        "for that spread, the nearest other image is {:.0%} as far away": _ratio(*twins),
    }
    low = [
        text.format(ratio.value)
        for text, ratio in ratios.items()
        if ratio.value + _ONE_SIDED * ratio.standard_error < 1 - margin
    ]
    found = low or [text.format(ratio.value) for text, ratio in ratios.items()]
    explanation = (
        f"{'Collapsed' if low else 'Not collapsed'}: compared with real images, {'; '.join(found)}. A class has "
        f"collapsed if one of the three is surely below {1 - margin:.0%}."
    )
    return ClassDiversity(generated, real, bool(low), explanation)


def _ratio(part: MeanWithError, whole: MeanWithError) -> MeanWithError:
    """Return the ratio of two means, its error by the delta method for independent ones; 1 where the whole is 0."""
    if whole.value == 0:
        return MeanWithError(1.0, 0.0)
    value = part.value / whole.value
    return MeanWithError(value, math.hypot(part.standard_error, value * whole.standard_error) / whole.value)


@plain_defaults()
def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    r"""Multi-scale structural similarity of pairs of images: 1 for equal ones, near 0 for unrelated ones.

    $$\text{SSIM}_M^{w_M} \prod_{j < M} \text{CS}_j^{w_j}, \qquad
    \text{CS} = \frac{2 \sigma_{xy} + C_2}{\sigma_x^2 + \sigma_y^2 + C_2}, \qquad
    \text{SSIM} = \frac{2 \mu_x \mu_y + C_1}{\mu_x^2 + \mu_y^2 + C_1} \text{CS}$$

    Moments are weighted by a Gaussian window of 11 pixels that stays inside the image, CS and SSIM are averaged over
    the image, and each scale has half the size of the one before. The authors use five scales, which requires sides of
    176 pixels. Smaller images have as many scales as leave room for a window in the coarsest, with the authors' weights
    of these scales, rescaled to add up to 1: one below 22 pixels, then two, three from 44, four from 88. Compare values
    of one image size only.

    Anticorrelated images have a negative CS, which has no real power; it counts as 0. Channels are averaged.

    Args:
        x: First images.
        y: Second images.

    Shape:
        - `x`, `y`: `(N, C, H, W)`, uint8. Output: `(N,)`, float32.

    Raises:
        ValueError: If shapes or types do not fit, or a side is shorter than the window.

    Examples:
        >>> x = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
        >>> ms_ssim(x, x)
        tensor([1.])

    References:
        Wang, Simoncelli and Bovik 2003, "Multiscale structural similarity for image quality assessment".
    """
    check_tensors(x=x, y=y)
    if x.shape != y.shape or x.ndim != 4 or x.dtype != torch.uint8 or y.dtype != torch.uint8:
        raise ValueError(
            f"x and y must be uint8 images of one shape (N, C, H, W), got {x.dtype} {tuple(x.shape)} and {y.dtype} "
            f"{tuple(y.shape)}. Convert images in [-1, 1] with condgan.images.to_uint8."
        )
    count = ms_ssim_scales(tuple(x.shape))
    weights = torch.tensor(_WEIGHTS[:count]) / sum(_WEIGHTS[:count])
    pairs = zip(x.split(_PAIRS_AT_ONCE), y.split(_PAIRS_AT_ONCE), strict=True)
    return torch.cat([_ms_ssim(a.float(), b.float(), weights.to(a.device)) for a, b in pairs])


def ms_ssim_scales(image_shape: tuple[int, ...]) -> int:
    """Return the largest number of scales, up to five, whose coarsest has room for a window of 11 pixels.

    Raises:
        ValueError: If a side is shorter than the window.

    Examples:
        >>> [ms_ssim_scales((1, side, side)) for side in (16, 32, 64, 224)]
        [1, 2, 3, 5]
    """
    side = min(image_shape[-2:])
    if side < _WINDOW:
        raise ValueError(
            f"images must have sides of at least {_WINDOW} pixels for the MS-SSIM, got {side}. Use larger images."
        )
    return min(len(_WEIGHTS), (side // _WINDOW).bit_length())


def _ms_ssim(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    a, b = x.flatten(0, 1), y.flatten(0, 1)
    result = torch.ones(len(a), device=x.device)
    for scale, weight in enumerate(weights):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        down, across = (_windows(side, x.device) for side in a.shape[1:])
        mean_a, mean_b, aa, bb, ab = (down @ moment @ across.T for moment in (a, b, a * a, b * b, a * b))
        similarity = (2 * (ab - mean_a * mean_b) + c2) / ((aa - mean_a**2) + (bb - mean_b**2) + c2)
        if scale == len(weights) - 1:
            similarity = similarity * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        result = result * similarity.mean((1, 2)).clamp_min(0.0) ** weight
    return result.view(x.shape[:2]).mean(1)


def _windows(side: int, device: torch.device) -> Tensor:
    """Return the Gaussian windows along one side, one row per position: multiplying by it is faster than convolving."""
    at = torch.arange(_WINDOW, device=device) - _WINDOW // 2
    window = torch.softmax(-at.square() / (2 * _SIGMA**2), 0)
    return F.conv1d(torch.eye(side, device=device)[:, None], window[None, None])[:, 0].T
