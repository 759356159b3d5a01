"""A full disk under a search, a backup, a merge and a migration: a clear line, nothing lost, and on with more room.

The disk is a tmpfs of a few hundred kilobytes where this process may mount one; else files are limited in size.
Searches meet the limit at several sizes, so that it strikes at different files: registry, log, checkpoints.
"""

from __future__ import annotations

import hashlib
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from common import JSON, ROOT, SEARCH, Verdict, clear_line, figures_of, folder, parser_of, read, results_of, run

OLD = ROOT / "tests" / "registries"
COMMAND = (*SEARCH, "--evaluator", "serial", *JSON)
SIZES = (32, 100, 160, 240, 320, 420, 560, 700)  # kilobytes, of the disks of searches
ROOM = 64 * 1024  # kilobytes, of a disk with room


class Disk:
    """A folder with little room."""

    def __init__(self, place: Path, mounted: bool) -> None:
        self.place = place
        self._mounted = mounted
        self._limit: int | None = None

    def resize(self, kilobytes: int) -> None:
        """Give it so much room."""
        if self._mounted:
            subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", self.place], check=True)
        else:
            self._limit = kilobytes * 1024

    def fill(self) -> None:
        """Leave no room at all."""
        if self._mounted:
            with (self.place / "ballast").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:  # full
                    return
        self._limit = 4096

    def make_room(self) -> None:
        """Have room again."""
        (self.place / "ballast").unlink(missing_ok=True)
        self.resize(ROOM)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run snas there."""
        limit = self._limit
        if limit is None:
            return run(self.place, *arguments)
        return run(self.place, *arguments, before=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)))


def main(argv: Sequence[str] | None = None) -> int:
    options = parser_of(__doc__).parse_args(argv)
    verdict = Verdict("full_disk")
    with folder() as place:
        code, out, err = run(place, *COMMAND, "--registry", "r.db")
        if not verdict.require(code == 0, f"the search with room ended with {code}: {err}"):
            return verdict.end()
        wanted = results_of(out), figures_of(read(place / "r.db"))
    for size in SIZES[3:4] if options.quick else SIZES:
        with disk(size, verdict) as full:
            _search(full, size, wanted, verdict)
    with disk(ROOM, verdict) as full:
        _copies(full, verdict)
    return verdict.end()


@contextmanager
def disk(kilobytes: int, verdict: Verdict) -> Iterator[Disk]:
    """A disk of this size."""
    with folder() as place:
        mounted = (
            sys.platform == "linux"
            and not subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place], capture_output=True, check=False
            ).returncode
        )
        verdict.figures["by"] = "tmpfs" if mounted else "a limit of file sizes"
        full = Disk(place, mounted)
        try:
            full.resize(kilobytes)
            yield full
        finally:
            if mounted:
                subprocess.run(["umount", place], check=True)


def _search(full: Disk, size: int, wanted: tuple[Any, Any], verdict: Verdict) -> None:
    """A search meets the end of the disk; with more room the same command ends with the same result."""
    path = full.place / "r.db"
    code, _, err = full.run(*COMMAND, "--registry", "r.db")
    verdict.require(clear_line(code, err), f"search on {size} kB ended with {code}: {err[-400:]}")
    verdict.count("searches that met the limit", int(code == 1))
    print(f"  {size} kB: {err.splitlines()[-1] if err else 'no line'}", flush=True)
    full.make_room()  # a log that cannot be read for want of room is not lost
    before = read(path) if path.exists() and path.stat().st_size else {}
    code, out, err = full.run(*COMMAND, "--registry", "r.db")
    if not verdict.require(code == 0, f"search on {size} kB did not go on with more room: {code}: {err[-400:]}"):
        return
    after = read(path)
    gone = [row for row in before.get("reports", []) if row not in after["reports"]]
    verdict.count("lost", len(gone))
    verdict.require(not gone, f"search on {size} kB: {len(gone)} recorded epochs are gone")
    same = (results_of(out), figures_of(after)) == wanted
    verdict.count("equal results", int(same))
    verdict.require(same, f"search on {size} kB: another result than with room")


def _copies(full: Disk, verdict: Verdict) -> None:
    """Migration, backup and merge meet the end of the disk; files are as they were, and with room all of it works."""
    whole = (OLD / "format-3.db").read_bytes()
    other = (OLD / "format-2.db").read_bytes()
    for name, arguments, files in (
        ("migration", ("cite", "--builtin", "--registry", "old.db"), {"old.db": whole}),
        ("backup", ("registry", "backup", "-o", "copy.db", "--registry", "old.db"), {"old.db": whole}),
        ("merge", ("registry", "merge", "other.db", "--registry", "all.db"), {"other.db": other}),
    ):
        for file in full.place.iterdir():
            file.unlink()
        for file, content in files.items():
            (full.place / file).write_bytes(content)
        if name == "merge":
            code, _, err = full.run("cite", "--builtin", "--registry", "all.db")
            verdict.require(code == 0, f"cite ended with {code}: {err}")
        before = _digests(full.place)
        full.fill()
        code, _, err = full.run(*arguments)
        verdict.require(clear_line(code, err), f"{name} on a full disk ended with {code}: {err[-400:]}")
        print(f"  {name}: {err.splitlines()[-1] if err else 'no line'}", flush=True)
        read_code, out, err = full.run("registry", "check", next(iter(files)))
        verdict.require(read_code == 0, f"on a full disk nothing can be read: {read_code}: {out} {err}")
        full.make_room()
        after = _digests(full.place)
        verdict.require(after == before, f"{name} on a full disk changed files: {sorted(after)} of {sorted(before)}")
        verdict.count("files untouched", int(after == before))
        code, _, err = full.run(*arguments)
        verdict.require(code == 0, f"{name} did not work with room: {code}: {err[-400:]}")
        names = {"migration": "old.db", "backup": "copy.db", "merge": "all.db"}
        code, out, _ = full.run("registry", "check", names[name])
        verdict.require(code == 0, f"after {name}: {out}")
        verdict.count("went on with room", int(code == 0))


def _digests(place: Path) -> dict[str, str]:
    """What files have; what SQLite makes anew at any time, or makes before it finds no room, does not count."""
    files = [path for path in place.iterdir() if path.is_file() and path.stat().st_size and path.suffix != ".db-shm"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    sys.exit(main())
