"""Signal propagation in sparse networks: seed tables and figures of approximate isometry, from our own runs.

    python benchmarks/isometry.py --data-dir FOLDER [--seeds 3] [--steps 5000] [--table-steps 3000] [--part table]
    python benchmarks/isometry.py --part none             # tables and figures of the results that are there

A perceptron of seven layers, width 100, on MNIST, as in [Lee2020b] sections 4.3 and 4.4; tanh but for (B):

(A) table 4.1: Gaussian weights of variance gamma; the Jacobian's singular values, the sparsity of each layer after SNIP
    on the whole training set at 90 %, and the test error after training; condition numbers, which grow with the number
    of examples, also over the whole training set as in the source, of the first seed;
(B) figure 4.2 a: mean singular value against sparsity, with and without approximate isometry, also of linear networks;
(C) figure 4.2 b: training loss at 90 % sparsity;
(D) the two norms of approximate isometry: orthogonality, singular values and training loss.

Prints tables, writes benchmarks/results/isometry.json and docs/figures/isometry-*.png and .svg (needs matplotlib).

[Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import statistics
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from snas.data.base import load_dataset
from snas.data.split import Arrays, held_out, split_data
from snas.diagnostics.jacobian import SingularValues, jacobian_statistics
from snas.diagnostics.orthogonality import orthogonality_score
from snas.errors import RefusedError
from snas.initialization.isometry import enforce_isometry
from snas.initialization.variance import initialize
from snas.masks import Enforcer, Masks, choose
from snas.pruning.allocations import global_by_score, kept_from_density
from snas.pruning.paths import require_trainable
from snas.pruning.scores import Batch, scores
from snas.search_spaces.perceptron import perceptron

ROOT = Path(__file__).parent.parent
RESULTS, FIGURES = ROOT / "benchmarks" / "results" / "isometry.json", ROOT / "docs" / "figures"
SPACES = {name: perceptron((1, 28, 28), 10, activation=name) for name in ("linear", "tanh")}
LAYERS = SPACES["tanh"].layers
GAMMAS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
SPARSITIES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
RULES = {"VS": "glorot", "LDI": "orthogonal"}
PARTS = ("singular_values", "table", "conditions", "training")
BATCH, LR, WEIGHT_DECAY, EVERY = 100, 0.1, 5e-4, 50
EXAMPLES = 1000
# Printed in table 4.1: mean, std, condition number, sparsity of each layer, error in percent.
PUBLISHED = {
    1e-4: (2.46e-7, 9.90e-8, 4.66, (0.97, 0.80, 0.80, 0.80, 0.80, 0.81, 0.48), 2.66),
    1e-3: (5.74e-4, 2.45e-4, 8.54, (0.97, 0.80, 0.80, 0.80, 0.80, 0.81, 0.48), 2.67),
    1e-2: (4.49e-1, 2.51e-1, 5.14e1, (0.96, 0.80, 0.80, 0.80, 0.81, 0.81, 0.49), 2.67),
    1e-1: (2.30e1, 2.56e1, 2.92e4, (0.96, 0.81, 0.82, 0.82, 0.82, 0.80, 0.45), 2.61),
    1.0: (1.03e3, 2.61e3, 3.34e11, (0.85, 0.88, 0.99, 1.00, 1.00, 1.00, 0.91), 90.2),
    10.0: (3.67e4, 2.64e5, math.inf, (0.84, 0.95, 1.00, 1.00, 1.00, 1.00, 1.00), 90.2),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(rule: str, seed: int, activation: str = "tanh") -> nn.Module:
    model = SPACES[activation].build(generator=seeded(seed))
    initialize(model, rule=rule, nonlinearity=activation, generator=seeded(seed))
    return model


def sensitivities(kind: str, model: nn.Module, train: Arrays, seed: int) -> dict[str, Tensor]:
    """CS: SNIP's, over the whole training set; Rand: random ones."""
    name = {"CS": "snip", "Rand": "random"}[kind]
    return scores.get(name)(model, LAYERS, Batch(train.x, train.y), generator=seeded(1000 + seed))


def masks_at(sparsity: float, values: dict[str, Tensor], seed: int) -> Masks:
    kept = kept_from_density(1 - sparsity, sum(layer.total for layer in LAYERS))
    densities = global_by_score(values, LAYERS, kept, pinned={}, generator=seeded(2000 + seed))
    return choose(values, densities, generator=seeded(2000 + seed))


def masked(model: nn.Module, masks: Masks, norm: str | None) -> nn.Module:
    """A copy with its masked weights zero, and the others brought near to isometry where a norm is named."""
    sparse = copy.deepcopy(model)
    masks.apply(sparse)
    if norm is not None:  # the gain of tanh and that of a linear network are the same, 1
        enforce_isometry(sparse, masks, nonlinearity="tanh", norm=norm)
    return sparse


def train(
    model: nn.Module, masks: Masks, data: Arrays, *, steps: int, seed: int, momentum: float
) -> tuple[nn.Module, list[float]]:
    """Train with SGD, lr 0.1, divided by 10 after three quarters; return the mean losses of every 50 steps."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=momentum, weight_decay=WEIGHT_DECAY)
    enforcer, generator = Enforcer(model, masks), seeded(3000 + seed)
    losses: list[float] = []
    total, order = 0.0, torch.empty(0, dtype=torch.int64)
    for step in range(1, steps + 1):
        if len(order) < BATCH:
            order = torch.randperm(len(data.y), generator=generator)
        batch, order = order[:BATCH], order[BATCH:]
        if step == 3 * steps // 4:
            optimizer.param_groups[0]["lr"] = LR / 10
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(data.x[batch]), data.y[batch])
        loss.backward()
        enforcer.mask_gradients()
        optimizer.step()
        enforcer.mask_weights()
        total += float(loss.detach())
        if step % EVERY == 0:
            losses.append(total / EVERY)
            total = 0.0
    return model, losses


@torch.no_grad()
def error_of(model: nn.Module, test: Arrays) -> float:
    """Percent of the test examples."""
    return 100 * (1 - float((model(test.x).argmax(1) == test.y).float().mean()))


def as_dict(values: SingularValues) -> dict[str, float]:
    return {
        "mean": values.mean,
        "std": values.std,
        "max": values.largest,
        "min": values.smallest,
        "condition": values.condition,
    }


def table(data: Arrays, test: Arrays, seeds: int, steps: int) -> list[dict[str, Any]]:
    """(A)"""
    rows = []
    for gamma in GAMMAS:
        for seed in range(seeds):
            model = drawn(f"normal:{math.sqrt(gamma)}", seed)
            values = as_dict(jacobian_statistics(model, data.x[:EXAMPLES]))
            masks = masks_at(0.9, sensitivities("CS", model, data, seed), seed)
            sparsity = [1 - kept / layer.total for kept, layer in zip(masks.kept.kept, LAYERS, strict=True)]
            refused, trained, redrawn = "", None, None
            try:
                require_trainable(model, masks, input_shape=(1, 28, 28))
            except RefusedError as error:
                refused = str(error)
            else:
                options = {"steps": steps, "seed": seed, "momentum": 0.9}
                trained = error_of(train(masked(model, masks, None), masks, data, **options)[0], test)
                other = masked(drawn("glorot", 500 + seed), masks, None)
                redrawn = error_of(train(other, masks, data, **options)[0], test)
            rows.append(
                {"gamma": gamma, "seed": seed, **values, "sparsity": sparsity}
                | {"refused": refused, "error": trained, "error_redrawn": redrawn}
            )
    return rows


def conditions(data: Arrays) -> list[dict[str, Any]]:
    """(A) over all examples."""
    models = ((gamma, drawn(f"normal:{math.sqrt(gamma)}", 0)) for gamma in GAMMAS)
    return [{"gamma": gamma, **as_dict(jacobian_statistics(model, data.x))} for gamma, model in models]


def singular_values_by_sparsity(data: Arrays, seeds: int) -> list[dict[str, Any]]:
    """(B); a linear network has one Jacobian for all examples."""
    rows = []
    for seed, activation, (start, rule), kind in product(range(seeds), SPACES, RULES.items(), ("Rand", "CS")):
        model = drawn(rule, seed, activation)
        values = sensitivities(kind, model, data, seed)
        x = data.x[: EXAMPLES if activation == "tanh" else 1]
        for sparsity, (suffix, norm) in product(SPARSITIES, (("", None), ("-AI", "frobenius"))):
            found = jacobian_statistics(masked(model, masks_at(sparsity, values, seed), norm), x)
            name = f"{start}-{kind}{suffix}"
            rows.append(
                {"activation": activation, "method": name, "seed": seed, "sparsity": sparsity, **as_dict(found)}
            )
    return rows


def training(data: Arrays, test: Arrays, seeds: int, steps: int) -> list[dict[str, Any]]:
    """(C) and (D)"""
    variants = [
        ("LDI-Dense", "LDI", "CS", 0.0, None),
        ("LDI-CS-AI", "LDI", "CS", 0.9, "frobenius"),
        ("LDI-CS-AIS", "LDI", "CS", 0.9, "spectral"),
        ("LDI-CS", "LDI", "CS", 0.9, None),
        ("VS-CS", "VS", "CS", 0.9, None),
        ("LDI-Rand-AI", "LDI", "Rand", 0.9, "frobenius"),
        ("LDI-Rand", "LDI", "Rand", 0.9, None),
        ("VS-Rand", "VS", "Rand", 0.9, None),
    ]
    rows = []
    for seed in range(seeds):
        for name, start, kind, sparsity, norm in variants:
            model = drawn(RULES[start], seed)
            masks = masks_at(sparsity, sensitivities(kind, model, data, seed), seed)
            sparse = masked(model, masks, norm)
            found = jacobian_statistics(sparse, data.x[:EXAMPLES])
            score = orthogonality_score(sparse, masks)
            trained, losses = train(sparse, masks, data, steps=steps, seed=seed, momentum=0.0)
            rows.append(
                {"method": name, "seed": seed, "orthogonality": score, **as_dict(found)}
                | {"losses": losses, "error": error_of(trained, test)}
            )
    return rows


# Tables


def mean_of(rows: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def means_by_sparsity(rows: Sequence[dict[str, Any]], activation: str, method: str) -> list[float]:
    own = [row for row in rows if (row["activation"], row["method"]) == (activation, method)]
    return [mean_of([row for row in own if row["sparsity"] == sparsity], "mean") for sparsity in SPARSITIES]


def error_text(rows: Sequence[dict[str, Any]], key: str) -> str:
    errors = [row[key] for row in rows if row[key] is not None]
    if not errors:
        return "-"
    spread = f"+-{statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    return f"{statistics.fmean(errors):.2f}{spread}"


def print_tables(results: dict[str, Any]) -> None:
    print("(A) gamma; mean, std, condition number; sparsity of layers 1-7; error %, and with weights drawn anew")
    everywhere = {row["gamma"]: row["condition"] for row in results["conditions"]}
    for gamma in GAMMAS:
        rows = [row for row in results["table"] if row["gamma"] == gamma]
        shares = [statistics.fmean(row["sparsity"][layer] for row in rows) for layer in range(len(LAYERS))]
        refused = sum(bool(row["refused"]) for row in rows)
        measured = "".join(f"{mean_of(rows, key):>10.2e}" for key in ("mean", "std", "condition"))
        print(
            f"  {gamma:<8g}{measured}  {' '.join(f'{share:.2f}' for share in shares)}  {error_text(rows, 'error'):>12}"
            f"{error_text(rows, 'error_redrawn'):>12}{f'  refused: {refused} of {len(rows)}' if refused else ''}"
        )
        print(f"  {'  all examples':<28}{everywhere[gamma]:>10.2e}")
        mean, std, condition, printed, error = PUBLISHED[gamma]
        print(
            f"  {'  seed':<8}{mean:>10.2e}{std:>10.2e}{condition:>10.2e}  "
            f"{' '.join(f'{share:.2f}' for share in printed)}  {error:>12}"
        )
    print("\n(B) mean singular value at sparsity " + ", ".join(f"{sparsity:g}" for sparsity in SPARSITIES))
    for activation, name in dict.fromkeys((row["activation"], row["method"]) for row in results["singular_values"]):
        means = means_by_sparsity(results["singular_values"], activation, name)
        print(f"  {activation:<7}{name:<12}" + " ".join(f"{value:8.2e}" for value in means))
    print("\n(C, D) sparsity 0.9: orthogonality score, mean singular value; steps until the loss is below 0.5; error %")
    for name in dict.fromkeys(row["method"] for row in results["training"]):
        rows = [row for row in results["training"] if row["method"] == name]
        steps = [first_below(row["losses"], 0.5) for row in rows]
        reached = f"{statistics.fmean(steps):.0f}" if None not in steps else "never by some seed"
        print(
            f"  {name:<12}{mean_of(rows, 'orthogonality'):>8.2f}{mean_of(rows, 'mean'):>10.2e}  {reached:>8}"
            f"  {error_text(rows, 'error')}"
        )


def first_below(losses: Sequence[float], level: float) -> int | None:
    return next((EVERY * (place + 1) for place, loss in enumerate(losses) if loss < level), None)


# Pictures: colours of Okabe and Ito, told apart by colour-blind readers; lines differ in dashes and markers as well.

STYLES = {
    "LDI-Dense": ("#000000", "-", ""),
    "LDI-CS-AI": ("#0072B2", "-", "o"),
    "LDI-CS-AIS": ("#56B4E9", "--", "v"),
    "LDI-CS": ("#0072B2", ":", "o"),
    "LDI-Rand-AI": ("#D55E00", "-", "s"),
    "LDI-Rand": ("#D55E00", ":", "s"),
    "VS-CS-AI": ("#009E73", "-", "^"),
    "VS-CS": ("#009E73", ":", "^"),
    "VS-Rand-AI": ("#CC79A7", "-", "D"),
    "VS-Rand": ("#CC79A7", ":", "D"),
}


def draw(results: dict[str, Any], seeds: int) -> None:
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams |= {
        "svg.hashsalt": "snas",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.6, 4.4), sharey=True, layout="constrained")
    names = dict.fromkeys(row["method"] for row in results["singular_values"])
    for axes, activation in zip(panels, SPACES, strict=True):
        for name in (name for name in STYLES if name in names):
            means = means_by_sparsity(results["singular_values"], activation, name)
            axes.plot([100 * s for s in SPARSITIES], means, label=name, **style(name))
        axes.set(xlabel="sparsity (%)", yscale="log", title=activation)
        axes.grid(alpha=0.25)
        axes.annotate("the four with -AI", (64, 1.3 if activation == "linear" else 0.52), fontsize=8.5, color="#444444")
    panels[0].set_ylabel("mean singular value of the Jacobian")
    panels[0].legend(frameon=False, fontsize=8.5, ncols=2, loc="lower left")
    figure.suptitle(f"Isometry lost by pruning, and brought back (7 layers, MNIST, mean of {seeds} seeds)", fontsize=11)
    save(figure, "isometry-singular-values")

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    curves: dict[str, list[list[float]]] = {}
    for row in results["training"]:
        curves.setdefault(row["method"], []).append(row["losses"])
    for name in (name for name in STYLES if name in curves):
        average = [statistics.fmean(step) for step in zip(*curves[name], strict=True)]
        x = [EVERY * (place + 1) for place in range(len(average))]
        axes.plot(x, average, markevery=0.09, label=name, **style(name))
    axes.set(xlabel="training steps", ylabel="training loss", xscale="log", yscale="log")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8.5, ncols=2, loc="lower left")
    axes.set_title(f"Training at 90 % sparsity (tanh, 7 layers, MNIST, mean of {seeds} seeds)", fontsize=11)
    save(figure, "isometry-training")


def style(name: str) -> dict[str, Any]:
    colour, dashes, marker = STYLES[name]
    return {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 5, "markerfacecolor": "white"}


def save(figure: Any, name: str) -> None:
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"{name}.png", dpi=160)
    figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None})


def measure(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """One part's rows, with the settings and the time that they took."""
    dataset = load_dataset("mnist", data_dir=options.data_dir)
    data = split_data(dataset, seed=0)
    test, started = held_out(dataset, data), time.perf_counter()
    if part == "table":
        steps, rows = options.table_steps, table(data.train, test, options.seeds, options.table_steps)
    elif part == "conditions":
        steps, rows = 0, conditions(data.train)
    elif part == "training":
        steps, rows = options.steps, training(data.train, test, options.seeds, options.steps)
    else:
        steps, rows = 0, singular_values_by_sparsity(data.train, options.seeds)
    return {
        "seeds": options.seeds,
        "steps": steps,
        "examples": len(data.train.y) if part == "conditions" else EXAMPLES,
        "seconds": round(time.perf_counter() - started),
        "environment": f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s)",
        "rows": rows,
    }


def shortened(value: Any) -> Any:
    """Floats to five digits, throughout."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def recorded() -> dict[str, Any]:
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder with MNIST's files; by default the cache folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5000, help="training steps of (C) and (D), without momentum")
    parser.add_argument("--table-steps", type=int, default=3000, help="training steps of (A), momentum 0.9")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", choices=["all", *PARTS, "none"], default="all", help="what to measure anew")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for part in PARTS:
        if options.part in ("all", part):
            measured = measure(part, options)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(shortened(recorded() | {part: measured})) + "\n")
    results = recorded()
    missing = [part for part in PARTS if part not in results]
    if missing:
        print(f"not measured yet: {', '.join(missing)}")
        return
    print_tables({part: results[part]["rows"] for part in PARTS})
    draw({part: results[part]["rows"] for part in PARTS}, results["training"]["seeds"])


if __name__ == "__main__":
    main()
