"""The trainer, its steps and its callbacks."""

from condgan.training.callbacks import Checkpoint, CSVLogger, EarlyStopping, Evaluate, JSONLLogger, SampleGrid
from condgan.training.datasets import DatasetImages, as_labelled
from condgan.training.divergence import TrainingDivergedError
from condgan.training.ema import ExponentialMovingAverage, reestimate_statistics
from condgan.training.optimizer import OptimizerConfig, WeightClipping
from condgan.training.random import seed_everything
from condgan.training.step import Networks, StepResult, Terms, critic_step, generator_step
from condgan.training.together import fit_together
from condgan.training.trainer import Callback, ProgressBar, Trainer, TrainerState

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "DatasetImages",
    "EarlyStopping",
    "Evaluate",
    "ExponentialMovingAverage",
    "JSONLLogger",
    "Networks",
    "OptimizerConfig",
    "ProgressBar",
    "SampleGrid",
    "StepResult",
    "Terms",
    "Trainer",
    "TrainerState",
    "TrainingDivergedError",
    "WeightClipping",
    "as_labelled",
    "critic_step",
    "fit_together",
    "generator_step",
    "reestimate_statistics",
    "seed_everything",
]
