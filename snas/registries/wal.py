"""Whether the write-ahead log beside a registry is whole: SQLite skips what it cannot read of it, without a word.

The formats are those of https://sqlite.org/fileformat2.html, section 4, and https://sqlite.org/walformat.html: a log
has a header of 32 bytes, then frames, each a header of 24 bytes and a page; its index, in memory that processes share,
knows how many frames belong to transactions that have ended. Both have the salts of the log in use. Frames behind those
may be whole or not: a process was killed before its transaction had ended.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from pathlib import Path

HEADER, FRAME = 32, 24
MAGIC = 0x377F0682, 0x377F0683  # the second: checksums of big-endian words
MOST_BYTES = 256 * 2**20  # of a log that is looked at


def log_of(path: Path) -> Path:
    """The write-ahead log of the registry at `path`."""
    return path.with_name(path.name + "-wal")


def index_of(path: Path) -> Path:
    """The index of that log."""
    return path.with_name(path.name + "-shm")


@dataclass(frozen=True, slots=True)
class Log:
    """A write-ahead log as it was before SQLite looked at it.

    Attributes:
        content: all bytes; none where it has gone missing.
        readable: whether its header is one.
        salts: of its header.
        committed: how many of its frames belong to transactions that have ended; 0 where nobody knows.
    """

    content: bytes
    readable: bool
    salts: bytes
    committed: int


def look_at(path: Path, *, index: bool) -> Log | None:
    """The log before SQLite opens the registry at `path`; an empty one where one is missing that was in use.

    Args:
        path: of the registry.
        index: whether to read the index too. Not where this process has the registry open: to close a file that one
            has locks on gives them up (https://sqlite.org/howtocorrupt.html, section 2.2), and others cut it short.
    """
    for _ in range(2):
        log = read_log(path, *(_index(path) if index else (0, b"")))  # the log is read last: it only grows
        missing = log is None and index_of(path).exists() and not log_of(path).exists()
        if not missing and (log is None or log.readable):
            return log
        time.sleep(0.05)  # another process may be removing both, or beginning the log anew
    return log or Log(b"", False, b"", 0)


def read_log(path: Path, committed: int = 0, index_salts: bytes = b"") -> Log | None:
    """The log of the registry at `path`; None where there is none, or nothing in it, or too much.

    Args:
        path: of the registry.
        committed: frames of ended transactions as the index has them.
        index_salts: of the log that these are in.
    """
    try:
        file = log_of(path)
        if not HEADER < file.stat().st_size <= MOST_BYTES:
            return None
        content = file.read_bytes()
    except OSError:  # it is gone with the last process that used it, or cannot be read, which opening will tell
        return None
    (magic,), salts = struct.unpack_from(">I", content), content[16:24]
    readable = magic in MAGIC and _checksum(content[:24], big=bool(magic & 1)) == struct.unpack_from(">II", content, 24)
    if not readable:
        return Log(content, False, salts, 0)
    return Log(content, True, salts, committed if index_salts == salts else 0)


def lost_of(before: Log, after: Log | None, seen: int) -> bool:
    """Whether SQLite could not read what a log had.

    Args:
        before: the log before the file was opened.
        after: the log now.
        seen: frames that SQLite knows of.
    """
    if not before.readable:
        return True
    same = after is not None and after.readable and after.salts == before.salts
    return same and seen < before.committed and _is_broken(before)


def _index(path: Path) -> tuple[int, bytes]:
    """Frames of ended transactions and salts of the log, as its index has them; 0 where that cannot be read."""
    try:
        with index_of(path).open("rb") as file:
            first, second = file.read(48), file.read(48)
    except OSError:
        return 0, b""
    if len(second) < 48 or first != second or not first[12]:
        return 0, b""
    return struct.unpack_from("=I", first, 16)[0], first[32:40]


def _is_broken(log: Log) -> bool:
    """Whether the checksums of a log do not hold to its last transaction. Each goes on from the one before."""
    magic, _, page = struct.unpack_from(">III", log.content)
    big, size = bool(magic & 1), FRAME + (page if page > 1 else 65536)
    state = struct.unpack_from(">II", log.content, 24)
    for number in range(log.committed):
        start = HEADER + number * size
        frame = log.content[start : start + size]
        if len(frame) < size:
            return True
        state = _checksum(frame[:8] + frame[FRAME:], state, big=big)
        if state != struct.unpack_from(">II", frame, 16):
            return True
    return False


def _checksum(words: bytes, state: tuple[int, int] = (0, 0), *, big: bool) -> tuple[int, int]:
    first, second = state
    values = struct.unpack(f"{'>' if big else '<'}{len(words) // 4}I", words)
    for one, other in zip(values[::2], values[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second
