"""Write a file all or nothing."""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

from snas.errors import InputError, SnasError


def write_export(content: str | bytes, path: Path) -> None:
    """Write text (as UTF-8) or bytes to `path`, all or nothing: into a new file beside it, which then takes its name.

    Raises:
        InputError: if the folder is missing or cannot be written, or `path` is a folder, a link or a device.
        SnasError: if writing fails half-way, for example on a full disk; an older file is then untouched.
    """
    beside = path.parent / f".snas-{uuid.uuid4().hex}.part"
    try:
        _require_ordinary(path)
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileNotFoundError:
        raise InputError(f"cannot write {str(path)!r}: no folder {str(path.parent)!r}; make it first") from None
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}; choose another place") from None
    try:
        with beside.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise SnasError(f"cannot write {str(path)!r}: {error.strerror}; nothing was changed") from None
    finally:
        beside.unlink(missing_ok=True)


def _require_ordinary(path: Path) -> None:
    """Refuse a name that holds, or could only hold, something other than a file that may be replaced."""
    if "\0" in str(path):
        raise InputError(f"cannot write {str(path)!r}: it has a NUL character; give another name")
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise InputError(f"cannot write {str(path)!r}: it is a folder, link or device; give the name of a file")
    if not os.access(path, os.W_OK):
        raise InputError(f"cannot write {str(path)!r}: it is write-protected; choose another name")
