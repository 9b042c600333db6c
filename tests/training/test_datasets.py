"""Data sets of PyTorch as training data: the same samples as an ArrayDataset's, nothing frozen, nothing guessed."""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

import condgan as cg
from condgan.training import as_labelled, fit_together
from saved import assert_same_networks


class Items(Dataset):
    """Items from a list of images and labels."""

    def __init__(self, images, labels, transform=lambda image: image):
        self.images_, self.labels_, self.transform = list(images), labels, transform

    def __len__(self):
        return len(self.images_)

    def __getitem__(self, index):
        return self.transform(self.images_[index]), self.labels_[index]


class Flip:
    """Mirrors an image half of the time, with draws from one of the default generators."""

    def __init__(self, source="torch"):
        self.source = source

    def __call__(self, image):
        draws = {"torch": lambda: float(torch.rand(())), "numpy": np.random.rand, "python": random.random}
        return image.flip(-1) if draws[self.source]() < 0.5 else image


def as_pil(image):
    return Image.fromarray(image[0].numpy())


KINDS = {
    "tensors": lambda data: TensorDataset(data.images, data.labels),
    "arrays": lambda data: Items(data.images.numpy(), data.labels.numpy()),
    "PIL images": lambda data: Items(map(as_pil, data.images), data.labels.tolist()),
    "pairs in a list": lambda data: list(zip(data.images, data.labels.tolist(), strict=True)),
    "a loader": lambda data: DataLoader(TensorDataset(data.images, data.labels), batch_size=5, shuffle=True),
    "a subset": lambda data: Subset(TensorDataset(data.images, data.labels), range(len(data.labels))),
}


def trained(make_trainer, data, *, steps=4, **options):
    trainer = make_trainer(dequantize=True, label_distribution="paired")
    trainer.fit(data, steps=steps, batch_size=6, **options)
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_any_data_set_of_the_images_gives_the_samples_of_an_array_data_set(kind, make_trainer, tiny_images):
    assert_same_networks(trained(make_trainer, tiny_images), trained(make_trainer, KINDS[kind](tiny_images)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_items_larger_than_memory_are_streamed_with_the_same_samples(num_workers, make_trainer, tiny_images):
    items = KINDS["PIL images"](tiny_images)
    data = as_labelled(items, num_workers=num_workers, max_host_bytes=24 * 256 - 1)
    held = as_labelled(items, num_workers=num_workers, max_host_bytes=24 * 256)
    assert (data.streamed, held.streamed) == (True, False)
    assert data.fingerprint == held.fingerprint
    assert torch.equal(held.images, tiny_images.images)
    assert_same_networks(trained(make_trainer, tiny_images), trained(make_trainer, data))
    with pytest.raises(ValueError, match="no tensor holds all of them"):
        _ = data.images


@pytest.mark.parametrize("source", ["torch", "numpy", "python"])
def test_random_transforms_are_never_frozen_and_leave_the_callers_draws_alone(source, tiny_images):
    data = Items(tiny_images.images, tiny_images.labels.tolist(), Flip(source))
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    labelled = as_labelled(data)
    assert labelled.streamed
    reader = labelled.open()
    first, again, other = (reader.read_many(range(24), seed)[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert states[2] == random.getstate()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than the machine has cores
def test_random_transforms_follow_the_seed_and_not_the_workers(make_trainer, tiny_images, tmp_path):
    def data(num_workers):
        items = Items(tiny_images.images, tiny_images.labels.tolist(), Flip())
        return DataLoader(items, batch_size=3, num_workers=num_workers)

    whole = trained(make_trainer, data(0))
    assert_same_networks(whole, trained(make_trainer, data(2)))
    cut = make_trainer(dequantize=True, label_distribution="paired", callbacks=[cg.Evaluate(stop_at(2), every=1)])
    cut.fit(data(2), steps=4, batch_size=6)
    cut.save(tmp_path)
    resumed = make_trainer(dequantize=True, label_distribution="paired")
    assert resumed.resume(tmp_path)
    assert resumed.state.step == 2
    resumed.fit(data(0), steps=4, batch_size=6)
    assert_same_networks(whole, resumed)


def stop_at(step):
    def stop(trainer):
        if trainer.state.step == step:
            trainer.request_stop("test")
        return {}

    return stop


def test_trainers_together_draw_from_streamed_data_as_if_alone(make_trainer, tiny_images):
    data = Items(tiny_images.images, tiny_images.labels.tolist(), Flip())
    alone = [make_trainer(seed=seed) for seed in (0, 1)]
    for trainer in alone:
        trainer.fit(data, steps=3, batch_size=6)
    together = [make_trainer(seed=seed) for seed in (0, 1)]
    fit_together(together, data, steps=3, batch_size=6)
    for one, other in zip(alone, together, strict=True):
        assert_same_networks(one, other)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_ctrl_c_leaves_the_workers_to_finish_the_step(make_trainer, tiny_images):
    """A terminal sends it to them as well."""

    class InterruptWorkers(cg.Callback):
        def on_critic_step_end(self, trainer):
            children = multiprocessing.active_children()
            assert len(children) >= 2
            for child in children:
                os.kill(child.pid, signal.SIGINT)

    trainer = make_trainer(callbacks=[InterruptWorkers()])
    data = as_labelled(KINDS["tensors"](tiny_images), num_workers=2, max_host_bytes=0)
    assert trainer.fit(data, steps=8, batch_size=6).step == 8


def test_worker_processes_end_with_training(make_trainer, tiny_images):
    class CountWorkers(cg.Callback):
        seen = 0

        def on_step_end(self, trainer):
            self.seen = len(multiprocessing.active_children())

    before, count = set(multiprocessing.active_children()), CountWorkers()
    data = as_labelled(KINDS["tensors"](tiny_images), num_workers=2, max_host_bytes=0)
    make_trainer(callbacks=[count]).fit(data, steps=2, batch_size=6)
    assert count.seen >= 2
    deadline = time.monotonic() + 30
    # not join(): the thread of the pool waits for the same processes
    while started := {process for process in multiprocessing.active_children() if process not in before}:
        assert time.monotonic() < deadline, f"{started} are still running"
        time.sleep(0.05)


@pytest.mark.parametrize("image_range", [(0, 1), (-1, 1)])
def test_float_images_are_scaled_from_the_range_that_they_state(image_range, make_trainer, tiny_images):
    scaled = tiny_images.images.double() / 127.5 - 1
    given = scaled if image_range == (-1, 1) else (scaled + 1) / 2
    for data in (TensorDataset(given, tiny_images.labels), cg.data.ArrayDataset(given, tiny_images.labels)):
        labelled = as_labelled(data, image_range=image_range)
        torch.testing.assert_close(labelled.images, scaled)
        assert labelled.num_classes == 3
        make_trainer().fit(data, steps=1, batch_size=6, image_range=image_range)


@pytest.mark.parametrize(
    ("images", "image_range", "message"),
    [
        (torch.rand(6, 1, 16, 16), None, r"need an image_range, .* image_range=\(0, 1\)"),
        (torch.rand(6, 1, 16, 16) * 255, None, r"Divide them by 255 and pass image_range=\(0, 1\)"),
        (torch.rand(6, 1, 16, 16) * 255, (0, 1), r"must lie in image_range=\(0, 1\), got values in \[.*, 2\d\d\]"),
        (torch.rand(6, 1, 16, 16) - 1, (0, 1), "must lie in image_range"),
        (torch.full((6, 1, 16, 16), torch.nan), (-1, 1), "must lie in image_range"),
        (torch.rand(6, 1, 16, 16), (0, 255), r"must be \(0, 1\) or \(-1, 1\), got \(0, 255\)"),
        (torch.zeros(6, 1, 16, 16, dtype=torch.uint8), (0, 1), "Leave it out"),
    ],
)
@pytest.mark.parametrize("kind", ["items", "arrays"])
def test_float_images_of_unknown_or_wrong_range_are_refused(images, image_range, message, kind):
    if kind == "arrays" and bool(images.isnan().any()):
        return  # an ArrayDataset refuses NaN itself
    make = TensorDataset if kind == "items" else cg.data.ArrayDataset
    with pytest.raises(ValueError, match=message):
        as_labelled(make(images, torch.arange(6) % 2), image_range=image_range)


def test_held_float_images_beyond_those_of_generators_are_refused(make_trainer):
    data = cg.data.ArrayDataset(torch.randn(6, 1, 16, 16).mul(3), [0, 1, 2] * 2)
    with pytest.raises(ValueError, match=r"images must lie in \[-1, 1\], got values in \[-.*\]\. Rescale them"):
        make_trainer().fit(data, steps=1, batch_size=6)
    assert make_trainer().fit(cg.data.ArrayDataset(data.images.tanh(), data.labels), steps=1, batch_size=6).step == 1


def test_images_that_are_nearly_black_are_noticed():
    masks = torch.randint(2, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with pytest.warns(UserWarning, match="no value above 1: all are nearly black"):
        as_labelled(TensorDataset(masks, torch.arange(6) % 2))


def test_arrays_where_tensors_are_wanted_are_refused(tiny_images):
    class Arrays:
        images, labels = tiny_images.images.numpy(), tiny_images.labels.numpy()
        num_classes, class_counts, image_shape = 3, (12, 8, 4), (1, 16, 16)

    with pytest.raises(TypeError, match=r"of a Arrays must be tensors, got a ndarray of shape .* Make a condgan\.data"):
        as_labelled(Arrays())


def test_a_memory_map_is_streamed_from_disk(make_trainer, tiny_images, tmp_path):
    np.save(tmp_path / "images.npy", tiny_images.images.numpy())
    mapped = cg.data.ArrayDataset(np.load(tmp_path / "images.npy", mmap_mode="r"), tiny_images.labels)
    assert_same_networks(trained(make_trainer, tiny_images), trained(make_trainer, mapped))


def test_the_stated_range_is_part_of_what_a_resumed_run_compares():
    data = cg.data.ArrayDataset(torch.rand(6, 1, 4, 4), torch.arange(6) % 2)
    for make in (lambda: data, lambda: TensorDataset(data.images, data.labels)):
        one, other = (as_labelled(make(), image_range=image_range).fingerprint for image_range in ((0, 1), (-1, 1)))
        assert one != other


def test_what_is_known_of_the_data_is_not_stated_again(tiny_images):
    labelled = as_labelled(TensorDataset(torch.rand(6, 1, 4, 4), torch.arange(6) % 2), image_range=(0, 1))
    assert as_labelled(labelled) is labelled
    assert as_labelled(tiny_images) is tiny_images
    with pytest.raises(ValueError, match="image_range must be None for data from as_labelled"):
        as_labelled(labelled, image_range=(0, 1))
    for data in (labelled, tiny_images):
        with pytest.raises(ValueError, match="has class names"):
            as_labelled(data, class_names=["a", "b"])


def test_points_need_no_range():
    points = torch.randn(6, 2)
    assert torch.equal(as_labelled(TensorDataset(points, torch.arange(6) % 2)).images, points)


GREY = torch.zeros(1, 16, 16, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "at least one item"),
        ([GREY], "must be pairs"),
        ([(GREY, 0, 1)], "must be pairs .*, got a tuple of 3 as item 0"),
        ([(GREY, 0), (GREY, "ill")], "labels must be integers .*, got a str as item 1"),
        ([(GREY, 0.0)], "labels must be integers .*, got a float"),
        ([(GREY, torch.tensor([1]))], r"labels must be integers .*, got a Tensor of shape \(1,\)"),
        ([(GREY, -1), (GREY, 0)], r"labels must be 0, 1, 2, \.\.\. without gaps, got -1, 0\."),
        ([(GREY, 0), (GREY, 10**12)], "without gaps, got 0, 1000000000000"),
        ([(GREY, 10**30)], "labels must be integers .*, got a int as item 0"),
        ([(GREY.permute(1, 2, 0), 0)], r"got \(16, 16, 1\), which looks like \(H, W, C\)"),
        ([(np.zeros((16, 16, 3)), 0)], r"got \(16, 16, 3\), which looks like \(H, W, C\)"),
        ([(GREY, 0), (GREY[:, :8], 0)], r"shape \(1, 16, 16\) .* got \(1, 8, 16\) and torch.uint8 as item 1"),
        ([(GREY, 0), (GREY.float(), 0)], "need an image_range"),
        ([(GREY[0], 0)], r"must have the shape \(C, H, W\), got \(16, 16\) as item 0"),
        ([(GREY.int(), 0)], "must be uint8"),
        ([("a path", 0)], "must be tensors, arrays or PIL images, got a str"),
        ([(Image.new("RGBA", (4, 4)), 0)], r"mode L or RGB, got RGBA as item 0"),
        ([(torch.tensor([0.0, torch.inf]), 0)], "must be finite"),
    ],
)
def test_items_that_do_not_fit_are_refused_by_name(items, message):
    with pytest.raises(ValueError, match=message):
        as_labelled(items)


def test_labels_that_change_are_refused():
    class Restless(Items):
        def __getitem__(self, index):
            return self.images_[index], int(torch.randint(100, ()))

    with pytest.raises(ValueError, match="must keep its label"):
        as_labelled(Restless([GREY] * 8, None))


class Stream(IterableDataset):
    def __iter__(self):
        yield GREY, 0


@pytest.mark.parametrize("data", [Stream(), DataLoader(Stream()), 3])
def test_what_has_no_items_to_draw_is_refused(data):
    with pytest.raises(TypeError, match="map-style data set with __getitem__ and __len__, got a "):
        as_labelled(data)


def test_a_loader_with_batches_or_draws_of_its_own_is_not_obeyed_silently(tiny_images):
    data = TensorDataset(tiny_images.images, tiny_images.labels)
    with pytest.raises(ValueError, match=r"Pass loader.dataset, and choose fit\(batch_size"):
        as_labelled(DataLoader(data, batch_sampler=[[0, 1]]))
    with pytest.warns(UserWarning, match=r"not its sampler=WeightedRandomSampler .*balanced"):
        as_labelled(DataLoader(data, sampler=WeightedRandomSampler([1.0] * 24, 24)))
    with pytest.warns(UserWarning, match="not its collate_fn"):
        as_labelled(DataLoader(data, collate_fn=list))


def test_class_names_come_from_the_data_set_or_the_caller(tiny_images):
    data = Items(tiny_images.images, tiny_images.labels.tolist())
    assert as_labelled(data).class_names == ("0", "1", "2")
    data.classes = ["normal", "bacterial", "viral", "other"]
    part = Subset(data, range(12))  # one class only
    assert as_labelled(part).class_names == ("normal", "bacterial", "viral", "other")
    assert as_labelled(part).class_counts == (12, 0, 0, 0)
    assert as_labelled(part, class_names=["a", "b", "c"]).class_names == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"values in \[0, 2\), got values in \[0, 2\]"):
        as_labelled(data, class_names=["a", "b"])


def test_resume_compares_the_items(make_trainer, tiny_images, tmp_path):
    trainer = make_trainer()
    trainer.fit(KINDS["PIL images"](tiny_images), steps=1, batch_size=6)
    trainer.save(tmp_path)
    resumed = make_trainer()
    resumed.resume(tmp_path)
    with pytest.raises(ValueError, match="other data"):
        resumed.fit(TensorDataset(255 - tiny_images.images, tiny_images.labels), steps=2, batch_size=6)
    assert resumed.fit(KINDS["arrays"](tiny_images), steps=2, batch_size=6).step == 2


def test_recipes_take_any_data_set(tiny_images):
    trainer = cg.recipes.acgan(as_labelled(KINDS["PIL images"](tiny_images)), base_channels=2, device="cpu")
    assert trainer.networks.critic.num_classes == 3


def test_what_rounding_puts_beyond_the_range_is_taken(make_trainer):
    images = torch.linspace(-1, 1 + 1e-6, 24 * 256).view(24, 1, 16, 16)
    data = cg.data.ArrayDataset(images, torch.arange(24) % 3)
    assert make_trainer().fit(data, steps=1, batch_size=6).step == 1
