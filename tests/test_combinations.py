"""All losses, heads, penalties and networks of the library together: each combination trains, or says why not."""

import inspect
import itertools
import math
import random
import re
from functools import cache

import condgan as cg
from condgan import auxiliary, losses, regularizers
from condgan.training import Networks, Terms
from condgan.training.checks import check_terms

SHAPE = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 2}


def all_of(module) -> list:
    """Return every loss of a module, with its default options."""
    classes = [
        value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    return [loss() for loss in classes if not loss.__name__.startswith("_")]


def all_regularizers() -> list:
    """Return every regularizer of the library but the bases."""
    return [getattr(regularizers, name) for name in regularizers.__all__ if getattr(regularizers, name) not in BASES]


BASES = (regularizers.CriticRegularizer, regularizers.GeneratorRegularizer, regularizers.GeneratorObjective)


LOSSES = {type(loss).__name__: loss for loss in all_of(losses)}
AUXILIARY = {"none": None, **{type(loss).__name__: loss for loss in all_of(auxiliary)}}
REGULARIZERS = {"none": None, **{regularizer.__name__: regularizer for regularizer in all_regularizers()}}
HEADS = ("", "AC", "Projection", "Concatenation", "ACProjection", "TAC", "ADC", "Contrastive")
FAMILIES = {
    "DCGAN": ({"conditioning": "batch_norm"}, {}),
    "DCGAN, batch norm": ({}, {"batch_norm": True}),
    "ResNet": ({}, {}),
    "ResNet, spectral norm": ({}, {"spectral_norm": True}),
    "R3GAN": ({}, {}),
    "Flow": ({}, {}),
}
"""Options of the generator and of the critic; a flow has critics of DCGAN."""
LABELS = ("balanced", "paired")
FACTORS = (LOSSES, AUXILIARY, HEADS, REGULARIZERS, FAMILIES, LABELS)

READS = {
    "AuxiliaryClassifierLoss": ("AuxiliaryClassifierMixin", ("AC", "ACProjection", "TAC", "ADC", "Contrastive")),
    "MultiClassHingeLoss": ("AuxiliaryClassifierMixin", ("AC", "ACProjection", "TAC", "ADC", "Contrastive")),
    "TwinAuxiliaryClassifierLoss": ("TwinAuxiliaryClassifierMixin", ("TAC", "ADC")),
    "DiscriminativeClassifierLoss": ("DiscriminativeClassifierMixin", ("TAC", "ADC")),
    "DataToDataCrossEntropyLoss": ("ContrastiveMixin", ("Contrastive",)),
}
"""The mixin that a loss asks for, and the heads with what it reads."""


def expected_error(loss, term, head, regularizer, family, labels) -> str | None:
    """Return a pattern of the documented error, or None for a combination that must train."""
    if "batch norm" in family and regularizer in ("GradientPenalty", "DraganPenalty", "R1", "R2"):
        return f"^{regularizer} is defined for each sample alone.*normalizes over the batch"
    if regularizer == "GroupSpectralRegularizer" and family in ("DCGAN, batch norm", "R3GAN", "Flow"):
        return "^GroupSpectralRegularizer needs a generator with conditional batch norms"
    if regularizer == "FlowMatching" and family != "Flow":
        return f"^FlowMatching trains a FlowGenerator, or .* got a {family.split(',')[0]}Generator"
    if term != "none" and head not in READS[term][1]:
        return rf"^{term} needs .*class MyCritic\({READS[term][0]}, YourCritic\)"
    labelled = head in ("Projection", "Concatenation", "ACProjection")
    paired = [regularizer] if regularizer == "GradientPenalty" and labelled else []
    if loss == "RelativisticLoss":
        paired.append(loss)
    if paired and labels != "paired":
        return rf'^label_distribution must be "paired" .*\({", ".join(paired)}\)'
    return None


_random = random.Random(0)
_alone = [loss for loss in LOSSES if loss != "RelativisticLoss"]
COMBINATIONS = [
    (loss, *others)
    for others in itertools.product(*FACTORS[1:])
    for loss in ("RelativisticLoss", _random.choice(_alone))
]
"""All parts with the loss that needs pairs and with one of the others, which differ for no documented error."""


def networks_of(head, family) -> tuple[cg.Generator, cg.Critic]:
    of_generator, of_critic = FAMILIES[family]
    if family == "Flow":  # its latents are as large as its images
        return cg.FlowGenerator(**SHAPE), getattr(cg, f"{head}DCGANCritic")(**SHAPE)
    name = family.split(",")[0]
    generator = getattr(cg, f"{name}Generator")(latent_dim=4, **SHAPE, **of_generator)
    return generator, getattr(cg, f"{head}{name}Critic")(**SHAPE, **of_critic)


def terms_of(loss, term, regularizer) -> dict:
    make = REGULARIZERS[regularizer]
    options = {"class_counts": (9, 6, 3)} if make is cg.GroupSpectralRegularizer else {}
    return {
        "loss": LOSSES[loss],
        "auxiliary": [] if term == "none" else [AUXILIARY[term]],
        "regularizers": [] if make is None else [make(1.0, **options)],
    }


def sorted_terms(loss, term, regularizer) -> Terms:
    given = terms_of(loss, term, regularizer)
    of_generator = [made for made in given["regularizers"] if isinstance(made, regularizers.GeneratorRegularizer)]
    of_critic = [made for made in given["regularizers"] if made not in of_generator]
    return Terms(given["loss"], given["auxiliary"], of_critic, of_generator)


def test_every_combination_fits_or_is_refused_as_documented():
    networks = cache(lambda head, family: Networks(*networks_of(head, family)))
    made = cache(sorted_terms)
    for loss, term, head, regularizer, family, labels in COMBINATIONS:
        terms = made(loss, term, regularizer)
        message = expected_error(loss, term, head, regularizer, family, labels)
        try:
            check_terms(networks(head, family), terms, label_distribution=labels, critic_steps=1)
            said = None
        except ValueError as error:
            said = str(error)
        found = said is None if message is None else said is not None and re.search(message, said)
        assert found, (loss, term, head, regularizer, family, labels, message, said)


def covering(combinations: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return a few of the combinations in which each pair of values occurs that occurs in any, chosen greedily."""
    bits: dict[tuple, int] = {}

    def pairs(combination):
        return sum(1 << bits.setdefault(pair, len(bits)) for pair in itertools.combinations(enumerate(combination), 2))

    pairs_of = {combination: pairs(combination) for combination in combinations}
    missing = (1 << len(bits)) - 1
    chosen = []
    while missing:
        chosen.append(max(pairs_of, key=lambda combination: (pairs_of[combination] & missing).bit_count()))
        missing &= ~pairs_of[chosen[-1]]
    return chosen


def test_every_pair_of_parts_trains(tiny_images):
    allowed = [combination for combination in COMBINATIONS if expected_error(*combination) is None]
    for loss, term, head, regularizer, family, labels in covering(allowed):
        generator, critic = networks_of(head, family)
        trainer = cg.Trainer(
            generator, critic, **terms_of(loss, term, regularizer), label_distribution=labels, device="cpu"
        )
        before = [weight.detach().clone() for weight in (*generator.parameters(), *critic.parameters())]
        steps = 3 if family == "Flow" else 2  # zeros at its end hide all other layers from the first gradients
        trainer.fit(tiny_images, steps=steps, batch_size=4, progress=False)
        combination = (loss, term, head, regularizer, family, labels)
        metrics = trainer.read_metrics()
        assert all(map(math.isfinite, metrics.values())), (combination, metrics)
        logged = {name.split("/")[1].replace("_", "") for name in metrics}
        expected = {name.removesuffix("Loss").lower() for name in (term, regularizer) if name != "none"}
        assert logged >= {"adversarial", *expected}, (combination, metrics)
        moved = [
            not old.equal(new) for old, new in zip(before, (*generator.parameters(), *critic.parameters()), strict=True)
        ]
        assert sum(moved) > len(moved) / 2, combination
