"""Downloads, from a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import logging
import struct
import threading
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pooch
import pytest

from snas.data import download as download_module
from snas.data import idx
from snas.data.cifar import CIFAR10
from snas.data.download import DownloadError, Published, cache_folder, download
from snas.errors import InputError

CLOSED = "http://127.0.0.1:9/"  # a port that nothing listens on
CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
FILE = Published("thing.bin", f"md5:{MD5}")


class Mirror:
    """A server of some files that counts what it was asked for."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.release = threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.lstrip("/")
                mirror.asked[name] += 1
                if name == "silent":
                    mirror.release.wait(10)
                    return
                content = mirror.files.get(name)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self):
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def mirror():
    server = Mirror()
    yield server
    server.close()


def test_a_file_arrives_with_progress(mirror, tmp_path):
    mirror.files["thing.bin"] = CONTENT
    lines: list[str] = []
    path = download(FILE, mirrors=[mirror.url], folder=tmp_path / "new", progress=lines.append)
    assert path == tmp_path / "new" / "thing.bin"
    assert path.read_bytes() == CONTENT
    assert lines[0] == f"downloading thing.bin from {mirror.url.split('/')[2]}"
    assert lines[-1] == "thing.bin: 100 % of 0.3 MB"
    assert len(set(lines)) == len(lines)
    assert [entry.name for entry in path.parent.iterdir()] == ["thing.bin"]


def test_a_file_that_is_there_is_not_downloaded_again(mirror, tmp_path):
    mirror.files["thing.bin"] = CONTENT
    for _ in range(2):
        download(FILE, mirrors=[mirror.url], folder=tmp_path)
    assert mirror.asked == {"thing.bin": 1}


def test_the_next_mirror_helps_out(mirror, tmp_path):
    mirror.files["thing.bin"] = CONTENT
    path = download(FILE, mirrors=[CLOSED, f"{mirror.url}nowhere/", mirror.url], folder=tmp_path)
    assert path.read_bytes() == CONTENT
    assert mirror.asked == {"nowhere/thing.bin": 1, "thing.bin": 1}


def test_each_mirrors_reason_is_told_and_nothing_stays_behind(mirror, tmp_path):
    mirror.files["wrong/thing.bin"] = CONTENT[:-1] + b"x"
    mirrors = [f"{mirror.url}wrong/", mirror.url, CLOSED]
    with pytest.raises(DownloadError) as caught:
        download(FILE, mirrors=mirrors, folder=tmp_path / "new")
    host = mirror.url.split("/")[2]
    assert str(caught.value) == (
        f"thing.bin: {host}: wrong checksum, {host}: HTTP status 404, 127.0.0.1:9: no connection, or it broke"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_download_does_not_replace_what_is_there(mirror, tmp_path):
    (tmp_path / "thing.bin").write_bytes(b"old")
    mirror.files["thing.bin"] = b"damaged"
    with pytest.raises(DownloadError, match="wrong checksum"):
        download(FILE, mirrors=[mirror.url], folder=tmp_path)
    assert (tmp_path / "thing.bin").read_bytes() == b"old"


def test_a_silent_mirror_is_given_up(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "READ_SECONDS", 0.2)
    with pytest.raises(DownloadError, match=r"silent: .*no answer in time"):
        download(Published("silent", FILE.checksum), mirrors=[mirror.url], folder=tmp_path)


def test_a_folder_that_cannot_be_written(mirror, tmp_path):
    mirror.files["thing.bin"] = CONTENT
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="cannot write there"):
        download(FILE, mirrors=[mirror.url], folder=tmp_path / "file")


def test_the_librarys_log_is_left_as_it_was(mirror, tmp_path, capfd):
    mirror.files["thing.bin"] = CONTENT
    level = pooch.get_logger().level
    download(FILE, mirrors=[mirror.url], folder=tmp_path)
    assert pooch.get_logger().level == level != logging.ERROR
    assert capfd.readouterr() == ("", "")


def test_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SNAS_DATA", str(tmp_path / "there"))
    assert cache_folder() == tmp_path / "there"
    monkeypatch.delenv("SNAS_DATA")
    assert cache_folder() == pooch.os_cache("snas")


def published(mirror):
    """A tiny data set in MNIST's files, offered by `mirror`."""
    arrays = {
        "train-images-idx3-ubyte.gz": np.zeros((2, 28, 28), np.uint8),
        "train-labels-idx1-ubyte.gz": np.array([1, 0], np.uint8),
        "t10k-images-idx3-ubyte.gz": np.ones((1, 28, 28), np.uint8),
        "t10k-labels-idx1-ubyte.gz": np.array([7], np.uint8),
    }
    files = []
    for name, array in arrays.items():
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        mirror.files[name] = gzip.compress(header + array.tobytes(), mtime=0)
        files.append(Published(name, f"md5:{hashlib.md5(mirror.files[name], usedforsecurity=False).hexdigest()}"))
    return replace(idx.MNIST, files=tuple(files), mirrors=(mirror.url,))


@pytest.mark.parametrize("explicit", [False, True])
def test_a_data_set_is_downloaded_once_into_a_folder_of_its_name(mirror, tmp_path, monkeypatch, explicit):
    monkeypatch.setenv("SNAS_DATA", str(tmp_path))
    source = published(mirror)
    for _ in range(2):
        data = idx.load_idx(source, tmp_path if explicit else None, download=True, progress=None)
        assert data.test_y.tolist() == [7]
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(mirror.files)
    assert set(mirror.asked.values()) == {1}


def test_an_interrupted_download_is_completed_where_it_began(mirror, tmp_path):
    source = published(mirror)
    del mirror.files["t10k-labels-idx1-ubyte.gz"]
    with pytest.raises(InputError, match="cannot be downloaded"):
        idx.load_idx(source, tmp_path, download=True, progress=None)
    published(mirror)
    assert idx.load_idx(source, tmp_path, download=True, progress=None).test_y.tolist() == [7]
    assert mirror.asked["train-images-idx3-ubyte.gz"] == 1


def test_nothing_is_downloaded_without_permission(mirror, tmp_path):
    with pytest.raises(InputError, match=r"lacks train-images-idx3-ubyte.gz"):
        idx.load_idx(published(mirror), tmp_path, download=False, progress=None)
    assert not mirror.asked
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_one_line_says_what_to_do(tmp_path):
    from snas.data.cifar import load_cifar

    source = replace(CIFAR10.source, mirrors=(CLOSED,))
    with pytest.raises(InputError) as caught:
        load_cifar(replace(CIFAR10, source=source), tmp_path, download=True, progress=None)
    assert str(caught.value) == (
        f"dataset 'cifar10' is not in {tmp_path} and cannot be downloaded (cifar-10-binary.tar.gz: 127.0.0.1:9: "
        "no connection, or it broke); put cifar-10-binary.tar.gz into a folder and give it as --data-dir"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_checksum_is_one_line_too(mirror, tmp_path):
    source = published(mirror)
    mirror.files["train-labels-idx1-ubyte.gz"] += b"x"
    with pytest.raises(
        InputError, match=r"train-labels-idx1-ubyte.gz: .*wrong checksum\); put .* --data-dir"
    ) as caught:
        idx.load_idx(source, tmp_path, download=True, progress=None)
    assert "\n" not in str(caught.value)
