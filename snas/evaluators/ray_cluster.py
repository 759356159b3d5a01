"""The way to Ray: a cluster that is there, or one of our own on this machine for as long as the search lasts."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

from snas.errors import InputError, SnasError, one_line
from snas.evaluators.processes import cores
from snas.evaluators.resources import room, written

MISSING = "evaluator 'ray' needs Ray, which is not installed; pip install 'snas[ray]'"
REACH = 5.0  # seconds in which a head node has to take a connection
CONNECT = 60.0  # seconds in which it has to let us in
TOKEN = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"
LOSS = 60.0  # seconds that a search waits for a node to come back, where none is left that has what it needs
# What Ray and Tune are told while a search lasts: nothing goes to anybody, nothing is printed, no state of Tune's own
# is written (the registry has it all), and the working folder stays.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_THRESHOLD_S": "1000000",
}


def require_ray() -> None:
    """Raise InputError where Ray Tune is not installed."""
    if any(find_spec(name) is None for name in ("ray", "pandas", "pyarrow", "tensorboardX")):  # Tune's needs too
        raise InputError(MISSING)


def read_address(address: str) -> tuple[str, int] | None:
    """Host and port of a head node; None for "auto", a cluster that runs on this machine.

    Raises:
        InputError: for anything else.

    Example:
        >>> read_address("10.0.0.1:6379"), read_address("[::1]:6379"), read_address("auto")
        (('10.0.0.1', 6379), ('::1', 6379), None)
    """
    if address == "auto":
        return None
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise InputError(
            f"ray-address is {address!r}; expected host:port of a head node, as ray start --head tells it, or auto"
        )
    return match[1].strip("[]"), int(match[2])


class Cluster:
    """A connection to Ray.

    Attributes:
        own: whether the connection is ours to end; else somebody in this process had made it before.
    """

    def __init__(self, address: str | None) -> None:
        """Connect.

        Args:
            address: of a head node, or "auto"; None for what RAY_ADDRESS says, else for a Ray of our own.

        Raises:
            InputError: where nothing answers there.
            SnasError: where Ray does not start.
        """
        import ray

        self.own = not ray.is_initialized()
        self._lost_since: float | None = None
        self._head: tuple[str, int] | None = None
        if not self.own:
            if address is not None:
                raise InputError(
                    f"ray-address is {address!r}, but this process is connected to Ray already; leave ray-address out"
                )
            return
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        head = None if address == "local" else read_address(address)
        if head is not None:
            _require_answer(address, head)
        before = signal.getsignal(signal.SIGTERM)
        try:
            _start(address)
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray takes it for itself
        with suppress(InputError):
            self._head = read_address(ray.get_runtime_context().gcs_address)

    def nodes(self) -> list[Mapping[str, float]]:
        """What each node that is alive has in all."""
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def require_room(self, resources: Mapping[str, float]) -> None:
        """Raise InputError where no node has what a candidate takes."""
        nodes = self.nodes()
        if not room(nodes, resources):
            have = "; ".join(sorted({_told(node) for node in nodes}))
            raise InputError(
                f"resources is {written(resources)}, which no node of Ray has; they have {have or 'nothing'}; ask for "
                "less with --resources, or add a node"
            )

    def room(self, resources: Mapping[str, float]) -> int:
        """How many candidates the nodes that are alive have room for.

        Raises:
            SnasError: if there has been room for none for a minute, or the head node is gone.
        """
        if self._head is not None and not _answers(self._head):
            raise SnasError("the head node of Ray is gone; what was recorded is kept, and the same command resumes")
        found = room(self.nodes(), resources)
        now = time.monotonic()
        self._lost_since = None if found else self._lost_since or now
        if self._lost_since is not None and now - self._lost_since > LOSS:
            raise SnasError(
                f"no node is left in Ray that has {written(resources)}; what was recorded is kept, and the same "
                "command resumes"
            )
        return found

    def close(self) -> None:
        """End the connection, and with it whatever we have running; a Ray of our own ends as a whole."""
        if self.own:
            import ray

            with silence(), _hushed():
                ray.shutdown()


@contextmanager
def quiet() -> Iterator[None]:
    """Ray's surroundings while a search lasts."""
    before = {name: os.environ.get(name) for name in (*ENVIRONMENT, *TOKEN)}
    os.environ.update(ENVIRONMENT)
    try:
        with silence():
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def silence() -> Iterator[None]:
    """No messages of Ray's; what the user has to know, we say."""
    from ray._private import worker

    names = ["ray", *(name for name in logging.root.manager.loggerDict if name.startswith("ray."))]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    prints = getattr(worker, "_worker_logs_enabled", None)
    worker._worker_logs_enabled = False  # else a thread of Ray's prints what becomes of nodes, whatever the level
    try:
        yield
    finally:
        worker._worker_logs_enabled = prints
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _start(address: str) -> None:
    """Have Ray begin, without a word."""
    import ray

    options: dict[str, Any] = {}
    if address == "local":
        options = {"num_cpus": cores(), "include_dashboard": False}
        if folder := os.environ.get("RAY_TMPDIR"):
            options["_temp_dir"] = folder
        if not any(name in os.environ for name in TOKEN):
            os.environ[TOKEN[0]] = _secret()  # a Ray that asks for a token writes one to the user's home otherwise
    try:
        with _hushed():
            begin = partial(ray.init, address, log_to_driver=False, logging_level=logging.CRITICAL + 1, **options)
            if address == "local":
                begin()  # here: what Ray starts ends with the thread that started it
            else:
                _within(CONNECT, begin)
    except _Late as error:
        raise InputError(
            f"ray-address is {address!r}, but no Ray lets us in for {CONNECT:g} s; give the address that "
            "ray start --head tells"
        ) from error
    except ConnectionError as error:
        raise InputError(
            f"ray-address is {address!r}, but no Ray lets us in ({one_line(error)}); start one with ray start --head; "
            "if it asks for a token, set RAY_AUTH_MODE=token here too, as docs/cluster.md says"
        ) from error
    except (RuntimeError, OSError, ValueError, TimeoutError) as error:
        raise SnasError(
            f"Ray does not start ({type(error).__name__}: {one_line(error)}); look whether there is room in memory and "
            f"in {tempfile.gettempdir()}, or use --evaluator processes"
        ) from error


class _Late(Exception):
    """Something has taken too long."""


def _within(seconds: float, begin: Callable[[], Any]) -> None:
    """Call a function that may wait for ever; raises _Late when it does, and else what the function raises."""
    ends: list[BaseException | None] = []

    def call() -> None:
        try:
            begin()
            ends.append(None)
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=call, daemon=True, name="ray-connect")
    thread.start()
    thread.join(seconds)
    if not ends:
        raise _Late
    if ends[0] is not None:
        raise ends[0]


@contextmanager
def _hushed() -> Iterator[None]:
    """Ray's C++ parts write to the file of standard error, past Python: it leads nowhere as long as this lasts."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@cache
def _secret() -> str:
    """What whoever talks to a Ray of our own has to know."""
    return secrets.token_hex(32)


def _require_answer(address: str, head: tuple[str, int]) -> None:
    if not _answers(head):
        raise InputError(
            f"ray-address is {address!r}, but nothing answers there; start Ray with ray start --head, and give the "
            "address that it tells"
        )


def _answers(head: tuple[str, int]) -> bool:
    """Whether somebody takes connections there."""
    try:
        with socket.create_connection(head, timeout=REACH):
            return True
    except OSError:
        return False


def _told(node: Mapping[str, float]) -> str:
    """What a node has, as the user would ask for it."""
    kept = {
        name.lower() if name in ("CPU", "GPU") else name: amount
        for name, amount in node.items()
        if name not in ("memory", "object_store_memory") and not name.startswith("node:")
    }
    return written(kept) or "nothing"
