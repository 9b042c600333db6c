"""How fast labelled batches reach the device: from the library's two stores, from files, and from a tensor in memory.

All sides put float32 images in [-1, 1] and their labels on the device, both classes equally often although one has
three times the images of the other. A call takes an epoch of 64 batches and starts with none prefetched. The library's
side does more than the others: its draws are those of a critic step, latents and interpolation weights included.

`ImageFolder` reads files of 224 pixels, the size of the chest X-rays, and resizes them in its transform, as
users have it do; and files that somebody has resized to the size of training before.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from timing import Budget, Part, Run, Settings, alternate, on_cuda, or_left_out, ratio, summary
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

import condgan as cg
from condgan.images import to_float
from condgan.training.inputs import Prefetcher, Request, Sampler

BATCH_SIZE = 64
STORES = {"resident": 2**62, "streamed": 0}
"""The largest size in bytes that is kept on the device."""
FILE_SIZE = 224
RIVALS = {
    f"ImageFolder, {FILE_SIZE} px": "image_folder",
    "ImageFolder, resized": "image_folder_resized",
    "TensorDataset": "tensor_dataset",
}


def measure(settings: Settings) -> Part:
    """Measure all ways, at 64 and at 128 pixels."""
    part = Part()
    batches = 2 if settings.quick else 64
    for size in (64,) if settings.quick else (64, 128):
        columns = {"image_size": size, "batch_size": BATCH_SIZE}
        runs: dict[str, Run] = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, run in make_runs(make_data(size, batches * BATCH_SIZE), Path(folder), settings.device).items():
                with or_left_out(part, {"path": name, **columns}):
                    Budget(settings.limit).start(lambda _, run=run: run(), settings.device)  # type: ignore[misc]
                    runs[name] = run
            calls = alternate(runs, settings, warmup=1)
        seconds = {name: [call / batches for call in values] for name, values in calls.items()}
        part.rows += [
            {"path": name, **columns, "rounds": settings.rounds, "seconds": summary(values)}
            for name, values in seconds.items()
        ]
        part.ratios |= compare(seconds, suffix="" if size == 64 else f"_{size}px")
    return part


def compare(seconds: dict[str, list[float]], suffix: str) -> dict[str, float]:
    """Return the time of each store over that of each rival's fastest variant."""
    result = {}
    for rival, short in RIVALS.items():
        variants = [values for name, values in seconds.items() if name.startswith(rival)]
        for store in STORES:
            name = f"data_path{suffix}" if store == "resident" else f"data_path_{store}{suffix}"
            if variants:
                best = min(variants, key=statistics.median)
                result[f"{name}.{short}"] = ratio(seconds[f"condgan, {store}"], best)
    return result


def make_runs(data: cg.data.ArrayDataset, folder: Path, device: str) -> dict[str, Run]:
    """Return functions that take as many batches as the data hold."""
    stores = {name: make_inputs(data, device, limit) for name, limit in STORES.items()}
    runs: dict[str, Run] = {
        f"condgan, {name}": partial(take_inputs, inputs, len(data) // BATCH_SIZE) for name, inputs in stores.items()
    }
    for name, dataset in make_datasets(data, folder).items():
        for workers in (0, min(16, os.cpu_count() or 1)):
            loader = make_loader(dataset, data.labels, device, workers)
            runs[f"{name}, {workers} workers"] = partial(take_epoch, loader, device)
    return runs


def make_inputs(data: cg.data.ArrayDataset, device: str, max_resident_bytes: int) -> Prefetcher:
    """Return the inputs of critic steps without end, drawn as the trainer draws them."""
    sampler = Sampler(
        data,
        latent_dim=128,
        conditional=True,
        label_distribution="paired",
        sampling="balanced",
        dequantize=False,
        augment=None,
        noise=False,
        rng=torch.Generator(device).manual_seed(0),
        device=torch.device(device),
        max_resident_bytes=max_resident_bytes,
    )
    return Prefetcher(sampler, itertools.repeat(Request(BATCH_SIZE)))


def take_inputs(inputs: Prefetcher, batches: int) -> None:
    """Take so many batches, and give back what was drawn ahead."""
    for _ in range(batches):
        next(inputs)
    inputs.close()


def make_datasets(data: cg.data.ArrayDataset, folder: Path) -> dict[str, Dataset[tuple[Tensor, ...]]]:
    """Return the same images as a tensor in memory and and as files, of radiographs' size and resized before."""
    large = make_data(FILE_SIZE, len(data))
    files = {
        f"ImageFolder, {FILE_SIZE} px jpg": (large, "jpg"),
        "ImageFolder, resized png": (data, "png"),
        "ImageFolder, resized jpg": (data, "jpg"),
    }
    datasets: dict[str, Dataset[tuple[Tensor, ...]]] = {
        "TensorDataset": TensorDataset(to_float(data.images), data.labels)
    }
    for name, (images, suffix) in files.items():
        write_files(images, folder / name, suffix)
        resize = [transforms.Resize(data.image_shape[1:])] if images is large else []
        datasets[name] = ImageFolder(
            folder / name,
            transforms.Compose(
                [transforms.Grayscale(), *resize, transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
            ),
        )
    return datasets


def make_loader(
    dataset: Dataset[tuple[Tensor, ...]], labels: Tensor, device: str, workers: int
) -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader that weighs the classes."""
    weights = (1 / torch.bincount(labels).double())[labels].tolist()
    return DataLoader(
        dataset,
        BATCH_SIZE,
        sampler=WeightedRandomSampler(weights, len(weights)),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=on_cuda(device),
    )


def take_epoch(loader: DataLoader[tuple[Tensor, ...]], device: str) -> None:
    """Take an epoch to the device."""
    for batch in loader:
        for tensor in batch:
            tensor.to(device, non_blocking=True)


def make_data(size: int, images: int) -> cg.data.ArrayDataset:
    """Return drawn radiographs, the same few again and again: files of noise decode more slowly than real ones."""
    drawn = cg.data.ChestPhantom((32, 96), classes=2, image_shape=(1, size, size))
    return drawn.subset(torch.arange(images) % len(drawn))


def write_files(data: cg.data.ArrayDataset, folder: Path, suffix: str) -> None:
    """Write one file for each image, in one folder for each class."""
    for name in data.class_names:
        (folder / name).mkdir(parents=True)
    for i, (image, y) in enumerate(zip(data.images, data.labels.tolist(), strict=True)):
        Image.fromarray(image[0].numpy()).save(folder / data.class_names[y] / f"{i}.{suffix}")
