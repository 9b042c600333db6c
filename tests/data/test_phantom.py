import pytest
import torch
import torch.nn.functional as F
from sklearn.ensemble import RandomForestClassifier

from condgan.data.phantom import BACTERIAL_SHARE, CLASS_NAMES, ChestPhantom


def bits_equal(first, second):
    return torch.equal(first.images, second.images) and torch.equal(first.groups, second.groups)


def pixels(data):
    return data.images.float().flatten(1)


@pytest.fixture(scope="module")
def data():
    return ChestPhantom((60, 60, 60), image_shape=(1, 32, 32), images_per_patient=2.0, seed=3)


def test_the_same_seed_gives_the_same_images(data):
    again = ChestPhantom((60, 60, 60), image_shape=(1, 32, 32), images_per_patient=2.0, seed=3)
    assert bits_equal(data, again)
    assert data.fingerprint == again.fingerprint


def test_global_random_state_is_neither_read_nor_moved(data):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = ChestPhantom((2, 2, 2), image_shape=(1, 16, 16))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert bits_equal(first, ChestPhantom((2, 2, 2), image_shape=(1, 16, 16)))


def test_another_seed_gives_other_patients(data):
    other = ChestPhantom((60, 60, 60), image_shape=(1, 32, 32), images_per_patient=2.0, seed=4)
    assert (data.images != other.images).flatten(1).any(1).all()
    assert not set(data.group_names) & set(other.group_names)


def test_all_images_differ(data):
    assert len(data.images.unique(dim=0)) == len(data)


def patients(data, label):
    return [data.group_names[number] for number in data.groups[data.labels == label]]


def test_larger_counts_keep_the_first_images_of_each_class(data):
    few = ChestPhantom((7, 5, 9), image_shape=(1, 32, 32), images_per_patient=2.0, seed=3)
    for label, count in enumerate((7, 5, 9)):
        assert torch.equal(few.images[few.labels == label], data.images[data.labels == label][:count])
        assert patients(few, label) == patients(data, label)[:count]


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 28, 28), (3, 48, 80), (3, 80, 48), (1, 16, 130), (1, 128, 128)])
@pytest.mark.parametrize("classes", [2, 3])
def test_shapes_counts_and_names(shape, classes):
    counts = (3, 4, 2)[:classes]
    data = ChestPhantom(counts, classes=classes, image_shape=shape)
    assert data.image_shape == shape
    assert data.images.dtype == torch.uint8
    assert data.class_counts == counts
    assert data.class_names == CLASS_NAMES[classes]
    assert (data.images == data.images[:, :1]).all()
    assert pixels(data).std(1).min() > 20


def test_the_defaults_are_three_classes_in_64_pixels():
    data = ChestPhantom((2, 3, 2))
    assert data.image_shape == (1, 64, 64)
    assert data.class_names == ("normal", "bacterial", "viral")
    assert data.source == "phantom, seed 0"


def test_every_size_shows_the_same_drawing():
    small, large = (ChestPhantom((4, 4, 4), image_shape=(1, side, side)) for side in (32, 64))
    shrunk = F.avg_pool2d(large.images.float(), 2)
    assert (shrunk - small.images.float()).abs().mean() < 8  # their grain differs
    assert torch.equal(small.groups, large.groups)


def test_patients_have_one_class_and_about_the_asked_number_of_images(data):
    for patient in data.groups.unique():
        assert len(data.labels[data.groups == patient].unique()) == 1
    assert 1.5 < len(data) / len(data.groups.unique()) < 2.6
    alone = ChestPhantom((5, 5, 5), image_shape=(1, 16, 16), images_per_patient=1)
    assert len(alone.groups.unique()) == 15


def test_images_of_one_patient_are_alike(data):
    x = F.normalize(pixels(data) - pixels(data).mean(0))
    same = (data.groups[:, None] == data.groups) & ~torch.eye(len(data), dtype=torch.bool)
    peers = (data.labels[:, None] == data.labels) & (data.groups[:, None] != data.groups)
    similarity = x @ x.T
    assert similarity[same].mean() > similarity[peers].mean() + 0.1


def test_a_split_keeps_patients_whole(data):
    rest, part = data.split(0.25, seed=0)
    assert not set(rest.group_names) & set(part.group_names)
    assert len(rest) + len(part) == len(data)


def lung_shares(data):
    """Mean brightness of each lung against that of its image, right and left."""
    x = data.images.float()
    right, left = x[:, 0, 8:20, 6:12], x[:, 0, 8:20, 20:26]
    return torch.stack([right.mean((1, 2)), left.mean((1, 2))], 1) / x.mean((1, 2, 3))[:, None]


def test_lungs_of_the_ill_are_brighter(data):
    brightness = lung_shares(data).mean(1)
    normal, bacterial, viral = (brightness[data.labels == label].mean() for label in range(3))
    assert bacterial > normal + 0.03
    assert viral > normal + 0.03


def test_bacterial_lungs_are_the_most_uneven(data):
    right, left = lung_shares(data).unbind(1)
    uneven = (right - left).abs()
    normal, bacterial, viral = (uneven[data.labels == label].mean() for label in range(3))
    assert bacterial > 1.3 * normal
    assert bacterial > 1.3 * viral


def test_difficulty_fades_the_opacities_and_leaves_normal_lungs_alone():
    easy, hard = (
        ChestPhantom((40, 40, 40), image_shape=(1, 32, 32), difficulty=difficulty, seed=1) for difficulty in (0.0, 1.0)
    )
    assert torch.equal(easy.images[easy.labels == 0], hard.images[hard.labels == 0])
    gaps = [lung_shares(d)[d.labels > 0].mean() - lung_shares(d)[d.labels == 0].mean() for d in (easy, hard)]
    assert gaps[0] > gaps[1] + 0.05


def quadrants(data):
    """Mean and spread of 64 patches of each image."""
    patches = data.images.float()[:, 0].unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)
    return torch.cat([patches.mean(3).flatten(1), patches.std(3).flatten(1)], 1).numpy()


@pytest.fixture(scope="module")
def forest():
    train = ChestPhantom((150, 150, 150), image_shape=(1, 32, 32), difficulty=0.0, images_per_patient=1, seed=1)
    return RandomForestClassifier(100, random_state=0).fit(quadrants(train), train.labels)


def test_a_small_classifier_separates_the_classes_of_new_patients(forest):
    test = ChestPhantom((60, 60, 60), image_shape=(1, 32, 32), difficulty=0.0, images_per_patient=1, seed=2)
    right = torch.from_numpy(forest.predict(quadrants(test))) == test.labels
    assert right.float().view(3, 60).mean(1).min() > 0.75


def test_pneumonia_is_bacterial_two_times_in_three(forest):
    data = ChestPhantom((2, 400), classes=2, image_shape=(1, 32, 32), difficulty=0.0, images_per_patient=1, seed=3)
    found = forest.predict(quadrants(data))[2:]
    ill = found[found > 0]
    assert (ill == 1).mean() == pytest.approx(BACTERIAL_SHARE, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 4}, r"classes must be 2 .* or 3 .*, got 4"),
        ({"counts": (5, 5)}, r"counts must have 3 entries, .* got 2: \(5, 5\)\. .* or pass classes=2"),
        ({"counts": (5, 5, 5), "classes": 2}, r"counts must have 2 entries, .* got 3"),
        ({"counts": (5, 1, 5)}, r"counts must be in \[2, .* got \(5, 1, 5\)"),
        ({"counts": (5, 5, -2)}, r"counts must be in \[2, .* got \(5, 5, -2\)"),
        ({"image_shape": (1, 15, 32)}, r"sides of at least 16, got \(1, 15, 32\)"),
        ({"image_shape": (2, 32, 32)}, r"1 or 3 channels .* got \(2, 32, 32\)"),
        ({"image_shape": (32, 32)}, r"image_shape must be \(channels, height, width\)"),
        ({"images_per_patient": 0.5}, r"images_per_patient must be at least 1, got 0\.5"),
        ({"difficulty": 1.5}, r"difficulty must be in \[0, 1\], got 1\.5"),
        ({"seed": -1}, r"seed must be in \[0, .*, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChestPhantom(**{"counts": (2, 2, 2), **arguments})
