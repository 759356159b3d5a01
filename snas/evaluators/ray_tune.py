"""Candidates on a Ray cluster, or on this machine through Ray: Ray Tune runs the trials, the search says what they do.

How the feed maps onto Tune. A job (train a candidate from where it stands to its next rung) is a Tune trial of its own,
suggested by a searcher that asks the feed, and ended by a scheduler at the job's rung. A candidate that is promoted is
another trial, which goes on from the candidate's checkpoint. Tune could pause trials and go on with them; but a paused
trial's state is Tune's, whose files forget rungs and lose finished trials when the driver dies. Here nothing is Tune's
that matters: its trials last for a job, its files lie in a temporary folder, and after a kill the registry alone says
where every candidate stands. Trials of Tune cost little, since processes go on with the next one.

How a report is filed before anything goes on. Tune's loop runs in a thread of its own; where it asks our searcher or
scheduler, it waits until the search's thread has answered (`counter.py`), and that answers a report when the registry
has it. So at a kill no running trial is further than one epoch beyond its record.

Checkpoints travel: the state goes along with every report (through Ray's object store, as safetensors) and is written
by the driver's `Checkpoints` before the report is filed; a job takes it along when it goes on. Examples are put into
the object store once.

What is lost (a process, a node, memory) costs its trial: the job is handed out again as another trial, from its last
recorded epoch, and fails for good after three losses without an epoch between. If Tune's loop itself breaks, it is
begun anew with the jobs that were out.
"""

from __future__ import annotations

import itertools
import logging
import math
import pickle
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from typing import Any, cast

import numpy as np
import torch

from snas.errors import SnasError, one_line
from snas.evaluators.base import Failure, Feed, Job, evaluators
from snas.evaluators.counter import LAST, Asked, Counter, Ended, Heard, Letter, Lost
from snas.evaluators.parked import MOST_BYTES
from snas.evaluators.processes import TRIES
from snas.evaluators.ray_cluster import Cluster, quiet, read_address, require_ray
from snas.evaluators.resources import read_resources, written
from snas.evaluators.sharing import PARTS, Answer, Setup, own_plugins, pack, versions, without_examples
from snas.search_spaces.base import SearchSpace
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task
from snas.trials import Report, Status

log = logging.getLogger("snas")

LOOK = 2.0  # seconds without a question after which the cluster is looked at
PATIENCE = 30.0  # seconds that Tune's loop has to end


@dataclass(slots=True)
class _Out:
    """A job that a trial has, or that waits for one, as it would be begun anew; its losses since its last epoch; and
    the letter that the trial was begun with, which Tune keeps."""

    job: Job
    losses: int = 0
    letter: Letter | None = None

    def burn(self) -> None:
        """Empty the letter: the trial has read it."""
        if self.letter is not None:
            self.letter.open()


@evaluators.register("ray")
class RayEvaluator:
    """Candidates on a Ray cluster, or on this machine through Ray Tune; needs pip install 'snas[ray]'.

    A candidate's results are those of the serial evaluator with as many threads, to the bit; which candidates are
    promoted depends on which are faster, as in all asynchronous searches.
    """

    def __init__(
        self,
        task: Task,
        checkpoints: Checkpoints,
        *,
        slots: int | None = None,
        address: str | None = None,
        resources: str | None = None,
        concurrency: int | None = None,
    ) -> None:
        """
        Args:
            task: what the study's networks share.
            checkpoints: where unfinished networks are kept, on this machine.
            slots: the same as `concurrency`.
            address: of a head node, host:port or "auto"; None for what RAY_ADDRESS says, else a Ray of our own.
            resources: that each candidate takes, as in "cpu=1,gpu=0.25"; a GPU is used where there is some.
            concurrency: most candidates at a time; None for as many as the cluster has room for.

        Raises:
            InputError: if Ray is not installed, or the settings or the space do not serve.
        """
        require_ray()
        if address is not None:
            read_address(address)
        usual = "cpu=1,gpu=1" if task.device.type == "cuda" else "cpu=1"
        self._resources = read_resources(resources or usual)
        self._task = task
        self._checkpoints = checkpoints
        self._address = address
        self._most = concurrency or slots
        self._threads = task.threads or max(1, int(self._resources.get("cpu", 1)))
        device = "cuda" if "gpu" in self._resources else "cpu"
        self.environment: Mapping[str, Any] = {
            "evaluator": "ray",
            "ray": version("ray"),
            "resources": written(self._resources),
            "threads": self._threads,
            "device": device,
            **({} if device == task.device.type else {"device_name": "of Ray's nodes"}),
        }
        setup = Setup(
            without_examples(replace(task, device=torch.device("cpu"))),
            {},
            checkpoints.folder.absolute(),
            MOST_BYTES // 4,
            self._threads,
            torch.get_default_dtype(),
            own_plugins(),
            log.getEffectiveLevel(),
        )
        self._first = pickle.dumps((versions(), pack(setup, task.space.name)))
        self._spaces: dict[
            int, tuple[SearchSpace, int, bytes]
        ] = {}  # by identity: the architecture, its number, packed
        self._cluster: Cluster | None = None
        self._out: dict[str, _Out] = {}
        self._waiting: list[_Out] = []
        self._answered = False
        self._room = 0
        self._looked = -math.inf
        self._end: Callable[[], Any] = _nothing

    def run(self, feed: Feed) -> Iterator[Sequence[Report | Failure]]:
        """Train jobs, as many at a time as there is room for, until the feed is dry."""
        first = feed.next()
        if first is None:
            return  # Ray takes seconds to start
        self._waiting, self._out = [_Out(first)], {}
        with quiet(), tempfile.TemporaryDirectory(prefix="snas-ray-", ignore_cleanup_errors=True) as folder:
            dry = False
            try:
                cluster = self._connect()
                silent = 0
                for number in itertools.count():
                    heard, end = yield from self._tune(cluster, feed, f"{folder}/{number}")
                    if not self._waiting:
                        break
                    silent = 0 if heard else silent + 1
                    if silent >= TRIES:
                        raise SnasError(f"Ray Tune does not run: {end}; use --evaluator processes")
                    log.warning("Ray Tune is begun anew: %s", end)
                dry = True
            finally:
                if not dry:  # nobody will file what they find
                    self._end()
                    self._cluster = None

    def _connect(self) -> Cluster:
        """The cluster, where there is room for a candidate."""
        if self._cluster is None:
            self._cluster = Cluster(self._address)
            self._end = weakref.finalize(self, self._cluster.close)
            self._cluster.require_room(self._resources)
        return self._cluster

    def _tune(
        self, cluster: Cluster, feed: Feed, folder: str
    ) -> Generator[Sequence[Report | Failure], None, tuple[bool, str]]:
        """Have Tune run, and answer what it asks.

        Returns:
            Whether any trial sent word, and how it ended. What it left undone waits.
        """
        heard = False
        with _thread(cluster, self._resources, self._first, self._examples(), folder) as counter:
            while not isinstance(question := counter.hear(LOOK), Ended):
                if question is None:
                    self._places(cluster)
                elif isinstance(question, Asked):
                    counter.answer(self._next(question.trial, cluster, feed))
                elif isinstance(question, Lost):
                    if failure := self._lose(question):
                        yield (failure,)
                    counter.answer(None)
                else:
                    heard = True
                    report = self._take(question)
                    if report is not None:
                        yield (report,)
                    counter.answer(self._settle(question.trial, report))
        self._waiting = [*self._out.values(), *self._waiting]
        self._out = {}
        return heard, "its loop came to an end" if question.error is None else _told(question.error)

    def _places(self, cluster: Cluster) -> int:
        """How many candidates may train at a time now. The cluster is looked at from time to time."""
        if time.monotonic() - self._looked > LOOK:
            self._room = cluster.room(self._resources)
            self._looked = time.monotonic()
        return self._room if self._most is None else min(self._room, self._most)

    def _next(self, trial: str, cluster: Cluster, feed: Feed) -> Letter | str | None:
        """A job for a trial; None where there is none now, LAST where there will be none."""
        if len(self._out) >= self._places(cluster):
            return None
        if self._waiting:
            out = self._waiting.pop(0)
        elif (job := feed.next()) is not None:
            out = _Out(job)
        else:
            return None if self._out else LAST
        self._out[trial] = out
        out.letter = self._letter(out.job)
        return out.letter

    def _letter(self, job: Job) -> Letter:
        """A job with all that another machine needs for it."""
        from safetensors.torch import save

        from snas.evaluators.ray_adapters import pack_job

        name = job.space.name
        if id(job.space) not in self._spaces:
            self._spaces[id(job.space)] = job.space, len(self._spaces), pack(job.space, name)
        _, number, space = self._spaces[id(job.space)]
        rest = {field.name: getattr(job, field.name) for field in fields(job) if field.name != "space"}
        epochs, state = (self._checkpoints.load_latest(job.key, job.start) if job.start else None) or (0, None)
        return pack_job(number, space, pack(rest, name), start=epochs, state=b"" if state is None else save(state))

    def _take(self, heard: Heard) -> Report | Failure | None:
        """What a trial says of an epoch, its checkpoint written; None for one that nobody waits for."""
        from safetensors.torch import load

        out = self._out.get(heard.trial)
        answer, state = cast(tuple[Answer, bytes], pickle.loads(heard.letter.open()))
        for level, text in answer.logged:
            log.log(level, "%s", text)
        if out is None:
            return None
        out.burn()
        if answer.error is not None:
            raise answer.error
        report = answer.report
        self._answered = True
        if isinstance(report, Report):
            if state:
                self._checkpoints.save(out.job.key, report.epoch, load(state))
            out.job = replace(out.job, start=report.epoch, mask_checksum=report.mask_checksum)
            out.losses = 0
        return report

    def _settle(self, trial: str, report: Report | Failure | None) -> bool:
        """Whether a trial goes on, now that its report is filed; checkpoints that are not needed any more go."""
        if report is None:
            return False
        job = self._out[trial].job
        if isinstance(report, Failure):
            goes_on = False
            if report.status is Status.FAILED:
                self._checkpoints.drop(job.key)
        else:
            goes_on = job.start < job.until
            self._checkpoints.drop(job.key, before=job.start if job.start < self._task.rule.epochs else None)
        if not goes_on:
            del self._out[trial]
        return goes_on

    def _lose(self, lost: Lost) -> Failure | None:
        """Have the job of a lost trial done by another, or give it up.

        Raises:
            SnasError: if no process of the cluster has ever said anything.
        """
        out = self._out.pop(lost.trial, None)
        if out is None:
            return None
        out.burn()
        out.losses += 1
        job = out.job
        if out.losses < TRIES:
            log.warning("%s goes on from epoch %d in another trial: %s", job.key, job.start, lost.reason)
            self._waiting.append(out)
            return None
        if not self._answered:
            raise SnasError(
                f"no candidate can be trained on Ray: {lost.reason} ({TRIES} tries); snas must be installed on every "
                "node, in the same version, with the same Python"
            )
        self._checkpoints.drop(job.key)
        return Failure(job.trial, Status.FAILED, f"{lost.reason} ({TRIES} tries)")

    def _examples(self) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays of examples, by part and name."""
        data = self._task.data
        return {
            f"{part}.{key}": getattr(getattr(data, part), key).cpu().numpy() for part in PARTS for key in ("x", "y")
        }


@contextmanager
def _thread(
    cluster: Cluster,
    resources: Mapping[str, float],
    first: bytes,
    examples: Mapping[str, np.ndarray[Any, Any]],
    folder: str,
) -> Iterator[Counter]:
    """Tune's loop in a thread of its own, for as long as the context lasts."""
    import ray

    from snas.evaluators.ray_adapters import run_tune

    counter = Counter()
    thread = threading.Thread(
        target=run_tune,
        args=(counter, resources),
        kwargs={"first": ray.put(first), "examples": ray.put(examples), "folder": folder, "tidy": not cluster.own},
        daemon=True,
        name="ray-tune",
    )
    thread.start()
    try:
        yield counter
    finally:
        counter.close()
        thread.join(PATIENCE)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _nothing() -> None:
    return None
