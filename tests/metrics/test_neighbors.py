import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condgan.metrics.extractors import ExtractorInfo, describe, to_features
from condgan.metrics.neighbors import Neighbors, find_duplicates, nearest_neighbors, neighbor_grid, relative_distance


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pictures(*shape, seed=0):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block", [1, 100, 2**24])
def test_neighbors_are_those_of_all_distances(monkeypatch, block):
    monkeypatch.setattr("condgan.metrics.neighbors._BLOCK", block)
    queries, references = normal(20, 5), normal(30, 5, seed=1)
    expected = torch.cdist(queries, references).sort(1)
    found = nearest_neighbors(queries, references, k=4)
    assert torch.equal(found.indices, expected.indices[:, :4])
    assert torch.allclose(found.distances, expected.values[:, :4])


def test_equal_samples_have_no_distance_however_far_from_the_origin():
    references = normal(40, 64).float() + 1e4
    found = nearest_neighbors(references[7:9], references)
    assert found.indices.flatten().tolist() == [7, 8]
    assert found.distances.flatten().tolist() == [0.0, 0.0]


def test_own_group_is_passed_over():
    x = torch.tensor([[0.0], [0.1], [5.0], [5.2]])
    alone = torch.arange(4)
    assert nearest_neighbors(x, x, groups=(alone, alone)).indices.flatten().tolist() == [1, 0, 3, 2]
    patients = torch.tensor([0, 0, 1, 1])
    found = nearest_neighbors(x, x, groups=(patients, patients))
    assert found.indices.flatten().tolist() == [2, 2, 1, 1]
    assert found.distances.flatten() == pytest.approx([5.0, 4.9, 4.9, 5.1])
    with pytest.raises(ValueError, match="of other groups, got fewer"):
        nearest_neighbors(x, x, k=3, groups=(patients, patients))


def test_relative_distance_by_hand():
    distances = torch.tensor([[1.0, 4.0, 6.0], [0.0, 3.0, 3.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0]]).double()
    assert relative_distance(Neighbors(torch.zeros(4, 3).long(), distances)).tolist() == [0.2, 0.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="at least two"):
        relative_distance(Neighbors(torch.zeros(4, 1).long(), distances[:, :1]))


def test_grid_shows_the_most_suspicious_first():
    train = pictures(6, 1, 8, 8)
    generated = torch.cat([pictures(1, 1, 8, 8, seed=1), train[3:4]])
    found = nearest_neighbors(to_features(generated), to_features(train), k=3)
    sheet = neighbor_grid(generated, train, found, count=1, columns=2)
    assert sheet.shape == (1, 12, 32)
    assert torch.equal(sheet[:, 2:10, 2:10], train[3])
    assert torch.equal(sheet[:, 2:10, 12:20], train[3])
    assert torch.equal(sheet[:, 2:10, 22:30], train[found.indices[1, 1]])


def test_features_come_from_the_extractor_in_parts():
    sizes = []

    def mean_of_rows(images):
        sizes.append(len(images))
        return images.float().mean(3).requires_grad_()

    images = pictures(300, 1, 4, 6)
    features = to_features(images, mean_of_rows)
    assert torch.allclose(features, images.double().mean(3).flatten(1))
    assert (sizes, features.dtype, features.requires_grad) == ([256, 44], torch.float64, False)
    assert describe(mean_of_rows).name == "mean_of_rows"
    with pytest.raises(ValueError, match="with NaN"):
        to_features(images, lambda x: x.flatten(1).float() / 0)
    with pytest.raises(ValueError, match="one row for each of 300"):
        to_features(images, lambda x: x[:1])


def test_an_extractor_with_info_describes_itself():
    class Known:
        info = ExtractorInfo("resnet", "0123", "none")

        def __call__(self, images):
            return images.flatten(1)

    assert describe(Known()) is Known.info


def test_duplicates_by_hand():
    a, b = pictures(1, 1, 20, 24), pictures(1, 1, 20, 24, seed=1)
    slightly = (a.int() + 1).clamp(0, 255).to(torch.uint8)
    found = find_duplicates(torch.cat([b, a, slightly, b, a, a // 2]))
    assert found.original.tolist() == [0, 1, 1, 0, 1, 5]
    assert found.exact.tolist() == [False, False, False, True, True, False]
    assert found.near.tolist() == [False, False, True, False, False, False]
    assert found.kept.tolist() == [0, 1, 5]
    assert find_duplicates(torch.cat([a, slightly]), tolerance=0.0).kept.tolist() == [0, 1]


def test_duplicates_of_vectors_are_exact_ones():
    x = torch.tensor([[1.0, 2.0], [1.0, 2.001], [1.0, 2.0]])
    assert find_duplicates(x, tolerance=0.0).original.tolist() == [0, 1, 0]


def flat(levels):
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)


def test_a_chain_keeps_images_that_differ():
    found = find_duplicates(flat([100, 102, 104, 106, 109, 104]))
    assert found.original.tolist() == [0, 0, 2, 2, 4, 2]
    assert found.exact.tolist() == [False] * 5 + [True]


def test_retained_images_stay_and_later_ones_are_compared_with_each():
    assert find_duplicates(flat([100, 102, 104]), retained=2).original.tolist() == [0, 0, 1]
    assert find_duplicates(flat([100, 102, 104, 104]), retained=3).original.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("block", [300, 2**24])
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(0, 8))
@settings(max_examples=30, deadline=None)
def test_kept_images_differ_and_the_others_repeat_one_of_them(block, levels, retained):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("condgan.metrics.neighbors._BLOCK", block)
        found = find_duplicates(flat(levels), retained=retained)
    expected = []
    for i, level in enumerate(levels):
        stays = [j for j in range(i) if expected[j] == j or j < retained]
        expected.append(next((j for j in stays if abs(levels[j] - level) <= 2), i))
    assert found.original.tolist() == expected


@given(st.integers(16, 70), st.integers(16, 70), st.floats(0.5, 20.0), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_thumbnails_rule_out_no_duplicate(height, width, tolerance, seed):
    images = pictures(1, 1, height, width, seed=seed).float().repeat(8, 1, 1, 1)
    images += torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)) * tolerance
    images = images.clamp(0, 255).to(torch.uint8)
    flat = images.flatten(1).double()
    close = torch.cdist(flat, flat) <= tolerance * flat.shape[1] ** 0.5
    repeats = torch.tensor([bool(close[i, :i].any()) for i in range(8)])
    found = find_duplicates(images, tolerance=tolerance, retained=8)
    assert torch.equal(found.near | found.exact, repeats)


def test_many_images_alike_take_no_longer_than_others():
    """Slices of noise near black, all of them within the tolerance or none: their thumbnails are always alike."""
    began = time.process_time()
    for most, kept in ((2, 1), (8, 600)):
        slices = torch.randint(
            most + 1, (600, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        assert len(find_duplicates(slices).kept) == kept
    assert time.process_time() - began < 5  # pair by pair it took longer


def test_messages():
    with pytest.raises(ValueError, match="Turn images into features"):
        nearest_neighbors(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"k must be in \[1, 2\]"):
        nearest_neighbors(torch.zeros(2, 3), torch.zeros(2, 3), k=3)
