"""What goes wrong in one network ends that one alone, whatever trains it, and is told as what it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import snas
from snas.bench import open_bench
from snas.densities import Densities
from snas.evaluators.base import Failure, Feed, Job, checked, evaluators
from snas.evaluators.processes import ProcessesEvaluator
from snas.evaluators.serial import SerialEvaluator
from snas.evaluators.stacked import StackedEvaluator
from snas.pruning.methods import given_densities
from snas.pruning.scores import scores
from snas.registry import Registry
from snas.search_spaces.base import SearchSpace
from snas.settings import Settings
from snas.strategies.base import strategies
from snas.testing import Queue
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task
from snas.trials import Report, Status, Trial

EVALUATORS = {"serial": SerialEvaluator, "stacked": StackedEvaluator, "processes": ProcessesEvaluator}
SHORT = [
    MemoryError("no room"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory"),
]


class Broken(nn.Module):
    """Fails where its seed says so."""

    def __init__(self, fault: str, error: Exception | None = None) -> None:
        super().__init__()
        self.layer, self.fault, self.error = nn.Linear(64, 10), fault, error
        self.register_buffer("luck", torch.rand(()))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1))
        wrong = float(self.luck) > 0.5 and len(x) > 2  # the proof has two examples
        if not wrong:
            return out
        if self.fault == "raises" and self.error is not None:
            raise self.error
        if self.fault == "validation" and not self.training:
            return out * math.nan
        if self.fault == "training" and self.training:
            return out * math.inf
        if self.fault == "hidden" and self.training:  # the loss does not tell of the weights
            with torch.no_grad():
                self.layer.bias.fill_(math.nan)
            return torch.nan_to_num(x.flatten(1) @ self.layer.weight.t())
        return torch.nan_to_num(out) if self.fault == "hidden" else out


def task_of(fault: str, error: Exception | None = None) -> Task:
    task = open_bench(Settings(space="mlp", epochs=2, kernel="dense", init="as-built")).task
    space = SearchSpace.from_model(lambda: Broken(fault, error), input_shape=(1, 8, 8), name="broken")
    return replace(task, space=space, initialization="as-built", rescale=False)


def jobs_of(task: Task, number: int = 6) -> list[Job]:
    dense = Densities(task.space.layers, tuple(layer.total for layer in task.space.layers))
    rule = given_densities("random")
    return [Job(n, task.space, rule, dense, seed=100 + n, start=0, until=2, key=f"trial-{n}") for n in range(number)]


def broken_seeds(task: Task) -> set[int]:
    """Jobs whose network fails."""
    return {
        job.trial
        for job in jobs_of(task)
        if float(task.prepare(job.method, job.densities, seed=job.seed).model.get_buffer("luck")) > 0.5
    }


def run(name: str, task: Task, folder: Path) -> tuple[dict[int, str], dict[int, list[int]]]:
    """Reasons of those that failed, and the epochs of those that did not."""
    evaluator = EVALUATORS[name](task, Checkpoints(folder), slots=1 if name == "serial" else 2)
    failed: dict[int, str] = {}
    epochs: dict[int, list[int]] = {}
    for reports in evaluator.run(Queue(jobs_of(task))):
        for report in reports:
            if isinstance(report, Failure):
                assert report.status is Status.FAILED
                failed[report.trial] = report.reason
            else:
                epochs.setdefault(report.trial, []).append(report.epoch)
    return failed, epochs


@pytest.mark.parametrize("fault", ["training", "validation", "hidden"])
@pytest.mark.parametrize("name", ["serial", "stacked"])
def test_numbers_that_are_none_end_one_candidate_at_once(name: str, fault: str, tmp_path: Path) -> None:
    task = task_of(fault)
    failed, epochs = run(name, task, tmp_path)
    broken = broken_seeds(task)
    assert 0 < len(broken) < 6
    assert failed.keys() == broken
    words = {"training": "training loss is", "validation": "validation loss is nan", "hidden": "parameter 'layer.bias'"}
    assert all(words[fault] in reason for reason in failed.values())
    assert epochs == {n: [1, 2] for n in range(6) if n not in broken}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", SHORT, ids=str)
@pytest.mark.parametrize("name", ["serial", "stacked"])
def test_a_network_that_lacks_memory_by_itself_fails_alone(name: str, error: Exception, tmp_path: Path) -> None:
    task = task_of("raises", error)
    failed, epochs = run(name, task, tmp_path)
    broken = broken_seeds(task)
    assert failed.keys() == broken
    assert all(type(error).__name__ in reason for reason in failed.values())
    assert epochs == {n: [1, 2] for n in range(6) if n not in broken}


@pytest.mark.slow
def test_a_process_that_lacks_memory_fails_one_candidate(tmp_path: Path) -> None:
    task = task_of("raises", MemoryError("no room"))
    failed, epochs = run("processes", task, tmp_path)
    broken = broken_seeds(task)
    assert failed.keys() == broken
    assert all(reason == "MemoryError: no room" for reason in failed.values())
    assert epochs == {n: [1, 2] for n in range(6) if n not in broken}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_of_a_mask_that_are_no_numbers_fail_the_candidate(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snip = scores.get("snip")

    def poisoned(model: nn.Module, layers: Sequence[object], batch: object, *, generator: torch.Generator) -> object:
        found = snip(model, layers, batch, generator=generator)  # type: ignore[arg-type]
        next(iter(found.values())).flatten()[3] = value
        return found

    monkeypatch.setitem(scores._members, "snip", poisoned)  # type: ignore[arg-type]
    task = open_bench(Settings(space="lenet-300-100", epochs=2)).task
    kept = Densities.from_fractions(task.space.layers, [0.1] * len(task.space.layers))
    job = Job(0, task.space, given_densities("snip"), kept, seed=1, start=0, until=2, key="trial-0")
    (reports,) = list(SerialEvaluator(task, Checkpoints(tmp_path)).run(Queue([job])))
    assert isinstance(reports[0], Failure)
    assert reports[0].status is Status.FAILED
    assert "1 scores of layer" in reports[0].reason
    assert ("NaN" if math.isnan(value) else "infinite") in reports[0].reason


@pytest.mark.parametrize("name", ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_report_without_numbers_is_a_failure_whoever_makes_it(name: str, value: float) -> None:
    report = Report(3, 2, 1.0, 0.5, 1.0, 0.5, 1.0)
    assert checked(report) is report
    found = checked(replace(report, **{name: value}))
    assert isinstance(found, Failure)
    assert (found.trial, found.status) == (3, Status.FAILED)
    assert found.reason == f"{name.replace('_', ' ')} is {value} at epoch 2"


def test_strategies_are_told_what_became_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diverged, refused and trained: each has its status in the history, and the best is a finite score."""
    seen: list[list[Trial]] = []

    class Watching:
        def ask(
            self, history: Sequence[Trial], n: int, *, dimensions: int, rng: np.random.Generator
        ) -> list[np.ndarray]:
            seen.append(list(history))
            empty = np.zeros(dimensions)
            return [empty if len(history) == 2 else np.full(dimensions, 0.5 + len(history) / 20) for _ in range(n)]

    class Liar:
        """An evaluator of somebody else's, that reports NaN for every second candidate."""

        def __init__(self, task: Task, checkpoints: Checkpoints, *, slots: int | None = None) -> None:
            self.environment = {"evaluator": "liar"}

        def run(self, feed: Feed) -> Iterator[Sequence[Report | Failure]]:
            while (job := feed.next()) is not None:
                for epoch in range(job.start + 1, job.until + 1):
                    accuracy = math.nan if job.trial % 2 else 0.5 + job.trial / 100
                    yield [Report(job.trial, epoch, 1.0, 0.5, 1.0, accuracy, 1.0, "0" * 64)]
                    if math.isnan(accuracy):
                        break

    assert "watching" not in strategies.names()
    evaluators.names()
    monkeypatch.setitem(evaluators._members, "liar", Liar)  # type: ignore[arg-type]
    space = SearchSpace.from_model(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10)), input_shape=(1, 8, 8), name="own"
    )
    result = snas.search(
        space, strategy=Watching(), samples=6, epochs=2, evaluator="liar", confirm=0, final_seeds=0, registry="r.db"
    )
    statuses = [trial.status for trial in seen[-1]]
    assert [statuses[n] for n in (1, 2, 3)] == [Status.FAILED, Status.REFUSED, Status.FAILED]
    assert not seen[-1][1].scores
    assert result.best.entry.candidate == 4
    with Registry("r.db") as registry:
        (study,) = registry.studies()
        records = registry.candidates(study)
    assert records[1].reason == "validation accuracy is nan at epoch 1"
    assert all(math.isfinite(report.validation_accuracy) for record in records for report in record.reports)
