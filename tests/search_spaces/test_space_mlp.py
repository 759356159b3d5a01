import pytest
import torch

from snas import InputError
from snas.search_spaces.mlp import mlp


def build(shape=(6,), classes=3, seed=0, **options):
    return mlp(shape, classes, **options).build(generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("hidden_layers", [1, 2, 3, 4, 7])
def test_layers(hidden_layers):
    space = mlp((1, 2, 3), 5, hidden_layers=hidden_layers, width=7)
    assert [layer.shape for layer in space.layers] == [(7, 6)] + [(7, 7)] * (hidden_layers - 1) + [(5, 7)]
    assert all(layer.positions == 1 for layer in space.layers)


def test_defaults_are_the_dissertation_s():
    space = mlp((3, 32, 32), 10)
    assert space.arguments == {
        "hidden_layers": 4,
        "width": 3076,
        "activation": "prelu",
        "dropout": 0.0,
        "batch_norm": True,
        "skip": True,
    }
    assert (space.nonlinearity, space.learning_rate, space.dimensions) == ("prelu", 0.01, 5)


def test_pairs_share_a_density_as_a_block():
    space = mlp((6,), 3, hidden_layers=5, width=4).with_options(representation="block")
    assert space.coordinates == ((0, 1), (2, 3), (4,), (5,))


def test_a_pair_is_the_identity_plus_its_cells():
    torch.manual_seed(0)
    model = build(hidden_layers=4, width=4, activation="relu").eval()
    pair = model.blocks[1]
    x = torch.rand(5, 4)
    with torch.no_grad():
        hidden = torch.relu(pair.first.norm(pair.first.linear(x)))
        torch.testing.assert_close(pair(x), torch.relu(pair.second.norm(pair.second.linear(hidden)) + x))
        pair.second.norm.weight.zero_()
        torch.testing.assert_close(pair(x), x)  # x >= 0, which relu leaves as it is


@pytest.mark.parametrize(
    ("options", "joined"),
    [
        ({"width": 4}, [False, True]),
        ({"width": 6}, [True, True]),  # as wide as the input
        ({"width": 6, "skip": False}, [False, False]),
    ],
)
def test_which_pairs_have_a_skip_connection(options, joined):
    model = build(hidden_layers=4, batch_norm=False, activation="relu", **options).eval()
    x = torch.rand(2, 6)
    for block, expected in zip(model.blocks, joined, strict=True):
        with torch.no_grad():
            block.second.linear.weight.zero_()
            block.second.linear.bias.zero_()
            out = block(x)
        assert torch.equal(out, x if expected else torch.zeros_like(out))
        x = torch.rand(2, options["width"])


def test_an_odd_last_cell_stands_alone():
    model = build(hidden_layers=3, width=4, activation="relu").eval()
    with torch.no_grad():
        model.blocks[1].norm.weight.zero_()
        assert torch.equal(model.blocks[1](torch.rand(2, 4)), torch.zeros(2, 4))


def test_biases_and_dropout():
    with_norm, without = build(), build(batch_norm=False, dropout=0.5)
    assert [name for name, _ in with_norm.named_parameters() if name.endswith("linear.bias")] == []
    assert sum(name.endswith("linear.bias") for name, _ in without.named_parameters()) == 4
    assert with_norm.classifier.bias is not None
    without.train()
    x = torch.rand(1, 10)
    cell = without.blocks[1].second
    dropped = [(cell(x) == 0).sum().item() for _ in range(20)]
    assert 0 < sum(dropped) < 200
    without.eval()
    assert (cell(x) == 0).sum() == 0


@pytest.mark.parametrize("activation", ["prelu", "relu", "swish", "elu", "srelu", "sigmoid", "tanh"])
def test_gradients_reach_every_parameter(activation):
    model = build((1, 4, 4), 3, hidden_layers=5, width=8, activation=activation)
    x = 2 * torch.randn(16, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    out = model(x)
    assert out.shape == (16, 3)
    out.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        # SReLU starts with slope 1 above its upper threshold, which therefore does not matter yet.
        assert parameter.grad.any() or name.endswith("activation.upper"), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_layers": 0}, "argument 'hidden_layers' of space 'mlp' is 0; expected an integer, 1 to 64"),
        ({"hidden_layers": 65}, "is 65; expected an integer, 1 to 64"),
        ({"hidden_layers": 2.0}, "is 2.0; expected an integer"),
        ({"width": 0}, "argument 'width' of space 'mlp' is 0; expected an integer, at least 1"),
        ({"dropout": 1.0}, "is 1.0; expected 0 <= dropout < 1"),
        ({"dropout": -0.1}, "expected 0 <= dropout < 1"),
        ({"dropout": float("nan")}, "expected 0 <= dropout < 1"),
        ({"activation": "gelu"}, "activation is 'gelu'; choices: prelu"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        mlp((6,), 3, **options)


def test_64_hidden_layers():
    assert mlp((6,), 3, hidden_layers=64, width=2).dimensions == 65
