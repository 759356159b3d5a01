"""Plain multilayer perceptrons: linear layers of one width with biases, one activation, no normalization.

With seven layers of width 100 they are the networks on which [Lee2020b] studies signal propagation (table 4.1, figures
4.1 and 4.2); with three, five and seven those of its table 4.4. On MNIST they have 78,400 weights in the first layer,
1,000 in the last one and 10,000 in each between: 89,400, 109,400 and 129,400.

[Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn

from snas.search_spaces.alike import Alike
from snas.search_spaces.base import SearchSpace, require_whole, spaces

MOST_LAYERS = 256
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "linear": nn.Identity, "relu": nn.ReLU}


def perceptron(
    input_shape: Sequence[int], classes: int, *, activation: str, layers: int = 7, width: int = 100
) -> SearchSpace:
    """Return the perceptron with this activation as a space, called "mlp-" and the activation.

    Args:
        input_shape: shape of one example; flattened.
        classes: number of classes.
        activation: "tanh", "linear" or "relu", after every layer but the last one.
        layers: linear layers, the classifier included, 1 to 256.
        width: units of a hidden layer.

    Raises:
        InputError: for an option outside its range.

    Example:
        >>> space = perceptron((1, 28, 28), 10, activation="tanh", layers=3)
        >>> [(layer.name, layer.shape) for layer in space.layers]
        [('fc1', (100, 784)), ('fc2', (100, 100)), ('fc3', (10, 100))]
    """
    name = f"mlp-{activation}"
    require_whole("layers", layers, name, most=MOST_LAYERS)
    require_whole("width", width, name)
    sizes = [math.prod(input_shape), *[width] * (layers - 1), classes]

    def build() -> nn.Sequential:
        parts: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
        for i in range(1, layers + 1):
            parts.append((f"fc{i}", nn.Linear(sizes[i - 1], sizes[i])))
            if i < layers:
                parts.append((f"{activation}{i}", ACTIVATIONS[activation]()))
        return nn.Sequential(OrderedDict(parts))

    return SearchSpace.from_model(
        Alike(build),
        input_shape=input_shape,
        name=name,
        arguments={"layers": layers, "width": width},
        nonlinearity=activation,
        learning_rate=0.1 if activation != "linear" else 0.01,
    )


def _register(activation: str) -> None:
    def factory(input_shape: Sequence[int], classes: int, *, layers: int = 7, width: int = 100) -> SearchSpace:
        return perceptron(input_shape, classes, activation=activation, layers=layers, width=width)

    factory.__name__ = factory.__qualname__ = f"mlp-{activation}"
    plainly = "without activations" if activation == "linear" else f"with {activation}"
    factory.__doc__ = f"Plain perceptron of equally wide layers {plainly}."
    spaces.register(f"mlp-{activation}")(factory)


for _activation in ACTIVATIONS:
    _register(_activation)
