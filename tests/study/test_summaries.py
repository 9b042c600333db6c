"""Scores of arms, their comparisons and what follows from them, of invented classifiers and of the null."""

import itertools

import pytest
import torch

from condgan.data import ArrayDataset
from condgan.runs import RecipeConfig
from condgan.stats import Estimate, auroc, classification_report, paired_difference, seed_interval
from condgan.study.cells import make_cells
from condgan.study.folder import StudyDescription, StudyFolder
from condgan.study.results import Answer, ArmKey, Family, PartDescription, Question, Reason, Results
from condgan.study.study import Study
from condgan.study.summaries import TestedArms, compare_arms, relative_usefulness, summarize, summarize_arms
from study.builders import ORIGIN, classifier, data

TINY = RecipeConfig(recipe="acgan", steps=2, batch_size=8, base_channels=4)
LABELS = torch.arange(400) % 2
GROUPS = torch.arange(400) // 4
RECIPES = {"acgan": TINY, "acwgan_gp": TINY}
NAMES = ("normal", "ill")


def part(*counts):
    return PartDescription(counts=counts, patients=100, fingerprint="0123")


def invent(folder, config, quality, *, keep=lambda cell: True):
    """Write a study whose classifiers are right as often as `quality` says of their cell."""
    files = StudyFolder(folder)
    described = data(class_names=NAMES, image_shape=config.image_shape, train=part(100, 300), test=part(200, 200))
    files.begin(StudyDescription(config=config, data=described), (LABELS, GROUPS))
    shared = torch.rand(400, generator=torch.Generator().manual_seed(0))
    for number, cell in enumerate(make_cells(config)):
        if cell.kind != "classifier" or not keep(cell):
            continue
        rng = torch.Generator().manual_seed(number + 1)
        right = (0.7 * shared + 0.3 * torch.rand(400, generator=rng)) < quality(cell)
        confidence = torch.where(right, LABELS, 1 - LABELS) * 0.6 + 0.2 + 0.1 * torch.rand(400, generator=rng)
        p = torch.stack([1 - confidence, confidence], 1).double()
        outcome = classifier(
            cell.arm,
            percent=cell.percent,
            recipe=cell.recipe,
            seed=cell.seed or 0,
            number=cell.classifier_seed,
            report=classification_report(p, LABELS, class_names=NAMES, resamples=2),
        )
        assert outcome.name == cell.name
        files.write(outcome, p)
    return summarize(folder)


def verdict(results, question, **subjects):
    (found,) = [
        one
        for one in results.verdicts
        if one.question is question and all(getattr(one, name) == value for name, value in subjects.items())
    ]
    return found


@pytest.fixture(scope="module")
def full_config(small_config):
    def make(**changes):
        arms = ("real", "real_weighted", "synthetic_1x", "real_plus_synthetic_1to1")
        return small_config(**{"recipes": RECIPES, "arms": arms, "seeds": 3, "classifier_seeds": 3, **changes})

    return make


@pytest.fixture(scope="module")
def even(full_config, tmp_path_factory):
    """The results of a study whose classifiers are all equally good."""
    return invent(tmp_path_factory.mktemp("even"), full_config(), lambda cell: 0.7)


def test_every_arm_is_summarized_with_its_seeds(even, tmp_path):
    rows = {row.arm: row for row in even.summaries if row.metric == "balanced_accuracy"}
    assert len(rows) == 2 + 2 * 2
    metrics = {row.metric for row in even.summaries}
    assert metrics == {"accuracy", "balanced_accuracy", "auroc", "macro_f1", "recall/normal", "recall/ill"}
    synthetic = rows[ArmKey(recipe="acgan", arm="synthetic_1x", percent=100.0)]
    counts = synthetic.estimate.counts
    assert (counts.generators, counts.classifiers, counts.patients, synthetic.images) == (3, 3, 100, 400)
    control = rows[ArmKey(recipe=None, arm="real", percent=100.0)].estimate.counts
    assert (control.generators, control.classifiers) == (None, 3)
    for row in even.summaries:
        assert row.estimate.interval.low <= row.estimate.value <= row.estimate.interval.high
    assert even.commit == ORIGIN.commit
    even.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == even


def test_summaries_are_the_scores_of_the_probabilities(full_config, tmp_path):
    config = full_config(seeds=1, classifier_seeds=1)
    results = invent(tmp_path, config, lambda cell: 0.7)
    p = StudyFolder(tmp_path).probabilities("classifier-real-c0-p100")
    report = classification_report(p, LABELS, class_names=NAMES, resamples=2)
    found = {row.metric: row.estimate.value for row in results.summaries if row.arm.arm == "real"}
    assert found == {name: pytest.approx(report.metrics[name].value) for name in found}


def test_relative_usefulness_is_one_for_real_images_in_disguise(even):
    rows = [row for row in even.summaries if row.metric == "balanced_accuracy"]
    assert all(row.relative_usefulness is None for row in rows if row.arm.recipe is None)
    assert all(abs(row.relative_usefulness - 1) < 0.25 for row in rows if row.arm.recipe is not None)


def test_help_is_said_against_the_best_control_only(full_config, tmp_path):
    def quality(cell):
        return {"real": 0.5, "real_weighted": 0.72, "real_plus_synthetic_1to1": 0.7}.get(cell.arm, 0.4)

    results = invent(tmp_path, full_config(), quality)
    primary = [row for row in results.comparisons if row.primary]
    assert len(primary) == 4
    assert {row.b.arm for row in primary} == {"real_weighted"}
    assert verdict(results, Question.IMAGES_HELP).answer is not Answer.YES


def test_help_is_said_where_there_is_help(full_config, tmp_path):
    def quality(cell):
        return {"real": 0.5, "real_weighted": 0.55, "real_plus_synthetic_1to1": 0.85}.get(cell.arm, 0.4)

    results = invent(tmp_path, full_config(), quality)
    found = verdict(results, Question.IMAGES_HELP)
    assert (found.answer, found.reason) == (Answer.YES, None)
    assert (found.evidence.best.a.arm, found.evidence.best.b.arm) == ("real_plus_synthetic_1to1", "real_weighted")
    assert "real_augmented" in found.evidence.controls_missing
    for row in results.comparisons:
        assert row.p_holm >= row.difference.p_value
        interval, value = row.difference.interval, row.difference.value
        assert row.simultaneous.low <= interval.low <= value <= interval.high <= row.simultaneous.high


def test_arms_below_the_controls_do_not_help(full_config, tmp_path):
    results = invent(tmp_path, full_config(), lambda cell: 0.85 if cell.recipe is None else 0.4)
    assert verdict(results, Question.IMAGES_HELP).answer is Answer.NO


def test_one_generator_tells_nothing(full_config, tmp_path):
    results = invent(tmp_path, full_config(seeds=1), lambda cell: 0.9 if cell.arm != "real" else 0.5)
    for row in results.comparisons:
        assert (row.difference.interval, row.difference.p_value, row.simultaneous, row.p_holm) == (None,) * 4
    asked = (Question.IMAGES_HELP, Question.BETTER_RECIPE, Question.RECALL_RISES, Question.TEACH_ALONE)
    found = [one for one in results.verdicts if one.question in asked]
    assert {one.question for one in found} == set(asked)
    assert {(one.answer, one.reason) for one in found} == {(Answer.CANNOT_TELL, Reason.FEW_SEEDS)}


def test_the_rarest_class_is_compared_with_real_images_alone(even):
    assert even.rare_class == "normal"
    rows = [row for row in even.comparisons if row.family is Family.RARE]
    assert {(row.metric, row.b.arm) for row in rows} == {("recall/normal", "real")}
    assert verdict(even, Question.RECALL_RISES, recipes=("acwgan_gp",)).class_name == "normal"


def test_recipes_are_compared_with_each_other(full_config, tmp_path):
    results = invent(tmp_path, full_config(), lambda cell: 0.85 if cell.recipe == "acwgan_gp" else 0.5)
    (row,) = [row for row in results.comparisons if row.family is Family.RECIPES]
    assert (row.a.recipe, row.b.recipe, row.a.arm) == ("acgan", "acwgan_gp", "synthetic_1x")
    found = verdict(results, Question.BETTER_RECIPE)
    assert (found.recipes, found.answer) == (("acgan", "acwgan_gp"), Answer.SECOND)


def test_the_sweep_is_compared_within_each_percentage(full_config, tmp_path):
    config = full_config(percents=(100.0, 10.0), reduced_class="ill")
    results = invent(tmp_path, config, lambda cell: 0.9 if cell.percent == 10 and cell.recipe else 0.5)
    assert all(row.a.percent == row.b.percent for row in results.comparisons)
    assert verdict(results, Question.RECALL_RISES, percent=10.0).answer is Answer.YES


def test_partial_results_take_what_is_complete(full_config, tmp_path):
    def keep(cell):
        return cell.recipe is None or (
            cell.recipe == "acgan" and (cell.seed, cell.classifier_seed) in {(0, 0), (0, 1), (1, 0)}
        )

    results = invent(tmp_path, full_config(), lambda cell: 0.7, keep=keep)
    counts = next(row.estimate.counts for row in results.summaries if row.arm.recipe == "acgan")
    assert (counts.generators, counts.classifiers) == (1, 2)
    progress = verdict(results, Question.COMPLETE)
    assert (progress.answer, progress.evidence.finished) == (Answer.NO, 2 * 3 + 2 * 3)


def test_a_study_without_any_cell_has_results(full_config, tmp_path):
    results = invent(tmp_path, full_config(), lambda cell: 0.7, keep=lambda cell: False)
    assert results.summaries == results.comparisons == results.cells == ()
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results


def one_hot(decided, classes=2):
    return torch.nn.functional.one_hot(decided, classes).double()


def test_three_classes_have_all_metrics(small_config):
    y = torch.arange(30) % 3
    key = ArmKey(recipe=None, arm="real", percent=100.0)
    tested = TestedArms(small_config(), ("a", "b", "c"), y, torch.arange(30), {key: {None: {0: one_hot(y, 3)}}})
    found = {row.metric: row.estimate.value for row in summarize_arms(tested)}
    recalls = {"recall/a", "recall/b", "recall/c"}
    assert set(found) == {"accuracy", "balanced_accuracy", "auroc", "macro_f1"} | recalls
    assert set(found.values()) == {1.0}


def test_a_recall_is_scored_on_the_patients_of_its_class(small_config):
    y, groups = torch.tensor([0] * 12 + [1] * 18), torch.arange(30) // 2
    decided = torch.cat([torch.tensor([0, 0, 1] * 4), torch.ones(18, dtype=torch.int64)])
    p, key = one_hot(decided), ArmKey(recipe=None, arm="real", percent=100.0)
    rows = summarize_arms(TestedArms(small_config(), ("well", "ill"), y, groups, {key: {None: {0: p}}}))
    well, ill, balanced = (
        next(row for row in rows if row.metric == metric)
        for metric in ("recall/well", "recall/ill", "balanced_accuracy")
    )
    sizes = [(row.images, row.estimate.counts.patients) for row in (well, ill, balanced)]
    assert sizes == [(12, 6), (18, 9), (30, 15)]
    alone = seed_interval(lambda p, w: w @ (p.argmax(1) == 0).double() / w.sum(1), [p[:12]], groups[:12])
    assert well.estimate.value == pytest.approx(2 / 3)
    assert well.estimate.interval.low == pytest.approx(alone.interval.low)
    assert ill.estimate.value == 1
    assert ill.estimate.entered == pytest.approx((9 + 0.5) / (9 + 1))


def noisy(seed, noise, n=120):
    rng = torch.Generator().manual_seed(seed)
    score = (torch.arange(n) % 2 + noise * torch.randn(n, generator=rng)).sigmoid().double()
    return torch.stack([1 - score, score], 1)


@pytest.fixture
def tested(small_config):
    """Two recipes with arms of three generators, a control of three classifiers."""
    y, groups = torch.arange(120) % 2, torch.arange(120) // 3
    arms = [("acgan", "synthetic_1x"), ("acgan", "pretrained"), ("acwgan_gp", "synthetic_1x")]
    by_arm = {
        ArmKey(recipe=recipe, arm=arm, percent=100.0): {
            seed: {number: noisy(10 * seed + number + 100 * place, 1 + seed / 2) for number in range(2)}
            for seed in range(3)
        }
        for place, (recipe, arm) in enumerate(arms)
    }
    by_arm[ArmKey(recipe=None, arm="real", percent=100.0)] = {
        None: {number: noisy(900 + number, 1) for number in range(3)}
    }
    config = small_config(recipes=RECIPES, arms=("real", "synthetic_1x", "pretrained"), primary_metric="auroc")
    return TestedArms(config, NAMES, y, groups, by_arm)


def nested(by_seed):
    return [list(found.values()) for found in by_seed.values()]


def test_seeds_are_shared_by_arms_of_the_same_generators_alone(tested):
    def expected(a, b, *, shared):
        runs = [nested(tested.by_arm[key]) for key in (a, b)]
        runs = [inner[0] if key.recipe is None else inner for inner, key in zip(runs, (a, b), strict=True)]
        score = lambda p, w: auroc(p, tested.labels, weights=w)  # noqa: E731
        return paired_difference(score, *runs, tested.groups, shared_seeds=shared, level=0.9)

    keys = list(tested.by_arm)
    for a, b in itertools.combinations(keys, 2):
        found = tested.difference("auroc", a, b, level=0.9)
        same = a.recipe is not None and a.recipe == b.recipe
        assert found.shared_seeds is same
        assert found == expected(a, b, shared=same)
    one, other = keys[:2]
    assert expected(one, other, shared=False).interval != tested.difference("auroc", one, other, level=0.9).interval
    assert not any(row.difference.shared_seeds for row in compare_arms(tested, summarize_arms(tested), "ill"))


def test_generators_of_both_arms_are_paired(tested):
    """Of one arm the first generator is missing, of the other the last: the one in between remains."""
    one, other, *_ = tested.by_arm
    left_out = dict(zip((one, other), (0, 2), strict=True))
    by_arm = {
        key: {seed: found for seed, found in by_seed.items() if seed != left_out.get(key)}
        for key, by_seed in tested.by_arm.items()
    }
    found = TestedArms(tested.config, NAMES, tested.labels, tested.groups, by_arm).difference(
        "auroc", one, other, level=0.95
    )
    assert (found.a.counts.generators, found.b.counts.generators, found.interval) == (1, 1, None)
    means = [sum(float(auroc(p, tested.labels)) for p in tested.by_arm[key][1].values()) / 2 for key in (one, other)]
    assert found.value == pytest.approx(means[0] - means[1])


class Copies:
    """Stands in for a generator: real training images, under their own labels or under such as say nothing of them."""

    def __init__(self, real, y, *, shuffled):
        of_class = [(real.labels == label).nonzero().flatten() for label in range(real.num_classes)]
        place = torch.arange(len(y)) // 2  # as labels alternate
        shown = torch.where(place % 2 == 1, 1 - y, y) if shuffled else y
        index = torch.stack(
            [of_class[k][i % len(of_class[k])] for k, i in zip(shown.tolist(), place.tolist(), strict=True)]
        )
        self.data = ArrayDataset(real.images[index], y, class_names=real.class_names, source="copies")

    def first(self, count):
        return self.data.subset(torch.arange(count))


class StudyOfCopies(Study):
    """Takes real images for generated ones."""

    shuffled = False

    def images_of(self, cell, y, *, seed):
        return Copies(self.real(cell.percent), y, shuffled=self.shuffled)


class StudyOfShuffledCopies(StudyOfCopies):
    """Takes real images whose labels say nothing for generated ones."""

    shuffled = True


def bright_or_dark(n, seed):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    images = 60 + 130 * y[:, None, None, None] + 25 * torch.randn(n, 1, 16, 16, generator=rng)
    return ArrayDataset(images.clamp(0, 255).byte(), y, groups=torch.arange(n) // 2 + 1000 * seed)


@pytest.mark.slow  # guards the verdicts of whole studies against leaks; its arm alone is tested by default in test_arms
@pytest.mark.usefixtures("tiny_classifier")
def test_labels_that_say_nothing_drop_synthetic_only_arms_to_chance(small_config, tmp_path):
    # A classifier that learned nothing still leans to one side by brightness: chance is what several average to. And
    # it is evaluated once on the validation images: the best of several would be the luckiest.
    sets = [bright_or_dark(n, seed) for seed, n in enumerate((200, 40, 80))]
    arms = {"arms": ("real", "synthetic_1x"), "classifier_steps": 40, "classifier_epochs": 1, "seeds": 4}
    scores, answers = {}, {}
    for kind in (StudyOfCopies, StudyOfShuffledCopies):
        study = kind(small_config(recipes={"acgan": TINY}, **arms), *sets, tmp_path / kind.__name__, device="cpu")
        assert study.run()
        results = study.results()
        rows = [row for row in results.summaries if row.metric == "balanced_accuracy"]
        scores[kind] = {row.arm.arm: row.estimate for row in rows}
        answers[kind] = verdict(results, Question.TEACH_ALONE).answer
    assert scores[StudyOfCopies]["real"].value > 0.9
    assert scores[StudyOfCopies]["synthetic_1x"].value > 0.9
    assert answers[StudyOfCopies] is Answer.YES
    null = scores[StudyOfShuffledCopies]["synthetic_1x"]
    assert null.interval.low < 0.5 < null.interval.high
    assert abs(null.value - 0.5) < 0.15
    assert answers[StudyOfShuffledCopies] is Answer.CANNOT_TELL


def test_relative_usefulness_is_a_ratio_over_chance():
    real = Estimate(0.9, 0.85, 0.95)
    assert relative_usefulness(real.value, real, chance=0.5) == 1
    assert relative_usefulness(0.5, real, chance=0.5) == 0
    assert relative_usefulness(0.7, real, chance=0.5) == pytest.approx(0.5)
    assert relative_usefulness(0.4, real, chance=0.5) < 0


def test_a_real_score_at_chance_is_refused():
    for low in (0.45, 0.5, float("nan")):
        with pytest.raises(ValueError, match=r"must lie above chance, 0\.5"):
            relative_usefulness(0.6, Estimate(0.55, low, 0.65), chance=0.5)
