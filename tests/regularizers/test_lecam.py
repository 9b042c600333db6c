import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import condgan as cg
from condgan.types import CriticBatch, CriticOutput
from saved import assert_same, saved


def batch(real, fake, *, requires_grad=False) -> CriticBatch:
    real, fake = (torch.as_tensor(score, dtype=torch.float64) for score in (real, fake))
    if requires_grad:
        real.requires_grad_(), fake.requires_grad_()
    nothing = dict.fromkeys(("x", "y", "x_fake", "y_fake", "inputs"))
    return CriticBatch(**nothing, real=CriticOutput(real), fake=CriticOutput(fake))


def test_values_by_hand():
    lecam = cg.LeCam(0.5, decay=0.75).double()
    # anchors 2 and -1: (1 + 1)**2 + (3 + 1)**2 = 20 and (-1 - 2)**2 + (-1 - 2)**2 = 18, each halved
    assert lecam(None, batch([1.0, 3.0], [-1.0, -1.0])).item() == pytest.approx(0.5 * (10 + 9))
    assert (lecam.real_anchor, lecam.fake_anchor) == (2.0, -1.0)
    # weights 3/7 and 4/7 of the older and the newer mean
    lecam(None, batch([9.0], [6.0]))
    assert lecam.real_anchor.item() == pytest.approx((3 * 2 + 4 * 9) / 7)
    assert lecam.fake_anchor.item() == pytest.approx((3 * -1 + 4 * 6) / 7)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=30), st.floats(0, 0.99))
def test_anchors_are_averages_without_bias(means, decay):
    lecam = cg.LeCam(decay=decay).double()
    for real, fake in means:
        lecam(None, batch([real - 1, real + 1], [fake - 2, fake + 2]))
    weights = torch.tensor([decay ** (len(means) - 1 - i) for i in range(len(means))], dtype=torch.float64)
    expected = (weights[:, None] * torch.tensor(means, dtype=torch.float64)).sum(0) / weights.sum()
    torch.testing.assert_close(torch.stack([lecam.real_anchor, lecam.fake_anchor]), expected)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1), st.floats(-100, 100))
def test_a_shift_of_all_scores_changes_nothing(seed, shift):
    rng = torch.Generator().manual_seed(seed)
    one, other = cg.LeCam().double(), cg.LeCam().double()
    for _ in range(3):
        real, fake = torch.randn(2, 5, generator=rng, dtype=torch.float64)
        values = one(None, batch(real, fake)), other(None, batch(real + shift, fake + shift))
        torch.testing.assert_close(*values)


def test_gradients_of_first_and_second_order():
    lecam = cg.LeCam().double()
    lecam(None, batch([1.0, 2.0], [0.0, -1.0]))
    lecam.eval()  # the anchors stay where they are
    real, fake = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()

    def penalty(real, fake):
        return lecam(None, batch(real, fake))

    torch.autograd.gradcheck(penalty, (real, fake))
    torch.autograd.gradgradcheck(penalty, (real, fake))


def test_anchors_are_constants_for_the_gradient_and_the_present_step_is_in_them():
    lecam = cg.LeCam(1.0, decay=0.5).double()
    lecam(None, batch([4.0], [0.0]))
    scores = batch([1.0, 2.0], [-1.0, 0.0], requires_grad=True)
    lecam(None, scores).backward()
    fake_anchor, real_anchor = (1 * 0.0 + 2 * -0.5) / 3, (1 * 4.0 + 2 * 1.5) / 3
    torch.testing.assert_close(scores.real.score.grad, scores.real.score.detach() - fake_anchor)
    torch.testing.assert_close(scores.fake.score.grad, scores.fake.score.detach() - real_anchor)
    assert not lecam.real_anchor.requires_grad


def test_bad_decay_is_refused():
    for decay in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
            cg.LeCam(decay=decay)


def test_a_resumed_run_equals_the_uninterrupted_one(make_trainer, tiny_images, tmp_path):
    def build(*callbacks):
        return make_trainer(regularizers=[cg.LeCam(every=2)], critic_steps=3, callbacks=callbacks)

    class Stop(cg.Callback):
        def on_step_end(self, trainer):
            if trainer.state.step == 2:
                trainer.request_stop("test")

    whole, cut, resumed = build(), build(Stop(), cg.Checkpoint(tmp_path)), build()
    whole.fit(tiny_images, steps=4, batch_size=6)
    cut.fit(tiny_images, steps=4, batch_size=6)
    assert resumed.resume(tmp_path)
    assert resumed.terms.critic_regularizers[0].updates == 3
    resumed.fit(tiny_images, steps=4, batch_size=6)
    assert_same(saved(whole), saved(resumed))
    assert whole.terms.critic_regularizers[0].updates == 6
    assert whole.read_metrics()["critic/le_cam"] > 0
