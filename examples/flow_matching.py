"""A class-conditional flow-matching model in place of a GAN, judged by the rules of this library.

`python examples/flow_matching.py FOLDER --minutes 5 --out runs/flow`: FOLDER has one folder of images per class.
Lipman et al. 2022, arXiv:2210.02747: v(x_t, t, y) regresses x - noise at x_t = (1 - t) noise + t x.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, silu
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import condgan as cg
from condgan.files import to_json, write_json


class Block(nn.Module):
    """A residual block whose scale and shift depend on time and class."""

    def __init__(self, c_in: int, c_out: int, c: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1))
        self.norm, self.scale_shift = nn.GroupNorm(8, c_out), nn.Linear(c, 2 * c_out)
        self.second, self.skip = nn.Conv2d(c_out, c_out, 3, padding=1), nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # noqa: D102
        scale, shift = self.scale_shift(embedding)[:, :, None, None].chunk(2, dim=1)
        return self.skip(x) + self.second(silu(self.norm(self.first(x)) * (1 + scale) + shift))


class Velocity(nn.Module):
    """A UNet on the image and two maps of half its size each time; sides must be multiples of 4."""

    def __init__(self, channels: int, num_classes: int, w: int = 24, c: int = 96) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(64, c), nn.SiLU(), nn.Linear(c, c))
        self.label = nn.Embedding(num_classes, c)
        self.first, self.last = nn.Conv2d(channels, w, 3, padding=1), nn.Conv2d(w, channels, 3, padding=1)
        self.down = nn.ModuleList([Block(w, w, c), Block(w, 2 * w, c), Block(2 * w, 2 * w, c)])
        self.up = nn.ModuleList([Block(4 * w, 2 * w, c), Block(4 * w, w, c), Block(2 * w, w, c)])

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:  # noqa: D102
        angles = t[:, None] * torch.exp(torch.linspace(0, 6, 32))
        embedding = silu(self.time(torch.cat([angles.sin(), angles.cos()], dim=1)) + self.label(y))
        h, skips = self.first(x), []
        for level, block in enumerate(self.down):
            h = block(avg_pool2d(h, 2) if level else h, embedding)
            skips.append(h)
        for level, block in enumerate(self.up):
            h = block(torch.cat([interpolate(h, scale_factor=2.0) if level else h, skips.pop()], dim=1), embedding)
        return self.last(h)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--minutes", type=float, default=5)
given = parser.parse_args()
train, test = cg.data.ImageFolder(given.folder, (1, 32, 32)).split(0.15)
network, images = Velocity(1, train.num_classes), cg.images.to_float(train.images)
average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.99))
optimizer = torch.optim.Adam(network.parameters(), betas=(0.9, 0.99))
start, progress = time.monotonic(), 0.0
while progress < 1:
    optimizer.param_groups[0]["lr"] = 2e-3 * min(1, 20 * progress + 0.01, 1.001 - progress)
    index = torch.multinomial(1 / torch.tensor(train.class_counts)[train.labels], 64, replacement=True)
    x, y, t = images[index], train.labels[index], torch.rand(64)
    noise = torch.randn_like(x)
    loss = (network(torch.lerp(noise, x, t[:, None, None, None]), t, y) - (x - noise)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    average.update_parameters(network)
    progress = (time.monotonic() - start) / (60 * given.minutes)
y, x = train.labels.sort().values, torch.randn(len(train), 1, 32, 32)
with torch.no_grad():
    for part, labels in zip(x.split(256), y.split(256), strict=True):
        for step in range(16):
            part += average(part, torch.full((len(part),), step / 16), labels) / 16
generated = cg.data.ArrayDataset(cg.images.to_uint8(x.clamp(-1, 1)), y, class_names=train.class_names)
shown = [int(i) for label in range(train.num_classes) for i in (y == label).nonzero()[:8]]
cg.images.save_sheet(generated.images[shown], given.out / "samples.png", columns=8)
write_json(given.out / "evaluation.json", to_json(cg.metrics.evaluate(generated, train, test=test, held_out=test)))
