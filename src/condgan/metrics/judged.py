"""What identifies the images of a report in its results."""

from __future__ import annotations

from dataclasses import dataclass

from condgan.types import JudgedImages


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
