"""Recurrent networks that read an image row by row ([Lee2020b] section 3.5.3).

A row is projected to as many features as the network has units (a linear layer without activation), one LSTM or GRU
layer reads the rows from top to bottom, and a linear classifier reads its last state. The source does not mention the
projection, but only with it do the counts of its table 3.2 come out, all four of them. On MNIST, weights here,
parameters with one bias per unit, and what is printed:

    lstm-s   135,936   136,586   137k
    lstm-b   534,016   535,306   535k
    gru-s    103,168   103,690   104k
    gru-b    402,944   403,978   404k

torch's layers have a second bias per unit, which adds nothing to what an LSTM can do. They also apply a GRU's reset
gate after the recurrent product, where the source's library applies it before; the weights are the same in number.

[Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from snas.search_spaces.base import SearchSpace, require_image, require_whole, spaces

CELLS: dict[str, Callable[[int], nn.LSTM | nn.GRU]] = {
    "lstm": lambda units: nn.LSTM(units, units, batch_first=True),
    "gru": lambda units: nn.GRU(units, units, batch_first=True),
}


class RowReader(nn.Module):
    """Projection of each row, one recurrent layer, a classifier of its last output."""

    def __init__(self, features: int, classes: int, cell: str, units: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, units)
        self.rnn = CELLS[cell](units)
        self.classifier = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        rows = x.transpose(1, 2).flatten(2)
        states, _ = self.rnn(self.embed(rows))
        out: Tensor = self.classifier(states[:, -1])
        return out


def recurrent(input_shape: Sequence[int], classes: int, *, name: str, cell: str, units: int) -> SearchSpace:
    """Return the recurrent network as a space.

    Initial weights have gain 1 ("linear"), gate by gate: larger ones saturate the gates.

    Args:
        input_shape: (channels, height, width) of one image; a step reads channels x width features, height steps.
        classes: number of classes.
        name: how results are filed.
        cell: "lstm" or "gru".
        units: of the recurrent layer, and features of a projected row.

    Raises:
        InputError: for data that are not images, or a number of units below 1.

    Example:
        >>> space = recurrent((1, 28, 28), 10, name="gru-s", cell="gru", units=128)
        >>> [(layer.name, layer.shape, layer.positions) for layer in space.layers][1:3]
        [('rnn.weight_ih_l0', (384, 128), 28), ('rnn.weight_hh_l0', (384, 128), 28)]
    """
    channels, _, width = require_image(input_shape, name)
    require_whole("units", units, name)
    return SearchSpace.from_model(
        lambda: RowReader(channels * width, classes, cell, units),
        input_shape=input_shape,
        name=name,
        groups={"rnn.*": "rnn"},
        arguments={"units": units},
        nonlinearity="linear",
        learning_rate=0.1,
    )


def _register(name: str, cell: str, standard: int) -> None:
    def factory(input_shape: Sequence[int], classes: int, *, units: int = standard) -> SearchSpace:
        return recurrent(input_shape, classes, name=name, cell=cell, units=units)

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = f"One {cell.upper()} layer of {standard} units that reads the image row by row."
    spaces.register(name)(factory)


for _cell in CELLS:
    _register(f"{_cell}-s", _cell, 128)
    _register(f"{_cell}-b", _cell, 256)
