"""What the commands return: rows of the leaderboard with their networks, and the outcome of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snas.densities import Densities
from snas.errors import SnasError
from snas.exports import Group, Row
from snas.ranking import Filter, densities_of, make_row, rank
from snas.registry import Entry, Registry

if TYPE_CHECKING:
    from torch import nn

    from snas.bench import Bench


@dataclass(frozen=True)
class Result:
    """One row of the leaderboard: a sparse network and how well it does."""

    row: Row
    densities: Densities
    entry: Entry = field(repr=False)
    reasons: tuple[str, ...]
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
    """What a search found, and the baselines beside it."""

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
        }


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
    }


def make_result(registry: Registry, entry: Entry, bench: Bench) -> Result:
    """Read an entry and its seeds from the registry."""
    runs = registry.runs(entry)
    reasons = tuple(f"seed {run.number}: {run.reason}" for run in runs if run.reason)
    checksums = {run.number: run.mask_checksum or "" for run in runs}
    return Result(make_row(registry, entry), densities_of(entry, runs), entry, reasons, bench, checksums)


def require_trained(result: Result) -> Result:
    """The result, unless not one of its seeds could be trained."""
    if not result.row.seeds:
        raise SnasError(f"{result.row.method} at density {result.row.density:.3g}: {result.reasons[0]}")
    return result
