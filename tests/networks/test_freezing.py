import pytest
import torch

import condgan as cg

SHAPE = {"num_classes": 3, "image_shape": (1, 32, 32), "base_channels": 8}
CRITICS = {
    "dcgan": lambda: cg.ACDCGANCritic(**SHAPE),
    "r3gan": lambda: cg.TACR3GANCritic(**SHAPE),
    "resnet, attention, spectral norm": lambda: cg.ProjectionResNetCritic(spectral_norm=True, attention_at=16, **SHAPE),
}


def build(critic, data, **options):
    generator = cg.DCGANGenerator(latent_dim=8, **SHAPE)
    return cg.Trainer(generator, critic, loss=cg.HingeLoss(), regularizers=[cg.R1(0.1)], device="cpu", **options)


@pytest.fixture
def data():
    images = torch.randint(256, (12, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    return cg.data.ArrayDataset(images.to(torch.uint8), [0, 1, 2] * 4)


@pytest.mark.parametrize("kind", CRITICS)
@pytest.mark.parametrize("count", [1, 2])
def test_frozen_blocks_stay_and_the_others_learn(kind, count, data):
    critic = cg.freeze_lower_blocks(CRITICS[kind](), count)
    before = {name: value.clone() for name, value in critic.named_parameters()}
    trainer = build(critic, data)
    trainer.fit(data, steps=2, batch_size=4)
    frozen = tuple(f"blocks.{i}." for i in range(count))
    changed = {name for name, value in critic.named_parameters() if not torch.equal(value, before[name])}
    assert not [name for name in changed if name.startswith(frozen)]
    assert [name for name in changed if name.startswith("blocks.")]
    held = sum(len(group["params"]) for group in trainer._updaters["critic"].optimizer.param_groups)
    assert held == sum(not name.startswith(frozen) for name in before)


def test_a_training_begins_with_a_saved_pair(data, tmp_path):
    torch.manual_seed(0)
    first = build(cg.ACDCGANCritic(**SHAPE), data)
    first.fit(data, steps=2, batch_size=4)
    assert first.save_pretrained(tmp_path) == tmp_path
    generator = cg.DCGANGenerator.from_pretrained(tmp_path / "generator")
    critic = cg.ACDCGANCritic.from_pretrained(tmp_path / "critic")
    for loaded, network in ((generator, first.ema), (critic, first.networks.critic)):
        expected = network.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    second = cg.recipes.acgan(data, generator=generator, critic=cg.freeze_lower_blocks(critic, 1), device="cpu")
    assert torch.equal(second.sample([0, 1, 2], seed=0), first.sample([0, 1, 2], seed=0))
    second.fit(data, steps=1, batch_size=4)
    assert torch.equal(second.networks.critic.blocks[0].conv.weight, first.networks.critic.blocks[0].conv.weight)
    assert not torch.equal(second.networks.critic.blocks[1].conv.weight, first.networks.critic.blocks[1].conv.weight)


def test_what_cannot_be_frozen_is_refused(point_networks):
    critic = cg.DCGANCritic(**SHAPE)
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"count must be from 1 to 3, the blocks of the critic, got {count}"):
            cg.freeze_lower_blocks(critic, count)
    assert all(parameter.requires_grad for parameter in critic.parameters())
    with pytest.raises(TypeError, match=r"nn.Sequential named blocks.*got a PointCritic"):
        cg.freeze_lower_blocks(point_networks(None)[1], 1)
