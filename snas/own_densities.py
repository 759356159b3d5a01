"""How pruning methods share the weights themselves, as places where a search begins.

A method that scores weights of all layers together (SNIP, SynFlow, early tickets) chooses densities too, and those may
be far from every formula: at 5 per cent SNIP gives the first stage of a ResNet three times what ERK does, and the last
a quarter. A search that begins with the formulas alone would have to find that by itself.

Only densities are measured; the mask of every candidate is chosen anew by its own rule. A layer that the method leaves
empty gets what the budget has as its least, so that a search can start from densities of a network that is refused.
"""

from __future__ import annotations

from snas.budget import Budget
from snas.errors import InputError, SnasError
from snas.pruning.methods import Method, methods, open_method
from snas.seeds import Stream, derive
from snas.training.task import Task
from snas.warm_starts import Source


def read_methods(text: str | None) -> tuple[Method, ...]:
    """The methods that a warm start names, with commas between; none where it names something else.

    Raises:
        InputError: for one that keeps everything or moves its mask, one that is given twice, or one among other things.

    Example:
        >>> [method.name for method in read_methods("snip,early-ticket:passes=2")], read_methods("rules")
        (['snip', 'early-ticket:passes=2'], ())
    """
    names = [] if text is None else [name.strip() for name in text.split(",")]
    known = [name.partition(":")[0] in methods.names() for name in names]
    if not any(known):
        return ()
    if not all(known):
        raise InputError(f"warm-start has {names[known.index(False)]!r} among methods; give one of them or the others")
    found = [open_method(name) for name in names]
    for method in found:
        if method.allocation == "dense" or method.movement:
            raise InputError(
                f"warm-start is {method.name!r}, which does not choose a fixed mask; choose snip or synflow"
            )
    names = [method.name for method in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"warm-start names {twice[0]!r} twice; give it once")
    return tuple(found)


def measure_own(method: Method, task: Task, *, seed: int) -> Source:
    """The densities that a method has in the largest network of the budget.

    Args:
        method: that chooses a fixed mask.
        task: whose space has the budget.
        seed: the study's.

    Raises:
        InputError: without a budget, and if the method cannot share out its weights.
    """
    space = task.space
    if space.scale is None:
        raise InputError(f"warm-start {method.name} needs a budget, such as --density 0.05")
    limits = space.limits or Budget().limits(space.layers, space.pinned)
    try:
        own = task.own_densities(method, limits.most, seed=derive(seed, Stream.START))
    except SnasError as error:
        raise InputError(f"warm-start {method.name}: {error}") from error
    wish = [max(kept, 1) for kept in own.kept]
    return Source(method.name, limits.project(wish, limits.most), rule=method.name, arguments=space.arguments)
