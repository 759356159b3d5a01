"""A copy of a registry, taken while searches write to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from snas.errors import InputError
from snas.registries.copies import copy_into, left_beside, seal, seal_of
from snas.registries.database import Database

ENDINGS = "-wal", "-shm", "-journal"


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy that was made: of which registry, in which file, of how many bytes and studies."""

    registry: Path
    backup: Path
    bytes: int
    studies: int


def back_up(path: Path | str, target: Path | str, *, force: bool = False) -> Backup:
    """Copy a registry, of whatever format, to a file that is whole or not there; its SHA-256 is written beside it.

    Args:
        path: the registry.
        target: the copy.
        force: whether a file of that name is replaced.

    Raises:
        InputError: if there is no such registry, or there is such a file, or it cannot be one.
        SnasError: if there is no room, or the registry is damaged; nothing is written then.
    """
    target = Path(target)
    with Database(path, create=False, upgrade=False) as opened:
        _require_target(opened.path, target, force)
        copy_into(opened.connection, target, replace=force)
    seal(target)
    with Database(target, create=False, snapshot=True) as copy:
        studies = copy.query("SELECT count(*) FROM studies")[0][0]
    return Backup(Path(path), target, target.stat().st_size, studies)


def _require_target(path: Path, target: Path, force: bool) -> None:
    if target.is_dir():
        raise InputError(f"cannot back up to {target}: it is a folder; name a file")
    if not target.parent.is_dir():
        raise InputError(f"cannot back up to {target}: folder {target.parent} does not exist")
    if len(target.name.encode()) > 240:
        raise InputError(f"cannot back up to {target.name[:40]}...: a name of more than 240 characters")
    if target.name.endswith(ENDINGS):
        raise InputError(
            f"cannot back up to {target}: SQLite takes names that end in {', '.join(ENDINGS)} for logs; name another"
        )
    left = " and ".join(file.name for file in left_beside(target))
    if not target.exists():
        if left:  # it would be played into the copy as soon as that is opened
            raise InputError(
                f"cannot back up to {target}: {left} of an earlier file lies there; move that away or name another file"
            )
    elif target.samefile(path):
        raise InputError(f"cannot back up {path} to itself; name another file")
    for file in (target, seal_of(target)):
        if os.path.lexists(file) and not force:
            raise InputError(f"{file} exists already; name another file, or replace it with --force")
    if left:
        raise InputError(f"{target} is in use ({left} beside it); name another file")
