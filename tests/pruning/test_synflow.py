"""Synaptic flow: conserved in every network, from every input shape, through whatever saturates or normalizes."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from snas.densities import Layer
from snas.errors import RefusedError
from snas.masks import Masks
from snas.pruning.scores import Batch, scores


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(factory, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory()


def layers_of(model):
    return [
        Layer(name, tuple(parameter.shape), name) for name, parameter in model.named_parameters() if parameter.ndim > 1
    ]


def synflow(model, shape, masks=None):
    batch = Batch(torch.full((2, *shape), torch.nan), torch.zeros(2), masks=masks)
    return scores.get("synflow")(model, layers_of(model), batch, generator=seeded())


class Functional(nn.Module):
    """Saturates by functions, methods and in place."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = torch.sigmoid(self.a(10 * x))
        x = functional.gelu(self.b(x)).tanh()
        x = functional.softplus(self.c(x)).clone().sigmoid_()
        return functional.log_softmax(self.d(x), dim=1)


ACTIVATIONS = [nn.Tanh, nn.Sigmoid, nn.SELU, nn.ELU, nn.SiLU, nn.GELU, nn.ReLU6, nn.PReLU, nn.Hardswish, nn.Softplus]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", [nn.Identity, lambda: nn.BatchNorm2d(6), lambda: nn.GroupNorm(2, 6)])
def test_every_layer_has_the_same_flow(activation, norm):
    model = make(
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3), norm(), activation(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 2), activation(), nn.Flatten(),
            nn.Linear(16, 5), nn.LayerNorm(5), activation(), nn.Linear(5, 3), nn.Softmax(1),
        )
    )  # fmt: skip
    result = synflow(model, (2, 8, 8))
    for value in result.values():
        assert float(value.sum()) == pytest.approx(1, rel=1e-12)
        assert bool((value >= 0).all())


def test_saturation_by_function_makes_no_difference():
    model = make(Functional)
    plain = nn.Sequential(model.a, model.b, model.c, model.d)
    ours, theirs = (list(synflow(network, (4,)).values()) for network in (model, plain))
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(ours, theirs, strict=True))
    assert float(torch.sigmoid(torch.zeros(()))) == 0.5


def test_skip_connections_carry_the_rest():
    """Half of the flow of a unit passes the branch where its gain is one; the layers around it have all."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.branch, self.last = (nn.Linear(2, 2, bias=False) for _ in range(3))
            with torch.no_grad():
                for layer in (self.first, self.branch, self.last):
                    layer.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 0.5]]))
                self.branch.weight.copy_(torch.eye(2))

        def forward(self, x):
            x = self.first(x)
            return self.last(x + self.branch(x))

    result = synflow(Residual(), (2,))
    sums = {name: float(value.sum()) for name, value in result.items()}
    assert sums == pytest.approx({"first.weight": 1.0, "branch.weight": 0.5, "last.weight": 1.0})


def test_batch_norm_has_its_evaluation_factor_and_no_shift():
    model = make(lambda: nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 1, bias=False)))
    model[1].load_state_dict(
        {
            "weight": torch.tensor([-2.0, 1.0]),
            "bias": torch.tensor([5.0, 5.0]),
            "running_mean": torch.tensor([3.0, 3.0]),
            "running_var": torch.tensor([1.0, 4.0]),
            "num_batches_tracked": torch.tensor(1),
        }
    )
    first, last = (model[i].weight.detach().double().abs() for i in (0, 2))
    factor = torch.tensor([2.0, 1.0]).double() / (torch.tensor([1.0, 4.0]).double() + 1e-5).sqrt()
    expected = (last[0] * factor)[:, None] * first
    torch.testing.assert_close(synflow(model, (2,))["0.weight"], expected / expected.sum())


def test_recurrent_flow_by_hand():
    """One unit, weights 2 (input) and 3 (state), read-out 1, three steps of one: h = 2, 2 + 6, 2 + 24 = 26.

    The input's weight has all of it. The state's has 3 * 2 of the second step, times 3, and 3 * 8 of the third: 42.
    """

    class Reader(nn.Module):
        def __init__(self, kind, gates):
            super().__init__()
            self.rnn, self.out = kind(1, 1, batch_first=True), nn.Linear(1, 1, bias=False)
            with torch.no_grad():
                self.rnn.weight_ih_l0.copy_(torch.full((gates, 1), -2.0))
                self.rnn.weight_hh_l0.copy_(torch.full((gates, 1), 3.0))
                self.out.weight.fill_(1)

        def forward(self, x):
            return self.out(self.rnn(x)[0][:, -1])

    for kind, gates in ((nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)):
        result = synflow(make(lambda kind=kind, gates=gates: Reader(kind, gates)), (3, 1))
        torch.testing.assert_close(result["rnn.weight_ih_l0"], torch.full((gates, 1), 1 / gates).double())
        torch.testing.assert_close(result["rnn.weight_hh_l0"], torch.full((gates, 1), 42 / 26 / gates).double())


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch says that its own kernel is the slow one
@pytest.mark.parametrize("options", [{"bidirectional": True}, {"num_layers": 3}, {"proj_size": 3}])
def test_recurrent_shapes_are_those_of_torch(options):
    """What stands for a recurrent layer returns outputs and states of the same shapes, batch first or not."""
    from snas.pruning.synflow import _recurrent

    for first in (True, False):
        module = nn.LSTM(4, 5, batch_first=first, **options)
        x = torch.rand(2, 7, 4)
        (output, (hidden, cell)), (expected, (h, c)) = _recurrent(module, x), module(x)
        assert (output.shape, hidden.shape, cell.shape) == (expected.shape, h.shape, c.shape)


def test_masked_weights_have_no_flow_and_stop_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    layers = layers_of(model)
    masks = Masks(
        layers,
        {"0.weight": torch.tensor([[True, False], [True, True]]), "1.weight": torch.tensor([[True, False]])},
    )
    result = synflow(model, (2,), masks)
    assert result["0.weight"].tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert result["1.weight"].tolist() == [[1.0, 0.0]]
    cut = Masks(layers, {**masks, "0.weight": torch.tensor([[False, False], [True, True]])})
    assert all(torch.count_nonzero(value) == 0 for value in synflow(model, (2,), cut).values())


def test_a_flow_beyond_double_precision_is_refused():
    model = nn.Sequential(*(nn.Linear(10, 10) for _ in range(12)))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(1e30)
    with pytest.raises(RefusedError, match="flow through this network is inf, beyond double precision"):
        synflow(model, (10,))


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_the_flow_of_very_small_and_large_weights(factor):
    """1e-200 and 1e200 in all, where single precision has neither."""
    model = make(lambda: nn.Sequential(*(nn.Linear(4, 4) for _ in range(10))))
    plain = synflow(model, (4,))
    with torch.no_grad():
        for layer in model:
            layer.weight.mul_(factor)
    scaled = synflow(model, (4,))
    assert all(torch.allclose(plain[name], scaled[name], rtol=1e-5) for name in plain)
