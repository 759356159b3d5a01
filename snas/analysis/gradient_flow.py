"""How gradient flow along training goes along with test loss and accuracy ([Tessera2021] table 3.1).

[Tessera2021] K. Tessera: On sparsity in deep learning, MSc report, 2021, section 3.2.2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from scipy.stats import kendalltau

from snas.diagnostics.gradient_flow import FLOWS, WHOLE, average_flow
from snas.errors import InputError
from snas.exports.grids import Table
from snas.registry import Entry, Registry, TrainingRecord
from snas.settings import registry_path

# Rows of table 3.1. The plain norms are of all gradients, as they are commonly taken; EGF is of kept weights alone.
MEASURES = {
    f"gf1{WHOLE}": "||g||_1",
    f"gf2{WHOLE}": "||g||_2",
    "egf1": "EGF_1",
    "egf2": "EGF_2",
    "gf1": "||g||_1, kept weights alone",
    "gf2": "||g||_2, kept weights alone",
    f"egf1{WHOLE}": "EGF_1, masked weights too",
    f"egf2{WHOLE}": "EGF_2, masked weights too",
}
TARGETS = {"test_loss": "test loss", "test_accuracy": "test accuracy"}
LEAST = 3  # networks of a configuration, for a rank correlation to say anything


@dataclass(frozen=True)
class FlowObservation:
    """One network that was trained and tested.

    Attributes:
        dataset: name of its data.
        configuration: networks of one are correlated with each other: everything but mask, width, density and seed.
        sparse: whether it lacks weights.
        flow: name -> mean over the epochs at which it was measured.
        test_loss: mean on the test data.
        test_accuracy: the same.
    """

    dataset: str
    configuration: str
    sparse: bool
    flow: Mapping[str, float]
    test_loss: float
    test_accuracy: float


@dataclass(frozen=True)
class FlowCorrelation:
    """How a norm goes along with a figure of the test, among sparse or dense networks on one data set.

    Attributes:
        dataset: name of the data.
        measure: one of `FLOWS`.
        target: "test_loss" or "test_accuracy".
        sparse: which networks.
        tau: mean over the configurations of the absolute Kendall rank correlation (tau-b); None where no configuration
            has three networks that differ.
        configurations: how many are behind it.
        networks: in these.
    """

    dataset: str
    measure: str
    target: str
    sparse: bool
    tau: float | None
    configurations: int
    networks: int


def correlate_flow(observations: Sequence[FlowObservation]) -> list[FlowCorrelation]:
    """Correlate every norm with test loss and accuracy, for each data set, and for sparse and dense networks apart."""
    found = []
    for dataset in dict.fromkeys(seen.dataset for seen in observations):
        for measure in FLOWS:
            for sparse in (True, False):
                own = [
                    seen
                    for seen in observations
                    if seen.dataset == dataset and seen.sparse == sparse and measure in seen.flow
                ]
                found += [_correlate(dataset, measure, target, own, sparse=sparse) for target in TARGETS]
    return found


def _correlate(
    dataset: str, measure: str, target: str, observations: Sequence[FlowObservation], *, sparse: bool
) -> FlowCorrelation:
    groups: dict[str, list[FlowObservation]] = {}
    for seen in observations:
        groups.setdefault(seen.configuration, []).append(seen)
    taus, networks = [], 0
    for group in groups.values():
        if len(group) < LEAST:
            continue
        tau = float(kendalltau([seen.flow[measure] for seen in group], [getattr(seen, target) for seen in group])[0])
        if not math.isnan(tau):
            taus.append(abs(tau))
            networks += len(group)
    return FlowCorrelation(dataset, measure, target, sparse, fmean(taus) if taus else None, len(taus), networks)


def correlation_table(observations: Sequence[FlowObservation], *, every: bool = False) -> Table:
    """Table 3.1: mean absolute Kendall correlation, the best measure of each data set and column bold.

    Args:
        observations: networks.
        every: whether norms of kept weights alone, and EGF with masked weights, are shown too.
    """
    found = {(one.dataset, one.measure, one.target, one.sparse): one for one in correlate_flow(observations)}
    columns = [(sparse, target) for sparse in (True, False) for target in TARGETS]
    measures = list(MEASURES) if every else list(MEASURES)[:4]
    rows: list[list[str]] = []
    bold = set()
    counts = []
    for dataset in dict.fromkeys(one.dataset for one in found.values()):
        first = len(rows)
        for measure in measures:
            taus = [found[dataset, measure, target, sparse].tau for sparse, target in columns]
            rows.append([f"{dataset}: {MEASURES[measure]}", *("-" if tau is None else f"{tau:.3f}" for tau in taus)])
        for column, (sparse, target) in enumerate(columns, start=1):
            taus = [found[dataset, measure, target, sparse].tau for measure in measures]
            known = [tau for tau in taus if tau is not None]
            bold |= {(first + place, column) for place, tau in enumerate(taus) if known and tau == max(known)}
        for sparse in (True, False):
            one = found[dataset, "egf2", "test_accuracy", sparse]
            kind = "sparse" if sparse else "dense"
            counts.append(f"{dataset}: {one.networks} {kind} networks of {one.configurations} configurations")
    titles = ["measure", *(f"{'sparse' if sparse else 'dense'}: {TARGETS[target]}" for sparse, target in columns)]
    notes = ["mean over configurations of the absolute Kendall correlation (tau-b); bold: the largest", *counts]
    return Table("Correlation of gradient flow with the test", titles, rows, notes, {}, frozenset(bold))


def observe_runs(registry: Registry, *, space: str | None = None, dataset: str | None = None) -> list[FlowObservation]:
    """The recorded seeds of all rows that were tested and whose gradient flow was recorded."""
    found = []
    for entry in registry.entries():
        if entry.cited or space not in (None, entry.space["name"]) or dataset not in (None, entry.dataset["name"]):
            continue
        for run in registry.runs(entry):
            flow = average_flow({report.epoch: report.measured for report in run.reports if report.measured})
            if flow and run.test_loss is not None and run.test_accuracy is not None:
                found.append(_observe(entry, run, flow, run.test_loss, run.test_accuracy))
    return found


def _observe(
    entry: Entry, run: TrainingRecord, flow: Mapping[str, float], test_loss: float, test_accuracy: float
) -> FlowObservation:
    rule = {name: value for name, value in entry.rule.items() if name not in ("weights", "rescale")}
    data = {name: entry.dataset[name] for name in ("fingerprint", "split")}
    configuration = json.dumps([entry.space["network"], data, rule], sort_keys=True)
    sparse = sum(run.kept.values()) < entry.total_weights
    return FlowObservation(entry.dataset["name"], configuration, sparse, flow, test_loss, test_accuracy)


def analyze_gradient_flow(
    registry: str | Path | None = None, *, space: str | None = None, dataset: str | None = None
) -> list[FlowObservation]:
    """The networks of a registry whose gradient flow was recorded (`record_gradient_flow`) and that were tested.

    `correlate_flow` and `correlation_table` say how it goes along with the test; of a study, these networks are its
    points (`snas study gradient-flow`).

    Args:
        registry: the file; SNAS_REGISTRY or snas.db by default.
        space: only this search space.
        dataset: only these data.

    Raises:
        InputError: if there is no such registry, or no such network in it.
    """
    path = registry_path(None if registry is None else str(registry))
    with Registry(path, create=False) as opened:
        found = observe_runs(opened, space=space, dataset=dataset)
    if not found:
        filters = [f"{name} {value!r}" for name, value in (("space", space), ("dataset", dataset)) if value]
        of = f" of {' and '.join(filters)}" if filters else ""
        raise InputError(
            f"no tested network{of} in {path} has its gradient flow recorded; train some with --record-gradient-flow"
        )
    return found
