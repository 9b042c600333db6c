"""Twenty steps of every recipe still move the weights as far as when `test_same_numbers.json` was written.

A change that should not move numbers, such as a new layout of files or a faster kernel, leaves this test green.
One that should, such as another default or another order of draws, makes it red: say in the changelog that results
change, and write the numbers anew with `python tests/test_same_numbers.py`.

All is computed in float64, where rounding moves a sum by less than 1e-12 of itself: the committed numbers hold on
other machines. Averages decay over more steps than these, and do not show `ema_decay`.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

import condgan as cg
from condgan.recipes import RECIPES

FILE = Path(__file__).with_suffix(".json")


def sums_of_changes(name: str) -> dict[str, float]:
    """Return how far 20 steps in float64 move each network of a recipe on made-up images: the sum over all weights."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(torch.tensor([12, 8, 4]))
    images = torch.randint(0, 256, (24, 1, 16, 16), generator=rng, dtype=torch.uint8)
    data = cg.data.ArrayDataset(images, labels)
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)  # initial weights too: rounding must not depend on the machine
        trainer = RECIPES[name](data, base_channels=4, precision="fp32", device="cpu", seed=3)
    finally:
        torch.set_default_dtype(default)
    networks = {"generator": trainer.networks.generator, "critic": trainer.networks.critic, "average": trainer.ema}
    before = {key: [weight.detach().clone() for weight in network.parameters()] for key, network in networks.items()}
    trainer.fit(data, steps=20, batch_size=8, progress=False)
    return {
        key: sum((new - old).abs().sum().item() for new, old in zip(network.parameters(), before[key], strict=True))
        for key, network in networks.items()
    }


@pytest.mark.parametrize("name", RECIPES)
def test_numbers_are_those_of_before(name):
    assert sums_of_changes(name) == pytest.approx(json.loads(FILE.read_text(encoding="utf-8"))[name], rel=1e-8)


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: sums_of_changes(name) for name in RECIPES}, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{FILE} is written\n")
