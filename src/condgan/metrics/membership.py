"""A membership inference attack on training patients, with a negative control."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from condgan.devices import plain_defaults
from condgan.metrics.neighbors import nearest_neighbors
from condgan.stats import Estimate, auroc, group_bootstrap


@dataclass(frozen=True, slots=True)
class MembershipInference:
    """How well an attack separates training images from others, see `membership_inference`.

    Args:
        auroc: Probability that a member lies nearer to the generated images than a non-member; 0.5 for guessing.
        control: The same for one half of the members against the other, by patient; 0.5 is expected.
    """

    auroc: Estimate
    control: Estimate


@plain_defaults()
def membership_inference(
    members: Tensor,
    non_members: Tensor,
    generated: Tensor,
    *,
    member_groups: Tensor,
    non_member_groups: Tensor,
    resamples: int = 2000,
    seed: int = 0,
) -> MembershipInference:
    """Attack the privacy of training patients: an image that is nearer to a generated one is called a member.

    The control is the attack on members against other members, which cannot be separated: an interval that misses 0.5
    more often than its level allows would show a fault of the procedure. The control does not show differences between
    members and non-members that have nothing to do with training, as between two hospitals: draw the non-members from
    the source of the members.

    Args:
        members: Features of training images.
        non_members: Features of real images of held-out patients.
        generated: Features of generated images.
        member_groups: Patients of the members.
        non_member_groups: Patients of the non-members, who must not be members.
        resamples: Number of bootstrap resamples of patients.
        seed: Seed of the bootstrap and of the halves.

    Shape:
        - `members`, `non_members`, `generated`: `(N, D)`, `(M, D)` and `(m, D)`.
        - `member_groups`, `non_member_groups`: `(N,)` and `(M,)`, int64.

    Raises:
        ValueError: If a patient is in both sets, or there are fewer than two member patients.

    References:
        Chen et al. 2020, arXiv:1909.03935 (full black-box attack).
    """
    shared = set(member_groups.tolist()) & set(non_member_groups.tolist())
    patients = member_groups.unique()
    if shared or len(patients) < 2:
        raise ValueError(
            f"members must be of two patients or more and share none with non-members, got {len(patients)} and "
            f"{len(shared)} shared. Split by patient, and number the patients of both sets together."
        )
    near = nearest_neighbors(members, generated).distances[:, 0]
    far = nearest_neighbors(non_members, generated).distances[:, 0]
    order = torch.randperm(len(patients), generator=torch.Generator().manual_seed(seed))
    half = torch.isin(member_groups, patients[order[: len(order) // 2]])
    return MembershipInference(
        auroc=separation((near, member_groups), (far, non_member_groups), resamples=resamples, seed=seed),
        control=separation(
            (near[half], member_groups[half]), (near[~half], member_groups[~half]), resamples=resamples, seed=seed
        ),
    )


def separation(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Return the probability that a value of the first set is below one of the second, with its interval over groups.

    Args:
        first: Values and their groups.
        second: Values and their groups.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.
    """
    values = torch.cat([first[0], second[0]])
    _, rank = values.unique(return_inverse=True)
    above = rank.double() / max(1, int(rank.max()))
    probabilities = torch.stack([1 - above, above], 1)
    labels = torch.cat([torch.zeros(len(first[0])), torch.ones(len(second[0]))]).long()
    return group_bootstrap(
        lambda weights: auroc(probabilities, labels, weights=weights),
        torch.cat([first[1], second[1]]),
        resamples=resamples,
        seed=seed,
    )
