import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import condgan as cg
from condgan.augmentation.warp import warp
from condgan.types import Augmentation
from saved import assert_same, saved

CPU = torch.device("cpu")
ALL = "translation,scale,rotation,brightness,contrast,cutout"


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, shape, seed=0):
    return torch.rand(count, *shape, generator=rng(seed), dtype=torch.float64) * 2 - 1


def make(p=1.0, policy=ALL, **options):
    augment = cg.AdaptiveAugment(policy=policy, **options)
    augment.p.fill_(p)
    return augment


def by_hand(x, draws, names, p):
    """Image by image, with Python's decisions."""
    out = []
    for n, image in enumerate(x):
        on = {name: bool(draws["gate"][n, i] < p) for i, name in enumerate(names)}
        value = {name: draws[name][n].double() for name in names if on[name]}
        image = warp(
            image[None],
            shift=value.get("translation", torch.zeros(2))[None],
            scale=value.get("scale", torch.ones(()))[None],
            angle=value.get("rotation", torch.zeros(()))[None],
        )[0]
        image = image + value.get("brightness", 0.0)
        image = image * value.get("contrast", 1.0)
        if on.get("cutout"):
            height, width = (size // 2 for size in image.shape[1:])
            top, left = (int(value["cutout"][i]) - side // 2 for i, side in enumerate((height, width)))
            image[:, max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = 0
        out.append(image)
    return torch.stack(out)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("policy", [*ALL.split(","), ALL, "cutout,rotation"])
def test_parity_with_a_loop_over_images(policy, p):
    augment = make(p, policy)
    x = images(24, (2, 12, 8))
    draws = augment.draw(24, (2, 12, 8), rng=rng(1), device=CPU)
    torch.testing.assert_close(augment(x, draws), by_hand(x, draws, policy.split(","), p))


def test_without_overfitting_nothing_is_changed():
    augment = cg.AdaptiveAugment(policy=ALL)
    x = images(8, (1, 9, 7))
    assert torch.equal(augment(x, augment.draw(8, (1, 9, 7), rng=rng(), device=CPU)), x)


@settings(deadline=None, max_examples=10)
@given(st.floats(0.05, 0.95))
def test_operations_are_applied_with_probability_p_independently(p):
    augment = make(p, "brightness,cutout")
    count = 4_000
    out = augment(torch.ones(count, 1, 4, 4), augment.draw(count, (1, 4, 4), rng=rng(), device=CPU))
    changed, cut = (out.amax((1, 2, 3)) != 1) & (out.amax((1, 2, 3)) != 0), (out == 0).any(3).any(2).any(1)
    deviation = 5 * (0.25 / count) ** 0.5
    assert abs(changed.double().mean() - p) < deviation
    assert abs(cut.double().mean() - p) < deviation
    assert abs((changed & cut).double().mean() - p**2) < deviation


def test_draws_have_their_ranges():
    count, shape = 20_000, (1, 64, 33)
    draws = make().draw(count, shape, rng=rng(), device=CPU)
    assert draws["gate"].shape == (count, 6)
    assert {value.dtype for value in draws.values()} == {torch.float32}
    for name, low, high in (("translation", (-8, -4), (8, 4)), ("cutout", (0, 0), (63, 32))):
        assert tuple(draws[name].amin(0).tolist()) == low
        assert tuple(draws[name].amax(0).tolist()) == high
    assert draws["translation"].frac().abs().max() == 0
    degrees = draws["rotation"].rad2deg()
    assert 9.9 < degrees.max() < 10 < 10 - degrees.min() < 20
    for name, spread in (("scale", 0.2), ("contrast", 0.5)):
        assert draws[name].log2().std() == pytest.approx(spread, rel=0.05)
    assert draws["brightness"].std() == pytest.approx(0.2, rel=0.05)


def test_draws_come_from_the_given_source_alone():
    before = torch.get_rng_state()
    first, again = (make().draw(5, (1, 8, 8), rng=rng(3), device=CPU) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(first, again)
    meta = make().draw(2, (1, 8, 8), rng=None, device=torch.device("meta"))
    assert {value.device.type for value in meta.values()} == {"meta"}


def test_gradients_of_first_and_second_order():
    augment = make()
    draws = augment.draw(3, (1, 5, 4), rng=rng(2), device=CPU)
    x = images(3, (1, 5, 4)).requires_grad_()
    torch.autograd.gradcheck(lambda x: augment(x, draws), (x,))
    torch.autograd.gradgradcheck(lambda x: augment(x, draws).square(), (x,))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31 - 1), st.permutations(range(5)))
def test_permuting_the_batch_permutes_the_result(seed, order):
    augment = make(0.5)
    x = images(5, (1, 6, 8), seed=seed)
    draws = augment.draw(5, (1, 6, 8), rng=rng(seed), device=CPU)
    permuted = augment(x[order], {name: value[order] for name, value in draws.items()})
    torch.testing.assert_close(permuted, augment(x, draws)[order])


@pytest.mark.parametrize(
    ("policy", "message"),
    [("flip", "must be among brightness, contrast, cutout, rotation"), ("", "got ''"), ("scale,scale", "must differ")],
)
def test_bad_policies_are_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        cg.AdaptiveAugment(policy=policy)


def test_bad_calls_are_refused():
    augment = make()
    draws = augment.draw(4, (1, 6, 6), rng=rng(), device=CPU)
    with pytest.raises(ValueError, match="draws must hold 3 rows of 'gate', one per image, got 4 rows"):
        augment(images(3, (1, 6, 6)), draws)
    with pytest.raises(ValueError, match="x must be floating-point images"):
        augment(torch.zeros(4, 1, 6, 6, dtype=torch.uint8), draws)
    with pytest.raises(ValueError, match=r"images of shape \(C, H, W\), got the sample shape \(7,\)"):
        augment.draw(4, (7,), rng=rng(), device=CPU)


def test_is_an_augmentation_and_says_what_it_is():
    augment = cg.AdaptiveAugment(0.5, images=100)
    assert isinstance(augment, Augmentation)
    assert repr(augment) == (
        "AdaptiveAugment(target=0.5, images=100, every=4, relative=False, policy='translation,scale,rotation,cutout')"
    )


def adapting(make_trainer, **options):
    """A trainer whose augmentation moves within a few steps."""
    augment = cg.AdaptiveAugment(-0.9, images=60, every=2)
    return make_trainer(augment=augment, critic_steps=3, **options)


def test_training_moves_p_and_logs_it(make_trainer, tiny_images):
    trainer = adapting(make_trainer)
    seen = []

    class Log(cg.Callback):
        def on_step_end(self, trainer):
            seen.append(trainer.read_metrics()["critic/augment_p"])

    trainer.callbacks = (Log(),)
    trainer.fit(tiny_images, steps=4, batch_size=6)
    assert seen == pytest.approx([0.2, 0.4, 0.8, 1.0])  # the p that the newest critic step was made with
    assert "AdaptiveAugment(target=-0.9" in trainer.settings["augment"]


def test_a_resumed_run_equals_the_uninterrupted_one(make_trainer, tiny_images, tmp_path):
    whole, cut = adapting(make_trainer), adapting(make_trainer)
    whole.fit(tiny_images, steps=5, batch_size=6)

    class Stop(cg.Callback):
        def on_step_end(self, trainer):
            if trainer.state.step == 3:
                trainer.request_stop("test")

    cut.callbacks = (Stop(), cg.Checkpoint(tmp_path))
    cut.fit(tiny_images, steps=5, batch_size=6)
    assert cut.terms.augment.steps == 1, "between two moves"
    resumed = adapting(make_trainer)
    assert resumed.resume(tmp_path)
    assert resumed.terms.augment.p == cut.terms.augment.p > 0
    resumed.fit(tiny_images, steps=5, batch_size=6)
    assert_same(saved(whole), saved(resumed))


def test_signs_without_meaning_are_refused(make_trainer):
    for loss in (cg.WassersteinLoss(), cg.RelativisticLoss()):
        options = {"loss": loss, "label_distribution": "paired"}
        with pytest.raises(ValueError, match=r"reads the sign of the scores .* Pass AdaptiveAugment\(relative=True\)"):
            make_trainer(augment=cg.AdaptiveAugment(), **options)
        make_trainer(augment=cg.AdaptiveAugment(relative=True), **options)
    for loss in (cg.MinimaxLoss(), cg.HingeLoss(), cg.LeastSquaresLoss()):
        make_trainer(augment=cg.AdaptiveAugment(), loss=loss)
