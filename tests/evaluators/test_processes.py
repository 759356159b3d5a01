"""Candidates in processes of their own: the serial evaluator's results, and nothing lost when a process dies."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from snas.bench import open_bench
from snas.densities import Densities
from snas.errors import InputError, SnasError
from snas.evaluators import auto, forks, processes
from snas.evaluators.base import Evaluator, Failure, Job
from snas.evaluators.processes import ProcessesEvaluator
from snas.evaluators.serial import SerialEvaluator
from snas.evaluators.sharing import Answer, Setup, foreign_modules, map_examples, own_plugins, pack, write_examples
from snas.evaluators.stacked import StackedEvaluator
from snas.evaluators.worker import Worker
from snas.pruning.methods import given_densities
from snas.pruning.scores import scores
from snas.registry import Registry
from snas.search_spaces.base import SearchSpace
from snas.search_spaces.catalog import open_space
from snas.settings import Settings
from snas.testing import Queue
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task
from snas.trials import Report, Status

LONG = [sys.executable, "-m", "snas", "search", "--space", "lenet-300-100", "--strategy", "random", "--samples", "8"]
LONG += ["--evaluator", "processes", "--slots", "2", "--epochs", "8", "--confirm", "0", "--final-seeds", "0"]


class Double(processes.Process):
    """Stands in for a process: the same worker, in this one. It dies instead of training as often as `deadly` says."""

    started: ClassVar[list[Double]] = []
    deadly: ClassVar[dict[int, int]] = {}
    listens = True
    task: Task

    def __init__(self, setup: Setup, packed: bytes, examples: object, *, threads: int) -> None:
        self.connection, self._theirs = Pipe()
        self.spaces = {0}
        given = pickle.loads(packed)[1]
        assert given.folder == setup.folder
        self._worker = Worker(self.task, Checkpoints(given.folder), parked_bytes=given.parked_bytes)
        self._worker.know(0, self.task.space)
        self.learnt: list[int] = []
        self._alive = True
        self.takes: list[int] = []
        self.started.append(self)
        self._theirs.send(Answer(logged=((logging.WARNING, "begun"),)))

    def send(self, *messages: bytes) -> None:
        for message in messages:
            what, *arguments = pickle.loads(message)
            if what == "know":
                self.learnt.append(arguments[0])
            if what == "take":
                self.takes.append(arguments[1]["trial"])
            if what == "train" and self.deadly.get(self.takes[-1]):
                self.deadly[self.takes[-1]] -= 1
                self._theirs.close()
            if not self._theirs.closed and (found := getattr(self._worker, what)(*arguments)) is not None:
                self._theirs.send(found)
        self._worker.run_ahead()  # as it does when nothing more has come

    def end(self) -> str:
        self.connection.close()
        return "its process was ended by signal 9"


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch) -> Task:
    """The task of the doubles that stand in for processes."""
    monkeypatch.setattr(processes, "Process", Double)
    monkeypatch.setattr(Double, "started", [])
    monkeypatch.setattr(Double, "deadly", {})
    monkeypatch.setattr(Double, "task", task_of(), raising=False)
    return Double.task


def task_of(space: str = "mlp", **arguments: object) -> Task:
    given = arguments or {"hidden_layers": 2, "width": 16, "dropout": 0.1}
    return open_bench(Settings(space=space, space_arg=given, epochs=3, precision="fp32")).task


def job(task: Task, number: int, *, start: int = 0, until: int = 3, method: str = "random") -> Job:
    fractions = np.random.default_rng(number).uniform(0.2, 0.6, len(task.space.layers))
    densities = Densities.from_fractions(task.space.layers, fractions.tolist())
    rule = given_densities(method)
    return Job(number, task.space, rule, densities, seed=number, start=start, until=until, key=f"trial-{number}")


def in_rungs(task: Task, numbers: Sequence[int]) -> list[Job]:
    """Jobs that pause after an epoch, and then their promotions."""
    return [job(task, number, until=1) for number in numbers] + [job(task, number, start=1) for number in numbers]


def run(evaluator: Evaluator, jobs: Sequence[Job], *, ahead: bool = False) -> list[list[Report | Failure]]:
    return [list(reports) for reports in evaluator.run(Queue(jobs, ahead=ahead))]


def by_epoch(rounds: Sequence[Sequence[Report | Failure]]) -> dict[tuple[int, int], Report]:
    reports = [report for reports in rounds for report in reports]
    assert all(isinstance(report, Report) for report in reports), reports
    return {
        (report.trial, report.epoch): replace(report, seconds=0) for report in reports if isinstance(report, Report)
    }


def places(rounds: Sequence[Sequence[Report | Failure]]) -> list[list[tuple[int, int]]]:
    return [[(one.trial, one.epoch if isinstance(one, Report) else 0) for one in reports] for reports in rounds]


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_results_are_those_of_the_serial_evaluator_to_the_bit_though_a_process_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_of("resnet14", width=4)
    jobs = [*in_rungs(task, [0, 1, 2]), job(task, 3, method="snip"), job(task, 4, method="random + rigl")]
    serial = by_epoch(run(SerialEvaluator(task, Checkpoints(tmp_path / "a")), jobs))
    evaluator = ProcessesEvaluator(task, Checkpoints(tmp_path / "b"), slots=2)
    rounds, pids = [], set()
    for reports in evaluator.run(Queue(jobs)):
        pids |= {process.pid for process in evaluator._processes.values()}
        rounds.append(reports)
        if len(rounds) == 6:
            os.kill(evaluator._processes[1].pid, signal.SIGKILL)
    assert by_epoch(rounds) == serial
    assert (
        "trial-4 goes on from epoch 1 in another process: its process was ended by signal 9, perhaps for lack"
        in caplog.text
    )
    assert len(pids) == 3
    assert list((tmp_path / "b").iterdir()) == []
    del evaluator
    assert all(gone(pid) for pid in pids)


def test_a_script_without_a_main_guard_brings_its_networks_and_scores(tmp_path: Path) -> None:
    script = """
import snas, torch
from torch import nn
from snas.pruning.scores import scores

WIDTH = 12

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
    def forward(self, x):
        return self.layers(x)

@scores.register("backwards")
def backwards(model, layers, batch, *, generator):
    return {layer.name: -model.get_parameter(layer.parameter).detach().abs() for layer in layers}

print("one process prints this")
torch.set_num_threads(1)
space = snas.SearchSpace.from_model(Net, input_shape=(1, 8, 8), name="net")
for name in ("serial", "processes"):
    slots = 2 if name == "processes" else None
    snas.search(space, strategy="random", mask="backwards", samples=2, epochs=1, confirm=0, final_seeds=0,
                evaluator=name, slots=slots, registry=f"{name}.db")
"""
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    found = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (found.returncode, found.stdout) == (0, "one process prints this\n"), found.stderr
    assert facts(tmp_path / "processes.db") == facts(tmp_path / "serial.db")
    assert len(facts(tmp_path / "serial.db")) == 2


@pytest.mark.slow
def test_ctrl_c_and_a_kill_leave_no_process_behind_and_change_nothing(tmp_path: Path, wait_for_reports: Any) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for reports, number, code in ((3, signal.SIGINT, 130), (8, signal.SIGKILL, -9)):
        process = subprocess.Popen(
            [*LONG, "--registry", "r.db"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
            start_new_session=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # shells ignore it in background jobs
        )
        try:
            wait_for_reports(str(tmp_path / "r.db"), reports)
            if number == signal.SIGINT:
                os.killpg(process.pid, number)  # as a terminal does: to all processes of the command
            else:
                process.kill()
            out, err = process.communicate(timeout=60)
            assert (process.returncode, out) == (code, "")
            assert "Traceback" not in err
            for _ in range(200):
                try:
                    os.killpg(process.pid, 0)
                except ProcessLookupError:
                    break
                time.sleep(0.05)
            else:
                raise AssertionError("a process goes on without its parent")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    for registry in ("r.db", "whole.db"):
        subprocess.run([*LONG, "--registry", registry, "--quiet"], cwd=tmp_path, env=environment, check=True)
    assert facts(tmp_path / "r.db") == facts(tmp_path / "whole.db")


def facts(path: Path) -> list[tuple[object, ...]]:
    with Registry(str(path)) as registry:
        (study,) = registry.studies()
        return [
            (
                one.number,
                one.status,
                one.mask_checksum,
                [(r.epoch, r.train_loss, r.validation_loss) for r in one.reports],
            )
            for one in registry.candidates(study)
        ]


def test_rounds_are_the_same_every_time_and_a_promotion_goes_to_the_process_that_has_it(
    doubled: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = in_rungs(doubled, [3, 1, 2, 0])
    evaluator = ProcessesEvaluator(doubled, Checkpoints(tmp_path / "a"), slots=2)
    rounds = run(evaluator, jobs)
    assert places(rounds) == [
        [(1, 1), (3, 1)],
        [(0, 1), (2, 1)],
        [(1, 2), (3, 2)],
        [(1, 3), (3, 3)],
        [(0, 2), (2, 2)],
        [(0, 3), (2, 3)],
    ]
    assert [process.takes for process in Double.started] == [[3, 2, 3, 2], [1, 0, 1, 0]]
    assert by_epoch(rounds) == by_epoch(run(SerialEvaluator(doubled, Checkpoints(tmp_path / "b")), jobs))
    assert caplog.text.count("begun") == 2
    assert list((tmp_path / "a").iterdir()) == []
    assert places(run(evaluator, [job(doubled, 9, until=1)])) == [[(9, 1)]]  # the processes are still there
    assert len(Double.started) == 2


def test_the_next_candidate_is_chosen_while_all_slots_are_busy(doubled: Task, tmp_path: Path) -> None:
    events: list[object] = []

    class Noted(Queue):
        def ahead(self) -> Job | None:
            events.append("ahead")
            return super().ahead()

    jobs = [job(doubled, number, until=1 + (number == 0)) for number in range(4)]
    evaluator = ProcessesEvaluator(doubled, Checkpoints(tmp_path), slots=2)
    running = evaluator.run(Noted(jobs, ahead=True))
    while reports := next(running, None):
        events.append([report.trial for report in reports])
    assert events == ["ahead", [0, 1], "ahead", [0, 2], [3]]


def test_processes_are_told_to_begin_before_the_next_candidate_is_proposed(doubled: Task, tmp_path: Path) -> None:
    seen: list[tuple[list[list[int]], list[str]]] = []

    class Looking(Queue):
        def next(self) -> Job | None:
            files = sorted(path.name.partition(".")[0] for path in tmp_path.iterdir())
            seen.append(([list(process.takes) for process in Double.started], files))
            return super().next()

    jobs = [job(doubled, number, until=until) for number, until in ((0, 2), (1, 1), (2, 1))]
    rounds = list(ProcessesEvaluator(doubled, Checkpoints(tmp_path), slots=2).run(Looking(jobs)))
    assert places(rounds) == [[(0, 1), (1, 1)], [(0, 2), (2, 1)]]
    assert seen[:3] == [
        ([], []),
        ([[0]], ["trial-0-1"]),
        ([[0], [1]], ["trial-0-1", "trial-0-2", "trial-1-1"]),  # the first goes on, and 0-1 goes when 0-2 is filed
    ]


def test_an_architecture_is_sent_where_it_is_not_known(
    doubled: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[str] = []
    monkeypatch.setattr(processes, "pack", lambda what, name: packed.append(what[0]) or pack(what, name))
    other = task_of("mlp", hidden_layers=1, width=24).space
    jobs = [job(doubled, number) for number in range(6)]
    for number in (2, 3, 4, 5):
        densities = Densities.from_fractions(other.layers, [0.5] * len(other.layers))
        jobs[number] = replace(jobs[number], space=other, densities=densities)
    rounds = run(ProcessesEvaluator(doubled, Checkpoints(tmp_path / "a"), slots=2), jobs)
    assert packed == ["begin", "know"]  # once for both
    assert [process.learnt for process in Double.started] == [[1], [1]]
    assert by_epoch(rounds) == by_epoch(run(SerialEvaluator(doubled, Checkpoints(tmp_path / "b")), jobs))


def test_a_process_begins_with_the_next_candidate_while_others_are_at_work(tmp_path: Path) -> None:
    told = tmp_path / "told"
    waits = SearchSpace.from_model(partial(Waiting, str(told)), input_shape=(1, 8, 8), name="waits")
    tells = SearchSpace.from_model(partial(Telling, str(told)), input_shape=(1, 8, 8), name="tells")
    task = task_of()
    jobs = [job(task, 0, until=1), job(task, 1, until=2), job(task, 2, until=1)]
    for number, space in ((1, waits), (2, tells)):
        jobs[number] = replace(jobs[number], space=space, densities=Densities.from_fractions(space.layers, [0.5]))
    evaluator = ProcessesEvaluator(task, Checkpoints(tmp_path / "a"), slots=2)
    rounds = list(evaluator.run(Queue(jobs, ahead=True)))
    assert places(rounds) == [[(0, 1), (1, 1)], [(1, 2), (2, 1)]]  # the first round ends by what the second tells


class Waiting(nn.Module):
    """A network whose training waits for a file."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file
        self.layer = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(400 if self.training and len(x) > 4 else 0):  # proofs have fewer examples
            if Path(self.file).exists():
                break
            time.sleep(0.05)
        else:
            assert not self.training or len(x) <= 4, "nobody wrote the file"
        found: torch.Tensor = self.layer(x.flatten(1))
        return found


class Telling(Waiting):
    """A network whose training writes it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) > 4:
            Path(self.file).touch()
        return super().forward(x)


@pytest.mark.parametrize("deaths", [0, 1, 3])
def test_candidates_that_begin_early_give_what_the_serial_evaluator_does(
    deaths: int, doubled: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [*in_rungs(doubled, [0, 1, 2, 3]), job(doubled, 4)]
    Double.deadly[2] = deaths  # it begins early
    rounds = run(ProcessesEvaluator(doubled, Checkpoints(tmp_path / "a"), slots=2), jobs, ahead=True)
    serial = by_epoch(run(SerialEvaluator(doubled, Checkpoints(tmp_path / "b")), jobs))
    assert Double.started[0].takes[:2] == [0, 2]
    if deaths == 3:
        failure = Failure(2, Status.FAILED, "its process was ended by signal 9 (3 tries)")
        assert [one for reports in rounds for one in reports if isinstance(one, Failure)] == [failure]
        return
    assert caplog.text.count("trial-2 goes on from epoch 0") == deaths
    assert by_epoch(rounds) == serial
    assert list((tmp_path / "a").iterdir()) == []


def test_code_that_cannot_be_sent_is_told_after_what_was_found_is_filed(doubled: Task, tmp_path: Path) -> None:
    stuck = SearchSpace.from_model(lambda: nn.Linear(64, 10), input_shape=(64,), name="stuck")
    object.__setattr__(stuck, "factory", Unsendable())
    jobs = [job(doubled, 0, until=1), job(doubled, 1, until=2)]
    jobs.append(replace(job(doubled, 2), space=stuck, densities=Densities.from_fractions(stuck.layers, [0.5])))
    running = ProcessesEvaluator(doubled, Checkpoints(tmp_path), slots=2).run(Queue(jobs, ahead=True))
    assert places([next(running)]) == [[(0, 1), (1, 1)]]
    with pytest.raises(InputError, match="stuck"):
        next(running)


class Unsendable:
    """A factory that does not go into another process."""

    def __reduce__(self) -> str:
        raise TypeError("no")


def test_a_promotion_whose_process_is_busy_goes_elsewhere_from_its_checkpoint(doubled: Task, tmp_path: Path) -> None:
    task = replace(doubled, rule=replace(doubled.rule, epochs=4))
    Double.task = task
    jobs = [job(task, number, start=start, until=until) for number, start, until in MOVES]
    rounds = run(ProcessesEvaluator(task, Checkpoints(tmp_path / "a"), slots=2), jobs)
    assert [process.takes for process in Double.started] == [[0, 2, 0], [1, 0, 1]]
    assert by_epoch(rounds) == by_epoch(run(SerialEvaluator(task, Checkpoints(tmp_path / "b")), jobs))
    # Each process drops the checkpoints that the other one wrote.
    names = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("a", "b")]
    assert names[0] == names[1] == [f"trial-{name}.safetensors" for name in ("0-3", "1-3", "2-1")]


MOVES = (0, 0, 1), (1, 0, 1), (2, 0, 1), (0, 1, 2), (1, 1, 3), (0, 2, 3)


def test_a_pause_leaves_one_checkpoint_wherever_the_epochs_before_were_trained(doubled: Task, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    for start in (0, 1):  # a new evaluator each time, and so new workers
        run(ProcessesEvaluator(doubled, Checkpoints(folder), slots=1), [job(doubled, 0, start=start, until=start + 1)])
        assert [path.name for path in folder.iterdir()] == [f"trial-0-{start + 1}.safetensors"]


@pytest.mark.parametrize("deaths", [1, 2, 3])
def test_a_job_is_tried_three_times_and_the_others_go_on(
    deaths: int, doubled: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Double.deadly[1] = deaths
    jobs = [job(doubled, number) for number in range(3)]
    rounds = run(ProcessesEvaluator(doubled, Checkpoints(tmp_path / "a"), slots=2), jobs)
    serial = by_epoch(run(SerialEvaluator(doubled, Checkpoints(tmp_path / "b")), jobs))
    failures = [report for reports in rounds for report in reports if isinstance(report, Failure)]
    assert caplog.text.count("trial-1 goes on from epoch 0 in another process") == min(deaths, 2)
    assert len(Double.started) == 2 + min(deaths, 3)
    if deaths < 3:
        assert failures == []
        assert by_epoch(rounds) == serial
        return
    assert failures == [Failure(1, Status.FAILED, "its process was ended by signal 9 (3 tries)")]
    rest = [[report for report in reports if isinstance(report, Report)] for reports in rounds]
    assert by_epoch(rest) == {place: report for place, report in serial.items() if place[0] != 1}
    assert list((tmp_path / "a").iterdir()) == []


def test_one_that_is_refused_or_fails_leaves_the_others_alone(doubled: Task, tmp_path: Path) -> None:
    empty = Densities.from_counts(doubled.space.layers, {layer.name: 1 for layer in doubled.space.layers})
    broken = SearchSpace.from_model(Broken, input_shape=(1, 8, 8), name="broken")
    half = Densities.from_fractions(broken.layers, [0.5])
    jobs = [
        job(doubled, 0),
        replace(job(doubled, 1), densities=empty),
        replace(job(doubled, 2), space=broken, densities=half),
        job(doubled, 3),
    ]
    rounds = run(ProcessesEvaluator(doubled, Checkpoints(tmp_path / "a"), slots=2), jobs)
    assert places(rounds) == [[(0, 1), (1, 0)], [(0, 2), (2, 0)], [(0, 3), (3, 1)], [(3, 2)], [(3, 3)]]
    failures = {one.trial: one for reports in rounds for one in reports if isinstance(one, Failure)}
    assert failures[1].status is Status.REFUSED
    assert failures[2] == Failure(2, Status.FAILED, "ValueError: too many examples")


class Broken(nn.Module):
    """A network whose code fails in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:  # the proof has two examples
            raise ValueError("too many examples")
        found: torch.Tensor = self.layer(x.flatten(1))
        return found


def test_a_lost_checkpoint_costs_its_epochs_again_and_is_not_reported_twice(
    doubled: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = by_epoch(run(SerialEvaluator(doubled, Checkpoints(tmp_path / "a")), [job(doubled, 0)]))
    rounds = run(ProcessesEvaluator(doubled, Checkpoints(tmp_path / "b"), slots=2), [job(doubled, 0, start=1)])
    assert "trial-0-1.safetensors is gone" in caplog.text
    assert by_epoch(rounds) == {place: report for place, report in whole.items() if place[1] > 1}


def test_whatever_stops_the_search_ends_the_processes(doubled: Task, tmp_path: Path) -> None:
    evaluator = ProcessesEvaluator(doubled, Checkpoints(tmp_path / "a"), slots=2)
    rounds = evaluator.run(Queue([job(doubled, 0), job(doubled, 1)]))
    next(rounds)
    assert [process.connection.closed for process in Double.started] == [False, False]
    rounds.close()  # type: ignore[attr-defined]
    assert [process.connection.closed for process in Double.started] == [True, True]


def test_examples_lie_in_one_file_and_what_one_process_writes_stays_its_own() -> None:
    data = task_of().data
    file, there = write_examples(data)
    with file:
        one, two = (map_examples(file.fileno(), there) for _ in range(2))
        for part in ("train", "validation"):
            arrays = getattr(data, part)
            assert torch.equal(one[f"{part}.x"], arrays.x)
            assert torch.equal(one[f"{part}.y"], arrays.y)
            assert one[f"{part}.x"].data_ptr() % 64 == 0
        one["train.x"].zero_()
        assert torch.equal(two["train.x"], data.train.x)


def test_code_that_a_worker_could_not_import_goes_by_value(tmp_path: Path) -> None:
    (tmp_path / "sizes_of_mine.py").write_text("WIDTH = 7\ndef width():\n    return WIDTH\n", encoding="utf-8")
    (tmp_path / "nets.py").write_text(
        "from sizes_of_mine import width\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width()), nn.Linear(width(), 10))\n"
        "    def forward(self, x):\n"
        "        return self.layers(x)\n",
        encoding="utf-8",
    )
    space = open_space(f"{tmp_path}/nets.py:Net", input_shape=(1, 8, 8), classes=10)
    mine = {module.__name__ for module in foreign_modules()}
    loaded = {name for name in sys.modules if name.startswith("snas_custom_nets") or name == "sizes_of_mine"}
    assert len(loaded) == 2
    assert loaded <= mine
    assert not any(name.partition(".")[0] in ("snas", "torch", "numpy", "pytest") for name in mine)
    packed = pack(space, "nets")
    for name in loaded:
        del sys.modules[name]
    model = pickle.loads(packed).build(generator=torch.Generator().manual_seed(0))
    again = space.build(generator=torch.Generator().manual_seed(0))
    assert [tuple(weight.shape) for weight in model.parameters()] == [(7, 64), (7,), (10, 7), (10,)]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_scores_that_are_not_ours_go_along(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_plugins() == {}
    monkeypatch.setitem(scores._members, "mine", test_scores_that_are_not_ours_go_along)
    assert own_plugins() == {("scores", "mine"): test_scores_that_are_not_ours_go_along}


def test_what_cannot_be_sent_is_said_before_anything_starts(tmp_path: Path) -> None:
    task = task_of()
    held = open(tmp_path / "held", "w", encoding="utf-8")  # noqa: SIM115 - it is what cannot be pickled
    with held:
        space = replace(task.space, factory=lambda: nn.Linear(64, 10) if held else nn.Identity())
        with pytest.raises(InputError, match=r"space 'mlp' cannot be sent to other processes .*--evaluator serial"):
            ProcessesEvaluator(replace(task, space=space), Checkpoints(tmp_path))
    with pytest.raises(InputError, match="trains on the cpu, not on meta"):
        ProcessesEvaluator(replace(task, device=torch.device("meta")), Checkpoints(tmp_path))


@pytest.mark.parametrize(
    ("cores", "threads", "slots", "expected"),
    [(8, None, None, (8, 1)), (8, None, 2, (2, 4)), (8, 2, None, (4, 2)), (2, 4, None, (1, 4)), (2, None, 3, (3, 1))],
)
def test_cores_are_shared_out(
    cores: int,
    threads: int | None,
    slots: int | None,
    expected: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "cores", lambda: cores)
    evaluator = ProcessesEvaluator(replace(task_of(), threads=threads), Checkpoints(tmp_path), slots=slots)
    assert (evaluator._slots, evaluator._threads) == expected


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four cores and 100 GB of free memory, as far as `auto` can tell."""
    monkeypatch.setattr(processes, "cores", lambda: 4)
    monkeypatch.setattr(auto, "cores", lambda: 4)
    monkeypatch.setattr(auto, "free_memory", lambda device: 100 << 30)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(forks, "others", list)  # of test runners there are some


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("space", "arguments", "slots", "threads", "kind"),
    [
        ("resnet32", {}, None, None, ProcessesEvaluator),
        ("mlp", {"width": 2048}, None, None, ProcessesEvaluator),
        ("resnet32", {}, 1, None, SerialEvaluator),
        ("resnet32", {}, None, 4, SerialEvaluator),
        ("resnet32-x2", {}, None, None, ProcessesEvaluator),
        ("wrn-16-8", {}, None, None, SerialEvaluator),  # 136 million multiply-adds for an image
        ("mlp", {"width": 64}, None, None, ProcessesEvaluator),
        ("mlp", {"width": 64, "dropout": 0.1}, None, None, ProcessesEvaluator),
        ("mlp", {"width": 64}, 5, None, StackedEvaluator),  # more than cores
        ("mlp", {"width": 64}, None, 1, StackedEvaluator),
    ],
)
def test_auto_takes_processes_for_small_networks(
    space: str, arguments: dict[str, object], slots: int | None, threads: int | None, kind: type, tmp_path: Path
) -> None:
    task = open_bench(Settings(space=space, space_arg=arguments)).task
    chosen = auto.choose_evaluator(replace(task, threads=threads), Checkpoints(tmp_path), slots=slots)
    assert type(chosen) is kind
    if isinstance(chosen, ProcessesEvaluator):
        assert (chosen._slots, chosen._threads) == (4, 1)


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("space", "arguments", "kind"),
    [
        ("resnet32", {}, ProcessesEvaluator),
        ("mlp", {"width": 64}, StackedEvaluator),
        ("mlp", {"width": 64, "dropout": 0.1}, SerialEvaluator),  # an epoch is over in a moment
    ],
)
def test_auto_takes_fewer_processes_where_each_has_to_import(
    space: str, arguments: dict[str, object], kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNAS_WORKERS", "spawn")
    task = open_bench(Settings(space=space, space_arg=arguments)).task
    assert type(auto.choose_evaluator(task, Checkpoints(tmp_path))) is kind


@pytest.mark.usefixtures("four_cores")
def test_auto_leaves_processes_where_they_have_no_room_or_the_code_cannot_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = open_bench(Settings(space="resnet32")).task
    with open(tmp_path / "held", "w", encoding="utf-8") as held:
        factory = task.space.factory
        space = replace(task.space, factory=lambda: factory() if held else nn.Identity())
        chosen = auto.choose_evaluator(replace(task, space=space), Checkpoints(tmp_path))
    assert type(chosen) is SerialEvaluator
    monkeypatch.setattr(auto, "free_memory", lambda device: (4 << 30) - 1)
    assert type(auto.choose_evaluator(task, Checkpoints(tmp_path))) is SerialEvaluator


@pytest.mark.usefixtures("four_cores")
def test_auto_goes_on_without_processes_where_there_is_no_room_for_the_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError("No space left on device")

    task = open_bench(Settings(space="mlp", space_arg={"width": 16})).task
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert type(auto.choose_evaluator(task, Checkpoints(tmp_path))) is StackedEvaluator


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise TimeoutError herein after so many seconds, also out of a call that the system has."""

    def late(*_: object) -> None:
        raise TimeoutError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "import time; time.sleep(60)"], ids=["ends", "sleeps"])
def test_a_process_that_never_reads_a_large_setup_holds_nobody_up(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(descriptors: tuple[int, int], threads: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code], pass_fds=descriptors)

    monkeypatch.setenv("SNAS_WORKERS", "spawn")
    monkeypatch.setattr(processes, "_started", started)
    with (tmp_path / "examples").open("wb") as examples, at_most(20):
        one = processes.Process(None, bytes(4 << 20), examples, threads=1)  # type: ignore[arg-type]
        assert not one.listens
        if "sleep" in code:  # it was started, and not waited for
            one._process.kill()
        one.send(b"go on")
        assert one.answer() is None
        if "sleep" in code:
            assert "signal 9" in one.end()
        else:
            with pytest.raises(SnasError, match="exit code 1 before it could begin"):
                one.end()
