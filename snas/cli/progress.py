"""What is running, the best so far and the time left, on standard error: live on a terminal, else plain lines."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from snas.listener import Listener
from snas.registry import Entry
from snas.trials import Report, Status

LINE_SECONDS = 10.0  # plain lines are written at most this often between results


def make_listener(*, quiet: bool, samples: int = 0, epochs: int = 1) -> Terminal | Listener:
    """The listener for this terminal; with `quiet` one that says nothing."""
    return Listener() if quiet else Terminal(samples=samples, epochs=epochs)


class Terminal(Listener):
    """Writes progress to standard error. A context manager, so that the live line is put away at the end."""

    def __init__(self, *, samples: int = 0, epochs: int = 1) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._epochs = epochs
        self._samples = samples
        self._seen: set[int] = set()
        self._said = time.monotonic()
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def on_study(self, name: str, *, resumed: bool, samples: int, done: int) -> None:
        """Say which study it is and start the bar."""
        self._samples = samples
        self._seen = set(range(done))
        verb = f"resuming with {done} of {samples} candidates" if resumed else f"{samples} candidates"
        self._say(f"study {name}: {verb}, at most {self._epochs} epochs each")
        self._start("search", total=samples, completed=max(0, done - 1))

    def on_candidate(self, number: int, *, kept_weights: int, density: float, start: int, until: int) -> None:
        """Count a new candidate."""
        self._seen.add(number)
        what = f"candidate {number} at density {density:.3f}, epochs {start + 1} to {until}"
        self._show(what, completed=max(0, len(self._seen) - 1))

    def on_report(self, report: Report, *, best: float, epochs_trained: int) -> None:
        """Show the best so far."""
        text = (
            f"candidate {report.trial} epoch {report.epoch}: validation {report.validation_accuracy:.2%}, "
            f"best {best:.2%}, {len(self._seen)} of {self._samples} candidates, {epochs_trained} epochs"
        )
        self._show(text)

    def on_failure(self, number: int, status: Status, reason: str) -> None:
        """Say it in a line that stays."""
        self._seen.add(number)
        self._say(f"candidate {number} {status}: {reason}")

    def on_entry(self, entry: Entry, *, seeds: int) -> None:
        """Start the bar of a final network."""
        self._stop()
        self._start(f"train {entry.method}", total=seeds * self._epochs, completed=0)

    def on_run_epoch(self, entry: Entry, seed: int, report: Report) -> None:
        """Move the bar."""
        text = f"{entry.method} seed {seed} epoch {report.epoch}: validation {report.validation_accuracy:.2%}"
        self._show(text, completed=seed * self._epochs + report.epoch)

    def on_run_end(self, entry: Entry, seed: int, *, test_accuracy: float | None, reason: str | None) -> None:
        """Say the result in a line that stays."""
        density = entry.kept_weights / entry.total_weights
        result = reason or ("no test data" if test_accuracy is None else f"test {test_accuracy:.2%}")
        self._say(f"{entry.method} at density {density:.3f}, seed {seed}: {result}")

    def _start(self, what: str, *, total: int, completed: int) -> None:
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[what]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, completed=completed, what=what)
        self._bar.start()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, text: str, *, completed: int | None = None) -> None:
        """Show what is happening now."""
        if self._bar is not None:
            self._bar.update(self._task, description=text, completed=completed)
        elif time.monotonic() - self._said >= LINE_SECONDS:
            self._say(text)

    def _say(self, text: str) -> None:
        """Write a line that stays."""
        self._said = time.monotonic()
        self._console.print(text, markup=False, soft_wrap=True)
