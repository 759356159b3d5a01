import os
import subprocess
import sys

import pytest
import torch

from snas import InputError
from snas.plugins import bind_arguments
from snas.search_spaces import open_space, spaces
from snas.search_spaces.inspection import inspect_network

BUILT_IN = [
    "mlp",
    *(f"mlp-{activation}" for activation in ("tanh", "linear", "relu")),
    *(f"resnet{depth}{doubled}" for depth in (14, 20, 32, 44, 56, 110) for doubled in ("", "-x2")),
    "resnet-8",
    *(f"wrn-{size}" for size in ("16-8", "16-10", "22-8", "28-10", "28-2")),
    "lenet-300-100",
    "lenet-5-caffe",
    "conv-6",
    "simple-cnn",
    "alexnet-s",
    "alexnet-b",
    *(f"vgg{kind}" for kind in ("-c", "-d", "-like", "16", "16-bn")),
    *(f"{cell}-{size}" for cell in ("lstm", "gru") for size in "sb"),
]
SMALL = [
    "mlp",
    "mlp-tanh",
    "resnet20",
    "resnet-8",
    "wrn-28-2",
    "lenet-5-caffe",
    "lenet-300-100",
    "simple-cnn",
    "lstm-s",
]


def test_what_is_built_in():
    assert set(BUILT_IN) <= set(spaces.names())


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_space_keeps_the_contract(name):
    assert spaces.summary(name).endswith(".")
    space = open_space(name, input_shape=(3, 16, 16), classes=7)
    assert (space.name, space.input_shape, space.classes) == (name, (3, 16, 16), 7)
    assert len({layer.name for layer in space.layers}) == len(space.layers)
    # What is recorded is enough to open it again.
    again = open_space(name, input_shape=(3, 16, 16), classes=7, arguments=space.arguments)
    assert again.describe() == space.describe()
    text = {key: str(value) for key, value in space.arguments.items()}
    assert bind_arguments(spaces.get(name), text, what=name) == space.arguments


@pytest.mark.parametrize("name", SMALL)
def test_layers_are_those_of_the_network_that_is_built(name):
    space = open_space(name, input_shape=(2, 13, 13), classes=3)
    model = space.build(generator=torch.Generator().manual_seed(0))
    parameters = dict(model.named_parameters())
    assert [tuple(parameters[layer.parameter].shape) for layer in space.layers] == [
        layer.shape for layer in space.layers
    ]
    named = [name for name in parameters if name in {layer.parameter for layer in space.layers}]
    assert named == [layer.parameter for layer in space.layers]
    assert {name for name, parameter in parameters.items() if parameter.ndim > 1} == set(named)


@pytest.mark.parametrize("name", SMALL)
def test_inspection_without_values_equals_the_real_one(name):
    space = open_space(name, input_shape=(2, 13, 13), classes=3)
    devices = []

    def record():
        devices.append(torch.empty(1).device.type)
        return space.factory()

    def real():
        assert torch.ones(1).item() == 1  # raises on "meta"
        return space.factory()

    def bare(layers):
        return [(layer.name, layer.shape, layer.parameter, layer.positions) for layer in layers]

    layers, classes, network = inspect_network(record, (2, 13, 13), name=name)
    assert devices == ["meta"]
    real_layers, real_classes, real_network = inspect_network(real, (2, 13, 13), name=name)
    assert bare(layers) == bare(real_layers) == bare(space.layers)
    assert classes == real_classes == 3
    assert network == real_network == space.network


def test_options_reach_the_space():
    space = open_space(
        "mlp",
        input_shape=(6,),
        classes=2,
        arguments={"hidden-layers": "3", "width": "none", "batch_norm": "no"},
        representation="uniform",
        last_layer="dense",
    )
    assert space.arguments == {"hidden_layers": 3, "width": None, "batch_norm": False}  # what was given, converted
    assert [layer.shape for layer in space.layers] == [(10, 6), (10, 10), (10, 10), (2, 10)]
    assert space.coordinates == ((0, 1, 2),)
    assert space.pinned == {"classifier": 1.0}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "resnet33",
            {},
            "unknown space 'resnet33'; did you mean 'resnet3.*choices: .*mlp, .*; or code of your own: module:factory",
        ),
        ("mlp", {"arguments": {"depth": "3"}}, "space 'mlp' has no argument 'depth'; choices: hidden_layers, width"),
        (
            "mlp",
            {"arguments": {"width": "wide"}},
            "argument 'width' of space 'mlp' is 'wide'; expected a value of type",
        ),
        (
            "mlp",
            {"arguments": {"activation": "gelu"}},
            "argument 'activation' of space 'mlp' is 'gelu'; choices: prelu",
        ),
        ("mlp", {"representation": "cell"}, "representation is 'cell'; choices: layer, block, depth, uniform"),
        ("mlp", {"first_layer": "free"}, "first-layer is 'free'"),
    ],
)
def test_wrong_use(name, options, message):
    with pytest.raises(InputError, match=message):
        open_space(name, input_shape=(6,), classes=2, **options)


def test_the_list_of_spaces_needs_no_torch():
    code = "import sys, snas.search_spaces; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
