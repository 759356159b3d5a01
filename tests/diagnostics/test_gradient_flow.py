"""Gradient flow: by hand, against plain norms, compiled, compressed, stacked, and in the registry."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import snas
from snas.analysis.gradient_flow import (
    FlowObservation,
    analyze_gradient_flow,
    correlate_flow,
    correlation_table,
)
from snas.cli.main import main
from snas.data.arrays import from_arrays
from snas.data.split import split_data
from snas.densities import Layer
from snas.diagnostics.gradient_flow import (
    FLOWS,
    FlowWatcher,
    average_flow,
    gradient_flow,
    measured_epochs,
    session_flow,
)
from snas.errors import InputError
from snas.masks import Masks
from snas.registry import Registry
from snas.training.rule import TrainingRule
from snas.training.session import Session
from snas.training.watcher import Watcher

TWO = (Layer("0", (2, 2), parameter="0.weight"), Layer("1", (2, 2), parameter="1.weight"))
MASK = {"0": torch.tensor([[True, False], [True, True]]), "1": torch.tensor([[True, True], [False, True]])}


def two_layers() -> nn.Sequential:
    """y = W2 W1 x, linear, with masked weights zero."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [2.0, -1.0]]))
        model[1].weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 2.0]]))
    return model


def data(examples=20, features=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, features)).astype(np.float32)
    return split_data(from_arrays(x, (x[:, 0] > 0).astype(np.int64)), seed=0)


def session_of(model, masks, *, epochs=1, batch_size=8, kernel="dense", watcher=None, features=2, examples=20, **rule):
    return Session(
        model,
        masks,
        TrainingRule(epochs=epochs, batch_size=batch_size, **({"lr": 0.05} | rule)),
        data(examples, features),
        seed=1,
        device=torch.device("cpu"),
        kernel=kernel,
        watcher=watcher,
    )


def backward(session: Session, x, y, model=None) -> None:
    session.optimizer.zero_grad()
    nn.functional.cross_entropy((model or session.model)(x), y).backward()


def test_egf_of_two_layers_is_what_one_computes_by_hand():
    model = two_layers()
    session = session_of(model, Masks(TWO, MASK))
    x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([0])
    backward(session, x, y)
    # h = W1 x = (1, 0); z = W2 h = (1, 0); dL/dz = softmax(z) - (1, 0) = (-q, q) with q = 1 / (1 + e).
    q = 1 / (1 + math.e)
    # dL/dW2 = dz h^T = ((-q, 0), (q, 0)); its kept places are (0, 0), (0, 1), (1, 1).
    # dh = W2^T dz = (-q, -q + 2 q) = (-q, q); dL/dW1 = dh x^T = ((-q, -2q), (q, 2q)); kept (0, 0), (1, 0), (1, 1).
    first = {"1": q + q + 2 * q, "2": math.sqrt(q**2 + q**2 + 4 * q**2)}
    second = {"1": q, "2": q}
    all_first = {"1": 6 * q, "2": math.sqrt(10) * q}
    all_second = {"1": 2 * q, "2": math.sqrt(2) * q}
    found = session_flow(session)
    assert set(found) == set(FLOWS)
    for p in "12":
        assert found[f"egf{p}"] == pytest.approx((first[p] + second[p]) / 2)
        assert found[f"egf{p}-all"] == pytest.approx((all_first[p] + all_second[p]) / 2)
    assert found["gf1"] == pytest.approx(first["1"] + second["1"])
    assert found["gf2"] == pytest.approx(math.hypot(first["2"], second["2"]))
    assert found["gf1-all"] == pytest.approx(8 * q)
    assert found["gf2-all"] == pytest.approx(math.sqrt(12) * q)


def test_of_a_dense_network_of_one_layer_it_is_the_plain_norm():
    layer = (Layer("weight", (2, 3), parameter="weight"),)
    model = nn.Linear(3, 2)
    session = session_of(model, Masks.dense(layer), features=3)
    backward(session, torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 2)
    found = session_flow(session)
    for p in (1, 2):
        plain = float(torch.linalg.vector_norm(model.weight.grad, p))
        names = (f"gf{p}", f"egf{p}", f"gf{p}-all", f"egf{p}-all")
        assert [found[name] for name in names] == pytest.approx([plain] * 4)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_is_the_same_with_a_compiled_network(backend):
    x, y = torch.randn(6, 2, generator=torch.Generator().manual_seed(2)), torch.arange(6) % 2
    plain = session_of(two_layers(), Masks(TWO, MASK))
    backward(plain, x, y)
    model = two_layers()
    compiled = session_of(model, Masks(TWO, MASK))
    backward(compiled, x, y, torch.compile(model, backend=backend))
    assert session_flow(compiled) == pytest.approx(session_flow(plain), rel=1e-6)
    in_place = two_layers()
    in_place.compile(backend=backend)
    watcher, other = FlowWatcher(), FlowWatcher()
    session_of(in_place, Masks(TWO, MASK), watcher=watcher).train_epoch()
    session_of(two_layers(), Masks(TWO, MASK), watcher=other).train_epoch()
    assert watcher.found[1] == pytest.approx(other.found[1], rel=1e-5)


def test_epochs_are_those_of_the_source():
    assert measured_epochs(1000) == [1, *range(100, 1001, 100)]
    assert measured_epochs(500) == [1, *range(50, 501, 50)]
    assert measured_epochs(11) == list(range(1, 12))
    assert measured_epochs(1) == [1]


def test_it_is_that_of_the_last_whole_batch_and_leaves_the_training_alone():
    seen = []

    class Noting(FlowWatcher):
        def on_gradients(self, session, index, steps):
            total = sum(float(layer.weight.grad.abs().sum()) for layer in session.model)
            seen.append((session.epoch + 1, index, total))
            super().on_gradients(session, index, steps)

    watcher = Noting()
    watched = session_of(two_layers(), Masks.dense(TWO), epochs=25, watcher=watcher, examples=30)
    plain = session_of(two_layers(), Masks.dense(TWO), epochs=25, examples=30)
    idle = session_of(two_layers(), Masks.dense(TWO), epochs=25, examples=30, watcher=Watcher())
    epochs = [watched.train_epoch() for _ in range(25)]
    for epoch in epochs:
        other, unwatched = idle.train_epoch(), plain.train_epoch()
        assert (epoch.train_loss, epoch.validation_loss) == (other.train_loss, other.validation_loss)
        assert unwatched.train_loss == pytest.approx(epoch.train_loss, rel=1e-6)  # without autograd
        assert unwatched.measured == {}
    assert sorted(watcher.found) == [1, 3, 5, 8, 10, 13, 15, 17, 20, 22, 25] == [e.number for e in epochs if e.measured]
    examples = len(watched.data.train.y)
    assert examples % 8 not in (0, 1)  # there is a smaller batch behind the last whole one
    first = {number: totals for number, index, totals in seen if index == examples // 8 - 1}
    for number, values in watcher.found.items():
        assert values["gf1"] == pytest.approx(first[number])
    average = average_flow(watcher.found)
    assert average["egf2"] == pytest.approx(np.mean([values["egf2"] for values in watcher.found.values()]))


def test_a_layer_of_which_only_kept_weights_are_stored_counts_alike():
    layers = (Layer("0", (40, 30), parameter="0.weight"), Layer("2", (2, 40), parameter="2.weight"))
    generator = torch.Generator().manual_seed(0)
    masks = Masks(layers, {layer.name: torch.rand(layer.shape, generator=generator) < 0.2 for layer in layers})
    found = []
    for kernel in ("dense", "sparse"):
        model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 2))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) / 5)
        masks.apply(model)
        watcher = FlowWatcher()
        session_of(model, masks, kernel=kernel, watcher=watcher, features=30).train_epoch()
        found.append(watcher.found[1])
    assert set(found[0]) == set(FLOWS)
    assert set(found[1]) == {"gf1", "gf2", "egf1", "egf2"}
    assert found[1] == pytest.approx({name: found[0][name] for name in found[1]}, rel=1e-4)


def test_norms_that_are_not_finite_are_left_out():
    session = session_of(two_layers(), Masks(TWO, MASK))
    backward(session, torch.full((1, 2), float("inf")), torch.tensor([0]))
    assert session_flow(session) == {}
    assert gradient_flow([torch.tensor([math.nan, 1.0])], [torch.tensor([False, True])])["gf2"] == 1.0


@pytest.mark.parametrize("evaluator", ["serial", "stacked"])
def test_searches_and_baselines_record_it(evaluator):
    options = {"epochs": 3, "registry": "r.db", "threads": 1, "record_gradient_flow": True, "final_seeds": 2}
    found = snas.search(
        "lenet-300-100", strategy="random", samples=3, confirm=0, baselines="dense", evaluator=evaluator, **options
    )
    snas.prune("lenet-300-100", method="rigl:every=5", density=0.1, **options)
    with Registry("r.db") as registry:
        candidates = registry.candidates(registry.find_study(found.study))
        runs = [run for entry in registry.entries() for run in registry.runs(entry)]
    for record in (*candidates, *runs):
        assert all({"gf1", "gf2", "egf1", "egf2"} <= set(report.measured) for report in record.reports)
    dense = next(run for run in runs if sum(run.kept.values()) == 50200)
    last = dense.reports[-1].measured
    assert last["egf2"] == last["egf2-all"]
    observations = analyze_gradient_flow("r.db")
    assert sorted(seen.sparse for seen in observations) == [False, False, True, True, True, True]
    assert len({seen.configuration for seen in observations}) == 1
    with pytest.raises(InputError, match="no tested network of space 'mlp'"):
        analyze_gradient_flow("r.db", space="mlp")
    assert main(["analyze", "gradient-flow", "--registry", "r.db"]) == 0
    assert main(["analyze", "gradient-flow", "--registry", "r.db", "--format", "json"]) == 0


def test_recording_changes_no_result_and_is_no_part_of_a_rows_identity():
    options = {"epochs": 2, "registry": "r.db", "threads": 1, "final_seeds": 1, "method": "er", "density": 0.1}
    first = snas.prune("lenet-300-100", **options)
    again = snas.prune("lenet-300-100", record_gradient_flow=True, **options)
    assert (first.id, first.test_accuracy) == (again.id, again.test_accuracy)
    other = snas.prune("lenet-300-100", record_gradient_flow=True, **(options | {"registry": "q.db"}))
    assert other.test_accuracy == first.test_accuracy
    with pytest.raises(InputError, match="train some with --record-gradient-flow"):
        analyze_gradient_flow("r.db")
    assert len(analyze_gradient_flow("q.db")) == 1


def observation(flow, loss, accuracy, *, sparse=True, configuration="a"):
    return FlowObservation("d", configuration, sparse, {"egf2": flow, "gf2-all": -flow}, loss, accuracy)


def test_correlations_are_means_over_configurations_of_absolute_values():
    rising = [observation(value, value, -value) for value in (1.0, 2.0, 3.0)]
    half = [observation(x, y, 0.5, configuration="b") for x, y in ((1.0, 2.0), (2.0, 1.0), (3.0, 3.0))]
    few = [observation(1.0, 1.0, 1.0, configuration="c"), observation(2.0, 2.0, 2.0, configuration="c")]
    found = {
        (one.measure, one.target, one.sparse): (one.tau, one.configurations, one.networks)
        for one in correlate_flow(rising + half + few)
    }
    assert found["egf2", "test_loss", True] == (pytest.approx((1 + 1 / 3) / 2), 2, 6)
    assert found["gf2-all", "test_loss", True][0] == pytest.approx((1 + 1 / 3) / 2)
    assert found["egf2", "test_accuracy", True] == (1.0, 1, 3)  # all alike in b: not defined there
    assert found["egf2", "test_loss", False] == (None, 0, 0)
    table = correlation_table(rising + half)
    assert [row[0] for row in table.rows] == ["d: ||g||_1", "d: ||g||_2", "d: EGF_1", "d: EGF_2"]
    assert table.rows[3] == ["d: EGF_2", "0.667", "1.000", "-", "-"]
    assert table.bold == {(1, 1), (3, 1), (1, 2), (3, 2)}
    json.dumps([vars(one) if hasattr(one, "__dict__") else str(one) for one in correlate_flow(rising)])
