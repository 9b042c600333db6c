"""What the numbers about memorization say in plain words."""

from __future__ import annotations

from typing import Literal

from condgan.metrics.copying import CopyTest
from condgan.metrics.membership import MembershipInference
from condgan.metrics.statistics import Estimate

Verdict = Literal[
    "copies training images", "training patients can be recognized", "no sign of copying", "cannot tell: too few images"
]


def decide(
    copies: CopyTest, close: CopyTest, membership: MembershipInference, shift: Estimate, *, alpha: float, share: float
) -> tuple[Verdict, str]:
    """Return the verdict by the rule of `memorization_report`, and the numbers that led to it in plain words.

    Args:
        copies: The test of relative distances.
        close: The test of plain distances, which only comments.
        membership: The attack and its control.
        shift: Chance that a held-out image is farther from the training images than these are from each other.
        alpha: Level of the test for copies.
        share: Share of copies that must be detectable for a verdict without findings.
    """
    found = (
        f"{copies.count} of {copies.generated} generated images stand out as near one training image; of as "
        f"many fresh real images {copies.expected:.1f} would (p = {copies.p_value:.2g})."
    )
    attack = (
        f"The attack tells training from held-out patients with an AUROC of {membership.auroc} (members from members: "
        f"{membership.control})."
    )
    notes = []
    if close.p_value <= alpha < copies.p_value:
        notes.append(
            f"{close.count} images lie near training images, {close.expected:.1f} expected, but no nearer to one than "
            "to others: smooth images do."
        )
    if not shift.low <= 0.5 <= shift.high:
        notes.append(
            f"Held-out images are {'farther from' if shift.value > 0.5 else 'nearer to'} the training images than "
            f"these are from each other (AUROC {shift}): they seem to come from elsewhere, and the attack, C_T and "
            "plain distances cannot be trusted here."
        )
    verdict: Verdict
    if copies.p_value <= alpha:
        verdict = "copies training images"
    elif copies.detectable > share:
        verdict = "cannot tell: too few images"
        found += (
            f" Only a share of copies of {copies.detectable:.0%} or more would have been found with a probability of "
            f"0.9: more than {copies.generated} generated images or {copies.held_out} held-out patients are needed."
        )
    elif membership.auroc.low > 0.5 and shift.low <= 0.5:
        verdict = "training patients can be recognized"
    else:
        verdict = "no sign of copying"
        found += f" A share of copies of {copies.detectable:.0%} would have been found with a probability of 0.9."
    return verdict, " ".join([found, attack, *notes])
