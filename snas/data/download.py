"""Fetch published files over the network, with their checksums verified."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from snas.data.base import Progress
from snas.errors import SnasError

CONNECT_SECONDS = 5.0  # for a mirror to accept a connection
READ_SECONDS = 20.0  # between two pieces of a file


@dataclass(frozen=True)
class Published:
    """A file as its publisher offers it.

    Attributes:
        name: of the file, also at every mirror.
        checksum: "algorithm:hexadecimal digits", for example "md5:f68b3c...".
    """

    name: str
    checksum: str

    def matches(self, path: Path) -> bool:
        """Whether the file at `path` is the published one."""
        import pooch

        algorithm, _, digits = self.checksum.partition(":")
        try:
            return bool(pooch.file_hash(str(path), alg=algorithm) == digits)
        except OSError:
            return False


class DownloadError(SnasError):
    """No mirror gave the file; the message has each mirror's reason."""


def cache_folder() -> Path:
    """Folder for data sets: environment variable SNAS_DATA, else the platform's cache folder for snas."""
    import pooch

    return Path(os.environ.get("SNAS_DATA") or pooch.os_cache("snas")).expanduser()


def download(file: Published, *, mirrors: Sequence[str], folder: Path, progress: Progress | None = None) -> Path:
    """Download `file` into `folder`, which is made if need be, and return its path.

    The mirrors are tried once each, in order. What arrives goes to a temporary file, which takes its name only after
    its checksum was found right. A file of this name with the right checksum is not downloaded again.

    Args:
        file: what to download.
        mirrors: addresses of folders, each ending in "/".
        folder: where to put it.
        progress: called with one line when it begins and after each tenth of the file.

    Raises:
        DownloadError: if no mirror gives the file, or it cannot be written.
    """
    import pooch

    reasons = []
    is_new = not folder.exists()
    for mirror in mirrors:
        downloader = pooch.HTTPDownloader(
            progressbar=_Meter(file.name, urlsplit(mirror).netloc, progress) if progress else False,
            chunk_size=1 << 16,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            headers={"Accept-Encoding": "identity"},  # the checksum is that of the compressed file
        )
        try:
            with _quiet(pooch.get_logger()):
                path = pooch.retrieve(
                    mirror + file.name, known_hash=file.checksum, fname=file.name, path=folder, downloader=downloader
                )
            return Path(path)
        except (OSError, ValueError) as error:  # errors of requests are OSErrors, a wrong checksum a ValueError
            reasons.append(f"{urlsplit(mirror).netloc}: {_reason(error)}")
    if is_new:
        with suppress(OSError):
            folder.rmdir()
    raise DownloadError(f"{file.name}: {', '.join(reasons)}")


def _reason(error: Exception) -> str:
    """Say in a few words why a download failed."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.RequestException):
        return "no connection, or it broke"
    if isinstance(error, OSError):
        return f"cannot write there ({error.strerror or str(error).partition(chr(10))[0]})"
    return "wrong checksum"


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Keep the library's own lines off standard error; `progress` says the same."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Meter:
    """Turns the pieces of a file into a line per tenth; has the methods that pooch asks of a progress bar."""

    def __init__(self, name: str, source: str, progress: Progress) -> None:
        self.total = 0  # set from the length that the server announces, 0 if it announces none
        self._name = name
        self._source = source
        self._begun = False
        self._progress = progress
        self._done = 0
        self._tenths = 0

    def update(self, size: int) -> None:
        """Count a piece. Every piece but the last has the full size, so that the sum may pass the total."""
        if not self._begun:
            self._begun = True
            self._progress(f"downloading {self._name} from {self._source}")
        self._done = min(self._done + size, self.total)
        tenths = 10 * self._done // self.total if self.total else 0
        if tenths > self._tenths:
            self._tenths = tenths
            self._progress(f"{self._name}: {10 * tenths} % of {self.total / 1e6:.1f} MB")

    def reset(self) -> None:
        """Called at the end, before the whole is counted once more."""
        self._done = 0

    def close(self) -> None:
        """Called last."""
