"""Errors that a user can meet. Every message has the value, what was allowed, and what to do."""

from __future__ import annotations


class SnasError(Exception):
    """Base of all errors raised on purpose by snas."""


class InputError(SnasError, ValueError):
    """The caller's mistake: a wrong name, number, file or combination. The command line exits with code 2."""


class RefusedError(SnasError):
    """A network that cannot work (an emptied layer, no path from input to output), found before any training."""


class FailedError(SnasError):
    """A network that broke in training: the end of one candidate or seed, not of the command."""


class DivergedError(FailedError):
    """Training gave a loss that is NaN or infinite."""


def one_line(error: BaseException) -> str:
    """The error's message on one line, shortened."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
