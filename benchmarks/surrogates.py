"""An objective fitted to networks that others trained, and how well it foretells a method that it has not seen.

The table is density_accuracy.csv.gz: densities and test accuracies of E. Cunegatti et al., "Understanding sparse neural
networks from their topology via multipartite graph representations" (TMLR 2024). Each method has one pattern of
densities for each total, so that a surrogate extrapolates nearly everywhere. What matters is therefore its error on a
method that was left out of the fit, and its shape between the methods: additive losses fall where a layer gets more
weights, and have one optimum; a Gaussian process or trees have neither.
"""

from __future__ import annotations

import csv
import gzip
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from objectives import Additive, Array, Objective, budgeted
from scipy.optimize import nnls
from scipy.special import expit, logit
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel
from sklearn.preprocessing import StandardScaler

from snas.densities import Layer
from snas.search_spaces.base import spaces

STATIC = ("uniform", "er", "erk", "snip", "grasp", "synflow", "prospr")  # masks that stay as they are
POWERS = (0.125, 0.25, 0.5, 1.0)
RIDGE = 0.01
CEILING = 5.0  # log-odds above all that were seen; the fit takes off what is too much


@dataclass(frozen=True)
class Trained:
    """Networks that were trained.

    Attributes:
        layers: of all of them.
        kept: numbers of weights, shape (networks, layers), above 0: half a weight stands for an empty layer.
        accuracies: shape (networks,).
        methods: that chose the densities, shape (networks,).
    """

    layers: tuple[Layer, ...]
    kept: Array
    accuracies: Array
    methods: NDArray[np.str_]

    @property
    def totals(self) -> Array:
        return np.array([float(layer.total) for layer in self.layers])

    @property
    def logarithms(self) -> Array:
        """Of the layers' densities and of the network's, shape (networks, layers + 1)."""
        return np.log10(np.column_stack([self.kept / self.totals, self.kept.sum(axis=1) / self.totals.sum()]))

    def of(self, chosen: NDArray[np.bool_]) -> Trained:
        return Trained(self.layers, self.kept[chosen], self.accuracies[chosen], self.methods[chosen])


def read_trained(
    path: Path, *, model: str = "Resnet-32", dataset: str = "cifar-10", space: str = "resnet32"
) -> Trained:
    """The networks with fixed masks of one model and dataset; `space` has the model's layers in the table's order."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["model"], row["dataset"]) == (model, dataset)]
    rows = [row for row in rows if row["method"] in STATIC]
    layers = spaces.get(space)((3, 32, 32), 10).layers
    densities = np.array([json.loads(row["densities"]) for row in rows])
    kept = np.maximum(np.round(densities * [layer.total for layer in layers]), 0.5)
    accuracies = np.array([float(row["test_accuracy"]) for row in rows])
    return Trained(layers, kept, accuracies, np.array([row["method"] for row in rows]))


def fit_additive(trained: Trained, *, power: float) -> Additive:
    """Non-negative least squares of the log-odds on the layers' losses, all with this power.

    A slight ridge shares an effect among the layers whose densities go together in all methods.
    """
    losses = (trained.kept / trained.totals) ** -power
    sizes = losses.max(axis=0)
    rows = np.column_stack([losses / sizes, np.ones(len(losses))])
    ridge = RIDGE * np.sqrt(len(rows)) * np.eye(rows.shape[1])[:-1]
    wanted = np.concatenate([CEILING - logit(trained.accuracies), np.zeros(len(ridge))])
    found, _ = nnls(np.vstack([rows, ridge]), wanted)
    layers = len(trained.layers)
    return Additive(
        CEILING - float(found[-1]), found[:-1] / sizes, np.zeros(layers), trained.totals, np.full(layers, power)
    )


def fitted(trained: Trained, density: float, *, power: float, name: str) -> Objective:
    """The objective that trained networks suggest for a budget."""
    return Objective(name, budgeted(trained.layers, density, name), fit_additive(trained, power=power))


def errors_on_unseen(trained: Trained) -> dict[str, float]:
    """Root mean square errors of the accuracy, in points, of each model on methods that were left out one by one."""
    ways: dict[str, Callable[[Trained, Trained], Array]] = {
        "total density alone (quadratic)": _by_total,
        "gradient boosting": _by_boosting,
        "Gaussian process": _by_process,
    }
    ways |= {f"additive, power {power}": partial(_by_losses, power=power) for power in POWERS}
    errors = {}
    for name, predict in ways.items():
        squares = []
        for method in np.unique(trained.methods):
            unseen = trained.methods == method
            test = trained.of(unseen)
            squares.append((predict(trained.of(~unseen), test) - test.accuracies) ** 2)
        errors[name] = round(100 * float(np.sqrt(np.concatenate(squares).mean())), 2)
    return errors


def best_power(errors: dict[str, float]) -> float:
    """The power of the additive model with the smallest error."""
    return min(POWERS, key=lambda power: errors[f"additive, power {power}"])


def _by_losses(train: Trained, test: Trained, *, power: float) -> Array:
    model = fit_additive(train, power=power)
    return np.array([model.accuracy(kept) for kept in test.kept])


def _by_total(train: Trained, test: Trained) -> Array:
    curve = np.polyfit(train.logarithms[:, -1], logit(train.accuracies), 2)
    return expit(np.polyval(curve, test.logarithms[:, -1]))


def _by_boosting(train: Trained, test: Trained) -> Array:
    trees = GradientBoostingRegressor(n_estimators=300, learning_rate=0.05, subsample=0.7, random_state=0)
    return expit(trees.fit(train.logarithms, logit(train.accuracies)).predict(test.logarithms))


def _by_process(train: Trained, test: Trained) -> Array:
    kernel = ConstantKernel() * Matern(5.0, (0.5, 1e3), nu=2.5) + ConstantKernel(0.1) * DotProduct() + WhiteKernel(0.01)
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    scaler = StandardScaler().fit(train.logarithms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of length scales at their limits
        process.fit(scaler.transform(train.logarithms), logit(train.accuracies))
    return expit(process.predict(scaler.transform(test.logarithms)))
