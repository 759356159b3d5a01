"""Same Capacity Sparse vs Dense Comparison: networks of equal active weights in every layer ([Tessera2021] 3.2.1, A.1).

The dense network has hidden layers of the dense width N_W. The sparse one has those of the maximum width N_MW = inputs
+ 4, and keeps in each layer as many weights as the dense one has there, drawn from the distribution of the dense one's.

[Tessera2021] K. Tessera: On sparsity in deep learning, MSc report, 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from snas.bench import Bench
from snas.densities import Densities
from snas.diagnostics.gradient_flow import FLOWS, FlowWatcher, average_flow
from snas.errors import InputError
from snas.initialization import parse_rule
from snas.masks import weights_of
from snas.pruning.methods import Method, methods, open_method
from snas.pruning.prepare import Sparse
from snas.studies.base import Cell, Result
from snas.studies.lab import Lab

PARTS = ("DA", "L2", "SC", "BN")
NONE = "NR"
L2 = 1e-4  # lambda, section 3.3.2
OPTIMIZERS: dict[str, Mapping[str, Any]] = {
    "adagrad": {"optimizer": "adagrad"},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
    "rmsprop": {"optimizer": "rmsprop"},
    "sgd": {"optimizer": "sgd", "momentum": 0.0},
    "momentum": {"optimizer": "sgd", "momentum": 0.9},
}
MAGNITUDE = "gradual:start=0.5:end=0.5"  # dense for half of the training, then pruned at once (section 3.4.3)


def parts_of(regularization: str) -> tuple[str, ...]:
    """The parts of a name of the source's: "NR", or DA, L2, SC and BN joined by "_".

    Raises:
        InputError: for an unknown part, one that is there twice, and NR beside others.

    Example:
        >>> parts_of("DA_SC_BN"), parts_of("NR")
        (('DA', 'SC', 'BN'), ())
    """
    parts = tuple(regularization.split("_"))
    if parts == (NONE,):
        return ()
    if not set(parts) <= set(PARTS) or len(set(parts)) < len(parts):
        raise InputError(f"regularization is {regularization!r}; expected NR, or some of DA_L2_SC_BN joined by '_'")
    return parts


def require_possible(grid: Mapping[str, Sequence[Any]]) -> None:
    """Raise InputError for values that no cell can have, before anything is measured."""
    for name in grid["regularization"]:
        parts_of(name)
    for name, choices in (
        ("optimizer", tuple(OPTIMIZERS)),
        ("network", ("sparse", "dense")),
        ("pruning", ("random", "magnitude")),
    ):
        for value in grid[name]:
            if value not in choices:
                raise InputError(f"{name} is {value!r}; choices: {', '.join(choices)}")
    for width in grid["dense_width"]:
        if not 0 < width <= 100:
            raise InputError(
                f"dense_width is {width}; expected a percentage of the maximum width, above 0 and at most 100: a wider "
                "dense network has more weights than the sparse one can match"
            )
    for rule in grid["init"]:
        _fan_rule(rule)


def _fan_rule(rule: str) -> str:
    name = parse_rule(rule).name
    if name.removesuffix("-truncated") not in ("he", "glorot", "lecun", "normal", "truncated"):
        raise InputError(f"init is {rule!r}; the comparison needs weights drawn one by one: he, glorot, lecun, normal")
    return name


def widths_of(inputs: int, percent: float) -> tuple[int, int]:
    """The maximum width N_MW, and the dense width N_W.

    Example:
        >>> [widths_of(3072, percent)[1] for percent in (10, 30, 50, 70, 90)]  # table 3.2
        [308, 923, 1538, 2153, 2768]
    """
    most = inputs + 4
    return most, max(1, round(percent * most / 100))


def settings_of(cell: Cell) -> dict[str, Any]:
    """The training rule and the initial weights of a cell's networks."""
    parts = parts_of(cell["regularization"])
    rule = {name: cell[name] for name in ("epochs", "batch_size", "lr", "init")}
    settings = {**rule, **OPTIMIZERS[cell["optimizer"]]}
    settings |= {"schedule": "constant", "weight_decay": L2 if "L2" in parts else 0.0, "kernel": "dense"}
    return settings | {"augment": "on" if "DA" in parts else "off"}


def open_pair(cell: Cell, lab: Lab) -> tuple[Bench, Bench]:
    """The benches of a cell's sparse (wide) and dense network: one rule, one set of data."""
    parts, settings = parts_of(cell["regularization"]), settings_of(cell)
    most, width = widths_of(math.prod(lab.dataset(cell["dataset"]).input_shape), cell["dense_width"])
    shape = f"hidden_layers={cell['hidden_layers']}:activation={cell['activation']}:bias=no"
    shape += f":batch_norm={'yes' if 'BN' in parts else 'no'}:skip={'yes' if 'SC' in parts else 'no'}"
    wide, narrow = (
        lab.bench(f"mlp:width={units}:{shape}", cell["dataset"], examples=cell["examples"], **settings)
        for units in (most, width)
    )
    return wide, narrow


def matched_densities(wide: Bench, narrow: Bench) -> Densities:
    """The densities of the wide network's layers that keep as many weights as the narrow one has in each.

    Raises:
        InputError: if a layer has fewer weights than it is to keep.
    """
    counts = {}
    for layer, dense in zip(wide.space.layers, narrow.space.layers, strict=True):
        if dense.total > layer.total:
            raise InputError(
                f"layer {layer.name!r} has {layer.total} weights and cannot keep the {dense.total} of the dense "
                "network; choose a smaller dense width"
            )
        counts[layer.name] = dense.total
    return Densities.from_counts(wide.space.layers, counts)


@torch.no_grad()
def match_distribution(sparse: Sparse, wide: Bench, narrow: Bench, *, rule: str) -> None:
    """Give the kept weights the deviation that the dense network's layers are drawn with (step 2 of section 3.2.1)."""
    name = _fan_rule(rule).removesuffix("-truncated")
    weights = weights_of(sparse.model, wide.space.layers)
    for weight, layer, dense in zip(weights, wide.space.layers, narrow.space.layers, strict=True):
        if name in ("he", "lecun"):
            ratio = layer.shape[1] / dense.shape[1]
        elif name == "glorot":
            ratio = sum(layer.shape) / sum(dense.shape)
        else:
            ratio = 1.0  # a deviation that is given is the same for both
        weight.mul_(math.sqrt(ratio))


def prepare_network(cell: Cell, lab: Lab) -> tuple[Bench, Method, Densities | int, Sparse]:
    """The network of a cell before training: its bench, how it is made, at what counts, and the network itself."""
    wide, narrow = open_pair(cell, lab)
    if cell["network"] == "dense":
        total = narrow.space.total_weights
        return narrow, methods.get("dense"), total, lab.prepare(narrow, "dense", total, seed=cell["seed"])
    densities = matched_densities(wide, narrow)
    name = "random" if cell["pruning"] == "random" else MAGNITUDE
    method = replace(open_method(name), allocation="given", rescale=False)
    sparse = lab.prepare(wide, method, densities, seed=cell["seed"])
    if cell["pruning"] == "random":
        match_distribution(sparse, wide, narrow, rule=cell["init"])
    return wide, method, densities, sparse


def measure_network(cell: Cell, lab: Lab) -> Result:
    """Train a cell's network; measure what it reaches, and its gradient flow along the way."""
    bench, method, target, sparse = prepare_network(cell, lab)
    watcher = FlowWatcher()
    trained = lab.train(bench, method, target, seed=cell["seed"], sparse=sparse, watcher=watcher)
    epochs = sorted(watcher.found)
    names = [name for name in FLOWS if all(name in watcher.found[epoch] for epoch in epochs)]
    return {
        "test_loss": trained.test_loss,
        "test_accuracy": trained.test_accuracy,
        "train_loss": trained.epochs[-1].train_loss,
        "kept": dict(trained.session.masks.kept.counts),
        "flow": average_flow(watcher.found),
        "flow_epochs": epochs,
        "flows": {name: [watcher.found[epoch][name] for epoch in epochs] for name in names},
        **trained.curve,
    }
