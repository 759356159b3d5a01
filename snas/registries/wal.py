"""Whether the write-ahead log beside a registry is whole: SQLite skips what it cannot read of it, without a word.

The format is that of https://sqlite.org/fileformat2.html, section 4: a header of 32 bytes, then frames, each a header
of 24 bytes and a page. Frames of the log in use have the salts of its header; a frame that ends a transaction says how
many pages the file has.
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


@dataclass(frozen=True, slots=True)
class Log:
    """A write-ahead log as it was before SQLite looked at it.

    Attributes:
        content: all bytes; none where it has gone missing.
        readable: whether its header is one.
        salts: of its header.
        committed: number of the last frame that ends a transaction, 1, 2 ...; 0 where there is none.
    """

    content: bytes
    readable: bool
    salts: bytes
    committed: int


def look_at(path: Path) -> Log | None:
    """The log before SQLite opens the registry at `path`; an empty one where one is missing that was in use."""
    for last in (False, True):
        log = read_log(path)
        in_use = path.with_name(path.name + "-shm").exists()
        if log is not None or not in_use or log_of(path).exists():
            return log
        if not last:
            time.sleep(0.05)  # the last process that used it may be removing both
    return Log(b"", False, b"", 0)


def read_log(path: Path) -> Log | None:
    """The log of the registry at `path`; None where there is none, or nothing in it, or too much."""
    try:
        file = log_of(path)
        if not HEADER < file.stat().st_size <= MOST_BYTES:
            return None
        content = file.read_bytes()
    except OSError:  # it is gone with the last process that used it, or cannot be read, which opening will tell
        return None
    magic, _, page = struct.unpack_from(">III", content)
    salts = content[16:24]
    readable = magic in MAGIC and _checksum(content[:24], big=bool(magic & 1)) == struct.unpack_from(">II", content, 24)
    if not readable:
        return Log(content, False, salts, 0)
    size = FRAME + (page if page > 1 else 65536)
    committed = 0
    for number in range((len(content) - HEADER) // size):
        start = HEADER + number * size
        if content[start + 8 : start + 16] != salts:  # left of an earlier round of the log
            break
        if content[start + 4 : start + 8] != b"\0\0\0\0":
            committed = number + 1
    return Log(content, True, salts, committed)


def lost_of(before: Log, after: Log | None, seen: int) -> bool:
    """Whether SQLite could not read what a log had.

    Args:
        before: the log before the file was opened.
        after: the log now.
        seen: frames that SQLite knows of.
    """
    if not before.readable:
        return after is None or after.salts != before.salts or not after.readable
    same = after is not None and after.readable and after.salts == before.salts
    # A log that was written back and is going to begin anew has no frames either; it takes longer to be sure.
    return same and seen < before.committed and _is_broken(before)


def _is_broken(log: Log) -> bool:
    """Whether the checksums of a log do not hold to its last transaction. Each goes on from the one before."""
    magic, _, page = struct.unpack_from(">III", log.content)
    big, size = bool(magic & 1), FRAME + (page if page > 1 else 65536)
    state = struct.unpack_from(">II", log.content, 24)
    for number in range(log.committed):
        start = HEADER + number * size
        frame = log.content[start : start + size]
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
