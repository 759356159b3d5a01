"""Evaluators train the same candidate to the same losses, whatever stands beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snas.bench import Bench, open_bench
from snas.densities import Densities
from snas.errors import FailedError
from snas.evaluators import auto
from snas.evaluators.auto import choose_evaluator
from snas.evaluators.base import Evaluator, Failure, Job
from snas.evaluators.serial import SerialEvaluator
from snas.evaluators.stacked import StackedEvaluator
from snas.pruning.methods import Method, given_densities
from snas.search_spaces.base import SearchSpace
from snas.settings import Settings
from snas.stacked import Stack
from snas.stacked.twins import LinearTwin
from snas.testing import Queue
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task
from snas.trials import Report, Status

Reports = list[Report | Failure]


def bench_of(space: str = "mlp", **settings: object) -> Bench:
    arguments = {"hidden_layers": 3, "width": 24} if space == "mlp" else {"width": 4}
    return open_bench(Settings(space=space, space_arg=arguments, epochs=3, precision="fp32", **settings))  # type: ignore[arg-type]


def job(
    task: Task, number: int, *, method: str = "random", start: int = 0, until: int = 3, density: float = 0.4
) -> Job:
    rng = np.random.default_rng(number)
    fractions = np.clip(density * rng.uniform(0.5, 1.5, len(task.space.layers)), 0.05, 1)
    densities = Densities.from_fractions(task.space.layers, fractions.tolist())
    rule = given_densities(method)
    return Job(number, task.space, rule, densities, seed=100 + number, start=start, until=until, key=f"trial-{number}")


def run(evaluator: Evaluator, jobs: Sequence[Job]) -> Reports:
    return [report for reports in evaluator.run(Queue(jobs)) for report in reports]


def by_trial(reports: Reports) -> dict[tuple[int, int], Report]:
    assert all(isinstance(report, Report) for report in reports), reports
    return {(report.trial, report.epoch): report for report in reports if isinstance(report, Report)}


def in_double(task: Task) -> Task:
    """The same task with data and networks in double precision."""
    factory = task.space.factory
    space = replace(task.space, factory=lambda: factory().double())
    halves = {
        part: replace(getattr(task.data, part), x=getattr(task.data, part).x.double())
        for part in ("train", "validation")
    }
    return replace(task, space=space, data=replace(task.data, **halves))


@pytest.mark.parametrize(("space", "rule"), [("mlp", "random"), ("resnet14", "random"), ("mlp", "random + rigl")])
@pytest.mark.parametrize(("precision", "tolerance"), [("single", 1e-4), ("double", 1e-9)])
def test_serial_and_stacked_agree(space: str, rule: str, precision: str, tolerance: float, tmp_path: Path) -> None:
    # One rounding of a ResNet's weights changes its loss by 1e-3 and more after an epoch at the usual rates.
    task = bench_of(space, lr=0.0001 if space == "resnet14" and precision == "single" else 0.01).task
    if precision == "double":
        task = in_double(task)
    jobs = [job(task, number, method=rule, until=1) for number in range(8)]
    serial = by_trial(run(SerialEvaluator(task, Checkpoints(tmp_path / "a")), jobs))
    stacked = by_trial(run(StackedEvaluator(task, Checkpoints(tmp_path / "b"), slots=8), jobs))
    assert list(serial) == list(stacked) == [(number, 1) for number in range(8)]
    for key, report in serial.items():
        assert stacked[key].mask_checksum == report.mask_checksum
        assert stacked[key].train_loss == pytest.approx(report.train_loss, rel=tolerance)
        assert stacked[key].validation_loss == pytest.approx(report.validation_loss, rel=10 * tolerance)


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"])
def test_they_agree_with_every_optimizer_when_slots_are_at_different_epochs(optimizer: str, tmp_path: Path) -> None:
    task = in_double(bench_of(optimizer=optimizer, lr=0.01, weight_decay=1e-3).task)
    jobs = [job(task, number) for number in range(5)]
    jobs[0] = replace(jobs[0], until=1)
    jobs[1] = replace(jobs[1], until=2)
    serial = by_trial(run(SerialEvaluator(task, Checkpoints(tmp_path / "a")), jobs))
    stacked = by_trial(run(StackedEvaluator(task, Checkpoints(tmp_path / "b"), slots=3), jobs))
    assert len(serial) == len(stacked) == 12
    for key, report in serial.items():
        assert stacked[key].train_loss == pytest.approx(report.train_loss, rel=1e-7)
        assert stacked[key].validation_loss == pytest.approx(report.validation_loss, rel=1e-6)


@pytest.mark.parametrize("space", ["mlp", "resnet14"])
def test_a_compiled_stack_agrees_and_is_compiled_once_for_each_shape_of_a_batch(
    space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compile_by = Stack.compile
    monkeypatch.setattr(Stack, "compile", lambda stack: compile_by(stack, backend=backend))
    task = in_double(bench_of(space).task)
    jobs = [job(task, number, until=1 + number % 2) for number in range(4)]
    serial = by_trial(run(SerialEvaluator(task, Checkpoints(tmp_path / "a")), jobs))
    compiled = replace(task, compile=True)
    found = by_trial(run(StackedEvaluator(compiled, Checkpoints(tmp_path / "b"), slots=3), jobs))
    assert len(graphs) == 2  # whole batches, and the last one of an epoch
    assert serial.keys() == found.keys()
    for key, report in serial.items():
        assert found[key].train_loss == pytest.approx(report.train_loss, rel=1e-7)
        assert found[key].validation_loss == pytest.approx(report.validation_loss, rel=1e-6)


@pytest.mark.parametrize("density", [0.03, 0.12])
def test_few_weights_are_multiplied_alone_to_the_same_result(
    density: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = open_bench(Settings(space="mlp", space_arg={"hidden_layers": 3, "width": 64}, epochs=3)).task
    jobs = [job(task, number, density=density) for number in range(4)]
    jobs[0] = replace(jobs[0], until=1)
    products = []
    real = LinearTwin.forward
    monkeypatch.setattr(LinearTwin, "forward", lambda self, x: products.append(self.blocks) or real(self, x))
    serial = by_trial(run(SerialEvaluator(task, Checkpoints(tmp_path / "a")), jobs))
    stacked = by_trial(run(StackedEvaluator(task, Checkpoints(tmp_path / "b"), slots=3), jobs))
    assert {block is None for block in products} >= {False}
    assert serial.keys() == stacked.keys()
    for key, report in serial.items():
        assert stacked[key].train_loss == pytest.approx(report.train_loss, rel=1e-4)
        assert stacked[key].validation_loss == pytest.approx(report.validation_loss, rel=1e-3)


def test_augmented_images_and_smoothed_labels_agree_too(tmp_path: Path) -> None:
    task = in_double(bench_of("resnet14", augment="on", label_smoothing=0.1, schedule="step").task)
    jobs = [job(task, number, until=2) for number in range(3)]
    serial = by_trial(run(SerialEvaluator(task, Checkpoints(tmp_path / "a")), jobs))
    stacked = by_trial(run(StackedEvaluator(task, Checkpoints(tmp_path / "b"), slots=3), jobs))
    for key, report in serial.items():
        assert stacked[key].train_loss == pytest.approx(report.train_loss, rel=1e-7)


def test_threads_share_the_slots_and_change_nothing(tmp_path: Path) -> None:
    task = bench_of().task
    jobs = [job(task, number) for number in range(5)]
    jobs[1] = replace(jobs[1], until=1)
    reports = {}
    before = torch.get_num_threads(), torch.get_rng_state()
    for threads in (1, 2, 5):
        evaluator = StackedEvaluator(task, Checkpoints(tmp_path / str(threads)), slots=5)
        evaluator._threads = threads
        reports[threads] = by_trial(run(evaluator, jobs))
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    for threads in (2, 5):
        assert reports[threads].keys() == reports[1].keys()
        for key, report in reports[threads].items():
            assert report.train_loss == pytest.approx(reports[1][key].train_loss, rel=1e-5)


def test_a_slot_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    task = bench_of().task
    jobs = [job(task, number) for number in range(6)]
    first = by_trial(run(StackedEvaluator(task, Checkpoints(tmp_path / "a"), slots=2), [jobs[0], jobs[1]]))
    other = by_trial(run(StackedEvaluator(task, Checkpoints(tmp_path / "b"), slots=2), [jobs[0], jobs[5]]))
    for epoch in (1, 2, 3):
        a, b = first[0, epoch], other[0, epoch]
        assert replace(a, seconds=0) == replace(b, seconds=0)


def test_reports_of_a_round_come_together_and_the_same_every_time(tmp_path: Path) -> None:
    task = bench_of().task
    jobs = [job(task, number) for number in (3, 1, 2, 0)]
    rounds = [
        [[(report.trial, report.epoch) for report in reports if isinstance(report, Report)] for reports in evaluated]
        for evaluated in (
            StackedEvaluator(task, Checkpoints(tmp_path / name), slots=3).run(Queue(jobs)) for name in ("a", "b")
        )
    ]
    assert rounds[0] == rounds[1]
    assert rounds[0] == [[(n, e) for n in (1, 2, 3)] for e in (1, 2, 3)] + [[(0, e)] for e in (1, 2, 3)]


def test_a_paused_candidate_goes_on_from_memory_or_from_its_checkpoint_alike(tmp_path: Path) -> None:
    task = bench_of().task
    jobs = [job(task, number, until=1) for number in range(3)]
    later = [replace(one, start=1, until=3) for one in jobs]
    folder = Checkpoints(tmp_path / "a")
    at_once = by_trial(run(StackedEvaluator(task, folder, slots=3), [*jobs, *later]))
    folder = Checkpoints(tmp_path / "b")
    before = by_trial(run(StackedEvaluator(task, folder, slots=3), jobs))
    after = by_trial(run(StackedEvaluator(task, folder, slots=3), later))
    assert before.keys() | after.keys() == at_once.keys()
    for key, report in (before | after).items():
        assert replace(report, seconds=0) == replace(at_once[key], seconds=0)


@pytest.mark.parametrize("space", ["mlp", "resnet14"])
def test_a_stack_goes_on_where_a_serial_evaluator_was(space: str, tmp_path: Path) -> None:
    task = in_double(bench_of(space).task)
    folder = Checkpoints(tmp_path / "a")
    run(SerialEvaluator(task, folder), [job(task, number, until=1) for number in range(2)])
    rest = [job(task, number, start=1) for number in range(2)]
    stacked = by_trial(run(StackedEvaluator(task, folder, slots=2), rest))
    serial = by_trial(run(SerialEvaluator(task, Checkpoints(tmp_path / "b")), [job(task, n) for n in range(2)]))
    for key, report in stacked.items():
        assert report.train_loss == pytest.approx(serial[key].train_loss, rel=1e-7)


def test_a_lost_checkpoint_costs_its_epochs_again_and_is_not_reported_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = bench_of().task
    whole = by_trial(run(StackedEvaluator(task, Checkpoints(tmp_path / "a"), slots=2), [job(task, 0), job(task, 1)]))
    folder = tmp_path / "b"
    run(StackedEvaluator(task, Checkpoints(folder), slots=2), [job(task, n, until=1) for n in range(2)])
    (folder / "trial-1-1.safetensors").unlink()
    found = by_trial(
        run(StackedEvaluator(task, Checkpoints(folder), slots=2), [job(task, n, start=1) for n in range(2)])
    )
    assert "trial-1-1.safetensors is gone" in caplog.text
    assert sorted(found) == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert all(report.train_loss == pytest.approx(whole[key].train_loss, rel=1e-4) for key, report in found.items())


def test_one_that_fails_or_is_refused_leaves_the_others_alone(tmp_path: Path) -> None:
    task = bench_of().task
    alone = by_trial(run(StackedEvaluator(task, Checkpoints(tmp_path / "a"), slots=2), [job(task, 0), job(task, 1)]))
    wild = replace(job(task, 2), seed=5)
    empty = Densities.from_counts(task.space.layers, {layer.name: 1 for layer in task.space.layers})
    evaluator = StackedEvaluator(task, Checkpoints(tmp_path / "b"), slots=3)
    jobs = [job(task, 0), job(task, 1), replace(wild, densities=empty)]
    reports = run(evaluator, jobs)
    refused = [report for report in reports if isinstance(report, Failure)]
    assert [(failure.trial, failure.status) for failure in refused] == [(2, Status.REFUSED)]
    for report in reports:
        if isinstance(report, Report):
            assert report.train_loss == pytest.approx(alone[report.trial, report.epoch].train_loss, rel=1e-4)


def test_one_that_diverges_fails_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = bench_of().task
    prepare = Task.prepare

    def poisoned(self: Task, method: Method, target: Densities | int, *, seed: int) -> object:
        sparse = prepare(self, method, target, seed=seed)
        if seed == 101:
            with torch.no_grad():
                next(sparse.model.parameters()).mul_(float("inf"))
        return sparse

    monkeypatch.setattr(Task, "prepare", poisoned)
    folder = tmp_path / "b"
    reports = run(StackedEvaluator(task, Checkpoints(folder), slots=3), [job(task, number) for number in range(3)])
    failures = [report for report in reports if isinstance(report, Failure)]
    assert [(failure.trial, failure.status) for failure in failures] == [(1, Status.FAILED)]
    assert "training loss is nan" in failures[0].reason
    assert len(by_trial([report for report in reports if report not in failures])) == 6
    assert not list(folder.iterdir())


class Grudging(nn.Module):
    """A network whose code fails with more than so many examples' worth of features at a time."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.layer, self.most, self.error = nn.Linear(64, 10), most, error

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() // len(x) > self.most * 64 and len(x) > 2:  # the proof has two examples
            raise self.error
        out: Tensor = self.layer(x.flatten(1))
        return out


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("error", "slots"),
    [
        (RuntimeError("CUDA error: cannot allocate memory"), 2),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), 2),
        (RuntimeError("MPS backend out of memory"), 2),
        (MemoryError("no room"), 2),
        (ValueError("too wide"), 1),
    ],
)
def test_where_memory_is_short_fewer_train_side_by_side(
    error: Exception, slots: int, threads: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = bench_of().task
    space = SearchSpace.from_model(lambda: Grudging(2, error), input_shape=(1, 8, 8), name="grudging")
    task = replace(task, space=space)
    evaluator = StackedEvaluator(task, Checkpoints(tmp_path / "a"), slots=5)
    evaluator._threads = threads  # of two threads one has three networks, and the other two
    with caplog.at_level(logging.WARNING):
        reports = by_trial(run(evaluator, [job(task, number) for number in range(5)]))
    assert sorted(reports) == [(number, epoch) for number in range(5) for epoch in (1, 2, 3)]
    assert f"going on with {slots} at a time" in caplog.text
    serial = by_trial(run(SerialEvaluator(task, Checkpoints(tmp_path / "b")), [job(task, n) for n in range(5)]))
    assert all(report.train_loss == pytest.approx(serial[key].train_loss, rel=1e-4) for key, report in reports.items())


def test_a_network_that_does_not_stack_is_trained_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = open_bench(Settings(space="mlp", space_arg={"dropout": 0.1, "width": 16}, epochs=3)).task
    jobs = [job(task, number, until=2) for number in range(2)]
    stacked = by_trial(run(StackedEvaluator(task, Checkpoints(tmp_path / "a"), slots=2), jobs))
    serial = by_trial(run(SerialEvaluator(task, Checkpoints(tmp_path / "b")), jobs))
    assert "drops units at random" in caplog.text
    assert {key: replace(report, seconds=0) for key, report in stacked.items()} == {
        key: replace(report, seconds=0) for key, report in serial.items()
    }


class Hidden(nn.Module):
    """Computes by a number that neither its modules nor its parameters show."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(64, 10), scale

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1)) * self.scale
        return out


def test_networks_of_different_spaces_do_not_share_a_stack_though_they_look_alike(tmp_path: Path) -> None:
    task = bench_of().task
    spaces = [
        SearchSpace.from_model(lambda scale=scale: Hidden(scale), input_shape=(1, 8, 8), name="hidden")  # type: ignore[misc]
        for scale in (1.0, 3.0)
    ]
    jobs = [job(task.of(spaces[number % 2]), number) for number in range(4)]
    serial = by_trial(run(SerialEvaluator(task, Checkpoints(tmp_path / "a")), jobs))
    stacked = by_trial(run(StackedEvaluator(task, Checkpoints(tmp_path / "b"), slots=4), jobs))
    assert serial.keys() == stacked.keys()
    assert all(stacked[key].train_loss == pytest.approx(report.train_loss, rel=1e-4) for key, report in serial.items())


class Twice(nn.Module):
    """Goes through one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.flatten(1)).relu()
        for _ in range(2):
            h = self.middle(h).relu()
        out: Tensor = self.last(h)
        return out


def test_a_layer_that_is_used_twice_gets_both_gradients(tmp_path: Path) -> None:
    task = replace(bench_of().task, space=SearchSpace.from_model(Twice, input_shape=(1, 8, 8), name="twice"))
    jobs = [job(task, number, density=0.1) for number in range(3)]
    serial = by_trial(run(SerialEvaluator(task, Checkpoints(tmp_path / "a")), jobs))
    stacked = by_trial(run(StackedEvaluator(task, Checkpoints(tmp_path / "b"), slots=3), jobs))
    assert serial.keys() == stacked.keys()
    assert all(stacked[key].train_loss == pytest.approx(report.train_loss, rel=1e-4) for key, report in serial.items())


def test_what_cannot_be_saved_fails_one_candidate_and_a_short_memory_begins_the_epoch_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench_of().task
    save, short = Checkpoints.save, [True]

    def failing(self: Checkpoints, key: str, epoch: int, tensors: dict[str, Tensor]) -> None:
        if key == "trial-1" and epoch == 2 and short:
            short.pop()
            raise MemoryError
        if key == "trial-2" and epoch == 2:
            raise FailedError("it does not tell its state")
        save(self, key, epoch, tensors)

    monkeypatch.setattr(Checkpoints, "save", failing)
    reports = run(StackedEvaluator(task, Checkpoints(tmp_path), slots=3), [job(task, n) for n in range(3)])
    failures = [report for report in reports if isinstance(report, Failure)]
    assert [(failure.trial, failure.reason) for failure in failures] == [(2, "it does not tell its state")]
    rest = by_trial([report for report in reports if report not in failures])
    assert sorted(rest) == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 1)]


@pytest.mark.parametrize(
    ("space", "arguments", "kind"),
    [
        ("mlp", {"width": 32}, StackedEvaluator),
        ("mlp", {"width": 1024}, SerialEvaluator),
        ("mlp", {"width": 32, "dropout": 0.5}, SerialEvaluator),
        ("resnet14", {}, SerialEvaluator),
    ],
)
def test_auto_takes_what_suits_one_core(
    space: str, arguments: dict[str, object], kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "cores", lambda: 1)
    task = open_bench(Settings(space=space, space_arg=arguments)).task
    assert type(choose_evaluator(task, Checkpoints(tmp_path))) is kind
    assert type(choose_evaluator(task, Checkpoints(tmp_path), slots=1)) is SerialEvaluator
