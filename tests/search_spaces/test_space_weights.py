"""Recurrent layers and attention are found, with the positions that hand counts and torch's own counter give."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode

from snas import InputError
from snas.densities import Layer
from snas.search_spaces.base import SearchSpace
from snas.search_spaces.inspection import fingerprint, inspect_network
from snas.search_spaces.weights import weights_in


class Reader(nn.Module):
    """A recurrent layer reads (batch, steps, 3); its last output is classified."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn
        self.head = nn.LazyLinear(2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Loop(nn.Module):
    """A cell called once per step."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Attention(nn.Module):
    """Attention of the first two tokens to all five."""

    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **options)
        self.head = nn.Linear(8, 2)
        self.options = options

    def forward(self, x):
        keys = x[..., : self.options.get("kdim", 4)]
        values = x[..., : self.options.get("vdim", 4)]
        return self.head(self.attention(x[:, :2], keys, value=values)[0].flatten(1))


def inspect(factory, shape, *, real=False):
    def build():
        if real:
            assert torch.ones(1).item() == 1  # raises on "meta"
        return factory()

    return list(inspect_network(build, shape, name="x")[0])


both = pytest.mark.parametrize("real", [False, True], ids=["meta", "real"])


@both
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers(kind, gates, real):
    found = inspect(lambda: Reader(kind(3, 4, batch_first=True)), (5, 3), real=real)
    assert found == [
        Layer("rnn.weight_ih_l0", (4 * gates, 3), "rnn.weight_ih_l0", 5),
        Layer("rnn.weight_hh_l0", (4 * gates, 4), "rnn.weight_hh_l0", 5),
        Layer("head", (2, 4)),
    ]


@both
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_layers_directions_and_projections(real):
    def factory():
        return Reader(nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, batch_first=True))

    found = {layer.name.removeprefix("rnn."): (layer.shape, layer.positions) for layer in inspect(factory, (5, 3))}
    assert found.pop("head") == ((2, 4), 1)
    for way in ("", "_reverse"):
        assert found.pop(f"weight_ih_l0{way}") == ((16, 3), 5)
        assert found.pop(f"weight_ih_l1{way}") == ((16, 4), 5)
        for layer in (0, 1):
            assert found.pop(f"weight_hh_l{layer}{way}") == ((16, 2), 5)
            assert found.pop(f"weight_hr_l{layer}{way}") == ((2, 4), 5)
    assert found == {}
    assert inspect(factory, (5, 3), real=real) == inspect(factory, (5, 3))


@both
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_cells_count_each_call(kind, gates, real):
    found = inspect(lambda: Loop(kind(3, 4)), (5, 3), real=real)
    assert [(layer.name, layer.shape, layer.positions) for layer in found] == [
        ("cell.weight_ih", (4 * gates, 3), 5),
        ("cell.weight_hh", (4 * gates, 4), 5),
        ("head", (2, 4), 1),
    ]


def test_packed_sequences_count_what_they_hold():
    class Packed(Reader):
        def forward(self, x):
            lengths = torch.full((len(x),), 3, device="cpu")
            packed = pack_padded_sequence(x, lengths, batch_first=True)
            return self.head(self.rnn(packed)[1][-1])

    found = inspect(lambda: Packed(nn.GRU(3, 4, batch_first=True)), (5, 3), real=True)
    assert [layer.positions for layer in found] == [3, 3, 1]


@both
def test_attention_with_one_width(real):
    """2 queries, 5 keys and 5 values: (2 + 5 + 5) / 3 = 4 on average; the output layer has the queries' 2."""
    assert inspect(Attention, (5, 4), real=real) == [
        Layer("attention.in_proj_weight", (12, 4), "attention.in_proj_weight", 4),
        Layer("attention.out_proj", (4, 4), positions=2),
        Layer("head", (2, 8)),
    ]


@both
def test_attention_with_widths_of_their_own(real):
    found = inspect(lambda: Attention(kdim=3, vdim=2), (5, 4), real=real)
    assert [(layer.name, layer.shape, layer.positions) for layer in found] == [
        ("attention.q_proj_weight", (4, 4), 2),
        ("attention.k_proj_weight", (4, 3), 5),
        ("attention.v_proj_weight", (4, 2), 5),
        ("attention.out_proj", (4, 4), 2),
        ("head", (2, 8), 1),
    ]


@both
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_s_flops_are_torch_s_but_for_the_attention_itself(batch_first, real):
    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=batch_first)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            y = self.encoder(x if batch_first else x.transpose(0, 1))
            return self.head(y.mean(1 if batch_first else 0))

    layers = inspect(Transformer, (5, 8), real=real)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Transformer().train()(torch.zeros(1, 5, 8))  # in training mode: not fused into one operation
    attention = 2 * 2 * (2 * 5 * 5 * 8)  # two layers; queries times keys and weights times values
    assert 2 * sum(layer.total * layer.positions for layer in layers) == counter.get_total_flops() - attention
    assert [layer.positions for layer in layers] == [5] * 8 + [1]


def test_the_fused_path_of_transformers_is_left_as_it_was():
    before = torch.backends.mha.get_fastpath_enabled()
    inspect(Attention, (5, 4))
    assert torch.backends.mha.get_fastpath_enabled() is before


def test_a_recurrent_layer_that_is_not_called_is_no_layer():
    class Spare(Reader):
        def __init__(self):
            super().__init__(nn.GRU(3, 4, batch_first=True))
            self.spare = nn.LSTM(3, 4)
            self.other = nn.MultiheadAttention(4, 2)

    assert [layer.name for layer in inspect(Spare, (5, 3))] == ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "head"]


def test_a_recurrent_layer_shared_by_two_is_used_by_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.GRU(4, 4, batch_first=True)
            self.two = self.one
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.two(self.one(x)[0])[0][:, -1])

    assert [(layer.name, layer.positions) for layer in inspect(Twice, (5, 4))] == [
        ("one.weight_ih_l0", 10),
        ("one.weight_hh_l0", 10),
        ("head", 1),
    ]


def test_computed_weights_are_left_out():
    def normalized():
        rnn = nn.RNN(3, 4, batch_first=True)
        return Reader(parametrizations.weight_norm(rnn, "weight_hh_l0"))

    assert [layer.name for layer in inspect(normalized, (5, 3))] == ["rnn.weight_ih_l0", "head"]


def test_patterns_reach_the_weights_of_a_recurrent_layer():
    space = SearchSpace.from_model(
        lambda: Reader(nn.LSTM(3, 4, batch_first=True)),
        input_shape=(5, 3),
        name="x",
        groups={"rnn.*": "rnn"},
        pinned={"*.weight_ih_l0": 1.0},
    )
    assert space.with_options(representation="block").densities([0.5, 1.0]).kept == (48, 32, 8)
    model = space.build(generator=torch.Generator().manual_seed(0))
    assert [model.get_parameter(layer.parameter).shape for layer in space.layers] == [(16, 3), (16, 4), (2, 4)]


def test_blocks_of_every_kind():
    def blocks(module):
        return {weight.name: weight.blocks for weight in weights_in(module)}

    assert blocks(nn.LSTM(3, 4, proj_size=2)) == {"weight_ih_l0": 4, "weight_hh_l0": 4, "weight_hr_l0": 1}
    assert blocks(nn.GRUCell(3, 4, bias=False)) == {"weight_ih": 3, "weight_hh": 3}
    assert blocks(nn.MultiheadAttention(4, 2)) == {"in_proj_weight": 3}
    assert set(blocks(nn.MultiheadAttention(4, 2, kdim=3)).values()) == {1}
    assert blocks(nn.Conv1d(4, 6, 3, groups=2)) == {"weight": 2}
    assert blocks(nn.LayerNorm(4)) == {}
    assert blocks(nn.Embedding(4, 4)) == {}


def test_biases_belong_to_their_weights():
    lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    for weight in weights_in(lstm):
        assert weight.bias is getattr(lstm, weight.name.replace("weight", "bias"))
    assert {weight.bias for weight in weights_in(nn.GRU(3, 4, bias=False))} == {None}
    attention = nn.MultiheadAttention(4, 2, kdim=3)
    assert all(weight.bias is attention.in_proj_bias for weight in weights_in(attention))


def test_the_number_of_heads_and_the_order_of_norms_are_in_the_fingerprint():
    def encoder(heads, **options):
        return nn.TransformerEncoderLayer(8, heads, 12, **options)

    prints = [fingerprint(encoder(2)), fingerprint(encoder(4)), fingerprint(encoder(2, norm_first=True))]
    prints += [fingerprint(encoder(2, activation="gelu")), fingerprint(nn.LSTM(8, 4)), fingerprint(nn.GRU(8, 4))]
    assert len(set(prints)) == len(prints)
    assert fingerprint(encoder(2)) == prints[0]


def test_a_network_without_any():
    with pytest.raises(InputError, match="expected a Linear, Conv1d/2d/3d, recurrent or attention layer"):
        inspect(nn.Flatten, (4,))
