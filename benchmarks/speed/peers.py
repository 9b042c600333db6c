"""Two older GAN libraries that train the benchmark's networks with their own, unmodified WGAN-GP code.

Neither is maintained. Both install beside the library with `pip install --no-deps -r benchmarks/speed/peers.txt`; what
they import for metrics and logging is stubbed while they are imported, where it is missing. They get batches from
memory and PyTorch's plain layers, as the tutorial loop does, and have no class loss: the class head is not
computed. Printing, checkpoints and summaries are off; all else that their training steps do is left to them, losses
read back to the host included.

An iteration, five batches and one update of the generator, is not the same work in each:

- mimicry: one critic step a batch with the loss of the tutorial loop, class loss aside. The interpolation weights are
  drawn on the host and copied at the full size of the images; three values a critic step are read back.
- torchgan: two critic steps per batch, one on the Wasserstein loss and one on the penalty, each on fakes of its own: 10
  critic updates and 11 passes of the generator an iteration, where 5 and 6 would do. The penalty also runs backward
  through the generator, for nothing; it has one interpolation weight per batch, and holds the norm of the whole batch's
  gradient at 1 in place of each sample's. The squared gradient of each parameter is summed and read back on its own.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

import torch
from subjects import CRITIC_STEPS, make_data, make_networks, with_plain_layers
from timing import Run
from torch import Tensor

import condgan as cg

MODULES = {"torchgan": "torchgan", "mimicry": "torch_mimicry"}
NOT_FOR_TRAINING = (
    "scipy",
    "skimage",
    "sklearn",
    "sklearn.metrics",
    "sklearn.metrics.pairwise",
    "tensorflow",
    "torch._six",
    "torch.utils.tensorboard",
)
ADAM = {"name": torch.optim.Adam, "args": {"lr": 2e-4, "betas": (0.0, 0.9)}}
GRADIENT_PENALTY = 10.0


def make_torchgan(kind: str, size: int, *, base: int, batch: int, device: str) -> Run:
    """Return a function that does one iteration with torchgan's `Trainer.train_iter`.

    The trainer counts the penalty as a critic iteration of its own, and still updates the generator with every fifth
    batch. Its `train` is the loop of `iterate`, with a checkpoint and a figure an epoch, left out here.
    """
    torchgan = import_peer("torchgan")
    generator, critic = plain_networks(kind, size, base)

    class Generator(torchgan.models.Generator):
        def __init__(self) -> None:
            super().__init__(generator.latent_dim, label_type="generated")
            self.num_classes = generator.num_classes
            self.network = generator

        def forward(self, z: Tensor, y: Tensor) -> Tensor:
            return self.network(z, y)

    class Discriminator(torchgan.models.Discriminator):
        def __init__(self) -> None:
            super().__init__(input_dims=1, label_type="none")
            self.network = critic

        def forward(self, x: Tensor) -> Tensor:
            return score(self.network, x)

    with tempfile.TemporaryDirectory() as folder:
        trainer = torchgan.trainer.Trainer(
            {
                "generator": {"name": Generator, "optimizer": ADAM},
                "discriminator": {"name": Discriminator, "optimizer": ADAM},
            },
            [
                torchgan.losses.WassersteinGeneratorLoss(),
                torchgan.losses.WassersteinDiscriminatorLoss(),
                torchgan.losses.WassersteinGradientPenalty(lambd=GRADIENT_PENALTY),
            ],
            device=torch.device(device),
            ncritic=CRITIC_STEPS,
            checkpoints=f"{folder}/checkpoint",
            recon=folder,
        )
    trainer.batch_size = batch
    loader = ResidentLoader(make_data(size), batch, device)

    def iterate() -> None:
        for x, y in islice(loader, CRITIC_STEPS):
            trainer.real_inputs, trainer.labels = x.to(trainer.device), y.to(trainer.device)
            generator_loss, critic_loss, generator_steps, critic_steps = trainer.train_iter()
            trainer.loss_information["generator_losses"] += generator_loss
            trainer.loss_information["discriminator_losses"] += critic_loss
            trainer.loss_information["generator_iters"] += generator_steps
            trainer.loss_information["discriminator_iters"] += critic_steps

    return iterate


def make_mimicry(kind: str, size: int, *, base: int, batch: int, device: str) -> Run:
    """Return a function that does one iteration with `Trainer.train` of mimicry and its WGAN-GP base classes."""
    mimicry = import_peer("mimicry")
    generator, critic = plain_networks(kind, size, base)

    class Generator(mimicry.nets.wgan_gp.WGANGPBaseGenerator):
        def __init__(self) -> None:
            super().__init__(nz=generator.latent_dim, ngf=base, bottom_width=4)
            self.network = generator

        def forward(self, z: Tensor) -> Tensor:
            return self.network(z, torch.randint(self.network.num_classes, (len(z),), device=z.device))

    class Discriminator(mimicry.nets.wgan_gp.WGANGPBaseDiscriminator):
        def __init__(self) -> None:
            super().__init__(ndf=base, gp_scale=GRADIENT_PENALTY)
            self.network = critic

        def forward(self, x: Tensor) -> Tensor:
            return score(self.network, unpack(x, self.network.image_shape))

        def compute_gradient_penalty_loss(self, real_images: Tensor, fake_images: Tensor, gp_scale: float) -> Tensor:
            return super().compute_gradient_penalty_loss(pack(real_images), pack(fake_images), gp_scale)

    class Trainer(mimicry.training.Trainer):
        def _save_model_checkpoints(self, global_step: int) -> None:
            """Write nothing: the trainer saves at the end of each call, which is one iteration here."""

    net_g, net_d = Generator().to(device), Discriminator().to(device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            netD=net_d,
            netG=net_g,
            optD=ADAM["name"](net_d.parameters(), **ADAM["args"]),
            optG=ADAM["name"](net_g.parameters(), **ADAM["args"]),
            dataloader=ResidentLoader(make_data(size), batch, device),
            num_steps=1,
            n_dis=CRITIC_STEPS,
            device=torch.device(device),
            log_dir=folder,
            **dict.fromkeys(("print_steps", "vis_steps", "log_steps", "save_steps"), sys.maxsize),
        )

    def iterate() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()

    return iterate


PEERS: dict[str, Callable[..., Run]] = {"torchgan": make_torchgan, "mimicry": make_mimicry}


def available() -> dict[str, Callable[..., Run]]:
    """Return those of `PEERS` that can be imported."""
    absent = missing()
    return {name: make for name, make in PEERS.items() if name not in absent}


def missing() -> dict[str, str]:
    """Return why each of the other peers cannot be imported."""
    reasons = {}
    for name in PEERS:
        try:
            import_peer(name)
        except (ImportError, AttributeError) as error:
            reasons[name] = f"{error} (pip install --no-deps -r benchmarks/speed/peers.txt)"
    return reasons


def versions() -> dict[str, str]:
    """Return the versions of the available peers."""
    return {name: version(MODULES[name]) for name in available()}


def import_peer(name: str) -> ModuleType:
    """Import a peer with its logging off, and stubs in place of missing modules that its training does not use."""
    importlib.import_module("torchvision")  # both need it, and it must not come to know the stubs
    silent = dict.fromkeys(("TENSORBOARD_LOGGING", "VISDOM_LOGGING", "CONSOLE_LOGGING"), "0")
    with stubbed(NOT_FOR_TRAINING), patch.dict(os.environ, silent):
        return importlib.import_module(MODULES[name])


@contextlib.contextmanager
def stubbed(names: tuple[str, ...]) -> Iterator[None]:
    """Let modules that cannot be imported be imported as mock objects, until the block ends."""
    stubs = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = MagicMock()
            stubs.append(name)
    try:
        yield
    finally:
        for name in stubs:
            del sys.modules[name]


class ResidentLoader:
    """Stands for a `DataLoader` over images that lie in the device's memory: endless random batches.

    Args:
        data: The images and labels.
        batch_size: Images of each batch.
        device: Where they lie.
    """

    def __init__(self, data: cg.data.ArrayDataset, batch_size: int, device: str) -> None:
        self.images, self.labels = data.images.to(device), data.labels.to(device)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            index = torch.randint(len(self.images), (self.batch_size,), device=self.images.device)
            yield self.images[index].float() / 127.5 - 1, self.labels[index]


def plain_networks(kind: str, size: int, base: int) -> tuple[Any, Any]:
    """Return the benchmark's networks with PyTorch's layers."""
    generator, critic = make_networks(kind, size, base)
    return with_plain_layers(generator), with_plain_layers(critic)


def score(critic: cg.Critic, x: Tensor) -> Tensor:
    """Return scores `(N, 1)`, without the class logits."""
    return critic.score_head(critic.features(x))


def pack(images: Tensor) -> Tensor:
    """Return the pixels as `(N, 3, 1, L)`, with up to two of them once more at the end.

    Three channels are written into the gradient penalty of mimicry. Packed, images of any number of channels pass
    through it at their own size; the critic does not see the pixels at the end, so they have no gradient. It costs
    mimicry four small operations a critic step, 20 of about 1700 in an iteration of the DCGAN at 64 pixels.
    """
    pixels = images.flatten(1)
    surplus = -pixels.shape[1] % 3
    return torch.cat([pixels, pixels[:, :surplus]], 1).view(len(images), 3, 1, -1)


def unpack(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return images of `shape`, be they packed or not."""
    if images.shape[1:] == shape:
        return images
    return images.flatten(1)[:, : math.prod(shape)].view(-1, *shape)
