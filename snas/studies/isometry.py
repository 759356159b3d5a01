"""Signal propagation: what pruning does to the Jacobian, and approximate isometry ([Lee2020b] chapter 4).

[Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from snas.bench import Bench
from snas.diagnostics.jacobian import jacobian_statistics
from snas.diagnostics.orthogonality import orthogonality_score
from snas.errors import InputError, RefusedError
from snas.exports.grids import Table
from snas.initialization import require_rule
from snas.masks import Masks
from snas.pruning.allocations import kept_from_density
from snas.pruning.goal import prune_in_rounds
from snas.pruning.methods import Method, open_method
from snas.pruning.prepare import make_goal
from snas.pruning.scores import scores
from snas.seeds import Stream, derive
from snas.studies.base import Cell, Grid, Picture, Point, Result, Scale, Study, combinations, measured, studies
from snas.studies.isometry_report import (
    ISOMETRIES,
    PRUNINGS,
    draw_training,
    draw_values,
    jacobian_tables,
    orthogonality_table,
    series,
    sparsity_table,
    throughout,
    trained,
)
from snas.studies.lab import Lab, seed_of
from snas.training.session import Session
from snas.training.task import score_batch
from snas.training.watcher import Watcher

POINTS = 40  # of a training curve, each the mean of as many steps


@studies.register("isometry")
class Isometry(Study):
    """Singular values of the Jacobian, orthogonality and training of pruned networks, with and without isometry."""

    shown = ("dataset", "space", "init", "pruning", "isometry", "sparsity")
    shared: Mapping[str, Any] = {"epochs": 0}  # what is not trained

    def grid(self, scale: Scale) -> Grid:
        """Figures 4.2 and table 4.1 are of a perceptron of seven layers on MNIST; table 4.2 is of any space."""
        common = {"pruning": ("snip", "random"), "isometry": ("none", "frobenius")}
        rule = {"lr": (0.1,), "momentum": (0.9,), "batch_size": (100,)}
        if scale == "tiny":
            return {
                "dataset": ("digits",), "space": ("mlp-tanh",), "init": ("glorot", "orthogonal", "normal:1"), **common,
                "sparsity": (0.0, 0.5, 0.9), "epochs": (5,), **rule, "examples": (200,), "seed": (0, 1),
            }  # fmt: skip
        gaussians = ("normal:0.01", "normal:0.0316228", "normal:0.1", "normal:0.316228", "normal:1", "normal:3.16228")
        inits = ("lecun", "glorot", "he", "orthogonal", *gaussians)
        if scale == "small":
            return {
                "dataset": ("mnist",), "space": ("mlp-tanh",), "init": inits, **common,
                "sparsity": (0.0, 0.3, 0.5, 0.7, 0.8, 0.9), "epochs": (3,), **rule, "examples": (1000,),
                "seed": (0, 1, 2),
            }  # fmt: skip
        return {
            "dataset": ("mnist",), "space": ("mlp-linear", "mlp-tanh"), "init": inits, "pruning": tuple(PRUNINGS),
            "isometry": ("none", "frobenius"), "sparsity": tuple(round(0.1 * tenth, 1) for tenth in range(10)),
            "epochs": (185,), **rule, "examples": (0,), "seed": tuple(range(10)),
        }  # fmt: skip

    def cells(self, grid: Grid) -> list[Cell]:
        """VS-G and LDI, or what is given alone, at all sparsities; other initial weights at the largest one, after
        SNIP, without isometry. What is trained are the networks of the largest sparsity, and dense ones; the others
        are measured alone."""
        _require_possible(grid)
        most = max(grid["sparsity"])
        cells = []
        for cell in combinations(grid):
            if cell["sparsity"] == 0:
                cell = {**cell, "pruning": None, "isometry": "none"}
            everywhere = throughout(cell["init"], grid["init"])
            plain = cell["sparsity"] == most and cell["pruning"] in (None, "snip") and cell["isometry"] == "none"
            if everywhere or plain:
                cells.append(cell if cell["sparsity"] in (0, most) else {**cell, "epochs": 0})
        return cells

    def settings(self, cell: Cell) -> Mapping[str, Any]:
        """The training rule and the initial weights; what is not trained has one epoch."""
        rule = {name: cell[name] for name in ("lr", "momentum", "batch_size", "init")}
        return {**rule, "epochs": cell["epochs"] or 1, "kernel": "dense", "weight_decay": 5e-4}

    def measure(self, cell: Cell, lab: Lab) -> Result:
        """The Jacobian of the dense and of the pruned network, what is left of each layer, and the training."""
        bench = lab.bench(cell["space"], cell["dataset"], **self.settings(cell))
        total = bench.space.total_weights
        x = lab.sample(bench, cell["examples"]).x
        dense = replace(open_method("dense"), nonlinearity=_gain_of(cell))
        start = lab.prepare(bench, dense, total, seed=cell["seed"])
        before = _statistics(start.model, x)
        if cell["sparsity"] == 0:
            method, kept, ready = dense, total, start
        else:
            method, kept = _method(cell), kept_from_density(1 - cell["sparsity"], total)
            try:
                ready = lab.prepare(bench, method, kept, seed=cell["seed"])
            except RefusedError as error:
                masks = _masks(bench, start.model, method, kept, seed=seed_of(cell["seed"]))
                return {"dense": before, "layers": _sparsities(masks), "refused": str(error)}
        result = {
            "dense": before,
            "pruned": _statistics(ready.model, x),
            "orthogonality": orthogonality_score(ready.model, ready.masks),
            "layers": _sparsities(ready.masks),
            "refused": None,
        }
        if cell["epochs"]:
            batches = -(-len(bench.task.data.train.y) // cell["batch_size"])
            watcher = LossWatcher(max(1, cell["epochs"] * batches // POINTS))
            trained = lab.train(bench, method, kept, seed=cell["seed"], sparse=ready, watcher=watcher)
            result |= {
                "losses": watcher.losses,
                "every": watcher.every,
                "test_accuracy": trained.test_accuracy,
                **trained.curve,
            }
        return result

    def tables(self, points: Sequence[Point]) -> list[Table]:
        """As tables 4.1 and 4.2, and the mean singular value at every sparsity."""
        found = measured(points)
        tables = []
        for dataset, space in dict.fromkeys((point["dataset"], point["space"]) for point in found):
            own = measured(found, dataset=dataset, space=space)
            tables += jacobian_tables(f"{space} on {dataset}", own)
            if series(own):
                tables.append(sparsity_table(f"{space} on {dataset}", own))
        return [*tables, orthogonality_table(found)] if found else []

    def pictures(self, points: Sequence[Point]) -> list[Picture]:
        """As figure 4.2: singular values by sparsity, and training at the largest."""
        pictures = []
        found = measured(points)
        for number, (dataset, space) in enumerate(dict.fromkeys((one["dataset"], one["space"]) for one in found)):
            own = measured(found, dataset=dataset, space=space)
            title = f"{space} on {dataset}"
            if series(own):
                pictures.append(Picture(f"singular-values-{number + 1}", draw_values(title, own), (9.4, 3.8)))
            if trained(own):
                pictures.append(Picture(f"training-{number + 1}", draw_training(title, own), (7.2, 4.0)))
        return pictures


class LossWatcher(Watcher):
    """Collects the mean training loss of every so many steps.

    Attributes:
        losses: in the order of the training.
        every: how many steps each is the mean of.
    """

    def __init__(self, every: int) -> None:
        self.losses: list[float] = []
        self.every = every
        self._sum, self._steps = 0.0, 0

    def on_step(self, session: Session, index: int, steps: int) -> None:
        """Add the step's loss."""
        if session.loss is None:
            return
        self._sum += float(session.loss)
        self._steps += 1
        if self._steps == self.every and math.isfinite(self._sum):
            self.losses.append(self._sum / self.every)
        if self._steps == self.every:
            self._sum, self._steps = 0.0, 0


def _require_possible(grid: Grid) -> None:
    for name, choices in (("pruning", PRUNINGS), ("isometry", ISOMETRIES)):
        for value in grid[name]:
            if value not in choices:
                raise InputError(f"{name} is {value!r}; choices: {', '.join(choices)}")
    for rule in grid["init"]:
        require_rule(rule)
    for value in grid["sparsity"]:
        if not 0 <= value < 1:
            raise InputError(f"sparsity is {value}; expected 0 <= sparsity < 1")
    if tuple(grid["sparsity"]) == (0,):
        raise InputError("sparsity is 0 alone, and nothing would be pruned; add one above 0")
    others = [init for init in grid["init"] if not throughout(init, grid["init"])]
    for name, value in (("pruning", "snip"), ("isometry", "none")):
        if others and value not in grid[name]:
            raise InputError(
                f"{name} has no {value!r}, and among several initial weights {others[0]!r} would be looked at with it "
                f"alone; add it, or give init {others[0]!r} alone"
            )


def _gain_of(cell: Cell) -> str | None:
    """Orthogonal weights have singular values of 1 whatever the nonlinearity, as published."""
    return "linear" if cell["init"].startswith("orthogonal") or cell["isometry"] != "none" else None


def _method(cell: Cell) -> Method:
    base = replace(open_method(cell["pruning"]), examples=0, allocation="global", rescale=False)
    return replace(base, isometry=cell["isometry"], nonlinearity=_gain_of(cell))


def _masks(bench: Bench, model: nn.Module, method: Method, kept: int, *, seed: int) -> Masks:
    """The masks that `prepare` refused: they leave no way through the network."""
    score, choice = (torch.Generator().manual_seed(derive(seed, stream)) for stream in (Stream.SCORE, Stream.MASK))
    goal = make_goal(bench.space, method, kept)
    batch = score_batch(bench.task.data, examples=method.examples, seed=seed)
    return prune_in_rounds(
        model,
        scores.get(method.score),
        goal,
        batch,
        iterations=1,
        revive=False,
        guarded=False,
        scoring=score,
        choosing=choice,
    )


def _sparsities(masks: Masks) -> list[float]:
    return [1 - kept / layer.total for kept, layer in zip(masks.kept.kept, masks.layers, strict=True)]


def _statistics(model: nn.Module, x: torch.Tensor) -> dict[str, float | None]:
    """Singular values; a condition number that is infinite or not defined is None."""
    found = jacobian_statistics(model, x)
    condition = found.condition if math.isfinite(found.condition) else None
    spread = {"mean": found.mean, "std": found.std, "largest": found.largest, "smallest": found.smallest}
    return {**spread, "condition": condition}
