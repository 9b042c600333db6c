from collections import Counter
from itertools import cycle, repeat

import pytest
import torch

import condgan as cg
from condgan import distributed
from condgan.training.inputs import Prefetcher, Request, ResidentStore, Sampler, StreamedStore

COUNTS = (60, 30, 10)


def coded_images() -> cg.data.ArrayDataset:
    """Images that tell their label and their place in the data, in no order."""
    labels = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))
    images = torch.stack([labels, torch.arange(100)], dim=1).reshape(100, 1, 1, 2).to(torch.uint8)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    return cg.data.ArrayDataset(images[order], labels[order])


def make_sampler(data=None, *, seed=0, **options) -> Sampler:
    defaults = {
        "latent_dim": 4,
        "conditional": True,
        "label_distribution": "balanced",
        "sampling": "natural",
        "dequantize": False,
        "augment": None,
        "noise": False,
        "device": torch.device("cpu"),
    }
    rng = torch.Generator().manual_seed(seed)
    return Sampler(data if data is not None else coded_images(), rng=rng, **{**defaults, **options})


def decoded(x: torch.Tensor) -> torch.Tensor:
    return ((x + 1) * 127.5).round().long().flatten(1)


def assert_frequencies(labels: torch.Tensor, expected):
    """Within five standard deviations of the expected shares."""
    shares = torch.bincount(labels, minlength=3) / len(labels)
    p = torch.tensor(expected)
    assert bool(((shares - p).abs() <= 5 * (p * (1 - p) / len(labels)).sqrt()).all()), shares


DISTRIBUTIONS = [
    ("balanced", (1 / 3, 1 / 3, 1 / 3)),
    ("natural", (0.6, 0.3, 0.1)),
    (cg.Tempered(0.5), tuple(n**0.5 / sum(m**0.5 for m in COUNTS) for n in COUNTS)),
    (lambda counts: [0.0, 3.0, 1.0], (0.0, 0.75, 0.25)),
]


@pytest.mark.parametrize(("distribution", "expected"), DISTRIBUTIONS)
def test_labels_of_fakes_follow_their_distribution(distribution, expected):
    sampler = make_sampler(label_distribution=distribution)
    critic, generator = sampler.draw(Request(20_000)), sampler.draw(Request(20_000, real=False))
    assert_frequencies(critic.y_fake, expected)
    assert_frequencies(generator.y_fake, expected)
    assert_frequencies(critic.y, (0.6, 0.3, 0.1))
    assert (generator.x, generator.y) == (None, None)


@pytest.mark.parametrize(("distribution", "expected"), DISTRIBUTIONS)
def test_labels_of_reals_follow_theirs(distribution, expected):
    inputs = make_sampler(sampling=distribution).draw(Request(20_000))
    assert_frequencies(inputs.y, expected)
    assert_frequencies(inputs.y_fake, (1 / 3, 1 / 3, 1 / 3))


def test_paired_labels_are_those_of_the_real_batch():
    sampler = make_sampler(label_distribution="paired")
    inputs = sampler.draw(Request(512))
    assert torch.equal(inputs.y, inputs.y_fake)
    inputs = sampler.draw(Request(512, real=True))
    assert torch.equal(inputs.y, inputs.y_fake)


@pytest.mark.parametrize(("distribution", "expected"), DISTRIBUTIONS)
def test_paired_labels_without_a_real_batch_have_the_distribution_of_real_classes(distribution, expected):
    sampler = make_sampler(label_distribution="paired", sampling=distribution)
    assert_frequencies(sampler.draw(Request(20_000, real=False)).y_fake, expected)
    assert_frequencies(sampler.latents_and_labels(20_000, torch.Generator())[1], expected)


def test_every_image_comes_with_its_label_and_all_come_equally_often():
    inputs = make_sampler(sampling="balanced").draw(Request(60_000))
    codes = decoded(inputs.x)
    assert torch.equal(codes[:, 0], inputs.y)
    rows = Counter(codes[:, 1].tolist())
    assert len(rows) == 100
    for row, count in rows.items():
        expected = 20_000 / COUNTS[0 if row < 60 else 1 if row < 90 else 2]
        assert abs(count - expected) < 6 * expected**0.5, (row, count, expected)


def test_unconditional_draws_have_no_labels():
    inputs = make_sampler(conditional=False).draw(Request(64))
    assert inputs.y is None
    assert inputs.y_fake is None
    assert len(set(decoded(inputs.x)[:, 1].tolist())) > 20


def test_dequantization_spreads_each_grey_level_over_its_own_interval():
    inputs = make_sampler(dequantize=True).draw(Request(20_000))
    levels = (inputs.x + 1) * 128
    assert torch.equal(levels.floor().long()[:, 0, 0, 0], inputs.y)
    rest = levels.flatten() % 1
    assert 0 <= rest.min() < 0.01
    assert 0.99 < rest.max() < 1
    assert abs(rest.mean() - 0.5) < 0.01
    data = cg.data.ArrayDataset(torch.full((4, 1, 64, 64), 255, dtype=torch.uint8), [0, 1, 0, 1])
    bright = make_sampler(data, dequantize=True).draw(Request(256)).x
    assert bright.max() <= 1
    assert bright.min() >= 1 - 1 / 128


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_are_used_as_they_are_in_the_type_of_the_networks(dtype):
    points = torch.randn(50, 2, dtype=torch.float64) * 10
    data = cg.data.ArrayDataset(points, [0, 1] * 25)
    inputs = make_sampler(data, dequantize=True, noise=True, dtype=dtype).draw(Request(32))
    rows = (inputs.x[:, None] == points.to(dtype)).all(2)
    assert bool(rows.any(1).all())
    assert {v.dtype for v in (inputs.x, inputs.z, inputs.epsilon, inputs.noise)} == {dtype}


class Jitter:
    def draw(self, count, image_shape, *, rng, device):
        return {"shift": torch.rand(count, generator=rng, device=device)}

    def __call__(self, x, draws):
        return x + draws["shift"]


def all_draws(inputs) -> list[torch.Tensor]:
    shifts = [draws["shift"] for draws in inputs.augmentation]
    return [inputs.x, inputs.y, inputs.z, inputs.y_fake, inputs.epsilon, inputs.noise, *shifts]


EVERYTHING = {"dequantize": True, "noise": True, "augment": Jitter()}


def test_the_seed_fixes_all_draws():
    first, again, other = (all_draws(make_sampler(seed=s, **EVERYTHING).draw(Request(16))) for s in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_draws_use_no_other_source():
    before = torch.get_rng_state()
    make_sampler(**EVERYTHING).draw(Request(16))
    assert torch.equal(torch.get_rng_state(), before)


def test_real_and_fake_images_are_augmented_differently():
    real, fake = make_sampler(**EVERYTHING).draw(Request(16)).augmentation
    assert not torch.isclose(real["shift"], fake["shift"]).any()


def test_the_rows_of_two_processes_make_up_the_global_batch(monkeypatch):
    def draw(kind):
        sampler = make_sampler(**EVERYTHING)
        sampler.draw(Request(6))
        return all_draws(sampler.draw(Request(8)) if kind == "critic" else sampler.draw(Request(8, real=True)))

    for kind in ("critic", "generator"):
        whole = draw(kind)
        halves = []
        for rank in range(2):
            monkeypatch.setattr(distributed, "rank_and_world", lambda rank=rank: (rank, 2))
            halves.append(draw(kind))
        monkeypatch.undo()
        for one, first, second in zip(whole, *halves, strict=True):
            assert len(first) == len(second) == 4
            assert torch.equal(one, torch.cat([first, second]))


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "rank_and_world", lambda: (0, 2))
    with pytest.raises(ValueError, match="multiple of 2"):
        make_sampler().draw(Request(7))


class WithEmptyClass:
    """Data of a user's own, with three classes of which one has no samples."""

    images = torch.zeros(8, 1, 4, 4, dtype=torch.uint8)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    num_classes = 3
    class_counts = (4, 4, 0)
    image_shape = (1, 4, 4)
    fingerprint = "none"


def test_an_empty_class_is_never_drawn_for_a_neighbour():
    assert make_sampler(WithEmptyClass(), sampling="natural").draw(Request(512)).y.max() == 1
    with pytest.raises(ValueError, match=r'\(4, 4, 0\).*sampling="natural", and label_distribution="natural" or'):
        make_sampler(WithEmptyClass(), sampling="balanced")
    options = {"label_distribution": "natural", "sampling": "natural"}
    assert make_sampler(WithEmptyClass(), **options).draw(Request(512)).y_fake.max() == 1


class FromFile:
    """Images mapped from a file, more than should be copied."""

    def __init__(self, path):
        data = coded_images()
        data.images.numpy().tofile(path)
        self.images = torch.from_file(str(path), shared=True, size=data.images.numel(), dtype=torch.uint8)
        self.images = self.images.view_as(data.images)
        self.labels, self.num_classes, self.class_counts = data.labels, 3, data.class_counts
        self.image_shape = data.image_shape


@pytest.mark.parametrize("dequantize", [False, True])
def test_a_streamed_store_gives_the_same_samples_in_the_same_order(tmp_path, dequantize):
    options = {**EVERYTHING, "dequantize": dequantize}
    resident = make_sampler(**options)
    streamed = make_sampler(FromFile(tmp_path / "images"), max_resident_bytes=199, **options)
    assert (type(resident.store), type(streamed.store)) == (ResidentStore, StreamedStore)
    steps = [Request(6), Request(6), Request(8, real=False)]
    ahead = Prefetcher(streamed, cycle(steps))
    for request in steps * 3:
        one, other = resident.draw(request), next(ahead)
        for a, b in zip(one.tensors(), other.tensors(), strict=True):
            assert torch.equal(a, b)
        assert torch.equal(ahead.rng_state, resident.rng.get_state())
    assert not torch.equal(streamed.rng.get_state(), resident.rng.get_state()), "nothing was drawn ahead"
    ahead.close()
    assert torch.equal(streamed.rng.get_state(), resident.rng.get_state())


def test_images_are_on_their_way_before_they_are_asked_for(tmp_path):
    class Noting(StreamedStore):
        asked = 0

        def fetch(self, index, rng):
            self.asked += 1
            return super().fetch(index, rng)

    sampler = make_sampler()
    images = coded_images().images
    sampler.store = Noting(lambda index, seed: images[index], torch.device("cpu"))
    next(Prefetcher(sampler, repeat(Request(4))))
    assert sampler.store.asked == 3


def test_one_class_is_for_networks_without_classes():
    data = cg.data.ArrayDataset(torch.full((4, 1, 2, 2), 99, dtype=torch.uint8), [0] * 4, class_names=["all"])
    assert make_sampler(data, conditional=False).draw(Request(2)).y is None
    with pytest.raises(ValueError, match="networks with classes need data of at least two, got one"):
        make_sampler(data)
