"""snas inside a Ray Tune search of your own: Tune runs your training, snas proposes how much of each layer to keep.

    pip install 'snas[ray]'
    python examples/ray_searcher.py

Every trial keeps exactly 10 % of the weights; what is searched is where. Tune's own ASHA stops the weak ones.
"""

import logging
import os
import tempfile

os.environ.update(
    {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
)

try:
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
except ImportError:
    print("this example needs Ray: pip install 'snas[ray]'")
    raise SystemExit(0) from None

import torch

import snas
from snas.densities import Densities
from snas.integrations.ray import SnasSearcher
from snas.pruning.methods import given_densities
from snas.search_spaces.catalog import open_space


def train(config):
    """One trial, in whatever way you train; here with the sessions of snas."""
    from snas.bench import open_bench
    from snas.settings import Settings
    from snas.training.session import Session

    torch.set_num_threads(1)
    task = open_bench(Settings(space="lenet-300-100", epochs=4)).task
    densities = Densities.from_counts(task.space.layers, config["kept"])
    sparse = task.prepare(given_densities("random"), densities, seed=0)
    session = Session(sparse.model, sparse.masks, task.rule, task.data, seed=0, device=task.device)
    for _ in range(4):
        tune.report({"accuracy": session.train_epoch().validation_accuracy})


def main():
    space = open_space("lenet-300-100", input_shape=(1, 8, 8), classes=10)
    searcher = SnasSearcher(space, strategy="bayes", budget=snas.Budget(density=0.1), metric="accuracy", mode="max")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = tune.Tuner(
                tune.with_resources(train, {"cpu": 1}),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=ASHAScheduler(metric="accuracy", mode="max", max_t=4, reduction_factor=2),
                    num_samples=6,
                    max_concurrent_trials=2,
                ),
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
            ).fit()
            best = results.get_best_result("accuracy", "max")
    finally:
        ray.shutdown()
    print(f"best of {len(results)}: accuracy {best.metrics['accuracy']:.3f}")
    for layer, density in best.config["densities"].items():
        print(f"{layer:>12} {density:8.2%}")


if __name__ == "__main__":
    main()
