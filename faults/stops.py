"""A search is stopped with SIGSTOP for a minute, another waits for a lock whose holder is stopped: both go on.

While it is stopped the search is shown as slow, and what reads the registry is not held up; after a kill it is shown as
dead. Its result is that of a search that was not stopped.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from common import (
    JSON,
    SEARCH,
    Forked,
    Verdict,
    end,
    figures_of,
    folder,
    parser_of,
    read,
    results_of,
    run,
    wait_for_worker,
)

COMMAND = (*SEARCH, "--evaluator", "serial", *JSON)


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, help="of the stop; default: 60, with --quick 3")
    options = parser.parse_args(argv)
    seconds = options.seconds or (3.0 if options.quick else 60.0)
    verdict = Verdict("stops")
    with folder() as place:
        whole = Forked(place, *COMMAND, "--registry", "whole.db")
        out, err = whole.communicate()
        if not verdict.require(
            whole.returncode == 0, f"the search that nobody stops ended with {whole.returncode}: {err}"
        ):
            return verdict.end()
        wanted = results_of(out), figures_of(read(place / "whole.db"))
        stopped = Forked(place, *COMMAND, "--registry", "stopped.db")
        holder, waiting = _hold(place / "waiting.db"), None
        try:
            verdict.require(wait_for_worker(place / "stopped.db", stopped), "the search did not begin")
            time.sleep(0.2)
            os.kill(stopped.pid, signal.SIGSTOP)
            waiting = Forked(place, *COMMAND, "--registry", "waiting.db")
            began = time.monotonic()
            verdict.figures["state while stopped"] = _state(place, "stopped.db", verdict)
            verdict.figures["seconds to list it"] = round(time.monotonic() - began, 1)
            time.sleep(max(0.0, began + seconds - time.monotonic()))
            verdict.figures["state at the end of the stop"] = _state(place, "stopped.db", verdict)
            verdict.require(waiting.poll() is None, "the search that waits for a lock did not wait for it")
            for name in ("state while stopped", "state at the end of the stop"):
                verdict.require(verdict.figures[name] == "slow", f"{name} is {verdict.figures[name]}, not slow")
            os.kill(stopped.pid, signal.SIGCONT)
            os.kill(holder, signal.SIGCONT)
            for name, process in (("stopped", stopped), ("waiting", waiting)):
                out, err = process.communicate()
                lines = [line for line in err.splitlines() if "waiting for it" not in line]
                verdict.require(
                    process.returncode == 0, f"the {name} search ended with {process.returncode}: {err[-300:]}"
                )
                verdict.require(not lines, f"the {name} search complained: {lines[:2]}")
                same = process.returncode == 0 and (results_of(out), figures_of(read(place / f"{name}.db"))) == wanted
                verdict.require(same, f"the {name} search has another result")
                verdict.count("results equal to the undisturbed", int(same))
                verdict.require(
                    _state(place, f"{name}.db", verdict) == "finished", f"the {name} search is not finished"
                )
        finally:
            os.kill(holder, signal.SIGKILL)
            os.waitpid(holder, 0)
            for process in filter(None, (stopped, waiting)):
                if process.poll() is None:
                    end(process)
        verdict.figures["seconds stopped"] = seconds
        killed = Forked(place, *COMMAND, "--registry", "killed.db")
        verdict.require(wait_for_worker(place / "killed.db", killed), "the search did not begin")
        end(killed)
        verdict.figures["state after a kill"] = _state(place, "killed.db", verdict)
        verdict.require(verdict.figures["state after a kill"] == "dead", "a killed search is not shown as dead")
    return verdict.end()


def _state(place: Path, name: str, verdict: Verdict) -> str:
    """How the only study of a registry is doing, as a user is told."""
    code, out, err = run(place, "registry", "studies", "--registry", name, "--format", "json")
    if not verdict.require(code == 0, f"snas registry studies ended with {code}: {err}"):
        return "?"
    return str(json.loads(out)["studies"][0]["state"])


def _hold(path: Path) -> int:
    """Start a process that writes to a new registry, and is stopped before it ends its transaction."""
    from snas.registry import Registry

    Registry(path).close()
    pid = os.fork()
    if pid == 0:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            os.kill(os.getpid(), signal.SIGSTOP)
            connection.execute("ROLLBACK")
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    return pid


if __name__ == "__main__":
    sys.exit(main())
