"""Multilayer perceptrons of residual cells ([Tessera2021] section 4.3.1.2, figure 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from snas.errors import InputError
from snas.search_spaces.activations import Activation, make_activation
from snas.search_spaces.alike import Alike
from snas.search_spaces.base import SearchSpace, require_whole, spaces

MOST_HIDDEN_LAYERS = 64


class Cell(nn.Module):
    """One hidden layer: Linear, BatchNorm, activation, dropout."""

    def __init__(self, inputs: int, width: int, activation: str, dropout: float, batch_norm: bool, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width, bias=bias and not batch_norm)
        self.norm = nn.BatchNorm1d(width) if batch_norm else nn.Identity()
        self.activation = make_activation(activation, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Map x: (batch, inputs) to (batch, width); `shortcut` is added before the activation."""
        x = self.norm(self.linear(x))
        if shortcut is not None:
            x = x + shortcut
        out: Tensor = self.dropout(self.activation(x))
        return out


class Pair(nn.Module):
    """Two cells and, with `skip`, the identity around both, added before the last activation as in [He2016] eq. 1."""

    def __init__(self, first: Cell, second: Cell, skip: bool) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs) to (batch, width)."""
        out: Tensor = self.second(self.first(x), x if self.skip else None)
        return out


class MLP(nn.Module):
    """Hidden layers in pairs, a single cell last where their number is odd, and a linear classifier.

    A pair has a skip connection where its input is as wide as its output: every pair but the first, which has one
    only where `inputs == width`.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        hidden_layers: int,
        width: int,
        activation: str,
        dropout: float,
        batch_norm: bool,
        skip: bool,
        bias: bool = True,
    ) -> None:
        super().__init__()
        sizes = [inputs] + [width] * hidden_layers
        cells = [Cell(size, width, activation, dropout, batch_norm, bias) for size in sizes[:-1]]
        self.blocks = nn.Sequential()
        for i in range(0, hidden_layers, 2):
            joined = skip and sizes[i] == width
            self.blocks.append(Pair(cells[i], cells[i + 1], joined) if i + 1 < hidden_layers else cells[i])
        self.classifier = nn.Linear(width, classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, *any shape) to (batch, classes)."""
        out: Tensor = self.classifier(self.blocks(x.flatten(1)))
        return out


@spaces.register("mlp")
def mlp(
    input_shape: Sequence[int],
    classes: int,
    *,
    hidden_layers: int = 4,
    width: int | None = None,
    activation: Activation = "prelu",
    dropout: float = 0.0,
    batch_norm: bool = True,
    skip: bool = True,
    bias: bool = True,
) -> SearchSpace:
    """Multilayer perceptron of residual cells.

    There are `hidden_layers + 1` linear layers: inputs -> width, (hidden_layers - 1) times width -> width, and
    width -> classes. Under representation "block", the two layers of a pair share a density and the classifier has
    its own. Hidden layers have a bias only without `batch_norm`, and none has one without `bias`.

    Args:
        input_shape: shape of one example; flattened.
        classes: number of classes.
        hidden_layers: 1 to 64.
        width: units of a hidden layer; number of inputs + 4 where not given ([Tessera2021] section 4.4.1).
        activation: "prelu", "relu", "swish", "elu", "srelu", "sigmoid" or "tanh".
        dropout: probability that a unit is dropped after an activation, 0 <= dropout < 1.
        batch_norm: whether every hidden layer is normalized.
        skip: whether pairs of hidden layers have an identity around them.
        bias: whether linear layers have biases; without, all that they have are weights ([Tessera2021] A.1.1).

    Raises:
        InputError: for an option outside its range.

    Example:
        >>> space = mlp((1, 8, 8), 10, hidden_layers=2, width=32)
        >>> [(layer.name, layer.shape) for layer in space.layers][1:]
        [('blocks.0.second.linear', (32, 32)), ('classifier', (10, 32))]
    """
    inputs = math.prod(input_shape)
    units = inputs + 4 if width is None else width
    require_whole("hidden_layers", hidden_layers, "mlp", most=MOST_HIDDEN_LAYERS)
    require_whole("width", units, "mlp")
    if not 0 <= dropout < 1:
        raise InputError(f"argument 'dropout' of space 'mlp' is {dropout}; expected 0 <= dropout < 1")
    make_activation(activation, 1)
    return SearchSpace.from_model(
        Alike(lambda: MLP(inputs, classes, hidden_layers, units, activation, dropout, batch_norm, skip, bias)),
        input_shape=input_shape,
        name="mlp",
        groups={f"blocks.{i}.*": f"blocks.{i}" for i in range((hidden_layers + 1) // 2)},
        arguments={
            "hidden_layers": hidden_layers,
            "width": units,
            "activation": activation,
            "dropout": dropout,
            "batch_norm": batch_norm,
            "skip": skip,
            **({} if bias else {"bias": bias}),  # as it was filed before there was a choice
        },
        nonlinearity=activation,
        learning_rate=0.01,
    )
