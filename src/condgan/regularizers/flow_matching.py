"""Flow matching: the training objective of a denoiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from condgan.functional import interpolate, precise
from condgan.regularizers.base import GeneratorObjective
from condgan.schedules import Scheduled
from condgan.types import Denoiser, StepInputs

_NEAREST = 0.1  # the smallest 1 - t that errors are divided by


class FlowMatching(GeneratorObjective):
    r"""The error of the velocity of a `FlowGenerator` on lines from noise to real images.

    $$ \lambda\, \mathbb{E}\, \Big(\frac{D(x_t, t, y) - x}{\max(1 - t, 0.1)}\Big)^2, \qquad
       x_t = (1 - t) \epsilon + t x, \qquad \epsilon \sim \mathcal N(0, 1), \quad t \sim \mathcal U(0, 1) $$

    averaged over pixels. $(D - x_t) / (1 - t)$ is the velocity that the generator estimates, $(x - x_t) / (1 - t) =
    x - \epsilon$ the true one; the bound keeps the images near the end of the line from outweighing all others.

    Deviations from Li and He: there the bound is 0.05, and $t$ is drawn from a logit-normal distribution.

    Args:
        weight: Coefficient $\lambda$, at least 0; or a function of the progress of training.
        every: Apply it only every `every` generator steps; the weight is multiplied by `every`.

    Raises:
        ValueError: If `weight` is negative or `every` less than 1; when called or given to a `Trainer`, if the
            generator is no `FlowGenerator` or other `Denoiser`.

    Examples:
        >>> import condgan as cg
        >>> shape = {"num_classes": 2, "image_shape": (1, 16, 16), "base_channels": 8}
        >>> trainer = cg.Trainer(
        ...     cg.FlowGenerator(**shape),
        ...     cg.ProjectionDCGANCritic(**shape),
        ...     loss=cg.HingeLoss(),
        ...     regularizers=[cg.FlowMatching(10.0)],
        ...     pretraining=0.5,
        ...     device="cpu",
        ... )
        >>> data = cg.data.ChestPhantom((8, 8), classes=2, image_shape=(1, 16, 16))
        >>> trainer.fit(data, steps=4, batch_size=4).metrics["generator/flow_matching"] > 0
        True

    References:
        Lipman et al. 2023, arXiv:2210.02747; Li and He 2025, arXiv:2511.13720.
    """

    needs_noise: ClassVar[bool] = True

    def __init__(self, weight: Scheduled = 10.0, *, every: int = 1) -> None:
        super().__init__(weight, every=every)

    @override
    def objective(self, generator: Callable[..., Tensor], inputs: StepInputs) -> Tensor:
        denoiser = self._denoiser(generator)
        x, t, noise = inputs.x, inputs.epsilon, inputs.noise
        if x is None or noise is None:
            raise ValueError("FlowMatching needs StepInputs.x and StepInputs.noise, got None.")
        estimate = denoiser.denoise(interpolate(x, noise, t), t, inputs.y)
        errors = precise(estimate - x).square().flatten(1).mean(1)
        return (errors / (1 - t).clamp(min=_NEAREST).square()).mean()

    @override
    def check_generator(self, generator: Callable[..., Tensor]) -> None:
        self._denoiser(generator)

    def _denoiser(self, generator: Callable[..., Tensor]) -> Denoiser:
        if isinstance(generator, Denoiser):
            return generator
        raise ValueError(
            "FlowMatching trains a FlowGenerator, or another generator that can denoise, got a "
            f"{type(generator).__name__}. Pass one to the Trainer, or leave FlowMatching out."
        )
