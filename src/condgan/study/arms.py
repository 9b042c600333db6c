"""The arms of a study: what a classifier is trained on, with generated images, and without them as a control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from condgan.classifier.augmentation import Augment, ClassicalAugment
from condgan.classifier.network import Precision
from condgan.classifier.training import Classifier, train_classifier
from condgan.data.dataset import ArrayDataset, check_compatible, check_disjoint
from condgan.sampling import ClassDistribution, class_probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One training of a classifier: its training set, and options of the training.

    Args:
        real: Whether to train on the real training images.
        synthetic: Number of generated images, as a multiple of the number of real ones.
        duplicates: Number of real images to add again, as a multiple of the number of real ones.
        labels: Distribution of the classes of the generated images, and of the duplicates. `"balanced"` gives each
            class the same number, so a rare class gains most; `"empirical"` gives the proportions of the real images.
        class_weights: Weights of the loss, see `train_classifier`.
        augment: Augmentation, see `train_classifier`.

    Raises:
        ValueError: If a multiple is negative, or the training set is empty.
    """

    real: bool = False
    synthetic: float = 0.0
    duplicates: float = 0.0
    labels: ClassDistribution = "balanced"
    class_weights: Literal["balanced"] | None = None
    augment: Augment | None = None

    def __post_init__(self) -> None:
        if self.synthetic < 0 or self.duplicates < 0 or not (self.real or self.synthetic or self.duplicates):
            raise ValueError(
                f"a phase needs real images, or a positive multiple of synthetic ones or duplicates, got {self}."
            )

    def training_set(self, real: ArrayDataset, synthetic: ArrayDataset | None = None, *, seed: int = 0) -> ArrayDataset:
        """Return the training set.

        Of the generated images, the first of each class are taken, so that the images of a smaller multiple are among
        those of a larger one. Duplicates are drawn without replacement; a class that is duplicated more than once is
        repeated as a whole, and the rest is drawn.

        Args:
            real: Real training images.
            synthetic: Generated images, at least as many of each class as are needed.
            seed: Seed of the duplicates.

        Returns:
            `real` itself if nothing is added to it, else a data set without groups.

        Raises:
            ValueError: If generated images are needed, and missing, too few, or of other classes or another shape.
        """
        if not self.synthetic and not self.duplicates:
            return real
        parts = [(real, torch.arange(len(real)))] if self.real else []
        if self.duplicates:
            order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
            needed = self._counts(self.duplicates, real)
            parts.append((real, order[_first_of_each_class(real.labels[order], needed)]))
        if self.synthetic:
            needed = self._counts(self.synthetic, real)
            pool = _checked_synthetic(synthetic, needed, real)
            parts.append((pool, _first_of_each_class(pool.labels, needed)))
        return ArrayDataset(
            torch.cat([data.images[index] for data, index in parts]),
            torch.cat([data.labels[index] for data, index in parts]),
            class_names=real.class_names,
            source=" + ".join(f"{len(index)} of {data.source}" for data, index in parts),
            attribution=real.attribution,
        )

    def _counts(self, multiple: float, real: ArrayDataset) -> list[int]:
        y = synthetic_labels(real.class_counts, round(multiple * len(real)), distribution=self.labels)
        counts: list[int] = torch.bincount(y, minlength=real.num_classes).tolist()
        return counts


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to train a classifier: phases in order, each starting from the weights of the one before.

    Args:
        name: Name of the arm.
        phases: The phases, in order.

    Raises:
        ValueError: If there are no phases.

    Examples:
        >>> arm = Arm("synthetic_3x", (Phase(synthetic=3, labels="empirical"),))
        >>> arm.needs_synthetic, arm.synthetic_multiple
        (True, 3)
        >>> real = ArrayDataset(torch.zeros(8, 1, 8, 8, dtype=torch.uint8), [0, 0, 1, 1, 1, 1, 1, 1])
        >>> y = synthetic_labels(real.class_counts, 24, distribution="empirical")
        >>> synthetic = ArrayDataset(torch.full((24, 1, 8, 8), 255, dtype=torch.uint8), y)
        >>> arm.phases[0].training_set(real, synthetic).class_counts
        (6, 18)
    """

    name: str
    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError(f"an arm needs at least one phase, got none for {self.name!r}.")

    @property
    def synthetic_multiple(self) -> float:
        """Number of generated images it needs, as a multiple of the number of real ones."""
        return max(phase.synthetic for phase in self.phases)

    @property
    def needs_synthetic(self) -> bool:
        """Whether it needs generated images; an arm that does not is a control."""
        return self.synthetic_multiple > 0

    @property
    def synthetic_only(self) -> bool:
        """Whether it trains on generated images alone."""
        return not any(phase.real or phase.duplicates for phase in self.phases)


ARMS: dict[str, Arm] = {
    name: Arm(name, phases)
    for name, phases in {
        "real": (Phase(real=True),),
        "real_augmented": (Phase(real=True, augment=ClassicalAugment()),),
        "real_weighted": (Phase(real=True, class_weights="balanced"),),
        "real_augmented_weighted": (Phase(real=True, augment=ClassicalAugment(), class_weights="balanced"),),
        "real_oversampled": (Phase(real=True, duplicates=1),),
        "synthetic_1x": (Phase(synthetic=1),),
        "synthetic_2x": (Phase(synthetic=2),),
        "synthetic_5x": (Phase(synthetic=5),),
        "real_plus_synthetic_2to1": (Phase(real=True, synthetic=0.5),),
        "real_plus_synthetic_1to1": (Phase(real=True, synthetic=1),),
        "real_plus_synthetic_1to2": (Phase(real=True, synthetic=2),),
        "pretrained": (Phase(synthetic=5), Phase(real=True, class_weights="balanced")),
    }.items()
}
"""The arms of a study by name. Generated images have the same number of each class.

`real_oversampled` has as many images of each class as `real_plus_synthetic_1to1`, with copies in place of generated
ones. `pretrained` ends like `real_weighted` and starts from other weights: without class weights, its last phase would
undo the balance of the first."""

CONTROLS: dict[str, Arm] = {name: arm for name, arm in ARMS.items() if not arm.needs_synthetic}
"""The arms without generated images. Generated images help if they beat the best of these, not just the first."""


def run_arm(
    arm: Arm,
    real: ArrayDataset,
    validation: ArrayDataset,
    synthetic: ArrayDataset | None = None,
    *,
    steps: int,
    test: ArrayDataset | None = None,
    epochs: int = 3,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    precision: Precision = "bf16",
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Classifier:
    """Train the classifier of one arm.

    All arms get the same number of optimizer steps. Phases share steps and epochs equally: pre-training and
    fine-tuning take half of them each, with the same settings and a one-cycle schedule each. A phase starts from the
    best epoch of the one before, chosen on the validation images.

    Args:
        arm: The arm, such as `ARMS["synthetic_1x"]`.
        real: Real training images, also for arms that train on none: they determine the number of generated ones.
        validation: Real images of other patients, the same for all arms.
        synthetic: Generated images, see `Phase.training_set`; ignored by arms that need none.
        steps: Optimizer steps of all phases together.
        test: Images to be tested on later, only checked here: no patient may be in two of `real`, `validation` and
            `test`, see `condgan.data.check_disjoint`.
        epochs: Evaluations on the validation set, of all phases together; at least one in each.
        batch_size: Images per step.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        precision: Precision of the training.
        device: Where to train.
        seed: Seed of the duplicates and of all trainings.
        progress: Whether to show progress bars.

    Returns:
        The classifier of the last phase, with the name of the arm in its settings and the seconds of all phases.

    Raises:
        ValueError: If a patient is in two of the sets, generated images are missing, too few or of other classes, or a
            setting is out of range.
    """
    if test is not None:
        check_disjoint(training=real, validation=validation, test=test)
    ends = [steps * phase // len(arm.phases) for phase in range(len(arm.phases) + 1)]
    trained: list[Classifier] = []
    for phase, (begin, end) in zip(arm.phases, pairwise(ends), strict=True):
        classifier = train_classifier(
            phase.training_set(real, synthetic, seed=seed),
            validation,
            epochs=max(1, epochs // len(arm.phases)),
            steps=end - begin,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            class_weights=phase.class_weights,
            augment=phase.augment,
            initial=trained[-1] if trained else None,
            precision=precision,
            device=device,
            seed=seed,
            progress=progress,
        )
        trained.append(classifier)
    return replace(
        trained[-1],
        settings={"arm": arm.name, **trained[-1].settings},
        seconds=sum(classifier.seconds for classifier in trained),
    )


def synthetic_labels(
    class_counts: Sequence[int], count: int, *, distribution: ClassDistribution = "balanced"
) -> Tensor:
    """Return labels for generated images: every prefix is as near to the distribution as whole numbers allow.

    The next label is always that of the class with the smallest $(n_k + 1/2) / p_k$, where $n_k$ is the number of its
    labels so far and $p_k$ its probability. Generate the images of the largest arm, and all arms can share them.

    Args:
        class_counts: Numbers of the real images of each class.
        count: Number of labels.
        distribution: `"balanced"`, `"empirical"`, or another distribution of the classes.

    Shape:
        - Returns: `(count,)`, int64 in `[0, K)`.

    Raises:
        ValueError: If the count is negative or the distribution is unknown.

    Examples:
        >>> synthetic_labels([2, 6], 8), synthetic_labels([2, 6], 8, distribution="empirical")
        (tensor([0, 1, 0, 1, 0, 1, 0, 1]), tensor([1, 0, 1, 1, 1, 0, 1, 1]))

    References:
        Webster's method of apportionment (Balinski and Young 1982, "Fair Representation").
    """
    if count < 0:
        raise ValueError(f"count must be at least 0, got {count}.")
    probabilities = class_probabilities(distribution, class_counts)
    turns = (torch.arange(count)[:, None] + 0.5) / probabilities
    return turns.flatten().argsort(stable=True)[:count] % len(probabilities)


def _first_of_each_class(labels: Tensor, counts: Sequence[int]) -> Tensor:
    """Return indices of the first `counts` samples of each class, repeated from the start where there are fewer."""
    found = []
    for label, count in enumerate(counts):
        own = (labels == label).nonzero().flatten()
        found.append(own[torch.arange(count) % max(1, len(own))])
    return torch.cat(found)


def _checked_synthetic(synthetic: ArrayDataset | None, needed: Sequence[int], real: ArrayDataset) -> ArrayDataset:
    hint = "Generate images with the labels synthetic_labels(real.class_counts, count)."
    if synthetic is None:
        raise ValueError(f"this arm needs synthetic images, {list(needed)} of the classes, got None. {hint}")
    check_compatible("the synthetic set", synthetic, real.class_names, real.image_shape)
    if any(have < need for have, need in zip(synthetic.class_counts, needed, strict=True)):
        raise ValueError(
            f"this arm needs {list(needed)} synthetic images of the classes, got {list(synthetic.class_counts)}. {hint}"
        )
    return synthetic
