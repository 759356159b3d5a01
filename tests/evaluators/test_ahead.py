"""Epochs that a process trains before they are asked for: in memory alone, and nothing that the parent sees tells."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from snas.bench import open_bench
from snas.densities import Densities
from snas.errors import DivergedError, RefusedError
from snas.evaluators import forks
from snas.evaluators.base import Failure, Job
from snas.evaluators.processes import TRAIN, ProcessesEvaluator
from snas.evaluators.serial import SerialEvaluator
from snas.evaluators.worker import Worker
from snas.pruning.methods import given_densities
from snas.search_spaces.base import SearchSpace
from snas.settings import Settings
from snas.testing import Queue
from snas.training import checkpoints as files
from snas.training.checkpoints import Checkpoints
from snas.training.session import Epoch, Session
from snas.training.task import Task
from snas.trials import Report, Status

WAIT = 1200  # looks, a twentieth of a second apart


class Noting(nn.Module):
    """A network that notes each batch it trains on in a file; from the one of a number on it waits for another file."""

    def __init__(self, notes: str, waits: int) -> None:
        super().__init__()
        self.layer, self.notes, self.waits = nn.Linear(64, 10), notes, waits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) > 4:  # proofs have fewer examples
            with open(self.notes, "a", encoding="utf-8") as file:
                print("batch", file=file)
            logging.getLogger("snas").warning("batch %d", number := lines(self.notes))
            while number == self.waits:
                time.sleep(0.05)
        found: torch.Tensor = self.layer(x.flatten(1))
        return found


def lines(file: str | Path) -> int:
    path = Path(file)
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def wait_for(what: Callable[[], bool]) -> None:
    for _ in range(WAIT):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it does not come")


def task_of() -> Task:
    task = open_bench(
        Settings(space="mlp", space_arg={"hidden_layers": 1, "width": 16}, epochs=4, precision="fp32")
    ).task
    return replace(task, threads=1, rule=replace(task.rule, batch_size=10_000))  # an epoch is a batch


def job(task: Task, number: int, *, start: int = 0, until: int = 3, space: SearchSpace | None = None) -> Job:
    space = space or task.space
    fractions = np.random.default_rng(number).uniform(0.2, 0.6, len(space.layers))
    densities = Densities.from_fractions(space.layers, fractions.tolist())
    rule = given_densities("random")
    return Job(number, space, rule, densities, seed=number, start=start, until=until, key=f"trial-{number}")


def rest_of(job: Job) -> dict[str, object]:
    return {field.name: getattr(job, field.name) for field in fields(job) if field.name != "space"}


def worker_of(task: Task, folder: Path, *jobs: Job) -> Worker:
    """A worker that has taken these jobs, one after the other, and trained an epoch of each but the last."""
    found = Worker(task, Checkpoints(folder), parked_bytes=1 << 30)
    found.know(0, task.space)
    for index, one in enumerate(jobs):
        found.take(0, rest_of(one))
        if index < len(jobs) - 1:
            found.train()
    return found


def serial(task: Task, folder: Path, jobs: Sequence[Job]) -> dict[tuple[int, int], Report | Failure]:
    return by_epoch(one for reports in SerialEvaluator(task, Checkpoints(folder)).run(Queue(jobs)) for one in reports)


def by_epoch(reports: Iterator[Report | Failure] | Sequence[Report | Failure]) -> dict[tuple[int, int], object]:
    """Trial and epoch -> what was found; a failure is of epoch 0. Fails where something is told twice."""
    found: dict[tuple[int, int], object] = {}
    for one in reports:
        key = (one.trial, one.epoch) if isinstance(one, Report) else (one.trial, 0)
        assert key not in found
        found[key] = replace(one, seconds=0.0) if isinstance(one, Report) else one
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that were trained, as they are trained."""
    found: list[int] = []
    train = Session.train_epoch

    def noted(session: Session) -> Epoch:
        found.append(session.epoch + 1)
        return train(session)

    monkeypatch.setattr(Session, "train_epoch", noted)
    return found


@contextmanager
def failing(error: BaseException, *, epoch: int) -> Iterator[None]:
    """The epoch of this number raises this error."""
    train = Session.train_epoch

    def fails(session: Session) -> Epoch:
        if session.epoch + 1 == epoch:
            raise error
        return train(session)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "train_epoch", fails)
        yield


def test_an_epoch_ahead_is_trained_once_and_is_on_disk_only_when_the_one_before_is_filed(
    tmp_path: Path, trained: list[int]
) -> None:
    task, folder = task_of(), tmp_path / "a"
    worker = worker_of(task, folder, job(task, 0))
    worker.run_ahead()
    assert trained == []  # it is asked for its first epoch
    reports = [worker.train().report]
    for number in (1, 2):
        before = names(folder)
        assert f"trial-0-{number}.safetensors" in before
        for _ in range(2):
            worker.run_ahead()
        assert trained == list(range(1, number + 2))
        assert names(folder) == before
        reports.append(worker.train().report)
        assert trained == list(range(1, number + 2))
        assert names(folder) == [f"trial-0-{number}.safetensors", f"trial-0-{number + 1}.safetensors"]
    worker.run_ahead()
    assert trained == [1, 2, 3]  # it pauses there
    worker.park("trial-0")
    assert names(folder) == ["trial-0-3.safetensors"]
    assert by_epoch([one for one in reports if one is not None]) == serial(task, tmp_path / "b", [job(task, 0)])


@pytest.mark.parametrize("until", [1, 4])
def test_nothing_runs_ahead_across_a_rung_or_beyond_the_last_epoch(
    until: int, tmp_path: Path, trained: list[int]
) -> None:
    task = task_of()
    worker = worker_of(task, tmp_path, job(task, 0, until=until))
    for _ in range(until):
        worker.train()
    before = names(tmp_path)
    worker.run_ahead()
    assert trained == list(range(1, until + 1))
    assert names(tmp_path) == before


def test_seconds_are_those_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = Session.train_epoch
    monkeypatch.setattr(Session, "train_epoch", lambda session: replace(train(session), seconds=session.epoch + 0.5))
    task = task_of()
    worker = worker_of(task, tmp_path, job(task, 0))
    worker.train()
    worker.run_ahead()
    report = worker.train().report
    assert isinstance(report, Report)
    assert (report.epoch, report.seconds) == (2, 2.5)


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DivergedError("training loss is nan at epoch 2"), Status.FAILED),
        (RefusedError("layer 'fc1' keeps nothing"), Status.REFUSED),
        (ValueError("somebody's code"), Status.FAILED),
        (MemoryError(), Status.FAILED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_goes_wrong_ahead_is_told_when_the_epoch_is_asked_for(
    error: Exception, status: Status, ahead: bool, tmp_path: Path
) -> None:
    task = task_of()
    with failing(error, epoch=2):
        expected = serial(task, tmp_path / "b", [job(task, 0)])
        worker = worker_of(task, tmp_path / "a", job(task, 0))
        first = worker.train().report
        if ahead:
            worker.run_ahead()
        second = worker.train().report
    assert first is not None
    assert second is not None
    assert isinstance(second, Failure)
    assert second.status is status
    assert by_epoch([first, second]) == expected
    worker.run_ahead()  # of nothing
    worker.take(0, rest_of(job(task, 1)))
    assert isinstance(worker.train().report, Report)


def test_what_nobody_expects_is_raised_when_the_epoch_is_asked_for(tmp_path: Path) -> None:
    task = task_of()
    with failing(SystemExit("somebody's code"), epoch=2):
        worker = worker_of(task, tmp_path, job(task, 0))
        worker.train()
        worker.run_ahead()
        with pytest.raises(SystemExit):
            worker.train()


@pytest.mark.parametrize("ahead", [True, False])
def test_a_full_disk_is_told_when_the_epoch_is_asked_for(
    ahead: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of()
    worker = worker_of(task, tmp_path, job(task, 0))
    worker.train()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_tensors", full)
    if ahead:
        worker.run_ahead()
    answer = worker.train()
    assert answer.report is None
    path = tmp_path / "trial-0-2.safetensors"
    assert str(answer.error) == (
        f"cannot write checkpoint {path}: [Errno 28] No space left on device; make room and run the same command"
    )
    assert names(tmp_path) == ["trial-0-1.safetensors"]  # of what is recorded


def test_epochs_of_a_lost_checkpoint_are_trained_again_without_a_report(
    tmp_path: Path, trained: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    task = task_of()
    whole = serial(task, tmp_path / "b", [job(task, 0)])
    trained.clear()
    worker = worker_of(task, tmp_path / "a", job(task, 0, start=1))
    reports = [worker.train().report]
    assert "trial-0-1.safetensors is gone" in caplog.text
    assert trained == [1, 2]
    worker.run_ahead()
    assert trained == [1, 2, 3]
    reports.append(worker.train().report)
    found = by_epoch([one for one in reports if one is not None])
    assert found == {place: report for place, report in whole.items() if place[1] > 1}


def test_the_job_before_parks_while_the_present_one_is_ahead(tmp_path: Path, trained: list[int]) -> None:
    task = task_of()
    folder = tmp_path / "a"
    worker = worker_of(task, folder, job(task, 0, until=1), job(task, 1, until=2))
    reports = [worker.train().report]
    worker.run_ahead()
    worker.park("trial-0")
    reports.append(worker.train().report)
    assert names(folder) == ["trial-0-1.safetensors", "trial-1-1.safetensors", "trial-1-2.safetensors"]
    worker.park("trial-1")
    (folder / "trial-0-1.safetensors").unlink()  # it is in memory
    worker.take(0, rest_of(job(task, 0, start=1)))
    reports.append(worker.train().report)
    assert trained == [1, 1, 2, 2]
    jobs = [job(task, 0, until=1), job(task, 1, until=2), job(task, 0, start=1, until=2)]
    expected = serial(task, tmp_path / "b", jobs)
    del expected[0, 1]  # reported before
    assert by_epoch([one for one in reports if one is not None]) == expected


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that begin at once."""
    monkeypatch.setattr(forks, "others", list)  # of test runners there are some


def noting(tmp_path: Path, *, waits: int = 0) -> SearchSpace:
    made = partial(Noting, str(tmp_path / "notes"), waits)
    return SearchSpace.from_model(made, input_shape=(1, 8, 8), name="noting")


@pytest.mark.usefixtures("copies")
def test_a_process_trains_an_epoch_ahead_and_a_kill_then_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task, notes, folder = task_of(), tmp_path / "notes", tmp_path / "a"
    one = job(task, 0, space=noting(tmp_path))
    expected = serial(task, tmp_path / "b", [one])
    notes.unlink()
    caplog.clear()
    evaluator = ProcessesEvaluator(task, Checkpoints(folder), slots=1)
    running = evaluator.run(Queue([one]))
    found = list(next(running))
    wait_for(lambda: lines(notes) == 2)  # though nobody has filed the first
    assert names(folder) == ["trial-0-1.safetensors"]
    assert "batch 1" in caplog.text
    assert "batch 2" not in caplog.text  # it is told with its epoch
    found += next(running)
    assert "batch 2" in caplog.text
    wait_for(lambda: lines(notes) == 3)
    assert names(folder) == ["trial-0-1.safetensors", "trial-0-2.safetensors"]
    os.kill(evaluator._processes[0].pid, signal.SIGKILL)
    found += [report for reports in running for report in reports]
    assert by_epoch(found) == expected
    assert lines(notes) == 4  # the third epoch once in vain
    assert "trial-0 goes on from epoch 2 in another process" in caplog.text
    evaluator._processes[0].end()


@pytest.mark.usefixtures("copies")
def test_a_process_that_is_ahead_ends_when_the_search_stops(tmp_path: Path) -> None:
    task = task_of()
    evaluator = ProcessesEvaluator(task, Checkpoints(tmp_path / "a"), slots=1)
    running = evaluator.run(Queue([job(task, 0, space=noting(tmp_path, waits=2))]))
    next(running)
    process = evaluator._processes[0]
    wait_for(lambda: lines(tmp_path / "notes") == 2)  # it never comes to the end of it
    running.close()  # type: ignore[attr-defined]
    assert process._process.wait() == 0  # not ended by a signal


@pytest.mark.usefixtures("copies")
def test_what_a_process_has_been_told_comes_before_what_it_could_do_ahead(tmp_path: Path) -> None:
    task = task_of()
    space = noting(tmp_path, waits=2)
    evaluator = ProcessesEvaluator(task, Checkpoints(tmp_path / "a"), slots=1)
    evaluator._start(0)
    process = evaluator._processes[0]
    messages = [("know", 0, space), ("take", 0, rest_of(job(task, 0, space=space)))]
    process.send(*(pickle.dumps(message) for message in messages), TRAIN, pickle.dumps(("nonsense",)))
    answers = []
    for _ in range(3):  # that it has begun, an epoch, and what it makes of the last message
        assert process.connection.poll(60)
        answers.append(process.answer())
    assert isinstance(answers[1].report, Report)  # type: ignore[union-attr]
    assert "nonsense" in str(answers[2].error)  # type: ignore[union-attr]
    process.end()
