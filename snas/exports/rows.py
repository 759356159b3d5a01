"""What a leaderboard holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One line of a leaderboard. Accuracies and densities are fractions in [0, 1].

    A published figure has kind "cited", no layers, and 0 for every number that its source does not tell.

    Attributes:
        rank: place within its group, from 1; None where it is not ranked.
        id: number in the registry.
        name: of the study or run.
        kind: "searched", "baseline" or "cited".
        method: "snip", "dense" ...; for a searched row the mask rule.
        space: of networks.
        dataset: that it was trained on.
        kept_weights: weights kept.
        total_weights: weights of the dense network.
        density: kept / total.
        compression: total / kept.
        test_accuracy: mean over seeds; None where not measured.
        test_std: standard deviation over seeds; None where there is none.
        validation_accuracy: as for the test.
        validation_std: as for the test.
        seeds: how many are behind mean and spread.
        failed: further seeds that were refused or failed; a mean over survivors is not ranked.
        flops: effective floating-point operations for one example.
        epochs: training length of each network.
        epochs_spent: all epochs that it cost, search included.
        seconds: all wall time that it cost.
        strategy: that proposed it.
        mask_rule: that chose the weights.
        training_rule: short text, for example "sgd 0.1 momentum 0.9 wd 0.0005 cosine 64x20".
        source: where a published figure was printed; empty for what was measured here.
        superseded: 1 where its study has another winner by now, 0 otherwise.
        layers: (name, kept weights, total weights) for each, in the network's order.
    """

    rank: int | None
    id: int
    name: str
    kind: str
    method: str
    space: str
    dataset: str
    kept_weights: int
    total_weights: int
    density: float
    compression: float
    test_accuracy: float | None
    test_std: float | None
    validation_accuracy: float | None
    validation_std: float | None
    seeds: int
    failed: int = field(default=0, kw_only=True)
    superseded: int = field(default=0, kw_only=True)
    flops: int
    epochs: int
    epochs_spent: int
    seconds: float
    strategy: str
    mask_rule: str
    training_rule: str
    source: str = field(default="", kw_only=True)
    layers: tuple[tuple[str, int, int], ...]

    @property
    def cited(self) -> bool:
        """Whether it is a published figure."""
        return self.kind == "cited"


@dataclass(frozen=True)
class Group:
    """One ranking: the rows that may be compared with each other. Groups are never mixed.

    `epochs` is 0 for a group of published figures alone. Of a front, `hypervolume` tells how much it covers ("all"),
    and how much the rows of each method cover (see `snas.report.front`).
    """

    space: str
    dataset: str
    epochs: int
    subtitle: str
    rows: tuple[Row, ...]
    hypervolume: Mapping[str, float] = field(default_factory=dict)
