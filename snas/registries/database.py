"""A registry as a file: opened, brought up to date, locked and unlocked, written in transactions.

Whatever goes wrong with a file (a full disk, another process that holds it, missing permissions, a network, someone who
deletes it) is met here, and told in a line.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from snas.errors import InputError, SnasError
from snas.registries import wal
from snas.registries.copies import copy_into, free_name, left_beside, unseal
from snas.registries.explain import explain, is_busy, is_full, is_unwritable
from snas.registries.filesystems import network_file_system
from snas.schema import APPLICATION_ID, MIGRATIONS

log = logging.getLogger("snas")

PATIENCE = 300.0  # seconds that a lock of another process is waited for; one that is stopped for a minute is no reason
TRY = 5.0  # seconds of one attempt; Ctrl-C is answered in between
WORTH_A_WORD = 20.0  # seconds of waiting after which the user hears of it
_OPENING = threading.Lock()  # while a thread looks at files, no other opens them
_OPEN: Counter[str] = Counter()  # how many connections this process has to a file
MOST_LOG_BYTES = 16 * 2**20  # that the write-ahead log keeps after a reader held it back


class Database:
    """A registry file, opened for reading and writing; made if there is none.

    Raises:
        InputError: if the file is no snas registry, was written by a newer version, or cannot be opened.
        SnasError: if another process holds it for too long, or the disk is full.
    """

    def __init__(self, path: Path | str, *, create: bool = True, snapshot: bool = False, upgrade: bool = True) -> None:
        """Open it.

        Args:
            path: of the file.
            create: whether to make it if there is none. Without this, one that cannot be written is
                read.
            snapshot: whether to read a copy of it in memory, brought up to date there; the file is not changed.
            upgrade: whether a file of an earlier format is brought up to date.
        """
        self.path = Path(path)
        self._upgrade = upgrade
        self.before_commit: Callable[[], None] | None = None  # what is to be written with every transaction
        self._place: str | None = None  # where it is noted as open
        self._identity: tuple[int, int] | None = None  # of the file; None of a copy in memory
        self._may_be_sealed = not snapshot  # as a backup is that nobody has written to
        self._lost: str | None = None  # what is told since the file went away
        self._require_openable(create and not snapshot)
        try:
            if snapshot:
                self._db = self._copy_in_memory()
                return
            with _OPENING:
                before = wal.look_at(self.path, index=not self._is_open_here())
                self._db = self._connect(os.fspath(self.path))
                self._note_open()
            try:
                self._open()
            except sqlite3.Error as error:
                if create or not self._is_readable(error):
                    raise
                self.close()
                self._db = self._copy_in_memory()
                return
            found = self.path.stat()
            self._identity = found.st_dev, found.st_ino
            self._tell_of_loss(self._db, before)
        except sqlite3.Error as error:
            self.close()
            raise self._explain(error) from error
        except BaseException:
            self.close()
            raise

    @property
    def connection(self) -> sqlite3.Connection:
        """SQLite's connection to it."""
        return self._db

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_db"):
            self._db.close()
        if self._place is not None:
            _OPEN[self._place] -= 1
            self._place = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Store all that is stored inside, or nothing of it if an error comes between.

        Raises:
            SnasError: if it cannot be stored.
        """
        if self._db.in_transaction:
            yield
            return
        try:
            self._patiently("BEGIN IMMEDIATE")
            self._require_same_file()
            before = self._db.total_changes
            yield
            if self.before_commit is not None:
                self.before_commit()
            if self._db.total_changes > before:
                self._unseal()
            self._patiently("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._explain(error) from error
        except BaseException:
            self._roll_back()
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See one state of the file in all queries inside, whatever others write meanwhile. Keep it short."""
        if self._db.in_transaction:
            yield
            return
        try:
            self._patiently("BEGIN")
            yield
        except sqlite3.Error as error:
            raise self._explain(error) from error
        finally:
            self._roll_back()

    def query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Execute a statement; returns the rows that it gives."""
        try:
            return self._patiently(sql, values)
        except sqlite3.Error as error:
            raise self._explain(error) from error

    _query = query  # as the registry's own methods call it

    # Opening

    def _require_openable(self, create: bool) -> None:
        if "\0" in str(self.path):
            raise InputError(f"cannot open registry {str(self.path)!r}: it has a NUL character; give another name")
        if not self.path.exists() and not create:
            raise InputError(f"no registry at {self.path}; run snas search first or name another with --registry")
        if len(os.fsencode(self.path.name)) > 240:
            raise InputError(
                f"registry {self.path.name[:40]}... has a name of {len(self.path.name)} characters; at most 240"
            )
        if not self.path.parent.is_dir():
            raise InputError(f"cannot open registry {self.path}: folder {self.path.parent} does not exist")
        if self.path.is_dir():
            raise InputError(f"cannot open registry {self.path}: it is a folder; name a file")

    def _is_open_here(self) -> bool:
        """Whether this process has the file open."""
        return _OPEN[os.path.realpath(self.path)] > 0

    def _note_open(self) -> None:
        self._place = os.path.realpath(self.path)
        _OPEN[self._place] += 1

    @staticmethod
    def _connect(place: str, *, uri: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(place, timeout=TRY, isolation_level=None, uri=uri)
        connection.row_factory = sqlite3.Row
        return connection

    def _open(self) -> None:
        """Check that the file is ours and bring its tables up to date."""
        version = self._require_ours()
        self._choose_journal()
        self._patiently("PRAGMA synchronous = FULL")
        self._patiently(f"PRAGMA journal_size_limit = {MOST_LOG_BYTES}")
        self._patiently("PRAGMA foreign_keys = ON")
        if self._upgrade and version < len(MIGRATIONS):
            self._migrate(backup=True)

    def _require_ours(self) -> int:
        """The format of the file, which is to be one that we know."""
        application = self._patiently("PRAGMA application_id")[0][0]
        version = int(self._patiently("PRAGMA user_version")[0][0])
        empty = self._patiently("SELECT count(*) FROM sqlite_master")[0][0] == 0
        if application != APPLICATION_ID and not empty:
            raise InputError(f"{self.path} is another program's SQLite file; name another file with --registry")
        if version > len(MIGRATIONS):
            raise InputError(
                f"{self.path} was written by a newer snas (format {version}; this one knows {len(MIGRATIONS)}); upgrade"
            )
        return version

    def _choose_journal(self) -> None:
        """Write ahead where all processes share memory; else with a journal that is rolled back, which is slower."""
        mode = self._patiently("PRAGMA journal_mode")[0][0]
        network = network_file_system(self.path)
        if network is None and mode == "wal":
            return
        reason = f"it is on a network file system ({network})"
        if network is None:
            try:
                if self._patiently("PRAGMA journal_mode = WAL")[0][0] == "wal":
                    return
            except sqlite3.OperationalError as error:
                if is_busy(error) or is_unwritable(error):
                    raise
            reason = "its file system does not share memory between processes"
        if mode == "wal":
            self._unseal()  # the file's header changes
        if self._patiently("PRAGMA journal_mode = TRUNCATE")[0][0] != "truncate":
            raise SnasError(
                f"registry {self.path}: {reason}, and other processes hold its write-ahead log; end them, and run this "
                "again"
            )
        _tell_once(f"registry {self.path} is written without a write-ahead log, which is slower: {reason}")

    def _migrate(self, *, backup: bool) -> None:
        # Tables are copied, and references to them must not be followed meanwhile; a transaction cannot say this.
        self._patiently("PRAGMA foreign_keys = OFF")
        kept: list[Path] = []
        try:
            with self.together():
                # Read under the lock: another process may have brought the file up to date while we waited for it.
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
                if backup and 0 < version < len(MIGRATIONS):
                    kept.append(self._back_up(version))
                for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
                    for statement in filter(str.strip, script.split(";\n")):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {number}")
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._unseal()
        except BaseException:
            for path in kept:  # the file is as it was
                path.unlink(missing_ok=True)
            raise
        self._patiently("PRAGMA foreign_keys = ON")

    def _back_up(self, version: int) -> Path:
        """Copy the file as it is before a migration. A second connection reads while this one holds the lock."""
        with closing(self._connect(os.fspath(self.path))) as reader:
            return copy_into(reader, free_name(self.path.with_name(f"{self.path.name}.format-{version}.bak")))

    def _copy_in_memory(self) -> sqlite3.Connection:
        """Read the file as it is now, without writing to it, and bring the copy up to date."""
        copy = self._connect(":memory:")
        self._db = copy
        self._may_be_sealed = False
        with _OPENING:
            before = wal.look_at(self.path, index=not self._is_open_here())
            self._note_open()
        ways = ["mode=rw", "mode=ro"]
        if before is None:  # without a log the file has everything
            ways.append("mode=ro&immutable=1")
        for way in ways:
            try:
                with closing(self._connect(f"file:{quote(os.path.abspath(self.path))}?{way}", uri=True)) as source:
                    source.backup(copy)
                    if way == "mode=rw":  # closing it may put an end to the log
                        self._tell_of_loss(source, before)
                break
            except sqlite3.OperationalError as error:
                if way == ways[-1] or not self._is_readable(error):
                    raise
        if self._require_ours() < len(MIGRATIONS) and self._upgrade:
            self._migrate(backup=False)
        copy.execute("PRAGMA query_only = ON")
        return copy

    def _is_readable(self, error: sqlite3.Error) -> bool:
        """Whether the file may be read all the same: to open it SQLite writes beside it."""
        return is_unwritable(error) or is_full(error, self.path)

    def _tell_of_loss(self, connection: sqlite3.Connection, before: wal.Log | None) -> None:
        """Say so where SQLite could not read all of the log that was there, and keep that."""
        if before is None:
            return
        seen = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
        if seen < 0 or not wal.lost_of(before, wal.read_log(self.path), seen):
            return
        where = "it is gone"
        if before.content:
            kept = free_name(self.path.with_name(f"{self.path.name}-wal.damaged"))
            kept.write_bytes(before.content)
            where = f"it is kept as {kept.name}"
        log.warning(
            "registry %s: the write-ahead log beside it could not be read to its end (%s), and the last results may be "
            "missing; searches train their epochs again",
            self.path,
            where,
        )

    # Writing

    def _patiently(self, sql: str, values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        """Execute a statement; one that meets a lock of another process is tried again for a while."""
        began, told = time.monotonic(), False
        while True:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                waited = time.monotonic() - began
                if not is_busy(error) or waited >= PATIENCE:
                    raise
                if waited >= WORTH_A_WORD and not told:
                    told = True
                    log.warning("registry %s is locked by another process; waiting for it", self.path)
                time.sleep(0.02)  # some locks are refused at once

    def _roll_back(self) -> None:
        """End the transaction if there is still one: a full disk may have ended it already."""
        if self._db.in_transaction:
            with suppress(sqlite3.Error):  # the error that led here is the one to tell
                self._db.execute("ROLLBACK")

    def _unseal(self) -> None:
        """Remove the SHA-256 beside a backup before it changes: it would be called damaged, and its results refused."""
        if self._may_be_sealed:
            unseal(self.path)
            self._may_be_sealed = False

    def _require_same_file(self) -> None:
        """Raise SnasError if the file was deleted or replaced since it was opened: results would go nowhere.

        What the open file still has is saved beside it, once. Its log must not be there when that is moved back: SQLite
        would play it into a file that it does not belong to.
        """
        if self._identity is None:
            return
        if self._lost is not None:
            raise SnasError(self._lost)
        try:
            found = self.path.stat()
            if (found.st_dev, found.st_ino) == self._identity:
                return
            what = "replaced by another file"
        except FileNotFoundError:
            what = "deleted or moved away"
        except OSError as error:
            raise SnasError(f"registry {self.path} cannot be reached any more: {error.strerror}") from error
        self._roll_back()
        saved = copy_into(self._db, free_name(self.path.with_name(f"{self.path.name}.rescued")))
        if not os.path.lexists(self.path):
            _put_aside(left_beside(self.path))
        first = " and ".join(file.name for file in left_beside(self.path))
        self._lost = (
            f"registry {self.path} was {what} while this command used it; all that it had is in {saved}: "
            f"{f'remove {first}, ' if first else ''}move that back and run the same command"
        )
        raise SnasError(self._lost)

    def _explain(self, error: sqlite3.Error) -> SnasError:
        return explain(self.path, error)


def _put_aside(files: list[Path]) -> None:
    """Rename the log of a file that is gone. Who has it open still does; SQLite removes no log of a file that moved."""
    for file in files:
        with suppress(OSError):  # it stays, then, and is named
            file.rename(free_name(file.with_name(f"{file.name}.orphaned")))


@cache
def _tell_once(text: str) -> None:
    log.warning("%s", text)
