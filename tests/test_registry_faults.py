"""A registry under faults: locks, full disks, files that are read-only, deleted, replaced or damaged; late reports."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from snas.conductor import Conductor
from snas.encoding import Encoding
from snas.errors import InputError, SnasError
from snas.evaluators.asha import Ladder
from snas.evaluators.base import Failure
from snas.listener import Listener
from snas.registries import copies, database, filesystems, wal
from snas.registry import Registry
from snas.search_spaces.base import SearchSpace
from snas.trials import Report, Status

OLD = Path(__file__).parent / "registries"
CHECKSUM = "ab" * 32


def report(epoch: int, accuracy: float = 0.5, checksum: str = CHECKSUM) -> Report:
    return Report(0, epoch, 0.5, 0.25, 0.75, accuracy, 1.5, checksum)


def add_study(registry: Registry, name: str = "one"):
    return registry.add_study(name, identity={"seed": 3}, samples=5, environment={})


def add_candidate(registry: Registry, number: int = 0) -> int:
    study = registry.find_study("one") or add_study(registry)
    return registry.add_candidate(study, number, seed=number, point=np.full(2, 0.5), kept={"a": 1})


def limited(registry: Registry, pages: int = 0) -> None:
    """Let the disk be full, as far as SQLite can tell."""
    used = registry.query("PRAGMA page_count")[0][0]
    registry.query(f"PRAGMA max_page_count = {used + pages}")


# Reports that come late


def test_a_report_that_comes_twice_changes_neither_figures_nor_status_nor_mask(tmp_path):
    with Registry(tmp_path / "a.db") as registry:
        number = add_candidate(registry)
        assert registry.record(number, report(1), status=Status.PAUSED)
        assert not registry.record(number, report(1, 0.9, "cd" * 32), status=Status.RUNNING)
        (record,) = registry.candidates(registry.find_study("one"))
    assert (record.status, record.mask_checksum) == (Status.PAUSED, CHECKSUM)
    assert [item.validation_accuracy for item in record.reports] == [0.5]


@pytest.mark.parametrize("ended", [Status.FINISHED, Status.FAILED, Status.REFUSED])
def test_nothing_comes_after_the_end(tmp_path, ended):
    with Registry(tmp_path / "a.db") as registry:
        number = add_candidate(registry)
        registry.record(number, report(1), status=Status.RUNNING)
        assert registry.set_status(number, ended, reason="why")
        assert not registry.record(number, report(2), status=Status.RUNNING)
        assert not registry.set_status(number, Status.RUNNING)
        assert not registry.set_status(number, Status.FAILED, reason="late")
        (record,) = registry.candidates(registry.find_study("one"))
    assert (record.status, record.reason, record.epochs) == (ended, "why", 1)


def test_a_search_neither_counts_nor_tells_a_late_report(tmp_path):
    class Told(Listener):
        def __init__(self):
            self.heard = []

        def on_report(self, report, *, best, epochs_trained):
            self.heard.append((report.epoch, best))

        def on_failure(self, number, status, reason):
            self.heard.append(reason)

    space = SearchSpace.from_model(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), input_shape=(1, 2, 2), name="t"
    )
    told = Told()
    with Registry(tmp_path / "a.db") as registry:
        conductor = Conductor(
            registry,
            add_study(registry),
            encoding=Encoding(space),
            strategy=Fixed(),
            ladder=Ladder(1, 2),
            seed=0,
            listener=told,
        )
        assert conductor.next().until == 1
        conductor.take([report(1, 0.25)])
        conductor.take([report(1, 0.75)])
        conductor.take([report(2, 0.5)])
        conductor.take([Failure(0, Status.FAILED, "its machine was lost")])
        assert (conductor.best_score, conductor.history[0].status) == (0.5, Status.FINISHED)
    assert told.heard == [(1, 0.25), (2, 0.5)]


class Fixed:
    def ask(self, history, n, *, dimensions, rng):
        return [np.full(dimensions, 0.5)] * n


# Locks


def test_a_lock_is_waited_for_and_told_of(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(database, "TRY", 0.02)
    monkeypatch.setattr(database, "WORTH_A_WORD", 0.1)
    path = tmp_path / "a.db"
    with Registry(path) as registry:
        holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.4, lambda: holder.execute("COMMIT"))
        timer.start()
        add_study(registry)
        timer.join()
        holder.close()
        assert [study.name for study in registry.studies()] == ["one"]
    assert [record.getMessage() for record in caplog.records] == [
        f"registry {path} is locked by another process; waiting for it"
    ]


def test_a_lock_that_does_not_go_away_ends_in_a_line_and_leaves_the_registry_usable(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "TRY", 0.01)
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    path = tmp_path / "a.db"
    with Registry(path) as registry:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(SnasError, match="locked by another process for too long; wait for it or end it") as caught:
            add_study(registry)
        assert not isinstance(caught.value, InputError)
        holder.close()
        add_study(registry)
        assert [study.name for study in registry.studies()] == ["one"]


def test_many_that_make_one_registry_at_once_all_can(tmp_path):
    start = threading.Barrier(8)
    failures = []

    def write(number: int) -> None:
        start.wait()
        try:
            with Registry(tmp_path / "a.db") as registry:
                add_study(registry, f"study-{number}")
        except SnasError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Registry(tmp_path / "a.db") as registry:
        assert sorted(study.name for study in registry.studies()) == [f"study-{number}" for number in range(8)]


def test_a_long_reader_holds_nobody_up_and_the_log_shrinks_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "MOST_LOG_BYTES", 100_000)
    path = tmp_path / "a.db"
    with Registry(path) as registry:
        study = add_study(registry)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM studies").fetchall()
        with registry.together():
            for number in range(2000):
                registry.add_candidate(study, number, seed=1, point=np.full(200, 0.123456), kept={"a": 1})
        grown = wal.log_of(path).stat().st_size
        reader.close()
        registry.query("PRAGMA wal_checkpoint(PASSIVE)")
        add_candidate(registry, 3000)
        assert grown > 1_000_000
        assert wal.log_of(path).stat().st_size <= 100_000


def test_candidates_are_read_at_one_moment_while_another_adds_some(tmp_path, monkeypatch):
    path = tmp_path / "a.db"
    with Registry(path) as registry, Registry(path) as other:
        registry.record(add_candidate(registry), report(1), status=Status.RUNNING)
        query = Registry._query

        def slow(self, sql, *values):
            rows = query(self, sql, *values)
            if self is registry and "FROM trainings WHERE" in sql:  # between this and the next one
                other.record(add_candidate(other, 1), report(1), status=Status.RUNNING)
            return rows

        monkeypatch.setattr(Registry, "_query", slow)
        assert len(registry.candidates(registry.find_study("one"))) == 1


# Full disks


def test_a_full_disk_ends_in_a_line_and_nothing_of_the_transaction_stays(tmp_path):
    with Registry(tmp_path / "a.db") as registry:
        study = add_study(registry)
        limited(registry)
        with pytest.raises(
            SnasError, match=r"no room to write registry .*make room and run the same command"
        ) as caught:
            registry.add_candidate(study, 0, seed=1, point=np.full(100_000, 0.5), kept={})
        assert not isinstance(caught.value, InputError)
        limited(registry, 1000)
        registry.add_candidate(study, 0, seed=1, point=np.full(10, 0.5), kept={})
        assert [record.number for record in registry.candidates(study)] == [0]


def test_an_error_at_commit_leaves_no_transaction_open(tmp_path, monkeypatch):
    with Registry(tmp_path / "a.db") as registry:
        patiently = Registry._patiently

        def failing(self, sql, values=()):
            if sql == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return patiently(self, sql, values)

        with monkeypatch.context() as patch:
            patch.setattr(Registry, "_patiently", failing)
            with pytest.raises(SnasError, match="disk I/O error"):
                add_study(registry)
        assert registry.studies() == []
        add_study(registry)
    with Registry(tmp_path / "a.db") as registry:
        assert len(registry.studies()) == 1


# Files that cannot be written


def as_nobody(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code as a user who may not write everywhere, as root may."""
    begin = "import os; os.getuid() or (os.setgid(65534), os.setuid(65534))\n"
    return subprocess.run(
        [sys.executable, "-c", "import snas.registry, snas.registries.check\n" + begin + code],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )


READ = """
from snas.registry import Registry
from snas.errors import InputError
with Registry("r.db", create=False) as registry:
    print([study.name for study in registry.studies()])
    try:
        registry.add_study("two", identity={}, samples=1, environment={})
    except InputError as error:
        print("no:", error)
"""


@pytest.mark.parametrize("name", ["new", "format-1", "format-3"])
def test_a_file_and_folder_that_cannot_be_written_can_be_read(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("shared")
    path = folder / "r.db"
    if name == "new":
        with Registry(path) as registry:
            add_study(registry)
    else:
        shutil.copy(OLD / f"{name}.db", path)
    before = path.read_bytes()
    for place in (folder, *folder.parents):
        if os.access(place, os.W_OK) and place.owner() == folder.owner() and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o055)
    path.chmod(0o444)
    folder.chmod(0o555)
    done = as_nobody(READ, folder)
    folder.chmod(0o755)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("['")
    assert lines[1].startswith("no: cannot write registry r.db (attempt to write a readonly database); check its perm")
    assert path.read_bytes() == before
    assert [file.name for file in folder.iterdir()] == ["r.db"]


def test_a_registry_that_cannot_be_made_is_refused(tmp_path_factory):
    folder = tmp_path_factory.mktemp("closed")
    folder.chmod(0o555)
    code = "from snas.registry import Registry\nfrom snas.errors import InputError\n"
    done = as_nobody(code + "try: Registry('r.db')\nexcept InputError as error: print(error)", folder)
    assert "cannot write registry r.db (unable to open database file); check its permissions" in done.stdout


# Network file systems


def test_the_file_system_is_told_by_the_longest_mount_point(tmp_path, monkeypatch):
    table = tmp_path / "mountinfo"
    lines = (
        "21 1 8:1 / / rw - ext4 /dev/root rw",
        f"22 21 0:40 / {tmp_path}/net rw shared:1 - nfs4 server:/x rw",
        f"23 22 0:41 / {tmp_path}/net/with\\040blank rw - tmpfs tmpfs rw",
        f"24 21 0:42 / {tmp_path}/s rw - fuse.sshfs host: rw",
    )
    table.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(filesystems, "MOUNTS", table)
    found = {
        name: filesystems.network_file_system(tmp_path / name)
        for name in ("a.db", "net/a.db", "network/a.db", "net/with blank/a.db", "s/deep/a.db")
    }
    assert found == {
        "a.db": None,
        "net/a.db": "nfs4",
        "network/a.db": None,
        "net/with blank/a.db": None,
        "s/deep/a.db": "fuse.sshfs",
    }
    monkeypatch.setattr(filesystems, "MOUNTS", tmp_path / "none")
    assert filesystems.network_file_system(tmp_path / "net/a.db") is None


@pytest.mark.parametrize("existing", [False, True])
def test_on_a_network_there_is_no_write_ahead_log(tmp_path, monkeypatch, caplog, existing):
    path = tmp_path / "a.db"
    if existing:
        Registry(path).close()
    monkeypatch.setattr(database, "network_file_system", lambda path: "nfs4")
    with Registry(path) as registry, Registry(path) as other:
        add_study(registry)
        assert registry.query("PRAGMA journal_mode")[0][0] == "truncate"
        assert [study.name for study in other.studies()] == ["one"]
    assert [record.getMessage() for record in caplog.records] == [
        f"registry {path} is written without a write-ahead log, which is slower: it is on a network file system (nfs4)"
    ]
    assert not wal.log_of(path).exists()


def test_a_log_that_cannot_be_had_is_done_without(tmp_path, monkeypatch, caplog):
    connect = sqlite3.connect
    # This way of locking has no memory that processes share.
    monkeypatch.setattr(
        sqlite3, "connect", lambda place, **more: connect(f"file:{place}?vfs=unix-dotfile", **{**more, "uri": True})
    )
    with Registry(tmp_path / "a.db") as registry:
        add_study(registry)
        assert registry.query("PRAGMA journal_mode")[0][0] == "truncate"
    assert "its file system does not share memory between processes" in caplog.text


# Files that go away


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_registry_that_goes_away_is_noticed_and_saved(tmp_path, how):
    path = tmp_path / "a.db"
    with Registry(path) as registry:
        number = add_candidate(registry)
        registry.record(number, report(1), status=Status.RUNNING)
        path.unlink()
        if how == "replaced":
            shutil.copy(OLD / "format-1.db", path)
        with pytest.raises(SnasError, match=rf"a.db was {how} .*a.db.rescued: .*move that back"):
            registry.record(number, report(2), status=Status.RUNNING)
    if how == "replaced":
        assert path.read_bytes() == (OLD / "format-1.db").read_bytes()
    with Registry(tmp_path / "a.db.rescued") as registry:
        (record,) = registry.candidates(registry.find_study("one"))
    assert record.epochs == 1


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_what_is_saved_can_be_moved_back_as_the_line_says(tmp_path, how):
    from snas.registries.check import check
    from snas.registries.heartbeat import at_work

    path = tmp_path / "r.db"
    with Registry(path) as registry:
        study = registry.add_study("one", identity={}, samples=2000, environment={})

        def add(numbers) -> None:
            for number in numbers:
                registry.add_candidate(study, number, seed=number, point=np.full(2, 0.5), kept={"a": 1})

        with registry.together():
            add(range(900))
        registry.query("PRAGMA wal_checkpoint(RESTART)")
        add(range(900, 905))

        def work() -> None:
            with at_work(registry, study):
                path.unlink()
                if how == "replaced":
                    path.write_bytes(b"")
                add([905])

        with pytest.raises(SnasError) as caught:
            work()
        with pytest.raises(SnasError) as again:
            add([905])
        assert str(again.value) == str(caught.value)
    aside = {"r.db-wal.orphaned", "r.db-shm.orphaned"} if how == "deleted" else {"r.db", "r.db-wal", "r.db-shm"}
    assert {file.name for file in tmp_path.iterdir()} == {"r.db.rescued"} | aside
    if how == "deleted":
        assert "r.db.rescued: move that back and run the same command" in str(caught.value)
    else:
        assert "r.db.rescued: remove r.db-wal and r.db-shm, move that back" in str(caught.value)
        for name in aside:
            (tmp_path / name).unlink()
    (tmp_path / "r.db.rescued").rename(path)
    found = check(path)
    assert found.problems == ()
    assert found.counts["trainings"] == 905
    with Registry(path) as registry:
        registry.add_candidate(registry.find_study("one"), 905, seed=905, point=np.full(2, 0.5), kept={"a": 1})
    assert check(path).counts["trainings"] == 906


# Logs that are damaged


def killed_writer(path: Path) -> None:
    """Write some transactions and die before they are written back."""
    code = (
        "import os, sys; import numpy as np; from snas.registry import Registry\n"
        "registry = Registry(sys.argv[1])\n"
        "study = registry.add_study('one', identity={}, samples=5, environment={})\n"
        "for number in range(5): registry.add_candidate(study, number, seed=1, point=np.zeros(1), kept={})\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=False)
    assert wal.log_of(path).stat().st_size > 0


def test_what_a_killed_writer_has_stored_is_there_without_a_word(tmp_path, caplog):
    killed_writer(tmp_path / "a.db")
    with Registry(tmp_path / "a.db") as registry:
        assert len(registry.candidates(registry.find_study("one"))) == 5
    assert caplog.records == []


@pytest.mark.parametrize("what", ["header", "frame", "cut", "missing"])
@pytest.mark.parametrize("snapshot", [False, True])
def test_a_damaged_log_is_told_of_and_kept(tmp_path, caplog, what, snapshot):
    path = tmp_path / "a.db"
    killed_writer(path)
    log = wal.log_of(path)
    content = bytearray(log.read_bytes())
    if what == "missing":
        log.unlink()
    else:
        place = 5 if what == "header" else len(content) - 5000
        content[place] ^= what != "cut"
        log.write_bytes(content[:-100] if what == "cut" else content)
    log_content = log.read_bytes() if log.exists() else b""
    with Registry(path, create=not snapshot, snapshot=snapshot) as registry:
        studies = registry.studies()
    assert "the write-ahead log beside it could not be read to its end" in caplog.text
    kept = list(tmp_path.glob("*.damaged"))
    assert [file.read_bytes() for file in kept] == ([] if what == "missing" else [log_content])
    assert len(studies) == (what in ("frame", "cut"))  # what came before the damage is there


def test_what_a_killed_writer_had_not_ended_is_no_damage(tmp_path, caplog):
    path = tmp_path / "a.db"
    killed_writer(path)
    with Registry(path) as registry:  # keeps the log in use
        study = registry.find_study("one")
        for number in range(5, 8):
            registry.add_candidate(study, number, seed=1, point=np.zeros(1), kept={})
        log = wal.log_of(path)
        content = log.read_bytes()
        frame = content[-4120:]
        log.write_bytes(content + frame)  # with the salts of the log, and the end of a transaction
        with Registry(path) as other:
            assert len(other.candidates(study)) == 8
    assert caplog.records == []


def test_a_log_that_begins_anew_is_not_damaged(tmp_path, caplog):
    path = tmp_path / "a.db"
    with Registry(path) as first:
        study = add_study(first)
        for number in range(20):
            first.add_candidate(study, number, seed=1, point=np.zeros(1), kept={})
            if number % 5 == 0:
                first.query("PRAGMA wal_checkpoint(RESTART)")
            Registry(path).close()
    assert caplog.records == []


# Copies


def test_copies_take_no_place_of_another_file(tmp_path):
    with Registry(tmp_path / "a.db") as registry:
        target = tmp_path / "b.db"
        target.write_text("mine")
        with pytest.raises(SnasError, match="exists already"):
            copies.copy_into(registry.connection, target)
        assert target.read_text() == "mine"
        assert copies.free_name(target).name == "b.db.2"
        copies.copy_into(registry.connection, target, replace=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "b.db"]


def test_an_older_backup_of_a_migration_is_left_alone(tmp_path):
    path = tmp_path / "old.db"
    backup = tmp_path / "old.db.format-1.bak"
    backup.write_text("an older backup")
    shutil.copy(OLD / "format-1.db", path)
    Registry(path).close()
    assert backup.read_text() == "an older backup"
    with sqlite3.connect(tmp_path / "old.db.format-1.bak.2") as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
    copy.close()


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_no_copy_is_written_where_the_log_of_an_earlier_file_lies(tmp_path, ending):
    from snas.registries.backup import back_up

    path = tmp_path / "old.db"
    shutil.copy(OLD / "format-1.db", path)
    left = [tmp_path / f"{name}{ending}" for name in ("copy.db", "old.db.format-1.bak")]
    for file in left:
        file.write_text("of an earlier file")
    with pytest.raises(InputError, match=f"copy.db{ending} of an earlier file lies there; move that away"):
        back_up(path, tmp_path / "copy.db", force=True)
    assert not (tmp_path / "copy.db").exists()
    Registry(path).close()
    assert not (tmp_path / "old.db.format-1.bak").exists()
    assert (tmp_path / "old.db.format-1.bak.2").exists()
    assert [file.read_text() for file in left] == ["of an earlier file"] * 2


def test_a_migration_without_room_for_its_backup_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "old.db"
    shutil.copy(OLD / "format-2.db", path)
    before = path.read_bytes()

    def full(connection, target, **_):
        raise SnasError(f"no room to write registry {target}")

    monkeypatch.setattr(database, "copy_into", full)
    with pytest.raises(SnasError, match="no room"):
        Registry(path)
    assert path.read_bytes()[100:] == before[100:]  # its header tells of the log by now
    assert [file.name for file in tmp_path.iterdir()] == ["old.db"]


def test_a_migration_that_fails_leaves_no_backup_behind(tmp_path, monkeypatch):
    path = tmp_path / "old.db"
    shutil.copy(OLD / "format-2.db", path)
    monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, "NONSENSE;\n"))
    with pytest.raises(SnasError, match="syntax error"):
        Registry(path)
    assert [file.name for file in tmp_path.iterdir()] == ["old.db"]


def test_looking_at_a_registry_that_this_process_has_open_keeps_its_locks(tmp_path):
    from snas.registries.backup import back_up
    from snas.registries.check import check

    path = tmp_path / "a.db"
    back_up(OLD / "format-3.db", path)
    killed_writer(tmp_path / "b.db")
    for place in (path, tmp_path / "b.db"):
        with Registry(place) as registry:
            registry.query("SELECT 1 FROM studies")
            before = locks_of(place)
            Registry(place).close()
            Registry(place, snapshot=True).close()
            check(place)
            assert locks_of(place) == before
            assert {name for name, _ in before} >= {f"{place.name}-shm"}


def locks_of(path: Path) -> set[tuple[str, str]]:
    """The locks that this process has on a registry's files."""
    names = {f"{file.stat().st_ino}": file.name for file in path.parent.iterdir() if file.name.startswith(path.name)}
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        inode = words[5].rpartition(":")[2]
        if words[1] == "POSIX" and words[4] == str(os.getpid()) and inode in names:
            found.add((names[inode], " ".join(words[6:])))
    return found
