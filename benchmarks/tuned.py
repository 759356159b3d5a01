"""Ray Tune with ASHA around a plain PyTorch training: what one sets up today. The only file that imports Ray.

pip install 'snas[ray]'
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from plain import Data, Rule, mask_randomly, perceptron, train_epochs

CPUS_EACH, AT_ONCE = 1, 2


@dataclass(frozen=True)
class Tuned:
    """What a search by Ray Tune gave.

    Attributes:
        seconds: from the first suggestion to the last report.
        start_seconds: import and start of Ray, before that.
        accuracies: of each trial, after each of its epochs.
    """

    seconds: float
    start_seconds: float
    accuracies: list[list[float]]


def training(config: Mapping[str, Any], *, data: Data, rule: Rule, sizes: Sequence[int], classes: int) -> None:
    """One trial: build, mask, train, and report after each epoch."""
    from ray import tune

    torch.manual_seed(config["seed"])
    model = perceptron(sizes, classes)
    masks = mask_randomly(model, config["kept"])
    for accuracy in train_epochs(model, masks, data, rule):
        tune.report({"accuracy": accuracy})


def search(
    candidates: Sequence[Sequence[int]],
    data: Data,
    rule: Rule,
    *,
    sizes: Sequence[int],
    classes: int,
    grace: int,
    eta: int,
    seed: int,
    folder: str,
    reuse: bool = False,
) -> Tuned:
    """Train candidates, given by the kept weights of their layers, under ASHA, two at once on a core each.

    Args:
        candidates: kept weights of each layer, of each candidate.
        data: that every trial gets through Ray's object store.
        rule: of training; its epochs are ASHA's most.
        sizes: inputs and hidden units.
        classes: number of classes.
        grace: epochs of ASHA's first rung.
        eta: its reduction factor.
        seed: of every trial.
        folder: where Ray writes its results.
        reuse: whether one trial's process goes on with the next, which Ray can do, but does not unless told.

    Raises:
        ImportError: where there is no Ray.
    """
    began = time.perf_counter()
    here = str(Path(__file__).parent)  # the workers import this file
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning; there is no accelerator
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # that which heeds verbose=0
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.basic_variant import BasicVariantGenerator

    times: list[float] = []

    class Noting(BasicVariantGenerator):
        """Ray's own generator; notes when it is first asked."""

        def next_trial(self) -> Any:
            times.append(time.perf_counter())
            return super().next_trial()

    class Reports(tune.Callback):
        """Notes every report when it arrives."""

        def __init__(self) -> None:
            self.accuracies: dict[str, list[float]] = {}
            self.last = 0.0

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            self.accuracies.setdefault(trial.trial_id, []).append(float(result["accuracy"]))
            self.last = time.perf_counter()

    ray.init(
        num_cpus=CPUS_EACH * AT_ONCE,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        started = time.perf_counter()
        reports = Reports()
        trainable = tune.with_resources(
            tune.with_parameters(training, data=data, rule=rule, sizes=sizes, classes=classes), {"cpu": CPUS_EACH}
        )
        tuner = tune.Tuner(
            trainable,
            param_space={"kept": tune.grid_search([list(kept) for kept in candidates]), "seed": seed},
            tune_config=tune.TuneConfig(
                metric="accuracy",
                mode="max",
                scheduler=ASHAScheduler(max_t=rule.epochs, grace_period=grace, reduction_factor=eta),
                search_alg=Noting(),
                reuse_actors=reuse,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[reports]),
        )
        results = tuner.fit()
        if results.errors:
            raise RuntimeError(f"a trial of Ray Tune failed: {results.errors[0]}")
    finally:
        ray.shutdown()
    return Tuned(reports.last - times[0], started - began, list(reports.accuracies.values()))
