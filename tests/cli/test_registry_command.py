"""snas registry on the command line: what it prints, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from snas.cli.main import main
from snas.cli.registry import WORDS
from snas.registries.check import TABLES
from snas.registries.heartbeat import at_work
from snas.registries.merge import Merged
from snas.registry import Registry
from snas.schema import APPLICATION_ID, MIGRATIONS

OLD = Path(__file__).parents[1] / "registries"
STUDY = "lenet-300-100-digits-random-1635f2"


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["registry", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def old(tmp_path) -> Path:
    """A registry in the current folder, of an earlier format."""
    shutil.copy(OLD / "format-3.db", tmp_path / "old.db")
    return tmp_path / "old.db"


def test_help_tells_all_commands(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for name in ("check", "backup", "merge", "studies", "candidates"):
        assert name in out
        code, text, _ = run(capsys, name, "--help")
        assert (code, "Example: snas registry" in text) == (0, True)


def test_check_says_what_is_there_or_what_is_wrong(capsys, old):
    code, out, err = run(capsys, "check", "old.db")
    counts = "1 study, 19 networks, 36 epochs, 6 rows of the leaderboard, 2 environments"
    assert (code, out, err) == (0, f"old.db: no problem in {counts} (format 3)\n", "")
    code, out, _ = run(capsys, "check", "--registry", "old.db", "--format", "json")
    assert code == 0
    assert json.loads(out) | {"counts": {}} == {
        "path": "old.db",
        "format": 3,
        "counts": {},
        "problems": [],
        "current_format": len(MIGRATIONS),
        "ok": True,
    }
    connection = sqlite3.connect(old)
    connection.execute("UPDATE trainings SET status = 'a\x1b[31m\nb' WHERE id = 1")
    connection.commit()
    connection.close()
    code, out, err = run(capsys, "check", "old.db")
    assert (code, err, out.count("\n"), "\x1b" in out) == (1, "", 2, False)
    assert (
        "old.db: 1 problem; keep the file, and go back to a backup (move old.db-wal and old.db-shm away first)\n" in out
    )
    code, out, err = run(capsys, "check", "old.db", "--format", "json")
    assert (code, err, json.loads(out)["ok"], len(json.loads(out)["problems"])) == (1, "", False, 1)


def test_what_is_no_registry_gets_one_line_and_exit_code_2(capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("no database " * 50)
    with sqlite3.connect(tmp_path / "newer.db") as newer:
        newer.execute("CREATE TABLE things (x)")
        newer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    newer.close()
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE things (x)")
    other.close()
    for name, told in (
        ("notes.txt", "is not a snas registry"),
        ("newer.db", "was written by a newer snas"),
        ("other.db", "is another program's SQLite file"),
        (".", "it is a folder"),
        ("none.db", "no registry at none.db"),
    ):
        for arguments in (
            ("check", name),
            ("backup", "-o", "copy.db", "--registry", name),
            ("merge", name, "--registry", "all.db"),
            ("studies", "--registry", name),
            ("candidates", "x", "--registry", name),
        ):
            code, out, err = run(capsys, *arguments)
            assert (code, out, err.count("\n")) == (2, "", 1), arguments
            assert told in err
    assert not (tmp_path / "all.db").exists()
    assert not (tmp_path / "copy.db").exists()
    for arguments in (("check", "a", "b"), ("backup",), ("merge",), ("candidates",), ("check", "--format", "xml")):
        code, out, err = run(capsys, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), arguments


def test_backup_and_merge_tell_what_they_did(capsys, old, tmp_path):
    code, out, err = run(capsys, "backup", "-o", "copy.db", "--registry", "old.db")
    size = (tmp_path / "copy.db").stat().st_size
    assert (code, out, err) == (0, f"copy.db: a copy of old.db with 1 study, {size:,} bytes\n", "")
    code, out, err = run(capsys, "backup", "-o", "copy.db", "--registry", "old.db")
    assert (code, out) == (2, "")
    assert err == "snas: copy.db exists already; name another file, or replace it with --force\n"
    code, out, _ = run(capsys, "backup", "-o", "copy.db", "--registry", "old.db", "--force", "--format", "json")
    assert (code, json.loads(out)) == (0, {"registry": "old.db", "backup": "copy.db", "bytes": size, "studies": 1})
    code, out, err = run(capsys, "merge", "copy.db", "--registry", "all.db")
    counts = "1 study, 19 networks, 36 epochs, 6 rows of the leaderboard, 2 environments"
    assert (code, out, err) == (0, f"all.db: {counts} added\n", "")
    code, out, _ = run(capsys, "merge", "copy.db", "old.db", "--registry", "all.db")
    assert (code, out) == (0, "all.db: nothing new; it has all of this already\n")
    with Registry(tmp_path / "copy.db") as registry:
        (study,) = registry.studies()
        registry.set_samples(study, study.samples + 1)
    code, out, _ = run(capsys, "merge", "copy.db", "--registry", "all.db")
    assert (code, out) == (0, "all.db: nothing added, 1 known row brought up to date\n")
    code, out, _ = run(capsys, "merge", "copy.db", "--registry", "all.db", "--format", "json")
    assert code == 0
    assert set(json.loads(out)["added"].values()) == {0}


def test_measured_cells_are_counted_in_words(capsys, tmp_path):
    for name in ("a.db", "b.db"):
        with Registry(tmp_path / name) as registry:
            registry.add_measurement("isometry", f'{{"file": "{name}"}}', cell={}, result={}, reason=None, seconds=1.0)
    assert main(["registry", "check", str(tmp_path / "a.db")]) == 0
    assert "1 measured cell" in capsys.readouterr().out
    assert main(["registry", "merge", str(tmp_path / "b.db"), "--registry", str(tmp_path / "a.db")]) == 0
    assert "1 measured cell added" in capsys.readouterr().out
    assert {*TABLES, *Merged().as_dict()} <= set(WORDS)


def test_studies_and_candidates_are_listed(capsys, old):
    code, out, err = run(capsys, "studies", "--registry", "old.db")
    assert (code, err) == (0, "")
    assert [STUDY in line and "finished" in line and "4 of 4" in line for line in out.splitlines()].count(True) == 1
    code, out, _ = run(capsys, "candidates", STUDY, "--registry", "old.db")
    assert (code, out.count("fresh seed"), out.count("finished"), out.count("paused")) == (0, 6, 8, 2)
    code, out, _ = run(capsys, "candidates", STUDY, "--registry", "old.db", "--format", "json")
    rows = json.loads(out)["candidates"]
    assert [(row["number"], row["fresh_seed"]) for row in rows[:5]] == [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1)]
    code, out, err = run(capsys, "candidates", "x", "--registry", "old.db")
    assert (code, out, err) == (2, "", f"snas: no study 'x' in old.db; it has: {STUDY}\n")
    with Registry(old) as registry, at_work(registry, registry.studies()[0]):
        code, out, _ = run(capsys, "studies", "--registry", "old.db", "--format", "json")
    (study,) = json.loads(out)["studies"]
    assert (code, study["state"], study["candidates"], study["samples"], study["in_training"]) == (
        0,
        "running",
        4,
        4,
        0,
    )
