"""The training loop: draws, steps, optimizers, averages, callbacks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from collections.abc import Generator as StepByStep
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from condgan.networks.base import Critic, Generator
from condgan.regularizers import CriticRegularizer, GeneratorRegularizer
from condgan.sampling import ClassLaw, LabelLaw, sample
from condgan.training.callbacks import Callback, Checkpoint, callback_states, restore_callbacks
from condgan.training.checkpoint import read_newest_checkpoint, write_checkpoint
from condgan.training.checks import check_data, check_regularizers, check_terms
from condgan.training.distributed import any_process, broadcast, rank_and_world
from condgan.training.divergence import FiniteLatch
from condgan.training.ema import ExponentialMovingAverage, reestimate_statistics
from condgan.training.engines import EngineName, NoInputs, Update, make_engine
from condgan.training.interruption import interrupt_between_steps
from condgan.training.lookahead import Lookahead
from condgan.training.optimizer import OptimizerConfig, Schedule, schedule_factor
from condgan.training.player import Player, Role
from condgan.training.randomness import DefaultRngs
from condgan.training.sampler import Request, Sampler
from condgan.training.setup import best_device, describe, fastest_convolutions, make_sampler
from condgan.training.state import TrainerState
from condgan.training.step import Networks, Precision, Terms, critic_step, generator_step
from condgan.training.stores import ImageStore
from condgan.types import (
    AdversarialLoss,
    Augmentation,
    AuxiliaryLoss,
    LabelledData,
    StepInputs,
)


class Trainer:
    r"""Trains a generator against a critic.

    In each step the critic is updated `critic_steps` times and the generator once, each on a batch of its own:

    $$ \min_C \; \ell_C(C(x), C(G(z, y))) + \sum_i a_i + \sum_j r_j, \qquad
       \min_G \; \ell_G(C(x), C(G(z, y))) + \sum_i a'_i + \sum_j r'_j $$

    with the adversarial loss $\ell$, auxiliary class terms $a$ and regularizers $r$, each with its own weight.

    Args:
        generator: Maps latents and labels to images.
        critic: Maps images and labels to a `CriticOutput`.
        loss: The adversarial loss.
        auxiliary: One auxiliary loss or several.
        regularizers: Regularizers of the critic and of the generator, in one list.
        augment: Differentiable augmentation in front of the critic, of real and generated images.
        critic_steps: Critic updates for each generator update.
        generator_optimizer: Adam settings of the generator.
        critic_optimizer: Adam settings of the critic.
        schedule: Factor of both learning rates over the progress of training.
        ema_decay: Final decay of the averaged generator, in [0, 1).
        label_law: Law of the labels of generated images.
        sampling: Law of the classes of real images.
        dequantize: Add uniform noise of one grey level to real uint8 images.
        precision: `"fp32"`, which on CUDA means TF32 in convolutions unless PyTorch is told otherwise; or `"bf16"` for
            autocast passes with losses and norms in float32.
        engine: How updates are run, with the same results: `"eager"` as written; `"cuda_graph"` recorded once for
            each kind of update and replayed; `"cuda_graph_iteration"` all of a step recorded as one, draws and average
            included, which takes the least of the host's time; `"auto"` is `"cuda_graph"` on CUDA. What cannot be
            recorded runs in the next simpler way, with a warning. `trainer.engine.name` says what runs.
        device: Where to train; by default CUDA, then MPS, then the CPU.
        seed: Seed of all draws in training.
        callbacks: Observers, called in this order, but checkpoints last: they hold what the others did in the step.

    Raises:
        TypeError: If an entry of `regularizers` is none.
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
        generator_optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        critic_optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        schedule: Schedule = "constant",
        ema_decay: float = 0.999,
        label_law: LabelLaw = "uniform",
        sampling: ClassLaw = "natural",
        dequantize: bool = False,
        precision: Precision = "fp32",
        engine: EngineName = "auto",
        device: torch.device | str | None = None,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.device = torch.device(device) if device is not None else best_device()
        self.rng = torch.Generator(self.device).manual_seed(seed)
        self.engine = make_engine(engine, self.device, rngs=(self.rng,))
        check_regularizers(regularizers)
        self.terms = Terms(
            loss=loss,
            auxiliary=(auxiliary,) if isinstance(auxiliary, AuxiliaryLoss) else tuple(auxiliary),
            critic_regularizers=[r.to(self.device) for r in regularizers if isinstance(r, CriticRegularizer)],
            generator_regularizers=[r.to(self.device) for r in regularizers if isinstance(r, GeneratorRegularizer)],
            augment=augment,
            precision=precision,
        )
        self.networks = Networks(generator.to(self.device), critic.to(self.device))
        check_terms(self.networks, self.terms, label_law=label_law, critic_steps=critic_steps)
        schedule_factor(schedule, 0.0)
        self.critic_steps = critic_steps
        self.schedule = schedule
        self.label_law = label_law
        self.sampling = sampling
        self.dequantize = dequantize
        self.seed = seed
        self.callbacks = tuple(sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint)))
        self.state = TrainerState()
        self.last_evaluation: dict[str, float] = {}
        self.between_steps = True
        self._sampler: Sampler | None = None
        self._inputs: Lookahead | None = None
        self._sample_rng = torch.Generator(self.device).manual_seed(seed + 1)
        self.players: dict[Role, Player] = {
            "generator": Player("generator", generator, generator_optimizer),
            "critic": Player("critic", critic, critic_optimizer),
        }
        self.ema_decay = ema_decay
        self._ema = ExponentialMovingAverage(generator, ema_decay)
        self._ema_ready_at: int | None = None
        # What changes from step to step and is read on the device: a CUDA graph keeps Python's numbers as they were.
        self._step_number = torch.zeros((), dtype=torch.int64, device=self.device)
        self._ema_weight = torch.zeros((), dtype=next(generator.parameters()).dtype, device=self.device)
        self._latch = FiniteLatch()
        self._critic_updates = 0
        self._data_fingerprint: str | None = None
        self._default_rngs = DefaultRngs(self.device, seed)
        self._stop_reason: str | None = None

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes files and shows progress."""
        return rank_and_world()[0] == 0

    @property
    def ema(self) -> Generator:
        """The averaged generator, in evaluation mode, with batch statistics re-estimated for its weights.

        The statistics are averages over 1 024 samples under the label law of generator steps.
        """
        if self._ema_ready_at != self.state.step and self._sampler is not None:
            rng = torch.Generator(self.device).manual_seed(self.seed + 2)
            reestimate_statistics(self._ema.generator, [self._sampler.latents_and_labels(128, rng) for _ in range(8)])
            self._ema_ready_at = self.state.step
        return self._ema.generator

    @property
    def settings(self) -> dict[str, Any]:
        """How this trainer is set up, as plain values for logs and results."""
        return describe(self)

    def fit(
        self,
        data: LabelledData,
        *,
        steps: int,
        batch_size: int = 64,
        generator_batch_size: int | None = None,
        max_resident_bytes: int = 2**32,
    ) -> TrainerState:
        """Train until `steps` generator updates have been done in all.

        After `resume` the call continues: with the same arguments the result equals that of an uninterrupted run, on
        CUDA up to the rounding of kernels that add up in no fixed order.
        Ctrl-C ends training behind the present step, with checkpoints written, and then raises KeyboardInterrupt.

        Args:
            data: Labelled samples of the networks' shape and classes.
            steps: Total of generator updates; schedules run over it.
            batch_size: Real, and generated, samples of a critic step, over all processes.
            generator_batch_size: Samples of a generator step; by default `batch_size`.
            max_resident_bytes: Images up to this size are copied to the device once; a larger set stays in host memory
                and is sent ahead of each step. The samples are the same.

        Returns:
            The state at the end.

        Raises:
            ValueError: If the data do not fit the networks, or are other data than before `resume`.
            TrainingDivergedError: If a loss or gradient was not finite.
            KeyboardInterrupt: Behind the step in which Ctrl-C was pressed.
        """
        inputs = self._begin_fit(
            data,
            steps=steps,
            batch_size=batch_size,
            generator_batch_size=generator_batch_size,
            max_resident_bytes=max_resident_bytes,
        )
        with interrupt_between_steps(self.request_stop) as interrupted:
            for _ in self._steps(inputs, interrupted):
                pass
        return self.state

    def _begin_fit(
        self,
        data: LabelledData,
        *,
        steps: int,
        batch_size: int,
        generator_batch_size: int | None,
        max_resident_bytes: int,
        store: ImageStore | None = None,
    ) -> Lookahead:
        """Check what `fit` is given and return the inputs of its steps; `store` already has the images of the data."""
        generator_batch_size = batch_size if generator_batch_size is None else generator_batch_size
        check_data(self.networks, data, steps=steps, batch_size=batch_size, generator_batch_size=generator_batch_size)
        if self._data_fingerprint not in (None, data.fingerprint):
            raise ValueError(
                f"training began on other data (fingerprint {self._data_fingerprint}, got {data.fingerprint}). "
                "Resume with the same data, or make a new Trainer from the networks to go on with other data."
            )
        self._data_fingerprint = data.fingerprint
        self.state.total_steps = steps
        self._stop_reason = None
        self._sampler = make_sampler(self, data, max_resident_bytes, store=store)
        critic_request = Request(batch_size)
        generator_request = Request(generator_batch_size, real=self.terms.loss.needs_real_scores)
        self._inputs = Lookahead(self._sampler, [critic_request] * self.critic_steps + [generator_request])
        if self.engine.name == "cuda_graph_iteration":
            self.engine.forget()  # iterations that drew from another sampler
            if obstacle := self._obstacle_to_iterations(self._sampler):
                self.engine.fall_back(obstacle)
        for part in self._modules().values():
            broadcast([*part.parameters(), *part.buffers()])
        return self._inputs

    def _steps(self, inputs: Lookahead, interrupted: Callable[[], bool]) -> StepByStep[None, None, None]:
        """Train to the end of `fit`, and yield after each step."""
        total = self.state.total_steps
        try:
            self._call("on_fit_start")
            while self.state.step < total and not any_process(self._stop_reason is not None, self.device):
                self._step(inputs)
                yield
            self.read_metrics()
            if any_process(interrupted(), self.device):
                raise KeyboardInterrupt
            self._call("on_fit_end")
        except BaseException as error:
            for callback in self.callbacks:
                callback.on_exception(self, error)
            raise
        finally:
            inputs.close()

    def _step(self, inputs: Lookahead) -> None:
        self.between_steps = False
        self.networks.generator.train()
        self.networks.critic.train()
        factor = schedule_factor(self.schedule, self.state.step / self.state.total_steps)
        for player in self.players.values():
            player.set_learning_rate(factor)
        if self.engine.name == "cuda_graph_iteration":
            self._iterate_at_once(inputs)
        else:
            self._iterate(inputs)
        self.state.step += 1
        self.between_steps = True
        self._call("on_generator_step_end")
        self._call("on_step_end")

    def _iterate(self, inputs: Lookahead) -> None:
        """Do the updates of a step one by one."""
        for request in inputs.steps[:-1]:
            self._run("critic", self._critic_updates, next(inputs))
            self._critic_updates += 1
            self.state.images_seen += request.batch_size
            self._call("on_critic_step_end")
        self._run("generator", self.state.step, next(inputs))
        self._ema.update(self.networks.generator)

    def _run(self, role: Role, number: int, inputs: StepInputs) -> None:
        kind, update = self._update(role, number)
        with self._as_in_training():
            metrics = self.engine.run(kind, update, inputs)
        self._latch.observe(metrics, self.state.step)

    def _iterate_at_once(self, inputs: Lookahead) -> None:
        """Do the updates of a step, with their draws and what follows them, as one update."""
        updates = [self._update("critic", self._critic_updates + i) for i in range(self.critic_steps)]
        updates.append(self._update("generator", self.state.step))

        def iterate(nothing: NoInputs) -> dict[str, Tensor]:
            for (_, update), request in zip(updates, inputs.steps, strict=True):
                self._latch.observe(update(inputs.sampler.draw(request)), self._step_number)
            self._ema.move(self.networks.generator, self._ema_weight)
            return {}

        self._step_number.fill_(self.state.step)
        self._ema_weight.fill_(self._ema.next_weight())
        with self._as_in_training():
            self.engine.run(tuple(kind for kind, _ in updates), iterate, NoInputs())
        self._critic_updates += self.critic_steps
        self.state.images_seen += sum(request.batch_size for request in inputs.steps[:-1])

    def _obstacle_to_iterations(self, sampler: Sampler) -> str | None:
        """Return why the iterations of `fit` cannot be recorded as a whole, or None if they can."""
        if sampler.store.lookahead:
            return "images that are not on the device are sent ahead of each update (see max_resident_bytes)"
        for callback in self.callbacks:
            if getattr(callback.on_critic_step_end, "__func__", None) is not Callback.on_critic_step_end:
                return f"{type(callback).__name__} wants to be called between the updates of an iteration"
        return None

    def _update(self, role: Role, number: int) -> tuple[Hashable, Update[StepInputs]]:
        """Return the kind of an update and the update; with other lazy terms active it is another kind."""
        terms = self.terms.due(number)
        active = terms.critic_regularizers if role == "critic" else terms.generator_regularizers
        step = critic_step if role == "critic" else generator_step

        def update(inputs: StepInputs) -> dict[str, Tensor]:
            return self.players[role].update(step(self.networks, terms, inputs))

        return (role, *map(id, active)), update

    @contextmanager
    def _as_in_training(self) -> Iterator[None]:
        """Draw what dropout draws from the trainer's own generators, and use the convolutions that are fastest."""
        with self._default_rngs.active(), fastest_convolutions(self.device):
            yield

    def request_stop(self, reason: str) -> None:
        """End `fit` behind the present step."""
        self._stop_reason = reason

    def read_metrics(self) -> dict[str, float]:
        """Read the newest metrics from the device into `state.metrics` and return them.

        Raises:
            TrainingDivergedError: If a loss or gradient was not finite in any step so far.
        """
        self.state.metrics |= self._latch.read()
        return self.state.metrics

    def sample(self, y: Tensor | Sequence[int] | int, *, seed: int | None = None) -> Tensor:
        """Generate one image for each label with the averaged generator.

        Args:
            y: Labels, or for unconditional networks the number of images.
            seed: Seed of the latents; by default each call draws new ones. Training draws are not disturbed.

        Shape:
            - `y`: `(N,)`, integers in `[0, K)`. Output: `(N, C, H, W)`, float in [-1, 1].

        Raises:
            ValueError: If the labels do not fit the generator.
        """
        self._latch.check()
        rng = self._sample_rng if seed is None else torch.Generator(self.device).manual_seed(seed)
        return sample(self.ema, y, rng=rng)

    def save(self, folder: str | Path, *, keep: int = 2) -> None:
        """Write a checkpoint of everything that the next step depends on, and keep the newest `keep`.

        Raises:
            RuntimeError: If called from within a step, whose rest could not be resumed.
            TrainingDivergedError: If a loss or gradient was not finite: a diverged state is never saved.
        """
        if not self.between_steps:
            raise RuntimeError("a checkpoint must be written between steps: call save from on_step_end or after fit.")
        self.read_metrics()
        if self.is_main_process:
            _ = self.ema  # the saved average must have statistics that fit it
            write_checkpoint(folder, self.state.step, self._state_dict(), keep=keep)

    def resume(self, folder: str | Path) -> bool:
        """Load the newest good checkpoint in `folder`.

        Returns:
            Whether there was one.

        Raises:
            ValueError: If there are checkpoints but none can be read, or it comes from another set-up.
        """
        content = read_newest_checkpoint(folder)
        if content is None:
            return False
        if content["settings"] != self.settings:
            changed = [k for k, v in self.settings.items() if content["settings"].get(k) != v]
            raise ValueError(
                f"the checkpoint in {folder} was made with other settings: {', '.join(changed)} differ. "
                "Make the Trainer as it was, or choose another folder."
            )
        self._load_state_dict(content)
        return True

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "generator": self.networks.generator,
            "critic": self.networks.critic,
            "ema": self._ema.generator,
            "critic_regularizers": nn.ModuleList(self.terms.critic_regularizers),
            "generator_regularizers": nn.ModuleList(self.terms.generator_regularizers),
        }

    def _parts(self) -> dict[str, Any]:
        return {
            **self._modules(),
            **{f"{role}_optimizer": player.optimizer for role, player in self.players.items()},
        }

    def _state_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "state": asdict(self.state),
            "critic_updates": self._critic_updates,
            "ema_updates": self._ema.updates,
            "data_fingerprint": self._data_fingerprint,
            "rng": self.rng.get_state() if self._inputs is None else self._inputs.rng_state,
            "sample_rng": self._sample_rng.get_state(),
            "default_rngs": self._default_rngs.states,
            "callbacks": callback_states(self.callbacks),
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def _load_state_dict(self, content: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        self.state = TrainerState(**content["state"])
        self._critic_updates = content["critic_updates"]
        self._ema.updates = content["ema_updates"]
        self._data_fingerprint = content["data_fingerprint"]
        self.rng.set_state(content["rng"])
        self._sample_rng.set_state(content["sample_rng"])
        self._default_rngs.states = content["default_rngs"]
        self._ema_ready_at = self.state.step
        self._latch = FiniteLatch()
        self.engine.forget()
        self.between_steps = True
        restore_callbacks(self.callbacks, content["callbacks"])

    def _call(self, hook: str) -> None:
        for callback in self.callbacks:
            due = self.state.step % callback.every == 0 or self.state.step == self.state.total_steps
            if hook != "on_step_end" or due:
                getattr(callback, hook)(self)

    def evaluated(self, metrics: dict[str, float]) -> None:
        """Put the results of an evaluation into `state.metrics` and tell the callbacks."""
        self.last_evaluation = metrics
        self.state.metrics |= metrics
        self._call("on_evaluate_end")
