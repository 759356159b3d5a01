from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from pathlib import Path

import pytest
import torch

import snas
from snas.evaluators import forks
from snas.evaluators.forks import Copy, safe
from snas.registry import Registry

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies are for Linux")


def test_a_copy_works_and_ends(tmp_path: Path) -> None:
    copy = Copy(lambda: (tmp_path / "made").write_text(str(os.getpid()), encoding="utf-8"), keep=())
    assert copy.wait() == 1  # work is never to come to an end by itself
    assert (tmp_path / "made").read_text(encoding="utf-8") == str(copy.pid) != str(os.getpid())
    assert copy.wait(0.0) == 1


def test_a_copy_that_goes_on_is_waited_for_in_vain_and_killed() -> None:
    copy = Copy(lambda: time.sleep(60), keep=())
    with pytest.raises(TimeoutError):
        copy.wait(0.05)
    copy.kill()
    assert copy.wait(10) == -signal.SIGKILL
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "kill", None)
        copy.kill()  # it is gone, and its number may be another's


def test_a_copy_has_the_files_that_it_is_given_and_no_others(tmp_path: Path) -> None:
    ours, theirs = Pipe()
    with open(tmp_path / "held", "w", encoding="utf-8"):
        copy = Copy(lambda: theirs.send(sorted(map(int, os.listdir("/proc/self/fd")))), keep=[theirs.fileno()])
        found = ours.recv()
    assert copy.wait(10) == 1
    assert {0, 1, 2, theirs.fileno()} < set(found)
    assert len(found) == 5  # one more is the folder itself, while it is read


def test_a_copy_finalizes_nothing_of_its_parents(tmp_path: Path) -> None:
    class Held:
        def __del__(self) -> None:
            (tmp_path / str(os.getpid())).touch()

    gc.disable()
    try:
        one = Held()
        one.me = one  # type: ignore[attr-defined]
        del one
        copy = Copy(gc.collect, keep=())
        assert copy.wait(10) == 1
        assert list(tmp_path.iterdir()) == []
    finally:
        gc.enable()
        gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]


def test_what_was_printed_is_printed_once_and_errors_are_told(tmp_path: Path) -> None:
    script = """
import sys
from snas.evaluators.forks import Copy
sys.stdout.write("once ")
def work():
    print("for the log")
    raise ValueError("told")
Copy(work, keep=()).wait()
print("end")
"""
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    found = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (found.returncode, found.stdout) == (0, "once end\n"), found.stderr
    assert "for the log" in found.stderr
    assert "ValueError: told" in found.stderr


def test_a_copy_ends_with_its_parent_even_if_it_never_looks() -> None:
    script = """
import os, signal, time
from snas.evaluators.forks import Copy
def work():
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    while True:
        time.sleep(1)
copy = Copy(work, keep=())
print(copy.pid, flush=True)
time.sleep(0.2)
os.kill(os.getpid(), signal.SIGKILL)
"""
    found = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    child = int(found.stdout)
    for _ in range(200):
        try:
            state = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("it goes on")


def test_copies_are_not_safe_beside_other_threads() -> None:
    before = len(forks.others())
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert len(forks.others()) == before + 1
        assert not safe(1)
    finally:
        stop.set()
        thread.join()


def test_where_copies_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "others", list)
    monkeypatch.delenv(forks.VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert safe(1)
    assert not safe(2)
    monkeypatch.setenv(forks.VARIABLE, "spawn")
    assert not safe(1)
    monkeypatch.delenv(forks.VARIABLE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not safe(1)


def test_workers_that_are_copies_and_workers_started_anew_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "others", list)
    found = []
    for how in ("", "spawn"):
        monkeypatch.setenv(forks.VARIABLE, how)
        path = tmp_path / f"{how or 'copy'}.db"
        snas.search(
            "mlp", space_arg={"width": 16}, samples=3, epochs=2, final_seeds=0, confirm_seeds=0, evaluator="processes",
            slots=2, threads=1, registry=str(path), strategy="random",
        )  # fmt: skip
        with Registry(str(path)) as registry:
            (study,) = registry.studies()
            found.append(
                [
                    [(report.train_loss, report.validation_loss, report.mask_checksum) for report in one.reports]
                    for one in registry.candidates(study)
                ]
            )
    assert found[0] == found[1]
    assert sum(map(len, found[0])) >= 4
