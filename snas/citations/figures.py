"""One published figure, checked, and what the registry makes of it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, fields

from snas.densities import check_density
from snas.errors import InputError
from snas.records import Entry

REQUIRED = ("space", "dataset", "method", "density", "accuracy", "source")
LONGEST = 500
_SPACE = re.compile(r"(?P<name>[^()]+?)(?: \((?P<arguments>[^()]+)\))?")
_AGREE = 1.2  # printed counts are rounded, and some papers' do not fit their own sparsity; a mix-up is farther off


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A figure that somebody published: how well a sparse network did, and where that is printed.

    Attributes:
        space: network, named as the leaderboard shows it: "lenet-5-caffe", "mlp-tanh (layers=3)".
        dataset: data set, named as in `snas list datasets`.
        method: how it was pruned.
        density: fraction of the weights that was kept, 0 < density <= 1.
        accuracy: on the test data, a fraction in [0, 1].
        std: standard deviation of the accuracy over seeds, a fraction; None where it is not told, like what follows.
        seeds: number of runs behind the mean.
        epochs: training length.
        total_weights: weights of the dense network.
        kept_weights: weights kept.
        source: paper and table.

    Raises:
        InputError: for a text that is empty, a number out of range, or counts that contradict the density.

    Example:
        >>> Citation(
        ...     space="lenet-300-100", dataset="mnist", method="snip", density=0.05, accuracy=0.984, source="Table 3.1"
        ... ).density
        0.05
    """

    space: str
    dataset: str
    method: str
    density: float
    accuracy: float
    std: float | None = None
    seeds: int | None = None
    epochs: int | None = None
    total_weights: int | None = None
    kept_weights: int | None = None
    source: str

    def __post_init__(self) -> None:
        for name in ("space", "dataset", "method", "source"):
            _check_text(name, getattr(self, name))
        split_space(self.space)
        check_density(self.density, "density")
        _check_fraction("accuracy", self.accuracy)
        if self.std is not None:
            _check_fraction("std", self.std)
        for name in ("seeds", "epochs", "total_weights", "kept_weights"):
            value = getattr(self, name)
            if value is not None and not 1 <= value < 2**63:
                raise InputError(f"{name} is {value}; expected a whole number of at least 1, or nothing")
        self._check_counts()

    def _check_counts(self) -> None:
        if self.total_weights is None or self.kept_weights is None:
            return
        if self.kept_weights > self.total_weights:
            raise InputError(
                f"kept_weights is {self.kept_weights}; expected at most total_weights {self.total_weights}"
            )
        counted = self.kept_weights / self.total_weights
        if not 1 / _AGREE <= counted / self.density <= _AGREE:
            raise InputError(
                f"density is {self.density:g}; expected about kept_weights / total_weights = {counted:.3g} "
                "(density is the fraction kept, 1 - sparsity)"
            )

    @property
    def key(self) -> str:
        """What makes it the same figure when it is given again, perhaps corrected."""
        return "cited " + json.dumps([self.space, self.dataset, self.method, self.density, self.source])


HEADER = tuple(field.name for field in fields(Citation))


def split_space(space: str) -> tuple[str, dict[str, str]]:
    """Parse a space's name and its arguments.

    Raises:
        InputError: unless it is "name" or "name (key=value, key=value)".

    Example:
        >>> split_space("mlp-tanh (layers=3, width=100)")
        ('mlp-tanh', {'layers': '3', 'width': '100'})
    """
    found = _SPACE.fullmatch(space)
    pairs = [] if found is None or not found["arguments"] else found["arguments"].split(", ")
    arguments = dict(pair.split("=", 1) for pair in pairs if re.fullmatch(r"[^=\s]+=[^,]+", pair))
    if found is None or len(arguments) != len(pairs):
        raise InputError(f"space is {space!r}; expected a name, or a name and its arguments: 'mlp (width=64, skip=no)'")
    return found["name"], arguments


def as_entry(citation: Citation) -> Entry:
    """The figure as an entry of the registry: no layers, no rule but its length, no environment, 0 for what is unknown.

    Example:
        >>> figure = Citation(space="vgg-c", dataset="cifar10", method="snip", density=0.05, accuracy=0.9, source="[1]")
        >>> as_entry(figure).kind, as_entry(figure).kept_weights
        ('cited', 0)
    """
    name, arguments = split_space(citation.space)
    return Entry(
        key=citation.key,
        name="published",
        kind="cited",
        method=citation.method,
        space={"name": name, "arguments": arguments, "network": "", "layers": []},
        dataset={"name": citation.dataset, "fingerprint": "", "split": "", "train": 0, "validation": 0, "test": 0},
        rule={"epochs": citation.epochs or 0},
        mask_rule="",
        seed=0,
        kept_weights=citation.kept_weights or 0,
        total_weights=citation.total_weights or 0,
        environment={},
        source=citation.source,
        cited_density=citation.density,
        cited_accuracy=citation.accuracy,
        cited_std=citation.std,
        cited_seeds=citation.seeds,
    )


def _check_text(name: str, text: str) -> None:
    if not text.strip():
        raise InputError(f"{name} is empty; a published figure needs it")
    if len(text) > LONGEST:
        raise InputError(f"{name} has {len(text)} characters ({text[:40]!r}...); at most {LONGEST}")


def _check_fraction(name: str, value: float) -> None:
    if math.isfinite(value) and 1 < value <= 100:
        raise InputError(f"{name} is {value:g}; expected a fraction in [0, 1]: give {value / 100:.6g}, not {value:g}")
    if not 0 <= value <= 1:  # NaN is not either
        raise InputError(f"{name} is {value:g}; expected a fraction in [0, 1]")
