"""The images that a report judges: whether sets fit each other, and what identifies them in results."""

from __future__ import annotations

from dataclasses import dataclass

from condgan.types import JudgedImages


@dataclass(frozen=True, slots=True)
class ImagesInfo:
    """Which images a figure was measured on.

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


def check_same_classes(reference: JudgedImages, role: str, **others: JudgedImages) -> None:
    """Make sure that sets have the classes and the image shape of a reference.

    Args:
        reference: The set to compare with.
        role: Its name, for the message.
        **others: The other sets by name.

    Raises:
        ValueError: If one differs.
    """
    for name, data in others.items():
        if data.class_names != reference.class_names:
            raise ValueError(
                f"{name} must have the classes of {role}, {reference.class_names}, got {data.class_names}. Pass the "
                "same class_names, in the same order, to all sets."
            )
        if data.image_shape != reference.image_shape:
            raise ValueError(
                f"{name} must have the image shape of {role}, {reference.image_shape}, got {data.image_shape}. Read "
                "all sets at one size: a resize of one side alone shows in the features."
            )
