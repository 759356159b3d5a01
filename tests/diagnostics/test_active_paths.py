"""Paths, width and flow: against whole numbers, explicit walks and products of matrices."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from snas.densities import Layer
from snas.diagnostics.active_paths import path_signals
from snas.masks import Masks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def masks_of(model, density=0.4, seed=0):
    layers = tuple(
        Layer(name, tuple(module.weight.shape), parameter=f"{name}.weight")
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    )
    generator = seeded(seed)
    masks = Masks(layers, {layer.name: torch.rand(layer.shape, generator=generator) < density for layer in layers})
    masks.apply(model)
    return masks


def perceptron(*widths):
    pairs = list(itertools.pairwise(widths))
    return nn.Sequential(*(part for a, b in pairs for part in (nn.Linear(a, b), nn.Tanh())))


@pytest.mark.parametrize("seed", range(5))
def test_a_perceptrons_paths_are_counted_in_whole_numbers(seed):
    model = perceptron(7, 6, 5, 6, 3)
    masks = masks_of(model, 0.35, seed)
    found = path_signals(model, masks, torch.zeros(2, 7))
    matrices = [mask.int().tolist() for mask in masks.values()]
    reach = [1] * 7  # paths that end in each unit
    before = [[value > 0 for value in reach]]
    for matrix in matrices:
        reach = [sum(w * r for w, r in zip(row, reach, strict=True)) for row in matrix]
        before.append([value > 0 for value in reach])
    assert 10 ** found["paths"] == pytest.approx(sum(reach), rel=1e-9)
    after = [[True] * 3]  # whether a unit leads to an output
    for matrix in reversed(matrices):
        after.insert(0, [any(row[j] and after[0][i] for i, row in enumerate(matrix)) for j in range(len(matrix[0]))])
    shares, used, kept = [], 0, 0
    for level, matrix in enumerate(matrices):
        active = [a and b for a, b in zip(before[level + 1], after[level + 1], strict=True)]
        shares.append(sum(active) / len(active))
        kept += sum(map(sum, matrix))
        used += sum(
            w and before[level][j] and after[level + 1][i] for i, row in enumerate(matrix) for j, w in enumerate(row)
        )
    assert found["width"] == pytest.approx(sum(shares) / len(shares))
    assert found["effective"] == pytest.approx(used / kept)
    assert 0 < found["width"] < 1


def test_flow_is_the_product_of_absolute_weights():
    model = perceptron(5, 4, 3)
    masks = masks_of(model, 0.7)
    product = model[2].weight.detach().double().abs() @ model[0].weight.detach().double().abs()
    assert 10 ** path_signals(model, masks, torch.zeros(1, 5))["synflow"] == pytest.approx(float(product.sum()))


def test_a_convolutions_paths_are_counted_at_every_position():
    """With padding, a stride and an average at the end; a walk over all positions counts the same."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 2, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 4),
    )
    with torch.no_grad():
        model[1].running_var.fill_(9.0)  # a factor that is no path
    masks = masks_of(model, 0.5)
    first, second, last = (mask.int().numpy() for mask in masks.values())

    def convolve(signal, kernel, stride):
        size = signal.shape[1]
        out = np.zeros((len(kernel), len(range(0, size, stride)), len(range(0, size, stride))))
        for o, i, y, x, dy, dx in itertools.product(*map(range, (*out.shape[:1], len(signal), *out.shape[1:], 3, 3))):
            row, column = y * stride + dy - 1, x * stride + dx - 1
            if 0 <= row < size and 0 <= column < size:
                out[o, y, x] += kernel[o, i, dy, dx] * signal[i, row, column]
        return out

    hidden = convolve(convolve(np.ones((2, 6, 6)), first, 1), second, 2)
    total = (last @ hidden.mean((1, 2))).sum()
    assert 10 ** path_signals(model, masks, torch.zeros(1, 2, 6, 6))["paths"] == pytest.approx(total)


def test_a_skip_connection_is_a_way_of_its_own():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.out(x + self.b(torch.relu(self.a(x))))

    model = Block()
    masks = masks_of(model, 0.6)
    a, b, out = (mask.int().numpy() for mask in masks.values())
    count = (out @ (np.eye(3, dtype=int) + b @ a)).sum()
    assert 10 ** path_signals(model, masks, torch.zeros(1, 3))["paths"] == pytest.approx(count)


def test_what_is_added_is_no_path():
    """An offset of the network's own (a position's embedding) reaches the output, but does not come from the input."""

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.ones(4))
            self.out = nn.Linear(4, 2)

        def forward(self, x):
            return self.out(x + self.position)

    model = Shifted()
    masks = masks_of(model, 0.6)
    found = path_signals(model, masks, torch.zeros(1, 4))
    assert 10 ** found["paths"] == pytest.approx(masks.kept.kept_weights)


def test_counts_beyond_a_double_and_beyond_reach():
    deep = nn.Sequential(*(nn.Linear(100, 100) for _ in range(200)))  # 10^400 paths, times 100 inputs
    found = path_signals(deep, masks_of(deep, 1.0), torch.zeros(1, 100))
    assert found["paths"] == pytest.approx(402)
    assert found["width"] == found["effective"] == 1
    deeper = nn.Sequential(*(nn.Linear(100, 100) for _ in range(310)))
    found = path_signals(deeper, masks_of(deeper, 1.0), torch.zeros(1, 100))
    assert "paths" not in found
    assert found["width"] == 1
    assert all(math.isfinite(value) for value in found.values())


def test_where_no_path_leads_there_is_no_logarithm():
    model = perceptron(2, 2, 1)
    layers = (Layer("0", (2, 2), parameter="0.weight"), Layer("2", (1, 2), parameter="2.weight"))
    masks = Masks(layers, {"0": torch.tensor([[True, True], [False, False]]), "2": torch.tensor([[False, True]])})
    masks.apply(model)
    assert path_signals(model, masks, torch.zeros(1, 2)) == {"width": 0.0, "effective": 0.0}


def test_weights_without_a_mask_are_all_ways():
    model = perceptron(3, 4, 2)
    layer = Layer("0", (4, 3), parameter="0.weight")
    masks = Masks([layer], {"0": torch.rand(4, 3, generator=seeded()) < 0.5})
    found = path_signals(model, masks, torch.zeros(1, 3))
    assert 10 ** found["paths"] == pytest.approx(2 * masks.kept.kept_weights)


def test_recurrent_layers_and_attention_have_paths():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(4, 6, batch_first=True)
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
            self.out = nn.Linear(6, 3)

        def forward(self, x):
            x, _ = self.rnn(x)
            x, _ = self.attention(x, x, x)
            return self.out(x.mean(1))

    from snas.search_spaces.base import SearchSpace

    space = SearchSpace.from_model(Network, input_shape=(5, 4), name="mixed")
    model = space.build(generator=seeded())
    dense = path_signals(model, Masks.dense(space.layers), torch.zeros(1, 5, 4))
    assert set(dense) == {"synflow", "paths", "width", "effective"}
    assert dense["width"] == dense["effective"] == 1
    generator = seeded(1)
    some = Masks(space.layers, {x.name: torch.rand(x.shape, generator=generator) < 0.3 for x in space.layers})
    sparse = path_signals(model, some, torch.zeros(1, 5, 4))
    assert sparse["paths"] < dense["paths"]
    assert sparse["width"] <= 1
