import json

import pytest
import torch

from condgan.data import ArrayDataset, ChestPhantom
from condgan.files import from_json, to_json
from condgan.metrics.copying import CopyTest, c_t, copy_test
from condgan.metrics.extractors import ExtractorInfo
from condgan.metrics.membership import MembershipInference
from condgan.metrics.memorization import (
    MemorizationReport,
    MemorizationVerdict,
    RemovedDuplicates,
    decide,
    memorization_report,
)
from condgan.metrics.neighbors import neighbor_grid, relative_distance
from condgan.stats import Estimate

COUNT = 150


def phantom(count, seed):
    return ChestPhantom((count, count), classes=2, image_shape=(1, 32, 32), seed=seed)


@pytest.fixture(scope="module")
def sets():
    """Training, held-out and fresh images, all of different patients."""
    return phantom(250, 1), phantom(COUNT, 2), phantom(COUNT, 3)


def images_of(data, images=None):
    return ArrayDataset(data.images if images is None else images, data.labels, class_names=data.class_names)


def patients(data):
    """The name of each image's patient."""
    return [data.group_names[number] for number in data.groups]


def copies_of(train):
    """As many training images of each class as there are fresh ones."""
    return torch.cat([(train.labels == label).nonzero().flatten()[:COUNT] for label in (0, 1)])


def with_noise(images, level=8.0):
    noise = level * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images.float() + noise).round().clamp(0, 255).to(torch.uint8)


def smoothed(images):
    return torch.nn.functional.avg_pool2d(images.float(), 3, stride=1, padding=1, count_include_pad=False).byte()


def verdicts(report):
    return [entry.verdict for entry in report.per_class.values()]


def judge(generated, sets, **options):
    return memorization_report(generated, sets[0], sets[1], resamples=200, **options)


@pytest.mark.parametrize("disturb", [lambda x: x, with_noise, smoothed], ids=["exact", "noise", "smooth"])
def test_a_generator_that_returns_training_images_is_called_a_copier(sets, disturb):
    chosen = copies_of(sets[0])
    report = judge(images_of(sets[2], disturb(sets[0].images[chosen])), sets)
    assert verdicts(report) == [MemorizationVerdict.COPIES] * 2
    for entry in report.per_class.values():
        assert entry.copies.count > 0.8 * COUNT
        assert entry.c_t.value < -8
        assert entry.authenticity.high < entry.authenticity_held_out.low
        assert entry.membership.auroc.low > 0.6
        assert entry.membership.control.low < 0.6
    assert (report.neighbors.indices[:, 0] == chosen).float().mean() > 0.95


@pytest.mark.parametrize("disturb", [lambda x: x, with_noise], ids=["exact", "noise"])
def test_a_generator_that_copies_a_tenth_is_caught(sets, disturb):
    images = sets[2].images.clone()
    images[::10] = disturb(sets[0].images[copies_of(sets[0])][::10])
    report = judge(images_of(sets[2], images), sets)
    assert verdicts(report) == [MemorizationVerdict.COPIES] * 2
    for entry in report.per_class.values():
        assert COUNT / 10 - 3 <= entry.copies.count <= COUNT / 10 + 8


@pytest.mark.parametrize("seed", [3, 4])
def test_fresh_images_are_no_copies(sets, seed):
    report = judge(images_of(phantom(COUNT, seed)), sets)
    assert verdicts(report) == [MemorizationVerdict.NO_SIGN] * 2
    for entry in report.per_class.values():
        assert entry.copies.detectable < 0.1
        assert entry.shift.low < 0.5 < entry.shift.high


def test_smooth_images_are_no_copies_though_other_measures_say_so(sets):
    report = judge(images_of(sets[2], smoothed(sets[2].images)), sets)
    assert verdicts(report) == [MemorizationVerdict.NO_SIGN] * 2
    for entry in report.per_class.values():
        assert entry.c_t.value < -3
        assert entry.authenticity.value < entry.authenticity_held_out.value


def test_shapeless_images_are_no_copies_of_an_unusual_one(sets):
    """A failed exposure, which has little contrast, is far nearer to them than other training images are."""
    train, held_out, fresh = sets
    images = train.images.clone()
    for row in (0, 250):
        images[row] = (128 + (images[row].float() - 128) * 0.45).byte()
    faint = ArrayDataset(images, train.labels, groups=patients(train), class_names=train.class_names)
    grey = with_noise(torch.full_like(fresh.images, 128))
    report = memorization_report(images_of(fresh, grey), faint, held_out, resamples=50)
    assert relative_distance(report.neighbors).max() < min(
        entry.copies.threshold for entry in report.per_class.values()
    )
    assert all(entry.distances[0] > entry.distances_held_out[-1] for entry in report.per_class.values())
    assert verdicts(report) == [MemorizationVerdict.NO_SIGN] * 2
    blank = with_noise(images[copies_of(train)][:1].expand(len(fresh.labels), -1, -1, -1))
    copies = memorization_report(images_of(fresh, blank), faint, held_out, resamples=50)
    assert copies.per_class["normal"].verdict is MemorizationVerdict.COPIES


def test_without_patients_a_report_speaks_of_images(sets):
    train, held_out, fresh = (images_of(data) for data in sets)
    report = memorization_report(fresh, train, held_out, resamples=50)
    with_patients = memorization_report(fresh, *sets[:2], resamples=50)
    for verdict in MemorizationVerdict:
        assert "patient" not in verdict.words
    for name, entry in report.per_class.items():
        assert "patient" not in entry.explanation
        assert "from held-out patients" in with_patients.per_class[name].explanation
    few = fresh.subset(torch.cat([torch.arange(12), torch.arange(COUNT, COUNT + 12)]))
    for entry in memorization_report(few, train, held_out, resamples=50).per_class.values():
        assert f"{COUNT} held-out images are needed" in entry.explanation
    alike = ArrayDataset(held_out.images[:1].repeat(4, 1, 1, 1), [0, 0, 1, 1], class_names=train.class_names)
    with pytest.raises(ValueError, match="training images and held-out images after removal"):
        memorization_report(fresh, train, alike)


def test_averages_of_training_images_reveal_patients(sets):
    images = sets[0].images[copies_of(sets[0])].float()
    report = judge(images_of(sets[2], sum(images.roll(shift, 0) for shift in (0, 40, 80)).div(3).byte()), sets)
    assert verdicts(report) == [MemorizationVerdict.PATIENTS_RECOGNIZED] * 2


def test_few_images_allow_no_verdict_but_a_blatant_copier_is_caught(sets):
    few = sets[2].subset(torch.cat([torch.arange(12), torch.arange(COUNT, COUNT + 12)]))
    report = judge(images_of(few), sets)
    assert verdicts(report) == [MemorizationVerdict.CANNOT_TELL] * 2
    assert [entry.c_t for entry in report.per_class.values()] == [None, None]
    assert from_json(MemorizationReport, json.loads(json.dumps(to_json(report), allow_nan=False))) == report
    copies = sets[0].subset(torch.cat([torch.arange(12), torch.arange(250, 262)]))
    assert verdicts(judge(images_of(copies), sets)) == [MemorizationVerdict.COPIES] * 2


def test_duplicates_are_removed_and_reported(sets):
    train, held_out, fresh = sets
    repeated = ArrayDataset(
        torch.cat([train.images[:3], train.images, (train.images[:1].int() + 1).clamp(0, 255).byte()]),
        torch.cat([train.labels[:3], train.labels, train.labels[:1]]),
        groups=patients(train)[:3] + patients(train) + patients(train)[:1],
        class_names=train.class_names,
    )
    leaking = ArrayDataset(
        torch.cat([held_out.images, train.images[5:7]]),
        torch.cat([held_out.labels, train.labels[5:7]]),
        groups=[*patients(held_out), "1", "2"],
        class_names=train.class_names,
    )
    plain = memorization_report(images_of(fresh), train, held_out, resamples=50)
    cleaned = memorization_report(images_of(fresh), repeated, leaking, resamples=50)
    assert cleaned.duplicates == RemovedDuplicates(exact=3, near=1, held_out=2)
    assert plain.duplicates == RemovedDuplicates(exact=0, near=0, held_out=0)
    for before, after in zip(plain.per_class.values(), cleaned.per_class.values(), strict=True):
        assert (before.copies, before.shift, before.distances) == (after.copies, after.shift, after.distances)
    # indices count in the set as it was passed
    nearest = cleaned.neighbors.indices[:, 0]
    pixels = (repeated.images[nearest].double() - fresh.images.double()).flatten(1).norm(dim=1)
    assert torch.allclose(pixels, cleaned.neighbors.distances[:, 0])


def test_measures_are_those_of_the_class(sets):
    train, held_out, fresh = sets
    report = judge(images_of(fresh), sets)
    first = {}
    for row in (held_out.labels == 1).nonzero().flatten().tolist():
        first.setdefault(int(held_out.groups[row]), row)
    single = torch.tensor(list(first.values()))
    generated, real, known = (x.flatten(1).double() for x in (fresh.images, held_out.images, train.images))
    entry = report.per_class["pneumonia"]
    expected = c_t(generated[fresh.labels == 1], real[single], known[train.labels == 1])
    assert entry.c_t.value == pytest.approx(expected.value)
    distances = [torch.cdist(x, known).amin(1) for x in (generated[fresh.labels == 1], real[single])]
    close = copy_test(*distances)
    assert (entry.close.count, entry.close.held_out) == (close.count, len(single))
    assert entry.distances[0] == pytest.approx(float(distances[0].min()))
    assert entry.distances[-1] == pytest.approx(float(distances[0].median()), rel=0.02)
    assert entry.images == (COUNT, 250, COUNT)
    assert entry.patients == (len(train.groups[train.labels == 1].unique()), len(single))


def test_a_shifted_reference_is_noticed(sets):
    darker = ArrayDataset(
        sets[1].images // 2, sets[1].labels, groups=patients(sets[1]), class_names=sets[1].class_names
    )
    report = memorization_report(images_of(sets[2]), sets[0], darker, resamples=200)
    for entry in report.per_class.values():
        assert entry.membership.auroc.low > 0.5
        assert entry.shift.low > 0.5
        assert entry.verdict != MemorizationVerdict.PATIENTS_RECOGNIZED
        assert "farther from the training images" in entry.explanation


def test_report_is_json_and_names_what_it_depends_on(sets):
    class Known:
        info = ExtractorInfo("halves", "0123", "none")

        def __call__(self, images):
            return images[..., ::2, ::2].flatten(1).float()

    report = memorization_report(images_of(sets[2]), *sets[:2], Known(), resamples=50, seed=3)
    tree = json.loads(json.dumps(to_json(report), allow_nan=False))
    back = from_json(MemorizationReport, tree)
    assert back == report
    assert back.neighbors.indices.shape == (0, 0)
    assert "neighbors" not in tree
    assert tree["extractor"] == {"name": "halves", "weights_hash": "0123", "resize": "none"}
    assert tree["settings"]["train"] == {"fingerprint": sets[0].fingerprint, "images": 500}
    assert (tree["settings"]["seed"], tree["settings"]["alpha"], tree["settings"]["neighbors"]) == (3, 0.01, 10)
    entry = tree["per_class"]["normal"]
    assert entry["membership"]["auroc"]["value"] == report.per_class["normal"].membership.auroc.value
    assert set(entry["copies"]) == set(CopyTest.__slots__)
    assert entry["verdict"] in {verdict.value for verdict in MemorizationVerdict}
    sheet = neighbor_grid(sets[2].images, sets[0].images, report.neighbors, count=2)
    worst = relative_distance(report.neighbors).argmin()
    assert torch.equal(sheet[:, 2:34, 2:34], sets[2].images[worst])


def test_vectors_are_judged_too():
    rng = torch.Generator().manual_seed(0)

    def draw(count):
        return ArrayDataset(torch.randn(2 * count, 8, generator=rng), torch.arange(2).repeat_interleave(count))

    train, held_out, fresh = draw(200), draw(150), draw(120)
    assert MemorizationVerdict.COPIES not in verdicts(memorization_report(fresh, train, held_out, resamples=100))
    copies = ArrayDataset(train.images[:240].clone(), torch.arange(2).repeat_interleave(120))
    assert verdicts(memorization_report(copies, train, held_out, resamples=100)) == [MemorizationVerdict.COPIES] * 2


@pytest.mark.slow  # guards the rate at which fresh images are called copies
def test_false_alarms_of_the_report():
    rng = torch.Generator().manual_seed(0)

    def draw(count):
        return ArrayDataset(torch.randn(2 * count, 8, generator=rng), torch.arange(2).repeat_interleave(count))

    found = []
    for _ in range(100):
        train, held_out, fresh = draw(150), draw(120), draw(120)
        found += verdicts(memorization_report(fresh, train, held_out, resamples=300))
    assert found.count(MemorizationVerdict.COPIES) <= 6  # 2 expected
    assert found.count(MemorizationVerdict.PATIENTS_RECOGNIZED) <= 12  # 5 expected


def estimate(value, width=0.02):
    return Estimate(value, value - width, value + width)


@pytest.mark.parametrize(
    ("changed", "verdict", "words"),
    [
        ({}, MemorizationVerdict.NO_SIGN, "A share of copies of 5%"),
        ({"p_value": 0.009}, MemorizationVerdict.COPIES, "9 of 100 generated images are far nearer"),
        (
            {"detectable": 0.2},
            MemorizationVerdict.CANNOT_TELL,
            "more than 100 generated images or 80 held-out",
        ),
        ({"auroc": 0.6}, MemorizationVerdict.PATIENTS_RECOGNIZED, "AUROC of 0.600"),
        ({"auroc": 0.6, "shift": 0.6}, MemorizationVerdict.NO_SIGN, "seem to come from elsewhere"),
        ({"shift": 0.4}, MemorizationVerdict.NO_SIGN, "nearer to the training images"),
        ({"auroc": 0.6, "p_value": 0.001, "detectable": 0.2}, MemorizationVerdict.COPIES, "(p = 0.001)"),
        ({"close": 0.001}, MemorizationVerdict.NO_SIGN, "as smooth images are"),
    ],
)
def test_the_rule(changed, verdict, words):
    numbers = {"p_value": 0.3, "detectable": 0.05, "auroc": 0.5, "shift": 0.5, "close": 0.5, **changed}
    copies, close = (
        CopyTest(9, 1.0, 100, 80, 0.7, 0.01, p_value, numbers["detectable"])
        for p_value in (numbers["p_value"], numbers["close"])
    )
    attack = MembershipInference(estimate(numbers["auroc"]), estimate(0.5))
    found, explanation = decide(copies, close, attack, estimate(numbers["shift"]), alpha=0.01, share=0.1)
    assert found == verdict
    assert words in explanation


def test_messages(sets):
    train, held_out, fresh = sets
    with pytest.raises(ValueError, match="training and held-out images must not share groups"):
        memorization_report(images_of(fresh), train, train)
    with pytest.raises(ValueError, match="all data sets or none must have groups"):
        memorization_report(images_of(fresh), train, images_of(held_out))
    with pytest.raises(ValueError, match="generated must have the image shape of train"):
        memorization_report(fresh.resize(16, 16), train, held_out)
    single = held_out.subset(torch.cat([torch.arange(COUNT), torch.tensor([COUNT, COUNT + 1])]))
    single = single.with_groups([*patients(single)[:-2], "7", "7"])
    with pytest.raises(ValueError, match="two or more generated images, training patients and held-out patients"):
        memorization_report(images_of(fresh), train, single)
