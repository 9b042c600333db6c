"""Structural similarity of images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5
_PAIRS_AT_ONCE = 256


def ms_ssim(x: Tensor, y: Tensor, *, scales: int | None = None) -> Tensor:
    r"""Multi-scale structural similarity of pairs of images: 1 for equal ones, near 0 for unrelated ones.

    $$\text{SSIM}_M^{w_M} \prod_{j < M} \text{CS}_j^{w_j}, \qquad
    \text{CS} = \frac{2 \sigma_{xy} + C_2}{\sigma_x^2 + \sigma_y^2 + C_2}, \qquad
    \text{SSIM} = \frac{2 \mu_x \mu_y + C_1}{\mu_x^2 + \mu_y^2 + C_1} \text{CS}$$

    Moments are taken under a Gaussian window of 11 pixels that never leaves the image, CS and SSIM are averaged over
    the image, and each scale halves the one before. The authors use five scales, which asks for sides of 176 pixels.
    Smaller images take as many as leave a window in the coarsest, with the authors' weights of these scales, rescaled
    to add up to 1: one below 22 pixels, then two, three from 44, four from 88. Compare values of one image size only.

    Anticorrelated images have a negative CS, which has no power; it counts as 0. Channels are averaged.

    Args:
        x: First images.
        y: Second images.
        scales: Number of scales; as many as fit, up to five, by default.

    Shape:
        - `x`, `y`: `(N, C, H, W)`, uint8. Output: `(N,)`, float32.

    Raises:
        ValueError: If shapes or types do not fit, or the images are too small for so many scales.

    Examples:
        >>> x = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
        >>> ms_ssim(x, x)
        tensor([1.])

    References:
        Wang, Simoncelli and Bovik 2003, "Multiscale structural similarity for image quality assessment".
    """
    if x.shape != y.shape or x.ndim != 4 or x.dtype != torch.uint8 or y.dtype != torch.uint8:
        raise ValueError(
            f"x and y must be uint8 images of one shape (N, C, H, W), got {x.dtype} {tuple(x.shape)} and {y.dtype} "
            f"{tuple(y.shape)}. Convert images in [-1, 1] with condgan.images.to_uint8."
        )
    most = ms_ssim_scales(tuple(x.shape))
    count = most if scales is None else scales
    if not 1 <= count <= most:
        raise ValueError(
            f"scales must be in [1, {most}] for images of {x.shape[2]} x {x.shape[3]} pixels, got {count}. The "
            f"coarsest scale needs sides of at least {_WINDOW} pixels."
        )
    weights = torch.tensor(_WEIGHTS[:count]) / sum(_WEIGHTS[:count])
    pairs = zip(x.split(_PAIRS_AT_ONCE), y.split(_PAIRS_AT_ONCE), strict=True)
    return torch.cat([_ms_ssim(a.float(), b.float(), weights.to(a.device)) for a, b in pairs])


def ms_ssim_scales(image_shape: tuple[int, ...]) -> int:
    """Return how many scales, up to five, leave a window of 11 pixels in the coarsest.

    Raises:
        ValueError: If a side is shorter than the window.

    Examples:
        >>> [ms_ssim_scales((1, side, side)) for side in (16, 32, 64, 224)]
        [1, 2, 3, 5]
    """
    side = min(image_shape[-2:])
    if side < _WINDOW:
        raise ValueError(f"images must have sides of at least {_WINDOW} pixels for the MS-SSIM, got {side}.")
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
    """Return the Gaussian windows along one side, a row for each place: products with it beat a convolution here."""
    at = torch.arange(_WINDOW, device=device) - _WINDOW // 2
    window = torch.softmax(-at.square() / (2 * _SIGMA**2), 0)
    return F.conv1d(torch.eye(side, device=device)[:, None], window[None, None])[:, 0].T
