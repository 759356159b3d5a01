"""A copy to look at is what `copy.deepcopy` and `nn.Module.to` make, whatever the network is made of."""

import copy
import gc

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from snas.copies import double_copy
from snas.densities import Layer
from snas.layers.dct import add_offsets
from snas.masks import Masks
from snas.pruning.paths import has_path
from snas.pruning.scores import Batch, scores


class Tied(nn.Module):
    """Shares a weight and a module, holds modules in a list and in a dictionary, and calls one that it has hooked."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.PReLU()
        self.second.weight = self.first.weight
        self.order = [self.first, (self.act, 3), {"last": self.second}]
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("scale", torch.rand(4), persistent=False)
        self.first.register_forward_hook(self.double)
        self.second.bias.requires_grad_(False)

    def double(self, module, inputs, output):
        return output * self.scale * 2

    def forward(self, x):
        first, (act, power), rest = self.order
        return rest["last"](act(first(x))) ** power + self.steps


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.cell, self.out = nn.LSTM(4, 3, batch_first=True), nn.GRUCell(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.cell(self.rnn(x[:, None, :])[0][:, 0]))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x):
        return self.layer(x[:, None, :])[:, 0]


class Converting(nn.Module):
    """Has a tensor that it converts itself."""

    def __init__(self):
        super().__init__()
        self.linear, self.table = nn.Linear(4, 4), torch.rand(4)

    def _apply(self, fn, recurse=True):
        self.table = fn(self.table)
        return super()._apply(fn, recurse)

    def forward(self, x):
        return self.linear(x) * self.table


class Counting(nn.Module):
    """Is copied in its own way."""

    def __init__(self, copies=0):
        super().__init__()
        self.copies, self.linear = copies, nn.Linear(4, 4)

    def __deepcopy__(self, memo):
        twin = Counting(self.copies + 1)
        twin.load_state_dict(self.state_dict())
        return twin

    def forward(self, x):
        return self.linear(x) + self.copies


def with_offset():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    add_offsets(model, [Layer("0", (4, 4))])
    return model


NETWORKS = {
    "tied": Tied,
    "recurrent": Recurrent,
    "attention": Attending,
    "converting": Converting,
    "counting": lambda: nn.Sequential(Counting(), nn.ReLU()),
    "offset": with_offset,
    "spectral norm": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4)), nn.ReLU()),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_copy_is_the_same_as_a_deep_one(name):
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    x = torch.rand(3, 4)
    before = model(x)
    twin, deep = double_copy(model), copy.deepcopy(model).to("cpu", torch.float64)
    assert [type(module) for module in twin.modules()] == [type(module) for module in deep.modules()]
    ours, theirs = dict(twin.named_parameters()), dict(deep.named_parameters())
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        assert (value.dtype, value.requires_grad) == (torch.float64, theirs[key].requires_grad)
        assert torch.equal(value, theirs[key])
    assert {key: value.dtype for key, value in twin.named_buffers()} == {
        key: value.dtype for key, value in deep.named_buffers()
    }
    assert torch.equal(twin(x.double()), deep(x.double()))
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.fill_(7)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    assert not {id(module) for module in model.modules()} & {id(module) for module in twin.modules()}


def test_what_was_shared_is_shared_by_the_copies():
    model = Tied()
    twin = double_copy(model)
    assert twin.first.weight is twin.second.weight
    assert twin.order[0] is twin.first
    assert twin.order[1][0] is twin.act
    assert twin.order[2]["last"] is twin.second
    (hook,) = twin.first._forward_hooks.values()
    assert hook.__self__ is twin


def test_copies_are_freed_without_the_garbage_collector():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    layers = (Layer("0", (4, 3)), Layer("3", (2, 4)))
    masks = Masks(layers, {layer.name: torch.eye(*layer.shape) > 0 for layer in layers})
    gc.collect()
    gc.disable()
    try:
        before = sum(type(found) is nn.BatchNorm1d for found in gc.get_objects())
        assert has_path(model, masks, input_shape=(3,))
        scores.get("synflow")(model, layers, Batch(torch.zeros(1, 3), torch.zeros(1)), generator=torch.Generator())
        assert sum(type(found) is nn.BatchNorm1d for found in gc.get_objects()) == before
    finally:
        gc.enable()
