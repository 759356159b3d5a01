"""Each control changes what it says, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snas.pruning.methods import open_method
from snas.pruning.prepare import Sparse, prepare
from snas.pruning.scores import Batch
from snas.search_spaces.base import SearchSpace

SPACE = SearchSpace.from_model(
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)),
    input_shape=(1, 6, 6),
    name="controls",
)
_DRAW = torch.Generator().manual_seed(5)
BATCH = Batch(torch.randn(40, 1, 6, 6, generator=_DRAW), torch.randint(4, (40,), generator=_DRAW))


def made(method: str, initialization: str = "he") -> Sparse:
    return prepare(SPACE, open_method(method), 500, BATCH, seed=3, initialization=initialization)


def weights(sparse: Sparse) -> dict[str, torch.Tensor]:
    return {layer.name: sparse.model.get_parameter(layer.parameter).detach() for layer in sparse.masks.layers}


def overlap(first: Sparse, second: Sparse) -> float:
    """Share of the first mask's kept weights that the second keeps too."""
    same = sum(int((first.masks[name] & second.masks[name]).sum()) for name in first.masks)
    return same / first.densities.kept_weights


def test_shuffling_keeps_each_layers_count_and_moves_the_weights():
    plain, shuffled = made("snip"), made("snip:control=shuffle")
    assert shuffled.densities == plain.densities
    expected = (
        sum(k * k / layer.total for layer, k in zip(plain.densities.layers, plain.densities.kept, strict=True)) / 500
    )
    assert abs(overlap(plain, shuffled) - expected) < 0.1 < 1 - expected  # as two independent masks overlap


@pytest.mark.parametrize("initialization", ["he", "orthogonal", "as-built"])
def test_redrawing_keeps_the_mask_and_changes_every_kept_weight(initialization: str):
    plain, redrawn = made("snip", initialization), made("snip:control=redraw", initialization)
    assert redrawn.masks == plain.masks
    for name, weight in weights(redrawn).items():
        mask = plain.masks[name]
        assert bool((weight[mask] != weights(plain)[name][mask]).all())
        assert bool((weight[~mask] == 0).all())


def test_inverting_keeps_what_the_plain_method_drops():
    plain, inverted = made("snip"), made("snip:control=invert")
    assert inverted.densities.kept_weights == 500
    assert overlap(inverted, plain) == 0  # 500 of 1312 weights: the lowest scores are not among the highest


def test_controls_without_an_effect_on_the_mask_leave_the_weights_alone():
    plain, shuffled = made("magnitude"), made("magnitude:control=shuffle")
    both = {name: plain.masks[name] & shuffled.masks[name] for name in plain.masks}
    for name, kept in both.items():
        assert torch.equal(weights(plain)[name][kept], weights(shuffled)[name][kept])
