import copy
import math
import re
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import condgan as cg
from condgan.regularizers import CriticRegularizer
from condgan.training.batch_dependence import depends_on_batch

SHAPE = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 2}


class PerSample(CriticRegularizer):
    per_sample = True


def make(generator=None, critic=None, **options) -> cg.Trainer:
    return cg.Trainer(
        cg.DCGANGenerator(latent_dim=4, **SHAPE) if generator is None else generator,
        cg.ACDCGANCritic(**SHAPE) if critic is None else critic,
        **{"loss": cg.WassersteinLoss(), "device": "cpu", **options},
    )


@pytest.mark.parametrize("other", [{"image_shape": (3, 16, 16)}, {"num_classes": 2}])
def test_networks_of_two_kinds_are_refused(other):
    with pytest.raises(ValueError, match=r"same image_shape and num_classes, got \(1, 16, 16\) and 3"):
        make(critic=cg.ACDCGANCritic(**{**SHAPE, **other}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic_steps": 0}, "critic_steps must be at least 1, got 0"),
        ({"precision": "fp16"}, "precision must be among bf16, fp32, got 'fp16'"),
        ({"schedule": "cosine"}, "schedule must be one of .* got 'cosine'"),
        ({"ema_decay": 1.0}, "ema_decay must lie in"),
        ({"loss": cg.RelativisticLoss()}, r"\(RelativisticLoss\), got .balanced.\. Pass label_distribution=.paired."),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_penalties_for_each_sample_refuse_a_critic_with_batch_norm():
    critic = cg.DCGANCritic(**SHAPE, batch_norm=True)
    with pytest.raises(ValueError, match=r"PerSample .* DCGANCritic normalizes over the batch.*batch_norm=False"):
        make(critic=critic, regularizers=[PerSample(1.0)])
    make(critic=cg.DCGANCritic(**SHAPE), regularizers=[PerSample(1.0)])


@pytest.mark.parametrize("penalty", [cg.GradientPenalty(1.0), cg.R1(1.0), cg.R2(1.0), cg.DraganPenalty(1.0)])
def test_all_gradient_penalties_refuse_it(penalty):
    with pytest.raises(ValueError, match="normalizes over the batch"):
        make(critic=cg.DCGANCritic(**SHAPE, batch_norm=True), regularizers=[penalty])


class OwnCritic(cg.Critic):
    """A critic of one's own: `extend` sees the features of the whole batch."""

    def __init__(self, extend, shape=(1, 16, 16), *, zero=False):
        super().__init__(feature_dim=9, num_classes=3, image_shape=shape)
        self.extend = extend
        self.body = torch.nn.Linear(math.prod(shape), 8)
        self.register_buffer("calls", torch.zeros(()))
        if zero:
            torch.nn.init.zeros_(self.score_head.weight)

    def features(self, x):
        self.calls += 1
        h = self.body(x.flatten(1)).relu()
        return torch.cat([h, self.extend(h).expand(len(h), 1)], 1)


def spread(h):
    """Minibatch standard deviation."""
    return h.std(0).mean()


ALONE = {
    "nothing": lambda h: h.new_zeros(()),
    "dropout": lambda h: torch.nn.functional.dropout(h[:, :1]),
    "noise": lambda h: torch.randn_like(h[:, :1]),
}
TOGETHER = {
    "standard deviation": spread,
    "without gradient": lambda h: spread(h.detach()),
    "mean": lambda h: h.mean(),
}


@pytest.mark.parametrize("shape", [(1, 16, 16), (2,)])
@pytest.mark.parametrize("extend", [*ALONE.values(), *TOGETHER.values()], ids=[*ALONE, *TOGETHER])
def test_dependence_on_the_batch_is_found_by_trying(extend, shape):
    torch.manual_seed(0)
    critic = OwnCritic(extend, shape, zero=True)
    critic.body.eval()
    before, state = copy.deepcopy(critic.state_dict()), torch.get_rng_state()
    assert depends_on_batch(critic) == (extend in TOGETHER.values())
    assert depends_on_batch(critic.to(torch.bfloat16)) == (extend in TOGETHER.values())
    critic.float()
    assert torch.equal(torch.get_rng_state(), state)
    assert (critic.training, critic.body.training) == (True, False)
    assert critic.calls == 0
    for name, value in critic.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_such_a_critic_sees_real_and_generated_images_apart(precision):
    sizes = []

    def noted(h):
        sizes.append(len(h))
        return spread(h)

    trainer = make(critic=OwnCritic(noted), loss=cg.HingeLoss(), precision=precision)
    sizes.clear()
    trainer.fit(images(), steps=1, batch_size=6)
    assert sizes == [6, 6, 6]  # real, generated; generated


def test_such_a_critic_is_refused_by_penalties_for_each_sample():
    with pytest.raises(ValueError, match=r"R1 must be defined for each sample alone, got OwnCritic.*deviation"):
        make(critic=OwnCritic(spread), regularizers=[cg.R1(1.0)])
    make(critic=OwnCritic(ALONE["dropout"]), regularizers=[cg.R1(1.0)])


def test_a_compiled_critic_is_tried_as_it_is_written_and_refused_by_penalties():
    for extend, apart in ((ALONE["dropout"], False), (spread, True)):
        critic = OwnCritic(extend)
        critic.compile(backend=refuse_to_compile)
        assert make(critic=critic).networks.scored_apart == apart
    whole = torch.compile(OwnCritic(ALONE["nothing"]), backend=refuse_to_compile)
    part = OwnCritic(ALONE["nothing"])
    part.body.compile(backend=refuse_to_compile)
    for critic in (whole, part):
        with pytest.raises(ValueError, match=r"R1 needs second derivatives.*before torch.compile"):
            make(critic=critic, regularizers=[cg.R1(1.0)])


def refuse_to_compile(graph, inputs):
    raise AssertionError("compiling takes minutes")


def test_interpolates_under_a_score_of_labels_need_pairs():
    critic = cg.ProjectionDCGANCritic(**SHAPE)
    with pytest.raises(ValueError, match=r"\(GradientPenalty\), got 'balanced'"):
        make(critic=critic, regularizers=[cg.GradientPenalty()])
    make(critic=critic, regularizers=[cg.GradientPenalty()], label_distribution="paired")
    make(critic=critic, regularizers=[cg.R1(1.0)])
    make(regularizers=[cg.GradientPenalty()])


def test_class_terms_need_classes():
    shape = {**SHAPE, "num_classes": None}
    networks = {"generator": cg.DCGANGenerator(latent_dim=4, **shape), "critic": cg.DCGANCritic(**shape)}
    with pytest.raises(ValueError, match="auxiliary losses need classes"):
        make(**networks, auxiliary=cg.AuxiliaryClassifierLoss())
    make(**networks, loss=cg.RelativisticLoss())


def images(num_classes=3, shape=(1, 16, 16)):
    return cg.data.ArrayDataset(torch.zeros(12, *shape, dtype=torch.uint8), [i % num_classes for i in range(12)])


@pytest.mark.parametrize(
    ("data", "fit", "message"),
    [
        (images(shape=(1, 16, 20)), {}, r"image_shape \(1, 16, 16\), got \(1, 16, 20\)"),
        (images(2), {}, "3 classes, got 2"),
        (images(), {"steps": 0}, "steps must be at least 1, got 0"),
        (images(), {"batch_size": 1}, "at least 2, got 1 and 1"),
        (images(), {"generator_batch_size": 0}, "at least 2, got 4 and 0"),
    ],
)
def test_data_that_do_not_fit_are_refused(data, fit, message):
    trainer = make()
    with pytest.raises(ValueError, match=message):
        trainer.fit(data, **{"steps": 1, "batch_size": 4, **fit})
    assert trainer.state.step == 0
    trainer.fit(images(), steps=1, batch_size=4)


HEADLESS = {
    "MyCritic(AuxiliaryClassifierMixin": (cg.AuxiliaryClassifierLoss(), cg.DCGANCritic),
    "MyCritic(TwinAuxiliaryClassifierMixin": (cg.TwinAuxiliaryClassifierLoss(), cg.ACDCGANCritic),
    "MyCritic(DiscriminativeClassifierMixin": (cg.DiscriminativeClassifierLoss(), cg.ACDCGANCritic),
    "MyCritic(ContrastiveMixin": (cg.DataToDataCrossEntropyLoss(), cg.TACDCGANCritic),
}


@pytest.mark.parametrize("message", HEADLESS)
def test_a_missing_head_is_found_before_training(message):
    auxiliary, critic = HEADLESS[message]
    with pytest.raises(ValueError, match=re.escape(message)):
        make(critic=critic(**SHAPE), auxiliary=[auxiliary])


def test_a_class_weight_too_many_is_found_before_training():
    with pytest.raises(ValueError, match=r"class_weights must have one value per class, shape \(3,\), got \(4,\)"):
        make(auxiliary=cg.AuxiliaryClassifierLoss(class_weights=(1, 2, 3, 4)))


def test_trying_the_heads_leaves_the_critic_as_it_was():
    critic = cg.TACDCGANCritic(**SHAPE, spectral_norm=True, batch_norm=True, dropout=0.5)
    generator = cg.DCGANGenerator(latent_dim=4, **SHAPE)
    before = copy.deepcopy(critic.state_dict())
    state = torch.get_rng_state()
    make(generator, critic, auxiliary=cg.TwinAuxiliaryClassifierLoss())
    assert all(torch.equal(before[name], value) for name, value in critic.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert critic.training


def test_a_critic_with_its_own_forward_is_checked_in_the_first_step():
    class Own(cg.DCGANCritic):
        def forward(self, x, y=None):
            h = self.features(x)
            return cg.CriticOutput(self.score_head(h).squeeze(1), class_logits=h[:, :3])

    trainer = make(critic=Own(**SHAPE), auxiliary=cg.AuxiliaryClassifierLoss())
    assert "critic/auxiliary_classifier" in fit_once(trainer).state.metrics
    trainer = make(critic=Own(**SHAPE), auxiliary=cg.DiscriminativeClassifierLoss())
    with pytest.raises(ValueError, match=r"needs twin_logits.*DiscriminativeClassifierMixin"):
        fit_once(trainer)


def fit_once(trainer):
    trainer.fit(images(), steps=1, batch_size=4)
    return trainer


def dark_and_light(counts=(9, 3, 3)):
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    return cg.data.ArrayDataset(torch.zeros(len(labels), 1, 16, 16, dtype=torch.uint8), labels)


NATURAL = {"sampling": "natural"}


def test_other_labels_than_classes_under_a_blind_score_are_warned_of_where_the_user_calls_fit():
    trainer = make(auxiliary=[cg.AuxiliaryClassifierLoss()], **NATURAL)
    with pytest.warns(UserWarning, match="does not see labels") as caught:
        trainer.fit(dark_and_light(), steps=1, batch_size=4)
    (warning,) = caught
    said = str(warning.message)
    assert "[0.6, 0.2, 0.2] for real images (sampling='natural')" in said
    assert "[0.333, 0.333, 0.333] for generated ones (label_distribution='balanced')" in said
    assert "making images of class 0 where class 1 is asked for" in said
    assert warning.filename == __file__


@pytest.mark.parametrize(
    ("options", "data"),
    [
        ({}, dark_and_light()),
        ({**NATURAL, "label_distribution": "empirical"}, dark_and_light()),
        ({**NATURAL, "label_distribution": "paired"}, dark_and_light()),
        ({**NATURAL, "label_distribution": cg.Tempered(1.0)}, dark_and_light()),
        (NATURAL, dark_and_light((4, 4, 4))),
        ({**NATURAL, "critic": cg.ProjectionDCGANCritic(**SHAPE)}, dark_and_light()),
    ],
)
def test_one_distribution_or_a_score_of_labels_is_not_warned_of(options, data):
    make(**options).fit(data, steps=1, batch_size=4)


def test_unconditional_networks_have_no_labels_to_warn_of():
    shape = {**SHAPE, "num_classes": None}
    networks = {"generator": cg.DCGANGenerator(latent_dim=4, **shape), "critic": cg.DCGANCritic(**shape)}
    make(**networks, **NATURAL).fit(dark_and_light(), steps=1, batch_size=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"generator": nn.Flatten()},
            "generator must be a condgan.networks.Generator, got a Flatten.*wrapper",
        ),
        ({"generator": cg.DCGANCritic(**SHAPE)}, "generator must be .*, got a DCGANCritic"),
        ({"generator": cg.DCGANGenerator}, "generator must be .*, got the class DCGANGenerator itself"),
        ({"critic": nn.Linear(2, 1)}, "critic must be a condgan.networks.Critic, got a Linear. Derive .* from Critic"),
        ({"loss": nn.BCEWithLogitsLoss()}, r"loss must be .* such as condgan.HingeLoss\(\), got a BCEWithLogitsLoss"),
        ({"loss": cg.HingeLoss}, "loss must be .*, got the class HingeLoss itself"),
        ({"loss": "hinge"}, "loss must be .*, got a str"),
        ({"auxiliary": nn.CrossEntropyLoss()}, "auxiliary must be a list of auxiliary losses.*got a CrossEntropyLoss"),
        ({"auxiliary": cg.AuxiliaryClassifierLoss}, "auxiliary must be .*got the class AuxiliaryClassifierLoss itself"),
        ({"regularizers": cg.R1(1.0)}, r"regularizers must be a list of .*, got a R1. Pass regularizers=\[...\]"),
        ({"regularizers": [cg.R1]}, "regularizers must be a list of .*, got the class R1 itself"),
        ({"augment": nn.Identity()}, "augment must be an augmentation, such as DiffAugment.*, got a Identity"),
        ({"transition": 0.5}, "transition must be a pair .*, got a float"),
        ({"callbacks": cg.ProgressBar()}, r"callbacks must be a list .*got a ProgressBar. Pass callbacks=\[...\]"),
        ({"callbacks": [print]}, "callbacks must be a list .*, got a builtin_function_or_method"),
        ({"critic_optimizer": torch.optim.SGD([torch.zeros(1)])}, "critic_optimizer must be .*, got a SGD. Pass"),
        ({"critic_optimizer": 1e-4}, "critic_optimizer must be .*, got a float. Pass"),
    ],
)
def test_objects_of_another_kind_are_refused(options, message):
    with pytest.raises(TypeError, match=message):
        make(**options)


@pytest.mark.parametrize("recipe", [cg.recipes.acgan, cg.recipes.wgan, cg.recipes.r3gan, cg.recipes.small_data])
def test_recipes_say_how_to_pass_a_data_set_of_pytorch(recipe):
    data = TensorDataset(torch.zeros(8, 1, 16, 16, dtype=torch.uint8), torch.arange(8) % 2)
    with pytest.raises(TypeError, match=r"got a TensorDataset\. .*training\.as_labelled\(data\)"):
        recipe(data)
    assert recipe(cg.training.as_labelled(data), base_channels=2, device="cpu").networks.critic.image_shape[0] == 1


@pytest.mark.parametrize(
    ("critic", "auxiliary", "idle"),
    [
        (cg.ACDCGANCritic, [], "class_head.bias, class_head.weight of the ACDCGANCritic"),
        (cg.TACDCGANCritic, [cg.AuxiliaryClassifierLoss()], "twin_head.bias, twin_head.weight of the TAC"),
        (cg.ContrastiveDCGANCritic, [], "class_proxies.weight, embedding_head.bias, embedding_head.weight of the Con"),
    ],
)
def test_a_head_that_no_loss_trains_is_warned_of(critic, auxiliary, idle):
    with pytest.warns(UserWarning, match=f"no loss trains {idle}"):
        make(critic=critic(**SHAPE), auxiliary=auxiliary)


@pytest.mark.parametrize(
    ("critic", "auxiliary"),
    [
        (cg.DCGANCritic, []),
        (cg.ProjectionDCGANCritic, []),
        (cg.ACDCGANCritic, [cg.AuxiliaryClassifierLoss(fake_weight=0.0)]),
        (cg.TACDCGANCritic, [cg.TwinAuxiliaryClassifierLoss()]),
        (cg.ContrastiveDCGANCritic, [cg.DataToDataCrossEntropyLoss()]),
    ],
)
def test_heads_with_their_losses_are_not_warned_of(critic, auxiliary):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(critic=critic(**SHAPE), auxiliary=auxiliary)
