"""Where images wait until a step asks for them: on the device, or in host memory if they are too many."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

Delivery = Callable[[], Tensor]
"""Waits for images on their way, and returns them."""


class ImageStore(Protocol):
    """Hands out images by index.

    Attributes:
        lookahead: How many batches ahead it should be asked, for images to arrive in time.
    """

    lookahead: int

    def fetch(self, index: Tensor) -> Delivery:
        """Set out to bring the images of these indices, `(N,)` int64 on the device, to the device."""
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

    def fetch(self, index: Tensor) -> Delivery:
        """Return what picks the images."""
        return lambda: self.images.index_select(0, index)  # many times faster than indexing, on the CPU


class StreamedStore:
    """Keeps images in host memory; a thread gathers those asked for and sends them through pinned memory.

    Args:
        images: `(N, *)`, uint8 or floating point, on the CPU (they may be mapped from a file).
        device: Where the batches go.
    """

    lookahead = 2

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self.images = images
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="condgan-images")

    def fetch(self, index: Tensor) -> Delivery:
        """Send for the images; the indices themselves are read without waiting for the device."""
        host_index = index.to("cpu", non_blocking=True)
        drawn = None if self._stream is None else torch.cuda.current_stream(self.device).record_event()
        arriving = self._worker.submit(self._gather, host_index, drawn)
        return lambda: self._deliver(arriving)

    def _gather(self, index: Tensor, drawn: torch.cuda.Event | None) -> tuple[Tensor, torch.cuda.Event | None]:
        if self._stream is None or drawn is None:
            return self.images.index_select(0, index).to(self.device), None
        drawn.synchronize()
        picked = torch.empty(len(index), *self.images.shape[1:], dtype=self.images.dtype, pin_memory=True)
        torch.index_select(self.images, 0, index, out=picked)
        with torch.cuda.stream(self._stream):
            return picked.to(self.device, non_blocking=True), self._stream.record_event()

    def _deliver(self, arriving: Future[tuple[Tensor, torch.cuda.Event | None]]) -> Tensor:
        images, arrived = arriving.result()
        if arrived is not None:
            present = torch.cuda.current_stream(self.device)
            present.wait_event(arrived)
            images.record_stream(present)
        return images


def make_store(images: Tensor, device: torch.device, *, max_resident_bytes: int) -> ImageStore:
    """Return a store on the device, or in host memory if the images take more than `max_resident_bytes`."""
    return (StreamedStore if images.nbytes > max_resident_bytes else ResidentStore)(images, device)
