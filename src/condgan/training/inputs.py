"""The inputs of training steps: all random draws, and images loaded to the device ahead of time."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from condgan.distributed import rank_and_world, shard
from condgan.images import dequantize, to_float
from condgan.sampling import (
    ClassDistribution,
    LabelDistribution,
    class_edges,
    class_probabilities,
    sample_classes,
    sample_latents,
)
from condgan.training.datasets import DatasetImages
from condgan.types import Augmentation, AugmentationDraws, LabelledData, StepInputs

Delivery = Callable[[], Tensor]
"""Waits for images that are being loaded, and returns them."""


class ImageStore(Protocol):
    """Loads images by index.

    Attributes:
        lookahead: How many batches ahead images should be requested, to arrive in time.
    """

    lookahead: int

    def fetch(self, index: Tensor, rng: torch.Generator) -> Delivery:
        """Start loading the images at `index`, `(N,)` int64 on the device, drawn from `rng`."""
        ...

    def close(self) -> None:
        """Stop threads and processes."""
        ...


class ResidentStore:
    """Keeps all images on the device.

    Args:
        images: `(N, *)`, uint8 or floating point.
        device: The device.
    """

    lookahead = 0

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self.images = images.to(device)

    def fetch(self, index: Tensor, rng: torch.Generator) -> Delivery:
        """Return a function that picks the images."""
        return lambda: self.images.index_select(0, index)  # on the CPU many times faster than images[index]

    def close(self) -> None:
        """Do nothing."""


class StreamedStore:
    """Loads the images of each batch to the device: threads pick them and copy them through pinned memory.

    Args:
        pick: Returns the images at `(N,)` int64 indices, on the CPU, given a seed for random transforms.
        device: Where the batches go.
        threads: Threads that call `pick`. With 0 it is called when the images are needed, in the calling thread.
        close: Called by `close`.
    """

    def __init__(
        self,
        pick: Callable[[Tensor, int], Tensor],
        device: torch.device,
        *,
        threads: int = 1,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.lookahead = threads + 1 if threads else 0
        self.device = device
        self._pick = pick
        self._close = close
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="condgan-images") if threads else None

    def fetch(self, index: Tensor, rng: torch.Generator) -> Delivery:
        """Start loading the images, without waiting for the device to have the indices."""
        # From the state, not from another draw: the draws must not depend on the store.
        digest = hashlib.blake2b(rng.get_state().numpy().data, digest_size=4).digest()
        seed = (int.from_bytes(digest, "little") + rank_and_world()[0]) % 2**32
        if self._threads is None:
            return lambda: self._pick(index.cpu(), seed).to(self.device)
        host_index = index.to("cpu", non_blocking=True)
        drawn = None if self._stream is None else torch.cuda.current_stream(self.device).record_event()
        arriving = self._threads.submit(self._gather, host_index, seed, drawn)
        return lambda: self._deliver(arriving)

    def close(self) -> None:
        """Stop the threads, and close what they pick from."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._close()

    def _gather(
        self, index: Tensor, seed: int, drawn: torch.cuda.Event | None
    ) -> tuple[Tensor, torch.cuda.Event | None]:
        if self._stream is None or drawn is None:
            return self._pick(index, seed).to(self.device), None
        drawn.synchronize()
        picked = self._pick(index, seed).pin_memory()
        with torch.cuda.stream(self._stream):
            return picked.to(self.device, non_blocking=True), self._stream.record_event()

    def _deliver(self, arriving: Future[tuple[Tensor, torch.cuda.Event | None]]) -> Tensor:
        images, arrived = arriving.result()
        if arrived is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(arrived)
            images.record_stream(current)
        return images


def make_store(data: LabelledData, device: torch.device, *, max_resident_bytes: int) -> ImageStore:
    """Return a store that keeps the images on the device, or streams them if they exceed `max_resident_bytes`."""
    if isinstance(data, DatasetImages) and data.streamed:
        source = data.open()
        return StreamedStore(
            lambda index, seed: torch.from_numpy(source.read_many(index.tolist(), seed)[0]),
            device,
            threads=data.num_workers,
            close=source.close,
        )
    images = data.images
    if images.nbytes > max_resident_bytes:
        return StreamedStore(lambda index, seed: images.index_select(0, index), device)
    return ResidentStore(images, device)


@dataclass(frozen=True, slots=True)
class Request:
    """What a step needs: the size of its global batch, and whether real images are part of it."""

    batch_size: int
    real: bool = True


class Sampler:
    """Draws `StepInputs` for the global batch and keeps this process's rows.

    For a real image first its class is drawn under `sampling`, then an image of that class, with replacement. All draws
    come from `rng`, in the same order in every process.

    Args:
        data: Labelled samples.
        latent_dim: Latent features Z.
        conditional: Whether the networks have classes.
        label_distribution: Distribution of the labels of generated images.
        sampling: Distribution of the classes of real images.
        dequantize: Add uniform noise of one grey level to real uint8 images.
        augment: Augmentation whose parameters to draw, or None.
        noise: Whether a term needs noise of the images' shape.
        rng: Source of all draws, on `device`.
        device: Where the batches are made.
        dtype: Floating-point type of the batches, that of the networks.
        transform: Transformation in a regularizer whose parameters to draw, or None.
        max_resident_bytes: Images up to this size are kept on `device`; larger sets stay where they are and are copied
            batch by batch.
        store: A store of these images, such as that of another sampler; by default a new one is made.

    Raises:
        ValueError: If a class without samples is to be drawn, a distribution does not fit the classes, or the networks
            have classes and the data only one.
    """

    def __init__(
        self,
        data: LabelledData,
        *,
        latent_dim: int,
        conditional: bool,
        label_distribution: LabelDistribution,
        sampling: ClassDistribution,
        dequantize: bool,
        augment: Augmentation | None,
        noise: bool,
        rng: torch.Generator,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        transform: Augmentation | None = None,
        max_resident_bytes: int = 2**32,
        store: ImageStore | None = None,
    ) -> None:
        if conditional and data.num_classes < 2:
            raise ValueError(
                "networks with classes need data of at least two, got one. Train without classes (num_classes=None, or "
                'the recipe "dcgan" or "wgan_gp"), or point to the folder that holds one folder for each class.'
            )
        self.sample_shape = tuple(data.image_shape)
        self.labels = data.labels.to(device)
        counts = torch.bincount(self.labels, minlength=data.num_classes)
        self.by_class = torch.argsort(self.labels, stable=True)
        self.counts, self.starts = counts, counts.cumsum(0) - counts
        real_classes = class_probabilities(sampling, data.class_counts)
        if bool((real_classes[counts.cpu() == 0] > 0).any()):
            raise ValueError(
                f"every class must have samples to be drawn, got class counts {tuple(data.class_counts)}. Leave empty "
                'classes out of the data, or pass sampling="natural", and label_distribution="natural" or "paired" so '
                "that no image of an empty class is asked for."
            )
        # after the checks: a store of a streamed data set has worker processes
        self.store = store or make_store(data, device, max_resident_bytes=max_resident_bytes)
        self.paired = label_distribution == "paired"
        fake_classes = (
            real_classes
            if label_distribution == "paired"
            else class_probabilities(label_distribution, data.class_counts)
        )
        # On the device from the start: a copy from the host would wait for the device in every draw.
        self.real_edges = class_edges(real_classes.to(torch.float32).to(device))
        self.fake_edges = class_edges(fake_classes.to(torch.float32).to(device))
        self.latent_dim = latent_dim
        self.conditional = conditional
        image_dtype = data.dtype if isinstance(data, DatasetImages) else data.images.dtype
        self.dequantize = dequantize and image_dtype == torch.uint8
        self.augment = augment
        self.noise = noise
        self.transform = transform
        self.rng = rng
        self.device = device
        self.dtype = dtype

    def draw(self, request: Request) -> StepInputs:
        """Draw the inputs of a step."""
        return self.begin(request)()

    def begin(self, request: Request) -> Callable[[], StepInputs]:
        """Draw the inputs of a step and start loading its images; the returned function waits for them."""
        count, rows = request.batch_size, shard(request.batch_size)
        fetch, y = self._real(count, rows) if request.real else (None, None)
        z, y_fake = self.latents_and_labels(count, self.rng)
        if self.paired and self.conditional and y is not None:
            y_fake = y
        epsilon = torch.rand(count, generator=self.rng, device=self.device, dtype=self.dtype)
        noise = None
        if self.noise:
            noise = torch.randn(count, *self.sample_shape, generator=self.rng, device=self.device, dtype=self.dtype)
            noise = noise[rows]
        augmentation, transformation = self._draw(self.augment, count, rows), self._draw(self.transform, count, rows)
        return lambda: StepInputs(
            x=None if fetch is None else fetch(),
            y=y[rows] if self.conditional and y is not None else None,
            z=z[rows],
            y_fake=None if y_fake is None else y_fake[rows],
            epsilon=epsilon[rows],
            noise=noise,
            augmentation=augmentation,
            transformation=transformation,
        )

    def _draw(
        self, augment: Augmentation | None, count: int, rows: slice
    ) -> tuple[AugmentationDraws, AugmentationDraws] | None:
        """Draw parameters for the real and for the generated images."""
        if augment is None:
            return None
        real, fake = (augment.draw(count, self.sample_shape, rng=self.rng, device=self.device) for _ in range(2))
        return {name: value[rows] for name, value in real.items()}, {name: value[rows] for name, value in fake.items()}

    def latents_and_labels(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw latents and labels as for a generator step, from another source."""
        z = sample_latents(count, self.latent_dim, rng=rng, device=self.device, dtype=self.dtype)
        y = sample_classes(self.fake_edges, count, rng=rng) if self.conditional else None
        return z, y

    def _real(self, count: int, rows: slice) -> tuple[Callable[[], Tensor], Tensor]:
        y = sample_classes(self.real_edges, count, rng=self.rng)
        class_counts = self.counts[y]
        place = torch.rand(count, generator=self.rng, device=self.device, dtype=torch.float32)
        # float32 rounding may reach the count itself in a class of more than 2**23 images
        offset = torch.minimum((place * class_counts).long(), class_counts - 1)
        delivery = self.store.fetch(self.by_class[self.starts[y] + offset][rows], self.rng)
        if not self.dequantize:
            return lambda: to_float(delivery()).to(self.dtype), y
        noise = torch.rand(count, *self.sample_shape, generator=self.rng, device=self.device, dtype=self.dtype)
        return lambda: dequantize(delivery(), noise[rows]), y


class Prefetcher:
    """Returns the inputs of steps, drawn as far ahead as the sampler's store requires.

    Draws are made in the order of the requests, however early, so the samples do not depend on the store.

    Args:
        sampler: Draws the inputs.
        requests: What each step needs, without end.
    """

    def __init__(self, sampler: Sampler, requests: Iterator[Request]) -> None:
        self.sampler = sampler
        self._requests = requests
        self._drawn: deque[tuple[Tensor, Callable[[], StepInputs]]] = deque()

    def __next__(self) -> StepInputs:
        while len(self._drawn) <= self.sampler.store.lookahead:
            self._drawn.append((self.sampler.rng.get_state(), self.sampler.begin(next(self._requests))))
        _, finish = self._drawn.popleft()
        return finish()

    @property
    def rng_state(self) -> Tensor:
        """State of the sampler's source before the first draw that was not returned."""
        return self._drawn[0][0] if self._drawn else self.sampler.rng.get_state()

    def close(self) -> None:
        """Discard what was drawn ahead, and restore the state before it."""
        self.sampler.rng.set_state(self.rng_state)
        self._drawn.clear()
