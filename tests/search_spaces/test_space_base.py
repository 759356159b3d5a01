import copy
import functools
import itertools
import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snas import InputError
from snas.densities import Layer
from snas.search_spaces.base import SearchSpace, require_image
from snas.search_spaces.inspection import inspect_network


def network():
    """8x8 image: 3x3 convolution to 6x6, average over 2x2 to 3x3, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)
    )


def from_model(factory=network, **options):
    return SearchSpace.from_model(factory, input_shape=(1, 8, 8), name="tiny", **options)


def real_only(factory):
    """The same network, in a way that cannot be built without values."""

    def build():
        assert torch.ones(1).item() == 1.0
        return factory()

    return build


@pytest.mark.parametrize("wrap", [lambda factory: factory, real_only], ids=["meta", "real"])
def test_layers_are_found_with_shapes_and_positions(wrap):
    space = from_model(wrap(network))
    assert space.layers == (
        Layer("0", (4, 1, 3, 3), positions=36),
        Layer("4", (8, 36)),
        Layer("6", (3, 8)),
    )
    assert (space.classes, space.input_shape, space.total_weights) == (3, (1, 8, 8), 36 + 288 + 24)


def test_flops_of_the_dense_network_by_hand():
    space = from_model()
    assert space.densities([1, 1, 1]).flops == 2 * (36 * 36 + 288 + 24)
    assert space.densities([0.5, 0.25, 0]).flops == 2 * (18 * 36 + 72)


@pytest.mark.parametrize(
    ("layer", "shape", "positions"),
    [
        (nn.Conv1d(2, 6, 3, stride=2, groups=2), (2, 9), 4),
        (nn.Conv3d(1, 2, 2), (1, 3, 3, 3), 8),
        (nn.Linear(5, 7), (4, 5), 4),
    ],
    ids=["conv1d", "conv3d", "tokens"],
)
def test_positions_of_other_layers(layer, shape, positions):
    layers, *_ = inspect_network(
        lambda: nn.Sequential(copy.deepcopy(layer), nn.Flatten(), nn.LazyLinear(2)), shape, name="x"
    )
    assert (layers[0].shape, layers[0].positions) == (tuple(layer.weight.shape), positions)


def test_a_tied_weight_is_one_layer_used_twice():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(6, 6)
            self.first = nn.Linear(6, 6)
            self.second = nn.Linear(6, 6)
            self.head = nn.Linear(6, 2)
            self.first.weight = self.second.weight = self.table.weight

        def forward(self, x):
            return self.head(self.second(self.first(self.first(x))))

    layers, *_ = inspect_network(Tied, (6,), name="tied")
    assert layers == (Layer("first", (6, 6), parameter="table.weight", positions=3), Layer("head", (2, 6)))
    model = Tied()
    assert all(dict(model.named_parameters())[layer.parameter].shape == layer.shape for layer in layers)


def test_a_network_that_is_one_layer():
    layers, classes, _ = inspect_network(lambda: nn.Linear(4, 2), (4,), name="one")
    assert (layers, classes) == ((Layer("weight", (2, 4), parameter="weight"),), 2)


def test_inspection_leaves_random_state_alone():
    state = torch.random.get_rng_state()
    for factory in (network, real_only(network)):
        inspect_network(factory, (1, 8, 8), name="x")
        assert torch.equal(torch.random.get_rng_state(), state)


def test_inspection_of_a_huge_network_takes_no_memory():
    layers, *_ = inspect_network(
        lambda: nn.Sequential(nn.Linear(10, 10**6), nn.Linear(10**6, 10**6), nn.Linear(10**6, 2)), (10,), name="huge"
    )
    assert sum(layer.total for layer in layers) == 10**7 + 10**12 + 2 * 10**6


def test_build_draws_from_the_generator_only():
    space = from_model()
    state = torch.random.get_rng_state()
    first, second, other = (space.build(generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.training


def test_lazy_layers_are_ready_after_building():
    def lazy():
        return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))

    space = from_model(lazy)
    assert [layer.shape for layer in space.layers] == [(4, 1, 3, 3), (3, 144)]
    first, second = (space.build(generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.training
    assert first[1].training
    assert torch.equal(first[3].weight, second[3].weight)
    assert not torch.equal(first[3].weight, space.build(generator=torch.Generator().manual_seed(6))[3].weight)


def test_a_network_of_the_library_s_own_transformer():
    def transformer():
        layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=True)
        return nn.Sequential(nn.Linear(4, 8), layer, nn.Flatten(), nn.Linear(40, 3))

    space = SearchSpace.from_model(transformer, input_shape=(5, 4), name="t")
    totals = {layer.name: layer.total for layer in space.layers}
    assert totals == {
        "0": 32,
        "1.self_attn.in_proj_weight": 192,
        "1.self_attn.out_proj": 64,
        "1.linear1": 96,
        "1.linear2": 96,
        "3": 120,
    }


class Wrong(nn.Module):
    """A network that fails as told."""

    def __init__(self, forward):
        super().__init__()
        self.layer = nn.Linear(64, 3)
        self.act = forward

    def forward(self, x):
        return self.act(self.layer(x.flatten(1)))


def raising():
    raise RuntimeError("out of\n  luck")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (raising, "space 'tiny': its factory raised RuntimeError: out of luck"),
        (lambda: "network", "space 'tiny': its factory returned str; expected a torch.nn.Module"),
        (
            nn.Flatten,
            "space 'tiny' has no prunable layer; expected a Linear, Conv1d/2d/3d, recurrent or attention layer",
        ),
        (lambda: nn.Linear(9, 3), "space 'tiny': the network rejects an input of shape (batch, 1, 8, 8): RuntimeError"),
        (lambda: Wrong(lambda x: x[:, 0]), "the network returns (2,) for 2 examples; expected a tensor of shape"),
        (lambda: Wrong(lambda x: x.reshape(1, 6)), "the network returns (1, 6) for 2 examples"),
        (lambda: Wrong(lambda x: (x, x)), "the network returns tuple for 2 examples"),
        (
            itertools.repeat(network()).__next__,
            "its factory returned the same network twice; build a new one at every call",
        ),
    ],
)
def test_wrong_networks_are_one_clear_line(factory, message):
    with pytest.raises(InputError) as error:
        from_model(factory)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_error_on_the_way_is_that_of_the_real_network():
    calls = []

    def factory():
        calls.append(torch.empty(1).device.type)
        raise ValueError(f"on {calls[-1]}")

    with pytest.raises(InputError, match="ValueError: on cpu"):
        from_model(factory)
    assert calls == ["meta", "cpu"]


def test_a_network_kept_from_the_inspection_is_refused_when_built():
    space = from_model(functools.cache(network))
    with pytest.raises(InputError, match="must build a new network at every call and keep none"):
        space.build(generator=torch.Generator().manual_seed(0))


def test_warnings_of_the_trial_build_are_not_shown():
    def factory():
        model = network()
        model.load_state_dict(state)  # torch warns that this does nothing on "meta"
        return model

    state = network().state_dict()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        space = from_model(factory)
    assert shown == []
    assert torch.equal(space.build(generator=torch.Generator().manual_seed(0))[0].weight, state["0.weight"])


@pytest.mark.parametrize("shape", [(), (0, 8), (1, -8), (1, 8.5), 64, ("1", "8")])
def test_wrong_input_shape(shape):
    with pytest.raises(InputError, match="expected positive integers"):
        SearchSpace.from_model(network, input_shape=shape, name="tiny")


def test_pinned_excluded_and_grouped_layers():
    space = from_model(pinned={"0": 0.5}, groups={"[46]": "dense"})
    assert [layer.block for layer in space.layers] == ["0", "dense", "dense"]
    assert space.coordinates == ((1,), (2,))
    assert space.densities([0.25, 1]).kept == (18, 72, 24)
    block = space.with_options(representation="block")
    assert block.coordinates == ((1, 2),)
    assert block.densities([0.5]).kept == (18, 144, 12)
    without = from_model(excluded=["0"])
    assert [layer.name for layer in without.layers] == ["4", "6"]
    assert without.total_weights == 288 + 24


def test_representations_and_ends():
    space = from_model()
    assert space.with_options(representation="uniform").densities([0.5]).kept == (18, 144, 12)
    ends = space.with_options(first_layer="dense", last_layer="dense")
    assert (ends.dimensions, ends.pinned) == (1, {"0": 1.0, "6": 1.0})
    assert ends.densities([0]).kept == (36, 0, 24)
    assert ends.with_options(representation="uniform").coordinates == ((1,),)
    assert space.pinned == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pinned": {"stem": 1.0}}, "pinned layer 'stem' matches no layer; layers: 0, 4, 6"),
        ({"excluded": ["x*"]}, "excluded layer 'x[*]' matches no layer"),
        ({"groups": {"9": "a"}}, "groups layer '9' matches no layer"),
        ({"pinned": {"0": 1.5}}, "density of pinned layer '0' is 1.5; expected 0 < density <= 1"),
        ({"pinned": {"0": float("nan")}}, "is nan; expected 0 < density <= 1"),
        ({"pinned": {"*": 1.0}}, "has nothing to search: every layer is pinned"),
        ({"excluded": ["*"]}, "no prunable layer left; exclude fewer than all 3"),
        ({"excluded": ["0"], "pinned": {"0": 1.0}}, "pinned layer '0' matches no layer; layers: 4, 6"),
    ],
)
def test_wrong_choice_of_layers(options, message):
    with pytest.raises(InputError, match=message):
        from_model(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"representation": "layers"}, "representation is 'layers'; choices: layer, block, depth, uniform"),
        ({"first_layer": "pinned"}, "first-layer is 'pinned'; choices: search, dense"),
        ({"last_layer": ""}, "last-layer is ''; choices: search, dense"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        from_model().with_options(**options)


def test_nothing_left_to_search():
    two = SearchSpace.from_model(lambda: nn.Linear(4, 2), input_shape=(4,), name="one")
    with pytest.raises(InputError, match="nothing to search"):
        two.with_options(first_layer="dense")


@pytest.mark.parametrize("point", [[0.5], [0.5] * 4, [[0.5] * 3], 0.5])
def test_point_of_wrong_length(point):
    with pytest.raises(InputError, match=r"expects \(3,\)"):
        from_model().densities(point)


@pytest.mark.parametrize("entry", [-0.01, 1.01, float("nan"), float("inf")])
def test_point_outside_the_cube(entry):
    with pytest.raises(InputError, match=r"expected entries in \[0, 1\]"):
        from_model().densities([0.5, entry, 0.5])


TINY = from_model()


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_decoding_rounds_each_layer_to_the_nearest_count(point):
    decoded = TINY.densities(np.array(point))
    for layer, kept, value in zip(TINY.layers, decoded.kept, point, strict=True):
        assert abs(kept - value * layer.total) <= 0.5 + 1e-9
    assert decoded.kept_weights == sum(decoded.kept)


def test_description_is_complete_and_plain():
    space = from_model(pinned={"0": 1.0}, arguments={"width": 4}).with_options(representation="uniform")
    description = space.describe()
    layers = description.pop("layers")
    assert len(description.pop("network")) == 64
    assert description == {
        "name": "tiny",
        "arguments": {"width": 4},
        "input_shape": [1, 8, 8],
        "classes": 3,
        "representation": "uniform",
        "pinned": {"0": 1.0},
        "nonlinearity": "relu",
    }
    assert [(layer["name"], layer["shape"], layer["block"]) for layer in layers] == [
        ("0", [4, 1, 3, 3], "0"),
        ("4", [8, 36], "4"),
        ("6", [3, 8], "6"),
    ]
    assert json.loads(json.dumps(layers)) == layers


def test_images_are_told_from_vectors():
    assert require_image((3, 8, 9), "x") == (3, 8, 9)
    with pytest.raises(InputError, match=r"space 'x' takes images .* the data has shape \(64\)"):
        require_image((64,), "x")
    with pytest.raises(InputError, match="at least 9x9 pixels; the data has 9x8"):
        require_image((1, 9, 8), "x", smallest=9)


def test_networks_of_equal_shapes_have_fingerprints_of_their_own():
    def network(activation, dropout=0.0):
        return lambda: nn.Sequential(nn.Linear(4, 3), activation(), nn.Dropout(dropout), nn.Linear(3, 2))

    def fingerprint(factory):
        return SearchSpace.from_model(factory, input_shape=(4,), name="x").network

    relu = fingerprint(network(nn.ReLU))
    assert relu == fingerprint(network(nn.ReLU))
    assert len({relu, fingerprint(network(nn.Tanh)), fingerprint(network(nn.ReLU, 0.5))}) == 3


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.unused, self.last = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


class Other(Functional):
    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


def test_what_a_users_forward_does_is_in_the_fingerprint():
    one, two = (SearchSpace.from_model(kind, input_shape=(4,), name="x") for kind in (Functional, Other))
    assert one.network != two.network


def test_a_layer_that_does_not_reach_the_output_is_no_layer_of_the_space():
    space = SearchSpace.from_model(Functional, input_shape=(4,), name="x")
    assert [layer.name for layer in space.layers] == ["first", "last"]


class ByHand(nn.Module):
    """Uses a layer's weight without calling the layer, as attention does with its output projection."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return nn.functional.linear(torch.relu(self.first(x)), self.last.weight)


def test_a_layer_used_without_being_called_counts():
    space = SearchSpace.from_model(ByHand, input_shape=(4,), name="x")
    assert [layer.name for layer in space.layers] == ["first", "last"]
