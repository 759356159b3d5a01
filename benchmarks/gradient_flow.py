"""What recording gradient flow costs: CPU time of trainings with and without it, in turn.

    python benchmarks/gradient_flow.py [--data-dir FOLDER] [--rounds 5]

Trainings have 11 epochs, so that every epoch is recorded, which is the worst case: a training of 110 epochs records one
in ten. Times are CPU time of one thread; still, on a machine with other work the difference of two trainings is lost in
its noise, so that what the recording itself takes is measured inside too (`inside`, the median of the rounds).
Digits (1,294 examples, about 20 steps an epoch) are the worst case of the share, MNIST (6,000 examples) is nearer to
use. `full pass` is what measuring on a fixed batch of 1,000 examples would cost, in place of the training's own
gradient.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from snas.diagnostics.gradient_flow import FlowWatcher, measured_epochs, session_flow
from snas.studies.lab import Lab, seed_of
from snas.training.session import Session
from snas.training.watcher import Watcher

CASES = [
    ("lenet-300-100", "digits", 0, "dense", 1.0),
    ("lenet-300-100", "digits", 0, "er", 0.1),
    ("mlp:hidden_layers=4", "digits", 0, "er", 0.1),
    ("resnet-8", "digits", 0, "erk", 0.1),
    ("lenet-300-100", "mnist", 6000, "dense", 1.0),
    ("lenet-300-100", "mnist", 6000, "er", 0.05),
]
EPOCHS = 11


class Timed(FlowWatcher):
    """Counts the CPU time of its own work."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def on_gradients(self, session: Session, index: int, steps: int) -> None:
        if index + 2 < steps:  # it does nothing there, and to ask for the time would cost more
            return
        start = time.thread_time()
        super().on_gradients(session, index, steps)
        self.seconds += time.thread_time() - start


class FixedBatch(Watcher):
    """The other way: a pass of its own over a fixed batch at the end of the epoch."""

    def on_epoch(self, session: Session, number: int) -> dict[str, float]:
        if number not in measured_epochs(session.epochs):
            return {}
        session.model.train()
        session.optimizer.zero_grad()
        arrays = session.data.train
        torch.nn.functional.cross_entropy(session.model(arrays.x[:1000]), arrays.y[:1000]).backward()
        return session_flow(session)


def seconds(lab: Lab, case: tuple[str, str, int, str, float], watcher: Watcher | None) -> float:
    space, dataset, examples, method, density = case
    bench = lab.bench(space, dataset, examples=examples, epochs=EPOCHS, kernel="dense", lr=0.05)
    total = bench.space.total_weights
    sparse = lab.prepare(bench, method, total if method == "dense" else round(density * total), seed=0)
    session = Session(
        sparse.model,
        sparse.masks,
        bench.task.rule,
        bench.task.data,
        seed=seed_of(0),
        device=bench.task.device,
        watcher=watcher,
    )
    start = time.thread_time()
    while session.epoch < EPOCHS:
        session.train_epoch()
    return time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder with MNIST's files; without, MNIST is left out")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lab = Lab(data_dir=options.data_dir, device="cpu")
    columns = f"{'plain s':>9}{'inside':>9}{'recorded':>10}{'full pass':>11}"
    print(f"{'network':<22}{'data':<8}{'mask':<7}{'density':>8}{columns}")
    for case in CASES:
        if case[1] == "mnist" and options.data_dir is None:
            continue
        seconds(lab, case, None)  # first calls are slow
        times: dict[str, list[float]] = {"plain": [], "recorded": [], "full": []}
        inside = []
        for _ in range(options.rounds):
            times["plain"].append(seconds(lab, case, None))
            watcher = Timed()
            times["recorded"].append(seconds(lab, case, watcher))
            inside.append(watcher.seconds / (times["recorded"][-1] - watcher.seconds))
            times["full"].append(seconds(lab, case, FixedBatch()))
        plain, recorded, full = (min(times[name]) for name in ("plain", "recorded", "full"))
        shares = f"{100 * statistics.median(inside):+8.1f}%{100 * (recorded / plain - 1):+9.1f}%"
        shares += f"{100 * (full / plain - 1):+10.1f}%"
        print(f"{case[0]:<22}{case[1]:<8}{case[3]:<7}{case[4]:>8g}{plain:>9.2f}{shares}", flush=True)


if __name__ == "__main__":
    main()
