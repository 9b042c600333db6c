"""The training loop: draws, steps, optimizers, the averaged generator, and callbacks."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from collections.abc import Generator as StepByStep
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from typing_extensions import override

from condgan.devices import best_device
from condgan.distributed import any_process, broadcast, check_same, rank_and_world
from condgan.files import as_path, check_count, check_seed, plain_numbers
from condgan.networks.base import Critic, Generator
from condgan.regularizers import CriticRegularizer, GeneratorObjective, GeneratorRegularizer
from condgan.sampling import ClassDistribution, LabelDistribution, class_probabilities, sample
from condgan.schedules import Scheduled
from condgan.training.checkpoint import check_storable, misfits, read_newest_checkpoint, write_checkpoint
from condgan.training.checks import (
    check_data,
    check_kinds,
    check_parts,
    check_pretraining,
    check_terms,
    warn_of_two_distributions,
)
from condgan.training.datasets import ImageRange, as_labelled
from condgan.training.divergence import FiniteGuard, TrainingDivergedError
from condgan.training.ema import ExponentialMovingAverage, reestimate_statistics
from condgan.training.engines import EngineName, NoInputs, Update, fastest_convolutions, make_engine
from condgan.training.inputs import ImageStore, Prefetcher, Request, ResidentStore, Sampler
from condgan.training.optimizer import OptimizerConfig, OptimizerFactory, Role, Schedule, Updater, schedule_factor
from condgan.training.random import DefaultRngs
from condgan.training.settings import as_plain, attributes, changes, over_progress, stable_repr
from condgan.training.step import (
    Networks,
    Precision,
    StepResult,
    Terms,
    critic_step,
    generator_step,
    pretraining_step,
)
from condgan.training.transition import Transition
from condgan.types import AdversarialLoss, Augmentation, AuxiliaryLoss, LabelledData, StepInputs
from condgan.weights import not_finite

Phase = Literal["pretraining", "critic", "generator"]
"""What an update of a step does."""

_STEPS: dict[Phase, tuple[Role, Callable[[Networks, Terms, StepInputs], StepResult]]] = {
    "pretraining": ("generator", pretraining_step),
    "critic": ("critic", critic_step),
    "generator": ("generator", generator_step),
}


@dataclass(slots=True)
class TrainerState:
    """The progress of training.

    Attributes:
        step: Generator updates done.
        images_seen: Real images shown to the critic, and in pretraining to the generator.
        total_steps: Generator updates at which the current `fit` ends.
        metrics: The newest values that were read, by name.
        fit_arguments: The other arguments of the current `fit` on which the result depends.
    """

    step: int = 0
    images_seen: int = 0
    total_steps: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    fit_arguments: dict[str, Any] = field(default_factory=dict)


class Callback:
    """Base of callbacks: every hook does nothing. A callback observes, and may call `trainer.request_stop(reason)`.

    Args:
        every: Call `on_step_end` every `every` steps and at the last. The other hooks are called each time.

    Attributes:
        runs_last: Whether it is called after the others, as checkpoints are, which save the others' state.
        shows_progress: Whether it shows the progress of training, so that `fit` shows no bar of its own.

    Raises:
        ValueError: If `every` is less than 1.
    """

    every: int = 1
    runs_last: ClassVar[bool] = False
    shows_progress: ClassVar[bool] = False

    def __init__(self, every: int = 1) -> None:
        check_count("every", every)
        self.every = every

    def on_fit_start(self, trainer: Trainer) -> None:
        """Training begins, or continues after a resume."""

    def on_critic_step_end(self, trainer: Trainer) -> None:
        """The critic was updated once."""

    def on_generator_step_end(self, trainer: Trainer) -> None:
        """The generator and its average were updated once."""

    def on_step_end(self, trainer: Trainer) -> None:
        """A step ended whose number is a multiple of `every`, or the last one."""

    def on_evaluate_end(self, trainer: Trainer) -> None:
        """An `Evaluate` put its results into `trainer.state.metrics`."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """Training ended, at the last step or on request."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Training ended with an error, which is raised again after this."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the callback must remember in a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class ProgressBar(Callback):
    """Shows steps, the rate, the remaining time and the newest losses.

    Args:
        every: Steps between readings of the metrics; each reading waits for the device.
        description: Text in front of the bar.
    """

    shows_progress = True

    def __init__(self, *, every: int = 20, description: str = "training") -> None:
        super().__init__(every)
        self.description = description
        self._bar: tqdm[Any] | None = None

    @override
    def on_fit_start(self, trainer: Trainer) -> None:
        self._images = trainer.state.images_seen
        self._began = time.perf_counter()
        self._bar = tqdm(
            total=trainer.state.total_steps,
            initial=trainer.state.step,
            desc=self.description,
            unit="step",
            disable=not trainer.is_main_process,
        )

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        if self._bar is None:
            return
        metrics = trainer.read_metrics()
        rate = (trainer.state.images_seen - self._images) / (time.perf_counter() - self._began)
        adversarial = {role: f"{role}/adversarial" for role in ("critic", "generator")}  # none in pretraining
        shown = {role: f"{metrics[name]:.3g}" for role, name in adversarial.items() if name in metrics}
        self._bar.set_postfix(shown | {"img/s": f"{rate:.0f}"})
        self._bar.update(trainer.state.step - self._bar.n)

    @override
    def on_fit_end(self, trainer: Trainer) -> None:
        self._close(trainer)

    @override
    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        self._close(trainer)

    def _close(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.update(trainer.state.step - self._bar.n)
            self._bar.close()
            self._bar = None


_ENTRIES = (
    *("settings", "state", "critic_updates", "ema_updates", "data_fingerprint"),
    *("rng", "sample_rng", "default_rngs", "callbacks"),
)
"""Entries of every checkpoint, beside the states of modules and optimizers."""

_SINCE_FORMAT_1 = {"generator_arguments", "critic_arguments", "term_attributes", "schedules"}
"""Settings that checkpoints of format 0 do not have."""


class Trainer:
    r"""Trains a generator against a critic.

    In each step the critic is updated `critic_steps` times and the generator once, each on a batch of its own:

    $$ \min_C \; \ell_C(C(x), C(G(z, y))) + \sum_i a_i + \sum_j r_j, \qquad
       \min_G \; \ell_G(C(x), C(G(z, y))) + \sum_i a'_i + \sum_j r'_j $$

    with the adversarial loss $\ell$, auxiliary class terms $a$ and regularizers $r$, each with its own weight. In a
    first share of the steps, `pretraining`, objectives on real images can train the generator without a critic.

    Args:
        generator: Maps latents and labels to images.
        critic: Maps images and labels to a `CriticOutput`.
        loss: The adversarial loss.
        auxiliary: One auxiliary loss or several.
        regularizers: Regularizers of the critic and of the generator, in one list.
        augment: Differentiable augmentation in front of the critic, of real and generated images.
        critic_steps: Critic updates per generator update.
        generator_optimizer: Adam settings of the generator, or a function that makes its optimizer from a list of
            parameters, such as `lambda p: torch.optim.RMSprop(p, lr=5e-5)`.
        critic_optimizer: The same for the critic.
        schedule: Factor of all learning rates as a function of the progress of training.
        ema_decay: Final decay of the averaged generator, in [0, 1).
        label_distribution: Distribution of the labels of generated images.
        sampling: Distribution of the classes of real images; for an unconditional generator that of the classes of
            its images too, which `"natural"` leaves as they are in the data. A score that does not see labels
            needs the same distribution for both: `fit` warns where they differ.
        dequantize: Add uniform noise of one grey level to real uint8 images.
        transition: Share of the training `(start, end)` in which the classes are faded in, for little data: see
            `Transition`. By default they count in full from the start.
        pretraining: Share of the steps, at the beginning, in which nothing but each `GeneratorObjective` among the
            regularizers trains the generator. A step is then one update. Schedules and `transition` run over all
            steps, these included; a training that is continued with more steps returns to pretraining until its share
            is reached again.
        precision: `"fp32"`, which on CUDA means TF32 in convolutions unless PyTorch is configured otherwise; or
            `"bf16"` for forward passes under autocast, with losses and norms in float32.
        engine: How updates are run; the results are the same. `"eager"`: one by one. `"cuda_graph"`: one CUDA graph
            per kind of update, captured once and replayed. `"cuda_graph_iteration"`: one graph per step, with its
            draws and the average, which takes the least host time. `"auto"`: `"cuda_graph"` on CUDA. What cannot be
            captured runs in the next simpler way, with a warning. `trainer.engine.name` is the one in use.
        device: Where to train; by default CUDA, then MPS, then the CPU.
        seed: Seed of all draws in training, in [0, 2**62).
        callbacks: Observers, called in this order; those that run last, such as checkpoints, after the others.

    Attributes:
        networks: The generator and the critic.
        terms: The terms of the losses, and the augmentation.
        transition: How the classes are faded in, or None.
        pretraining: Share of the steps without a critic.
        state: The progress of training, and the newest metrics.
        callbacks: The observers, in the order in which they are called.
        engine: What runs the updates.
        device: The device of the networks.
        seed: The seed.
        last_evaluation: The metrics of the newest `Evaluate`.
        between_steps: Whether no step is running, so that the state can be saved.

    Raises:
        TypeError: If a part is an object of another kind.
        ValueError: If parts do not fit one another; the message says which and what to do.

    Examples:
        >>> import condgan as cg
        >>> data = cg.data.ChestPhantom((8, 8), classes=2, image_shape=(1, 16, 16))
        >>> trainer = cg.Trainer(
        ...     cg.DCGANGenerator(num_classes=2, image_shape=(1, 16, 16), base_channels=4),
        ...     cg.ACDCGANCritic(num_classes=2, image_shape=(1, 16, 16), base_channels=4),
        ...     loss=cg.WassersteinLoss(),
        ...     auxiliary=cg.AuxiliaryClassifierLoss(),
        ...     regularizers=[cg.GradientPenalty(weight=10.0)],
        ...     device="cpu",
        ... )
        >>> trainer.fit(data, steps=2, batch_size=4).images_seen
        8
        >>> trainer.sample(torch.tensor([0, 1]), seed=0).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self,
        generator: Generator,
        critic: Critic,
        *,
        loss: AdversarialLoss,
        auxiliary: AuxiliaryLoss | Sequence[AuxiliaryLoss] = (),
        regularizers: Sequence[CriticRegularizer | GeneratorRegularizer] = (),
        augment: Augmentation | None = None,
        critic_steps: int = 1,
        generator_optimizer: OptimizerConfig | OptimizerFactory = OptimizerConfig(),  # noqa: B008 - frozen
        critic_optimizer: OptimizerConfig | OptimizerFactory = OptimizerConfig(),  # noqa: B008 - frozen
        schedule: Schedule = "constant",
        ema_decay: float = 0.999,
        label_distribution: LabelDistribution = "balanced",
        sampling: ClassDistribution = "balanced",
        dequantize: bool = False,
        transition: tuple[float, float] | None = None,
        pretraining: float = 0.0,
        precision: Precision = "fp32",
        engine: EngineName = "auto",
        device: torch.device | str | None = None,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        check_parts(
            generator,
            critic,
            loss=loss,
            auxiliary=auxiliary,
            regularizers=regularizers,
            augment=augment,
            transition=transition,
        )
        self.device = torch.device(device) if device is not None else best_device()
        self.seed = check_seed(seed)
        self._rng = torch.Generator(self.device).manual_seed(self.seed)
        self.terms = Terms(
            loss=loss,
            auxiliary=(auxiliary,) if isinstance(auxiliary, AuxiliaryLoss) else tuple(auxiliary),
            critic_regularizers=[r.to(self.device) for r in regularizers if isinstance(r, CriticRegularizer)],
            generator_regularizers=[r.to(self.device) for r in regularizers if isinstance(r, GeneratorRegularizer)],
            augment=augment.to(self.device) if isinstance(augment, nn.Module) else augment,
            precision=precision,
        )
        self.networks = Networks(generator.to(self.device), critic.to(self.device))
        self.transition = None if transition is None else Transition(*transition, self.networks)
        if self.transition is not None:
            self.terms = replace(self.terms, class_strength=self.transition.strength)
        check_pretraining(pretraining, self.terms)
        check_terms(self.networks, self.terms, label_distribution=label_distribution, critic_steps=critic_steps)
        schedule_factor(schedule, 0.0)
        self.critic_steps = plain_numbers(critic_steps)
        self.pretraining = pretraining
        self.schedule = schedule
        self.label_distribution = label_distribution
        self.sampling = sampling
        self.dequantize = dequantize
        self.callbacks = _in_order(callbacks)
        self.state = TrainerState()
        self.last_evaluation: dict[str, float] = {}
        self.between_steps = True
        self._sampler: Sampler | None = None
        self._inputs: Prefetcher | None = None
        self._sample_rng = torch.Generator(self.device).manual_seed(self.seed + 1)
        self._updaters: dict[Role, Updater] = {
            "generator": Updater("generator", generator, generator_optimizer),
            "critic": Updater("critic", critic, critic_optimizer),
        }
        obstacle = next(filter(None, (updater.obstacle_to_graphs for updater in self._updaters.values())), None)
        self.engine = make_engine(engine, self.device, rngs=(self._rng,), obstacle=obstacle)
        self.ema_decay = ema_decay
        self._ema = ExponentialMovingAverage(generator, ema_decay)
        self._ema_ready_at: int | None = None
        # Tensors, because they change from step to step: a CUDA graph would keep the values of Python numbers.
        self._step_number = torch.zeros((), dtype=torch.int64, device=self.device)
        self._ema_weight = torch.zeros((), dtype=next(generator.parameters()).dtype, device=self.device)
        self._guard = FiniteGuard()
        self._critic_updates = 0
        self._data_fingerprint: str | None = None
        self._default_rngs = DefaultRngs(self.device, self.seed)
        self._stop_reason: str | None = None
        self._bar: ProgressBar | None = None
        self._resumed_with: dict[str, Any] = {}

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes files and shows progress."""
        return rank_and_world()[0] == 0

    @property
    def pretraining_steps(self) -> int:
        """Number of steps without a critic, at the beginning of the steps over which `fit` trains."""
        return math.ceil(round(self.pretraining * self.state.total_steps, 6))

    @property
    def ema(self) -> Generator:
        """The averaged generator, in evaluation mode, with batch statistics re-estimated for its weights.

        The statistics are averages over 1 024 samples, with labels drawn as in generator steps.
        """
        self._refresh_ema()
        return self._ema.generator

    def _refresh_ema(self) -> None:
        """Re-estimate the batch statistics of the averaged generator if it has been updated since the last time."""
        if self._ema_ready_at != self.state.step and self._sampler is not None:
            rng = torch.Generator(self.device).manual_seed(self.seed + 2)
            batches = (self._sampler.latents_and_labels(128, rng) for _ in range(8))
            reestimate_statistics(self._ema.generator, batches)  # drawn only if there are statistics
            self._ema_ready_at = self.state.step

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The arguments of this trainer as plain values, for logs and results: as they were before training."""
        terms = self.terms
        regularizers = (*terms.critic_regularizers, *terms.generator_regularizers)
        own = {"loss": terms.loss, "auxiliary": terms.auxiliary, "regularizers": regularizers, "augment": terms.augment}
        settings = {
            "generator": type(self.networks.generator).__name__,
            "critic": type(self.networks.critic).__name__,
            "loss": stable_repr(terms.loss),
            "auxiliary": [stable_repr(term) for term in terms.auxiliary],
            "regularizers": [stable_repr(term) for term in regularizers],
            "augment": None if terms.augment is None else stable_repr(terms.augment),
            "critic_steps": self.critic_steps,
            "generator_optimizer": self._updaters["generator"].settings,
            "critic_optimizer": self._updaters["critic"].settings,
            "schedule": stable_repr(self.schedule),
            "ema_decay": self.ema_decay,
            "label_distribution": stable_repr(self.label_distribution),
            "sampling": stable_repr(self.sampling),
            "dequantize": self.dequantize,
            "precision": terms.precision,
            "device": self.device.type,
            "seed": self.seed,
            **({} if self.transition is None else {"transition": (self.transition.start, self.transition.end)}),
            **({"pretraining": self.pretraining} if self.pretraining else {}),
            "generator_arguments": as_plain(getattr(self.networks.generator, "config", {})),  # of a network of ours
            "critic_arguments": as_plain(getattr(self.networks.critic, "config", {})),
            "term_attributes": {
                role: [attributes(term) for term in (part if isinstance(part, tuple) else (part,))]
                for role, part in own.items()
            },
            "schedules": {
                name: over_progress(number)
                for name, number in self._scheduled()
                if callable(number) and stable_repr(number) != repr(number)  # which does not tell its values
            },
        }
        plain: dict[str, Any] = plain_numbers(settings)
        return plain

    def _scheduled(self) -> Iterator[tuple[str, Scheduled]]:
        """Yield the numbers that may follow the progress of training, by name."""
        if callable(self.schedule):
            yield "schedule", self.schedule
        for role, updater in self._updaters.items():
            for i, number in enumerate(updater.scheduled):
                yield f"{role}_optimizer, {i}", number
        for i, term in enumerate((*self.terms.critic_regularizers, *self.terms.generator_regularizers)):
            yield f"weight of regularizer {i}", term.weight

    def fit(
        self,
        data: LabelledData | Dataset[Any] | DataLoader[Any],
        *,
        steps: int,
        batch_size: int = 64,
        generator_batch_size: int | None = None,
        image_range: ImageRange | None = None,
        max_resident_bytes: int = 2**32,
        progress: bool = True,
    ) -> TrainerState:
        """Train until `steps` generator updates have been done in total.

        After `resume` training continues: with the same arguments the result equals that of an uninterrupted run, on
        CUDA up to the rounding of kernels that sum in no fixed order; of other arguments a warning names both values,
        and of other `steps` where something follows the progress of training. Ctrl-C ends training after the current
        step, with checkpoints written, and then raises KeyboardInterrupt.

        Args:
            data: Labelled samples of the networks' shape and classes: an `ArrayDataset`, any map-style data set of
                `(image, label)`, or a `DataLoader`, whose data set and `num_workers` are used, but not its batch
                size, order or sampler. Items are read once, or for each batch if they do not fit into memory or
                random transforms change them: see `as_labelled`, which has more options.
            steps: Total number of generator updates, over which schedules run.
            batch_size: Real samples per critic step, and as many generated ones, over all processes.
            generator_batch_size: Samples of a generator step; by default `batch_size`.
            image_range: Range of floating-point images, `(0, 1)` or `(-1, 1)`; uint8 images have [0, 255].
            max_resident_bytes: Images up to this size are copied to the device once; a larger set stays in host
                memory, and each batch is copied ahead of its step. The samples are the same.
            progress: Show a progress bar where standard error is a terminal, unless a callback shows progress.

        Returns:
            The state at the end.

        Raises:
            TypeError: If the data are not a map-style data set, or a callback's state cannot be saved.
            ValueError: If the data do not fit the networks, or differ from those before `resume`; if a weight is not
                finite at the start; with several processes, if they were not given the same data and settings.
            TrainingDivergedError: If a loss, gradient, weight or buffer was not finite.
            KeyboardInterrupt: After the step in which Ctrl-C was pressed.
        """
        inputs = self._begin_fit(
            as_labelled(data, image_range=image_range),
            steps=steps,
            batch_size=batch_size,
            generator_batch_size=generator_batch_size,
            max_resident_bytes=max_resident_bytes,
            progress=progress,
        )
        try:
            with interrupt_between_steps(self.request_stop) as interrupted:
                for _ in self._steps(inputs, interrupted):
                    pass
        finally:
            inputs.sampler.store.close()
        return self.state

    def _begin_fit(
        self,
        data: LabelledData,
        *,
        steps: int,
        batch_size: int,
        generator_batch_size: int | None,
        max_resident_bytes: int,
        progress: bool = False,
        store: ImageStore | None = None,
    ) -> Prefetcher:
        """Check the arguments of `fit` and return the inputs of its steps; `store` may already have the images."""
        generator_batch_size = batch_size if generator_batch_size is None else generator_batch_size
        steps, batch_size, generator_batch_size = plain_numbers((steps, batch_size, generator_batch_size))
        sizes = {"steps": steps, "batch_size": batch_size, "generator_batch_size": generator_batch_size}
        here = {"step": self.state.step, "data": data.fingerprint, **sizes}
        check_same({**self.settings, **here}, self.device)
        check_data(self.networks, data, steps=steps, batch_size=batch_size, generator_batch_size=generator_batch_size)
        self.check_same_data(data)
        warn_of_two_distributions(
            self.networks, data, label_distribution=self.label_distribution, sampling=self.sampling
        )
        self._data_fingerprint = data.fingerprint
        self.state.total_steps = steps
        self.state.fit_arguments = {
            "batch_size": batch_size,
            "generator_batch_size": generator_batch_size,
            "sampling": class_probabilities(self.sampling, data.class_counts).tolist(),
            "label_distribution": self.label_distribution
            if self.label_distribution == "paired"
            else class_probabilities(self.label_distribution, data.class_counts).tolist(),
        }
        self._warn_of_changes()
        self._stop_reason = None
        shown = any(callback.shows_progress for callback in self.callbacks)
        self._bar = ProgressBar() if progress and not shown and sys.stderr.isatty() else None
        self._sampler = self._make_sampler(data, max_resident_bytes, store=store)
        real = self.terms.loss.needs_real_scores or any(
            isinstance(term, GeneratorObjective) for term in self.terms.generator_regularizers
        )
        self._requests: dict[Phase, Request] = {
            "pretraining": Request(batch_size),
            "critic": Request(batch_size),
            "generator": Request(generator_batch_size, real=real),
        }
        self._inputs = Prefetcher(
            self._sampler, (self._requests[phase] for step in count(self.state.step) for phase in self._phases(step))
        )
        if self.engine.name == "cuda_graph_iteration":
            self.engine.forget()  # captured iterations draw from the sampler of an earlier fit
            if obstacle := self._obstacle_to_iterations(self._sampler):
                self.engine.fall_back(obstacle)
        for part in self._modules().values():
            broadcast([*part.parameters(), *part.buffers()])
        return self._inputs

    def check_same_data(self, data: LabelledData) -> None:
        """Check that training began on these data, or has not begun.

        Raises:
            ValueError: If it began on others.
        """
        if self._data_fingerprint not in (None, data.fingerprint):
            raise ValueError(
                f"training began on other data (fingerprint {self._data_fingerprint}, got {data.fingerprint}). "
                "Resume with the same data, or make a new Trainer from the networks to train on other data."
            )

    def _warn_of_changes(self) -> None:
        """Warn if `fit` continues a training that was saved, but not as it was."""
        if self.state.step >= self.state.total_steps:
            return
        then, self._resumed_with = self._resumed_with, {}
        now = {"steps": self.state.total_steps, **self.state.fit_arguments}
        names = [name for name in then if name != "steps" or self._follows_progress]
        changed = list(changes({name: then[name] for name in names}, {name: now[name] for name in names}))
        if changed:
            warnings.warn(
                f"training continues in another way than it was saved: {'; '.join(changed)}. The result is that of "
                "neither; call fit as before to get the result of an uninterrupted training.",
                stacklevel=4,  # the caller of Trainer.fit
            )

    @property
    def _follows_progress(self) -> bool:
        """Whether training depends on the total of its steps."""
        varies = any(callable(number) and len(set(over_progress(number))) > 1 for _, number in self._scheduled())
        return varies or self.schedule == "linear" or self.transition is not None or self.pretraining > 0

    def _make_sampler(self, data: LabelledData, max_resident_bytes: int, *, store: ImageStore | None = None) -> Sampler:
        """Return a sampler of the inputs of steps."""
        generator, terms = self.networks.generator, self.terms
        return Sampler(
            data,
            latent_dim=generator.latent_dim,
            conditional=generator.num_classes is not None,
            label_distribution=self.label_distribution,
            sampling=self.sampling,
            dequantize=self.dequantize,
            augment=terms.augment,
            noise=any(term.needs_noise for term in (*terms.critic_regularizers, *terms.generator_regularizers)),
            rng=self._rng,
            device=self.device,
            dtype=next(generator.parameters()).dtype,
            transform=next((r.transform for r in terms.critic_regularizers if r.transform is not None), None),
            max_resident_bytes=max_resident_bytes,
            store=store,
        )

    def _steps(self, inputs: Prefetcher, interrupted: Callable[[], bool]) -> StepByStep[None, None, None]:
        """Train to the end of `fit`, and yield after each step."""
        total = self.state.total_steps
        try:
            for callback in self._observers():
                callback.on_fit_start(self)
            if bad := self._not_finite():
                raise ValueError(
                    f"what is trained must be finite, got NaN or infinity in {', '.join(bad)} before the first step. A "
                    "constant that is infinite on purpose, such as a mask, belongs in a buffer with persistent=False."
                )
            for callback in self.callbacks:
                check_storable(callback.state_dict(), f"the state of {type(callback).__name__}")
            while self.state.step < total and not any_process(self._stop_reason is not None, self.device):
                self._step(inputs)
                yield
            self.read_metrics()
            self._check_finite()
            if any_process(interrupted(), self.device):
                raise KeyboardInterrupt
            for callback in self._observers():
                callback.on_fit_end(self)
        except BaseException as error:
            for callback in self._observers():
                callback.on_exception(self, error)
            raise
        finally:
            inputs.close()

    def _step(self, inputs: Prefetcher) -> None:
        self.between_steps = False
        self.networks.generator.train()
        self.networks.critic.train()
        self._set_progress(self.state.step / self.state.total_steps)
        if self.engine.name == "cuda_graph_iteration":
            self._iterate_at_once(inputs)
        else:
            self._iterate(inputs)
        self.state.step += 1
        self.between_steps = True
        for callback in self._observers():
            callback.on_generator_step_end(self)
        for callback in self._observers():
            if self.state.step % callback.every == 0 or self.state.step == self.state.total_steps:
                callback.on_step_end(self)

    def _set_progress(self, progress: float) -> None:
        """Set the numbers that depend on the progress of training."""
        factor = schedule_factor(self.schedule, progress)
        for updater in self._updaters.values():
            updater.set_progress(progress, factor)
        for regularizer in (*self.terms.critic_regularizers, *self.terms.generator_regularizers):
            regularizer.set_progress(progress)
        if self.transition is not None:
            self.transition.move_to(progress)

    def _phases(self, step: int) -> list[Phase]:
        """Return the updates of a step, in their order."""
        if step < self.pretraining_steps:
            return ["pretraining"]
        critic_updates: list[Phase] = ["critic"] * self.critic_steps
        return [*critic_updates, "generator"]

    def _iterate(self, inputs: Prefetcher) -> None:
        """Run the updates of a step one by one."""
        for number, phase in enumerate(self._phases(self.state.step)):
            kind, update = self._update(phase, self._critic_updates if phase == "critic" else self.state.step)
            with self._as_in_training():
                metrics = self.engine.run(kind, update, next(inputs))
            self._guard.observe(metrics, self.state.step, number)
            self._count(phase)
            if phase == "critic":
                for callback in self._observers():
                    callback.on_critic_step_end(self)
        self._ema.update(self.networks.generator)

    def _count(self, phase: Phase) -> None:
        """Count an update and its real images."""
        self._critic_updates += phase == "critic"
        if phase != "generator":
            self.state.images_seen += self._requests[phase].batch_size

    def _iterate_at_once(self, inputs: Prefetcher) -> None:
        """Run the updates of a step, with their draws, checks and the average, as one update."""
        phases = self._phases(self.state.step)
        updates = [
            self._update(phase, self._critic_updates + i if phase == "critic" else self.state.step)
            for i, phase in enumerate(phases)
        ]

        def iterate(nothing: NoInputs) -> dict[str, Tensor]:
            for number, ((_, update), phase) in enumerate(zip(updates, phases, strict=True)):
                self._guard.observe(update(inputs.sampler.draw(self._requests[phase])), self._step_number, number)
            self._ema.move(self.networks.generator, self._ema_weight)
            return {}

        self._step_number.fill_(self.state.step)
        self._ema_weight.fill_(self._ema.next_weight())
        with self._as_in_training():
            self.engine.run(tuple(kind for kind, _ in updates), iterate, NoInputs())
        for phase in phases:
            self._count(phase)

    def _obstacle_to_iterations(self, sampler: Sampler) -> str | None:
        """Return why the iterations of `fit` cannot be captured as a whole, or None if they can."""
        if not isinstance(sampler.store, ResidentStore):
            return "images that are not on the device are copied ahead of each update (see max_resident_bytes)"
        for callback in self.callbacks:
            if getattr(callback.on_critic_step_end, "__func__", None) is not Callback.on_critic_step_end:
                return f"{type(callback).__name__} is called between the updates of an iteration"
        return None

    def _update(self, phase: Phase, number: int) -> tuple[Hashable, Update[StepInputs]]:
        """Return the kind of an update and the update; the kind includes which lazy regularizers are due."""
        terms = self.terms.due(number)
        role, step = _STEPS[phase]
        active = terms.critic_regularizers if role == "critic" else terms.generator_regularizers

        def update(inputs: StepInputs) -> dict[str, Tensor]:
            return self._updaters[role].update(step(self.networks, terms, inputs))

        return (phase, *map(id, active)), update

    @contextmanager
    def _as_in_training(self) -> Iterator[None]:
        """Let dropout draw from the trainer's own generators, and use the fastest convolutions."""
        with self._default_rngs.active(), fastest_convolutions(self.device):
            yield

    def request_stop(self, reason: str) -> None:
        """End `fit` after the current step."""
        self._stop_reason = reason

    def read_metrics(self) -> dict[str, float]:
        """Read the newest metrics from the device into `state.metrics` and return them.

        Raises:
            TrainingDivergedError: If a loss or gradient was not finite in any step so far.
        """
        self.state.metrics |= self._guard.read()
        return self.state.metrics

    def record_evaluation(self, metrics: dict[str, float]) -> None:
        """Put the results of an evaluation into `state.metrics` and call `on_evaluate_end`."""
        self.last_evaluation = metrics
        self.state.metrics |= metrics
        for callback in self._observers():
            callback.on_evaluate_end(self)

    def sample(self, y: Tensor | Sequence[int] | int, *, seed: int | None = None) -> Tensor:
        """Generate one image per label with the averaged generator.

        Args:
            y: Labels, or for unconditional networks the number of images.
            seed: Seed of the latents; by default each call draws new ones. Training is not affected.

        Shape:
            - `y`: `(N,)`, integers in `[0, K)`. Output: `(N, C, H, W)`, float in [-1, 1].

        Raises:
            TrainingDivergedError: If a loss, gradient or weight was not finite.
            ValueError: If the labels do not fit the generator.
        """
        self._guard.check()
        self._check_finite()
        rng = self._sample_rng if seed is None else torch.Generator(self.device).manual_seed(seed)
        return sample(self.ema, y, rng=rng)

    def save(self, folder: str | Path, *, keep: int = 2) -> None:
        """Write a checkpoint of everything that the next step depends on, and keep the newest `keep`.

        Raises:
            RuntimeError: If called within a step, which could not be resumed.
            TrainingDivergedError: If a loss, gradient, weight or buffer was not finite: a diverged state is never
                saved.
            TypeError: If a callback's state has other values than tensors and plain ones.
        """
        if not self.between_steps:
            raise RuntimeError("a checkpoint cannot be written within a step. Call save from on_step_end or after fit.")
        self.read_metrics()
        self._refresh_ema()  # the batch statistics are saved too
        self._check_finite()
        if self.is_main_process:
            write_checkpoint(folder, self.state.step, self._state_dict(), keep=keep)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the averaged generator and the critic as `generator` and `critic` in a folder.

        Another training can begin with both: see `Network.from_pretrained`, and `condgan.freeze_lower_blocks`. To
        continue this training, use `save` and `resume`.

        Returns:
            The folder.

        Raises:
            TrainingDivergedError: If a loss, gradient, weight or buffer was not finite.
        """
        self.read_metrics()
        self._check_finite()
        if self.is_main_process:
            self.ema.save_pretrained(as_path(folder) / "generator")
            self.networks.critic.save_pretrained(as_path(folder) / "critic")
        return as_path(folder)

    def _check_finite(self) -> None:
        """Check that everything that is saved is finite, also what the last update changed.

        Raises:
            TrainingDivergedError: If something is not.
        """
        if bad := self._not_finite():
            raise TrainingDivergedError(max(0, self.state.step - 1), bad[0])

    def _not_finite(self) -> list[str]:
        """Return the names of weights, buffers and states of optimizers that hold NaN or infinity."""
        tensors = {
            f"{part}.{name}": value
            for part, module in self._modules().items()
            for name, value in module.state_dict().items()
        }
        for role, updater in self._updaters.items():
            for i, state in enumerate(updater.optimizer.state.values()):
                tensors |= {f"{role}_optimizer.{i}.{name}": value for name, value in state.items()}
        return not_finite((name, value) for name, value in tensors.items() if isinstance(value, Tensor))

    def resume(self, folder: str | Path) -> bool:
        """Load the newest undamaged checkpoint in `folder`: all of it, or with an error nothing.

        A checkpoint of another type of device gives its networks, optimizers and progress; the draws begin anew there,
        so that the result is not that of an uninterrupted training, which a warning says. Functions of the progress of
        training are compared by their values at 0, 1/8, ..., 7/8; terms of your own by their `repr`, or their public
        attributes when the trainer was made, so that numbers that change in training belong in buffers or private
        attributes. `fit` warns if it is then called with other arguments than before.

        Returns:
            Whether there was one.

        Raises:
            ValueError: If there are checkpoints but all are damaged, or the trainer or its networks were others; the
                message names all differences.
        """
        content = read_newest_checkpoint(folder, parts=[*_ENTRIES, *self._parts()])
        if content is None:
            return False
        then = content["settings"] | {"device": self.device.type}  # one of another device is loaded too
        now = self.settings
        if "format" not in content:
            now = {name: value for name, value in now.items() if name not in _SINCE_FORMAT_1}
        if changed := [*changes(then, now)] or [*misfits(content, self._parts())]:
            raise ValueError(
                f"the checkpoint in {folder} was made with other settings: {'; '.join(changed)}. "
                "Make the Trainer as it was, or choose another folder."
            )
        if content["settings"]["device"] != self.device.type:
            warnings.warn(
                f"the checkpoint in {folder} was written on {content['settings']['device']}, got a trainer on "
                f"{self.device.type}. Training continues with draws of its own, not bit for bit as it would there.",
                stacklevel=2,
            )
        self._load_state_dict(content)
        return True

    def _modules(self) -> dict[str, nn.Module]:
        modules = {
            "generator": self.networks.generator,
            "critic": self.networks.critic,
            "ema": self._ema.generator,
            "critic_regularizers": nn.ModuleList(self.terms.critic_regularizers),
            "generator_regularizers": nn.ModuleList(self.terms.generator_regularizers),
        }
        if isinstance(self.terms.augment, nn.Module):
            modules["augment"] = self.terms.augment
        return modules

    def _parts(self) -> dict[str, Any]:
        return {
            **self._modules(),
            **{f"{role}_optimizer": updater.optimizer for role, updater in self._updaters.items()},
        }

    def _state_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "state": asdict(self.state),
            "critic_updates": self._critic_updates,
            "ema_updates": self._ema.updates,
            "data_fingerprint": self._data_fingerprint,
            "rng": self._rng.get_state() if self._inputs is None else self._inputs.rng_state,
            "sample_rng": self._sample_rng.get_state(),
            "default_rngs": self._default_rngs.states,
            "callbacks": [(type(callback).__name__, callback.state_dict()) for callback in self.callbacks],
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def _load_state_dict(self, content: dict[str, Any]) -> None:
        self._restore_callbacks(content["callbacks"])  # first, because those of the user's own may raise
        self.state = TrainerState(**content["state"])
        self._critic_updates = content["critic_updates"]
        self._ema.updates = content["ema_updates"]
        self._data_fingerprint = content["data_fingerprint"]
        self._resumed_with = {"steps": self.state.total_steps, **self.state.fit_arguments}
        if content["settings"]["device"] == self.device.type:
            self._rng.set_state(content["rng"])
            self._sample_rng.set_state(content["sample_rng"])
            self._default_rngs.states = content["default_rngs"]
        else:
            for rng in (self._rng, self._sample_rng, self._default_rngs):
                rng.manual_seed(self.seed + (self.state.step << 32))  # not what was drawn before
        for name, module in self._modules().items():
            module.load_state_dict(content[name])
        for role, updater in self._updaters.items():
            updater.load_state_dict(content[f"{role}_optimizer"])
        self._ema_ready_at = self.state.step
        self._guard = FiniteGuard()
        self.engine.forget()
        self.between_steps = True

    def _restore_callbacks(self, states: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Give each callback the saved state of the next one of its class; additional callbacks keep their state."""
        remembered: dict[str, list[dict[str, Any]]] = {}
        for name, state in states:
            remembered.setdefault(name, []).append(state)
        for callback in self.callbacks:
            if remembered.get(type(callback).__name__):
                callback.load_state_dict(remembered[type(callback).__name__].pop(0))

    def _observers(self) -> tuple[Callback, ...]:
        """Return the callbacks and the progress bar of `fit` itself."""
        return self.callbacks if self._bar is None else (self._bar, *self.callbacks)


@contextmanager
def interrupt_between_steps(request_stop: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a stop after the current step; a second one interrupts at once."""
    caught = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield caught.is_set
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(signum: int, frame: Any) -> None:
        if caught.is_set():
            raise KeyboardInterrupt
        caught.set()
        request_stop("interrupted")
        os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")  # print must not be entered again

    signal.signal(signal.SIGINT, handle)
    try:
        yield caught.is_set
    finally:
        signal.signal(signal.SIGINT, previous)


def _in_order(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    check_kinds("callbacks", callbacks, Callback, "callbacks, such as ProgressBar()")
    return tuple(sorted(callbacks, key=lambda callback: callback.runs_last))
