"""The trainer, its steps and its callbacks."""

from condgan.training.callbacks import Callback, Checkpoint, EarlyStopping, Evaluate
from condgan.training.divergence import TrainingDivergedError
from condgan.training.ema import ExponentialMovingAverage, reestimate_statistics
from condgan.training.loggers import CSVLogger, JSONLLogger, ProgressBar, SampleGrid
from condgan.training.optimizer import OptimizerConfig
from condgan.training.seed import seed_everything
from condgan.training.state import TrainerState
from condgan.training.step import Networks, StepResult, Terms, critic_step, generator_step
from condgan.training.together import fit_together
from condgan.training.trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
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
    "critic_step",
    "fit_together",
    "generator_step",
    "reestimate_statistics",
    "seed_everything",
]
