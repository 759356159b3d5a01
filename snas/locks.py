"""One process at a time works on a study or a leaderboard's entry."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from snas.errors import InputError, SnasError
from snas.registry import Registry


class BusyError(InputError):
    """Another process works on it."""


@contextmanager
def owned(registry: Registry, name: str) -> Iterator[None]:
    """Hold `name` for this process; the lock goes with the process, however it ends.

    Raises:
        BusyError: if another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has none; there two runs of one study are the user's to avoid
        yield
        return
    folder = registry.files / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / name, "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise SnasError(f"cannot write beside registry {registry.path}: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise SnasError(
                    f"cannot lock {file.name} ({error.strerror}); keep the registry on a file system with locks"
                ) from error
            what = name.replace("-", " ", 1)
            raise BusyError(f"{what} is being worked on by another process; wait for it to end") from None
        yield
