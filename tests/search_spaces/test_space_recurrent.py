import pytest
import torch
from torch import nn

import snas
from snas import InputError
from snas.initialization.variance import initialize
from snas.masks import Enforcer, Masks, audit, choose
from snas.search_spaces import open_space
from snas.search_spaces.base import SearchSpace
from snas.search_spaces.recurrent import RowReader


def by_equations(model, x):
    """An LSTM or GRU written out, one step and one gate at a time ([Hochreiter1997] with forget gates; [Cho2014])."""
    weights = {name.removeprefix("rnn.").removesuffix("_l0"): value for name, value in model.named_parameters()}
    hidden = torch.zeros(len(x), model.classifier.in_features)
    memory = torch.zeros_like(hidden)
    for row in range(x.shape[2]):
        step = x[:, :, row].reshape(len(x), -1) @ weights["embed.weight"].T + weights["embed.bias"]
        a = (step @ weights["weight_ih"].T + weights["bias_ih"]).split(hidden.shape[1], 1)
        b = (hidden @ weights["weight_hh"].T + weights["bias_hh"]).split(hidden.shape[1], 1)
        if len(a) == 4:
            taken, kept, new, shown = (p + q for p, q in zip(a, b, strict=True))
            memory = kept.sigmoid() * memory + taken.sigmoid() * new.tanh()
            hidden = shown.sigmoid() * memory.tanh()
        else:
            reset, kept = (a[0] + b[0]).sigmoid(), (a[1] + b[1]).sigmoid()
            hidden = (1 - kept) * (a[2] + reset * b[2]).tanh() + kept * hidden
    return hidden @ weights["classifier.weight"].T + weights["classifier.bias"]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_network_by_its_equations(cell):
    torch.manual_seed(0)
    model, x = RowReader(2 * 5, 3, cell, 4), torch.randn(6, 2, 7, 5)
    with torch.no_grad():
        torch.testing.assert_close(model(x), by_equations(model, x))


@pytest.mark.parametrize("name", ["lstm-s", "lstm-b", "gru-s", "gru-b"])
def test_layers(name):
    space = open_space(name, input_shape=(1, 28, 28), classes=10)
    units = 128 if name.endswith("s") else 256
    gates = 4 if name.startswith("lstm") else 3
    assert [(layer.name, layer.shape, layer.positions) for layer in space.layers] == [
        ("embed", (units, 28), 28),
        ("rnn.weight_ih_l0", (gates * units, units), 28),
        ("rnn.weight_hh_l0", (gates * units, units), 28),
        ("classifier", (10, units), 1),
    ]
    assert space.with_options(representation="block").coordinates == ((0,), (1, 2), (3,))


def test_wrong_use():
    with pytest.raises(InputError, match="space 'lstm-s' takes images"):
        open_space("lstm-s", input_shape=(64,), classes=10)
    with pytest.raises(InputError, match="argument 'units' of space 'gru-b' is 0; expected an integer, at least 1"):
        open_space("gru-b", input_shape=(1, 8, 8), classes=10, arguments={"units": "0"})


def test_masked_weights_of_an_lstm_stay_zero_in_training():
    space = open_space("lstm-s", input_shape=(1, 4, 5), classes=3, arguments={"units": 6})
    model = space.build(generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    scores = {layer.name: torch.rand(layer.shape, generator=generator) for layer in space.layers}
    masks = choose(scores, space.densities([0.3] * 4), generator=generator)
    masks.apply(model)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    enforcer = Enforcer(model, masks)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    x, y = torch.randn(8, 1, 4, 5, generator=generator), torch.arange(8) % 3
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        enforcer.mask_gradients()
        optimizer.step()
        enforcer.mask_weights()
    audit(model, masks)
    for layer in space.layers:
        weight, mask = model.get_parameter(layer.parameter).detach(), masks[layer.name]
        assert not weight[~mask].any()
        assert (weight != before[layer.parameter])[mask].all()
    # What runs is what was masked: the layer keeps no second copy of its weights.
    with torch.no_grad():
        torch.testing.assert_close(model(x), by_equations(model, x))


class Transformer(nn.Module):
    """Rows of an 8x8 image as tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x):
        return self.classifier(self.encoder(self.embed(x.squeeze(1))).mean(1))


@pytest.mark.parametrize("name", ["lstm-s", "gru-s", "transformer"])
def test_pruned_and_trained_on_digits(name, tmp_path):
    if name == "transformer":
        space = SearchSpace.from_model(Transformer, input_shape=(1, 8, 8), name=name, learning_rate=0.05)
    else:
        space = open_space(name, input_shape=(1, 8, 8), classes=10, arguments={"units": 24})
    result = snas.prune(space, method="snip", density=0.3, epochs=2, final_seeds=1, registry=tmp_path / "snas.db")
    assert result.densities.kept_weights == round(0.3 * space.total_weights)
    assert min(result.densities.kept) > 0
    assert result.test_accuracy > 0.3  # a guess has 0.1


def test_a_mask_of_another_network_is_refused():
    lstm = open_space("lstm-s", input_shape=(1, 4, 5), classes=3, arguments={"units": 6})
    gru = open_space("gru-s", input_shape=(1, 4, 5), classes=3, arguments={"units": 6})
    with pytest.raises(InputError, match=r"weight 'rnn.weight_ih_l0' has shape \(18, 6\); expected \(24, 6\)"):
        Masks.dense(lstm.layers).apply(gru.build(generator=torch.Generator().manual_seed(0)))


# Initial weights


def initialized(module, rule, nonlinearity="linear"):
    initialize(module, rule=rule, nonlinearity=nonlinearity, generator=torch.Generator().manual_seed(0))
    return module


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_orthogonal_gate_by_gate(kind):
    rnn = initialized(kind(5, 8), "orthogonal")
    for gate in rnn.weight_hh_l0.detach().split(8):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8))
    for gate in rnn.weight_ih_l0.detach().split(8):
        torch.testing.assert_close(gate.T @ gate, torch.eye(5))


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRUCell, 3), (nn.RNN, 1)])
def test_fans_of_one_gate(kind, gates):
    """200 columns and 300 rows per gate: he 2 / 200 with ReLU, glorot 2 / 500."""
    for rule, variance in (("he", 2 / 200), ("glorot", 2 / 500), ("lecun", 1 / 200)):
        weight = next(initialized(kind(200, 300), rule, "relu").parameters()).detach()
        assert weight.shape == (300 * gates, 200)
        assert weight.var().item() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.LSTMCell])
def test_biases_are_zero_but_for_the_forget_gate(kind):
    torch.manual_seed(0)
    options = {"num_layers": 2, "bidirectional": True} if kind is nn.LSTM else {}
    lstm = initialized(kind(3, 2, **options), "he")
    biases = {name: value.tolist() for name, value in lstm.named_parameters() if name.startswith("bias")}
    assert len(biases) == (8 if options else 2)
    for name, values in biases.items():
        assert values == [0, 0, "ih" in name, "ih" in name, 0, 0, 0, 0], name
    assert not any(value.any() for name, value in initialized(nn.GRU(3, 2), "he").named_parameters() if "bias" in name)


def test_queries_keys_and_values_are_three_matrices():
    attention = initialized(nn.MultiheadAttention(8, 2), "orthogonal")
    for part in (*attention.in_proj_weight.detach().split(8), attention.out_proj.weight.detach()):
        torch.testing.assert_close(part @ part.T, torch.eye(8))
    assert not attention.in_proj_bias.any()
    with torch.no_grad():
        attention.in_proj_bias.fill_(1.0)
    assert not initialized(attention, "glorot").in_proj_bias.any()


def test_as_built_is_left():
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 2)
    before = [value.clone() for value in lstm.parameters()]
    assert all(map(torch.equal, initialized(lstm, "as-built").parameters(), before))
