"""What a running command tells whoever watches: the terminal's progress, a notebook, a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snas.registry import Entry
from snas.trials import Report, Status


class Listener:
    """Hears of everything after it is in the registry. Subclass and override what you need."""

    def on_message(self, text: str) -> None:
        """Something worth a line: a download, a setting that has no effect."""

    def on_study(self, name: str, *, resumed: bool, samples: int, done: int, epochs: int) -> None:
        """A search starts or goes on with `done` of its `samples` candidates proposed, each of `epochs` at most."""

    def on_sweep(self, *, networks: int, finished: int, epochs: int, trained: int) -> None:
        """A sweep starts or goes on: `networks` of `epochs` epochs in all, of which `trained` are done already."""

    def on_candidate(self, number: int, *, kept_weights: int, density: float, start: int, until: int) -> None:
        """A candidate goes into training from `start` to `until` epochs."""

    def on_report(self, report: Report, *, best: float, epochs_trained: int) -> None:
        """A candidate has trained an epoch; `best` is the best validation accuracy of any so far."""

    def on_failure(self, number: int, status: Status, reason: str) -> None:
        """A candidate was refused or failed."""

    def on_repeat(self, number: int, *, repeat: int, start: int, until: int) -> None:
        """A candidate near the top is trained again, on its fresh seed number `repeat` (1, 2 ...)."""

    def on_repeat_report(self, number: int, repeat: int, report: Report, *, epochs_trained: int) -> None:
        """It has trained an epoch there; `epochs_trained` is what the whole search has cost so far."""

    def on_entry(self, entry: Entry, *, seeds: int, done: int) -> None:
        """A final network is going to be trained on `seeds` seeds, `done` of which are finished already."""

    def on_run_epoch(self, entry: Entry, seed: int, report: Report) -> None:
        """Seed number `seed` of a final network has trained an epoch."""

    def on_run_end(self, entry: Entry, seed: int, *, test_accuracy: float | None, reason: str | None) -> None:
        """Seed number `seed` of a final network is finished, or was refused or failed for `reason`."""

    def on_cells(self, study: str, *, cells: int, done: int) -> None:
        """A study of `cells` cells starts or goes on; `done` of them are measured already."""

    def on_cell(self, study: str, cell: Mapping[str, Any]) -> None:
        """A cell is going to be measured."""

    def on_cell_epoch(self, study: str, cell: Mapping[str, Any], *, epoch: int, epochs: int) -> None:
        """A network of the cell has trained an epoch of `epochs`."""

    def on_cell_end(self, study: str, cell: Mapping[str, Any], *, seconds: float, reason: str | None) -> None:
        """A cell is measured, or its network was refused or failed for `reason`."""
