"""Workers that begin at once: copies of this process, where that is safe.

A process that is started anew imports PyTorch first, which takes longer than many a search. A copy has everything. It
is safe where the copy computes with one thread, since the threads that OpenMP started here do not exist there; where no
GPU is at work, whose driver does not survive it; and where nobody else is at work in this process, who may hold a lock
that would stay locked in the copy. It is how PyTorch's own DataLoader starts its workers.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch

VARIABLE = "SNAS_WORKERS"  # environment variable: "spawn" has workers started anew always
_STEP = 0.002  # seconds between two looks
_HARMLESS = ("rich.live", "tqdm._monitor")  # modules whose threads hold no lock that a worker would wait for
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Copy:
    """A copy of this process that does something and ends; with the methods of `subprocess.Popen` that are needed."""

    def __init__(self, work: Callable[[], object], *, keep: Sequence[int]) -> None:
        """Begin.

        Args:
            work: what the copy does; when it returns or raises, the copy ends.
            keep: file descriptors that the copy needs, beside standard input, output and error.

        Raises:
            OSError: if the system has no room for it.
        """
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # what the copy would write again
                stream.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the copy does not touch
            parent = os.getpid()
            self.pid = os.fork()
        if not self.pid:
            _be_the_copy(work, keep, parent)
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or minus the signal that ended it.

        Raises:
            TimeoutError: if it has not ended after so many seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._code is None:
            try:
                pid, status = os.waitpid(self.pid, 0 if deadline is None else os.WNOHANG)
            except ChildProcessError:  # somebody else has waited for it
                self._code = 1
                break
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} has not ended")
            else:
                time.sleep(_STEP)
        return self._code

    def kill(self) -> None:
        """End it, if it has not been waited for: its number may be somebody else's then."""
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def safe(threads: int) -> bool:
    """Whether a worker that computes with so many threads can be a copy of this process."""
    return (
        sys.platform == "linux"
        and threads == 1
        and os.environ.get(VARIABLE, "") != "spawn"
        and not others()
        and not torch.cuda.is_available()
    )


def others() -> list[threading.Thread]:
    """Threads of this process that may be at work, beside the present one, which is to be the main one."""
    present = threading.current_thread()
    found = [thread for thread in threading.enumerate() if thread is not present]
    return [thread for thread in found if type(thread).__module__ not in _HARMLESS]


def _be_the_copy(work: Callable[[], object], keep: Sequence[int], parent: int) -> None:
    """Do the work and end, without whatever this process would do at its end."""
    try:
        _end_with(parent)
        gc.freeze()  # what was here before is never finalized: files and databases are the parent's
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
        _close_all_but({0, 1, 2, *keep})
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        with suppress(OSError):
            os.dup2(2, 1)  # standard output is for results
        sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        logging.getLogger("snas").handlers = []
        work()
    except BaseException:
        with suppress(BaseException):
            traceback.print_exc()
    finally:
        os._exit(1)


def _end_with(parent: int) -> None:
    """Have the system end this process when the thread that started it ends, whatever this process is waiting for."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _close_all_but(keep: set[int]) -> None:
    """Close the file descriptors that a copy has no use for; others would wait in vain for their end."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with suppress(OSError):
                os.close(int(name))
