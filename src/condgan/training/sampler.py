"""Everything random of a training step, drawn before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from condgan.images import dequantize, to_float
from condgan.sampling import ClassLaw, LabelLaw, class_edges, class_probabilities, classes_between, sample_latents
from condgan.training.distributed import shard
from condgan.training.stores import ImageStore, make_store
from condgan.types import Augmentation, LabelledData, StepInputs


@dataclass(frozen=True, slots=True)
class Request:
    """What a step asks for: the size of its global batch, and whether it needs real images."""

    batch_size: int
    real: bool = True


class Sampler:
    """Draws `StepInputs` for the global batch and keeps this process's rows.

    A real image is drawn as a class under `sampling` and then an image of that class, with replacement. All draws
    come from `rng`, in the same order on every process.

    Args:
        data: Labelled samples.
        latent_dim: Latent features Z.
        conditional: Whether the networks have classes.
        label_law: Law of the labels of generated images.
        sampling: Law of the classes of real images.
        dequantize: Add uniform noise of one grey level to real uint8 images.
        augment: Augmentation whose parameters to draw, or None.
        noise: Whether a term needs noise of the images' shape.
        rng: Source of all draws, on `device`.
        device: Where the batches are made.
        dtype: Floating-point type of the batches, that of the networks.
        max_resident_bytes: Images up to this size are kept on `device`; larger sets stay where they are and are sent
            batch by batch.
        store: What holds the images of these data already, such as another sampler's; by default a new store is made.

    Raises:
        ValueError: If a class without samples is to be drawn, or a law does not fit the classes.
    """

    def __init__(
        self,
        data: LabelledData,
        *,
        latent_dim: int,
        conditional: bool,
        label_law: LabelLaw,
        sampling: ClassLaw,
        dequantize: bool,
        augment: Augmentation | None,
        noise: bool,
        rng: torch.Generator,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        max_resident_bytes: int = 2**32,
        store: ImageStore | None = None,
    ) -> None:
        self.store = store or make_store(data.images, device, max_resident_bytes=max_resident_bytes)
        self.sample_shape = tuple(data.images.shape[1:])
        self.labels = data.labels.to(device)
        counts = torch.bincount(self.labels, minlength=data.num_classes)
        self.by_class = torch.argsort(self.labels, stable=True)
        self.counts, self.starts = counts, counts.cumsum(0) - counts
        real_classes = class_probabilities(sampling, data.class_counts)
        if bool((real_classes[counts.cpu() == 0] > 0).any()):
            raise ValueError(
                f"every class must have samples to be drawn, got class counts {counts.tolist()}. Leave empty classes "
                'out of the data, or pass sampling="natural".'
            )
        self.paired = label_law == "paired"
        fake_classes = class_probabilities("uniform" if label_law == "paired" else label_law, data.class_counts)
        # On the device from the start: a copy from the host in every draw would wait for it.
        self.real_edges = class_edges(real_classes.to(torch.float32).to(device))
        self.fake_edges = class_edges(fake_classes.to(torch.float32).to(device))
        self.latent_dim = latent_dim
        self.conditional = conditional
        self.dequantize = dequantize and data.images.dtype == torch.uint8
        self.augment = augment
        self.noise = noise
        self.rng = rng
        self.device = device
        self.dtype = dtype

    def draw(self, request: Request) -> StepInputs:
        """Draw the inputs of a step."""
        return self.begin(request)()

    def begin(self, request: Request) -> Callable[[], StepInputs]:
        """Draw the inputs of a step and send for its images; the returned function waits for them."""
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
        draws = None
        if self.augment is not None:
            both = [self.augment.draw(count, self.sample_shape, rng=self.rng, device=self.device) for _ in range(2)]
            draws = tuple({name: value[rows] for name, value in one.items()} for one in both)
        return lambda: StepInputs(
            x=None if fetch is None else fetch(),
            y=y[rows] if self.conditional and y is not None else None,
            z=z[rows],
            y_fake=None if y_fake is None else y_fake[rows],
            epsilon=epsilon[rows],
            noise=noise,
            augmentation=None if draws is None else (draws[0], draws[1]),
        )

    def latents_and_labels(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw latents and labels as a generator step does, from a source of their own."""
        z = sample_latents(count, self.latent_dim, rng=rng, device=self.device, dtype=self.dtype)
        y = classes_between(self.fake_edges, count, rng=rng) if self.conditional else None
        return z, y

    def _real(self, count: int, rows: slice) -> tuple[Callable[[], Tensor], Tensor]:
        y = classes_between(self.real_edges, count, rng=self.rng)
        class_counts = self.counts[y]
        place = torch.rand(count, generator=self.rng, device=self.device, dtype=torch.float32)
        # float32 rounding may reach the count itself in a class of more than 2**23 images
        offset = torch.minimum((place * class_counts).long(), class_counts - 1)
        delivery = self.store.fetch(self.by_class[self.starts[y] + offset][rows])
        if not self.dequantize:
            return lambda: to_float(delivery()).to(self.dtype), y
        noise = torch.rand(count, *self.sample_shape, generator=self.rng, device=self.device, dtype=self.dtype)
        return lambda: dequantize(delivery(), noise[rows]), y
