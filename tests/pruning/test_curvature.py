"""GraSP and optimal brain damage beyond what small networks in test_independent_scores show."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from snas.densities import Layer
from snas.masks import Masks
from snas.pruning.scores import Batch, scores


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)
    ).double()
    generator = seeded(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return model


LAYERS = [Layer("0", (3, 2, 3, 3)), Layer("4", (5, 12)), Layer("6", (3, 5))]
X = torch.randn(9, 2, 4, 4, generator=seeded(1), dtype=torch.float64) + 1
Y = torch.randint(3, (9,), generator=seeded(2))


def normalized(values):
    total = sum(value.abs().sum() for value in values)
    return {layer.name: value / total for layer, value in zip(LAYERS, values, strict=True)}


@pytest.mark.parametrize("tracked", [True, False])
def test_obd_holds_the_batchs_statistics(tracked):
    """A loop over single examples, with BatchNorm written as the constant factor and shift that it then is."""
    model = network()
    if not tracked:
        model[1] = nn.BatchNorm2d(3, track_running_stats=False).double()
    conv = functional.conv2d(X, model[0].weight, model[0].bias).detach()
    mean, spread = conv.mean((0, 2, 3)), (conv.var((0, 2, 3)) + model[1].eps).sqrt()
    weights = [model.get_parameter(layer.parameter) for layer in LAYERS]
    diagonal = [torch.zeros_like(weight) for weight in weights]
    for x in X.split(1):
        hidden = functional.conv2d(x, model[0].weight, model[0].bias)
        hidden = (hidden - mean.reshape(-1, 1, 1)) / spread.reshape(-1, 1, 1)
        z = model[2:](hidden * model[1].weight.reshape(-1, 1, 1) + model[1].bias.reshape(-1, 1, 1))[0]
        p = z.detach().softmax(0)
        slopes = [torch.autograd.grad(z[c], weights, retain_graph=True) for c in range(3)]
        for j, total in enumerate(diagonal):
            middle = sum(p[c] * slopes[c][j] for c in range(3))
            total += sum(p[c] * (slopes[c][j] - middle).square() for c in range(3))
    expected = normalized([w.detach().square() * h for w, h in zip(weights, diagonal, strict=True)])
    result = scores.get("obd")(model, LAYERS, Batch(X, Y), generator=seeded())
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, rtol=1e-9, atol=1e-15)


def test_obd_does_not_look_at_labels():
    model = network()
    first, again = (scores.get("obd")(model, LAYERS, Batch(X, y), generator=seeded()) for y in (Y, 2 - Y))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_obd_by_hand():
    """By hand: logits (w1 x1 + w2 x2, 0) have p (1 - p) x_j^2 as second derivative in w_j, whatever the class."""
    model = nn.Linear(2, 2, bias=False).double()
    model.load_state_dict({"weight": torch.tensor([[1.0, -2.0], [0.0, 0.0]])})
    x = torch.tensor([[1.0, 1.0], [3.0, 0.5]], dtype=torch.float64)
    p = torch.sigmoid(x @ torch.tensor([1.0, -2.0], dtype=torch.float64))
    diagonal = (p * (1 - p)) @ x.square() / 2
    expected = diagonal * torch.tensor([1.0, 4.0], dtype=torch.float64) / 2
    result = scores.get("obd")(model, [Layer("fc", (2, 2), "weight")], Batch(x, Y[:2]), generator=seeded())["fc"]
    torch.testing.assert_close(result, torch.stack((expected, 0 * expected)) / expected.sum())


def test_grasp_by_hand():
    """Loss -log sigmoid(w x / 200): slope -(1 - s) x / 200 and curvature s (1 - s) (x / 200)^2."""

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 1, bias=False)
            self.fc.load_state_dict({"weight": torch.tensor([[3.0, -1.0]])})
            self.double()

        def forward(self, x):
            return torch.cat((self.fc(x), torch.zeros(len(x), 1, dtype=x.dtype)), 1)

    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    w = torch.tensor([3.0, -1.0], dtype=torch.float64)
    s = torch.sigmoid(w @ x / 200)
    slope, curvature = -(1 - s) * x / 200, s * (1 - s) * torch.outer(x, x) / 200**2
    expected = w * (curvature @ slope)
    result = scores.get("grasp")(One(), [Layer("fc", (1, 2))], Batch(x[None], Y[:1] * 0), generator=seeded())["fc"]
    torch.testing.assert_close(result[0], expected / expected.abs().sum())
    assert result[0, 0] < 0 < result[0, 1]


def test_grasp_leaves_gone_weights_out_of_the_gradients_norm():
    """Explicit Hessian of the weights that are left; those that are gone are kept by nobody, whatever their score."""
    model = network().eval()
    masks = Masks(LAYERS, {x.name: torch.rand(x.shape, generator=seeded(8)) < 0.6 for x in LAYERS})
    mask = torch.cat([masks[layer.name].flatten() for layer in LAYERS]).double()
    weights = [model.get_parameter(layer.parameter).detach() for layer in LAYERS]
    flat = torch.cat([weight.flatten() for weight in weights]) * mask

    def loss(w):
        a, b, c = (part.reshape(x.shape) for part, x in zip(w.split([54, 60, 15]), LAYERS, strict=True))
        hidden = functional.batch_norm(
            functional.conv2d(X, a, model[0].bias), None, None, model[1].weight, model[1].bias, training=True
        )
        hidden = functional.linear(hidden.relu().flatten(1), b, model[4].bias).relu()
        return functional.cross_entropy(functional.linear(hidden, c, model[6].bias) / 200, Y)

    (slope,) = torch.autograd.grad(loss(flat.requires_grad_()), flat)
    matrix = torch.autograd.functional.hessian(loss, flat.detach())
    expected = flat.detach() * (matrix @ (mask * slope))
    result = scores.get("grasp")(model, LAYERS, Batch(X, Y, masks=masks), generator=seeded())
    ours = torch.cat([result[layer.name].flatten() for layer in LAYERS]) * mask
    torch.testing.assert_close(ours / ours.abs().sum(), expected / expected.abs().sum(), rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize("score", ["grasp", "obd"])
def test_a_network_whose_weights_do_not_matter(score):
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return torch.zeros(len(x), 3)

    result = scores.get(score)(Constant(), [Layer("fc", (2, 2))], Batch(torch.ones(4, 2), Y[:4]), generator=seeded())
    assert torch.count_nonzero(result["fc"]) == 0


def test_small_numbers_do_not_vanish():
    """Gradients around 1e-25, whose squares single precision does not have."""
    model = nn.Linear(2, 2, bias=False)
    model.load_state_dict({"weight": torch.tensor([[2.0, 1.0], [1.0, 3.0]])})
    layers, x = [Layer("fc", (2, 2), "weight")], torch.tensor([[1.0, 2.0]])
    for score in ("snip", "obd"):
        plain, tiny = (
            scores.get(score)(model, layers, Batch(x * scale, Y[:1]), generator=seeded())["fc"]
            for scale in (1e-6, 1e-15)
        )
        torch.testing.assert_close(plain, tiny, rtol=1e-3, atol=0)
