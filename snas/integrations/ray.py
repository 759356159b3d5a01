"""snas inside a Ray Tune search of your own: a searcher that proposes densities for every layer of a space.

    searcher = SnasSearcher("lenet-300-100", strategy="bayes", budget=Budget(density=0.1), metric="accuracy")
    tune.Tuner(train, tune_config=tune.TuneConfig(search_alg=searcher, num_samples=20)).fit()

The trainable finds in `config["densities"]` the fraction and in `config["kept"]` the exact number of weights to keep of
each layer, by the layer's name. Needs pip install 'snas[ray]'. examples/ray_searcher.py is a whole one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.search import Searcher

from snas.budget import Budget
from snas.encoding import Encoding
from snas.errors import InputError, SnasError
from snas.search_spaces.base import SearchSpace
from snas.search_spaces.catalog import open_space
from snas.seeds import Stream, numpy_generator
from snas.strategies.base import Bound, Strategy, make_strategy
from snas.trials import Status, Trial

FORMAT = "snas searcher 1"


class SnasSearcher(Searcher):
    """Proposes densities, by any strategy of snas, and learns from what Tune's trials report.

    Trials are told apart by how long they were trained, so that a scheduler of Tune's (ASHA ...) can stop them: a score
    is that of `training_iteration`, and scores of different lengths are never compared as if they were equal. Trials
    that fail, or report what is no finite number, are told to the strategy as failed.

    Its state is a JSON file (Tune writes and reads it); restored, it goes on with the same proposals.
    """

    def __init__(
        self,
        space: SearchSpace | str,
        *,
        strategy: Strategy | str = "bayes",
        strategy_args: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        pins: Mapping[str, float] | None = None,
        input_shape: tuple[int, ...] = (1, 8, 8),
        classes: int = 10,
        seed: int = 0,
        metric: str | None = None,
        mode: str | None = None,
    ) -> None:
        """
        Args:
            space: whose layers get densities: a `SearchSpace`, or a name for data of `input_shape` and `classes`.
            strategy: a name, or any object with `ask`.
            strategy_args: options of a strategy by name.
            budget: that every proposal obeys, exact to the weight; None: any density.
            pins: layer name or pattern -> fixed density.
            input_shape: shape of one example, where the space is a name.
            classes: number of classes, where the space is a name.
            seed: of the proposals.
            metric: that trials report and the strategy learns from. None for Tune's own, of which Tune tells a searcher
                only where there is a `param_space`.
            mode: "max" or "min"; None for Tune's own in the same way, else "max".

        Raises:
            InputError: for an unknown name, or a budget that the space cannot meet.
        """
        if mode not in (None, "max", "min"):
            raise InputError(f"mode is {mode!r}; choices: max, min")
        super().__init__(metric=metric, mode=mode or "max")
        if isinstance(space, str):
            space = open_space(space, input_shape=input_shape, classes=classes)
        self._encoding = Encoding(space, budget=budget, pins=dict(pins or {}))
        chosen = make_strategy(strategy, strategy_args) if isinstance(strategy, str) else strategy
        self._strategy = chosen.bind(self._encoding) if isinstance(chosen, Bound) else chosen
        self._seed = seed
        self._numbers: dict[str, int] = {}
        self._history: list[Trial] = []

    @property
    def history(self) -> tuple[Trial, ...]:
        """What the strategy knows: every proposal, and its scores (higher is better, whatever the mode)."""
        return tuple(self._history)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Take metric and mode from Tune's settings. A search space of Tune's own cannot be taken beside ours."""
        if metric:
            self._metric = metric
        if mode:
            if mode not in ("max", "min"):
                return False
            self._mode = mode
        return True

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next proposal: `densities` and `kept` by layer."""
        number = len(self._history)
        rng = numpy_generator(self._seed, Stream.PROPOSAL, number)
        (point,) = self._strategy.ask(list(self._history), 1, dimensions=self._encoding.dimensions, rng=rng)
        point = self._encoding.canonical(np.asarray(point, dtype=np.float64))
        densities = self._encoding.decode(point).densities
        self._numbers[trial_id] = number
        self._history.append(Trial(number, point, kept_weights=densities.kept_weights))
        return {"densities": dict(densities.fractions), "kept": dict(densities.counts)}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Note a report."""
        if trial_id in self._numbers:
            self._note(self._numbers[trial_id], result, Status.RUNNING)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Note a trial's end; one that a scheduler has stopped is done."""
        if trial_id in self._numbers:
            self._note(self._numbers[trial_id], result or {}, Status.FAILED if error else Status.FINISHED)

    def save(self, checkpoint_path: str) -> None:
        """Write the state as JSON, beside and renamed."""
        state = {
            "format": FORMAT,
            "seed": self._seed,
            "dimensions": self._encoding.dimensions,
            "numbers": self._numbers,
            "trials": [
                {"point": one.point.tolist(), "status": str(one.status), "kept": one.kept_weights, "scores": one.scores}
                for one in self._history
            ],
        }
        part = f"{checkpoint_path}.part"
        Path(part).write_text(json.dumps(state), encoding="utf-8")
        os.replace(part, checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Read the state.

        Raises:
            InputError: if the file has none, or that of another search.
        """
        try:
            state = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
            if state["format"] != FORMAT:
                raise ValueError(f"format {state['format']!r}")
            history = [
                Trial(
                    number,
                    np.asarray(one["point"], dtype=np.float64),
                    Status(one["status"]),
                    {int(epoch): float(score) for epoch, score in one["scores"].items()},
                    int(one["kept"]),
                )
                for number, one in enumerate(state["trials"])
            ]
            numbers = {str(trial): int(number) for trial, number in state["numbers"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{checkpoint_path} has no state of a SnasSearcher ({error}); begin anew") from error
        if (state["dimensions"], state["seed"]) != (self._encoding.dimensions, self._seed):
            raise InputError(f"{checkpoint_path} is of a search with another space or seed; use the same")
        self._history, self._numbers = history, numbers

    def _note(self, number: int, result: Mapping[str, Any], status: Status) -> None:
        """Put a report and a status into the history."""
        trial = self._history[number]
        scores = dict(trial.scores)
        if self._metric is None:
            raise InputError("SnasSearcher is not told which metric counts; give metric=")
        if self._metric in result:
            try:
                value = float(result[self._metric])
            except (TypeError, ValueError):
                raise SnasError(f"a trial reports {self._metric}={result[self._metric]!r}; expected a number") from None
            if math.isfinite(value):
                scores[int(result.get("training_iteration", 1))] = -value if self._mode == "min" else value
            else:
                status = Status.FAILED
        if trial.status is Status.FAILED or (status is Status.FINISHED and not scores):  # what has failed stays so
            status = Status.FAILED
        self._history[number] = Trial(number, trial.point, status, scores, trial.kept_weights)
