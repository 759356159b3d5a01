"""Sweeps that are trained: which rows they make, what they do not repeat, and how processes share them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time

import numpy as np
import pytest

import snas
from snas import crew
from snas.bench import open_bench
from snas.data.base import Dataset
from snas.errors import InputError, SnasError
from snas.listener import Listener
from snas.locks import owned
from snas.registry import Registry
from snas.settings import SweepSettings
from snas.sweeps import workers
from snas.sweeps.plan import make_plan, open_methods

SPACE = "mlp"


class Heard(Listener):
    def __init__(self) -> None:
        self.ends: list[tuple[str, float, int]] = []
        self.messages: list[str] = []
        self.sweeps: list[dict[str, int]] = []

    def on_sweep(self, **counts: int) -> None:
        self.sweeps.append(counts)

    def on_message(self, text) -> None:
        self.messages.append(text)

    def on_run_end(self, entry, seed, *, test_accuracy, reason) -> None:
        self.ends.append((entry.method, round(entry.kept_weights / entry.total_weights, 3), seed))


@pytest.fixture(autouse=True)
def _data(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = rng.normal(size=(300, 8)) + y[:, None]
    np.savez(tmp_path / "mine.npz", x=x, y=y)


def sweep(methods="dense,random,er", densities="0.3,0.2", *, seeds=2, listener=None, **more) -> snas.SweepResult:
    options = {"epochs": 2, "registry": "r.db", "dataset": "mine.npz", "threads": 1} | more
    return snas.sweep(SPACE, methods=methods, densities=densities, seeds=seeds, listener=listener, **options)


def accuracies(result) -> dict:
    return {(cell.method, cell.density): cell.accuracies for cell in result.cells}


def test_order_is_seed_by_seed_and_dense_first():
    heard = Heard()
    result = sweep(listener=heard)
    once = [("dense", 1.0), ("random", 0.3), ("er", 0.3), ("random", 0.2), ("er", 0.2)]
    assert heard.ends == [(*place, seed) for seed in (0, 1) for place in once]
    assert heard.sweeps == [{"networks": 10, "finished": 0, "epochs": 20, "trained": 0}]
    assert [(cell.method, cell.density) for cell in result.cells] == [
        ("dense", None),
        ("random", 0.3),
        ("er", 0.3),
        ("random", 0.2),
        ("er", 0.2),
    ]
    assert all(sorted(cell.accuracies) == [0, 1] for cell in result.cells)


def test_finished_networks_are_kept_and_the_table_can_grow():
    first = sweep("random", [0.3])
    heard = Heard()
    again = sweep("random", [0.3], listener=heard)
    assert heard.ends == []
    assert accuracies(first) == accuracies(again)
    grown = sweep(["random", "er"], (0.3, np.float64(0.2)), seeds=3, listener=heard)
    assert len(heard.ends) == 12 - 2
    assert ("random", 0.3, 2) in heard.ends
    assert heard.sweeps[-1] == {"networks": 12, "finished": 2, "epochs": 24, "trained": 4}
    assert {seed: grown.cell("random", 0.3).accuracies[seed] for seed in (0, 1)} == first.cell("random", 0.3).accuracies
    fewer = sweep("random", 0.3, seeds=1)  # the row has three seeds; the table of one seed has one
    assert fewer.cell("random", 0.3).accuracies == {0: first.cell("random", 0.3).accuracies[0]}
    assert fewer.cell("random", 0.3).epochs_spent == 2


def test_rows_are_those_of_prune():
    options = {"dataset": "mine.npz", "epochs": 2, "final_seeds": 2, "registry": "r.db", "threads": 1}
    pruned = snas.prune(SPACE, method="er", density=0.3, **options)
    heard = Heard()
    result = sweep("er,random", "0.3", listener=heard)
    assert {method for method, _, _ in heard.ends} == {"random"}
    assert result.cell("er", 0.3).id == pruned.id
    assert result.cell("er", 0.3).mean == pytest.approx(pruned.test_accuracy)
    assert snas.prune(SPACE, method="random", density=0.3, **options).id == result.cell("random", 0.3).id


def test_given_densities_are_a_table_of_one_column():
    er = snas.prune(
        SPACE, method="er", density=0.3, dataset="mine.npz", epochs=2, final_seeds=1, registry="r.db", threads=1
    )
    result = snas.sweep(
        SPACE,
        methods="dense,random,magnitude",
        densities_from=er.id,
        seeds=1,
        epochs=2,
        registry="r.db",
        dataset="mine.npz",
    )
    assert result.given
    assert result.densities == (er.densities.density,)
    assert result.table()[0] == ["method", f"given ({100 * er.densities.density:.2f}%)"]
    with Registry("r.db") as registry:
        for cell in result.cells[1:]:
            assert registry.find_entry(cell.id).kept == er.densities.counts
    mapping = snas.sweep(
        SPACE,
        methods="random",
        densities_from=er.densities.fractions,
        seeds=1,
        epochs=2,
        registry="r.db",
        dataset="mine.npz",
    )
    assert mapping.cells[0].id == result.cell("random", result.densities[0]).id


def test_a_refused_method_and_one_out_of_reach_are_cells():
    heard = Heard()
    # Few weights: random ones lead nowhere; "smart" holds 0.3 of the classifier and has none left for the rest.
    result = sweep("dense,random,smart", "0.0085", seeds=1, listener=heard)
    refused, smart = result.cell("random", 0.0085), result.cell("smart", 0.0085)
    assert (refused.status, refused.missing, refused.accuracies) == ("refused", 1, {})
    assert "path" in refused.reasons[0]
    assert (smart.status, smart.id) == ("out of reach", None)
    assert any("smart at density 0.0085: cannot keep" in text for text in heard.messages)
    assert result.cell("dense", 0.0085).accuracies
    assert result.comparisons == ()
    assert result.table()[2][1].startswith("refused")
    assert result.table()[3][1].startswith("out of reach")


def test_a_place_that_another_process_holds_is_come_back_to():
    with Registry("r.db"):
        pass
    first = sweep("random,er", "0.3", seeds=1)
    held, heard = first.cell("random", 0.3).id, Heard()
    released: list[float] = []

    def hold() -> None:
        with Registry("r.db") as registry, owned(registry, f"entry-{held}"):
            ready.set()
            for _ in range(2000):  # until the rest is done, and the holder has been waited for
                if any("waiting" in text for text in heard.messages):
                    break
                time.sleep(0.01)
            released.append(len(heard.ends))

    ready = threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    ready.wait()
    result = sweep("random,er", "0.3", seeds=2, listener=heard)
    holder.join()
    assert released == [1]  # er's second seed was trained while random was held
    assert heard.ends == [("er", 0.3, 1), ("random", 0.3, 1)]
    assert [text for text in heard.messages if "waiting" in text] == [
        "waiting for another process, which is training random"
    ]
    assert sorted(result.cell("random", 0.3).accuracies) == [0, 1]


def test_an_error_that_is_no_lock_is_not_waited_for(monkeypatch):
    def broken(*_, **__) -> None:
        raise InputError("something else")

    monkeypatch.setattr("snas.sweeps.run.train_entry", broken)
    with pytest.raises(InputError, match="something else"):
        sweep("random", "0.3")


def test_a_worker_trains_what_it_is_given_and_tells_of_it(monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # a worker leaves it to its parent
    expected = accuracies(sweep("random", "0.3", registry="one.db"))
    settings = SweepSettings(
        space=SPACE,
        methods="random",
        densities="0.3",
        epochs=2,
        dataset="mine.npz",
        seeds=2,
        threads=1,
        registry="r.db",
    )
    bench = open_bench(settings)
    plan = make_plan(settings, open_methods(settings, given=False), bench.space, None)
    reader, writer = multiprocessing.Pipe(duplex=False)
    workers._work(settings, plan.places, writer)
    writer.close()
    heard = Heard()
    crew.listen({reader: Worker(0)}, heard)
    assert heard.ends == [("random", 0.3, 0), ("random", 0.3, 1)]
    heard = Heard()
    assert accuracies(sweep("random", "0.3", listener=heard)) == expected
    assert heard.ends == []


def test_a_worker_tells_of_its_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    reader, writer = multiprocessing.Pipe(duplex=False)
    workers._work(SweepSettings(methods="random", densities="0.3", dataset="nowhere.npz"), (), writer)
    writer.close()
    with pytest.raises(InputError, match=r"nowhere\.npz"):
        crew.listen({reader: Worker(0)}, Heard())


def test_a_worker_without_a_parent_ends(monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    reader, writer = multiprocessing.Pipe(duplex=False)
    reader.close()
    with pytest.raises(SystemExit):
        workers._work(SweepSettings(methods="random", densities="0.3", dataset="nowhere.npz"), (), writer)


@pytest.mark.slow
def test_two_jobs_give_the_numbers_of_one():
    one, heard = sweep(registry="one.db"), Heard()
    two = sweep(registry="two.db", jobs=2, listener=heard)
    assert accuracies(one) == accuracies(two)
    assert [one.difference for one in one.comparisons] == [two.difference for two in two.comparisons]
    assert sorted(heard.ends) == sorted(
        (cell.method, round(cell.density or 1.0, 3), seed) for cell in two.cells for seed in (0, 1)
    )


class Worker:
    """Stands for a process that has ended."""

    def __init__(self, exitcode: int) -> None:
        self.exitcode = exitcode

    def join(self) -> None:
        pass


def listen(*told, exitcode: int = 0, garbage: bytes = b"") -> Heard:
    """Hear what a worker says before it ends."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    for words in told:
        writer.send(words)
    if garbage:
        os.write(writer.fileno(), garbage)
    writer.close()
    heard = Heard()
    crew.listen({reader: Worker(exitcode)}, heard)
    return heard


def test_what_workers_tell_is_handed_on():
    told = [("on_message", ("one",), {}), ("on_message", ("two",), {})]
    assert listen(*told).messages == ["one", "two"]


@pytest.mark.parametrize(
    ("exitcode", "garbage", "message"),
    [(3, b"", "ended with exit code 3"), (-9, b"", "was ended by signal 9"), (-9, b"\0\0\1\0half", "by signal 9")],
)
def test_a_worker_that_dies_is_reported(exitcode, garbage, message):
    with pytest.raises(SnasError, match=message):
        listen(exitcode=exitcode, garbage=garbage)


@pytest.mark.parametrize(("wrong_use", "kind"), [(True, InputError), (False, SnasError)])
def test_a_workers_error_is_the_sweeps(wrong_use, kind):
    with pytest.raises(SnasError, match="no room") as raised:
        listen((crew.LAST_WORDS, (wrong_use, "no room"), {}))
    assert type(raised.value) is kind


def test_jobs_need_names():
    data = snas.from_arrays(np.zeros((20, 4)), np.arange(20) % 2)
    with pytest.raises(InputError, match="dataset is Dataset, which other processes cannot open"):
        sweep("random", "0.3", jobs=2, dataset=data)
    space = snas.SearchSpace.from_model(lambda: __import__("torch").nn.Linear(8, 3), input_shape=(8,), name="mine")
    with pytest.raises(InputError, match="space is SearchSpace"):
        snas.sweep(space, methods="random", densities=0.5, jobs=2, dataset="mine.npz", registry="r.db")


def test_threads_are_shared_by_the_jobs(monkeypatch):
    monkeypatch.setattr(workers, "cpu_count", lambda: 8)
    settings = SweepSettings
    assert workers.with_threads(settings(methods="dense", jobs=3)).threads == 2
    assert workers.with_threads(settings(methods="dense", jobs=16)).threads == 1
    assert workers.with_threads(settings(methods="dense", jobs=3, threads=5)).threads == 5
    assert workers.with_threads(settings(methods="dense")).threads is None


def test_data_without_a_test_split_are_validated():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(100, 4)).astype(np.float32), np.arange(100) % 2
    result = sweep("random", "0.5", seeds=1, dataset=Dataset("mine", x, y, x[:0], y[:0], classes=2))
    with Registry("r.db") as registry:
        run = registry.runs(registry.find_entry(result.cells[0].id))[0]
    assert (result.split, run.test_accuracy) == ("validation", None)
    assert result.cells[0].accuracies == {0: run.reports[-1].validation_accuracy}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": []}, "methods is empty"),
        ({"methods": ["er", "er"]}, "given twice"),
        ({"methods": "er:rescale=true,er:rescale=true"}, "given twice"),
        ({"densities": []}, "densities is empty"),
        ({"densities": None}, "'random' needs densities"),
        ({"densities": [0.3, 1.5]}, "density is 1.5"),
        ({"densities": [0.3, float("nan")]}, "density is nan"),
        ({"densities": [0.3, 0.3]}, "given twice"),
        ({"densities": [0.3, 0.3001]}, "both keep"),
        ({"densities": [0.3, 1e-5]}, "density 1e-05: cannot keep"),
        ({"densities_from": {"fc": 0.1}}, "contradict"),
        ({"reference": "snip"}, "reference is 'snip'"),
        ({"reference": "snipp"}, "unknown method 'snipp'"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": "two"}, "seeds is 'two'"),
        ({"jobs": 0}, "jobs is 0"),
        ({"final_seeds": 2}, "a sweep has seeds"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"colour": "red"}, "unknown setting 'colour'"),
    ],
)
def test_wrong_use_is_found_before_anything_is_trained(monkeypatch, options, message):
    monkeypatch.setattr("snas.sweeps.run.train_entry", None)
    with pytest.raises(InputError, match=message):
        sweep(**{"methods": "random,er", "densities": [0.3], **options})
