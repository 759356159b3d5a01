"""What is running, the best so far and the time left, on standard error: live on a terminal, else plain lines."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from snas.evaluators.asha import Ladder
from snas.finals import epochs_of
from snas.listener import Listener
from snas.pruning.methods import open_method
from snas.registry import Entry
from snas.settings import SearchSettings
from snas.trials import Report, Status

LINE_SECONDS = 10.0  # plain lines are written at most this often between results


def planned_epochs(settings: SearchSettings) -> int:
    """Epochs that a search is going to take, as far as can be told before it.

    About 1/eta of each rung's candidates go on, in every bracket; candidates near the top are trained again on fresh
    seeds; then come all finalists, with several objectives those of a whole front.

    Example:
        >>> planned_epochs(SearchSettings(samples=16, epochs=4, confirm=0, final_seeds=1))  # 16 + 8 + 4 * 2, and 4 * 4
        48
        >>> planned_epochs(SearchSettings(samples=16, epochs=4, confirm=3, confirm_seeds=2, final_seeds=1))
        72
    """
    ladder = Ladder(settings.grace, settings.epochs, settings.eta, settings.brackets)
    entrants = Counter(ladder.bracket_of(number) for number in range(settings.samples))
    epochs = 0.0
    for bracket, number in entrants.items():
        before, left = 0, float(number)
        for rung in ladder.rungs[bracket:]:
            epochs += max(1.0, left) * (rung - before)
            before, left = rung, left / settings.eta
    several = settings.objectives != "accuracy"
    winners = min(settings.front, settings.samples) if several else 1
    again = min(settings.front if several and settings.confirm else settings.confirm, settings.samples)
    if again > 1:
        epochs += again * settings.confirm_seeds * settings.epochs
    lengths = [open_method(name).total_epochs(settings.epochs) for name in settings.baseline_names()]
    return round(epochs) + winners * settings.final_seeds * (settings.epochs + sum(lengths))


class Terminal(Listener):
    """Writes progress to standard error. A context manager, so that the live line is put away at the end."""

    def __init__(self, *, quiet: bool = False, planned: int = 0) -> None:
        """Say nothing with `quiet`; `planned` epochs are the whole of the bar, 0 where they are not known yet."""
        self._console = Console(file=sys.stderr, highlight=False, quiet=quiet)
        self._planned = planned
        self._done = 0
        self._best = ""
        self._seen: set[int] = set()
        self._samples = 0
        self._repeating = False
        self._said = time.monotonic()
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_message(self, text: str) -> None:
        """Say it in a line that stays."""
        self._say(text)

    def on_study(self, name: str, *, resumed: bool, samples: int, done: int, epochs: int) -> None:
        """Say which study it is and start the bar."""
        self._samples = samples
        self._seen = set(range(done))
        verb = f"resuming with {done} of {samples} candidates" if resumed else f"{samples} candidates"
        self._say(f"study {name}: {verb}, at most {epochs} epochs each")

    def on_candidate(self, number: int, *, kept_weights: int, density: float, start: int, until: int) -> None:
        """Count a new candidate."""
        self._seen.add(number)
        what = f"candidate {number} of {self._samples}, density {density:.3f}, epochs {start + 1}-{until}"
        self._show(what)

    def on_report(self, report: Report, *, best: float, epochs_trained: int) -> None:
        """Show the best so far."""
        self._done = epochs_trained
        self._best = f"best {best:.2%}"
        accuracy = f"validation {report.validation_accuracy:.2%}"
        self._show(f"candidate {report.trial} of {self._samples}, epoch {report.epoch}, {accuracy}")

    def on_failure(self, number: int, status: Status, reason: str) -> None:
        """Say it in a line that stays."""
        self._seen.add(number)
        self._say(f"candidate {number} {status}: {reason}")

    def on_repeat(self, number: int, *, repeat: int, start: int, until: int) -> None:
        """Say that the best candidates are trained again."""
        if not self._repeating:
            self._repeating = True
            self._say("training the candidates near the top again, on fresh seeds, before the winner is named")
        self._best = ""
        self._show(f"candidate {number} again on fresh seed {repeat}, epochs {start + 1}-{until}")

    def on_repeat_report(self, number: int, repeat: int, report: Report, *, epochs_trained: int) -> None:
        """Move the bar."""
        self._done = epochs_trained
        accuracy = f"validation {report.validation_accuracy:.2%}"
        self._show(f"candidate {number} again on fresh seed {repeat}, epoch {report.epoch}, {accuracy}")

    def on_entry(self, entry: Entry, *, seeds: int, done: int) -> None:
        """Note how much there is to do, where that was not known before."""
        self._best = ""
        epochs = epochs_of(entry)
        if not self._planned:
            self._planned = seeds * epochs
        self._done = max(self._done, entry.search_epochs) + done * epochs
        self._show(f"{entry.method}: {seeds} seeds of {epochs} epochs")

    def on_run_epoch(self, entry: Entry, seed: int, report: Report) -> None:
        """Move the bar."""
        self._done += 1
        epoch = f"epoch {report.epoch} of {epochs_of(entry)}"
        self._show(f"{entry.method} seed {seed} {epoch}, validation {report.validation_accuracy:.2%}")

    def on_run_end(self, entry: Entry, seed: int, *, test_accuracy: float | None, reason: str | None) -> None:
        """Say the result in a line that stays."""
        density = entry.kept_weights / entry.total_weights
        result = reason or ("no test data" if test_accuracy is None else f"test {test_accuracy:.2%}")
        self._say(f"{entry.method} at density {density:.3g}, seed {seed}: {result}")

    def _show(self, text: str) -> None:
        """Show what is happening now."""
        if not self._console.is_terminal:
            if time.monotonic() - self._said >= LINE_SECONDS:
                share = f", {min(1.0, self._done / self._planned):.0%} done" if self._planned else ""
                self._say(", ".join(filter(None, (text, self._best))) + share)
            return
        if self._bar is None:
            self._bar = Progress(
                SpinnerColumn(),
                BarColumn(bar_width=16),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
                TextColumn("[bold]{task.fields[best]}"),
                TextColumn("{task.description}", markup=False),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=None, best="")
            self._bar.start()
        total = max(self._planned, self._done + 1)
        self._bar.update(self._task, description=text, completed=self._done, total=total, best=self._best)

    def _say(self, text: str) -> None:
        """Write a line that stays."""
        self._said = time.monotonic()
        self._console.print(text, markup=False, soft_wrap=True)


class StudyTerminal(Terminal):
    """The same for a study, whose length is its number of cells."""

    def __init__(self, *, quiet: bool = False, planned: int = 0) -> None:
        """As `Terminal`."""
        super().__init__(quiet=quiet, planned=planned)
        self._values: dict[str, set[str]] = {}

    def on_cells(self, study: str, *, cells: int, done: int) -> None:
        """Say how much there is to do and start the bar."""
        self._planned, self._done = cells, done
        known = f", {done} of them measured already" if done else ""
        self._say(f"study {study}: {cells} cells{known}")

    def on_cell(self, study: str, cell: Mapping[str, Any]) -> None:
        """Show what is next."""
        self._show(self._text(cell))

    def on_cell_epoch(self, study: str, cell: Mapping[str, Any], *, epoch: int, epochs: int) -> None:
        """Show how far it is."""
        self._show(f"{self._text(cell)}, epoch {epoch} of {epochs}")

    def on_cell_end(self, study: str, cell: Mapping[str, Any], *, seconds: float, reason: str | None) -> None:
        """Move the bar; what has no result is said in a line that stays."""
        self._done += 1
        if reason is not None:
            self._say(f"{self._text(cell)}: {reason}")
        self._show(f"cell {self._done} of {self._planned}")

    def _text(self, cell: Mapping[str, Any]) -> str:
        """A cell's seed, and those of its factors that have had several values so far."""
        for name, value in cell.items():
            self._values.setdefault(name, set()).add(str(value))
        told = [name for name in cell if name == "seed" or len(self._values[name]) > 1]
        return " ".join(f"{name}={cell[name]}" for name in told if cell[name] is not None) or "first cell"


class SweepTerminal(Terminal):
    """The same for a sweep, whose whole length is known from its start."""

    def on_sweep(self, *, networks: int, finished: int, epochs: int, trained: int) -> None:
        """Say how much there is to do and start the bar."""
        self._planned, self._done = epochs, trained
        known = f", {finished} of them trained already" if finished else ""
        self._say(f"sweep: {networks} networks{known}; {epochs} epochs in all")

    def on_entry(self, entry: Entry, *, seeds: int, done: int) -> None:
        """Show what is next; what was done before is counted already."""
        self._show(f"{entry.method} at density {entry.kept_weights / entry.total_weights:.3g}, seed {done}")
