"""The objectives of benchmarks/strategies.py: their optima are optima, and what is fitted foretells what made it."""

import gzip
import itertools
import json
import math
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from snas.budget import Budget
from snas.densities import Layer


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
        names = ("objectives", "surrogates", "strategies")
        yield SimpleNamespace(**{name: import_module(name) for name in names})


def additive(bench, factors, offsets, powers):
    return bench.objectives.Additive(
        3.0, np.array(factors), np.array(offsets), np.array([2.0, 5.0, 10.0]), np.array(powers)
    )


def test_accuracy_is_the_formula(bench):
    model = additive(bench, [0.5, 1.0, 2.0], [1.0, 0.0, 4.0], [1.0, 0.5, 2.0])
    log_odds = 3 - 0.5 / ((3 + 1) / 2) - 1 / math.sqrt(20 / 5) - 2 / ((6 + 4) / 10) ** 2
    assert model.accuracy([3, 20, 6]) == pytest.approx(1 / (1 + math.exp(-log_odds)))


@pytest.mark.parametrize(
    ("factors", "offsets", "powers"),
    [
        ([0.5, 1.0, 2.0], [1.0, 3.0, 4.0], [1.0, 0.5, 2.0]),
        ([100.0, 0.01, 1.0], [0.0, 0.0, 0.0], [0.5, 0.5, 0.5]),  # the first is full, the second keeps its one weight
        ([0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),  # two do not matter
    ],
)
def test_no_counts_are_better_than_the_optimum(bench, factors, offsets, powers):
    model = additive(bench, factors, offsets, powers)
    layers = (Layer("a", (3, 4)), Layer("b", (5, 4)), Layer("c", (5, 6)))
    limits = Budget(weights=27).limits(layers)
    optimum = model.optimum(limits)
    assert optimum.sum() == pytest.approx(27)
    assert all(1 <= kept <= layer.total for kept, layer in zip(optimum, layers, strict=True))
    counts = [(a, b, 27 - a - b) for a, b in itertools.product(range(1, 13), range(1, 21)) if 1 <= 27 - a - b <= 30]
    best = max(counts, key=model.accuracy)
    assert model.accuracy(best) <= model.accuracy(optimum) + 1e-12
    if factors[0]:
        assert np.abs(np.array(best) - optimum).max() < 1
    else:
        assert optimum[1] == 20


def test_regret_is_never_negative_and_zero_at_the_optimum(bench):
    layers = bench.objectives.realistic_layers(5)
    objective = bench.objectives.sensitivity(layers, 0.05, name="five", rng=np.random.default_rng(3))
    rng = np.random.default_rng(0)
    seen = [objective.accuracy(rng.random(5)) for _ in range(200)]
    assert max(seen) < objective.best
    assert objective.reachable <= objective.best
    assert objective.accuracy(np.full(5, 0.5)) == pytest.approx(0.85)
    exact = objective.limits.project(objective.model.optimum(objective.limits), objective.limits.most)
    assert objective.model.accuracy(exact.kept) == pytest.approx(objective.best, abs=1e-5)


@pytest.mark.parametrize("number", [3, 9, 34, 100])
def test_there_are_as_many_coordinates_as_layers(bench, number):
    layers = bench.objectives.realistic_layers(number)
    assert bench.objectives.budgeted(layers, 0.02, "any").dimensions == len(layers) == number


def test_noise_is_as_large_as_said_and_larger_in_short_trainings(bench):
    layers = bench.objectives.realistic_layers(3)
    objective = bench.objectives.sensitivity(layers, 0.02, name="three", rng=np.random.default_rng(3))
    objective = bench.objectives.with_rungs(objective, epochs=8, rng=np.random.default_rng(1))
    point = np.full(3, 0.5)
    for epoch, factor in ((8, 1.0), (1, 2.0)):
        scores = [objective.score(point, epoch, rng=np.random.default_rng(seed)) for seed in range(800)]
        assert np.mean(scores) == pytest.approx(objective.accuracy(point, epoch), abs=0.0015)
        assert np.std(scores) == pytest.approx(0.004 * factor, rel=0.12)
    assert objective.accuracy(point, 8) == objective.accuracy(point)
    assert objective.accuracy(point, 1) < objective.accuracy(point, 4) < objective.accuracy(point, 8)


def test_fit_finds_the_losses_that_made_the_data(bench):
    layers = tuple(Layer(name, (20, 20)) for name in "abcd")
    rng = np.random.default_rng(0)
    kept = np.round(400 * 10 ** rng.uniform(-2, 0, (60, 4)))
    true = [0.5, 0.0, 0.2, 0.05]
    odds = [3 - sum(a * (k / 400) ** -0.5 for a, k in zip(true, row, strict=True)) for row in kept]
    accuracies = 1 / (1 + np.exp(-np.array(odds)))
    trained = bench.surrogates.Trained(layers, kept, accuracies, np.array(["m"] * 60))
    model = bench.surrogates.fit_additive(trained, power=0.5)
    assert model.factors.tolist() == pytest.approx(true, abs=0.02)
    assert [model.accuracy(row) for row in kept] == pytest.approx(accuracies.tolist(), abs=0.01)


def test_only_fixed_masks_of_the_model_are_read(bench, tmp_path):
    path = tmp_path / "table.csv.gz"
    densities = json.dumps([0.0, *[0.5] * 33]).replace('"', "")
    with gzip.open(path, "wt") as file:
        file.write("dataset,model,method,nominal_sparsity,seed,test_accuracy,densities\n")
        for dataset, model, method in (
            ("cifar-10", "Resnet-32", "erk"),
            ("cifar-10", "Resnet-32", "rigl"),
            ("cifar-100", "Resnet-32", "erk"),
            ("cifar-10", "CONV-6", "erk"),
        ):
            file.write(f'{dataset},{model},{method},0.5,0,0.875,"{densities}"\n')
    trained = bench.surrogates.read_trained(path)
    assert trained.methods.tolist() == ["erk"]
    assert trained.accuracies.tolist() == [0.875]
    assert trained.kept[0, :2].tolist() == [0.5, 1152]  # an empty layer counts as half a weight


@pytest.mark.parametrize("rungs", [False, True])
def test_search_is_the_same_again_and_its_beginning_does_not_depend_on_its_length(bench, rungs):
    case = bench.strategies.Case("3", 0.02, rungs=rungs, rules=True)
    run = bench.strategies.Run(case, "evolution", 1, 30, 0, Path("none"), 1.0)
    _, regrets, _ = bench.strategies.search(run)
    shorter = bench.strategies.Run(case, "evolution", 1, 20, 0, Path("none"), 1.0)
    assert bench.strategies.search(shorter)[1] == regrets[:20]
    assert min(regrets) >= 0
    assert len(set(regrets)) > 1
