"""Enter a baseline into the leaderboard: a method, at a density or at given densities, on one bench."""

from __future__ import annotations

import csv
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from snas.bench import Bench
from snas.checks import require_different
from snas.densities import Densities, check_density
from snas.errors import InputError
from snas.layers.dct import require_offsets
from snas.pruning.allocations import kept_from_density
from snas.pruning.dynamic.base import movements
from snas.pruning.methods import JOINED, Method, methods, open_method
from snas.pruning.prepare import make_goal
from snas.ranking import densities_of
from snas.records import require_whole
from snas.registry import Entry, Registry, TrainingRecord
from snas.search_spaces.base import SearchSpace
from snas.trials import Status

FORMATS = (".json", ".toml", ".csv")


def target_of(method: Method, density: float | None, space: SearchSpace, given: Densities | None) -> Densities | int:
    """What the method is to arrive at: the given densities, or a number of weights.

    Args:
        method: dense takes neither a density nor densities; others take one of the two.
        density: fraction of all prunable weights.
        space: of the network.
        given: kept weights per layer.

    Raises:
        InputError: for a missing, superfluous or impossible density, or layers that the method does not take.
    """
    total = space.total_weights
    if method.allocation == "dense":
        if density not in (None, 1) or given is not None:
            asked = "densities are given" if given is not None else f"density is {density}"
            raise InputError(
                f"method 'dense' keeps every weight, but {asked}; leave {'them' if given is not None else 'it'} out"
            )
        return total
    if method.offset != "none":
        require_offsets(space.build(generator=torch.Generator().manual_seed(0)), space.layers)
    if given is not None:
        if density is not None:
            raise InputError(f"density is {density}, but densities are given for each layer; leave one of the two out")
        _require_pinned(given, space)
        return given
    if density is None:
        raise InputError(f"method {method.name!r} needs a density; give --density F with 0 < F <= 1")
    kept = kept_from_density(density, total)
    make_goal(space, method, kept).require_reachable()
    return kept


def _require_pinned(given: Densities, space: SearchSpace) -> None:
    """Raise InputError if the given densities contradict a layer that the space pins."""
    for layer, kept in zip(space.layers, given.kept, strict=True):
        pinned = space.pinned.get(layer.name)
        if pinned is not None and kept != kept_from_density(pinned, layer.total):
            raise InputError(
                f"layer {layer.name!r} is pinned at density {pinned:g}, but {kept} of its {layer.total} weights are "
                "given; give it that density, or do not pin it"
            )


def enter(
    registry: Registry, bench: Bench, method: str, target: Densities | int, *, seed: int, name: str | None
) -> Entry:
    """Store the baseline as a row, or return the row that it has already."""
    return registry.add_entry(describe_baseline(bench, method, target, seed=seed, name=name))


def describe_baseline(
    bench: Bench, method: str, target: Densities | int, *, seed: int, name: str | None = None
) -> Entry:
    """The baseline as a row that is not stored yet. Equal settings give equal keys.

    Args:
        bench: that its networks are trained on.
        method: text that names it.
        target: from `target_of`.
        seed: of everything random.
        name: of the row; None: from method and density.
    """
    recipe = open_method(method)
    recipe.total_epochs(bench.task.rule.epochs)  # raises where they are too few
    total = bench.space.total_weights
    given = target if isinstance(target, Densities) else None
    kept = target.kept_weights if isinstance(target, Densities) else target
    identity = [
        bench.space.describe(),
        bench.describe_dataset(),
        bench.describe_rule(),
        recipe.name,
        kept,
        seed,
        name,
        *([given.kept] if given else []),
    ]
    return Entry(
        key="prune " + json.dumps(identity),
        name=name or f"{recipe.name}-{kept / total:.3g}" + ("-given" if given else ""),
        kind="baseline",
        method=recipe.name,
        space=bench.space.describe(),
        dataset=bench.describe_dataset(),
        rule=bench.describe_rule(recipe),
        mask_rule=recipe.name,
        seed=seed,
        kept_weights=kept,
        total_weights=total,
        environment=bench.environment,
        kept=given.counts if given else {},
    )


def read_densities(source: str | int | Path | Mapping[str, Any], space: SearchSpace, registry: Registry) -> Densities:
    """Densities per layer from a row of the leaderboard, a file, or a mapping.

    Args:
        source: id of a row; a .json, .toml or .csv file with layer -> density (as `snas show --format json` writes
            them, or a list in the order of the layers, or two columns); or such a mapping.
        space: whose layers they are for.
        registry: where rows are.

    Raises:
        InputError: if the source cannot be read, or does not have one density for each layer of the space.
    """
    if isinstance(source, Mapping):
        return read_values(source, space, "densities")
    text = str(source)
    if is_row(text):
        return Densities(space.layers, read_row(text, registry, space=space)[1].kept)
    return read_values(read_file(Path(text)), space, text)


def is_row(text: str) -> bool:
    """Whether a text is the id of a row, and no file.

    Example:
        >>> is_row("12"), is_row("12.csv")
        (True, False)
    """
    return text.isdecimal() and len(text) < 20


def read_row(text: str, registry: Registry, *, space: SearchSpace | None = None) -> tuple[Entry, Densities]:
    """A row of the leaderboard and its densities, of its own layers.

    Args:
        text: id of the row.
        registry: where it is.
        space: whose layers they have to be of; None: of any.

    Raises:
        InputError: if there is no such row, or its densities are not known, are of other layers, may change, or leave a
            layer empty.
    """
    entry = registry.find_entry(int(text))
    if entry.cited:
        raise InputError(f"row {text} is a published figure, whose densities per layer are not known; choose another")
    runs = registry.runs(require_whole(entry))
    recorded = densities_of(entry, runs)
    if space is not None and not recorded.are_of(space.layers):
        raise InputError(
            f"row {text} is of space {entry.space['name']!r}, whose layers are not those of {space.name!r}; "
            f"snas transfer {text} carries densities over"
        )
    if recorded.kept_weights == 0:
        raise InputError(f"row {text} has no densities yet; train it first: snas train {text}")
    if _may_change(entry, runs):
        raise InputError(
            f"row {text} trains with a mask that moves ({entry.method}), and none of its seeds is finished; its "
            f"densities may change until then: snas train {text}"
        )
    if recorded.empty_layers:
        raise InputError(f"row {text} keeps nothing of layer {recorded.empty_layers[0]!r}; choose another row")
    return entry, recorded


def rule_of(entry: Entry) -> tuple[str, str]:
    """The mask rule and the training rule that a row has beside its densities.

    Methods whose densities are all that tells them from random masks are "random"; a movement that takes weights from
    layer to layer has no part in it.
    """
    text = entry.mask_rule if entry.kind == "searched" else entry.method
    mask, joined, train = text.partition(JOINED)
    if joined or entry.kind == "searched":
        return mask, train or "static"
    method, plain = open_method(text), methods.get("random")
    if method.movement:
        return plain.name, method.name if movements.get(method.movement).keeps_layers else "static"
    alike = replace(method, name=plain.name, help=plain.help, allocation=plain.allocation) == plain
    return plain.name if alike else method.name, "static"


def _may_change(entry: Entry, runs: Sequence[TrainingRecord]) -> bool:
    """Whether the row's densities are those of a training that has not ended, and may end with others."""
    if entry.kind != "baseline" or any(run.status is Status.FINISHED for run in runs):
        return False
    return open_method(entry.method).movement != ""


def read_file(path: Path, *, what: str = "densities-from", choices: str = "") -> Any:
    """What a file of densities holds; `read_values` makes densities of it.

    Args:
        path: a .json, .toml or .csv file.
        what: names the setting in errors.
        choices: of the setting, beside rows and files.

    Raises:
        InputError: if it cannot be read.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"{what} is {str(path)!r}; expected {choices}the id of a row, or a file: {', '.join(FORMATS)}")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text)
        if path.suffix == ".toml":
            return tomllib.loads(text)
        return _read_csv(text, path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no valid {path.suffix[1:]} file: {error}") from error


def _read_csv(text: str, path: Path) -> dict[str, Any]:
    """Two columns: layer and density; a header is allowed."""
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if rows and len(rows[0]) == 2 and rows[0][1].strip().lower() == "density":
        rows = rows[1:]
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise InputError(f"{path}: row {number} has {len(row)} columns; expected layer,density")
    names = [row[0].strip() for row in rows]
    require_different(f"{path}: layer", names)
    return {name: row[1].strip() for name, row in zip(names, rows, strict=True)}


def read_values(values: Any, space: SearchSpace, what: str) -> Densities:
    """Densities of a space's layers from what a file holds, or a mapping; errors name them as `what`.

    Raises:
        InputError: if there is not one density for each layer of the space.
    """
    for key in ("layers", "densities"):
        if isinstance(values, Mapping) and isinstance(values.get(key), (Mapping, list)):
            values = values[key]
    names = [layer.name for layer in space.layers]
    if isinstance(values, list):
        if len(values) != len(names):
            raise InputError(f"{what} has {len(values)} densities; space {space.name!r} has {len(names)} layers")
        values = dict(zip(names, values, strict=True))
    if not isinstance(values, Mapping):
        raise InputError(f"{what} holds {type(values).__name__}; expected layer -> density, or a list of densities")
    unknown = [name for name in values if name not in names]
    missing = [name for name in names if name not in values]
    if unknown or missing:
        wrong = f"has unknown layer {unknown[0]!r}" if unknown else f"has no density for layer {missing[0]!r}"
        raise InputError(f"{what} {wrong}; layers of space {space.name!r}: {', '.join(names)}")
    counts = {
        layer.name: _count(values[layer.name], layer.total, f"{what}: density of layer {layer.name!r}")
        for layer in space.layers
    }
    return Densities.from_counts(space.layers, counts)


def _count(value: Any, total: int, what: str) -> int:
    """Kept weights from a density, or from {"kept": ..., "total": ...}."""
    if isinstance(value, Mapping):
        kept = value.get("kept")
        if not isinstance(kept, int) or isinstance(kept, bool) or not 0 < kept <= total:
            raise InputError(f"{what} keeps {kept!r} of {total} weights; expected 1 to {total}")
        if value.get("total", total) != total:
            raise InputError(f"{what} is of {value['total']!r} weights; that layer has {total} here")
        return kept
    try:
        density = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise InputError(f"{what} is {value!r}; expected 0 < density <= 1") from None
    return max(1, kept_from_density(check_density(density, what), total))
