from __future__ import annotations

import numpy as np
import pytest
import torch

from condgan.data import ArrayDataset


def make(count: int = 12, shape: tuple[int, ...] = (1, 8, 8), **options: object) -> ArrayDataset:
    images = torch.arange(count * int(np.prod(shape))).reshape(count, *shape) % 256
    arguments: dict[str, object] = {"images": images.to(torch.uint8), "labels": torch.arange(count) % 2, **options}
    return ArrayDataset(**arguments)  # type: ignore[arg-type]


def test_attributes() -> None:
    data = make(class_names=["a", "b"], groups=list(range(12)), source="here", attribution="me")
    assert (data.num_classes, data.class_counts, data.image_shape, len(data)) == (2, (6, 6), (1, 8, 8), 12)
    assert data.labels.dtype == data.groups.dtype == torch.int64
    assert "a: 6, b: 6; from here" in repr(data)


def test_points_are_kept_as_they_are() -> None:
    points = torch.randn(10, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = ArrayDataset(points, [0, 1] * 5)
    assert data.images.dtype == torch.float64
    assert data.image_shape == (2,)


def test_read_only_arrays_are_copied() -> None:
    images = np.broadcast_to(np.uint8(3), (4, 1, 2, 2))
    assert make(4, images=images).images.unique().tolist() == [3]


def test_subset_keeps_everything_in_step() -> None:
    data = make(groups=range(12), paths=[f"{i}.png" for i in range(12)], attribution="me")
    part = data.subset([7, 2, 5, 4])
    assert torch.equal(part.images, data.images[[7, 2, 5, 4]])
    assert part.labels.tolist() == [1, 0, 1, 0]
    assert part.groups is not None
    assert part.groups.tolist() == [7, 2, 5, 4]
    assert part.paths == ("7.png", "2.png", "5.png", "4.png")
    assert part.attribution == "me"


def test_split_keeps_groups_whole() -> None:
    data = make(60, groups=[i // 4 for i in range(60)])
    rest, part = data.split(0.25, seed=3)
    assert len(rest) + len(part) == 60
    assert rest.groups is not None
    assert part.groups is not None
    assert not set(rest.groups.tolist()) & set(part.groups.tolist())
    assert part.class_counts == (8, 8)


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
        ({"labels": torch.zeros(12, 3, dtype=torch.int64)}, "Multi-label targets are not supported"),
        ({"labels": torch.zeros(12)}, r"labels must be integers, got torch\.float32"),
        ({"labels": torch.arange(12) % 2, "class_names": ["a"]}, r"\[0, 1\), got values in \[0, 1\]"),
        ({"labels": [-1] * 6 + [0] * 6}, r"got values in \[-1, 0\]"),
        ({"labels": [0] * 11 + [1]}, r"at least two samples, got 1 \(1\)"),
        ({"labels": [0] * 12}, "at least two classes, got one"),
        ({"class_names": ["a", "a"]}, "differ from each other"),
        ({"groups": [0, 1]}, r"groups must have the shape \(12,\)"),
        ({"paths": ["a"]}, "one entry a sample, 12, or be empty, got 1"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)  # type: ignore[arg-type]


def test_subset_by_a_mask_names_the_way() -> None:
    with pytest.raises(ValueError, match=r"got torch\.bool.*nonzero"):
        make().subset(torch.ones(12, dtype=torch.bool))
