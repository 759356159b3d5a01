"""Small convolutional networks: Conv-6 of the lottery tickets, and the Simple CNN of the studies of batch size.

[Frankle2019] Frankle and Carbin, The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks, figure 2.
[Shallue2019] Shallue, Lee, Antognini, Sohl-Dickstein, Frostig and Dahl, Measuring the Effects of Data Parallelism on
Neural Network Training, appendix B.
[Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from snas.search_spaces.alike import Alike
from snas.search_spaces.base import SearchSpace, require_image, spaces
from snas.search_spaces.plain import by_stage, conv_stage, divided, plain_network


def staged(
    input_shape: Sequence[int],
    classes: int,
    *,
    name: str,
    widths: Sequence[Sequence[int]],
    kernel: int,
    hidden: Sequence[int],
    batch_norm: bool,
    learning_rate: float,
) -> SearchSpace:
    """Return a network of pooled stages of equal kernels and of hidden linear layers as a space."""
    channels, height, width = require_image(input_shape, name)
    halvings = [2] * len(widths)
    features = widths[-1][-1] * divided(height, *halvings) * divided(width, *halvings)

    def build() -> nn.Sequential:
        inputs = [channels, *[stage[-1] for stage in widths]]
        stages = [
            conv_stage(inputs[i], stage, [kernel] * len(stage), batch_norm=batch_norm) for i, stage in enumerate(widths)
        ]
        return plain_network(stages, features=features, hidden=hidden, classes=classes, batch_norm=batch_norm)

    return SearchSpace.from_model(
        Alike(build),
        input_shape=input_shape,
        name=name,
        groups=by_stage(len(widths)),
        arguments={"batch_norm": batch_norm} if name == "conv-6" else {},
        learning_rate=learning_rate,
    )


@spaces.register("conv-6")
def conv_6(input_shape: Sequence[int], classes: int, *, batch_norm: bool = False) -> SearchSpace:
    """Conv-6 of the lottery tickets: six 3x3 convolutions, three linear layers; 2,261,184 weights on CIFAR-10.

    [Frankle2019] prints 1.7M for the layers that it lists, of which 1.1M (here 1,144,512) are the convolutions'; the
    first linear layer alone has 1,048,576, so that the printed sum cannot be theirs.

    Args:
        input_shape: (channels, height, width) of one image, of any size: pooling rounds up.
        classes: number of classes.
        batch_norm: normalize every layer but the last one, as later work has it; not in [Frankle2019].

    Example:
        >>> [layer.shape for layer in conv_6((3, 32, 32), 10).layers][5:]
        [(256, 256, 3, 3), (256, 4096), (256, 256), (10, 256)]
    """
    return staged(
        input_shape,
        classes,
        name="conv-6",
        widths=((64, 64), (128, 128), (256, 256)),
        kernel=3,
        hidden=(256, 256),
        batch_norm=batch_norm,
        learning_rate=0.1 if batch_norm else 0.01,
    )


@spaces.register("simple-cnn")
def simple_cnn(input_shape: Sequence[int], classes: int) -> SearchSpace:
    """Simple CNN of the studies of batch size: two 5x5 convolutions, two linear layers; 3,273,504 weights on MNIST.

    The base size of [Shallue2019]: 32 and 64 filters with "same" padding, ReLU, 2x2 max-pooling, 1,024 hidden units.
    Without their dropout, as in [Lee2020b] section 5.2.1, which prunes it.

    Args:
        input_shape: (channels, height, width) of one image, of any size: pooling rounds up.
        classes: number of classes.

    Example:
        >>> [layer.shape for layer in simple_cnn((1, 28, 28), 10).layers]
        [(32, 1, 5, 5), (64, 32, 5, 5), (1024, 3136), (10, 1024)]
    """
    return staged(
        input_shape,
        classes,
        name="simple-cnn",
        widths=((32,), (64,)),
        kernel=5,
        hidden=(1024,),
        batch_norm=False,
        learning_rate=0.01,
    )
