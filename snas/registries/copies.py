"""Copies of a registry: consistent while others write to it, written beside and renamed."""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from snas.errors import SnasError
from snas.registries.explain import explain, is_outside
from snas.registries.wal import index_of, log_of


def left_beside(path: Path) -> list[Path]:
    """Logs and journals beside the name of a registry: SQLite plays them into whatever file has that name."""
    journal = path.with_name(f"{path.name}-journal")
    found = [file for file in (log_of(path), index_of(path)) if os.path.lexists(file)]
    with suppress(FileNotFoundError):
        if journal.stat().st_size:  # an empty one is none
            found.append(journal)
    return found


def free_name(path: Path) -> Path:
    """`path`, or with .2, .3 ... behind it where there is a file of that name, or the log of one, already."""
    number, chosen = 1, path
    while os.path.lexists(chosen) or left_beside(chosen):
        number += 1
        chosen = path.with_name(f"{path.name}.{number}")
    return chosen


def copy_into(connection: sqlite3.Connection, target: Path, *, replace: bool = False) -> Path:
    """Write all that a connection sees to a file of its own, on disk when this returns.

    Args:
        connection: which is not in a transaction; others may write meanwhile.
        target: the file.
        replace: whether a file of that name is replaced, and its SHA-256 removed; not before the copy is whole.

    Returns:
        The target.

    Raises:
        SnasError: if there is no room, the copy is not whole, or there is such a file; nothing is left then.
    """
    part = target.with_name(f".snas-{secrets.token_hex(8)}.part")
    try:
        try:
            with _may_write(connection):
                connection.execute("VACUUM INTO ?", (os.fspath(part),))
            with closing(sqlite3.connect(part)) as copy:
                copy.execute("PRAGMA journal_mode = WAL")  # now, so that to look at it later does not change it
                whole = [row[0] for row in copy.execute("PRAGMA integrity_check(1)")] == ["ok"]
        except sqlite3.Error as error:
            raise explain(target if is_outside(error) else _file_of(connection), error) from error
        if not whole:
            raise SnasError(f"the copy {target} would be damaged; snas registry check tells of what")
        _sync(part)
        _rename(part, target, replace=replace)
        if os.name == "posix":  # elsewhere folders cannot be synced
            _sync(target.parent)
    except OSError as error:
        raise SnasError(f"cannot write {target}: {error.strerror}") from error
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):
            part.with_name(part.name + ending).unlink(missing_ok=True)
    return target


def seal_of(path: Path) -> Path:
    """The file that has a copy's SHA-256, as `sha256sum -c` reads it."""
    return path.with_name(f"{path.name}.sha256")


def seal(path: Path) -> None:
    """Write the SHA-256 of a copy beside it."""
    part = path.with_name(f".snas-{secrets.token_hex(8)}.part")
    try:
        part.write_text(f"{digest_of(path)}  {path.name}\n", encoding="utf-8")
        _sync(part)
        os.replace(part, seal_of(path))
    except OSError as error:
        raise SnasError(f"cannot write {seal_of(path)}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def unseal(path: Path) -> None:
    """Remove the SHA-256 of a copy that is going to be written to; gone for good when this returns.

    Raises:
        SnasError: if it cannot be removed.
    """
    for place in {seal_of(path), seal_of(path.resolve())}:
        try:
            place.unlink()
            if os.name == "posix":
                _sync(place.parent)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SnasError(
                f"cannot remove {place}, which does not hold once {path.name} changes: {error.strerror}"
            ) from error


def broken_seal(path: Path) -> str | None:
    """What is wrong with a file that has its SHA-256 beside it; None where nothing is, or there is none."""
    try:
        told = seal_of(path).read_bytes().split(b" ")[0]
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"its checksum {seal_of(path).name} cannot be read: {error.strerror}"
    try:
        if told == digest_of(path).encode():
            return None
    except sqlite3.Error as error:
        return f"it is damaged: {error}"
    return f"it is not what {seal_of(path).name} says: damaged, or written to since the backup"


def digest_of(path: Path) -> str:
    """The SHA-256 of a registry file, as 64 hexadecimal digits.

    Raises:
        sqlite3.Error: if it is no SQLite file.
    """
    # By way of SQLite: to open and close a file oneself would give up this process's locks on it.
    with closing(sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1", uri=True)) as connection:
        return hashlib.sha256(connection.serialize()).hexdigest()


def _rename(part: Path, target: Path, *, replace: bool) -> None:
    if replace:
        seal_of(target).unlink(missing_ok=True)
        os.replace(part, target)
        return
    try:
        os.link(part, target)  # unlike renaming, this never takes the place of a file that has just been made
    except FileExistsError:
        raise SnasError(f"{target} exists already; nothing was written") from None
    except OSError:  # a file system without links
        if target.exists():
            raise SnasError(f"{target} exists already; nothing was written") from None
        os.rename(part, target)


@contextmanager
def _may_write(connection: sqlite3.Connection) -> Iterator[None]:
    """Let one that may only read write another file."""
    only = connection.execute("PRAGMA query_only").fetchone()[0]
    connection.execute("PRAGMA query_only = OFF")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA query_only = {only}")


def _file_of(connection: sqlite3.Connection) -> Path:
    return Path(connection.execute("PRAGMA database_list").fetchone()[2])


def _sync(path: Path) -> None:
    """Wait until a file, or what a folder has, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
