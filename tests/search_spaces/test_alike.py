"""Networks that are copied and then initialized are those that are built and then initialized, to the bit."""

import pickle
from itertools import chain

import cloudpickle
import pytest
import torch
from torch import nn

from snas.densities import Densities
from snas.initialization.variance import initialize
from snas.pruning.methods import given_densities
from snas.pruning.prepare import prepare
from snas.pruning.scores import Batch
from snas.search_spaces.alike import Alike, build_undrawn
from snas.search_spaces.base import SearchSpace
from snas.search_spaces.catalog import open_space
from snas.search_spaces.weights import drawn_in

SPACES = {
    "mlp": {"hidden_layers": 3, "width": 16},
    "mlp with srelu": {"hidden_layers": 2, "width": 8, "activation": "srelu", "dropout": 0.2},
    "mlp with biases": {"hidden_layers": 2, "width": 8, "batch_norm": False},
    "mlp-tanh": {"layers": 4, "width": 8},
    "lenet-300-100": {},
    "lenet-5-caffe": {},
    "simple-cnn": {},
    "conv-6": {"batch_norm": True},
    "alexnet-s": {},
    "vgg-like": {},
    "resnet14": {"width": 4},
    "resnet20": {"width": 4, "shortcut": "padding"},
    "resnet-8": {},
    "wrn-28-2": {"blocks": 1, "dropout": 0.3},
    "gru-s": {"units": 8},
}
RECURRENT = ("gru-s",)  # built: they hold references to their weights


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def space_of(name):
    return open_space(name.partition(" ")[0], input_shape=(3, 32, 32), classes=4, arguments=SPACES[name])


def look_of(model):
    """Modules, parameters and buffers with all that can be told of them but values."""
    tensors = chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    return repr(model), [
        (name, type(value), value.dtype, value.shape, value.stride(), value.device, value.requires_grad, value.is_leaf)
        for name, value in tensors
    ]


@pytest.mark.parametrize("name", SPACES)
def test_copies_are_what_is_built(name):
    space = space_of(name)
    assert isinstance(space.factory, Alike) == (name not in RECURRENT)
    state = torch.get_rng_state()
    alive, seen = [], set()
    for seed in range(3):
        expected = space.build(generator=seeded(seed))
        found = build_undrawn(space, generator=seeded(seed))
        assert look_of(found) == look_of(expected)
        assert all(module.training for module in found.modules())
        with torch.no_grad():
            for weight in drawn_in(found):
                weight.tensor.fill_(torch.nan)
                if weight.bias is not None:
                    weight.bias.fill_(torch.nan)
        for model in (found, expected):
            initialize(model, rule="he", nonlinearity="relu", generator=seeded(7 + seed))
        values = found.state_dict()
        assert all(torch.equal(value, values[key]) for key, value in expected.state_dict().items())
        pointers = {tensor.data_ptr() for tensor in chain(found.parameters(), found.buffers())}
        assert not pointers & seen  # nothing is shared with an earlier one, which is alive
        seen |= pointers
        alive.append(found)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_that_was_given_out_may_be_changed():
    space = space_of("mlp")
    first = build_undrawn(space, generator=seeded())
    with torch.no_grad():
        for tensor in chain(first.parameters(), first.buffers()):
            tensor.fill_(5)
    first.classifier.register_forward_hook(lambda *_: None)
    first.eval()
    found, expected = build_undrawn(space, generator=seeded()), space.build(generator=seeded())
    for model in (found, expected):
        initialize(model, rule="orthogonal", nonlinearity="relu", generator=seeded(1))
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in expected.state_dict().items())
    assert found.training
    assert not found.classifier._forward_hooks


class Noisy(nn.Module):
    """Draws something of its own between two layers."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.rand(4))
        self.two = nn.Linear(4, 2)

    def forward(self, x):
        return self.two(self.scale * self.one(x))


def test_other_peoples_networks_are_built_each():
    built = []

    def factory():
        built.append(Noisy())
        return built[-1]

    space = SearchSpace.from_model(factory, input_shape=(4,), name="noisy")
    count = len(built)
    one, two = (build_undrawn(space, generator=seeded(seed)) for seed in (0, 1))
    assert built[count:] == [one, two]
    assert torch.equal(one.scale, space.build(generator=seeded(0)).scale)
    assert not torch.equal(one.scale, two.scale)


@pytest.mark.parametrize("rule", ["he", "as-built", "truncated", "orthogonal"])
def test_candidates_are_the_same_whichever_way_networks_come(rule, monkeypatch):
    space = space_of("mlp")
    batch = Batch(torch.zeros(8, 3, 32, 32), torch.arange(8) % 4)
    densities = Densities.from_fractions(space.layers, [0.5] * len(space.layers))

    def candidates():
        method = given_densities("random")
        return [prepare(space, method, densities, batch, seed=seed, initialization=rule) for seed in range(3)]

    found = candidates()
    monkeypatch.setattr(
        "snas.pruning.prepare.build_undrawn", lambda space, *, generator: space.build(generator=generator)
    )
    for one, two in zip(found, candidates(), strict=True):
        assert one.masks == two.masks
        values = one.model.state_dict()
        assert all(torch.equal(value, values[key]) for key, value in two.model.state_dict().items())


def test_the_default_type_decides_each_time():
    space = space_of("mlp")
    first = build_undrawn(space, generator=seeded(0))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        second, third = (build_undrawn(space, generator=seeded(seed)) for seed in (0, 1))
    finally:
        torch.set_default_dtype(before)
    fourth = build_undrawn(space, generator=seeded(1))
    types = [{parameter.dtype for parameter in one.parameters()} for one in (first, second, third, fourth)]
    assert types == [{torch.float32}, {torch.float64}, {torch.float64}, {torch.float32}]


def test_what_was_remembered_stays_here():
    space = space_of("mlp")
    size = len(cloudpickle.dumps(space))
    build_undrawn(space, generator=seeded(0))
    assert space.factory.copy() is not None
    sent = cloudpickle.dumps(space)
    assert len(sent) == size
    assert pickle.loads(sent).factory.copy() is None
