"""Checks of a classifier's settings."""

from __future__ import annotations


def check_settings(
    *,
    epochs: int,
    steps: int | None,
    batch_size: int,
    learning_rate: float,
    precision: str,
    class_weights: str | None,
) -> None:
    """Make sure that the settings of a training are in range.

    Raises:
        ValueError: If one of them is not.
    """
    if epochs < 1 or (steps is not None and steps < epochs):
        raise ValueError(
            f"epochs must be at least 1 and steps at least epochs, got epochs={epochs} and steps={steps}. Steps are "
            "cut into that many epochs: lower epochs or raise steps."
        )
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2, got {batch_size}: batch normalization needs several images.")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, got {learning_rate}. Try 1e-3.")
    if precision not in ("fp32", "bf16"):
        raise ValueError(f'precision must be "fp32" or "bf16", got {precision!r}.')
    if class_weights not in ("balanced", None):
        raise ValueError(f'class_weights must be "balanced" or None, got {class_weights!r}.')
