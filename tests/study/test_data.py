import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from condgan.data.dataset import ArrayDataset
from condgan.runs import RecipeConfig
from condgan.study import StudyConfig
from condgan.study.data import keep_patients, prepare


def patients(counts):
    """Six images per patient: three of the first class, three of another one."""
    y = torch.cat([torch.tensor([0, c]).repeat(3) for c, n in enumerate(counts) for _ in range(n)])
    images = torch.arange(len(y)).byte().view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    return ArrayDataset(images, y, groups=torch.arange(len(y)) // 6)


def patients_of_the_rare_class(data):
    return {data.group_names[number] for number in data.groups[data.labels == 1]}


@given(
    rare=st.integers(1, 20),
    percents=st.tuples(st.floats(1, 100), st.floats(1, 100)).map(sorted),
    seed=st.integers(0, 100),
)
def test_kept_patients_are_nested_whole_and_of_one_class(rare, percents, seed):
    data = patients((2, rare, 3))
    fewer, more = (keep_patients(data, 1, percent, seed=seed) for percent in percents)
    kept = [patients_of_the_rare_class(part) for part in (fewer, more)]
    assert kept[0] <= kept[1]
    for part, percent, own in zip((fewer, more), percents, kept, strict=True):
        assert len(own) == max(1, round(rare * percent / 100))
        assert part.class_counts == (data.class_counts[0], 3 * len(own), data.class_counts[2])
    assert keep_patients(data, 1, percents[0], seed=seed).fingerprint == fewer.fingerprint


def test_all_patients_are_all_data_and_the_seed_chooses_them():
    data = patients((2, 12))
    assert keep_patients(data, 1, 100).fingerprint == data.fingerprint
    assert len({keep_patients(data, 1, 25, seed=seed).fingerprint for seed in range(5)}) > 1


def test_without_groups_images_are_kept():
    data = ArrayDataset(torch.zeros(30, 1, 4, 4, dtype=torch.uint8), [0] * 10 + [1] * 20)
    assert keep_patients(data, 1, 25).class_counts == (10, 5)


def test_the_order_of_patients_does_not_depend_on_other_classes():
    data = patients((2, 12))
    fewer = data.subset((data.groups >= 1).nonzero().flatten())
    kept = [patients_of_the_rare_class(keep_patients(d, 1, 30)) for d in (data, fewer)]
    assert kept[0] == kept[1]


def test_what_cannot_be_kept_is_refused():
    data = ArrayDataset(torch.zeros(30, 1, 4, 4, dtype=torch.uint8), [0] * 10 + [1] * 20)
    for label, percent in ((2, 50), (-1, 50), (1, 0), (1, 101), (1, float("nan"))):
        with pytest.raises(ValueError, match="label must lie"):
            keep_patients(data, label, percent)
    with pytest.raises(ValueError, match="at least two images of class '1' must remain, got 1"):
        keep_patients(data, 1, 1)


def test_an_image_that_repeats_any_test_image_is_not_trained_on():
    """Also one that repeats a test image which itself repeats an earlier one."""

    def grey(*levels):
        return ArrayDataset(torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16), [0, 1] * 2)

    recipes = {"acgan": RecipeConfig(recipe="acgan", steps=2)}
    config = StudyConfig(image_shape=(1, 16, 16), recipes=recipes, arms=("real",), extractor=None)
    train = ArrayDataset(torch.cat([grey(104, 50, 60, 70).images, grey(72, 74, 90, 95).images]), [0, 1] * 4)
    prepared = prepare(config, train, grey(200, 210, 220, 230), grey(100, 102, 130, 160))
    assert prepared.train.images[:, 0, 0, 0].tolist() == [50, 60, 70, 74, 90, 95]
    found = prepared.description
    assert (found.repeats_of_other_sets_removed, found.duplicates_removed) == (1, 1)
    assert len(prepared.test) == 4
