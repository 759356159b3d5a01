"""Our side of Ray Tune's interfaces: its searcher, its scheduler and its trainable. The only evaluator file that
imports Ray at its top.

The searcher and the scheduler decide nothing. They run in the thread of Tune's loop, take every question to the counter
(`counter.py`), and wait there until the search, in its own thread, has answered: so Tune hands out what our strategies
and rungs say, and no trial goes on before its report is in the registry.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from snas.errors import SnasError
from snas.evaluators.counter import LAST, Asked, Closed, Counter, Ended, Heard, Letter, Lost
from snas.evaluators.resources import as_ray_names
from snas.evaluators.sharing import Answer, Setup, versions, with_examples
from snas.evaluators.worker import Collector, Worker, begin, defect, log, unpack
from snas.search_spaces.base import SearchSpace
from snas.training.carried import Carried
from snas.training.devices import choose_device

MOST = 10_000  # trials at a time that Tune may have; the search keeps to fewer
NAME = "candidates"


class Jobs(Searcher):
    """Tune's searcher: every suggestion is a job of the search, from where its candidate stands to its next rung."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A job as a configuration; None where there is none now."""
        answer = self._counter.ask(Asked(trial_id))
        if answer is None:
            return None
        return Searcher.FINISHED if answer == LAST else {"job": answer}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the scheduler has told."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the registry is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the registry is the state."""


class Rungs(FIFOScheduler):
    """Tune's scheduler: a trial goes on when its report is filed, until the rung that its job ends at."""

    def __init__(self, counter: Counter, *, tidy: bool) -> None:
        """Take questions to the counter; `tidy` has Tune end its trials when the search has gone, which takes time."""
        super().__init__()
        self._counter = counter
        self._tidy = tidy

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """File the report; then the trial goes on, or has done its job."""
        goes_on = self._counter.ask(Heard(trial.trial_id, result["letter"]))
        return str(self.CONTINUE if goes_on else self.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Say that a trial was lost, and why: Tune has written that into a file of text."""
        file = trial.error_file
        text = Path(file).read_text(encoding="utf-8", errors="replace") if file and Path(file).exists() else ""
        self._counter.ask(Lost(trial.trial_id, reason_of(text)))

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The next one. Tune asks at every step of its loop, so here it learns that the search has gone."""
        try:
            self._counter.look()
        except Closed as gone:
            if self._tidy:
                raise RuntimeError("the search has gone") from gone
            raise
        return super().choose_trial_to_run(tune_controller)


class Candidate(tune.Trainable):
    """Tune's trainable: trains jobs one after another in one process, wherever that is; an epoch is a step."""

    def setup(self, config: dict[str, Any], *, first: Any = None, examples: Any = None) -> None:
        """Make this process what the search's own is, as far as training goes."""
        self._error: SnasError | None = None
        self._collector = Collector()
        log.handlers = [self._collector]
        log.propagate = False
        try:
            self._worker, self._carried = _open(first, examples)
            self._take(config)
        except SnasError as error:
            self._error = error
        except Exception as error:
            self._error = defect(error)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another job; the training before has paused or ended."""
        if self._error is None:
            try:
                self._worker.park()
                self._take(new_config)
            except SnasError as error:
                self._error = error
            except Exception as error:
                self._error = defect(error)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch that was not reported before, and send word of it, with the network as it is then."""
        answer, state = Answer(error=self._error), b""
        if self._error is None:
            try:
                answer = self._worker.train()
                state = self._carried.take()
            except Exception as error:
                answer = Answer(error=defect(error))
        answer = replace(answer, logged=self._collector.collect())
        return {"letter": Letter(pickle.dumps((answer, state)))}

    def cleanup(self) -> None:
        """Nothing is open."""

    def _take(self, config: Mapping[str, Any]) -> None:
        """Read a job, as `pack_job` wrote it."""
        number, space, rest, start, state = pickle.loads(config["job"].read())
        if not self._worker.knows(number):
            found: SearchSpace = unpack(space)
            self._worker.know(number, found)
        self._carried.bring(start, state)
        self._worker.take(number, unpack(rest))


def pack_job(number: int, space: bytes, rest: bytes, *, start: int, state: bytes) -> Letter:
    """A job: the number of its architecture, which is packed beside, its other fields, and where it goes on from."""
    return Letter(pickle.dumps((number, space, rest, start, state)))


def _open(first: bytes, examples: Mapping[str, np.ndarray[Any, Any]]) -> tuple[Worker, Carried]:
    """Make this process what the search's own is, on the device that it was given."""
    theirs, packed = pickle.loads(first)
    if theirs != (mine := versions()):
        differing = [f"{name} {mine[name]} (there {theirs[name]})" for name in mine if mine[name] != theirs[name]]
        raise SnasError(
            f"node {ray.util.get_node_ip_address()} has {', '.join(differing)}; install the same versions on all nodes"
        )
    setup: Setup = unpack(packed)
    device = choose_device("cuda" if ray.get_gpu_ids() else "cpu")
    arrays = {name: torch.from_numpy(array.copy()).to(device) for name, array in examples.items()}
    carried = Carried(last=setup.task.rule.epochs)
    return begin(setup, replace(with_examples(setup.task, arrays), device=device), carried), carried


def run_tune(
    counter: Counter, resources: Mapping[str, float], *, first: Any, examples: Any, folder: str, tidy: bool
) -> None:
    """Have Tune run trials until the search has nothing more, or has gone; the counter hears how it ended.

    Args:
        counter: where the search is.
        resources: that a trial takes.
        first: reference to what a process is told first.
        examples: reference to the arrays of examples.
        folder: for whatever Tune writes.
        tidy: whether trials must be ended one by one where the search has gone, since Ray stays.
    """
    error: BaseException | None = None
    try:
        trainable = tune.with_resources(
            tune.with_parameters(Candidate, first=first, examples=examples),
            tune.PlacementGroupFactory([as_ray_names(resources)]),
        )
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=Jobs(counter),
                scheduler=Rungs(counter, tidy=tidy),
                max_concurrent_trials=MOST,
                reuse_actors=True,
                trial_name_creator=lambda trial: f"{NAME}-{trial.trial_id}",
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=folder,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        ).fit()
    except BaseException as problem:
        error = problem
    counter.tell(Ended(error))


def reason_of(text: str) -> str:
    """Why a trial was lost, in a few words, from what Ray writes of it.

    Example:
        >>> reason_of("ray.exceptions.ActorDiedError: The actor died because its node has died. Node Id: 1")
        'its node has died'
    """
    low = text.lower()
    if "out of memory" in low or "memory pressure" in low or "low on memory" in low or "(oom)" in low:
        return "its process was ended for lack of memory"
    if "node has died" in low or "node was terminated" in low or "node is dead" in low:
        return "its node has died"
    if "actordied" in low or "actor died" in low or "actor is dead" in low:
        return "its process has died"
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "Ray says nothing")[:300]
