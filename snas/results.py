"""What the commands return: rows of the leaderboard with their networks, and the outcome of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snas.compare import Comparison, compare_all
from snas.densities import Densities
from snas.errors import SnasError
from snas.exports import Group, Row
from snas.ranking import Filter, densities_of, make_row, rank, reference_of
from snas.registry import Entry, Registry
from snas.report.front import has_values, volumes
from snas.trials import Status

if TYPE_CHECKING:
    from torch import nn

    from snas.bench import Bench


@dataclass(frozen=True)
class Result:
    """One row of the leaderboard: a sparse network and how well it does.

    Attributes:
        row: its figures.
        densities: of its layers.
        entry: all that the registry has of it.
        reasons: why seeds are missing.
        accuracies: number of each final seed -> its test accuracy; validation where the data have no test split.
    """

    row: Row
    densities: Densities
    entry: Entry = field(repr=False)
    reasons: tuple[str, ...]
    accuracies: Mapping[int, float]
    _bench: Bench = field(repr=False)
    _checksums: Mapping[int, str] = field(repr=False)

    @property
    def id(self) -> int:
        """Id of the row, for `snas show` and `snas train`."""
        return self.row.id

    @property
    def test_accuracy(self) -> float | None:
        """Mean test accuracy over the seeds, a fraction; None where none was measured."""
        return self.row.test_accuracy

    @property
    def validation_accuracy(self) -> float | None:
        """Mean validation accuracy over the seeds; of the candidate in its search where no final was trained."""
        return self.row.validation_accuracy

    @property
    def accuracy(self) -> float | None:
        """Mean test accuracy, or validation accuracy where none was measured."""
        return self.validation_accuracy if self.test_accuracy is None else self.test_accuracy

    def build(self, *, seed: int = 0) -> nn.Module:
        """Build the network of final seed `seed` as it was before training: its initial weights, its first mask.

        It is sparse if the method prunes before training. Where the mask moves in training, its layers may have other
        densities than `densities`, which are those at the end; methods that prune after or during training begin dense
        ("imp", "gradual" ...), and the trainable weights of "dct" begin at zero.

        Returns:
            A `torch.nn.Module` on the CPU whose masked weights are exactly zero.

        Raises:
            SnasError: if the mask is another one here than the recorded one.

        Example:
            >>> import snas, tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     file = f"{folder}/snas.db"
            ...     result = snas.prune("lenet-300-100", density=0.1, epochs=1, final_seeds=1, registry=file)
            >>> sum(int(parameter.count_nonzero()) for parameter in result.build().parameters() if parameter.ndim > 1)
            5020
        """
        from snas.finals import recipe
        from snas.seeds import Stream, derive

        method, target = recipe(self.entry, self._bench)
        run_seed = derive(self.entry.seed, Stream.FINAL, seed)
        sparse = self._bench.task.prepare(method, target, seed=run_seed)
        recorded = self._checksums.get(seed)
        if recorded and sparse.masks.checksum() != recorded:
            raise SnasError(f"row {self.id}, seed {seed}: seed and rule give another mask here than the recorded one")
        return sparse.model.cpu()

    def as_dict(self) -> dict[str, Any]:
        """The row as plain values; accuracies are fractions."""
        return row_as_dict(self.row)


@dataclass(frozen=True)
class SearchResult:
    """What a search found, and the baselines beside it.

    Attributes:
        study: its name.
        registry: file that has all of it.
        space: of networks.
        dataset: that they were trained on.
        strategy: that proposed them.
        candidates: how many were tried.
        epochs_trained: what the search has cost, with the candidates that were trained again on fresh seeds.
        wall_seconds: that the command took.
        best: the winner; its figures are of final seeds alone, never of the search that chose it.
        baselines: method -> the same number of weights, trained on the same final seeds.
        front: with several objectives the networks that no other outdoes, the most accurate first.
        front_baselines: the baselines of each of them.
        objectives: what counted beside the accuracy.
    """

    study: str
    registry: Path
    space: str
    dataset: str
    strategy: str
    candidates: int
    epochs_trained: int
    wall_seconds: float
    best: Result
    baselines: Mapping[str, Result]
    front: tuple[Result, ...] = ()
    front_baselines: tuple[Mapping[str, Result], ...] = ()
    objectives: tuple[str, ...] = ()

    @property
    def differences(self) -> list[Comparison]:
        """The winner, or each network of the front, against each of its baselines by paired tests.

        Final seed k gives both the same initial weights, order of data and split. p values are adjusted over the
        baselines of one network; baselines that share fewer than 2 seeds with it are left out.

        Example:
            >>> import snas, tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     found = snas.search(
            ...         "lenet-300-100", samples=1, epochs=1, final_seeds=2, baselines="snip", registry=f"{folder}/r.db"
            ...     )
            >>> [(one.method, one.reference, one.difference.seeds) for one in found.differences]
            [('searched', 'snip', 2)]
        """
        pairs = zip(self.front, self.front_baselines, strict=True) if self.front else [(self.best, self.baselines)]
        return [one for network, baselines in pairs for one in compare_with(network, baselines)]

    @property
    def hypervolumes(self) -> dict[str, float]:
        """With several objectives what the front covers, and what each baseline does at the front's costs.

        The volume between the networks and guessing at the dense network's cost: accuracy by decades of each cost, as
        the leaderboard counts it (`snas.report.front`). "all" is that of searched networks and baselines together.
        Empty with one objective, or where nothing was tested.
        """
        pairs = zip(self.front, self.front_baselines, strict=True) if self.front else []
        results = [result for network, baselines in pairs for result in (network, *baselines.values())]
        rows = [result.row for result in results if has_values(result.row, self.objectives)]
        if not rows:
            return {}
        return volumes(rows, self.objectives, reference_of([result.entry for result in results], self.objectives))

    def leaderboard(self) -> list[Group]:
        """The study's rows, ranked.

        Example:
            >>> import snas, tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     result = snas.search("lenet-300-100", samples=1, epochs=1, final_seeds=1, registry=f"{folder}/r.db")
            ...     (group,) = result.leaderboard()
            >>> sorted(row.method for row in group.rows), [row.rank for row in group.rows]
            (['dense', 'ldi', 'searched', 'snip'], [1, 2, 3, 4])
        """
        with Registry(self.registry, create=False) as registry:
            return rank(registry, Filter(study=self.study))

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values, as `--format json` prints it."""
        return {
            "study": self.study,
            "registry": str(self.registry),
            "space": self.space,
            "dataset": self.dataset,
            "strategy": self.strategy,
            "candidates": self.candidates,
            "epochs_trained": self.epochs_trained,
            "wall_seconds": self.wall_seconds,
            "best": self.best.as_dict(),
            "baselines": {name: result.as_dict() for name, result in self.baselines.items()},
            "differences": [one.as_dict() for one in self.differences],
            "front": [result.as_dict() for result in self.front],
            "hypervolume": self.hypervolumes,
        }


def compare_with(network: Result, baselines: Mapping[str, Result]) -> list[Comparison]:
    """Paired tests of a network against its baselines, on the final seeds that both have; at least 2."""
    pairs = [
        (network.row.method, network.accuracies, name, other.accuracies)
        for name, other in baselines.items()
        if len(network.accuracies.keys() & other.accuracies.keys()) >= 2
    ]
    return compare_all(network.row.density, pairs)


def row_as_dict(row: Row) -> dict[str, Any]:
    """A row's network and accuracies as plain values."""
    return {
        "id": row.id,
        "method": row.method,
        "kept_weights": row.kept_weights,
        "total_weights": row.total_weights,
        "density": row.density,
        "layers": {name: {"kept": kept, "total": total} for name, kept, total in row.layers},
        "validation_accuracy": row.validation_accuracy,
        "test_accuracy": {"mean": row.test_accuracy, "std": row.test_std, "n": row.seeds},
        "space": row.space,
        "strategy": row.strategy,
        "mask_rule": row.mask_rule,
        "flops": row.flops,
    }


def make_result(registry: Registry, entry: Entry, bench: Bench) -> Result:
    """Read an entry and its seeds from the registry."""
    runs = registry.runs(entry)
    reasons = tuple(f"seed {run.number}: {run.reason}" for run in runs if run.reason)
    checksums = {run.number: run.mask_checksum or "" for run in runs}
    tested = bool(len(bench.dataset.test_y))
    measured = {
        run.number: run.test_accuracy if tested else run.validation_accuracy
        for run in runs
        if run.status is Status.FINISHED
    }
    accuracies = {number: value for number, value in measured.items() if value is not None}
    return Result(make_row(registry, entry), densities_of(entry, runs), entry, reasons, accuracies, bench, checksums)


def require_trained(result: Result) -> Result:
    """The result, unless not one of its seeds could be trained."""
    if not result.row.seeds:
        raise SnasError(f"{result.row.method} at density {result.row.density:.3g}: {result.reasons[0]}")
    return result
