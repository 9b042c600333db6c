from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condgan.data import ImageFolder, decoding


def write(path: Path, size: tuple[int, int] = (20, 16), mode: str = "L", value: int | None = None) -> Path:
    """Write an image of one value, or of reproducible noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    height, width = size
    shape = (height, width) if mode == "L" else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape) if value is None else np.full(shape, value)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("cat/a.png", "cat/b.JPG", "cat/deep/c.jpeg", "dog/d.PNG", "dog/e.jpg"):
        write(tmp_path / "pets" / name)
    return tmp_path / "pets"


def read(root: Path, shape: tuple[int, int, int] = (1, 16, 16), **options: object) -> ImageFolder:
    return ImageFolder(root, shape, progress=False, **options)  # type: ignore[arg-type]


def test_classes_paths_and_order(root: Path) -> None:
    data = read(root)
    assert data.paths == ("cat/a.png", "cat/b.JPG", "cat/deep/c.jpeg", "dog/d.PNG", "dog/e.jpg")
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.groups is None
    assert data.group_names == ()
    assert data.source == "pets"


def test_only_selected_files_are_opened(root: Path) -> None:
    (root / "cat" / "broken.png").write_bytes(b"no image")
    data = read(root, select=lambda path: path.stem != "broken")
    assert len(data) == 5
    with pytest.raises(ValueError, match="select must keep at least one image"):
        read(root, select=lambda path: False)


@pytest.mark.parametrize(
    ("shape", "mode", "size"),
    [((1, 28, 28), "L", (28, 28)), ((3, 48, 80), "RGB", (60, 70)), ((3, 48, 80), "L", (48, 80))],
)
def test_shapes(tmp_path: Path, shape: tuple[int, int, int], mode: str, size: tuple[int, int]) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        write(tmp_path / name, size, mode)
    data = read(tmp_path, shape)
    assert data.images.shape == (4, *shape)
    assert data.images.dtype == torch.uint8


def test_images_of_the_asked_size_are_unchanged(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, (48, 80), "RGB") for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png")]
    data = read(tmp_path, (3, 48, 80))
    for path, image in zip(paths, data.images, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)).transpose(2, 0, 1), image.numpy())


def test_workers_do_not_change_the_result(root: Path) -> None:
    assert read(root, workers=1).fingerprint == read(root, workers=4).fingerprint


def test_label_and_group_rules_get_relative_paths(root: Path) -> None:
    seen = []

    def label(path: Path) -> str:
        seen.append(path)
        return "early" if path.stem < "c" else "late"

    data = read(root, label=label, group=lambda path: ord(path.stem) // 2, class_names=["late", "early"])
    assert seen[0] == Path("cat/a.png")
    assert data.class_names == ("late", "early")
    assert data.labels.tolist() == [1, 1, 0, 0, 0]
    assert data.groups is not None
    assert [data.group_names[i] for i in data.groups] == ["48", "49", "49", "50", "50"]


def test_hidden_files_and_archive_leftovers_are_left_out(root: Path) -> None:
    (root / "cat" / "._a.png").write_bytes(b"AppleDouble")
    (root / ".DS_Store").write_bytes(b"")
    (root / "__MACOSX" / "cat").mkdir(parents=True)
    (root / "__MACOSX" / "cat" / "a.png").write_bytes(b"")
    (root / "cat" / "notes.txt").write_text("hello")
    assert len(read(root)) == 5


def test_linked_class_folders_are_read(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "f.png")
    write(tmp_path / "elsewhere" / "g.png")
    (root / "fox").symlink_to(tmp_path / "elsewhere")
    assert read(root).class_names == ("cat", "dog", "fox")


def test_links_repeat_no_image(root: Path, tmp_path: Path) -> None:
    paths = read(root).paths
    (root / "cat" / "again").symlink_to(root / "dog")
    (root / "dog" / "loop").symlink_to(root)
    (root / "cat" / "above").symlink_to(tmp_path)
    (root / "dog" / "a.png").symlink_to(root / "cat" / "a.png")
    for name in ("first", "second"):
        write(tmp_path / "elsewhere" / "f.png")
        (root / "dog" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.warns(
        UserWarning, match="5 links in .* are not followed, .*: cat/above, cat/again, dog/a.png, "
    ) as caught:
        data = read(root)
    assert data.paths == (*paths, "dog/first/f.png")
    assert caught[0].filename == __file__


@pytest.mark.parametrize("suffix", ["bmp", "tif", "TIFF", "webp", "jfif"])
def test_other_formats_are_read(root: Path, suffix: str) -> None:
    pixels = np.add.outer(np.arange(0, 160, 10), np.arange(0, 80, 5)).astype(np.uint8)
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(root / "cat" / f"ramp.{suffix}", **options)
    data = read(root)
    image = data.images[data.paths.index(f"cat/ramp.{suffix}")][0].numpy()
    assert np.abs(image.astype(int) - pixels).max() <= (3 if suffix == "jfif" else 0)


def test_image_files_that_are_not_read_are_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "slices").mkdir()
    for folder in (root / "cat", tmp_path / "slices"):
        (folder / "scan.dcm").write_bytes(b"DICM")
    Image.new("L", (4, 4)).save(root / "dog" / "moving.gif")
    with pytest.warns(
        UserWarning, match=r"2 image files in .* are not read, .*: cat/scan\.dcm, dog/moving\.gif\. Conv"
    ):
        assert len(read(root)) == 5
    with pytest.raises(ValueError, match=r"expected files ending in .*, got others: scan\.dcm\. Convert them"):
        read(tmp_path / "slices")


def test_a_folder_that_cannot_be_read_is_not_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="deep"):
        read(root)


def deep(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def grey_levels(data: ImageFolder) -> dict[str, list[int]]:
    return {path: image.unique().tolist() for path, image in zip(data.paths, data.images, strict=True)}


def test_sixteen_bits_are_scaled_and_not_clipped(root: Path) -> None:
    for name, value in (("dark", 257 * 3), ("bright", 65535), ("middle", 257 * 128)):
        deep(root / "cat" / f"{name}.png", np.full((16, 16), value, dtype=np.uint16))
    for shape in ((1, 16, 16), (3, 8, 8)):
        values = grey_levels(read(root, shape))
        assert [values[f"cat/{name}.png"] for name in ("dark", "middle", "bright")] == [[3], [128], [255]]


@pytest.mark.parametrize(
    ("values", "suffix", "window", "levels"),
    [
        ([0, 1000, 4000], "png", (0, 4095), [0, 62, 249]),  # 12 bits
        ([0, 1, 1], "tif", (0, 1), [0, 255, 255]),
        ([0, 200, 255], "png", (0, 255), [0, 200, 255]),
        ([-1000, 0, 3000], "tif", (-1000, 3000), [0, 64, 255]),  # Hounsfield units
        ([0.0, 0.4, 1.0], "tif", (0, 1), [0, 102, 255]),
        ([0, 50_000, 100_000], "tif", (0, 100_000), [0, 128, 255]),
        ([70, 70, 70], "tif", (0, 255), [70, 70, 70]),
    ],
)
def test_deep_images_share_a_window_that_suits_the_data_set(
    tmp_path: Path, values: list[float], suffix: str, window: tuple[float, float], levels: list[int]
) -> None:
    dtype = np.float32 if isinstance(values[1], float) else np.uint16 if suffix == "png" else np.int32
    for i, value in enumerate((*values, values[0])):
        deep(tmp_path / "xy"[i % 2] / f"{i}.{suffix}", np.full((8, 8), value, dtype=dtype))
    said = rf"4 images of more than 8 bits .* from {min(values):g} to {max(values):g}: {window[0]:g} becomes black, "
    with pytest.warns(UserWarning, match=said) as caught:
        data = read(tmp_path)
    assert caught[0].filename == __file__
    assert [grey_levels(data)[f"{'xy'[i % 2]}/{i}.{suffix}"] for i in range(3)] == [[level] for level in levels]
    assert read(tmp_path, window=window).fingerprint == data.fingerprint  # stated, and not said


def test_a_stated_window_clips_what_lies_outside(tmp_path: Path) -> None:
    for name, value in (("a/1", 0), ("a/2", 500), ("b/1", 1500), ("b/2", 9000)):
        deep(tmp_path / f"{name}.png", np.full((8, 8), value, dtype=np.uint16))
    assert list(grey_levels(read(tmp_path, window=(500, 2500))).values()) == [[0], [0], [128], [255]]
    for window in ((5, 5), (0, float("nan")), (0, float("inf")), (1,)):
        with pytest.raises(ValueError, match="window must be two numbers"):
            read(tmp_path, window=window)


def test_a_window_is_part_of_the_cache(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/1", "b/2"):
        deep(tmp_path / "images" / f"{name}.png", np.full((8, 8), 1000, dtype=np.uint16))
    options = {"cache": tmp_path / "cache"}
    assert read(tmp_path / "images", window=(0, 2000), **options).images.unique().tolist() == [128]
    assert read(tmp_path / "images", window=(0, 4000), **options).images.unique().tolist() == [64]


def test_palettes_and_transparency(root: Path) -> None:
    colour = Image.new("RGBA", (16, 16), (200, 200, 200, 0))
    colour.paste((200, 200, 200, 255), (0, 0, 8, 16))
    colour.save(root / "cat" / "clear.png")
    colour.quantize().save(root / "cat" / "palette.png")
    Image.new("1", (16, 16), 1).save(root / "cat" / "one_bit.png")
    data = read(root)
    images = dict(zip(data.paths, data.images, strict=True))
    for name in ("cat/clear.png", "cat/palette.png"):
        assert images[name][0, 0, 0] == 200
        assert images[name][0, 0, -1] == 0
    assert images["cat/one_bit.png"].unique().tolist() == [255]


def test_images_are_turned_upright(root: Path) -> None:
    image = Image.new("L", (32, 16))
    image.paste(255, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "cat" / "turned.png", exif=exif)
    data = read(root, (1, 32, 16))
    upright = data.images[data.paths.index("cat/turned.png")][0]
    assert upright[0].float().mean() > 250
    assert upright[-1].float().mean() < 5


def test_drafted_jpegs_are_close_to_exact_ones(root: Path) -> None:
    rows, columns = np.mgrid[0:1021, 0:1101]
    pixels = (127 + 100 * np.sin(rows / 20) * np.cos(columns / 30)).astype(np.uint8)
    Image.fromarray(pixels).save(root / "cat" / "large.jpg", quality=95)
    data = read(root, (1, 64, 48))
    drafted = data.images[data.paths.index("cat/large.jpg")][0]
    exact = np.asarray(Image.fromarray(pixels).resize((48, 64), Image.Resampling.LANCZOS))
    assert np.abs(drafted.numpy().astype(int) - exact).max() <= 3


def test_all_files_that_cannot_be_decoded_are_listed(root: Path) -> None:
    whole = write(root / "cat" / "whole.jpg", (200, 200)).read_bytes()
    (root / "cat" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "empty.png").write_bytes(b"")
    (root / "dog" / "text.jpeg").write_text("not found")
    png = write(root / "dog" / "whole.png", (200, 200)).read_bytes()
    (root / "dog" / "truncated.png").write_bytes(png[: len(png) // 2])
    with pytest.raises(ValueError, match="4 of 11 images") as caught:
        read(root)
    message = str(caught.value)
    assert all(name in message for name in ("cat/truncated.jpg", "dog/empty.png", "dog/text.jpeg", "dog/truncated.png"))
    assert message.endswith("Replace or delete them, or leave them out with on_error='skip'.")


def test_images_that_cannot_be_decoded_can_be_skipped(root: Path, tmp_path: Path) -> None:
    clean = read(root, group=lambda path: path.stem)
    png = write(root / "dog" / "broken.png", (200, 200)).read_bytes()
    (root / "dog" / "broken.png").write_bytes(png[: len(png) // 2])
    (root / "cat" / "empty.png").write_bytes(b"")
    said = r"2 of 7 images in .* are left out, because they cannot be decoded: cat/empty\.png \(.*, dog/broken\.png \("
    with pytest.warns(UserWarning, match=said) as caught:
        data = read(root, group=lambda path: path.stem, on_error="skip", cache=tmp_path / "cache")
    assert caught[0].filename == __file__
    assert (data.fingerprint, data.paths) == (clean.fingerprint, clean.paths)
    assert sorted(data.skipped) == ["cat/empty.png", "dog/broken.png"]
    assert "truncated" in data.skipped["dog/broken.png"]
    assert clean.skipped == {}
    assert not (tmp_path / "cache").exists()  # the next call must say it again
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip', got 'ignore'"):
        read(root, on_error="ignore")


def test_a_set_of_damaged_files_alone_cannot_be_skipped(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 2 images .* cannot be decoded"):
        read(tmp_path, on_error="skip")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_dead_links_are_not_opened(root: Path) -> None:
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "dog" / "dead.png").symlink_to(root / "nowhere.png")
    (root / "dog" / "device.png").symlink_to("/dev/zero")
    with pytest.raises(
        ValueError, match=r"3 of 8 images .*: cat/pipe\.png \(ValueError: is no regular file\), dog/dead"
    ):
        read(root)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_of_too_many_pixels_or_pages_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (1300, 1000)).save(root / "cat" / "large.png")
    pages = [Image.new("L", (16, 16), level) for level in (10, 20, 30)]
    for suffix in ("tif", "webp", "png"):
        pages[0].save(root / "dog" / f"pages.{suffix}", save_all=True, append_images=pages[1:])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(
        ValueError, match=r"4 of 9 .* has 1300 x 1000 pixels, expected at most 1000000: raise"
    ) as caught:
        read(root)
    assert str(caught.value).count("holds 3 pages, expected one image") == 3
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ValueError, match="3 of 9"):
        read(root)


@pytest.mark.parametrize("missing", [None, float("nan"), "", " "])
def test_a_missing_group_is_refused_before_images_are_decoded(root: Path, missing: object) -> None:
    (root / "cat" / "broken.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"got none for 2 of 6: cat/broken\.png, dog/e\.jpg\."):
        read(root, group=lambda path: {"broken": missing, "e": missing}.get(path.stem, path.stem))


def test_a_tilde_is_the_home_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(read(Path("~/pets"), cache="~/cache")) == 5
    assert (root.parent / "cache").is_dir()


def test_long_lists_are_cut(root: Path) -> None:
    for i in range(14):
        (root / "cat" / f"x{i:02}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"14 of 19 images.*x09\.png .* and 4 more\. Replace"):
        read(root)


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"got '.*nowhere', and it does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="it is a file"):
        read(write(tmp_path / "file.png"))


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match=r"holds no images at any depth: expected files ending in \.jpg"):
        read(tmp_path)


def test_empty_class_folders(root: Path) -> None:
    (root / "eel").mkdir()
    (root / "fox").mkdir()
    with pytest.raises(ValueError, match="got 2 without any: eel, fox"):
        read(root)


def test_class_of_one_image(root: Path) -> None:
    write(root / "eel" / "one.png")
    with pytest.raises(ValueError, match=r"at least two images, got 1 with fewer: 'eel' \(1\)"):
        read(root)


def test_one_class_is_enough_without_conditions(root: Path) -> None:
    data = read(root.parent)
    assert (data.class_names, data.class_counts) == (("pets",), (5,))


def test_loose_images(root: Path) -> None:
    with pytest.raises(ValueError, match=r"got 2 images outside of any: a\.png, b\.JPG.*folder above.*label="):
        read(root / "cat")


def test_splits_are_not_classes(root: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / "all" / split).symlink_to(root)
    with pytest.raises(ValueError, match=r"look like splits\. Point to one of them"):
        read(tmp_path / "all")


def test_unknown_and_absent_class_names(root: Path) -> None:
    with pytest.raises(ValueError, match="while the images have 1 more: dog"):
        read(root, class_names=["cat", "eel"])
    with pytest.raises(ValueError, match=r"'eel' \(0\)"):
        read(root, class_names=["cat", "dog", "eel"])


def test_rules_that_fail_are_listed(root: Path) -> None:
    def label(path: Path) -> str:
        if path.suffix.lower() == ".png":
            raise ValueError("no PNG")
        return path.parts[0]

    with pytest.raises(ValueError, match=r"label raised an error for 2 of 5 paths: cat/a\.png \(no PNG\), dog/d\.PNG"):
        read(root, label=label)
    with pytest.raises(ValueError, match="must return the name of a class, a string, got 1"):
        read(root, label=lambda path: 1)


@pytest.mark.parametrize("shape", [(2, 16, 16), (16, 16), (1, 0, 16), (4, 16, 16)])
def test_image_shape(root: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(1, height, width\) for greyscale or \(3, height, width\) for color"):
        read(root, shape)  # type: ignore[arg-type]


def test_workers(root: Path) -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        read(root, workers=0)


def test_nothing_is_written_without_cache(root: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    read(root)
    assert sorted(tmp_path.rglob("*")) == before


def test_cache(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache" / "images"
    fresh = read(root, cache=cache)
    (file,) = cache.iterdir()
    assert file.stat().st_mode & 0o077 == 0

    def fail(*_: object) -> np.ndarray:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_decode", fail)
        cached = read(root, cache=cache)
    assert cached.fingerprint == fresh.fingerprint
    assert cached.paths == fresh.paths


def test_cache_follows_changes(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = write(root / "cat" / "a.png", value=10)
    assert read(root, cache=cache).images[0].unique().tolist() == [10]
    stamp = path.stat().st_mtime_ns
    write(path, value=20)
    os.utime(path, ns=(stamp + 1_000_000, stamp + 1_000_000))
    assert read(root, cache=cache).images[0].unique().tolist() == [20]
    assert read(root, (1, 8, 8), cache=cache).image_shape == (1, 8, 8)
    assert read(root, (3, 8, 8), cache=cache).image_shape == (3, 8, 8)
    write(root / "dog" / "new.png")
    assert len(read(root, cache=cache)) == 6


@pytest.mark.parametrize("damage", [lambda content: content[:40], lambda content: content[:400] + b"?" + content[401:]])
def test_a_damaged_cache_is_replaced(root: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    fresh = read(root, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    assert read(root, cache=tmp_path / "cache").fingerprint == fresh.fingerprint
    assert len(file.read_bytes()) == len(content)
    assert list((tmp_path / "cache").iterdir()) == [file]


def test_progress_bar(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(root)
    assert capsys.readouterr().err == ""
