"""Ways through perceptrons by their graphs: the same as what copies of the networks tell, which know no graph."""

import pytest
import torch
from torch import nn

from snas.densities import Layer
from snas.diagnostics import active_paths
from snas.errors import InputError
from snas.masks import Masks
from snas.pruning import paths
from snas.pruning.walks import Walks
from snas.search_spaces.lenet import lenet_300_100
from snas.search_spaces.mlp import mlp
from snas.search_spaces.perceptron import perceptron


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


SPACES = {
    "pairs with skip connections": lambda: mlp((1, 2, 3), 3, hidden_layers=5, width=6),
    "pairs without": lambda: mlp((1, 2, 3), 3, hidden_layers=4, width=7, skip=False, activation="relu"),
    "without normalization": lambda: mlp((1, 2, 3), 3, hidden_layers=4, width=7, batch_norm=False, activation="swish"),
    "elu": lambda: mlp((1, 2, 3), 3, hidden_layers=3, width=7, activation="elu"),
    "sigmoid": lambda: mlp((1, 2, 3), 3, hidden_layers=3, width=7, activation="sigmoid"),
    "plain": lambda: perceptron((1, 2, 3), 4, activation="tanh", layers=5, width=6),
    "linear": lambda: perceptron((1, 2, 3), 4, activation="linear", layers=4, width=6),
    "lenet": lambda: lenet_300_100((1, 2, 3), 3),
}


def masked(space, seed, density):
    """A network with factors of its own everywhere, and masks, masked weights zero."""
    generator = seeded(seed)
    model = space.build(generator=generator)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor += torch.rand(tensor.shape, generator=generator)
    layers = space.layers
    masks = Masks(layers, {layer.name: torch.rand(layer.shape, generator=generator) < density for layer in layers})
    masks.apply(model)
    return model, masks


def by_copy(monkeypatch, ask):
    """What the copy tells, where there is no other way."""
    with monkeypatch.context() as patch:
        patch.setattr(Walks, "of", classmethod(lambda *_, **__: None))
        return ask()


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("density", [0.03, 0.1, 0.2, 0.5, 1.0])
def test_walks_and_copies_tell_the_same(name, density, monkeypatch):
    space = SPACES[name]()
    if name == "lenet":
        density /= 10
    x = torch.zeros(1, 1, 2, 3)
    for seed in range(6):
        model, masks = masked(space, seed, density)
        assert Walks.of(model, masks, (1, 2, 3)) is not None
        found = active_paths.path_signals(model, masks, x)
        expected = by_copy(monkeypatch, lambda m=model, k=masks: active_paths.path_signals(m, k, x))
        assert found.keys() == expected.keys()
        for signal in ("width", "effective"):
            assert found.pop(signal) == expected.pop(signal)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)
        leads = paths.has_path(model, masks, input_shape=(1, 2, 3))
        assert leads == by_copy(monkeypatch, lambda m=model, k=masks: paths.has_path(m, k, input_shape=(1, 2, 3)))


def test_both_answers_are_met():
    answers = {
        paths.has_path(*masked(SPACES[name](), seed, density), input_shape=(1, 2, 3))
        for name in ("plain", "elu")
        for seed in range(6)
        for density in (0.03, 0.5)
    }
    assert answers == {True, False}


def test_layers_without_a_mask_are_all_ways(monkeypatch):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    layer = Layer("2", (5, 5))
    masks = Masks([layer], {"2": torch.rand(5, 5, generator=seeded()) < 0.2})
    masks.apply(model)
    x = torch.zeros(1, 4)
    found = active_paths.path_signals(model, masks, x)
    assert found == pytest.approx(by_copy(monkeypatch, lambda: active_paths.path_signals(model, masks, x)), rel=1e-12)
    assert 10 ** found["paths"] == pytest.approx(4 * masks.kept.kept_weights * 2)


class Own(nn.Linear):
    """Somebody else's code."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(Own(4, 4), nn.ReLU(), nn.Linear(4, 2)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.SELU(), nn.Linear(4, 2)),  # not 1 for positive signals
        lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 2)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval(),
    ],
)
def test_other_networks_are_looked_at_by_copies(make):
    layers = (Layer("0", (4, 4)), Layer("2", (2, 4)))
    assert Walks.of(make(), Masks.dense(layers), (4,)) is None


def test_masks_of_another_network_are_refused_as_ever():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    for layer in (Layer("0", (4, 3)), Layer("1", (4, 4))):
        masks = Masks.dense([layer])
        assert Walks.of(model, masks, (4,)) is None
        with pytest.raises(InputError):
            active_paths.path_signals(model, masks, torch.zeros(1, 4))


def test_walking_leaves_the_network_alone():
    model, masks = masked(SPACES["pairs with skip connections"](), 0, 0.3)
    before = {name: (value.clone(), value._version) for name, value in model.state_dict(keep_vars=True).items()}
    active_paths.path_signals(model, masks, torch.zeros(1, 1, 2, 3))
    for name, value in model.state_dict(keep_vars=True).items():
        assert torch.equal(value, before[name][0])
        assert value._version == before[name][1]
        assert value.grad is None
