"""Networks trained on large collections of photographs, as extractors of features.

Nothing here downloads unless told to: without their weights the constructors say where to get the file and how to pass
it. All three networks take images of three channels; one channel is repeated.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from condgan.metrics.features import Extractor, ExtractorInfo, make_extractor, weights_hash

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

    Its resize is the one of the reference code: bilinear as in TensorFlow 1, without antialiasing.

    Args:
        weights: The file of torch-fidelity's release. By default the one in torch's hub folder, if it is there.
        layer: Which features to use. Those of the earlier, smaller layers are pooled over positions.
        allow_download: Whether the file may be fetched into torch's hub folder if it is not there.
        batch_size: Images in a batch.
        device: Where to compute. By default the first CUDA device if there is one, else the CPU.

    Raises:
        FileNotFoundError: If there is no file and none may be fetched; the message says where it comes from.
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

    module = _build(build, path, "torch-fidelity's Inception v3; torchvision's is another network")
    info = ExtractorInfo(
        f"Inception v3, layer {layer}", weights_hash(module), _like_tensorflow(module.INPUT_IMAGE_SIZE)
    )
    return make_extractor(info, module, 3, batch_size, device)


def clip(
    weights: str | Path | None = None,
    *,
    name: str = "clip-vit-b-32",
    allow_download: bool = False,
    batch_size: int = 32,
    device: torch.device | str | None = None,
) -> Extractor:
    """Make the image half of CLIP, through torch-fidelity.

    Args:
        weights: OpenAI's TorchScript archive. By default the one in torch's hub folder, if it is there.
        name: Which network, by torch-fidelity's name: `"clip-rn50"`, `"clip-vit-l-14"`, ...
        allow_download: Whether the file may be fetched into torch's hub folder if it is not there.
        batch_size: Images in a batch.
        device: Where to compute. By default the first CUDA device if there is one, else the CPU.

    Raises:
        FileNotFoundError: If there is no file and none may be fetched; the message says where it comes from.
        ConnectionError: If it cannot be fetched.
        ValueError: If there is no such network, the file is no such archive, or an option is out of range.

    References:
        Radford et al. 2021, arXiv:2103.00020; Kynkäänniemi et al. 2023, arXiv:2203.06026 (CLIP features for FID).
    """
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, FeatureExtractorCLIP

    _check_name(name, MODEL_METADATA)
    digest = MODEL_METADATA[name]["hash"]
    path = _weights_file(
        weights, MODEL_URLS[name], file_name=f"{name}-{digest}.pt", hash_prefix=digest, allow_download=allow_download
    )

    def build() -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit")
            return FeatureExtractorCLIP(name, ["clip"], feature_extractor_weights_path=str(path), verbose=False)

    module = _build(build, path, f"OpenAI's TorchScript archive of {name}")
    info = ExtractorInfo(name, weights_hash(module), _like_tensorflow(module.resolution))
    return make_extractor(info, module, 3, batch_size, device)


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

    Its code is not part of any package: it comes from the repository of its authors, which is run. Of the extractors
    here its distances follow human judgment best (Stein et al. 2023), on natural images.

    Args:
        weights: The file of the authors, such as `dinov2_vits14_pretrain.pth`.
        name: Which network, by torch-fidelity's name: `"dinov2-vit-s-14"`, `"dinov2-vit-b-14"`, ...
        repository: A clone of the authors' repository.
        allow_download: Whether what is not given may be fetched, and the fetched code run.
        batch_size: Images in a batch.
        device: Where to compute. By default the first CUDA device if there is one, else the CPU.

    Raises:
        FileNotFoundError: If weights or repository are not there and may not be fetched; the message says where they
            come from.
        ConnectionError: If they cannot be fetched.
        ValueError: If there is no such network, the file does not hold its weights, or an option is out of range.

    References:
        Oquab et al. 2024, arXiv:2304.07193; Stein et al. 2023, arXiv:2306.04675.
    """
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA, FeatureExtractorDinoV2

    _check_name(name, MODEL_METADATA)
    entry = MODEL_METADATA[name]
    missing = [f"{key}=" for key, value in (("weights", weights), ("repository", repository)) if value is None]
    if missing and not allow_download:
        raise FileNotFoundError(
            f"DINOv2 needs {' and '.join(missing)}. Clone https://github.com/facebookresearch/dinov2, get "
            f"https://dl.fbaipublicfiles.com/dinov2/{entry}/{entry}_pretrain.pth and pass both, or pass "
            "allow_download=True, which also runs the code it fetches."
        )
    for path in (weights, repository and Path(repository, "hubconf.py")):
        if path is not None and not Path(path).exists():
            raise FileNotFoundError(f"expected weights and repository of DINOv2, but {path} does not exist.")
    state = None if weights is None else _load_tensors(Path(weights))
    # torch-fidelity does the same: with xFormers the features would depend on whether it is installed
    os.environ.setdefault("XFORMERS_DISABLED", "1")
    place, source = ("facebookresearch/dinov2", "github") if repository is None else (str(repository), "local")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="xFormers")
            network = torch.hub.load(
                place, entry, source=source, trust_repo=True, verbose=False, pretrained=state is None
            )
    except OSError as error:
        raise ConnectionError(
            f"fetching {entry} failed: {error}. Get it another way and pass weights= and repository=."
        ) from error
    if state is not None:
        _build(lambda: network.load_state_dict(state), Path(weights or ""), entry)

    class LocalDinoV2(FeatureExtractorDinoV2):  # type: ignore[misc]
        """Theirs without its constructor, which can only download."""

        def __init__(self) -> None:
            FeatureExtractorBase.__init__(self, name, ["dinov2"])
            self.feature_extractor_internal_dtype = torch.float32
            self.model = network.float().requires_grad_(False)

    info = ExtractorInfo(name, weights_hash(network), _like_tensorflow(FeatureExtractorDinoV2.INPUT_IMAGE_SIZE))
    return make_extractor(info, LocalDinoV2(), 3, batch_size, device)


def _weights_file(
    weights: str | Path | None, url: str, *, hash_prefix: str, allow_download: bool, file_name: str | None = None
) -> Path:
    """Return the given file, or the one in the hub folder, or fetch it there if that is allowed."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / (file_name or url.rsplit("/", 1)[-1])
    path = cached if weights is None else Path(weights)
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


def _build(build: Callable[[], Any], path: Path, what: str) -> Any:
    try:
        return build()
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} must hold the weights of {what}, but does not fit: {str(error)[:300]}") from error


def _check_name(name: str, known: dict[str, Any]) -> None:
    if name not in known:
        raise ValueError(f"name must be one of {', '.join(known)}, got {name!r}.")


def _like_tensorflow(size: int) -> str:
    return f"to {size}x{size}, bilinear as in TensorFlow 1, not antialiased"
