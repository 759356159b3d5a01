from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from snas.errors import InputError, SnasError
from snas.registry import Entry, Registry, as_trial
from snas.schema import APPLICATION_ID, MIGRATIONS
from snas.trials import Report, Status


def make_study(registry: Registry, name: str = "one"):
    return registry.add_study(name, identity={"seed": 3}, samples=5, environment={"snas": "x"})


def report(epoch: int, accuracy: float = 0.5) -> Report:
    return Report(0, epoch, 1.0 / 3.0, 0.25, 0.1 + 0.2, accuracy, 1.5, "abc")


def make_entry(**values) -> Entry:
    base = {"key": "k", "name": "n", "kind": "baseline", "method": "snip", "mask_rule": "snip", "seed": 1}
    parts = {"space": {"name": "s"}, "dataset": {"name": "d"}, "rule": {"epochs": 1}, "environment": {}}
    return Entry(**{**base, **parts, "kept_weights": 5, "total_weights": 10, **values})


def test_what_is_written_is_read_back_exactly(tmp_path):
    point = np.random.default_rng(0).random(7)
    with Registry(tmp_path / "a.db") as registry:
        study = make_study(registry)
        number = registry.add_candidate(study, 0, seed=2**62 + 1, point=point, kept={"a": 3, "b": 4})
        registry.record(number, report(1), status=Status.RUNNING)
        registry.record(number, report(2, 0.75), status=Status.PAUSED)
    with Registry(tmp_path / "a.db") as registry:
        (record,) = registry.candidates(registry.find_study("one"))
    assert np.array_equal(record.point, point)
    assert (record.seed, record.kept, record.status) == (2**62 + 1, {"a": 3, "b": 4}, Status.PAUSED)
    assert record.reports == (report(1), report(2, 0.75))
    assert record.mask_checksum == "abc"
    seen = as_trial(record)
    assert (seen.scores, seen.kept_weights, seen.epochs) == ({1: 0.5, 2: 0.75}, 7, 2)


def test_an_epoch_is_recorded_once(tmp_path):
    with Registry(tmp_path / "a.db") as registry:
        study = make_study(registry)
        number = registry.add_candidate(study, 0, seed=1, point=np.zeros(1), kept={"a": 1})
        registry.record(number, report(1, 0.5), status=Status.PAUSED)
        registry.record(number, report(1, 0.9), status=Status.PAUSED)
        (record,) = registry.candidates(study)
    assert [item.validation_accuracy for item in record.reports] == [0.5]


def test_failed_transaction_leaves_nothing(tmp_path):
    with Registry(tmp_path / "a.db") as registry:
        make_study(registry)
        with pytest.raises(SnasError, match="UNIQUE"):
            make_study(registry)
        assert [study.name for study in registry.studies()] == ["one"]


def test_entry_of_one_key_is_stored_once(tmp_path):
    with Registry(tmp_path / "a.db") as registry:
        first = registry.add_entry(make_entry(kept={"a": 5}))
        again = registry.add_entry(make_entry(kept_weights=6))
        assert (first.id, again.id, again.kept_weights) == (1, 1, 5)
        assert registry.find_entry(1).kept == {"a": 5}
        run = registry.add_run(first, 0, seed=9)
        registry.finish(run, test_loss=0.5, test_accuracy=0.9)
        assert registry.runs(first)[0].test_accuracy == 0.9
        with pytest.raises(InputError, match="no row 7"):
            registry.find_entry(7)


def test_two_connections_see_each_others_writes(tmp_path):
    with Registry(tmp_path / "a.db") as one, Registry(tmp_path / "a.db") as two:
        make_study(one, "first")
        make_study(two, "second")
        assert [study.name for study in one.studies()] == ["first", "second"]


def test_writes_are_durable(tmp_path):
    with Registry(tmp_path / "a.db") as registry:
        assert registry._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert registry._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_foreign_and_broken_files_are_refused_and_left_alone(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be read as a header of one" * 20)
    before = text.read_bytes()
    with pytest.raises(InputError, match="not a snas registry"):
        Registry(text)
    assert text.read_bytes() == before
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE things (x)")
    connection.commit()
    connection.close()
    with pytest.raises(InputError, match="another program"):
        Registry(other)
    newer = tmp_path / "newer.db"
    connection = sqlite3.connect(newer)
    connection.execute("CREATE TABLE things (x)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(InputError, match="newer snas"):
        Registry(newer)
    with pytest.raises(InputError, match="does not exist"):
        Registry(tmp_path / "no" / "where.db")
    with pytest.raises(InputError, match="folder"):
        Registry(tmp_path)
    with pytest.raises(InputError, match="no registry at"):
        Registry(tmp_path / "none.db", create=False)
    assert not (tmp_path / "none.db").exists()


def test_a_new_file_has_the_current_format(tmp_path):
    with Registry(tmp_path / "a.db") as registry:
        assert registry._db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        assert registry._db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        tables = {row[0] for row in registry._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"studies", "entries", "trainings", "reports", "environments"}
