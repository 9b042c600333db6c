"""Training and evaluation of a classifier, which measures what can be learned from real or generated images."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from condgan._version import __version__
from condgan.classifier.augmentation import Augment
from condgan.classifier.network import Precision, ResNet18, autocast_logits, build_network, predict
from condgan.data.dataset import ArrayDataset, check_compatible
from condgan.devices import best_device, plain_defaults
from condgan.files import as_path, check_format, parse_record, with_digest, write_whole
from condgan.stats import ClassificationReport, auroc, best_threshold, classification_report, confusion_matrix
from condgan.training.engines import make_engine
from condgan.training.optimizer import OptimizerConfig, set_learning_rate
from condgan.training.step import gradients_as_laid_out
from condgan.weights import check_weights, read_weights, weights_digest, weights_of

FORMAT = 1
"""Format of saved classifiers, in which 0 had neither version nor digests."""

_WARMUP = 0.25


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained classifier and the record of its training.

    Args:
        model: Maps images `(N, C, H, W)` in [-1, 1] to logits `(N, K)`; in evaluation mode.
        class_names: Names of the classes, in label order.
        image_shape: Shape of the images it takes.
        threshold: For two classes, the threshold on the probability of class 1 chosen on the validation images; None
            for more.
        history: One row per epoch: `epoch`, `step`, `loss`, `validation/auroc`, `validation/balanced_accuracy`.
        settings: Everything that the training depended on, ready for JSON.
        seconds: Wall-clock time of the training.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    threshold: float | None
    history: tuple[dict[str, float], ...]
    settings: dict[str, Any]
    seconds: float

    def predict_proba(self, images: Tensor) -> Tensor:
        """Return class probabilities, on the CPU.

        They are float64: in float32 all confident decisions would have the probability 1 and tie in the AUROC.

        Shape:
            - `images`: `(N, C, H, W)`, uint8.
            - Returns: `(N, K)`, float64.

        Raises:
            ValueError: If the images are not uint8 or have another shape than those of the training.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images must be uint8 of the shape (N, {', '.join(map(str, self.image_shape))}), got {images.dtype} "
                f"of the shape {tuple(images.shape)}. Convert generated images with condgan.images.to_uint8."
            )
        return predict(self.model, images, self.settings["precision"])

    def evaluate(
        self, test: ArrayDataset, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
    ) -> ClassificationReport:
        """Evaluate the classifier on test images, with intervals over their groups (patients).

        Args:
            test: Images of patients who are in neither the training nor the validation set, see
                `condgan.data.check_disjoint`.
            resamples: Number of bootstrap resamples.
            level: Nominal coverage of the intervals.
            seed: Seed of the bootstrap.

        Raises:
            ValueError: If classes or image shape are not those of the training.
        """
        check_compatible("the test set", test, self.class_names, self.image_shape)
        return classification_report(
            self.predict_proba(test.images),
            test.labels,
            groups=test.groups,
            class_names=self.class_names,
            threshold=self.threshold,
            resamples=resamples,
            level=level,
            seed=seed,
        )

    def save(self, path: str | Path) -> None:
        """Save weights and description in one safetensors file; folders are made if missing.

        Raises:
            ValueError: If a weight is not finite.
        """
        weights = weights_of(self.model)
        described = {
            "format": FORMAT,
            "version": __version__,
            "weights_sha256": weights_digest(weights),
            "class_names": self.class_names,
            "image_shape": self.image_shape,
            "threshold": self.threshold,
            "history": self.history,
            "settings": self.settings,
            "seconds": self.seconds,
        }
        with write_whole(as_path(path)) as file:
            file.write(save(weights, metadata={"classifier": json.dumps(with_digest(described))}))

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> Classifier:
        """Load a classifier that `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, a later version wrote it, or it holds anything else.
        """
        weights, metadata = read_weights(as_path(path))
        if "classifier" not in metadata:
            raise ValueError(f"{str(path)!r} must hold a classifier, saved by Classifier.save; it holds other tensors.")
        content = parse_record(metadata["classifier"], path)
        check_format(content, FORMAT, path)
        check_weights(weights, content.get("weights_sha256"), path)
        try:
            shape, names = tuple(content["image_shape"]), tuple(content["class_names"])
            model = build_network(shape, len(names), seed=0)
            model.load_state_dict(weights)
            described = {name: content[name] for name in ("threshold", "settings", "seconds")}
            history = tuple(content["history"])
        except Exception as error:  # a wrong description can fail in any way
            raise ValueError(f"{str(path)!r} must describe the classifier whose weights it has: {error!r}.") from error
        model = model.to(device).eval()
        return cls(model=model, class_names=names, image_shape=shape, history=history, **described)


@plain_defaults()
def train_classifier(
    train: ArrayDataset,
    validation: ArrayDataset,
    *,
    epochs: int = 3,
    steps: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    class_weights: Literal["balanced"] | None = "balanced",
    augment: Augment | None = None,
    initial: Classifier | None = None,
    precision: Precision = "bf16",
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Classifier:
    r"""Train a ResNet-18 on real or generated images, from scratch or from the weights of another classifier.

    AdamW under a one-cycle schedule: the learning rate rises linearly over the first quarter of the steps and falls
    along a cosine to zero. After each epoch the validation AUROC is computed, and the weights of the best epoch are
    kept, of the later one in a tie. The AUROC does not depend on a threshold and is less noisy than the balanced
    accuracy; it does not change where generated images merely shift the probabilities. For two classes, the threshold
    with the best balanced accuracy on the validation images is kept with them.

    With balanced class weights, sample n has the weight $N / (K N_{y_n})$ in the loss. Rare and frequent classes then
    count the same, every image is still shown once per epoch, and nothing changes for classes of equal size: real and
    generated training sets are treated alike.

    Images stay on the device as uint8. On CUDA devices the updates are captured as CUDA graphs.

    The same call gives bit-equal weights on the same CPU with the same number of threads; no global random state is
    read or changed.

    Args:
        train: Training images, real or generated.
        validation: Real images of patients that are neither in `train` nor in the test set. The best epoch and the
            threshold are chosen on them.
        epochs: Number of epochs, each followed by an evaluation on the validation set.
        steps: Total number of optimizer steps, cut into `epochs` equal parts. By default `epochs` passes over `train`.
            Set it to train equally long on sets of different sizes.
        batch_size: Number of images per step; a smaller training set is one batch.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        class_weights: `"balanced"`, or None to weight all images equally.
        augment: Changes the images of each batch at random, such as `ClassicalAugment`. It runs on the device, outside
            the captured updates.
        initial: Start from the weights of this classifier instead of random ones (fine-tuning); it is left as it is.
            Optimizer and schedule begin anew.
        precision: `"bf16"` runs all but the head under autocast; parameters and loss stay float32. `"fp32"` is
            for devices without bf16 instructions.
        device: Where to train. By default CUDA, then MPS, then the CPU.
        seed: Seed of the initial weights, of the order of the images and of the augmentation.
        progress: Whether to show a progress bar.

    Returns:
        The classifier at its best epoch.

    Raises:
        ValueError: If images are not uint8, classes or shapes of the sets or of `initial` differ, a number is out of
            range, or `augment` returns anything but uint8 images of the same shape.
        FloatingPointError: If the loss of an epoch is not finite.

    Examples:
        >>> import torch
        >>> from condgan.data import ArrayDataset
        >>> y = torch.arange(40) % 2
        >>> images = (64 + 128 * y).byte().view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
        >>> data = ArrayDataset(images, y)
        >>> classifier = train_classifier(data, data, epochs=1, batch_size=8, precision="fp32")
        >>> classifier.predict_proba(images[:3]).shape, classifier.settings["stem"]
        (torch.Size([3, 2]), '3x3 convolution, stride 2, no pooling')
    """
    start = time.perf_counter()
    check_settings(
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        precision=precision,
        class_weights=class_weights,
    )
    check_compatible("the training set", train, train.class_names, train.image_shape)
    check_compatible("the validation set", validation, train.class_names, train.image_shape)
    _check_initial(initial, train)
    target = torch.device(device or best_device())
    batch = min(batch_size, len(train))
    total = epochs * (len(train) // batch) if steps is None else steps
    model = build_network(train.image_shape, train.num_classes, seed=seed).to(target)
    if initial is not None:
        model.load_state_dict(initial.model.state_dict())
    weight = None
    if class_weights == "balanced":
        weight = len(train) / (train.num_classes * torch.tensor(train.class_counts, device=target))
    config = OptimizerConfig(learning_rate, betas=(0.9, 0.999), weight_decay=weight_decay)
    optimizer = config.build(model.parameters())
    updates = _Updates(model, train, optimizer, learning_rate, weight, augment, precision, batch, total, seed)
    with tqdm(total=total, desc="Classifier", unit="step", disable=not progress) as bar:
        history, best = _best_epoch(updates, validation, epochs, bar)
    model.load_state_dict(best.state)
    return Classifier(
        model=model.eval(),
        class_names=train.class_names,
        image_shape=train.image_shape,
        threshold=best.threshold,
        history=tuple(history),
        settings={
            "network": "ResNet-18 from scratch" if initial is None else "ResNet-18, fine-tuned",
            "stem": model.stem,
            "image_shape": list(train.image_shape),
            "class_names": list(train.class_names),
            "optimizer": "AdamW, one cycle",
            "epochs": epochs,
            "steps": total,
            "batch_size": batch,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "class_weights": class_weights,
            "augment": None if augment is None else repr(augment),
            "initial": None if initial is None else initial.settings,
            "precision": precision,
            "device": target.type,
            "seed": seed,
            "best_epoch": best.epoch,
            "threshold": best.threshold,
            "train": _describe(train),
            "validation": _describe(validation),
        },
        seconds=time.perf_counter() - start,
    )


class _Updates:
    """The optimizer steps of a classifier, epoch by epoch."""

    def __init__(
        self,
        model: ResNet18,
        train: ArrayDataset,
        optimizer: torch.optim.Optimizer,
        learning_rate: float,
        weight: Tensor | None,
        augment: Augment | None,
        precision: Precision,
        batch_size: int,
        total: int,
        seed: int,
    ) -> None:
        self.model, self.weight, self.augment, self.precision, self.total = model, weight, augment, precision, total
        self.parameters = list(model.parameters())
        self.learning_rate, self.optimizer = learning_rate, optimizer
        device = self.parameters[0].device
        self.engine = make_engine("auto", device)
        self.images, self.labels = train.images.to(device), train.labels.to(device)
        self.batches = _draw_batches(len(train), batch_size, seed, device)
        self.rng = torch.Generator(device).manual_seed(seed + 1)

    def run(self, begin: int, end: int, bar: tqdm[NoReturn]) -> float:
        """Do the steps from `begin` to `end` and return their mean loss."""
        self.model.train()
        total_loss = torch.zeros((), device=self.labels.device)
        for step, chosen in zip(range(begin, end), self.batches, strict=False):
            set_learning_rate(self.optimizer, self.learning_rate * _one_cycle((step + 1) / self.total))
            x = self.images.index_select(0, chosen)
            if self.augment is not None:
                x = _augmented(self.augment, x, self.rng)
            total_loss += self.engine.run("classifier", self._update, _Batch(x, self.labels[chosen]))["loss"]
            bar.update()
        return float(total_loss) / (end - begin)

    def _update(self, given: _Batch) -> dict[str, Tensor]:
        logits = autocast_logits(self.model, given.images, self.precision)
        loss = nn.functional.cross_entropy(logits, given.labels, weight=self.weight)
        for parameter, gradient in zip(self.parameters, gradients_as_laid_out(loss, self.parameters), strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return {"loss": loss.detach()}


def _best_epoch(
    updates: _Updates, validation: ArrayDataset, epochs: int, bar: tqdm[NoReturn]
) -> tuple[list[dict[str, float]], _Best]:
    """Train to the end; return the history and the epoch with the best validation AUROC."""
    history: list[dict[str, float]] = []
    best = _Best(-math.inf, 0, {}, None)
    ends = [updates.total * epoch // epochs for epoch in range(epochs + 1)]
    for epoch, (begin, end) in enumerate(pairwise(ends), start=1):
        loss = updates.run(begin, end, bar)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the mean loss of epoch {epoch} must be finite, got {loss}. Lower learning_rate "
                f"({updates.learning_rate})."
            )
        p = predict(updates.model, validation.images, updates.precision)
        scores = _validation_scores(p, validation.labels)
        history.append({"epoch": epoch, "step": end, "loss": loss, **scores})
        bar.set_postfix({name: f"{score:.3f}" for name, score in scores.items()})
        if scores["validation/auroc"] >= best.auroc:
            threshold = best_threshold(p[:, 1], validation.labels) if p.shape[1] == 2 else None
            state = {name: value.clone() for name, value in updates.model.state_dict().items()}
            best = _Best(scores["validation/auroc"], epoch, state, threshold)
    return history, best


class _Best(NamedTuple):
    auroc: float
    epoch: int
    state: dict[str, Tensor]
    threshold: float | None


@dataclass(frozen=True, slots=True)
class _Batch:
    images: Tensor
    labels: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.images, self.labels]


def _draw_batches(count: int, batch_size: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Yield full batches of shuffled indices without end; an incomplete last batch of a shuffle is dropped."""
    rng = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=rng).to(device)  # once per shuffle: each copy waits for the device
        yield from torch.split(order[: count - count % batch_size], batch_size)


def _augmented(augment: Augment, images: Tensor, rng: torch.Generator) -> Tensor:
    changed = augment(images, rng=rng)
    if changed.dtype != torch.uint8 or changed.shape != images.shape:
        raise ValueError(
            f"augment must return uint8 images of the shape it was given, {tuple(images.shape)}, got {changed.dtype} "
            f"of the shape {tuple(changed.shape)}. Convert images in [-1, 1] with condgan.images.to_uint8."
        )
    return changed


def _one_cycle(progress: float) -> float:
    """Return the learning rate relative to its peak, for the fraction of the training that is done."""
    if progress < _WARMUP:
        return progress / _WARMUP
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - _WARMUP) / (1 - _WARMUP)))


def _check_initial(initial: Classifier | None, train: ArrayDataset) -> None:
    if initial is None:
        return
    has, needs = ((other.class_names, other.image_shape) for other in (initial, train))
    if has != needs:
        raise ValueError(
            f"initial must have the classes and image shape of the training set, {needs}, got {has}. Train it on "
            "images of the same classes, read at one size."
        )


def _validation_scores(p: Tensor, y: Tensor) -> dict[str, float]:
    confusion = confusion_matrix(p.argmax(1), y, num_classes=p.shape[1])
    balanced = (confusion.diagonal() / confusion.sum(1)).mean()
    return {"validation/auroc": float(auroc(p, y)), "validation/balanced_accuracy": float(balanced)}


def _describe(data: ArrayDataset) -> dict[str, Any]:
    return {"source": data.source, "fingerprint": data.fingerprint, "class_counts": list(data.class_counts)}


def check_settings(
    *,
    epochs: int,
    steps: int | None,
    batch_size: int,
    learning_rate: float,
    precision: str,
    class_weights: str | None,
) -> None:
    """Raise an error if a setting of a training is out of range.

    Raises:
        ValueError: If one is.
    """
    if epochs < 1 or (steps is not None and steps < epochs):
        raise ValueError(
            f"epochs must be at least 1 and steps at least epochs, got epochs={epochs} and steps={steps}. Steps are "
            "cut into that many epochs: lower epochs or raise steps."
        )
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2, got {batch_size}: batch normalization needs several images.")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, got {learning_rate}. Try 1e-3.")
    if precision not in ("fp32", "bf16"):
        raise ValueError(f'precision must be "fp32" or "bf16", got {precision!r}.')
    if class_weights not in ("balanced", None):
        raise ValueError(f'class_weights must be "balanced" or None, got {class_weights!r}.')
