"""SHA-256 of files and tensors, and the note beside a file."""

import hashlib
import subprocess

import pytest

from snas.digests import check_sidecar, file_digest, write_sidecar
from snas.errors import InputError


def test_a_sidecar_is_what_sha256sum_reads(tmp_path):
    path = tmp_path / "a copy.db"
    path.write_bytes(b"content")
    sidecar = write_sidecar(path)
    assert sidecar.name == "a copy.db.sha256"
    assert sidecar.read_text() == f"{hashlib.sha256(b'content').hexdigest()}  a copy.db\n"
    assert file_digest(path) == hashlib.sha256(b"content").hexdigest()
    assert check_sidecar(path)
    done = subprocess.run(["sha256sum", "-c", sidecar.name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "a copy.db: OK\n")


def test_a_changed_file_is_not_what_its_sidecar_tells(tmp_path):
    path = tmp_path / "copy.db"
    path.write_bytes(b"content")
    assert not check_sidecar(path)  # nothing is known
    sidecar = write_sidecar(path)
    path.write_bytes(b"contenT")
    with pytest.raises(InputError, match=r"copy\.db is not what copy\.db\.sha256 tells of it"):
        check_sidecar(path)
    for broken in ("", "x" * 64 + "  copy.db\n", f"{file_digest(path)}\n"):
        sidecar.write_text(broken)
        with pytest.raises(InputError, match="damaged"):
            check_sidecar(path)
    sidecar.write_bytes(b"\xff")
    with pytest.raises(InputError, match="cannot read"):
        check_sidecar(path)
