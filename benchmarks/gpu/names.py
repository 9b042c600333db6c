"""Names that several parts use."""

from __future__ import annotations

from configs import SIZES

ENGINES = {"recorded iteration": "cuda_graph_iteration", "recorded updates": "cuda_graph", "eager": "eager"}
"""Engines of the trainer by what they do."""

LEAST_OF_THE_HOST = "recorded iteration"
"""The engine for several trainings in one process."""

GPU_SIZES = [name for name in SIZES if name.startswith("gpu")]
"""The study's sizes for a GPU, in order."""
