from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

import snas
from snas.errors import InputError, SnasError
from snas.listener import Listener
from snas.ranking import Filter, rank
from snas.registry import Entry, Registry, as_trial
from snas.schema import APPLICATION_ID, MIGRATIONS
from snas.trials import Report, Status

OLD = Path(__file__).parent / "registries"


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
    assert tables == {"studies", "entries", "trainings", "reports", "environments", "workers", "measurements"}


def make_cited(**values) -> Entry:
    figures = {"source": "Table 1", "cited_density": 0.1, "cited_accuracy": 0.9, "cited_std": None, "cited_seeds": None}
    return make_entry(**{"kind": "cited", **figures, **values})


def test_published_figures_are_stored_once_and_corrected_where_they_are_given_anew(tmp_path):
    with Registry(tmp_path / "a.db") as registry:
        both = [make_cited(key="a"), make_cited(key="b", cited_std=0.01, cited_seeds=3)]
        assert registry.cite(both) == (2, 0)
        assert registry.cite(both) == (0, 0)
        assert registry.cite([make_cited(key="a"), make_cited(key="b", cited_accuracy=0.91), make_cited(key="c")]) == (
            1,
            1,
        )
        found = registry.entries()
    assert [(entry.id, entry.key, entry.cited_accuracy, entry.cited_std) for entry in found] == [
        (1, "a", 0.9, None),
        (2, "b", 0.91, None),
        (3, "c", 0.9, None),
    ]
    assert all(entry.cited and entry.source == "Table 1" for entry in found)


def test_published_figures_are_stored_all_or_none(tmp_path):
    with Registry(tmp_path / "a.db") as registry:
        with pytest.raises(SnasError):
            registry.cite([make_cited(key="a"), make_cited(key="b", seed={})])
        assert registry.entries() == []


# Files of earlier formats: made by the release that wrote them, never changed. Figures were noted when they were made.
FORMATS = {
    1: {
        1: [
            (1, 4, "dense", 50200, 0.9220055710306407, 2, 0),
            (2, 2, "dense", 50200, 0.9192200557103064, 1, 0),
            (3, 8, "searched", 41976, 0.915041782729805, 2, 0),
            (4, 5, "snip (superseded)", 37278, 0.9094707520891365, 2, 0),
            (5, 9, "snip", 41976, 0.9094707520891365, 2, 0),
            (6, 6, "ldi (superseded)", 37278, 0.9038997214484679, 2, 0),
            (7, 10, "ldi", 41976, 0.9025069637883008, 2, 0),
            (8, 3, "searched (superseded)", 37278, 0.883008356545961, 2, 0),
            (9, 1, "snip", 5020, 0.7799442896935933, 1, 0),
            (None, 7, "random", 20, None, 0, 2),
        ],
        2: [(1, 11, "snip", 5020, 0.8885793871866295, 1, 0)],
    },
    2: {
        2: [
            (1, 1, "searched", 41976, 0.958217270194986, 2, 0),
            (2, 5, "searched", 41976, 0.958217270194986, 2, 0),
            (3, 2, "dense", 50200, 0.9568245125348189, 2, 0),
            (4, 6, "dense", 50200, 0.9568245125348189, 2, 0),
            (5, 3, "snip", 41976, 0.9526462395543176, 2, 0),
            (6, 7, "snip", 41976, 0.9526462395543176, 2, 0),
            (7, 4, "ldi", 41976, 0.9359331476323121, 2, 0),
            (8, 8, "ldi", 41976, 0.9359331476323121, 2, 0),
            (9, 10, "rigl:every=5", 5020, 0.9136490250696379, 2, 0),
            (10, 9, "erk", 5020, 0.9122562674094707, 2, 0),
            (11, 12, "rigl:every=5", 1004, 0.7520891364902507, 2, 0),
            (12, 11, "erk", 1004, 0.435933147632312, 2, 0),
            (None, 13, "LWC", 0, 0.984, 3, 0),
        ]
    },
    3: {
        2: [
            (1, 3, "snip", 37278, 0.9623955431754874, 2, 0),
            (2, 2, "dense", 50200, 0.9568245125348189, 2, 0),
            (3, 1, "searched", 37278, 0.9498607242339834, 2, 0),
            (4, 4, "ldi", 37278, 0.9387186629526463, 2, 0),
            (5, 5, "rigl:every=5", 5020, 0.9303621169916435, 1, 0),
            (None, 6, "LWC", 0, 0.984, 0, 0),
        ]
    },
}
# Of each file: samples of its studies, and its published figures (source, accuracy).
STUDIES = {1: [4], 2: [12, 4], 3: [4]}
PUBLISHED = {number: [("Han et al. 2015, Table 1", 0.984)] if number > 1 else [] for number in FORMATS}
# Since format 3: candidates trained again on fresh seeds, and what is told of a candidate beside its densities.
REPEATS = {1: [], 2: [], 3: [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]}
TRAITS = {number: {} if number < 3 else {"rule": "random", "origin": "strategy"} for number in FORMATS}


def content(path: Path) -> dict[str, list[dict]]:
    """All that a registry file has, read without our code."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in tables}
    connection.close()
    return found


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    number = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return number


def test_there_is_an_old_file_of_every_earlier_format():
    assert sorted(version(path) for path in OLD.glob("*.db")) == list(range(1, len(MIGRATIONS)))


@pytest.mark.parametrize("number", FORMATS)
def test_a_file_of_an_earlier_format_is_brought_up_to_date_and_loses_nothing(tmp_path, number):
    path = tmp_path / "old.db"
    shutil.copy(OLD / f"format-{number}.db", path)
    before = content(path)
    with Registry(path) as registry:
        groups = rank(registry, Filter(superseded=True))
        studies = registry.studies()
        trained = [record for study in studies for record in registry.candidates(study)]
        again = [record for study in studies for record in registry.repeats(study)]
        entries = registry.entries()
        runs = [run for entry in entries for run in registry.runs(entry)]
    shown = {
        group.epochs: [
            (row.rank, row.id, row.method, row.kept_weights, row.test_accuracy, row.seeds, row.failed)
            for row in group.rows
        ]
        for group in groups
    }
    assert shown == FORMATS[number]
    assert [study.samples for study in studies] == STUDIES[number]
    assert len(trained) == sum(STUDIES[number])
    assert [(record.number, record.repeat) for record in again] == REPEATS[number]
    assert [record.traits for record in (*trained, *again)] == [TRAITS[number]] * len((*trained, *again))
    assert {bool(record.signals) for record in trained} == {number >= 3}
    assert {(record.repeat, str(record.traits), str(record.signals)) for record in runs} == {(0, "{}", "{}")}
    assert {str(report.measured) for record in (*trained, *runs) for report in record.reports} == {"{}"}
    assert [(entry.source, entry.cited_accuracy) for entry in entries if entry.cited] == PUBLISHED[number]
    after = content(path)
    assert before.keys() <= after.keys()
    for table, rows in before.items():
        kept = [{name: row[name] for name in old} for row, old in zip(after[table], rows, strict=True)]
        assert kept == rows, table
    assert version(path) == len(MIGRATIONS)
    backup = tmp_path / f"old.db.format-{number}.bak"
    assert (version(backup), content(backup)) == (number, before)


@pytest.mark.parametrize("number", FORMATS)
def test_a_migrated_file_has_the_tables_of_a_new_one_and_whole_references(tmp_path, number):
    Registry(tmp_path / "new.db").close()
    shutil.copy(OLD / f"format-{number}.db", tmp_path / "old.db")
    Registry(tmp_path / "old.db").close()
    shapes = {}
    for name in ("new.db", "old.db"):
        connection = sqlite3.connect(tmp_path / name)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        shapes[name] = {
            table: (
                connection.execute(f"PRAGMA table_info({table})").fetchall(),
                connection.execute(f"PRAGMA foreign_key_list({table})").fetchall(),
                len(connection.execute(f"PRAGMA index_list({table})").fetchall()),
            )
            for table in tables
        }
        connection.close()
    assert shapes["old.db"] == shapes["new.db"]
    with Registry(tmp_path / "old.db") as registry:  # references are kept whole again after the migration
        assert registry._db.execute("PRAGMA foreign_keys").fetchone()[0] == 1
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            registry._db.execute("UPDATE trainings SET entry_id = 999 WHERE entry_id = 1")


def test_studies_of_format_2_resume_train_nothing_again_and_can_be_confirmed(tmp_path):
    shutil.copy(OLD / "format-2.db", tmp_path / "old.db")
    settings = {"strategy": "random", "epochs": 2, "final_seeds": 2, "threads": 1, "registry": "old.db"}
    before = content(tmp_path / "old.db")

    class Told(Listener):
        def __init__(self):
            self.repeats, self.finals = [], []

        def on_report(self, report, *, best, epochs_trained):
            raise AssertionError("a candidate was trained again")

        def on_repeat_report(self, number, repeat, report, *, epochs_trained):
            self.repeats.append((number, repeat, report.epoch))

        def on_run_epoch(self, entry, seed, report):
            self.finals.append(entry.method)

    untold = Told()
    same = snas.search("lenet-300-100", samples=4, confirm_seeds=0, listener=untold, **settings)
    assert (same.best.id, untold.repeats, untold.finals) == (5, [], [])  # the name made from the settings is the same
    after = content(tmp_path / "old.db")
    for table in ("studies", "trainings", "reports"):
        assert [{name: row[name] for name in old} for row, old in zip(after[table], before[table], strict=True)] == (
            before[table]
        )
    told = Told()
    snas.search("lenet-300-100", samples=12, name="grown", confirm=2, confirm_seeds=1, listener=told, **settings)
    assert sorted((repeat, epoch) for _, repeat, epoch in told.repeats) == [(1, 1), (1, 1), (1, 2), (1, 2)]
    with Registry(tmp_path / "old.db") as registry:
        repeats = registry.repeats(registry.find_study("grown"))
        assert [record.status for record in repeats] == [Status.FINISHED] * 2


def test_the_file_before_is_backed_up_once(tmp_path):
    path = tmp_path / "old.db"
    shutil.copy(OLD / "format-1.db", path)
    before = content(path)
    Registry(path).close()
    backup = tmp_path / "old.db.format-1.bak"
    assert (version(backup), content(backup)) == (1, before)
    with Registry(path) as registry:
        registry.cite([make_cited()])
    Registry(path).close()
    assert content(backup) == before
    assert sorted(file.name for file in tmp_path.glob("old*")) == ["old.db", "old.db.format-1.bak"]


def test_two_that_open_an_old_file_at_once_leave_a_backup_of_the_old_format(tmp_path):
    path = tmp_path / "old.db"
    shutil.copy(OLD / "format-1.db", path)
    before = content(path)
    start = threading.Barrier(4)

    def open_it() -> None:
        start.wait()
        Registry(path).close()

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backup = tmp_path / "old.db.format-1.bak"
    assert (version(path), version(backup), content(backup)) == (len(MIGRATIONS), 1, before)


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "old.db"
    shutil.copy(OLD / "format-1.db", path)
    before = content(path)
    monkeypatch.setattr("snas.registries.database.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE more (x);\nNONSENSE;\n"))
    with pytest.raises(SnasError, match="syntax error"):
        Registry(path)
    assert (version(path), content(path)) == (1, before)
