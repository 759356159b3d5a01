"""What went wrong with a registry file, in the user's words."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from snas.errors import InputError, SnasError

ROOM = 64 * 1024  # bytes; where less is free, errors of the disk are for want of it


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process holds a lock."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def is_unwritable(error: sqlite3.Error) -> bool:
    """Whether the file, or its folder, must not be written."""
    return _code(error) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether a file of SQLite is not as SQLite wrote it."""
    return _code(error) == sqlite3.SQLITE_CORRUPT


def is_full(error: sqlite3.Error, path: Path) -> bool:
    """Whether there is no room beside the registry at `path`."""
    code = _code(error)
    return code == sqlite3.SQLITE_FULL or (code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _no_room(path))


def is_outside(error: sqlite3.Error) -> bool:
    """Whether the reason is not in the file: a lock, a permission, the disk, memory."""
    outside = sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM
    return is_busy(error) or is_unwritable(error) or _code(error) in outside


def explain(path: Path, error: sqlite3.Error) -> SnasError:
    """Say what went wrong with the registry at `path`, and what to do."""
    text, code = str(error), _code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return InputError(f"{path} is not a snas registry (no SQLite file); name another file with --registry")
    if is_busy(error):
        return SnasError(
            f"registry {path} has been locked by another process for too long; wait for it or end it, then run the "
            "same command"
        )
    if is_full(error, path):
        return SnasError(f"no room to write registry {path} ({text}); make room and run the same command")
    if is_unwritable(error):
        return InputError(f"cannot write registry {path} ({text}); check its permissions")
    if is_damage(error):
        return InputError(
            f"registry {path} is damaged ({text}); snas registry check tells more; go back to a backup (move "
            f"{path.name}-wal and {path.name}-shm away first), or name another file with --registry"
        )
    if code == sqlite3.SQLITE_IOERR:
        return SnasError(f"cannot read or write registry {path} ({text}); check its disk, then run the same command")
    return SnasError(f"registry {path}: {text}")


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary code of an error; 0 where it has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _no_room(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < ROOM
    except OSError:  # the folder is gone, which is another error
        return False
