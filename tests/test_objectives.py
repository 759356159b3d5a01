from __future__ import annotations

import pytest

from snas.densities import Densities, Layer
from snas.errors import InputError
from snas.objectives import costs_of, read_objectives


def test_the_costs_are_those_beside_the_accuracy_in_their_order():
    assert read_objectives("accuracy") == ()
    assert read_objectives(" flops , accuracy,kept-weights") == ("flops", "kept_weights")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kept_weights", "objectives are 'kept_weights'; accuracy has to be one of them"),
        ("accuracy,speed", "objective 'speed' is unknown; choices: accuracy, kept_weights, flops"),
        ("accuracy,flops,flops", "objective 'flops' is given twice"),
        ("accuracy,kept-weights,kept_weights", "objective 'kept_weights' is given twice"),
        ("", "objective '' is unknown"),
        ("accuracy,", "objective '' is unknown"),
    ],
)
def test_wrong_objectives(text, message):
    with pytest.raises(InputError, match=message):
        read_objectives(text)


def test_costs_by_hand():
    # A 3x3 convolution of 2 to 4 channels at 16 places and a matrix of 40 weights; a kept weight is 2 operations.
    layers = (Layer("conv", (4, 2, 3, 3), "conv.weight", 16, "conv"), Layer("fc", (10, 4)))
    densities = Densities(layers, (30, 7))
    assert costs_of(densities, ("flops", "kept_weights")) == (2 * (30 * 16 + 7), 37)
    assert costs_of(densities, ()) == ()
