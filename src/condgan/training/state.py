"""Where training stands."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class TrainerState:
    """Where training stands.

    Attributes:
        step: Generator updates done.
        images_seen: Real images shown to the critic.
        total_steps: Generator updates that the present `fit` goes up to.
        metrics: The newest values that were read, by name.
    """

    step: int = 0
    images_seen: int = 0
    total_steps: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
