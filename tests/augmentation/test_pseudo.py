import pytest
import torch

import condgan as cg
from condgan.training import critic_step, generator_step
from condgan.training.inputs import Request
from condgan.types import Augmentation, PseudoAugmentation
from saved import assert_same, saved

CPU = torch.device("cpu")


def deceiving(p, **options) -> cg.AdaptivePseudoAugment:
    augment = cg.AdaptivePseudoAugment(**options)
    augment.p.fill_(p)
    return augment


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_images_are_replaced_row_by_row_with_probability_p(p):
    augment = deceiving(p)
    draws = augment.draw(2_000, (1, 2, 2), rng=torch.Generator().manual_seed(0), device=CPU)
    real, fake = torch.zeros(2_000, 1, 2, 2), torch.arange(1.0, 2_001).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    out = augment.replace_real(real, fake, draws)
    replaced = out[:, 0, 0, 0] != 0
    assert torch.equal(out[replaced], fake[replaced])
    assert abs(replaced.double().mean() - p) < 5 * (0.25 / 2_000) ** 0.5
    assert torch.equal(augment(real, draws), real)


def test_another_augmentation_comes_after_it():
    inner = cg.DiffAugment("brightness")
    augment = deceiving(0.5, augment=inner)
    draws = augment.draw(4, (1, 3, 3), rng=torch.Generator().manual_seed(0), device=CPU)
    assert draws.keys() == {"replace", "brightness"}
    x = torch.rand(4, 1, 3, 3)
    assert torch.equal(augment(x, draws), inner(x, draws))
    assert isinstance(augment, (Augmentation, PseudoAugmentation))
    assert not isinstance(cg.AdaptiveAugment(), PseudoAugmentation)


def build(make_trainer, p=0.0, **options) -> cg.Trainer:
    augment = deceiving(p, target=-0.9, images=60, every=2)
    return make_trainer(augment=augment, label_distribution="paired", critic_steps=3, **options)


def test_the_critic_is_deceived_and_the_generator_is_not(make_trainer, tiny_images):
    """With p = 1 the critic's step is that on generated images alone."""
    trainer, plain = build(make_trainer, p=1.0), make_trainer(label_distribution="paired")
    for one in (trainer, plain):
        one.networks.critic.eval()  # without dropout
        one.networks.generator.eval()
    inputs = trainer._make_sampler(tiny_images, 2**32).draw(Request(6))
    x_fake = plain.networks.generator(inputs.z, inputs.y_fake).detach()
    expected = plain._make_sampler(tiny_images, 2**32).draw(Request(6))
    assert torch.equal(expected.z, inputs.z)
    object.__setattr__(expected, "x", x_fake)
    found = critic_step(trainer.networks, trainer.terms, inputs)
    wanted = critic_step(plain.networks, plain.terms, expected)
    for one, other in zip(found.gradients, wanted.gradients, strict=True):
        torch.testing.assert_close(one, other)
    for step_inputs, one in ((inputs, trainer), (expected, plain)):
        assert step_inputs.x is not None
        gradients = generator_step(one.networks, one.terms, step_inputs).gradients
        reference = generator_step(plain.networks, plain.terms, expected).gradients
        assert all(torch.equal(a, b) for a, b in zip(gradients, reference, strict=True))


def test_a_resumed_run_equals_the_uninterrupted_one(make_trainer, tiny_images, tmp_path):
    class Stop(cg.Callback):
        def on_step_end(self, trainer):
            if trainer.state.step == 3:
                trainer.request_stop("test")

    whole, cut, resumed = (
        build(make_trainer, callbacks=callbacks) for callbacks in ((), (Stop(), cg.Checkpoint(tmp_path)), ())
    )
    whole.fit(tiny_images, steps=5, batch_size=6)
    cut.fit(tiny_images, steps=5, batch_size=6)
    assert resumed.resume(tmp_path)
    assert 0 < resumed.terms.augment.p < 1
    resumed.fit(tiny_images, steps=5, batch_size=6)
    assert_same(saved(whole), saved(resumed))


def test_images_of_other_classes_are_no_replacement(make_trainer):
    with pytest.raises(ValueError, match=r'must be "paired" for terms .*AdaptivePseudoAugment'):
        make_trainer(augment=cg.AdaptivePseudoAugment())
    with pytest.raises(ValueError, match=r"Pass AdaptivePseudoAugment\(relative=True\)"):
        make_trainer(augment=cg.AdaptivePseudoAugment(), loss=cg.WassersteinLoss(), label_distribution="paired")
