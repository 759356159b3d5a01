"""Masks keep exactly the counted weights, and masked weights stay exactly zero whatever the optimizer."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snas.densities import Densities, Layer
from snas.errors import DivergedError, InputError, SnasError
from snas.masks import Enforcer, Masks, audit, best, choose, is_not_zero, units, zero_masked

LAYERS = (Layer("conv", (4, 2, 3, 3)), Layer("fc", (3, 16)))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Network(nn.Module):
    """Convolution, normalization, classifier: everything with a bias."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))


def make_network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network()


def random_masks(kept=(20, 12), seed=1):
    scores = {layer.name: torch.rand(layer.shape, generator=seeded(seed)) for layer in LAYERS}
    return choose(scores, Densities(LAYERS, kept), generator=seeded(seed))


# Masks


def test_masks_count_what_they_keep():
    masks = Masks([Layer("fc", (2, 2))], {"fc": torch.tensor([[True, False], [True, True]])})
    assert masks.kept.counts == {"fc": 3}
    assert list(masks) == ["fc"]
    assert len(masks) == 1


def test_checksum_is_sha256_of_name_shape_and_bits():
    masks = Masks([Layer("fc", (2, 2))], {"fc": torch.tensor([[True, False], [True, True]])})
    by_hand = hashlib.sha256(b"fc\0(2, 2)\0" + bytes([0b10110000])).hexdigest()
    assert masks.checksum() == by_hand


def test_checksum_tells_masks_shapes_and_names_apart():
    ones = torch.ones(2, 8, dtype=torch.bool)
    flipped = ones.clone()
    flipped[1, 7] = False
    sums = {
        Masks([Layer("a", (2, 8))], {"a": ones}).checksum(),
        Masks([Layer("a", (2, 8))], {"a": flipped}).checksum(),
        Masks([Layer("a", (4, 4))], {"a": ones.reshape(4, 4)}).checksum(),
        Masks([Layer("b", (2, 8))], {"b": ones}).checksum(),
    }
    assert len(sums) == 4


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 2**32))
def test_packed_masks_come_back(rows, columns, seed):
    layer = Layer("fc", (rows, columns))
    masks = Masks([layer], {"fc": torch.rand(rows, columns, generator=seeded(seed)) < 0.5})
    packed = masks.pack()
    assert packed["fc"].dtype == torch.uint8
    assert len(packed["fc"]) == -(-rows * columns // 8)
    again = Masks.unpack([layer], packed)
    assert torch.equal(again["fc"], masks["fc"])
    assert again == masks
    assert hash(again) == hash(masks)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "no mask for layer 'fc'"),
        ({"fc": torch.ones(2, 2)}, "torch.float32 of shape"),
        ({"fc": torch.ones(4, dtype=torch.bool)}, r"expected torch.bool of shape \(2, 2\)"),
        ({"fc": torch.ones(2, 2, dtype=torch.bool), "fd": torch.ones(1)}, "unknown layer 'fd'"),
    ],
)
def test_wrong_masks_are_refused(masks, message):
    with pytest.raises(InputError, match=message):
        Masks([Layer("fc", (2, 2))], masks)


def test_packed_mask_of_wrong_length_is_refused():
    with pytest.raises(InputError, match="not of 2 bytes"):
        Masks.unpack([Layer("fc", (3, 3))], {"fc": torch.zeros(1, dtype=torch.uint8)})


def test_apply_zeroes_masked_weights_and_nothing_else():
    model, masks = make_network(), random_masks()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks.apply(model)
    for name, value in model.state_dict().items():
        mask = masks.get(name.removesuffix(".weight"))
        expected = before[name] if mask is None else torch.where(mask, before[name], 0.0)
        assert torch.equal(value, expected), name


def test_masks_of_another_network_are_refused():
    masks = Masks.dense([Layer("gone", (2, 2))])
    with pytest.raises(InputError, match=r"no weight 'gone.weight'"):
        masks.apply(make_network())
    with pytest.raises(InputError, match="has shape"):
        Masks.dense([Layer("fc", (2, 2))]).apply(make_network())


# choose


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.data())
def test_exactly_the_counted_best_are_kept(values, data):
    kept = data.draw(st.integers(0, len(values)))
    layer = Layer("fc", (1, len(values)))
    scores = torch.tensor([values], dtype=torch.float32)
    mask = choose({"fc": scores}, Densities((layer,), (kept,)), generator=seeded())["fc"]
    assert int(mask.sum()) == kept
    assert sorted(scores[mask].tolist(), reverse=True) == sorted(values, reverse=True)[:kept]


def test_best_of_infinite_values():
    assert best(np.array([-np.inf, 0.0, np.inf]), 2, generator=seeded()).tolist() == [False, True, True]


def test_ties_are_broken_uniformly():
    """Two of six equal scores, 3000 times: every weight is kept about 1000 times (standard deviation 26)."""
    layer, generator = Layer("fc", (1, 7)), seeded(3)
    scores = {"fc": torch.tensor([[9.0, 1, 1, 1, 1, 1, 1]])}
    total = torch.zeros(7)
    for _ in range(3000):
        total += choose(scores, Densities((layer,), (3,)), generator=generator)["fc"][0]
    assert total[0] == 3000
    squares = ((total[1:] - 1000) ** 2 / (3000 * (1 / 3) * (2 / 3))).sum()
    assert 0.1 < squares < 20  # about chi-square with 5 degrees of freedom


def test_ties_are_reproducible_and_depend_on_the_seed():
    layer = Layer("fc", (10, 10))
    scores, densities = {"fc": torch.zeros(10, 10)}, Densities((layer,), (50,))
    first, again, other = (choose(scores, densities, generator=seeded(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_one_layers_count_does_not_change_anothers_mask():
    scores = {layer.name: torch.zeros(layer.shape) for layer in LAYERS}
    few = choose(scores, Densities(LAYERS, (5, 12)), generator=seeded())
    many = choose(scores, Densities(LAYERS, (50, 12)), generator=seeded())
    assert torch.equal(few["fc"], many["fc"])
    assert bool((few["conv"] <= many["conv"]).all())  # and masks of one seed are nested


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_scores_of_any_type(dtype):
    scores = {"fc": torch.tensor([[1, 4, 2, 3]], dtype=dtype)}
    masks = choose(scores, Densities((Layer("fc", (1, 4)),), (2,)), generator=seeded())
    assert masks["fc"].tolist() == [[False, True, False, True]]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"fc": torch.tensor([[1.0, float("nan")]])}, "1 scores of layer 'fc' are NaN"),
        ({"fc": torch.ones(2, 1)}, "have shape"),
        ({"fd": torch.ones(1, 2)}, "no scores for layer 'fc'"),
    ],
)
def test_wrong_scores_are_refused(scores, message):
    with pytest.raises(InputError, match=message):
        choose(scores, Densities((Layer("fc", (1, 2)),), (1,)), generator=seeded())


# Training

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, weight_decay=0.1),
    "rmsprop-momentum": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True, weight_decay=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, weight_decay=0.1),
}


def backward(model, step):
    x = torch.randn(8, 2, 4, 4, generator=seeded(step))
    y = torch.randint(3, (8,), generator=seeded(step))
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masked_weights_are_zero_after_every_step(name):
    model, masks = make_network(), random_masks()
    masks.apply(model)
    optimizer, enforcer = OPTIMIZERS[name](model.parameters()), Enforcer(model, masks)
    start = {layer.name: model.get_parameter(layer.parameter).clone() for layer in LAYERS}
    for step in range(25):
        backward(model, step)
        enforcer.mask_gradients()
        optimizer.step()
        enforcer.mask_weights()
        for layer in LAYERS:
            weight, mask = model.get_parameter(layer.parameter), masks[layer.name]
            assert torch.count_nonzero(weight[~mask]) == 0
            for key, moment in optimizer.state[weight].items():
                if torch.is_tensor(moment) and moment.shape == weight.shape:
                    assert torch.count_nonzero(moment[~mask]) == 0, key
        audit(model, masks)
    for layer in LAYERS:
        kept = masks[layer.name]
        moved = model.get_parameter(layer.parameter)[kept] != start[layer.name][kept]
        assert moved.float().mean() > 0.9


def test_without_enforcement_masked_weights_move():
    model, masks = make_network(), random_masks()
    masks.apply(model)
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    backward(model, 0)
    optimizer.step()
    with pytest.raises(SnasError, match=r"layer 'conv' has \d+ of its 52 masked weights not zero"):
        audit(model, masks)


def test_weights_are_enforced_against_moments_from_elsewhere():
    """A state restored from an unmasked run has momenta at masked places; the weights stay zero all the same."""
    model, masks = make_network(), random_masks()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    backward(model, 0)
    optimizer.step()
    masks.apply(model)
    enforcer = Enforcer(model, masks)
    backward(model, 1)
    enforcer.mask_gradients()
    optimizer.step()
    enforcer.mask_weights()
    audit(model, masks)


def test_only_masked_gradients_change():
    model, masks = make_network(), random_masks()
    backward(model, 0)
    before = {name: value.grad.clone() for name, value in model.named_parameters()}
    Enforcer(model, masks).mask_gradients()
    for name, value in model.named_parameters():
        mask = masks.get(name.removesuffix(".weight"))
        expected = before[name] if mask is None else before[name] * mask
        assert torch.equal(value.grad, expected), name
        assert mask is not None or torch.count_nonzero(value.grad) > 0, name


def test_parameters_without_gradient_are_left_out():
    model, masks = make_network(), random_masks()
    masks.apply(model)
    enforcer = Enforcer(model, masks)
    enforcer.mask_gradients()
    enforcer.mask_weights()
    assert model.conv.weight.grad is None


def test_enforcement_of_channels_last_weights():
    model, masks = make_network().to(memory_format=torch.channels_last), random_masks()
    masks.apply(model)
    kept = model.conv.weight.detach().clone()
    Enforcer(model, masks).mask_weights()
    assert torch.equal(model.conv.weight, kept)
    audit(model, masks)


def test_enforcer_wants_masks():
    with pytest.raises(InputError, match=r"expected snas\.masks\.Masks"):
        Enforcer(make_network(), {})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_audit_tells_divergence_from_a_broken_mask(value):
    model, masks = make_network(), random_masks()
    masks.apply(model)
    with torch.no_grad():
        model.fc.weight.fill_(value)
    with pytest.raises(DivergedError, match="layer 'fc' has weights that are NaN or infinite"):
        audit(model, masks)


def test_audit_passes_a_dense_network():
    audit(make_network(), Masks.dense(LAYERS))


NUMBERS = [0.0, -0.0, 1.5, -2.0, float("nan"), float("inf"), -float("inf"), 1e-42]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_what_is_masked_becomes_zero_whatever_it_was(dtype):
    """Compared bit by bit with `torch.where`: no minus zero is left, and what is kept is the same NaN."""
    values = torch.tensor(NUMBERS * 2, dtype=dtype).reshape(4, 4).T  # not contiguous
    mask = (torch.arange(16) < 8).reshape(4, 4).T
    expected = torch.where(mask, values, torch.zeros((), dtype=dtype))
    weight = nn.Parameter(values.clone(memory_format=torch.preserve_format))
    zero_masked(weight, mask)
    of_bits = torch.view_as_real if dtype.is_complex else lambda x: x
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[of_bits(values.contiguous()).element_size()]
    found, wanted = (of_bits(one.detach().contiguous()).view(bits) for one in (weight, expected))
    assert torch.equal(found, wanted)
    assert weight.requires_grad
    assert weight.grad_fn is None


def test_numbers_that_are_kept_as_minus_others_are_masked_too():
    values = torch._neg_view(torch.tensor([1.0, 2.0]))
    zero_masked(values, torch.tensor([True, False]))
    assert values.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_numbers_that_are_not_zero(dtype):
    values = torch.tensor(NUMBERS, dtype=dtype)
    assert is_not_zero(values).tolist() == (values != 0).tolist()
    assert is_not_zero(nn.Parameter(values.reshape(2, 4).T)).tolist() == (values.reshape(2, 4).T != 0).tolist()


def test_kept_inputs_of_units():
    mask = torch.rand(5, 4, 3, generator=seeded()) < 0.5
    assert units(mask).tolist() == [sum(map(sum, unit)) for unit in mask.long().tolist()]
    assert units(mask.double()).tolist() == units(mask).tolist()
    assert (2 * units(torch.ones(1, 2**20, dtype=torch.bool))).tolist() == [2**21]
