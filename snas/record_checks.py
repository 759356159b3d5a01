"""Is what a registry's row holds what this program writes? A registry may be damaged, or come from somebody else.

What is checked is all that readers rely on, so that a row that was tampered with is one line and not a traceback. Names
stay texts whatever they say: who runs code or opens files by them asks the user (`snas.commands.require_known`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snas.records import Entry

LONGEST = 10_000  # characters of a name, and items of a list or object
MOST_WEIGHTS = 2**53

_RULE: dict[str, type | tuple[type, ...]] = {
    "epochs": int,
    "batch_size": int,
    "lr": (int, float),
    "optimizer": str,
    "weight_decay": (int, float),
    "schedule": str,
    "label_smoothing": (int, float),
    "augment": str,
    "precision": str,
    "initialization": str,
    "rescale": str,
    "first_layer": str,
    "last_layer": str,
    "epoch_rule": str,
    "weights": str,
}
_TRAINED = ("initialization", "rescale", "first_layer", "last_layer", "epoch_rule", "weights", "lr", "batch_size")


def parse(text: Any, what: str) -> Any:
    """The JSON of a column.

    Raises:
        ValueError: if it is none, or nested too deeply, or has numbers that are NaN or infinite.
    """
    if not isinstance(text, str):
        raise ValueError(f"{what} is {_told(text)}; expected a text")
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{what} is no JSON ({error})") from None


def parse_object(text: Any, what: str) -> dict[str, Any]:
    """The JSON object of a column; raises ValueError for anything else."""
    value = parse(text, what)
    _require(isinstance(value, dict) and len(value) <= LONGEST, what, value, "an object")
    return dict(value)


def check_entry(values: Mapping[str, Any]) -> None:
    """Raise ValueError if a column of a row of the leaderboard, JSON read, has another type than we write."""
    _require(values["kind"] in ("searched", "baseline", "cited"), "kind", values["kind"], "searched, baseline or cited")
    for name in ("key", "name", "method", "strategy", "mask_rule", "source", "created"):
        _text(values[name], name, longest=None if name == "key" else LONGEST)
    for name in ("seed", "kept_weights", "total_weights", "search_epochs", "superseded"):
        _whole(values[name], name)
    for name in ("candidate", "study_id", "cited_seeds"):
        if values[name] is not None:
            _whole(values[name], name)
    for name in ("cited_density", "cited_accuracy", "cited_std"):
        if values[name] is not None:
            _number(values[name], name, 0, 1)
    _number(values["search_seconds"], "search_seconds", 0, math.inf)
    check_counts(values["kept"], "kept")


def check_whole(entry: Entry) -> None:
    """Raise ValueError unless a row of the leaderboard has all that figures are made of."""
    measured = not entry.cited
    if measured:
        kept, total = entry.kept_weights, entry.total_weights
        _require(0 < kept <= total, "kept_weights", kept, f"1 to {total}")
    check_dataset(entry.dataset, measured=measured)
    check_rule(entry.rule, measured=measured)
    check_space(entry.space, measured=measured)
    if entry.kept:
        names = {layer["name"] for layer in entry.space["layers"]}
        _require(entry.kept.keys() == names, "kept", entry.kept, "a number for each layer")


def check_identity(identity: Mapping[str, Any]) -> None:
    """Raise ValueError unless what must not change of a study has what its candidates are told apart by."""
    space, dataset, rule, asha = (_part(identity, name) for name in ("space", "dataset", "rule", "asha"))
    _text(space.get("name"), "name of the space")
    for name in ("fingerprint", "train", "validation"):
        _require(name in dataset, f"{name} of the data set", None, "a value")
    _text(dataset.get("name"), "name of the data set")
    _whole(rule.get("epochs"), "epochs of the training", 1, 10**9)
    _whole(asha.get("grace"), "grace", 1)
    _whole(asha.get("eta"), "eta", 2)
    for name in ("budget", "pins", "shapes", "strategy"):
        if identity.get(name) is not None:
            _part(identity, name)
    if identity.get("strategy") is not None:
        _text(identity["strategy"].get("name"), "name of the strategy")
        _part(identity["strategy"], "arguments")
    if "mask" in identity:
        _text(identity["mask"], "mask")
    objectives = identity.get("objectives", [])
    _require(isinstance(objectives, list), "objectives", objectives, "a list")
    for name in objectives:
        _text(name, "objective")


def check_space(space: Any, *, measured: bool = True) -> None:
    """The same for a recorded space; of a published figure only name and arguments are known."""
    _require(isinstance(space, dict), "space", space, "an object")
    _text(space.get("name"), "name of the space")
    arguments = _part(space, "arguments")
    for name, value in arguments.items():
        plain = value is None or isinstance(value, (str, int, float))
        _require(plain, f"argument {name[:40]!r} of the space", value, "a plain value")
    if "classes" in space:
        _whole(space["classes"], "classes", 1)
    if not measured:
        return
    _text(space.get("network"), "network")
    shape = space.get("input_shape", [])
    _require(isinstance(shape, list), "input_shape", shape, "a list")
    for size in shape:
        _whole(size, "input_shape", 1)
    layers = space.get("layers")
    _require(isinstance(layers, list) and len(layers) <= LONGEST, "layers", layers, "a list")
    total = 0
    for layer in layers or ():
        _require(isinstance(layer, dict), "layer", layer, "an object")
        for name in ("name", "parameter", "block"):
            _text(layer.get(name), f"{name} of a layer")
        _whole(layer.get("positions"), "positions of a layer", 1)
        size = layer.get("shape")
        _require(isinstance(size, list) and 0 < len(size) <= 10, "shape of a layer", size, "a list")
        for extent in size:
            _whole(extent, "shape of a layer", 1)
        total += math.prod(size)
    _require(0 < total <= MOST_WEIGHTS, "number of weights", total, f"1 to {MOST_WEIGHTS}")
    names = [layer["name"] for layer in layers or ()]
    _require(len(set(names)) == len(names), "layers", names, "different names")


def check_dataset(dataset: Any, *, measured: bool = True) -> None:
    """The same for recorded data."""
    _require(isinstance(dataset, dict), "dataset", dataset, "an object")
    _text(dataset.get("name"), "name of the data set")
    if measured:
        for name in ("fingerprint", "split"):
            _text(dataset.get(name), f"{name} of the data set")
        for name in ("train", "validation", "test"):
            _whole(dataset.get(name), f"{name} examples of the data set")


def check_rule(rule: Any, *, measured: bool = True) -> None:
    """The same for a recorded training rule; of a published figure the length alone is known."""
    _require(isinstance(rule, dict), "rule", rule, "an object")
    for name, kind in _RULE.items():
        if name in rule:
            value = rule[name]
            fits = isinstance(value, kind) and not isinstance(value, bool)
            _require(fits, f"{name} of the training", value, "another type")
    _whole(rule.get("epochs"), "epochs of the training", 1 if measured else 0, 10**9)
    if measured:
        for name in _TRAINED:
            _require(name in rule, f"{name} of the training", None, "a value")


def check_counts(kept: Any, what: str) -> None:
    """The same for numbers of kept weights by layer."""
    _require(isinstance(kept, dict), what, kept, "an object")
    for value in kept.values():
        _whole(value, what)


def check_training(values: Mapping[str, Any]) -> None:
    """The same for one network in training, JSON read."""
    for name in ("number", "seed", "repeat"):
        _whole(values[name], name)
    for name in ("reason", "mask_checksum"):
        if values[name] is not None:
            _text(values[name], name)
    if values["test_accuracy"] is not None:
        _number(values["test_accuracy"], "test_accuracy", 0, 1)
    loss = values["test_loss"]  # was filed infinite in the past
    _require(loss is None or isinstance(loss, (int, float)), "test_loss", loss, "a number")
    check_counts(values["kept"], "kept")
    point = values["point"]
    if point is not None:
        _require(isinstance(point, list) and len(point) <= LONGEST, "point", point, "a list")
        for coordinate in point:
            _number(coordinate, "point", 0, 1)
    for name in ("origin", "rule"):
        if name in values["traits"]:
            _text(values["traits"][name], name)
    if "shape" in values["traits"]:
        _part(values["traits"], "shape")
    for name, value in values["signals"].items():
        _number(value, f"signal {name[:40]!r}", -math.inf, math.inf)


def check_report(values: Mapping[str, Any]) -> None:
    """The same for one epoch."""
    _whole(values["epoch"], "epoch", 1)
    for name, value in values.items():
        if name != "epoch":
            _number(value, name, -math.inf, math.inf)


def _part(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = values.get(name)
    _require(isinstance(value, dict) and len(value) <= LONGEST, name, value, "an object")
    return dict(value or {})


def _text(value: Any, what: str, *, longest: int | None = LONGEST) -> None:
    _require(isinstance(value, str) and (longest is None or len(value) <= longest), what, value, "a text")


def _whole(value: Any, what: str, low: int = 0, high: int = 2**63 - 1) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    _require(whole and low <= value <= high, what, value, f"an integer of at least {low}")


def _number(value: Any, what: str, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    _require(number and math.isfinite(value) and low <= value <= high, what, value, "a finite number")


def _require(good: bool, what: str, value: Any, expected: str) -> None:
    if not good:
        raise ValueError(f"{what} is {_told(value)}; expected {expected}")


def _told(value: Any) -> str:
    """The value, where it is short."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    text = repr(value[:100] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= 60 else f"a long {type(value).__name__}"


def _no_constant(text: str) -> None:
    raise ValueError(f"it has {text}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it has {text[:20]}")
    return value
