"""Candidates on Ray: Tune runs them, the search says what they do, nothing is lost with a process, node or driver."""

from __future__ import annotations

import importlib.util
import itertools
import json
import logging
import os
import pickle
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from test_processes import Queue, by_epoch, in_rungs, job, run, task_of

from snas.errors import InputError, SnasError
from snas.evaluators import ray_cluster, ray_tune
from snas.evaluators.base import Failure
from snas.evaluators.counter import LAST, Asked, Closed, Counter, Ended, Heard, Letter, Lost
from snas.evaluators.ray_tune import RayEvaluator
from snas.evaluators.resources import read_resources, room, written
from snas.evaluators.serial import SerialEvaluator
from snas.registry import Registry
from snas.settings import SearchSettings
from snas.training.carried import Carried
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task
from snas.trials import Report, Status

ROOT = Path(__file__).resolve().parents[2]
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed; pip install 'snas[ray]'"
)
SEARCH = [sys.executable, "-m", "snas", "search", "--space", "lenet-300-100", "--strategy", "random", "--threads", "1"]
SEARCH += ["--confirm", "0", "--final-seeds", "0", "--format", "json", "--registry", "r.db"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "resources is empty"),
        ("cpu", "resources has 'cpu'; expected name=amount, as in cpu=1,gpu=0.25"),
        ("cpu=two", "resources has cpu=two; expected an amount of at least 0"),
        ("cpu=-1", "resources has cpu=-1"),
        ("cpu=nan", "resources has cpu=nan"),
        ("cpu=inf", "resources has cpu=inf"),
        ("gpu=0.00001", "resources has gpu=0.00001"),
        ("gpu=2", "expected at most 1, since a network trains on one GPU"),
        ("cpu=1,CPU=2", "resources names 'cpu' twice"),
        ("cpu=0", "which is nothing"),
    ],
)
def test_resources_that_cannot_be_are_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_resources(text)


def test_resources_are_counted_as_ray_counts_them() -> None:
    third = read_resources("cpu=1,gpu=0.3333")
    assert written(third) == "cpu=1,gpu=0.3333"
    assert room([{"CPU": 8.0, "GPU": 1.0}], third) == 3
    assert room([{"CPU": 2.0, "GPU": 1.0}, {"CPU": 9.0}], third) == 2
    assert room([{"CPU": 0.3}], read_resources("cpu=0.1")) == 3  # 0.3 // 0.1 is 2 for floating-point numbers
    assert room([{"CPU": 4.0, "big": 1.0}], read_resources("cpu=1,big=1")) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"evaluator": "serial", "ray_address": "auto"}, "ray-address is for evaluator ray, not serial"),
        ({"resources": "cpu=1"}, "resources is for evaluator ray, not auto"),
        ({"concurrency": 2}, "concurrency is for evaluator ray, not auto"),
        ({"evaluator": "ray", "concurrency": 0}, "concurrency is 0; expected an integer from 1"),
        ({"evaluator": "ray", "concurrency": 2, "slots": 2}, "slots and concurrency mean the same"),
        ({"evaluator": "ray", "resources": "gpu=2"}, "gpu=2; expected at most 1"),
        ({"evaluator": "ray", "ray_address": "ray://host:10001"}, "expected host:port of a head node"),
        ({"evaluator": "ray", "ray_address": "host"}, "expected host:port of a head node"),
        ({"evaluator": "ray", "ray_address": "host:99999"}, "expected host:port of a head node"),
    ],
)
def test_settings_of_ray_are_checked_before_anything_starts(
    given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: name)
    with pytest.raises(InputError, match=message):
        SearchSettings(**given)


def test_where_ray_is_missing_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"Ray, which is not installed; pip install 'snas\[ray\]'"):
        SearchSettings(evaluator="ray")


def test_nobody_waits_at_a_closed_counter_and_an_open_letter_is_empty() -> None:
    counter, gone = Counter(), threading.Event()

    def ask() -> None:
        with pytest.raises(Closed):
            counter.ask(Asked("a"))
        gone.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert counter.hear(5) == Asked("a")
    counter.close()
    assert gone.wait(5)
    thread.join()
    with pytest.raises(Closed):
        counter.ask(Asked("b"))
    assert counter.hear(0) is None
    assert deepcopy(counter) is counter
    letter = Letter(b"state")
    assert (deepcopy(letter), repr(letter), letter.read()) == (letter, "letter", b"state")
    assert (letter.open(), letter.open()) == (b"state", b"")


def test_a_state_travels_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = Carried(last=3), Carried(last=3)
    one.save("key", 2, {"w": torch.arange(6.0).reshape(2, 3).t()})
    two.bring(2, one.take())
    assert one.take() == b""
    (loaded,) = (two.load("key", 2) or {}).values()
    assert torch.equal(loaded, torch.arange(6.0).reshape(2, 3).t())
    assert two.load("key", 1) is None
    found = two.load_latest("key", 3)  # what there is where the newest was lost
    assert found is not None
    assert found[0] == 2
    one.save("key", 3, {"w": torch.zeros(1)})  # nobody goes on from the last epoch
    assert one.take() == b""
    assert list(tmp_path.iterdir()) == []


class Nodes:
    """Stands in for a cluster with room for so many."""

    own = True

    def __init__(self, room: int) -> None:
        self._room = room

    def room(self, resources: Mapping[str, float]) -> int:
        return self._room


class Tune:
    """Stands in for Ray Tune: a loop in a thread that asks, trains with our trainable, and tells, trial by trial.

    `loses` says before which epoch of which candidate a trial is lost, and how often; `breaks` after how many reports
    the loop raises.
    """

    def __init__(self, *, loses: dict[tuple[int, int], int] | None = None, breaks: Sequence[int] = ()) -> None:
        self.loses = dict(loses or {})
        self.breaks = list(breaks)
        self.most = 0
        self.heard = 0

    @contextmanager
    def thread(self, cluster: Any, resources: Any, first: bytes, examples: Any, folder: str) -> Iterator[Counter]:
        counter = Counter()
        thread = threading.Thread(target=self._run, args=(counter, first, examples))
        thread.start()
        try:
            yield counter
        finally:
            counter.close()
            thread.join()

    def _run(self, counter: Counter, first: bytes, examples: Any) -> None:
        error: BaseException | None = None
        try:
            self._loop(counter, first, examples)
        except BaseException as problem:
            error = problem
        counter.tell(Ended(error))

    def _loop(self, counter: Counter, first: bytes, examples: Any) -> None:
        from snas.evaluators.ray_adapters import Candidate

        live: dict[str, tuple[Any, list[int]]] = {}
        over = False
        for number in itertools.count():
            while not over and (answer := counter.ask(Asked(f"{number}-{len(live)}"))) is not None:
                over = answer == LAST
                if not over:
                    candidate: Any = object.__new__(Candidate)
                    candidate.setup({"job": answer}, first=first, examples=examples)
                    *_, rest, start, _ = pickle.loads(answer.read())
                    live[f"{number}-{len(live)}"] = candidate, [pickle.loads(rest)["trial"], start]
            self.most = max(self.most, len(live))
            if over and not live:
                return
            for trial, (candidate, place) in list(live.items()):
                place[1] += 1
                if self.loses.get((place[0], place[1])):
                    self.loses[place[0], place[1]] -= 1
                    candidate.step()  # trained, but nobody hears of it
                    del live[trial]
                    counter.ask(Lost(trial, "its node has died"))
                    continue
                if self.breaks and self.heard >= self.breaks[0]:
                    self.breaks.pop(0)
                    raise KeyError("a defect")
                goes_on = counter.ask(Heard(trial, candidate.step()["letter"]))
                self.heard += 1
                if not goes_on:
                    del live[trial]


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[RayEvaluator, Tune, Task]]:
    """Makes an evaluator whose Tune is a double."""
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'snas[ray]'")
    from snas.evaluators import ray_adapters

    monkeypatch.setattr(ray_adapters.ray, "get_gpu_ids", lambda: [])
    monkeypatch.setattr(ray_adapters, "log", logging.getLogger("elsewhere"))

    def make(places: int = 2, **options: Any) -> tuple[RayEvaluator, Tune, Task]:
        task, tune = task_of(), Tune(**options)
        evaluator = RayEvaluator(task, Checkpoints(tmp_path / "a"))
        monkeypatch.setattr(evaluator, "_connect", lambda: Nodes(places))
        monkeypatch.setattr(ray_tune, "_thread", tune.thread)
        return evaluator, tune, task

    return make


@needs_ray
@pytest.mark.parametrize("places", [1, 2, 3])
def test_results_are_those_of_the_serial_evaluator_to_the_bit(
    places: int, tuned: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator, tune, task = tuned(places)
    jobs = in_rungs(task, [3, 1, 2, 0])
    serial = by_epoch(run(SerialEvaluator(task, Checkpoints(tmp_path / "b")), jobs))
    assert by_epoch(run(evaluator, jobs)) == serial
    assert "trained again" not in caplog.text  # the states that the jobs brought were gone on from
    assert tune.most == places
    assert list((tmp_path / "a").iterdir()) == []


@needs_ray
def test_a_trial_goes_on_only_when_its_report_is_filed(tuned: Any, tmp_path: Path) -> None:
    evaluator, tune, task = tuned(1)
    names = []
    for filed, (report,) in enumerate(evaluator.run(Queue([job(task, 0)]))):
        names.append(sorted(path.name for path in (tmp_path / "a").iterdir()))
        time.sleep(0.05)  # in which a trial that did not wait would be heard again
        assert (tune.heard, report.epoch) == (filed, filed + 1)
    assert names == [  # the older state is dropped when the report is filed
        ["trial-0-1.safetensors"],
        ["trial-0-1.safetensors", "trial-0-2.safetensors"],
        ["trial-0-2.safetensors"],
    ]


@needs_ray
@pytest.mark.parametrize("losses", [1, 2, 3])
def test_a_lost_trial_goes_on_from_its_last_record_three_times_at_most(
    losses: int, tuned: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator, _, task = tuned(loses={(1, 2): losses})
    jobs = [job(task, number) for number in range(3)]
    rounds = run(evaluator, jobs)
    serial = by_epoch(run(SerialEvaluator(task, Checkpoints(tmp_path / "b")), jobs))
    failures = [one for reports in rounds for one in reports if isinstance(one, Failure)]
    places = [(one.trial, one.epoch) for reports in rounds for one in reports if isinstance(one, Report)]
    assert len(set(places)) == len(places)
    assert caplog.text.count("trial-1 goes on from epoch 1 in another trial: its node has died") == min(losses, 2)
    if losses < 3:
        assert (failures, by_epoch(rounds)) == ([], serial)
    else:
        assert failures == [Failure(1, Status.FAILED, "its node has died (3 tries)")]
        rest = [[one for one in reports if isinstance(one, Report)] for reports in rounds]
        assert by_epoch(rest) == {place: one for place, one in serial.items() if place not in {(1, 2), (1, 3)}}
    assert list((tmp_path / "a").iterdir()) == []


@needs_ray
def test_losses_at_different_epochs_do_not_add_up(tuned: Any, tmp_path: Path) -> None:
    evaluator, _, task = tuned(loses={(0, 1): 2, (0, 2): 2, (0, 3): 2})
    serial = by_epoch(run(SerialEvaluator(task, Checkpoints(tmp_path / "b")), [job(task, 0)]))
    assert by_epoch(run(evaluator, [job(task, 0)])) == serial


@needs_ray
def test_where_no_process_ever_answers_the_search_ends_and_says_why(tuned: Any) -> None:
    evaluator, _, task = tuned(loses={(0, 1): 3})
    with pytest.raises(SnasError, match=r"its node has died \(3 tries\); snas must be installed on every node"):
        run(evaluator, [job(task, 0)])


@needs_ray
def test_a_loop_that_breaks_is_begun_anew_with_the_jobs_that_were_out(
    tuned: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator, _, task = tuned(breaks=[3, 5])
    jobs = in_rungs(task, [0, 1])
    serial = by_epoch(run(SerialEvaluator(task, Checkpoints(tmp_path / "b")), jobs))
    assert by_epoch(run(evaluator, jobs)) == serial
    assert caplog.text.count("Ray Tune is begun anew: KeyError: 'a defect'") == 2
    evaluator, _, task = tuned(breaks=[0, 0, 0])
    with pytest.raises(SnasError, match="Ray Tune does not run: KeyError: 'a defect'"):
        run(evaluator, [job(task, 0)])


@needs_ray
def test_a_lost_checkpoint_costs_its_epochs_again_and_is_not_reported_twice(
    tuned: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator, _, task = tuned(1)
    whole = by_epoch(run(SerialEvaluator(task, Checkpoints(tmp_path / "b")), [job(task, 0)]))
    assert by_epoch(run(evaluator, [job(task, 0, start=1)])) == {at: one for at, one in whole.items() if at[1] > 1}
    assert "trial-0-1.safetensors is gone" in caplog.text


@needs_ray
def test_whatever_stops_the_search_lets_tunes_loop_go(tuned: Any) -> None:
    evaluator, _, task = tuned()
    rounds = evaluator.run(Queue([job(task, 0), job(task, 1)]))
    next(rounds)
    rounds.close()  # would wait for the thread for ever
    assert not [thread for thread in threading.enumerate() if thread.name == "ray-tune"]


@needs_ray
def test_other_versions_on_a_node_are_told_at_the_first_word(tuned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from snas.evaluators import ray_adapters

    evaluator, _, task = tuned()
    mine = ray_adapters.versions()
    monkeypatch.setattr(ray_adapters, "versions", lambda: {**mine, "torch": "1.0"})
    monkeypatch.setattr(ray_adapters.ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    with pytest.raises(SnasError, match=r"node 10.0.0.7 has torch 1.0 \(there .*; install the same versions"):
        run(evaluator, [job(task, 0)])


@needs_ray
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ray.exceptions.ActorDiedError: The actor died because its node has died. Node Id: 1", "its node has died"),
        ("ActorDiedError: The actor died unexpectedly before finishing this task.", "its process has died"),
        ("OutOfMemoryError: Task was killed due to the node running low on memory.", "ended for lack of memory"),
        ("Traceback\n  line\nModuleNotFoundError: No module named 'snas'\n", "^ModuleNotFoundError: No module named"),
        ("", "Ray says nothing"),
    ],
)
def test_reasons_are_short(text: str, reason: str) -> None:
    from snas.evaluators.ray_adapters import reason_of

    assert re.search(reason, reason_of(text))


@needs_ray
def test_a_search_on_ray_prints_json_alone_and_equals_a_serial_one(tmp_path: Path) -> None:
    command = [*SEARCH, "--samples", "4", "--epochs", "2", "--eta", "4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    facts = {}
    for name in ("ray", "serial"):
        (tmp_path / name).mkdir()
        found = subprocess.run(
            [*command, "--evaluator", name], capture_output=True, text=True, cwd=tmp_path / name, env=environment
        )
        assert found.returncode == 0, found.stderr
        assert json.loads(found.stdout)["candidates"] == 4
        assert all(line.startswith(("study ", "candidate ")) for line in found.stderr.splitlines()), found.stderr
        facts[name] = facts_of(tmp_path / name / "r.db")
    assert facts["ray"] == facts["serial"]
    # What is done is not begun again, nor Ray for it.
    again = subprocess.run(
        [*command, "--evaluator", "ray", "--ray-address", "127.0.0.1:9"],
        capture_output=True, text=True, cwd=tmp_path / "ray", env=environment,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr


def facts_of(path: Path) -> list[tuple[object, ...]]:
    with Registry(str(path)) as registry:
        (study,) = registry.studies()
        return [
            (
                one.number,
                one.status,
                one.mask_checksum,
                one.signals,
                [(r.epoch, r.train_loss, r.validation_loss) for r in one.reports],
            )
            for one in registry.candidates(study)
        ]


@needs_ray
def test_an_address_where_nobody_answers_is_said_at_once(tmp_path: Path) -> None:
    found = subprocess.run(
        [*SEARCH, "--samples", "1", "--epochs", "1", "--evaluator", "ray", "--ray-address", "127.0.0.1:9"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (2, "")
    assert "snas: ray-address is '127.0.0.1:9', but nothing answers there; start Ray with ray start" in found.stderr


LONG = [*SEARCH, "--samples", "24", "--epochs", "16", "--batch-size", "4", "--evaluator", "ray"]  # about half a minute


def end_with(number: int, *, group: bool, tmp_path: Path, wait_for_reports: Any, **environment: str) -> str:
    """Start a long search, send it a signal when it has recorded some epochs, and return what it said."""
    process = subprocess.Popen(
        LONG,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for_reports(str(tmp_path / "r.db"), 3, seconds=240)  # Ray takes its time on a busy machine
        os.killpg(process.pid, number) if group else process.send_signal(number)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out) == (130, "")
        return err
    finally:
        if process.poll() is None:
            process.kill()


def left_of(mark: str) -> list[str]:
    """The commands of processes that have the mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark.encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                pass  # it has ended
    return found


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are told by their environment in /proc")
@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_ctrl_c_stops_cleanly_and_leaves_no_process_of_ray(
    number: int, group: bool, tmp_path: Path, wait_for_reports: Any
) -> None:
    mark = f"{tmp_path}-{number}"
    err = end_with(number, group=group, tmp_path=tmp_path, wait_for_reports=wait_for_reports, SNAS_TEST_MARK=mark)
    lines = [line for line in err.splitlines() if not line.startswith(("study ", "candidate "))]
    assert lines == ["snas: interrupted; what was recorded is kept, and the same command resumes"]
    for _ in range(100):
        if not (left := left_of(mark)):
            break
        time.sleep(0.1)
    assert left == []


@needs_ray
@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_but_time_on_a_ray_of_the_users_own(tmp_path: Path) -> None:
    script = """
import logging, os, signal, threading, time
import ray, snas

if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)

    @ray.remote(num_cpus=0)
    def still_there():
        return True

    class Killer(snas.Listener):
        done = False

        def on_report(self, report, **_):
            if not self.done and report.trial > 1:
                self.done = True
                for name in filter(str.isdigit, os.listdir("/proc")):
                    try:
                        mine = os.environ["RAY_AUTH_TOKEN"].encode() in open(f"/proc/{name}/environ", "rb").read()
                        if mine and b"Trainable" in open(f"/proc/{name}/cmdline", "rb").read():
                            os.kill(int(name), signal.SIGKILL)
                            print("killed", flush=True)
                            return
                    except OSError:
                        pass  # it has ended

    snas.search("lenet-300-100", strategy="random", samples=6, epochs=4, batch_size=8, confirm=0, final_seeds=0,
                evaluator="ray", threads=1, registry="r.db", listener=Killer())
    print(ray.get(still_there.remote()))
"""
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    found = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
    )
    assert (found.returncode, found.stdout) == (0, "killed\nTrue\n"), found.stderr
    assert "in another trial: its process has died" in found.stderr
    statuses = [status for _, status, *_ in facts_of(tmp_path / "r.db")]
    assert len(statuses) == 6
    assert set(statuses) <= {Status.PAUSED, Status.FINISHED}


@needs_ray
@pytest.mark.slow
def test_what_no_node_has_is_said(tmp_path: Path) -> None:
    found = subprocess.run(
        [*SEARCH, "--samples", "1", "--epochs", "1", "--evaluator", "ray", "--resources", "cpu=1,big=1"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (2, "")
    assert "snas: resources is cpu=1,big=1, which no node of Ray has; they have cpu=" in found.stderr


@needs_ray
@pytest.mark.slow
def test_a_space_from_a_file_and_what_it_imports_go_along(tmp_path: Path) -> None:
    (tmp_path / "sizes_of_mine.py").write_text("WIDTH = 7\n", encoding="utf-8")
    (tmp_path / "nets.py").write_text(
        "import math\nfrom sizes_of_mine import WIDTH\nfrom torch import nn\n"
        "def factory(input_shape, classes):\n"
        "    n = math.prod(input_shape)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(n, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes))\n",
        encoding="utf-8",
    )
    command = [*SEARCH, "--space", "nets.py:factory", "--samples", "3", "--epochs", "2"]
    for name in ("ray", "serial"):
        subprocess.run(
            [*command, "--evaluator", name, "--registry", f"{name}.db", "--quiet"],
            check=True, capture_output=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    ray, serial = (dict(zip(range(3), facts_of(tmp_path / f"{name}.db"), strict=True)) for name in ("ray", "serial"))
    for number in range(3):
        both = min(len(ray[number][4]), len(serial[number][4]))  # who is promoted depends on who was faster
        assert ray[number][4][:both] == serial[number][4][:both]
        assert both


@needs_ray
@pytest.mark.slow
def test_two_nodes_of_which_one_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "faults" / "ray_nodes.py"), "--samples", "8", "--epochs", "4"]
    found = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=600
    )
    assert found.returncode == 0, found.stdout + found.stderr
    told = json.loads(found.stdout)
    assert (told["candidates"], told["failed"], told["errors"]) == (8, 0, [])
    assert told["processes of the node killed"] > 0


@needs_ray
@pytest.mark.slow
def test_a_driver_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "faults" / "ray_kills.py"),
        "--kills",
        "2",
        "--samples",
        "12",
        "--epochs",
        "4",
    ]
    found = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=600
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert json.loads(found.stdout)["kills"] == 2
