from __future__ import annotations

import hashlib
import http.server
import io
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from condgan.data import MedMNIST, download_medmnist, medmnist

COUNTS = {"train": 8, "val": 4, "test": 6}


def arrays(shape: tuple[int, ...] = (28, 28), num_classes: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    result = {}
    for split, count in COUNTS.items():
        result[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        result[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % num_classes)[:, None]
    return result


def save(path: Path, **changes: np.ndarray | None) -> Path:
    content = {key: value for key, value in {**arrays(), **changes}.items() if value is not None}
    np.savez(path, **content)
    return path


@pytest.mark.parametrize(("split", "count"), COUNTS.items())
def test_greyscale(tmp_path: Path, split: str, count: int) -> None:
    data = MedMNIST(save(tmp_path / "pneumoniamnist_28.npz"), split)  # type: ignore[arg-type]
    assert data.images.shape == (count, 1, 28, 28)
    assert np.array_equal(data.images[:, 0].numpy(), arrays()[f"{split}_images"])
    assert data.class_names == ("normal", "pneumonia")
    assert data.attribution is not None
    assert data.source == f"pneumoniamnist_28, official {split} split"
    assert data.groups is None


def test_colour_and_other_names(tmp_path: Path) -> None:
    content = arrays((20, 24, 3))
    data = MedMNIST(save(tmp_path / "othermnist.npz", **content), "test", class_names=["x", "y"])
    assert data.image_shape == (3, 20, 24)
    assert np.array_equal(data.images[1, 2].numpy(), content["test_images"][1, :, :, 2])
    assert data.class_names == ("x", "y")
    assert data.attribution is None
    assert MedMNIST(tmp_path / "othermnist.npz").class_names == ("0", "1")


def test_classes_are_counted_over_all_splits(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", train_labels=np.array([[0], [1], [2], [0], [1], [2], [0], [1]]))
    with pytest.raises(ValueError, match=r"every class needs at least two samples, got 2 \(0\)"):
        MedMNIST(path, "test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": None, "val_images": None}, "lacks the arrays val_images, test_labels"),
        ({"train_labels": np.zeros((8, 14), dtype=np.uint8)}, r"14 labels for each image \(as ChestMNIST has\)"),
        ({"train_labels": np.zeros((8, 1))}, r"integers of the shape \(N, 1\), got float64"),
        ({"train_images": np.zeros((8, 28, 28), dtype=np.float32)}, "must be uint8, got float32"),
        ({"train_images": np.zeros((8, 28, 28, 28), dtype=np.uint8)}, "Volumes are not supported"),
        ({"train_images": np.zeros((7, 28, 28), dtype=np.uint8)}, r"labels must have the shape \(7,\)"),
        ({"train_labels": np.array([[-1], [0]] * 4)}, r"\[0, 2\), got values in \[-1, 0\]"),
        ({"train_labels": np.array([[2], [0]] * 4)}, r"\[0, 2\), got values in \[0, 2\]"),
    ],
)
def test_content_that_does_not_fit(tmp_path: Path, changes: dict[str, np.ndarray | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MedMNIST(save(tmp_path / "pneumoniamnist.npz", **changes))


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a published MedMNIST file"):
        MedMNIST(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="is not a published MedMNIST"):
        MedMNIST(tmp_path / "text.npz")
    whole = save(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a published MedMNIST"):
        MedMNIST(tmp_path / "cut.npz")
    middle = len(whole) // 3
    (tmp_path / "flipped.npz").write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    with pytest.raises(ValueError, match=r"flipped\.npz' is damaged"):
        MedMNIST(tmp_path / "flipped.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(ValueError, match="got a single array"):
        MedMNIST(tmp_path / "single.npy")
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'dev'"):
        MedMNIST(tmp_path / "whole.npz", "dev")  # type: ignore[arg-type]


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medmnist, "_SMALL", 2**20)
    zeros = np.zeros((2**4, 2**10, 2**10), dtype=np.uint8)
    np.savez_compressed(tmp_path / "bomb.npz", **{**arrays(), "train_images": zeros})
    with pytest.raises(ValueError, match=r"more than 100 times its size, got 167\d{5} bytes in a file of \d{5}\."):
        MedMNIST(tmp_path / "bomb.npz")
    save(tmp_path / "labels.npz", test_labels=np.array([[10**12], [0]] * 3))
    with pytest.raises(ValueError, match="without gaps, got 1000000000000 among those of 18 images"):
        MedMNIST(tmp_path / "labels.npz")
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as archive:
        for name, array in arrays().items():
            with archive.open(f"{name}.npy", "w") as member:
                shape = (2**50, 28, 28) if name == "train_images" else array.shape
                header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                member.write(array.tobytes())
    with pytest.raises(ValueError, match=r"header\.npz' is damaged"):
        MedMNIST(tmp_path / "header.npz")


def test_one_changed_byte_is_found(tmp_path: Path) -> None:
    path = save(tmp_path / "mnist.npz")
    content = bytearray(path.read_bytes())
    place = content.find(b"(8, 28, 28)")
    content[place : place + 11] = b"(7, 28, 28)"  # NumPy reads that many images, and never gets to the checksum
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mnist.npz' is damaged: train_images.npy differs from its checksum"):
        MedMNIST(path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "pickle.npz", train_labels=np.array([{"a": 1}] * 8, dtype=object))
    with pytest.raises(ValueError, match=r"allow_pickle|Object arrays"):
        MedMNIST(path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve a small file under the name of the published one; yield the paths that were asked for."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays((64, 64)))
    content, asked = buffer.getvalue(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(medmnist, "_URL", f"http://127.0.0.1:{service.server_address[1]}/{{file}}?download=1")
    monkeypatch.setitem(medmnist._MD5, "pneumoniamnist_64.npz", hashlib.md5(content).hexdigest())
    yield asked
    service.shutdown()
    thread.join()
    service.server_close()


def test_download_verifies_and_is_reused(server: list[str], tmp_path: Path) -> None:
    path = download_medmnist(folder=tmp_path / "new")
    assert path == tmp_path / "new" / "pneumoniamnist_64.npz"
    assert list(path.parent.iterdir()) == [path]
    assert len(MedMNIST(path)) == 8
    fetched = len(server)
    assert set(server) == {"/pneumoniamnist_64.npz?download=1"}
    assert download_medmnist("PneumoniaMNIST", 64, folder=tmp_path / "new") == path
    assert len(server) == fetched
    path.write_bytes(b"damaged")
    assert len(MedMNIST(download_medmnist(folder=tmp_path / "new"))) == 8
    assert len(server) == 2 * fetched


def test_a_wrong_checksum_leaves_nothing_behind(
    server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(medmnist._MD5, "pneumoniamnist_64.npz", "0" * 32)
    with pytest.raises(OSError, match=r"must have the MD5 checksum 0000.* Try again"):
        download_medmnist(folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert server


def test_without_a_network_it_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(ConnectionError, match=r"zenodo.* cannot be fetched: .*not known.* Fetch it by hand"):
        download_medmnist(folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_and_sizes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a size among 28, 64, 128, 224, got 'pneumoniamnist' and 32"):
        download_medmnist(size=32, folder=tmp_path)
    with pytest.raises(ValueError, match="got 'chestmnist' and 64"):
        download_medmnist("chestmnist", folder=tmp_path)
