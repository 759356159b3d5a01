"""Ways to get a sparse network, by name: how weights are scored, shared out, initialized, and moved in training.

A name may carry settings of its own, `name:key=value:key=value`, as in "snip:target=uniform" or "rigl:every=50".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from snas.errors import InputError
from snas.initialization import require_rule
from snas.plugins import Family, bind_arguments
from snas.pruning.dynamic.base import Movement, movements
from snas.pruning.goal import Control
from snas.pruning.scores import Target, scores

Isometry = Literal["none", "frobenius", "spectral"]
Offset = Literal["none", "dct"]
JOINED = " + "
WITHOUT_DATA = ("random", "magnitude", "synflow")  # scores


@dataclass(frozen=True)
class Method:
    """A way to get a sparse network.

    Attributes:
        name: how results are filed.
        score: name of the score that chooses the weights within their layers.
        allocation: how many weights each layer keeps: "given" by the caller, "global" (the best scores of all layers
            together), "dense" (all), or a name of `snas.pruning.allocations.allocations`.
        initialization: rule for the initial weights; None takes the caller's.
        nonlinearity: what gives the initial weights their gain; None takes the space's. LDI has "linear", that is
            gain 1, as published: eq. 4.8 asks for singular values of 1 whatever the nonlinearity.
        isometry: bring the kept weights near to isometry in this norm, in place of rescaling them.
        rescale: scale the kept weights by their unit's masked fan-in, unless the caller decides. Right for masks that
            do not look at the weights; one that keeps large weights has more variance left than the fan-in says, and
            the published methods train the very weights that they scored.
        help: one line for the user.
        iterations: how often weights are scored and pruned, to densities that fall exponentially.
        revive: whether pruned weights compete again in the next iteration.
        guarded: whether iterations are cut so fine that no layer is emptied where that can be avoided.
        examples: how many training examples scores are computed from; 0: all.
        passes: how often a short training goes through the examples while weights are scored and pruned
            (`snas.pruning.early`); it ends at the initial weights again, and only its mask is kept. 0: none.
        target: what the loss behind the scores compares the output with.
        control: "shuffle" the mask within each layer, "redraw" the kept weights, "invert" the scores.
        offset: a fixed dense transform that layers have beside their sparse weights.
        movement: name of what moves the mask in training; "" for a fixed mask.
        options: of the movement.
    """

    name: str
    score: str
    allocation: str
    initialization: str | None = None
    nonlinearity: str | None = None
    isometry: Isometry = "none"
    rescale: bool = False
    help: str = ""
    iterations: int = 1
    revive: bool = False
    guarded: bool = False
    examples: int = 128  # [Lee2019] section 3.5: 100 for MNIST, 128 for CIFAR
    passes: int = 0
    target: Target = "labels"
    control: Control = "none"
    offset: Offset = "none"
    movement: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def starts_dense(self) -> bool:
        """Whether training starts with all weights."""
        return self.allocation == "dense" or (self.movement != "" and movements.get(self.movement).starts_dense)

    def total_epochs(self, epochs: int) -> int:
        """Epochs that one network takes where the training rule has `epochs`: those that rewind take several lengths.

        Raises:
            InputError: if the rule has too few for the movement's options.

        Example:
            >>> open_method("rigl").total_epochs(10), open_method("imp:rounds=3").total_epochs(10)
            (10, 40)
        """
        mover = self.make_movement()
        return mover.total_epochs(epochs) if mover else epochs

    def make_movement(self) -> Movement | None:
        """A new object that moves one network's mask; None for a fixed mask."""
        return movements.get(self.movement)(**self.options) if self.movement else None


methods: Family[Method] = Family("method", group="snas.methods", modules=("snas.pruning.library",))


def open_method(text: str) -> Method:
    """The method that `text` names, with its settings.

    Args:
        text: "name" or "name:key=value:key=value". Keys are those of `_adjust` below, and the options of what moves
            the method's mask. "mask + training", as in "snip + rigl:every=50", starts with the mask of one method
            and moves it as another does.

    Raises:
        InputError: for an unknown name, key or value, and a mask that cannot be moved.

    Example:
        >>> method = open_method("snip:target=uniform:examples=0")
        >>> method.name, method.target, method.examples
        ('snip:examples=0:target=uniform', 'uniform', 0)
    """
    mask, moves, train = text.partition(JOINED)
    if moves:
        return _moving(open_method(mask), open_training(train))
    name, *settings = re.split(r":(?=[^:]*=)", text)  # a value may hold a colon: initialization=normal:0.01
    method = methods.get(name)
    if not settings:
        return method
    given = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key or not value:
            raise InputError(f"method {text!r}: {setting!r} is no setting; expected name:key=value:key=value")
        key = key.replace("-", "_")
        if key in given:
            raise InputError(f"method {text!r} sets {key} twice; give it once")
        given[key] = value
    return _with_settings(method, given)


def given_densities(rule: str) -> Method:
    """The method that keeps given numbers of weights per layer, chosen as `rule` does.

    Args:
        rule: a method's name, or a score's; with " + " and the name of a movement behind it, as in "random + rigl",
            the mask moves in training, and its layers keep their numbers.

    Raises:
        InputError: for an unknown rule, one that keeps everything or moves its mask by itself, and a movement that
            does not keep the numbers.

    Example:
        >>> given_densities("snip + rigl:every=50").options
        {'every': 50}
    """
    rule, moves, train = rule.partition(JOINED)
    if moves:
        return _moving(given_densities(rule), open_training(train))
    known = rule.partition(":")[0] in methods.names()
    if not known:
        if rule not in scores.names():
            choices = sorted({*scores.names(), *static_names()})
            near = difflib.get_close_matches(rule, choices, n=1)
            hint = f" did you mean {near[0]!r}?" if near else ""
            raise InputError(f"unknown mask rule {rule!r};{hint} choices: {', '.join(choices)}")
        return Method(rule, rule, "given")
    method = open_method(rule)
    if method.allocation == "dense" or method.movement:
        raise InputError(
            f"mask rule {rule!r} does not choose a fixed mask; choose one that does, such as random or snip"
        )
    if method.score == "random" and method == methods.get(rule) and method.offset == "none":
        method = methods.get("random")  # without their allocation nothing is left that tells them apart
    return replace(method, allocation="given")


def open_training(text: str) -> Method:
    """The method whose movement trains at given densities: "set", or "rigl:every=50".

    Raises:
        InputError: for an unknown one, one that moves weights from layer to layer, and settings of anything else.
    """
    name = text.partition(":")[0]
    keeping = [known for known in movements.names() if movements.get(known).keeps_layers]
    if name not in keeping or name not in methods.names():
        raise InputError(f"unknown training rule {name!r}; choices: static, {', '.join(keeping)}")
    method = open_method(text)
    if replace(method, options={}, name=name) != replace(methods.get(name), options={}):
        raise InputError(f"training rule {text!r} sets more than how the mask moves; leave that to the mask rule")
    return method


def _moving(static: Method, mover: Method) -> Method:
    """The method with another's movement."""
    if static.allocation == "dense" or static.movement:
        raise InputError(f"mask rule {static.name!r} does not choose a fixed mask to begin with; choose random or snip")
    if static.offset != "none":
        raise InputError(
            f"mask rule {static.name!r} has a fixed offset beside its weights; a mask that moves takes none"
        )
    joined = join_rules(static.name, mover.name)
    return replace(static, name=joined, movement=mover.movement, options=mover.options)


def join_rules(mask: str, train: str) -> str:
    """One text for a mask rule and a training rule.

    Example:
        >>> join_rules("snip", "static"), join_rules("random", "rigl")
        ('snip', 'random + rigl')
    """
    return mask if train == "static" else f"{mask}{JOINED}{train}"


def static_names() -> list[str]:
    """The methods that choose a mask before training and keep it."""
    chosen = [(name, methods.get(name)) for name in methods.names()]
    return [name for name, method in chosen if method.allocation != "dense" and not method.movement]


def _adjust(
    *,
    score: str,
    allocation: str,
    iterations: int,
    examples: int,
    passes: int,
    target: Target,
    control: Control,
    initialization: str,
    isometry: Isometry,
    rescale: bool,
) -> None:
    """What a method's text may set; see `Method`."""


def _with_settings(method: Method, given: Mapping[str, str]) -> Method:
    """The method with settings from its text, under a name that tells those that change it, each in one spelling."""
    mover = movements.get(method.movement) if method.movement else None
    moving = {key: value for key, value in given.items() if mover and key in mover.__dataclass_fields__}  # type: ignore[attr-defined]
    own = {key: value for key, value in given.items() if key not in moving}
    what = f"method {method.name!r}"
    changes = bind_arguments(_adjust, own, what=what) if own else {}
    usual = {key: getattr(method, key) for key in changes}
    options = dict(method.options)
    chosen: dict[str, Any] = {}
    if mover is not None and moving:
        chosen = bind_arguments(mover, moving, what=what)
        usual |= {item.name: item.default for item in fields(mover) if item.name in chosen} | options  # type: ignore[arg-type]
        options |= chosen
        mover(**options)
    if "score" in changes:
        scores.get(changes["score"])
    if "initialization" in changes:
        require_rule(changes["initialization"])
    for key, low in (("iterations", 1), ("examples", 0), ("passes", 0)):
        if changes.get(key, low) < low:
            raise InputError(f"{what}: {key} is {changes[key]}; expected an integer of at least {low}")
    told = {key: value for key, value in (changes | chosen).items() if value != usual[key]}
    filed = ":".join([method.name, *(f"{key}={told[key]}" for key in sorted(told))])
    adjusted = replace(method, **changes, options=options, name=filed)
    if adjusted.allocation in ("given", "dense") and "allocation" in changes:
        raise InputError(f"{what}: allocation {adjusted.allocation!r} cannot be set; --densities-from gives densities")
    if adjusted.allocation not in ("global", "given", "dense"):
        from snas.pruning.allocations import allocations

        allocations.get(adjusted.allocation)
    if adjusted.control == "redraw" and "rewind" in options:
        raise InputError(f"{what} rewinds its weights itself; instead of control=redraw set rewind=redraw")
    if adjusted.passes and adjusted.revive:
        raise InputError(f"{what} lets weights come back, which no training has learnt; leave passes out")
    for reason, idle in _without_effect(adjusted):
        for setting in (*changes, f"control={adjusted.control}"):
            if setting in idle:
                raise InputError(f"{what} {reason}, on which {setting} has no effect; leave it out")
    return adjusted


def _without_effect(method: Method) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Settings that would change a method's name and nothing else, which a table would show as a finding; and why."""
    if method.allocation == "dense":
        keys = ("score", "iterations", "examples", "passes", "target", "rescale", "control=shuffle")
        yield "keeps all weights", (*keys, "control=invert", "control=redraw")
    elif method.starts_dense:  # what examples a score takes later is an option of the movement
        yield "starts with all weights", ("iterations", "examples", "passes", "target", "rescale", "control=redraw")
    elif method.offset != "none":
        keys = ("score", "iterations", "initialization", "isometry", "rescale", "control=redraw", "control=invert")
        yield "starts with sparse weights of zero", keys
    elif method.isometry != "none":
        yield "is followed by approximate isometry", ("rescale",)
    if method.score == "random":
        yield "has random scores", ("control=invert", "passes")
    if method.score in WITHOUT_DATA:
        idle = ("target",) if method.passes else ("examples", "target")
        yield f"has the score {method.score!r}, which looks at no data", idle
