"""What tests of evaluators need."""

from __future__ import annotations

from collections.abc import Iterable

from snas.evaluators.base import Job


class Queue:
    """A feed (`snas.evaluators.base.Feed`) that hands out given jobs in order, whatever was reported."""

    def __init__(self, jobs: Iterable[Job], *, ahead: bool = False) -> None:
        """Hand out `jobs`; while all slots are busy, the next one too if `ahead`, else none."""
        self._jobs = list(jobs)
        self._ahead = ahead

    def next(self) -> Job | None:
        """The next job; None at the end."""
        return self._jobs.pop(0) if self._jobs else None

    def ahead(self) -> Job | None:
        """The same, where jobs are handed out ahead."""
        return self.next() if self._ahead else None
