from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from condgan.data.dataset import ArrayDataset, check_compatible, check_disjoint, number_groups


def make(count: int = 12, shape: tuple[int, ...] = (1, 8, 8), **options: object) -> ArrayDataset:
    images = torch.arange(count * int(np.prod(shape))).reshape(count, *shape) % 256
    arguments: dict[str, object] = {"images": images.to(torch.uint8), "labels": torch.arange(count) % 2, **options}
    return ArrayDataset(**arguments)  # type: ignore[arg-type]


def test_attributes() -> None:
    data = make(class_names=["a", "b"], groups=list(range(12)), source="here", attribution="me")
    assert (data.num_classes, data.class_counts, data.image_shape, len(data)) == (2, (6, 6), (1, 8, 8), 12)
    assert data.labels.dtype == data.groups.dtype == torch.int64
    assert "a: 6, b: 6; from here" in repr(data)


def patients(data: ArrayDataset) -> list[str]:
    """The name of each sample's patient."""
    assert data.groups is not None
    return [data.group_names[number] for number in data.groups.tolist()]


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        (["ben", "ada", "ben", "cyd"], ("ada", "ben", "cyd")),
        ([10, 9, 10, 101], ("9", "10", "101")),
        (np.array(["ben", "ada", "ben", "cyd"], dtype=object), ("ada", "ben", "cyd")),
        (torch.tensor([-1, -2, -1, 5]), ("-2", "-1", "5")),
        (range(4, 0, -1), ("1", "2", "3", "4")),
    ],
)
def test_groups_are_kept_by_name(groups: object, names: tuple[str, ...]) -> None:
    data = make(4, groups=groups)
    assert data.group_names == names
    assert patients(data) == [str(name) for name in (groups.tolist() if hasattr(groups, "tolist") else groups)]
    assert make(4).groups is None
    assert make(4).group_names == ()


def test_parts_name_their_own_patients_only() -> None:
    data = make(groups=[100 - i // 2 for i in range(12)])
    part = data.subset([0, 1, 2, 5, 8, 9])
    assert part.group_names == ("96", "98", "99", "100")
    assert patients(part) == ["100", "100", "99", "98", "96", "96"]
    assert patients(part.resize(4, 4)) == patients(part)
    assert patients(part.subset([3, 0, 1, 2])) == ["98", "100", "100", "99"]


def test_other_groups_by_rule_or_by_name() -> None:
    data = make(4, groups=[1, 2, 3, 4], paths=["a/x-1", "a/x-2", "b/y-1", "b/z-1"], attribution="me", source="here")
    named = data.with_groups(lambda path: path.name.split("-")[0])
    assert patients(named) == ["x", "x", "y", "z"]
    assert (named.paths, named.attribution, named.source) == (data.paths, "me", "here")
    assert data.group_names == ("1", "2", "3", "4")
    assert patients(make(4).with_groups([7, 7, 8, 9])) == ["7", "7", "8", "9"]
    with pytest.raises(ValueError, match="a function for groups needs paths"):
        make(4).with_groups(lambda path: path.name)
    with pytest.raises(ValueError, match=r"groups must have the shape \(4,\)"):
        data.with_groups(["a", "b"])


def test_it_is_a_map_style_data_set() -> None:
    data = make(13, labels=torch.arange(13) % 3)
    assert isinstance(data, Dataset)
    image, label = data[5]
    assert torch.equal(image, data.images[5])
    assert type(label) is int
    assert label == 2
    assert torch.equal(data[-1][0], data.images[12])
    assert [label for _, label in data] == data.labels.tolist()
    with pytest.raises(IndexError):
        data[13]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than the machine has cores
def test_a_data_loader_with_workers_reads_it_in_order() -> None:
    data = make(13, groups=range(13))
    loader = DataLoader(data, batch_size=4, num_workers=2)
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(images, data.images)
    assert images.dtype == torch.uint8
    assert torch.equal(labels, data.labels)


def test_disjoint_sets_share_no_name() -> None:
    first, second, third = (make(4, groups=list(names)) for names in ("abcd", "efgh", "ijjk"))
    check_disjoint(training=first, validation=second, test=third)
    with pytest.raises(ValueError, match=r"training and test images must not share groups, got 2 in both: a, d\. "):
        check_disjoint(training=first, validation=second, test=make(4, groups=["a", "d", "x", "a"]))
    with pytest.raises(ValueError, match="got 1 in both: 7"):
        check_disjoint(a=make(4, groups=[7, 8, 9, 9]), b=make(4, groups=["7", "x", "y", "z"]))


def test_parts_of_one_data_set_are_compared_by_name() -> None:
    data = make(40, groups=[i // 2 for i in range(40)])
    rest, part = data.split(0.25)
    check_disjoint(training=rest, test=part)
    with pytest.raises(ValueError, match=f"got {len(part.group_names)} in both"):
        check_disjoint(training=data, test=part)


def test_sets_without_groups_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="test images must have groups, got None"):
        check_disjoint(training=make(4, groups=range(4)), test=make(4))


def test_long_lists_of_shared_groups_are_cut() -> None:
    with pytest.raises(ValueError, match=r"got 15 in both: .* and 5 more"):
        check_disjoint(a=make(15, groups=range(15)), b=make(15, groups=range(15)))


def test_common_numbers_follow_names() -> None:
    first, second = make(4, groups=["ann", "ann", "bob", "cid"]), make(4, groups=["dan", "cid", "cid", "eve"])
    assert [numbers.tolist() for numbers in number_groups(first, second)] == [[0, 0, 1, 2], [3, 2, 2, 4]]
    assert [numbers.tolist() for numbers in number_groups(make(4), make(5))] == [[0, 1, 2, 3], [4, 5, 6, 7, 8]]
    with pytest.raises(ValueError, match="all data sets or none must have groups"):
        number_groups(first, make(4))


def test_compatible_data_have_shape_classes_and_bytes() -> None:
    data = make(class_names=["a", "b"])
    check_compatible("the test set", data, ["a", "b"], (1, 8, 8))
    with pytest.raises(ValueError, match=r"the test set must have the image shape .* \(1, 4, 4\), got \(1, 8, 8\)"):
        check_compatible("the test set", data, ["a", "b"], (1, 4, 4))
    with pytest.raises(ValueError, match=r"must have the classes .* got \('a', 'b'\)"):
        check_compatible("the test set", data, ["b", "a"], (1, 8, 8))
    with pytest.raises(ValueError, match=r"uint8 images, got torch\.float32"):
        check_compatible("the test set", ArrayDataset(torch.zeros(4, 2), [0, 1, 0, 1]), ["0", "1"], (2,))


def test_points_are_kept_as_they_are() -> None:
    points = torch.randn(10, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = ArrayDataset(points, [0, 1] * 5)
    assert data.images.dtype == torch.float64
    assert data.image_shape == (2,)


def test_read_only_arrays_are_taken() -> None:
    images = np.broadcast_to(np.uint8(30), (4, 1, 2, 2))
    assert make(4, images=images).images.unique().tolist() == [30]


def test_a_memory_map_stays_on_disk(tmp_path: Path) -> None:
    for values in (np.full((4, 1, 2, 2), 30, dtype=np.uint8), np.zeros((4, 3), dtype=np.float32)):
        np.save(tmp_path / "images.npy", values)
        mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
        data = make(4, images=mapped)
        assert np.shares_memory(data.images.numpy(), mapped)
        assert data.fingerprint == make(4, images=values).fingerprint


@pytest.mark.parametrize("missing", [None, float("nan"), "", "  ", "nan", "<NA>"])
def test_a_missing_group_is_refused(missing: object) -> None:
    with pytest.raises(ValueError, match=r"must have a group \(patient\), got none for 2 of 4: sample 1, sample 3\."):
        make(4, groups=["ada", missing, "ben", missing])
    with pytest.raises(ValueError, match=r"none for 1 of 4: b/x\.png\."):
        make(4, groups=np.array(["ada", "ben", "ben", missing], dtype=object), paths=["a", "b", "c", "b/x.png"])
    data = make(4, paths=["a/1.png", "a/2.png", "b/1.png", "b/2.png"])
    with pytest.raises(ValueError, match=r"none for 2 of 4: b/1\.png, b/2\.png\."):
        data.with_groups(lambda path: "ada" if path.parent.name == "a" else missing)  # type: ignore[arg-type,return-value]


def test_a_missing_number_is_named_as_missing() -> None:
    with pytest.raises(ValueError, match="none for 1 of 4: sample 2"):
        make(4, groups=[1.0, 2.0, float("nan"), 2.0])


@pytest.mark.parametrize("brightest", [1, 15])
def test_images_that_are_nearly_black_are_noticed(brightest: int) -> None:
    images = (torch.arange(64).reshape(4, 1, 4, 4) % (brightest + 1)).to(torch.uint8)
    with pytest.warns(UserWarning, match=rf"no value above {brightest}: .* images \* {255 // brightest}") as caught:
        make(4, images=images)
    assert caught[0].filename == __file__


def test_one_class_is_enough_without_conditions() -> None:
    data = make(labels=[0] * 12)
    assert data.class_counts == (12,)
    with pytest.raises(ValueError, match="the training set must have at least two classes, got one: '0'"):
        check_compatible("the training set", data, data.class_names, data.image_shape)


def test_subset_keeps_everything_in_step() -> None:
    data = make(groups=range(12), paths=[f"{i}.png" for i in range(12)], attribution="me")
    part = data.subset([7, 2, 5, 4])
    assert torch.equal(part.images, data.images[[7, 2, 5, 4]])
    assert part.labels.tolist() == [1, 0, 1, 0]
    assert patients(part) == ["7", "2", "5", "4"]
    assert part.paths == ("7.png", "2.png", "5.png", "4.png")
    assert part.attribution == "me"


def test_split_keeps_groups_whole() -> None:
    data = make(60, groups=[i // 4 for i in range(60)])
    rest, part = data.split(0.25, seed=3)
    assert len(rest) + len(part) == 60
    assert not set(rest.group_names) & set(part.group_names)
    assert sorted(map(int, rest.group_names + part.group_names)) == list(range(15))
    assert part.class_counts in ((6, 6), (8, 8))


def test_fingerprint_follows_content() -> None:
    assert make().fingerprint == make().fingerprint
    assert make().fingerprint != make(labels=(torch.arange(12) + 1) % 2).fingerprint
    assert make().fingerprint != make(groups=range(12)).fingerprint
    assert make().fingerprint != make(shape=(1, 4, 16)).fingerprint


def test_resize() -> None:
    data = make(6, (3, 8, 12), groups=range(6), paths=list("abcdef"))
    half = data.resize(4, 6)
    assert half.image_shape == (3, 4, 6)
    assert half.images.dtype == torch.uint8
    assert half.paths == data.paths
    assert data.resize(8, 12) is data
    flat = make(4, images=torch.full((4, 1, 64, 64), 137, dtype=torch.uint8)).resize(28, 40)
    assert flat.images.unique().tolist() == [137]


def test_resize_refuses_points_and_empty_sizes() -> None:
    with pytest.raises(ValueError, match=r"only uint8 images can be resized, got torch\.float32"):
        ArrayDataset(torch.zeros(4, 2), [0, 1, 0, 1]).resize(2, 2)
    with pytest.raises(ValueError, match="at least 1, got 0 and 4"):
        make().resize(0, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": torch.zeros(12, 8, 8, dtype=torch.uint8)}, r"images\[:, None\]"),
        ({"images": torch.zeros(12, 1, 8, 8, dtype=torch.int64)}, r"uint8 \(0 to 255\) or floating point, got torch"),
        ({"images": torch.full((12, 2), torch.nan)}, "finite, got NaN"),
        ({"images": torch.zeros(0, 1, 8, 8, dtype=torch.uint8), "labels": torch.zeros(0, dtype=torch.int64)}, "none"),
        ({"labels": torch.zeros(12, 3, dtype=torch.int64)}, r"labels\.argmax\(1\) of one-hot rows"),
        ({"labels": torch.zeros(12)}, r"labels must be integers, got torch\.float32"),
        ({"labels": torch.arange(12) % 2, "class_names": ["a"]}, r"\[0, 1\), got values in \[0, 1\]"),
        ({"labels": [-1] * 6 + [0] * 6}, r"labels must be 0, 1, 2, \.\.\. without gaps, got -1, 0\."),
        (
            {"labels": [1, 2] * 6},
            r"without gaps, got 1, 2\. Labels start at 0: number the classes with names, labels =",
        ),
        ({"labels": [0, 10**12] * 6}, "without gaps, got 0, 1000000000000"),
        ({"labels": ["ill", "well"] * 6}, r"labels must be integers, got <U4, such as np\.str_\('ill'\)\. Number the"),
        ({"labels": [0, None] * 6}, "labels must be integers, got object"),
        ({"images": torch.zeros(12, 16, 16, 3, dtype=torch.uint8)}, r"got \(16, 16, 3\), which looks like \(H, W, C\)"),
        ({"images": np.zeros((12, 16, 16, 1))}, r"Put the channels first: np\.moveaxis\(images, -1, -3\)"),
        ({"images": [np.zeros((1, 8, 8))] * 12}, r"a NumPy array .*, got a list\. Join single images with np\.stack"),
        ({"labels": [0] * 11 + [1]}, r"at least two samples, got 1 \(1\)"),
        ({"class_names": ["a", "a"]}, "differ from each other"),
        ({"groups": [0, 1]}, r"groups must have the shape \(12,\)"),
        ({"groups": [0.5] * 12}, r"groups must be names \(strings\) or integers, got float64"),
        ({"groups": [True, False] * 6}, r"groups must be names \(strings\) or integers, got bool"),
        ({"paths": ["a"]}, "one entry for each sample, 12, or be empty, got 1"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)  # type: ignore[arg-type]


def test_subset_by_a_mask_names_the_way() -> None:
    with pytest.raises(ValueError, match=r"got torch\.bool.*nonzero"):
        make().subset(torch.ones(12, dtype=torch.bool))
