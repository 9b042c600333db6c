import pytest
import torch
from sklearn.metrics import roc_auc_score

from condgan.metrics.membership import membership_inference, separation


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_attack_by_hand():
    # distances to the nearest of 0 and 10: members 1, 2, 4, others 3, 5; five of the six pairs are right
    found = membership_inference(
        column(1, 12, 6),
        column(-3, 15),
        column(0, 10),
        member_groups=torch.tensor([0, 1, 2]),
        non_member_groups=torch.tensor([3, 4]),
        resamples=50,
    )
    assert found.auroc.value == pytest.approx(5 / 6)
    assert found.control.value in (0.0, 0.5, 1.0)


def attack(generated, members, others, **options):
    return membership_inference(
        members,
        others,
        generated,
        member_groups=torch.arange(len(members)) // 2,
        non_member_groups=10_000 + torch.arange(len(others)) // 2,
        resamples=300,
        **options,
    )


def test_members_of_a_copier_are_recognized():
    members, others, noise = normal(200, 6), normal(150, 6, seed=1), normal(100, 6, seed=2)
    found = attack(members[::2] + 0.1 * noise, members, others)
    assert found.auroc.low > 0.6
    assert found.control.low < 0.5 < found.control.high


def test_false_alarms_are_as_rare_as_the_level_says():
    rng = torch.Generator().manual_seed(0)
    alarms = control_alarms = 0
    for _ in range(100):
        members, others, fresh = (torch.randn(count, 4, generator=rng) for count in (80, 60, 50))
        found = attack(fresh, members, others)
        alarms += found.auroc.low > 0.5
        control_alarms += not found.control.low <= 0.5 <= found.control.high
    # expected are 2.5 and 5
    assert alarms <= 8
    assert control_alarms <= 12


def test_control_splits_patients_not_images():
    members = normal(60, 2)
    twins = members.repeat_interleave(2, 0)
    found = attack(normal(30, 2, seed=1), twins, normal(20, 2, seed=2), seed=4)
    again = attack(normal(30, 2, seed=1), twins, normal(20, 2, seed=2), seed=4)
    assert found == again
    assert found.control.value * 30 * 30 % 1 == pytest.approx(0, abs=1e-6)  # halves of 30 patients, both twins together


def test_separation_is_the_area_under_the_curve():
    first, second = normal(30), (normal(40, seed=1) + 0.5)
    found = separation((first, torch.arange(30)), (second, torch.arange(30, 70)), resamples=20)
    expected = roc_auc_score([0] * 30 + [1] * 40, torch.cat([first, second]))
    assert found.value == pytest.approx(expected)
    same = separation((torch.zeros(3), torch.arange(3)), (torch.zeros(2), torch.arange(3, 5)), resamples=20)
    assert same.value == 0.5


def test_patients_must_differ():
    members = normal(4, 2)
    with pytest.raises(ValueError, match="1 shared"):
        membership_inference(
            members,
            members,
            members,
            member_groups=torch.tensor([0, 1, 2, 3]),
            non_member_groups=torch.tensor([3, 4, 5, 6]),
        )
