"""Search a network of your own. From the command line:

snas search --space examples/custom_space.py:factory --space-arg width=48 --dataset digits --samples 8 --epochs 4
"""

import math

from torch import nn


def factory(input_shape: tuple[int, ...], classes: int, width: int = 32) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


if __name__ == "__main__":
    import snas

    result = snas.search(f"{__file__}:factory", dataset="digits", samples=4, epochs=2, final_seeds=1)
    print(result.best.densities.fractions)
