"""Which file system a file is on: SQLite's write-ahead log needs memory that all its processes share."""

from __future__ import annotations

import os
import re
from pathlib import Path

# Of file systems that several machines, or a machine and its guests, may use at a time.
NETWORK = re.compile(
    "9p|acfs|afs|beegfs|ceph|cifs|coda|davfs|gfs2|glusterfs|gpfs|lustre|ncpfs|nfs4?|ocfs2|orangefs|panfs|smb3|smbfs|"
    "vboxsf|virtiofs|fuse[.](ceph|gcsfuse|glusterfs|grpcfuse|rclone|s3fs|sshfs)"
)
MOUNTS = Path("/proc/self/mountinfo")


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that `path` is on; None where it is on none, or where that cannot be told."""
    kind = _kind(path)
    return kind if kind and NETWORK.fullmatch(kind) else None


def _kind(path: Path) -> str | None:
    """The type of the file system with the longest mount point above the path; of equal ones the last mounted."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return None
    place = os.path.realpath(path)
    found: tuple[int, str] | None = None
    for line in lines:
        mount, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mount.split()[4])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and (found is None or len(point) >= found[0]):
            found = len(point), rest.split()[0]
    return found[1] if found else None
