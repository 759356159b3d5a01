"""snas registry: check, backup, merge, and how studies are doing, as library functions."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from snas.errors import InputError, SnasError
from snas.registries import heartbeat
from snas.registries.backup import back_up
from snas.registries.check import check
from snas.registries.heartbeat import Life, at_work, pulse_of
from snas.registries.merge import merge
from snas.registries.overview import candidates_of, overviews
from snas.registry import Entry, Registry
from snas.trials import Report, Status

OLD = Path(__file__).parent / "registries"
CHECKSUM = "ab" * 32
LAYERS = [{"name": "a", "shape": [2, 3]}]


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def content(path: Path) -> dict[str, list[tuple]]:
    with closing(sqlite3.connect(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in sorted(tables)
        }


def report(epoch: int, accuracy: float = 0.5) -> Report:
    return Report(0, epoch, 0.5, 0.25, 0.75, accuracy, 1.5, CHECKSUM)


def fill(
    path: Path, *, name: str = "one", epochs: tuple[int, ...] = (2, 1), accuracy: float = 0.5, winner: bool = True
) -> Path:
    """A registry of one study with a candidate for each number of epochs, two being all, and perhaps its winner."""
    with Registry(path) as registry:
        registry.use_environment({"place": "here"})
        study = registry.find_study(name) or registry.add_study(name, identity={"seed": 3}, samples=5, environment={})
        for number, last in enumerate(epochs):
            training = registry.add_candidate(
                study, number, seed=number, point=np.full(2, 0.5), kept={"a": 4}, traits={"rule": "random"}
            )
            for epoch in range(1, last + 1):
                status = Status.FINISHED if epoch == 2 else Status.PAUSED
                registry.record(training, report(epoch, accuracy), status=status)
        if winner:
            entry = registry.add_entry(make_entry(name, study.id))
            run = registry.add_run(entry, 0, seed=7)
            registry.set_kept(run, {"a": 4})
            registry.record(run, report(1), status=Status.RUNNING)
            registry.finish(run, test_loss=0.5, test_accuracy=0.75)
    return path


def make_entry(name: str, study_id: int | None) -> Entry:
    return Entry(
        key=f"study {name}: searched 0",
        name=name,
        kind="searched",
        method="searched",
        space={"name": "s", "layers": LAYERS},
        dataset={"name": "d"},
        rule={"epochs": 1},
        mask_rule="random",
        seed=1,
        kept_weights=4,
        total_weights=6,
        environment={},
        kept={"a": 4},
        candidate=0,
        study_id=study_id,
    )


# check


@pytest.mark.parametrize("number", [1, 2, 3])
def test_files_of_earlier_formats_are_whole_and_stay_as_they_are(tmp_path, number):
    path = tmp_path / "old.db"
    shutil.copy(OLD / f"format-{number}.db", path)
    before = path.read_bytes()
    found = check(path)
    assert (found.problems, found.format) == ((), number)
    assert found.counts["trainings"] == len(content(path)["trainings"])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["old.db"]


PROBLEMS = {
    "UPDATE trainings SET status = 'lost' WHERE id = 1": "study 1, candidate 0: status 'lost' is not one of running",
    "UPDATE trainings SET status = 'failed' WHERE id = 1": "study 1, candidate 0 is failed for no reason",
    "UPDATE trainings SET mask_checksum = 'abc' WHERE id = 1": "candidate 0: mask checksum 'abc' is not 64 hexadecimal",
    "UPDATE trainings SET mask_checksum = NULL WHERE id = 1": "candidate 0 was trained, but the checksum of its",
    "UPDATE trainings SET point = '[0.5, 1.5]' WHERE id = 1": "study 1, candidate 0: its point is not in the unit cube",
    "UPDATE trainings SET point = '[0.5, \"x\"]' WHERE id = 1": "trainings: point of row 1 cannot be read",
    "UPDATE trainings SET kept = '{\"a\": 4' WHERE id = 3": "trainings: kept of row 3 cannot be read",
    "UPDATE trainings SET kept = '{\"a\": 3}' WHERE id = 3": "row 1, seed 0 keeps 3 weights, not 4",
    "UPDATE trainings SET kept = '{\"b\": 4}' WHERE id = 3": "row 1, seed 0: layer 'b' keeps 4 of no weights",
    "UPDATE trainings SET number = 5 WHERE id = 2": "study 'one': candidate 1 is missing",
    "UPDATE trainings SET number = 5, repeat = 1 WHERE id = 2": "study 'one': candidate 5 was trained again, but",
    "UPDATE studies SET samples = 1": "study 'one' has 2 candidates, more than its 1 samples",
    "UPDATE studies SET samples = 'many'": "studies: samples is text, not integer (rows: 1)",
    "UPDATE studies SET identity = '[]'": "studies: identity of row 1 cannot be read",
    "UPDATE entries SET candidate = 9": "row 1 is candidate 9 of study 'one', not there",
    "UPDATE entries SET kept_weights = 5": "row 1: its layers keep 4 weights, not 5",
    "UPDATE entries SET total_weights = 7": "row 1: its layers have 6 weights, not 7",
    "UPDATE reports SET epoch = 3 WHERE training_id = 1 AND epoch = 2": "candidate 0: epoch 2 is missing before",
    "UPDATE reports SET train_accuracy = 1.5 WHERE training_id = 2": "train_accuracy of epoch 1 is 1.5, not a fraction",
    "UPDATE reports SET train_loss = 9e999 WHERE training_id = 2": "train_loss of epoch 1 is inf, not a finite number",
    "DELETE FROM reports WHERE training_id = 2": "study 1, candidate 1 is paused, but no epoch of it is recorded",
    "DELETE FROM trainings WHERE id = 2": "reports: row None belongs to a row of trainings that is not there",
    "UPDATE trainings SET status = 'running' WHERE id = 3": "row 1, seed 0 is running, but has been tested",
}


@pytest.mark.parametrize("statement", PROBLEMS)
def test_what_makes_no_sense_is_found(tmp_path, statement):
    path = fill(tmp_path / "a.db")
    assert check(path).problems == ()
    change(path, statement)
    problems = check(path).problems
    assert any(PROBLEMS[statement] in problem for problem in problems), problems


def test_damage_is_a_problem_not_a_crash(tmp_path):
    path = tmp_path / "old.db"
    whole = (OLD / "format-3.db").read_bytes()
    told = 0
    for place in range(4096, len(whole), 4096):  # the head of every page but the first
        damaged = bytearray(whole)
        damaged[place : place + 60] = b"\xff" * 60
        path.write_bytes(damaged)
        told += bool(check(path).problems)
    assert told >= len(whole) // 4096 - 2  # a page may be free
    path.write_bytes(whole[:9000])
    assert "damaged" in check(path).problems[0]
    path.write_bytes(whole[:150])
    assert check(path).problems


def test_what_is_no_registry_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no database " * 50)
    for name, text in (("notes.txt", "is not a snas registry"), ("none.db", "no registry at"), (".", "is a folder")):
        with pytest.raises(InputError, match=text):
            check(tmp_path / name)


# backup


def test_a_backup_is_a_whole_copy_of_whatever_format_and_tells_when_it_changes(tmp_path):
    path = tmp_path / "old.db"
    shutil.copy(OLD / "format-2.db", path)
    made = back_up(path, tmp_path / "copy.db")
    assert content(tmp_path / "copy.db") == content(path)
    assert (made.studies, made.bytes) == (2, (tmp_path / "copy.db").stat().st_size)
    assert check(made.backup).format == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.db", "copy.db.sha256", "old.db"]
    for place in (20, 5000, 50_000):  # a bit anywhere, also of a figure that would be as good as another
        damaged = bytearray(made.backup.read_bytes())
        damaged[place] ^= 1
        flipped = tmp_path / f"{place}" / "copy.db"
        flipped.parent.mkdir()
        flipped.write_bytes(damaged)
        shutil.copy(tmp_path / "copy.db.sha256", flipped.with_name("copy.db.sha256"))
        assert "not what copy.db.sha256 says" in check(flipped).problems[0]
        with pytest.raises(SnasError, match="nothing is merged"):
            merge(tmp_path / "all.db", [flipped])
    assert not (tmp_path / "all.db").exists()


def test_a_registry_that_can_only_be_read_can_be_backed_up(tmp_path, monkeypatch):
    path = fill(tmp_path / "a.db")

    def unwritable(self):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(Registry.__mro__[1], "_open", unwritable)
    monkeypatch.setattr("snas.registries.database.is_unwritable", lambda error: "readonly" in str(error))
    back_up(path, tmp_path / "copy.db")
    monkeypatch.undo()
    assert content(tmp_path / "copy.db") == content(path)


def test_looking_at_a_backup_does_not_change_it(tmp_path):
    back_up(fill(tmp_path / "a.db"), tmp_path / "copy.db")
    with Registry(tmp_path / "copy.db", create=False) as registry:
        assert len(registry.studies()) == 1
    assert check(tmp_path / "copy.db").problems == ()


def test_a_backup_that_is_worked_on_is_no_backup_any_more_and_its_results_can_be_merged(tmp_path):
    path, copy = fill(tmp_path / "a.db"), tmp_path / "copy.db"
    back_up(path, copy)
    with Registry(copy) as registry:
        with registry.together():
            pass  # nothing is written
        assert (tmp_path / "copy.db.sha256").exists()
        study = registry.find_study("one")
        registry.add_candidate(study, 2, seed=2, point=np.full(2, 0.5), kept={"a": 4}, traits={"rule": "random"})
        assert not (tmp_path / "copy.db.sha256").exists()  # before the write is acknowledged
    assert check(copy).problems == ()
    assert merge(path, [copy]).trainings == 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_backup_of_an_earlier_format_is_no_backup_once_it_is_upgraded(tmp_path, number):
    copy = tmp_path / "copy.db"
    back_up(OLD / f"format-{number}.db", copy)
    check(copy)
    assert (tmp_path / "copy.db.sha256").exists()
    (tmp_path / "link.db").symlink_to(copy)
    Registry(tmp_path / "link.db").close()
    assert not (tmp_path / "copy.db.sha256").exists()
    assert check(copy).problems == ()
    assert merge(tmp_path / "all.db", [copy]).studies > 0


def test_a_backup_that_is_opened_on_a_network_changes_and_is_no_backup_any_more(tmp_path, monkeypatch):
    copy = tmp_path / "copy.db"
    back_up(fill(tmp_path / "a.db"), copy)
    monkeypatch.setattr("snas.registries.database.network_file_system", lambda path: "nfs4")
    Registry(copy).close()  # its header has how it is written
    assert check(copy).problems == ()


def test_a_write_that_fails_leaves_a_backup_sealed(tmp_path):
    copy = tmp_path / "copy.db"
    back_up(fill(tmp_path / "a.db"), copy)

    def fail(registry: Registry) -> None:
        with registry.together():
            registry.set_samples(registry.find_study("one"), 9)
            raise InputError("no")

    with Registry(copy) as registry, pytest.raises(InputError, match="no"):
        fail(registry)
    assert (tmp_path / "copy.db.sha256").exists()
    assert check(copy).problems == ()


def test_a_backup_has_what_was_written_until_then_and_takes_nobodys_place(tmp_path):
    path, target = fill(tmp_path / "a.db"), tmp_path / "copy.db"
    with Registry(path) as registry:
        registry.add_study("two", identity={}, samples=1, environment={})  # still in the log
        assert back_up(path, target).studies == 2
        registry.add_study("three", identity={}, samples=1, environment={})
        with pytest.raises(InputError, match="exists already; name another file, or replace it with --force"):
            back_up(path, target)
        assert back_up(path, target, force=True).studies == 3
    assert check(target).problems == ()
    for wrong, text in ((tmp_path, "is a folder"), (tmp_path / "no" / "x.db", "does not exist"), (path, "to itself")):
        with pytest.raises(InputError, match=text):
            back_up(path, wrong, force=True)
    with Registry(target) as registry:
        registry.add_study("four", identity={}, samples=1, environment={})
        with pytest.raises(InputError, match="is in use"):
            back_up(path, target, force=True)


def test_the_checksum_of_another_copy_is_kept_until_a_whole_one_takes_its_place(tmp_path, monkeypatch):
    path, target, told = fill(tmp_path / "a.db"), tmp_path / "z.db", tmp_path / "z.db.sha256"
    told.write_text("of a copy on a tape")
    with pytest.raises(InputError, match=r"z.db.sha256 exists already; name another file, or replace it with --force"):
        back_up(path, target)
    assert (target.exists(), told.read_text()) == (False, "of a copy on a tape")
    back_up(path, target, force=True)
    before = told.read_bytes()

    def full(part: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("snas.registries.copies._sync", full)
    with pytest.raises(SnasError, match="No space left"):
        back_up(path, target, force=True)
    monkeypatch.undo()
    assert told.read_bytes() == before
    assert check(target).problems == ()


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_a_backup_does_not_take_the_name_of_a_log(tmp_path, ending):
    path = fill(tmp_path / "a.db")
    with pytest.raises(InputError, match=f"cannot back up to .*a.db{ending}: SQLite takes names that end in"):
        back_up(path, tmp_path / f"a.db{ending}", force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]


# merge


def test_merging_brings_everything_once(tmp_path):
    mine = fill(tmp_path / "a.db")
    others = [fill(tmp_path / "b.db", name="two"), tmp_path / "old.db"]
    shutil.copy(OLD / "format-2.db", others[1])
    before = [other.read_bytes() for other in others]
    merged = merge(mine, others)
    old = content(others[1])
    assert merged.as_dict() == {
        "studies": 3,
        "trainings": 3 + len(old["trainings"]),
        "reports": 4 + len(old["reports"]),
        "entries": 1 + len(old["entries"]),
        "environments": len(old["environments"]),
        "measurements": 0,
        "updated": 0,
    }
    assert check(mine).problems == ()
    assert [other.read_bytes() for other in others] == before
    first = content(mine)
    assert not any(merge(mine, others).as_dict().values())
    assert content(mine) == first
    with Registry(mine) as registry:
        assert [study.name for study in registry.studies()] == [
            "one",
            "two",
            "grown",
            "lenet-300-100-digits-random-1635f2",
        ]
        entry = registry.find_key("study two: searched 0")
        assert registry.study_of(entry).name == "two"
        assert registry.runs(entry)[0].test_accuracy == 0.75
        assert registry.environments(entry) == [{"place": "here"}]


def test_a_study_that_went_further_elsewhere_goes_on_from_there(tmp_path):
    path = fill(tmp_path / "a.db", epochs=(1, 1), winner=False)
    shutil.copy(path, tmp_path / "b.db")
    with Registry(tmp_path / "b.db") as registry:
        study = registry.set_samples(registry.find_study("one"), 9)
        first = registry.candidates(study)[0]
        registry.record(first.id, report(2, 0.9), status=Status.FINISHED)
        registry.add_candidate(study, 2, seed=2, point=np.full(2, 0.5), kept={"a": 4}, traits={"rule": "random"})
        registry.add_entry(make_entry("one", study.id))
    assert merge(path, [tmp_path / "b.db"]).as_dict() == {
        "studies": 0,
        "trainings": 1,
        "reports": 1,
        "entries": 1,
        "environments": 0,
        "measurements": 0,
        "updated": 2,
    }
    with Registry(path) as registry:
        study = registry.find_study("one")
        found = registry.candidates(study)
    assert study.samples == 9
    assert [(record.status, record.epochs) for record in found] == [
        (Status.FINISHED, 2),
        (Status.PAUSED, 1),
        (Status.RUNNING, 0),
    ]
    assert not any(merge(tmp_path / "b.db", [path]).as_dict().values())  # an earlier state brings nothing


def test_a_study_that_has_another_winner_elsewhere_has_that_one_alone(tmp_path):
    path = fill(tmp_path / "a.db", epochs=(1, 1), winner=False)
    there = tmp_path / "b.db"
    shutil.copy(path, there)
    fill_winners(path, "searched 0", "searched 0 @epochs 3")
    with Registry(there) as registry:
        study = registry.find_study("one")
        registry.add_candidate(study, 2, seed=2, point=np.full(2, 0.5), kept={"a": 4}, traits={"rule": "random"})
        with at_work(registry, study):
            pass
    shutil.copy(there, tmp_path / "early.db")
    assert merge(path, [tmp_path / "early.db"]).updated == 0
    assert current(path) == ["searched 0", "searched 0 @epochs 3"]  # there is none there yet
    with Registry(there) as registry:
        study = registry.find_study("one")
        registry.record(registry.candidates(study)[2].id, report(1, 0.9), status=Status.PAUSED)
    fill_winners(there, "searched 2")
    assert merge(path, [there]).as_dict() | {"environments": 0} == {
        "studies": 0,
        "trainings": 0,
        "reports": 1,
        "entries": 1,
        "environments": 0,
        "measurements": 0,
        "updated": 2,
    }
    assert current(path) == ["searched 0 @epochs 3", "searched 2"]
    first = content(path)
    assert not any(merge(path, [there]).as_dict().values())
    assert content(path) == first


def fill_winners(path: Path, *names: str) -> None:
    with Registry(path) as registry:
        study = registry.find_study("one")
        for name in names:
            registry.add_entry(replace(make_entry("one", study.id), key=f"study one: {name} 0", method=name))


def current(path: Path) -> list[str]:
    with Registry(path) as registry:
        return sorted(entry.method for entry in registry.entries() if not entry.superseded)


@pytest.mark.parametrize("later", [False, True])
def test_the_last_sign_of_life_of_a_study_comes_with_what_went_further(tmp_path, later):
    path = fill(tmp_path / "a.db", epochs=(1,), winner=False)
    there = tmp_path / "b.db"
    shutil.copy(path, there)
    for place in (path, there):
        with Registry(place) as registry, at_work(registry, registry.find_study("one")):
            pass
    with Registry(there) as registry:
        registry.record(1, report(2), status=Status.FINISHED)
    change(path, "UPDATE workers SET host = 'here', seen = '2026-01-02T00:00:00.000+00:00', outcome = 'stopped: x'")
    change(there, f"UPDATE workers SET host = 'there', seen = '2026-01-0{3 if later else 1}T00:00:00.000+00:00'")
    assert merge(path, [there]).reports == 1
    with Registry(path) as registry:
        pulse = pulse_of(registry, registry.find_study("one"))
    assert (pulse.host, pulse.life) == (("there", Life.FINISHED) if later else ("here", Life.STOPPED))


CONFLICTS = {
    "UPDATE studies SET identity = '{\"seed\": 4}'": "study 'one' differs in its identity",
    "UPDATE trainings SET seed = 9 WHERE id = 1": r"candidate 0 of study 'one' differs in its seed \(0 and 9\)",
    "UPDATE trainings SET point = '[0.1, 0.5]' WHERE id = 1": "candidate 0 of study 'one' differs in its point",
    f"UPDATE trainings SET mask_checksum = '{'cd' * 32}' WHERE id = 1": "candidate 0 of study 'one' differs in",
    "UPDATE reports SET validation_accuracy = 0.6 WHERE training_id = 2": "epoch 1 of candidate 1 of study 'one'",
    "UPDATE entries SET rule = '{\"epochs\": 2}'": r"row 1 \(study one: searched 0\) differs in its rule",
    "UPDATE trainings SET test_accuracy = 0.5 WHERE id = 3": "seed 0 of row 1 differs in its test accuracy",
}


@pytest.mark.parametrize("statement", CONFLICTS)
def test_what_contradicts_is_refused_and_nothing_is_merged(tmp_path, statement):
    path, other = fill(tmp_path / "a.db"), fill(tmp_path / "b.db")
    fill(other, name="two")
    assert check(other).problems == ()
    change(other, statement)
    before = content(path)
    with pytest.raises(InputError, match=f"nothing is merged: .*b.db contradicts .*a.db: {CONFLICTS[statement]}"):
        merge(path, [other])
    assert content(path) == before


def measure(path: Path, value: float, key: str = '{"cell": 1}') -> None:
    with Registry(path) as registry:
        registry.use_environment({"place": str(path.name)})
        registry.add_measurement("isometry", key, cell={"n": 1}, result={"x": value}, reason=None, seconds=1.0)


def test_cells_of_studies_are_checked_and_merged_once(tmp_path):
    here, there = tmp_path / "here.db", tmp_path / "there.db"
    measure(here, 0.5)
    measure(there, 0.5)
    measure(there, 0.25, key='{"cell": 2}')
    assert merge(here, [there]).measurements == 1
    assert merge(here, [there]).measurements == 0
    with Registry(here) as registry:
        found = registry.measurements("isometry")
    assert [(one.result, one.environment) for one in found.values()] == [
        ({"x": 0.5}, {"place": "here.db"}),
        ({"x": 0.25}, {"place": "there.db"}),
    ]
    assert check(here).problems == ()
    measure(tmp_path / "other.db", 0.75)
    with pytest.raises(InputError, match="differs in its result"):
        merge(here, [tmp_path / "other.db"])
    change(here, "UPDATE measurements SET result = '[]' WHERE id = 1")
    assert check(here).problems == ("measurements: result of row 1 cannot be read",)


def test_kept_weights_are_files_and_are_not_merged(tmp_path):
    here, there = fill(tmp_path / "a.db"), fill(tmp_path / "b.db")
    new = fill(tmp_path / "c.db", name="other")
    for number, path in enumerate((here, there, new)):
        with Registry(path) as registry:
            (entry,) = registry.entries()
            run = registry.runs(entry)[0]
            registry.set_traits(run.id, {"weights": {"file": f"row-{number}-seed-0", "sha256": CHECKSUM}})
    before = content(here)
    merge(here, [there])
    assert content(here)["trainings"] == before["trainings"]
    merge(here, [new])
    with Registry(here) as registry:
        entry = registry.find_key("study other: searched 0")
        assert [run.traits for run in registry.runs(entry)] == [{}]


def test_clocks_make_no_conflict(tmp_path):
    path, other = fill(tmp_path / "a.db"), fill(tmp_path / "b.db")
    change(other, "UPDATE reports SET seconds = 9.0, recorded = '2030-01-01T00:00:00.000+00:00'")
    assert not any(merge(path, [other]).as_dict().values())


def test_a_training_that_ended_earlier_in_one_of_them_is_a_conflict(tmp_path):
    path, other = fill(tmp_path / "a.db"), fill(tmp_path / "b.db")
    change(
        other,
        "DELETE FROM reports WHERE training_id = 1 AND epoch = 2",
        "UPDATE trainings SET status = 'failed', reason = 'diverged' WHERE id = 1",
    )
    with pytest.raises(InputError, match="candidate 0 of study 'one' differs in its status"):
        merge(path, [other])
    change(path, "UPDATE trainings SET status = 'paused' WHERE id = 1")
    with pytest.raises(InputError, match="ended after 1 epochs in one of them, not in the other"):
        merge(path, [other])


def test_a_damaged_or_missing_or_same_registry_is_not_merged(tmp_path):
    path, other = fill(tmp_path / "a.db"), fill(tmp_path / "b.db", name="two")
    change(other, "UPDATE studies SET identity = '{'")
    with pytest.raises(SnasError, match=r"b.db is damaged \(studies: identity of row 1 cannot be read\)"):
        merge(path, [other])
    with pytest.raises(SnasError):
        merge(tmp_path / "new.db", [other])
    assert not (tmp_path / "new.db").exists()
    with pytest.raises(InputError, match="no registry at"):
        merge(path, [tmp_path / "none.db"])
    with pytest.raises(InputError, match="into itself"):
        merge(path, [path])


def test_a_study_that_is_being_worked_on_is_not_changed(tmp_path):
    from snas.locks import owned

    path = fill(tmp_path / "a.db", epochs=(1,), winner=False)
    shutil.copy(path, tmp_path / "b.db")
    change(tmp_path / "b.db", "UPDATE studies SET samples = 9")
    before = content(path)
    with (
        Registry(path) as registry,
        owned(registry, "study-one"),
        pytest.raises(SnasError, match="study one is being worked on by another process"),
    ):
        merge(path, [tmp_path / "b.db"])
    assert content(path) == before


# Who lives


def test_a_study_tells_how_it_ended(tmp_path, monkeypatch):
    with Registry(tmp_path / "a.db") as registry:
        study = registry.add_study("one", identity={}, samples=5, environment={})
        assert pulse_of(registry, study).life is Life.STOPPED  # no winner yet, and nobody has worked on it
        with at_work(registry, study):
            pulse = pulse_of(registry, study)
            assert (pulse.life, pulse.pid, pulse.reason) == (Life.RUNNING, os.getpid(), None)
        assert pulse_of(registry, study).life is Life.FINISHED
        with pytest.raises(KeyboardInterrupt), at_work(registry, study):
            raise KeyboardInterrupt
        assert pulse_of(registry, study).reason == "interrupted"
        with pytest.raises(SnasError), at_work(registry, study):
            raise SnasError("no room\nat all")
        pulse = pulse_of(registry, study)
        assert (pulse.life, pulse.reason) == (Life.STOPPED, "no room at all")


def test_signs_of_life_go_with_results_and_not_more_often_than_asked(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    with Registry(tmp_path / "a.db") as registry:
        study = registry.add_study("one", identity={}, samples=5, environment={})
        with at_work(registry, study):
            registry.query("UPDATE workers SET seen = 'before'")
            registry.set_samples(study, 6)
            assert pulse_seen(registry) == "before"
            now[0] += heartbeat.BEAT
            assert pulse_seen(registry) == "before"
            registry.set_samples(study, 7)
            assert pulse_seen(registry) > "2020"
            registry.query("UPDATE workers SET seen = 'before'")
            registry.set_samples(study, 8)
            assert pulse_seen(registry) == "before"


def pulse_seen(registry: Registry) -> str:
    return registry.query("SELECT seen FROM workers")[0]["seen"]


CODE = """
import sys, time
from snas.registry import Registry
from snas.registries.heartbeat import at_work
with Registry(sys.argv[1]) as registry:
    study = registry.add_study("one", identity={}, samples=5, environment={})
    with at_work(registry, study):
        print("working", flush=True)
        time.sleep(60)
"""


def test_a_stopped_process_is_slow_and_a_killed_one_dead(tmp_path):
    path = tmp_path / "a.db"
    process = subprocess.Popen([sys.executable, "-c", CODE, path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "working\n"
        with Registry(path) as registry:
            (study,) = registry.studies()
            assert pulse_of(registry, study).life is Life.RUNNING
            os.kill(process.pid, signal.SIGSTOP)
            while heartbeat.process_state(process.pid, start_of(registry)) != "T":
                time.sleep(0.01)
            assert pulse_of(registry, study).life is Life.SLOW
            process.kill()
            process.wait()
            pulse = pulse_of(registry, study)
    finally:
        process.kill()
        process.stdout.close()
    assert (pulse.life, pulse.reason) == (Life.DEAD, "its process is gone; the same command resumes it")


def start_of(registry: Registry) -> str:
    return registry.query("SELECT process_start FROM workers")[0]["process_start"]


def test_another_process_of_the_same_pid_is_not_taken_for_it(tmp_path):
    with Registry(tmp_path / "a.db") as registry:
        study = registry.add_study("one", identity={}, samples=5, environment={})
        with at_work(registry, study):
            registry.query("UPDATE workers SET process_start = '1'")
            assert pulse_of(registry, study).life is Life.DEAD


@pytest.mark.parametrize(
    ("machine", "silence", "longest", "life"),
    [
        ("here", 30, 1.0, Life.RUNNING),
        ("here", 90, 1.0, Life.SLOW),
        ("here", 10**6, 1.0, Life.SLOW),
        ("here", 90, 60.0, Life.RUNNING),
        ("elsewhere", 30, 1.0, Life.RUNNING),
        ("elsewhere", 90, 1.0, Life.SLOW),
        ("elsewhere", 700, 1.0, Life.DEAD),
        ("elsewhere", 700, 600.0, Life.RUNNING),
        ("elsewhere", 2500, 600.0, Life.DEAD),
    ],
)
def test_elsewhere_time_tells_and_long_epochs_are_given_time(tmp_path, machine, silence, longest, life):
    with Registry(tmp_path / "a.db") as registry:
        study = registry.add_study("one", identity={}, samples=5, environment={})
        training = registry.add_candidate(study, 0, seed=0, point=np.zeros(1), kept={})
        registry.record(training, Report(0, 1, 0.5, 0.5, 0.5, 0.5, longest, CHECKSUM), status=Status.RUNNING)
        with at_work(registry, study):
            seen = (datetime.now(UTC) - timedelta(seconds=silence)).isoformat(timespec="milliseconds")
            registry.query("UPDATE workers SET seen = ?", seen)
            if machine == "elsewhere":
                registry.query("UPDATE workers SET machine = 'another boot', pid = 1")
            assert pulse_of(registry, study).life is life


def test_studies_of_earlier_versions_tell_what_can_be_told(tmp_path):
    shutil.copy(OLD / "format-3.db", tmp_path / "a.db")
    with Registry(tmp_path / "a.db") as registry:
        (overview,) = overviews(registry)
        assert (overview.pulse.life, overview.counts.total(), overview.epochs) == (Life.FINISHED, 4, 6)
        registry.query("UPDATE trainings SET status = 'running' WHERE id = 19")
        assert overviews(registry)[0].pulse.life is Life.FINISHED  # that one is of another row
        registry.query("UPDATE trainings SET status = 'running' WHERE id = 18")
        assert overviews(registry)[0].pulse.life is Life.STOPPED
        assert [record.repeat for record in candidates_of(registry, overview.study.name)] == [0] * 4 + [1, 2] * 3
        with pytest.raises(InputError, match=r"no study 'x' in .*; it has: lenet"):
            candidates_of(registry, "x")
