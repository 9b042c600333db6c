"""Networks that turn images into the features on which metrics are computed."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from condgan.devices import best_device, plain_defaults
from condgan.files import as_path, check_names, check_tensors
from condgan.types import ImageShape, JudgedImages


@dataclass(frozen=True, slots=True)
class ExtractorInfo:
    """What identifies the features of an extractor, to be stated with every figure computed on them.

    Args:
        name: Name of the network and its layer.
        weights_hash: SHA-256 of the weights, as 16 hexadecimal digits, see `weights_hash`.
        resize: How images come to the size that the network takes, in words.
    """

    name: str
    weights_hash: str
    resize: str


@dataclass(frozen=True, slots=True)
class ImagesInfo:
    """Which images a report was computed on.

    Args:
        fingerprint: A digest of their content.
        images: Their number.
    """

    fingerprint: str
    images: int

    @classmethod
    def of(cls, data: JudgedImages) -> ImagesInfo:
        """Describe a data set."""
        return cls(data.fingerprint, len(data.labels))


class Extracted(NamedTuple):
    """Features of images, and class logits where the extractor has them; both on the CPU.

    Shape:
        - `features`: `(N, D)`, float32.
        - `logits`: `(N, K)`, float32, or None.
    """

    features: Tensor
    logits: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Extractor:
    """A network that maps uint8 images to features, in batches and without gradients.

    `module_extractor` makes one from any module; `inception`, `dinov2` and `clip` make published networks. Images of
    one channel are repeated for a network that takes three.

    Args:
        info: Name, weights and resize, for results.
        module: Maps a batch of uint8 images on its device to features `(N, D)`, or to a tuple of features and class
            logits.
        channels: Number of channels the module takes.
        batch_size: Number of images per batch; it limits the memory and does not change the features.
    """

    info: ExtractorInfo
    module: nn.Module
    channels: int
    batch_size: int = 64

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features alone, see `extract`.

        Shape:
            - `images`: `(N, C, H, W)`, uint8. Output: `(N, D)`, float32.
        """
        return self.extract(images).features

    @torch.no_grad()
    def extract(self, images: Tensor) -> Extracted:
        """Return features and logits of images.

        Shape:
            - `images`: `(N, C, H, W)`, uint8.

        Raises:
            ValueError: If images have another type, shape or number of channels, or the module returns no vectors.
            FloatingPointError: If a feature or logit is not finite.
        """
        check_tensors(images=images)
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
            raise ValueError(
                f"images must be uint8 of the shape (N, C, H, W), got {images.dtype} of the shape "
                f"{tuple(images.shape)}. Convert images in [-1, 1] with condgan.images.to_uint8."
            )
        if images.shape[1] not in (1, self.channels):
            raise ValueError(
                f"{self.info.name} takes images of {self.channels} channels, or of one that is repeated, got "
                f"{images.shape[1]}. Convert the images, or use another extractor."
            )
        self.module.eval()
        state = chain(self.module.parameters(), self.module.buffers())
        device = next((tensor.device for tensor in state), torch.device("cpu"))
        outputs = []
        for chunk in torch.split(images, self.batch_size):
            batch = chunk.to(device).expand(-1, self.channels, -1, -1).contiguous()
            outputs.append([part.float().cpu() for part in _as_parts(self.module(batch), len(batch), self.info.name)])
        parts = [torch.cat(batches) for batches in zip(*outputs, strict=True)]
        if not all(bool(torch.isfinite(part).all()) for part in parts):
            raise FloatingPointError(
                f"features must be finite, got NaN or infinite values from {self.info.name}. Its weights are broken, "
                "or its normalization does not fit the images."
            )
        return Extracted(parts[0], parts[1] if len(parts) == 2 else None)


def _as_parts(output: Any, count: int, name: str) -> tuple[Tensor, ...]:
    parts = tuple(output) if isinstance(output, (tuple, list)) else (output,)
    if len(parts) > 2 or any(not isinstance(p, Tensor) or p.ndim != 2 or len(p) != count for p in parts):
        got = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in parts]
        raise ValueError(
            f"{name} must map {count} images to features of the shape ({count}, D), or to features and logits, got "
            f"{got}. Pool over positions and flatten inside the module."
        )
    return parts


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A network and the real training images that it has not seen.

    Args:
        extractor: The network.
        held_out: Indices of the images of the patients that the network was not trained on.

    Shape:
        - `held_out`: `(M,)`, int64.
    """

    extractor: Extractor
    held_out: Tensor


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Extractors trained on the real training images themselves, each on all folds of patients but one.

    A network memorizes the images that it was trained on, so their features are not comparable with those of others.
    Features of different networks lie in different spaces and are never pooled: a metric is computed fold by fold, on
    images that the fold's network has not seen, and averaged.

    Args:
        folds: One network per fold; together their held-out images are the training set, each once.
        fingerprint: Fingerprint of the training set that `held_out` counts in.
    """

    folds: tuple[Fold, ...]
    fingerprint: str

    @property
    def info(self) -> ExtractorInfo:
        """Name and resize of the first network, and the hashes of all."""
        infos = [fold.extractor.info for fold in self.folds]
        name = f"{infos[0].name}, cross-fitted in {len(infos)} folds"
        return ExtractorInfo(name, "+".join(info.weights_hash for info in infos), infos[0].resize)


@plain_defaults()
def module_extractor(
    module: nn.Module,
    *,
    name: str,
    image_shape: ImageShape,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Extractor:
    r"""Make an extractor from any module, such as a network of torchvision without its head.

    The module sees $(u / 255 - \text{mean}) / \text{std}$ for uint8 images $u$, which is [-1, 1] by default. Images of
    another size are resized by antialiased bilinear interpolation. The module is copied: training it further does not
    change the extractor.

    Args:
        module: Maps float images to features `(N, D)`, or to a tuple of features and class logits `(N, K)`; only the
            Inception Score needs the logits.
        name: Name of the network and its weights, for results.
        image_shape: Channels, height and width that the module takes.
        mean: Mean to subtract, one number or one per channel, on a scale from 0 to 1.
        std: Standard deviation to divide by, likewise.
        batch_size: Number of images per batch.
        device: Where to compute. By default CUDA, then MPS, then the CPU.

    Raises:
        ValueError: If `mean` or `std` do not fit the channels, or `batch_size` is less than 1.

    Examples:
        >>> pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
        >>> extractor = module_extractor(pool, name="mean grey level", image_shape=(1, 8, 8))
        >>> extractor(torch.full((3, 1, 16, 16), 255, dtype=torch.uint8))
        tensor([[1., 1., 1., 1.],
                [1., 1., 1., 1.],
                [1., 1., 1., 1.]])
    """
    channels, height, width = image_shape
    for label, values in (("mean", mean), ("std", std)):
        if not isinstance(values, (int, float)) and len(values) != channels:
            raise ValueError(f"{label} must be one number or one for each of {channels} channels, got {len(values)}.")
    own = copy.deepcopy(module).requires_grad_(False).float()
    info = ExtractorInfo(name, weights_hash(own), f"to {height}x{width}, bilinear, antialiased")
    return _on_device(info, _Prepared(own, (height, width), mean, std), channels, batch_size, device)


class _Prepared(nn.Module):
    """A module with the resize and normalization that precede it."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, module: nn.Module, size: tuple[int, int], mean: float | Sequence[float], std: float | Sequence[float]
    ) -> None:
        super().__init__()
        self.module, self.size = module, size
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Any:
        x = images.float().div_(255)
        if tuple(x.shape[2:]) != self.size:
            x = nn.functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        return self.module((x - self.mean) / self.std)


def weights_hash(module: nn.Module) -> str:
    """Return the SHA-256 of the names and values of a module's weights and buffers, as 16 hexadecimal digits.

    It does not depend on the file they came from, on the device or on the memory layout.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(repr((name, tuple(value.shape), str(value.dtype))).encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _on_device(
    info: ExtractorInfo, module: nn.Module, channels: int, batch_size: int, device: torch.device | str | None
) -> Extractor:
    """Return an extractor whose module is on its device and in evaluation mode.

    Raises:
        ValueError: If `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    target = torch.device(device or best_device())
    return Extractor(info, module.to(target).eval(), channels, batch_size)


InceptionLayer = Literal["64", "192", "768", "2048"]


def inception(
    weights: str | Path | None = None,
    *,
    layer: InceptionLayer = "2048",
    allow_download: bool = False,
    batch_size: int = 32,
    device: torch.device | str | None = None,
) -> Extractor:
    """Make torch-fidelity's Inception v3, the network of the FID, KID and Inception Score of the literature.

    Its resize is that of the reference code: bilinear as in TensorFlow 1, without antialiasing.

    Args:
        weights: The file of torch-fidelity's release. By default the one in torch's hub folder, if it is there.
        layer: Which features to use. Those of the earlier layers with fewer features are pooled over positions.
        allow_download: Whether the file may be fetched into torch's hub folder if it is not there.
        batch_size: Number of images per batch.
        device: Where to compute. By default CUDA, then MPS, then the CPU.

    Raises:
        FileNotFoundError: If there is no file and none may be fetched; the message says where to get it.
        ConnectionError: If it cannot be fetched.
        ValueError: If the file does not hold the weights of this network, or an option is out of range.

    References:
        Heusel et al. 2017, arXiv:1706.08500 (FID); Szegedy et al. 2016, arXiv:1512.00567 (the network); Parmar et al.
        2022, arXiv:2104.11222 (why the resize matters).
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    path = _weights_file(weights, URL_INCEPTION_V3, hash_prefix="6726825d", allow_download=allow_download)
    _load_tensors(path)  # the constructor below would unpickle any object

    def build() -> Any:
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", [layer, "logits_unbiased"], feature_extractor_weights_path=str(path)
        )

    module = _build_from(build, path, "torch-fidelity's Inception v3; torchvision's is another network")
    info = ExtractorInfo(
        f"Inception v3, layer {layer}", weights_hash(module), _like_tensorflow(module.INPUT_IMAGE_SIZE)
    )
    return _on_device(info, module, 3, batch_size, device)


def clip(
    weights: str | Path | None = None,
    *,
    name: str = "clip-vit-b-32",
    allow_download: bool = False,
    batch_size: int = 32,
    device: torch.device | str | None = None,
) -> Extractor:
    """Make the image encoder of CLIP, through torch-fidelity.

    Args:
        weights: OpenAI's TorchScript archive. By default the one in torch's hub folder, if it is there.
        name: Which network, by torch-fidelity's name: `"clip-rn50"`, `"clip-vit-l-14"`, ...
        allow_download: Whether the file may be fetched into torch's hub folder if it is not there.
        batch_size: Number of images per batch.
        device: Where to compute. By default CUDA, then MPS, then the CPU.

    Raises:
        FileNotFoundError: If there is no file and none may be fetched; the message says where to get it.
        ConnectionError: If it cannot be fetched.
        ValueError: If there is no such network, the file is not such an archive, or an option is out of range.

    References:
        Radford et al. 2021, arXiv:2103.00020; Kynkäänniemi et al. 2023, arXiv:2203.06026 (CLIP features for FID).
    """
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, FeatureExtractorCLIP

    check_names("name", [name], MODEL_METADATA)
    digest = MODEL_METADATA[name]["hash"]
    path = _weights_file(
        weights, MODEL_URLS[name], file_name=f"{name}-{digest}.pt", hash_prefix=digest, allow_download=allow_download
    )

    def build() -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit")
            return FeatureExtractorCLIP(name, ["clip"], feature_extractor_weights_path=str(path), verbose=False)

    module = _build_from(build, path, f"OpenAI's TorchScript archive of {name}")
    info = ExtractorInfo(name, weights_hash(module), _like_tensorflow(module.resolution))
    return _on_device(info, module, 3, batch_size, device)


def dinov2(
    weights: str | Path | None = None,
    *,
    name: str = "dinov2-vit-s-14",
    repository: str | Path | None = None,
    allow_download: bool = False,
    batch_size: int = 32,
    device: torch.device | str | None = None,
) -> Extractor:
    """Make DINOv2, as torch-fidelity uses it.

    Its code is not part of any package: that of its authors' repository is run. Of these extractors its distances agree
    best with human judgment (Stein et al. 2023), on natural images.

    Args:
        weights: The file of the authors, such as `dinov2_vits14_pretrain.pth`.
        name: Which network, by torch-fidelity's name: `"dinov2-vit-s-14"`, `"dinov2-vit-b-14"`, ...
        repository: A clone of the authors' repository.
        allow_download: Whether what is not given may be fetched, and the fetched code run.
        batch_size: Number of images per batch.
        device: Where to compute. By default CUDA, then MPS, then the CPU.

    Raises:
        FileNotFoundError: If weights or repository are missing and may not be fetched; the message says where to get
            them.
        ConnectionError: If they cannot be fetched.
        ValueError: If there is no such network, the file does not hold its weights, or an option is out of range.

    References:
        Oquab et al. 2024, arXiv:2304.07193; Stein et al. 2023, arXiv:2306.04675.
    """
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA, FeatureExtractorDinoV2

    check_names("name", [name], MODEL_METADATA)
    model = MODEL_METADATA[name]
    missing = [f"{key}=" for key, value in (("weights", weights), ("repository", repository)) if value is None]
    if missing and not allow_download:
        raise FileNotFoundError(
            f"DINOv2 needs {' and '.join(missing)}. Clone https://github.com/facebookresearch/dinov2, get "
            f"https://dl.fbaipublicfiles.com/dinov2/{model}/{model}_pretrain.pth and pass both, or pass "
            "allow_download=True, which also runs the code it fetches."
        )
    for path in (weights, repository and as_path(repository) / "hubconf.py"):
        if path is not None and not as_path(path).exists():
            raise FileNotFoundError(f"expected weights and repository of DINOv2, but {path} does not exist.")
    state = None if weights is None else _load_tensors(as_path(weights))
    # as torch-fidelity does: otherwise the features would depend on whether xFormers is installed
    os.environ.setdefault("XFORMERS_DISABLED", "1")
    place, source = ("facebookresearch/dinov2", "github") if repository is None else (str(as_path(repository)), "local")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="xFormers")
            network = torch.hub.load(
                place, model, source=source, trust_repo=True, verbose=False, pretrained=state is None
            )
    except OSError as error:
        raise ConnectionError(
            f"fetching {model} failed: {error}. Get it another way and pass weights= and repository=."
        ) from error
    if state is not None:
        _build_from(lambda: network.load_state_dict(state), Path(weights or ""), model)

    class LocalDinoV2(FeatureExtractorDinoV2):  # type: ignore[misc]
        """Its base without its constructor, which can only download."""

        def __init__(self) -> None:
            FeatureExtractorBase.__init__(self, name, ["dinov2"])
            self.feature_extractor_internal_dtype = torch.float32
            self.model = network.float().requires_grad_(False)

    info = ExtractorInfo(name, weights_hash(network), _like_tensorflow(FeatureExtractorDinoV2.INPUT_IMAGE_SIZE))
    return _on_device(info, LocalDinoV2(), 3, batch_size, device)


def _weights_file(
    weights: str | Path | None, url: str, *, hash_prefix: str, allow_download: bool, file_name: str | None = None
) -> Path:
    """Return the given file, or the one in the hub folder, or fetch it there if that is allowed."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / (file_name or url.rsplit("/", 1)[-1])
    path = cached if weights is None else as_path(weights)
    if path.exists():
        return path
    if weights is not None or not allow_download:
        raise FileNotFoundError(
            f"the weights of the extractor are not at {path}. Get {url} and pass weights=<file> (or put it there), or "
            "pass allow_download=True without weights."
        )
    cached.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(cached), hash_prefix=hash_prefix, progress=False)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(f"fetching {url} failed: {error}. Get it another way and pass weights=<file>.") from error
    return cached


def _load_tensors(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} must hold a dictionary of tensors and nothing else, but cannot be read as one: {error}"
        ) from error


def _build_from(build: Callable[[], Any], path: Path, what: str) -> Any:
    try:
        return build()
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} must hold the weights of {what}, but does not fit: {str(error)[:300]}") from error


def _like_tensorflow(size: int) -> str:
    return f"to {size}x{size}, bilinear as in TensorFlow 1, not antialiased"


def to_features(samples: Tensor, extractor: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return one vector per sample: its features by the extractor, or its own values without one.

    Args:
        samples: Images, or vectors that are used as they are.
        extractor: Maps images to features; it is called on a few hundred images at a time.

    Shape:
        - `samples`: `(N, C, H, W)`, uint8, or `(N, *)`. Output: `(N, D)`, float64, on the CPU.

    Raises:
        ValueError: If the features are not a finite matrix with one row per sample.

    Examples:
        >>> to_features(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([4, 64])
    """
    check_tensors(samples=samples)
    with torch.no_grad():
        parts = [samples] if extractor is None else [extractor(part) for part in samples.split(256)]
        features = torch.cat([part.detach().cpu().flatten(1).double() for part in parts])
    if len(features) != len(samples) or not features.isfinite().all():
        raise ValueError(
            f"features must be finite, one row for each of {len(samples)} samples, got the shape "
            f"{tuple(features.shape)}{'' if features.isfinite().all() else ' with NaN or infinite values'}. Check the "
            "extractor and what it expects of its images."
        )
    return features


def describe(extractor: Callable[[Tensor], Tensor] | None) -> ExtractorInfo:
    """Return the `info` of an extractor, or its name with unknown weights and resize if it has none.

    Examples:
        >>> describe(None).name
        'pixels'
    """
    if extractor is None:
        return ExtractorInfo(name="pixels", weights_hash="none", resize="none")
    info = getattr(extractor, "info", None)
    if isinstance(info, ExtractorInfo):
        return info
    name = getattr(extractor, "__name__", type(extractor).__name__)
    return ExtractorInfo(name=str(name), weights_hash="unknown", resize="unknown")
