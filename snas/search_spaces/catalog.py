"""Open a search space by what a user typed: a registered name, or the place of code of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from snas.errors import InputError
from snas.plugins import bind_arguments
from snas.search_spaces.base import SearchSpace, spaces


def open_space(
    name: str,
    *,
    input_shape: Sequence[int],
    classes: int,
    arguments: Mapping[str, Any] | None = None,
    representation: str | None = None,
    first_layer: str = "search",
    last_layer: str = "search",
) -> SearchSpace:
    """Return the space called `name`, for data of the given shape.

    Args:
        name: a registered space ("resnet32"), or code of the user's own: "module:factory" or "path/to/file.py:factory"
            (see `snas.search_spaces.custom`).
        input_shape: shape of one example of the data.
        classes: number of classes of the data.
        arguments: of the space; text (as a command line has it) is converted to the types of the space's parameters.
        representation: one coordinate per "layer", per "block", or one for all ("uniform"); None: the space's own.
        first_layer: "search" its density, or keep it "dense".
        last_layer: the same for the last layer.

    Raises:
        InputError: for an unknown space, argument or option, code that cannot be loaded or raises, and a space that
            does not take the data.

    Example:
        >>> space = open_space("mlp", input_shape=(64,), classes=10, arguments={"hidden-layers": "2"})
        >>> [layer.shape for layer in space.layers]
        [(68, 64), (68, 68), (10, 68)]
    """
    shape = tuple(input_shape)
    if ":" in name:
        from snas.search_spaces.custom import open_custom

        space = open_custom(name, input_shape=shape, classes=classes, arguments=arguments or {})
    else:
        space = _open_registered(name, shape, classes, arguments or {})
    require_fit(space, shape, classes)
    return space.with_options(representation=representation, first_layer=first_layer, last_layer=last_layer)


def require_fit(space: SearchSpace, input_shape: tuple[int, ...], classes: int) -> None:
    """Raise InputError unless the space takes examples of this shape and tells this many classes apart."""
    if space.input_shape != input_shape:
        raise InputError(
            f"space {space.name!r} takes examples of shape {space.input_shape}; the data has shape {input_shape}"
        )
    if space.classes < classes:
        raise InputError(f"space {space.name!r} tells {space.classes} classes apart; the data has {classes}")


def _open_registered(
    name: str, input_shape: tuple[int, ...], classes: int, arguments: Mapping[str, Any]
) -> SearchSpace:
    try:
        factory = spaces.get(name)
    except InputError as error:
        raise InputError(f"{error}; or code of your own: module:factory or path/to/file.py:factory") from None
    bound = bind_arguments(factory, arguments, what=f"space {name!r}")
    # Only what was given is filed: it names the space in tables, and the network's fingerprint holds the rest.
    return replace(factory(input_shape, classes, **bound), arguments=bound)
