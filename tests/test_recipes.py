import inspect
import re

import pytest
import torch
from torch.nn.utils import parametrize

import condgan as cg
from condgan import recipes
from condgan.nn.layers import batch_norms
from condgan.recipes import CONDITIONAL, RECIPES


def make_data(shape=(1, 28, 28), classes=2, count=10) -> cg.data.ArrayDataset:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=rng)
    return cg.data.ArrayDataset(images, [i % classes for i in range(count)])


def stated(trainer):
    """Return the settings but for what describes networks and terms from the inside."""
    inner = {"generator_arguments", "critic_arguments", "term_attributes", "schedules"}
    return {name: value for name, value in trainer.settings.items() if name not in inner}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name):
    data = make_data((3, 24, 40), classes=5)
    trainer = RECIPES[name](data, base_channels=2, device="cpu")
    state = trainer.fit(data, steps=2, batch_size=4)  # a rate that rises is zero in the first step
    assert state.images_seen == 8 * (1 if trainer.pretraining else trainer.critic_steps)
    y = list(range(data.num_classes)) if name in CONDITIONAL else data.num_classes
    x = trainer.sample(y, seed=0)
    assert x.shape == (data.num_classes, *data.image_shape)
    assert x.abs().max() <= 1
    assert x.std() > 0


@pytest.mark.parametrize("name", sorted({*RECIPES} - {*CONDITIONAL}))
def test_recipes_without_classes_train_on_images_of_one_class(name):
    trainer = RECIPES[name](make_data(classes=1), base_channels=2, device="cpu")
    trainer.fit(make_data(classes=1), steps=1, batch_size=4)
    assert trainer.sample(3, seed=0).shape == (3, 1, 28, 28)


def test_names_and_kinds():
    assert {name: getattr(recipes, name) for name in RECIPES} == RECIPES
    assert set(RECIPES) >= {"dcgan", "cgan", "acgan", "wgan", "wgan_gp", "acwgan_gp", "small_data"}
    assert set(CONDITIONAL) >= {"sngan_projection", "tacgan", "adcgan", "reacgan"}
    for name, recipe in RECIPES.items():
        generator = recipe(make_data(), base_channels=2, device="cpu").networks.generator
        assert (generator.num_classes is not None) == (name in CONDITIONAL)
        assert re.search(r"arXiv:\d{4}\.\d{4,5}", inspect.getdoc(recipe))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_networks_and_vectors(name, point_networks):
    data = cg.data.ArrayDataset(torch.randn(16, 2), [0, 1] * 8)
    heads = {**dict.fromkeys(("cgan", "small_data", "sngan_projection", "r3gan"), "label")}
    heads |= {
        "acgan": "class",
        "acwgan_gp": "class",
        "tacgan": "twin",
        "adcgan": "real or fake",
        "reacgan": "embedding",
    }
    head = heads.get(name.removesuffix("_2017"), "plain")
    classes, denoises = 2 if name in CONDITIONAL else None, name == "small_data"
    generator, critic = point_networks(classes, head=head, width=8, denoises=denoises)
    trainer = RECIPES[name](data, generator=generator, critic=critic, device="cpu")
    assert (trainer.networks.generator, trainer.networks.critic) == (generator, critic)
    trainer.fit(data, steps=2, batch_size=4)
    y = [0, 1, 1] if name in CONDITIONAL else 3
    assert trainer.sample(y).shape == (3, 2)
    with pytest.raises(ValueError, match=r"images of shape \(C, H, W\), got samples of shape \(2,\)"):
        RECIPES[name](data, generator=generator)


@pytest.mark.parametrize("networks", ["dcgan", "resnet", "r3gan"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_on_each_family_of_networks(name, networks):
    data = make_data()
    trainer = RECIPES[name](data, networks=networks, base_channels=2, device="cpu")
    trainer.fit(data, steps=1, batch_size=4)
    generator, critic = trainer.networks.generator, trainer.networks.critic
    family = {"dcgan": "DCGAN", "resnet": "ResNet", "r3gan": "R3GAN"}[networks]
    assert type(generator).__name__ == ("FlowGenerator" if name == "small_data" else f"{family}Generator")
    assert type(critic).__name__.endswith(f"{family}Critic")
    own = RECIPES[name](data, base_channels=2, device="cpu").networks.critic
    assert critic.score_needs_labels == own.score_needs_labels
    assert ("class_head" in dict(critic.named_children())) == ("class_head" in dict(own.named_children()))
    spectral = any(parametrize.is_parametrized(module) for module in critic.modules())
    assert spectral is (networks != "r3gan" and any(map(parametrize.is_parametrized, own.modules())))
    if trainer.terms.critic_regularizers or spectral or networks != "dcgan":
        assert not any(batch_norms(critic))
    else:
        assert any(batch_norms(critic))


def test_networks_of_the_other_family_are_those_that_one_would_make_by_hand():
    made = {
        "acwgan_gp": ("dcgan", cg.DCGANGenerator, {"conditioning": "batch_norm"}, cg.ACDCGANCritic),
        "acgan": ("resnet", cg.ResNetGenerator, {}, cg.ACResNetCritic),
    }
    shape = {"num_classes": 2, "image_shape": (1, 28, 28), "base_channels": 2}
    for name, (networks, generator_class, options, critic_class) in made.items():
        trainer = RECIPES[name](make_data(), networks=networks, base_channels=2, device="cpu", seed=5)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            by_hand = generator_class(**shape, **options), critic_class(**shape)
        for network, expected in zip((trainer.networks.generator, trainer.networks.critic), by_hand, strict=True):
            assert network.config == expected.config
            for one, other in zip(network.parameters(), expected.parameters(), strict=True):
                assert torch.equal(one, other)


@pytest.mark.parametrize("name", RECIPES)
def test_unknown_networks_are_refused(name):
    with pytest.raises(ValueError, match=r"networks must be .*got 'resnets'. Did you mean 'resnet'\?"):
        RECIPES[name](make_data(), networks="resnets")


@pytest.mark.parametrize(("side", "weight"), [(32, 0.2), (64, 0.8)])
def test_small_data_is_what_its_documentation_says(side, weight):
    trainer = recipes.small_data(make_data((1, side, side)), base_channels=2, device="cpu")
    assert (trainer.networks.generator.steps, trainer.networks.generator.training_steps) == (8, 4)
    assert not any(batch_norms(trainer.networks.critic))
    of_generator, of_critic = (trainer.settings[f"{role}_optimizer"] for role in ("generator", "critic"))
    rates = [(0.0, 0.0), (0.045, 2e-3), (0.9, 0.0), (0.93, 2e-4), (1.0, 0.0)]
    found = eval(of_generator["lr"], {"PiecewiseLinearSchedule": cg.PiecewiseLinearSchedule})
    assert [found(place) for place, _ in rates] == pytest.approx([rate for _, rate in rates])
    assert of_critic["lr"] == repr(cg.PiecewiseLinearSchedule([(0.9, 1e-3), (1.0, 0.0)]))
    adam = {"eps": 1e-8, "weight_decay": 0.0}
    assert stated(trainer) == {
        "generator": "FlowGenerator",
        "critic": "ProjectionDCGANCritic",
        "loss": repr(cg.RelativisticLoss()),
        "auxiliary": [],
        "regularizers": [repr(cg.R1(weight)), repr(cg.R2(weight)), repr(cg.FlowMatching(10.0))],
        "augment": repr(cg.DiffAugment(policy="translation,cutout")),
        "critic_steps": 1,
        "generator_optimizer": {"lr": of_generator["lr"], "betas": (0.9, 0.99), **adam},
        "critic_optimizer": {"lr": of_critic["lr"], "betas": (0.0, 0.9), **adam},
        "schedule": "constant",
        "ema_decay": 0.99,
        "label_distribution": "paired",
        "sampling": "balanced",
        "dequantize": False,
        "precision": "bf16",
        "device": "cpu",
        "seed": 0,
        "pretraining": 0.9,
    }
    given = recipes.small_data(make_data(), base_channels=2, penalty_weight=0.7, device="cpu")
    assert given.settings["regularizers"][:2] == [repr(cg.R1(0.7)), repr(cg.R2(0.7))]


@pytest.mark.parametrize("pretraining", [-0.1, 1.0])
def test_small_data_refuses_a_share_out_of_range(pretraining):
    with pytest.raises(ValueError, match=r"pretraining must lie in \[0, 1\), a share of the steps, got"):
        recipes.small_data(make_data(), base_channels=2, pretraining=pretraining)


@pytest.mark.parametrize("pretraining", [0.0, 0.5])
def test_small_data_trains_with_another_share_of_pretraining(pretraining):
    data = make_data((1, 16, 16))
    trainer = recipes.small_data(data, base_channels=2, pretraining=pretraining, device="cpu")
    trainer.fit(data, steps=4, batch_size=4)
    assert trainer._critic_updates == 4 * (1 - pretraining)


@pytest.mark.parametrize(
    ("shape", "weight"),
    [
        ((16, 16), 0.05),
        ((32, 32), 0.05),
        ((64, 64), 2.0),
        ((256, 256), 150.0),
        ((512, 512), 150.0),
        ((32, 128), 2.0),
        ((128, 128), 300**0.5),
    ],
)
def test_r3gan_is_what_its_documentation_says(shape, weight):
    trainer = recipes.r3gan(make_data((1, *shape), count=4), base_channels=2, device="cpu")
    adam = {"lr": 2e-4, "betas": (0.0, repr(cg.CosineSchedule(0.9, 0.99))), "eps": 1e-8, "weight_decay": 0.0}
    regularizers = trainer.terms.critic_regularizers
    assert [type(regularizer) for regularizer in regularizers] == [cg.R1, cg.R2]
    for regularizer in regularizers:
        assert [regularizer.weight(p) for p in (0.0, 1.0)] == pytest.approx([weight, weight / 10], rel=1e-2)
    assert stated(trainer) == {
        "generator": "R3GANGenerator",
        "critic": "ProjectionR3GANCritic",
        "loss": repr(cg.RelativisticLoss()),
        "auxiliary": [],
        "regularizers": [repr(regularizer) for regularizer in regularizers],
        "augment": None,
        "critic_steps": 1,
        "generator_optimizer": adam,
        "critic_optimizer": adam,
        "schedule": repr(cg.CosineSchedule(1.0, 0.25)),
        "ema_decay": 0.999,
        "label_distribution": "paired",
        "sampling": "balanced",
        "dequantize": False,
        "precision": "fp32",
        "device": "cpu",
        "seed": 0,
    }
    given = recipes.r3gan(make_data(), base_channels=2, penalty_weight=0.7, device="cpu")
    assert given.terms.critic_regularizers[0].weight(0.0) == pytest.approx(0.7)


@pytest.mark.parametrize("name", RECIPES)
def test_real_classes_and_labels_have_one_distribution(name):
    """So that no recipe warns, here under classes of very different sizes."""
    labels = [0] * 20 + [1] * 4
    data = cg.data.ArrayDataset(torch.randint(0, 256, (24, 1, 16, 16), dtype=torch.uint8), labels)
    trainer = RECIPES[name](data, base_channels=2, device="cpu")
    trainer.fit(data, steps=1, batch_size=4)
    published = name.endswith("_2017") or name not in CONDITIONAL
    assert trainer.settings["sampling"] == ("natural" if published else "balanced")
    if name in CONDITIONAL:
        shares = torch.bincount(trainer._sampler.latents_and_labels(10_000, torch.Generator())[1]) / 10_000
        assert shares[1] == pytest.approx(1 / 6 if published else 1 / 2, abs=0.02)


def test_acgan_is_what_its_documentation_says():
    trainer = recipes.acgan(make_data(), base_channels=2, device="cpu")
    assert stated(trainer) == {
        "generator": "DCGANGenerator",
        "critic": "ACDCGANCritic",
        "loss": repr(cg.MinimaxLoss(saturating=False, weight=1.0)),
        "auxiliary": [repr(cg.AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=1.0, generator_weight=1.0))],
        "regularizers": [],
        "augment": None,
        "critic_steps": 1,
        "generator_optimizer": {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        "critic_optimizer": {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        "schedule": "constant",
        "ema_decay": 0.999,
        "label_distribution": "balanced",
        "sampling": "balanced",
        "dequantize": False,
        "precision": "fp32",
        "device": "cpu",
        "seed": 0,
    }
    modules = list(trainer.networks.critic.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in modules)
    assert {module.p for module in modules if isinstance(module, torch.nn.Dropout)} == {0.0}


def test_acgan_2017_is_the_published_form_of_acgan():
    published, ours = (
        recipe(make_data((3, 32, 32)), device="cpu", base_channels=96) for recipe in (recipes.acgan_2017, recipes.acgan)
    )
    changed = {"label_distribution": "empirical", "sampling": "natural"}
    assert stated(published) == {**stated(ours), **changed}
    dropped = [m.p for m in published.networks.critic.modules() if isinstance(m, torch.nn.Dropout)]
    assert set(dropped) == {0.5}
    layers = [m for m in published.networks.generator.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels) for m in layers] == [(384, 192), (192, 96), (96, 3)]
    assert {(m.kernel_size, m.stride) for m in layers} == {((5, 5), (2, 2))}


def test_acwgan_gp_is_what_its_documentation_says():
    trainer = recipes.acwgan_gp(make_data(), base_channels=2, device="cpu")
    assert stated(trainer) == {
        "generator": "ResNetGenerator",
        "critic": "ACResNetCritic",
        "loss": repr(cg.WassersteinLoss(weight=1.0)),
        "auxiliary": [repr(cg.AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=0.0, generator_weight=1.0))],
        "regularizers": [repr(cg.GradientPenalty(weight=10.0, target=1.0, one_sided=False, every=1))],
        "augment": None,
        "critic_steps": 5,
        "generator_optimizer": {"lr": 2e-4, "betas": (0.0, 0.9), "eps": 1e-8, "weight_decay": 0.0},
        "critic_optimizer": {"lr": 2e-4, "betas": (0.0, 0.9), "eps": 1e-8, "weight_decay": 0.0},
        "schedule": "linear",
        "ema_decay": 0.999,
        "label_distribution": "paired",
        "sampling": "balanced",
        "dequantize": True,
        "precision": "fp32",
        "device": "cpu",
        "seed": 0,
    }
    norms = [m for m in trainer.networks.generator.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert {norm.num_classes for norm in norms} == {2}
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in trainer.networks.critic.modules())


def test_acwgan_gp_2017_is_the_published_form_of_acwgan_gp():
    published, ours = (
        stated(recipe(make_data(), base_channels=2, device="cpu"))
        for recipe in (recipes.acwgan_gp_2017, recipes.acwgan_gp)
    )
    weights = repr(cg.AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=0.0, generator_weight=0.1))
    assert published == {**ours, "auxiliary": [weights], "sampling": "natural"}


def test_wgan_gp_is_acwgan_gp_2017_without_classes():
    one, other = (
        stated(recipe(make_data(), base_channels=2, device="cpu"))
        for recipe in (recipes.wgan_gp, recipes.acwgan_gp_2017)
    )
    assert {key for key in one if one[key] != other[key]} == {"critic", "auxiliary", "label_distribution"}


PUBLISHED = {
    "sngan_projection": {
        "critic": "ProjectionResNetCritic",
        "critic_steps": 5,
        "schedule": "linear",
        "ema_decay": 0.999,
        "adam": (2e-4, (0.0, 0.9)),
    },
    "tacgan": {
        "critic": "TACResNetCritic",
        "auxiliary": ["TwinAuxiliaryClassifierLoss(weight=1.0)"],
        "critic_steps": 2,
        "adam": (2e-4, (0.0, 0.999)),
    },
    "adcgan": {
        "critic": "ADCResNetCritic",
        "auxiliary": ["DiscriminativeClassifierLoss(weight=1.0)"],
        "critic_steps": 4,
        "adam": (2e-4, (0.0, 0.999)),
    },
    "reacgan": {
        "critic": "ContrastiveResNetCritic",
        "auxiliary": ["DataToDataCrossEntropyLoss(weight=0.5, margin=0.98, temperature=0.5)"],
        "critic_steps": 5,
        "adam": (2e-4 * 2**0.5, (0.5, 0.999)),
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_under_spectral_norm_are_what_their_documentation_says(name):
    settings = dict(PUBLISHED[name])
    lr, betas = settings.pop("adam")
    adam = {"lr": lr, "betas": betas, "eps": 1e-8, "weight_decay": 0.0}
    trainer = RECIPES[name](make_data(), base_channels=2, device="cpu")
    common = {"generator": "ResNetGenerator", "loss": repr(cg.HingeLoss()), "auxiliary": [], "regularizers": []}
    common |= {"augment": None, "schedule": "constant", "ema_decay": 0.9999, "label_distribution": "balanced"}
    common |= {"generator_optimizer": adam, "critic_optimizer": adam}
    common |= {"sampling": "balanced", "dequantize": False, "precision": "fp32", "device": "cpu", "seed": 0}
    assert stated(trainer) == {**common, **settings}
    generator, critic = trainer.networks.generator, trainer.networks.critic
    assert {norm.num_classes for norm in generator.modules() if isinstance(norm, torch.nn.BatchNorm2d)} == {2}
    layers = [m for m in critic.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear, torch.nn.Embedding))]
    assert layers
    assert all(parametrize.is_parametrized(layer, "weight") for layer in layers)
    assert not any(parametrize.is_parametrized(module) for module in generator.modules())


def test_reacgan_embeds_in_512_features():
    critic = recipes.reacgan(make_data(), base_channels=2, device="cpu").networks.critic
    assert critic(torch.zeros(2, 1, 28, 28)).embedding.shape == (2, 512)


def test_wgan_is_what_its_documentation_says():
    data = make_data()
    trainer = recipes.wgan(data, base_channels=2, device="cpu")
    settings = trainer.settings
    assert settings["generator_optimizer"]["class"] == settings["critic_optimizer"]["class"] == "RMSprop"
    (of_generator,), (of_critic,) = (settings[f"{role}_optimizer"]["groups"] for role in ("generator", "critic"))
    assert of_critic == {**of_generator, "clipped_to": 0.01}
    assert (of_generator["lr"], of_generator["momentum"]) == (5e-5, 0)
    assert (settings["generator"], settings["critic"]) == ("DCGANGenerator", "DCGANCritic")
    assert (settings["loss"], settings["critic_steps"]) == (repr(cg.WassersteinLoss()), 5)
    assert not settings["regularizers"]
    assert any(batch_norms(trainer.networks.critic))
    trainer.fit(data, steps=2, batch_size=4)
    assert all(weight.abs().max() <= 0.01 for weight in trainer.networks.critic.parameters())
    assert any(weight.abs().max() > 0.01 for weight in trainer.networks.generator.parameters())


def weights(trainer):
    return [
        p.detach() for network in (trainer.networks.generator, trainer.networks.critic) for p in network.parameters()
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_initial_weights_depend_on_the_seed_alone(name):
    def build(**options):
        torch.rand(5)
        return weights(RECIPES[name](make_data(), base_channels=2, device="cpu", **options))

    before = torch.get_rng_state()
    first = RECIPES[name](make_data(), base_channels=2, device="cpu", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    again, other = build(seed=1), build(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(weights(first), again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(again, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(build(), build(seed=0), strict=True))


def test_keywords_override_the_recipe():
    trainer = recipes.acwgan_gp(make_data(), base_channels=2, device="cpu", critic_steps=2, regularizers=[cg.R1(3.0)])
    assert trainer.settings["critic_steps"] == 2
    assert trainer.settings["regularizers"] == [repr(cg.R1(3.0))]


def test_recipes_do_not_share_their_regularizers():
    one, other = (recipes.wgan_gp(make_data(), base_channels=2, device="cpu") for _ in range(2))
    assert one.terms.critic_regularizers[0] is not other.terms.critic_regularizers[0]


@pytest.mark.parametrize("name", RECIPES)
def test_an_unknown_keyword_is_named(name):
    with pytest.raises(TypeError, match="unexpected keyword argument 'critic_step'"):
        RECIPES[name](make_data(), base_channels=2, critic_step=5)


def ring(count_per_mode=64) -> tuple[cg.data.ArrayDataset, torch.Tensor]:
    """Eight modes on a circle, two neighbours of each class, and the modes' centres."""
    angles = torch.arange(8) * (torch.pi / 4)
    centres = torch.stack([angles.cos(), angles.sin()], dim=1)
    rng = torch.Generator().manual_seed(0)
    mode = torch.arange(8).repeat_interleave(count_per_mode)
    return cg.data.ArrayDataset(centres[mode] + 0.025 * torch.randn(len(mode), 2, generator=rng), mode // 2), centres


@pytest.mark.slow  # guards that a method as a whole learns modes and classes; 700 steps
def test_acwgan_gp_learns_a_mixture_with_every_mode_and_the_right_classes(point_networks):
    data, centres = ring()
    generator, critic = point_networks(4, head="class")
    adam = cg.OptimizerConfig(lr=5e-3, betas=(0.0, 0.9))
    trainer = recipes.acwgan_gp(
        data,
        generator=generator,
        critic=critic,
        critic_steps=3,
        generator_optimizer=adam,
        critic_optimizer=adam,
        regularizers=[cg.GradientPenalty(weight=0.1)],
        ema_decay=0.98,
        device="cpu",
    )
    trainer.fit(data, steps=700, batch_size=128)
    y = cg.class_grid(4, 500)
    distance, mode = torch.cdist(trainer.sample(y, seed=0), centres).min(1)
    near = distance < 0.25  # ten standard deviations of a mode, a third of the way to its neighbour
    shares = torch.bincount(mode[near], minlength=8) / len(y)
    assert near.float().mean() > 0.85
    assert shares.min() > 0.06, shares
    assert (mode // 2 == y).float().mean() > 0.97
