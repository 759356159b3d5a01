"""A network is refused where it cannot work, and only there. The cases are small enough to trace by eye."""

import pytest
import torch
from torch import nn

from snas.densities import Layer
from snas.errors import RefusedError
from snas.masks import Masks
from snas.pruning.paths import has_path, require_trainable

CHAIN = [Layer("first", (2, 2)), Layer("second", (2, 2))]
MEETING = [[True, False], [False, False]], [[True, False], [False, False]]
CUT = [[True, False], [False, False]], [[False, True], [False, True]]  # first feeds unit 0, second reads unit 1


class Chain(nn.Module):
    """Two layers, with what the test puts between, after or around them."""

    def __init__(self, between=None, after=None, skip=False):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.between, self.after, self.skip = between or nn.Identity(), after or nn.Identity(), skip

    def forward(self, x):
        y = self.second(self.between(self.first(x)))
        return self.after(y + x if self.skip else y)


def masks_of(layers, values):
    return Masks(layers, {layer.name: torch.tensor(v) for layer, v in zip(layers, values, strict=True)})


BETWEEN = {
    "nothing": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "prelu": nn.PReLU,
    "relu6": nn.ReLU6,
    "batch norm": lambda: nn.BatchNorm1d(2),
    "dropout": lambda: nn.Dropout(0.5),
}


@pytest.mark.parametrize("between", BETWEEN)
def test_a_chain_is_cut_where_masks_do_not_meet(between):
    model = Chain(BETWEEN[between]())
    require_trainable(model, masks_of(CHAIN, MEETING), input_shape=(2,))
    with pytest.raises(RefusedError, match="no path of kept weights leads from the input to the output"):
        require_trainable(model, masks_of(CHAIN, CUT), input_shape=(2,))


@pytest.mark.parametrize("between", [nn.LayerNorm(2), nn.RMSNorm(2), nn.GroupNorm(1, 2)])
def test_normalization_over_units_connects_them(between):
    """Unit 0's signal reaches unit 1 through the mean, or the size, that both are normalized by."""
    require_trainable(Chain(between), masks_of(CHAIN, CUT), input_shape=(2,))


def test_normalization_over_groups_connects_those_within_a_group():
    masks = masks_of(CHAIN, CUT)
    assert not has_path(Chain(nn.GroupNorm(2, 2)), masks, input_shape=(2,))
    emptied = masks_of(CHAIN, ([[False, False], [False, False]], CUT[1]))
    assert not has_path(Chain(nn.LayerNorm(2)), emptied, input_shape=(2,))


def test_a_skip_connection_leads_around_the_cut():
    require_trainable(Chain(nn.ReLU(), skip=True), masks_of(CHAIN, CUT), input_shape=(2,))


@pytest.mark.parametrize("after", [nn.LogSoftmax(1), nn.Softmax(1)])
def test_a_normalized_output(after):
    model = Chain(nn.ReLU(), after)
    require_trainable(model, masks_of(CHAIN, MEETING), input_shape=(2,))
    one_source = [[True, False], [False, False]], [[True, False], [True, False]]  # all outputs read the same unit
    require_trainable(model, masks_of(CHAIN, one_source), input_shape=(2,))
    with pytest.raises(RefusedError):
        require_trainable(model, masks_of(CHAIN, CUT), input_shape=(2,))


def test_an_emptied_layer_is_named():
    masks = masks_of(CHAIN, (MEETING[0], [[False, False], [False, False]]))
    with pytest.raises(RefusedError, match="layer 'second' keeps none of its 4 weights"):
        require_trainable(Chain(skip=True), masks, input_shape=(2,))


def test_the_model_is_left_as_it_is():
    model = Chain(nn.BatchNorm1d(2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    require_trainable(model, masks_of(CHAIN, MEETING), input_shape=(2,))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert "forward" not in vars(model.between)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.first.weight.grad is None


def test_initial_weights_do_not_matter():
    model = Chain(nn.ReLU())
    with torch.no_grad():
        model.first.weight.fill_(-1.0)
        model.first.bias.fill_(-100.0)
    require_trainable(model, masks_of(CHAIN, MEETING), input_shape=(2,))


def test_the_check_does_not_apply_where_the_dense_network_fails_it():
    class Detached(Chain):
        def forward(self, x):
            return super().forward(x.round())  # its gradient is zero, masks or not

    require_trainable(Detached(), masks_of(CHAIN, CUT), input_shape=(2,))


def test_the_check_does_not_apply_where_the_network_cannot_be_probed():
    class Single(Chain):
        def forward(self, x):
            return super().forward(x @ torch.eye(2, dtype=torch.float32))  # wants single precision

    require_trainable(Single(), masks_of(CHAIN, CUT), input_shape=(2,))


def test_max_pooling():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2))
    layers = [Layer("0", (2, 1, 1, 1)), Layer("4", (2, 2))]
    keep = torch.tensor([True, False])
    met = Masks(layers, {"0": keep.reshape(2, 1, 1, 1), "4": keep.expand(2, 2)})
    cut = Masks(layers, {"0": keep.reshape(2, 1, 1, 1), "4": ~keep.expand(2, 2)})
    require_trainable(model, met, input_shape=(1, 2, 2))
    with pytest.raises(RefusedError, match="no path"):
        require_trainable(model, cut, input_shape=(1, 2, 2))


def test_a_strided_convolution_reads_every_other_place():
    """A 1x1 convolution of stride 2 after a 3x3 one: whatever tap the first keeps, its output at (0, 0) is read."""
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 1, stride=2), nn.Flatten())
    layers = [Layer("0", (1, 1, 3, 3)), Layer("1", (1, 1, 1, 1))]
    for place in range(9):
        tap = (torch.arange(9) == place).reshape(1, 1, 3, 3)
        masks = Masks(layers, {"0": tap, "1": torch.ones(1, 1, 1, 1, dtype=torch.bool)})
        require_trainable(model, masks, input_shape=(1, 4, 4))


def test_a_tap_that_reads_only_padding_leads_nowhere():
    """On a 1x1 image, a 3x3 kernel that keeps a corner sees zeros only."""
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten())
    layers = [Layer("0", (1, 1, 3, 3))]
    for place in range(9):
        tap = (torch.arange(9) == place).reshape(1, 1, 3, 3)
        assert has_path(model, Masks(layers, {"0": tap}), input_shape=(1, 1, 1)) == (place == 4)


class Block(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.norm_one, self.norm_two, self.activation = nn.BatchNorm2d(2), nn.BatchNorm2d(2), activation

    def forward(self, x):
        return self.activation(x + self.norm_two(self.two(self.activation(self.norm_one(self.one(x))))))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.SiLU()])
def test_depth_of_110_layers(activation):
    """One unit is kept in every layer; skip connections lead around the blocks, not around the stem and the head."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), *[Block(activation) for _ in range(54)], nn.Flatten(), nn.Linear(8, 2)
    )
    layers = [
        Layer(name, tuple(module.weight.shape))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    assert len(layers) == 110
    masks = {layer.name: torch.zeros(layer.shape, dtype=torch.bool) for layer in layers}
    for layer in layers[:-1]:
        masks[layer.name][0, 0, 1, 1] = True
    met = {**masks, "56": (torch.arange(8) == 0).expand(2, 8)}
    cut = {**masks, "56": (torch.arange(8) == 7).expand(2, 8)}
    require_trainable(model, Masks(layers, met), input_shape=(1, 2, 2))
    with pytest.raises(RefusedError, match="no path"):
        require_trainable(model, Masks(layers, cut), input_shape=(1, 2, 2))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.SiLU])
def test_depth_without_skip_connections(activation):
    model = nn.Sequential(*[part for _ in range(110) for part in (nn.Linear(3, 3), activation())])
    layers = [Layer(str(2 * i), (3, 3)) for i in range(110)]
    diagonal = {layer.name: torch.eye(3, dtype=torch.bool) for layer in layers}
    require_trainable(model, Masks(layers, diagonal), input_shape=(3,))
    corner = torch.zeros(3, 3, dtype=torch.bool)
    corner[0, 0] = True
    cut = {**{layer.name: corner for layer in layers}, "110": corner.roll(1, 1)}
    with pytest.raises(RefusedError, match="no path"):
        require_trainable(model, Masks(layers, cut), input_shape=(3,))


def test_dense_layers_outside_the_masks_count_as_kept():
    model = Chain(nn.ReLU())
    for kept, expected in ((MEETING[1], True), ([[False, False], [False, False]], False)):
        masks = masks_of(CHAIN[1:], [kept])
        assert has_path(model, masks, input_shape=(2,)) is expected


class Reader(nn.Module):
    """A recurrent layer reads (batch, steps, 2); its last output is classified."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


RECURRENT = {"rnn": (nn.RNN, 1), "gru": (nn.GRU, 3), "lstm": (nn.LSTM, 4)}


def reader(kind, **kept):
    """The network and masks that keep everything but what is given, by the last part of the layer's name."""
    layer, gates = RECURRENT[kind]
    layers = [Layer(f"rnn.weight_{what}_l0", (2 * gates, 2), f"rnn.weight_{what}_l0") for what in ("ih", "hh")] + [
        Layer("head", (2, 2))
    ]
    masks = {one.name: torch.ones(one.shape, dtype=torch.bool) for one in layers}
    masks.update({name if name == "head" else f"rnn.weight_{name}_l0": mask for name, mask in kept.items()})
    return Reader(layer(2, 2, batch_first=True)), Masks(layers, masks)


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("steps", [1, 28])
def test_recurrent_layers_pass_the_input_on(kind, steps):
    model, masks = reader(kind)
    assert has_path(model, masks, input_shape=(steps, 2))
    size = RECURRENT[kind][1] * 2
    model, masks = reader(kind, ih=torch.zeros(size, 2, dtype=torch.bool))
    assert not has_path(model, masks, input_shape=(steps, 2))
    model, masks = reader(kind, hh=torch.zeros(size, 2, dtype=torch.bool))
    assert has_path(model, masks, input_shape=(steps, 2))  # the last step sees the input itself


@pytest.mark.parametrize("kind", RECURRENT)
def test_the_state_carries_the_input_to_the_unit_that_is_read(kind):
    """The input reaches unit 0 alone, the output reads unit 1 alone: only the recurrent weight can join them."""
    gates = RECURRENT[kind][1]
    to_first = torch.tensor([[True, True], [False, False]]).repeat(gates, 1)
    across = torch.tensor([[False, False], [True, False]]).repeat(gates, 1)
    within = torch.tensor([[True, False], [False, True]]).repeat(gates, 1)
    from_second = torch.tensor([[False, True]] * 2)
    for hidden, steps, expected in ((across, 2, True), (across, 1, False), (within, 3, False)):
        model, masks = reader(kind, ih=to_first, hh=hidden, head=from_second)
        assert has_path(model, masks, input_shape=(steps, 2)) is expected


@pytest.mark.parametrize(("kind", "gate"), [(kind, gate) for kind in ("gru", "lstm") for gate in range(2)])
def test_a_gate_alone_is_a_path(kind, gate):
    """What a gate reads scales a value that the biases give. (A GRU's first gate scales the state: from step 2 on.)"""
    only = torch.zeros(RECURRENT[kind][1] * 2, 2, dtype=torch.bool)
    only[2 * gate : 2 * gate + 2] = True
    model, masks = reader(kind, ih=only)
    require_trainable(model, masks, input_shape=(3, 2))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_long_sequences_and_deep_stacks_keep_a_path(kind):
    model = Reader(kind(2, 2, num_layers=4, bidirectional=True, batch_first=True))
    model.head = nn.Linear(4, 2)
    layers = [Layer(name, tuple(value.shape), name) for name, value in model.named_parameters() if "weight" in name]
    diagonal = {one.name: (torch.arange(one.total) % 2 == 0).reshape(one.shape) for one in layers}
    assert has_path(model, Masks(layers, diagonal), input_shape=(300, 2))
    first = {f"rnn.weight_ih_l0{way}": torch.zeros_like(diagonal["rnn.weight_ih_l0"]) for way in ("", "_reverse")}
    assert not has_path(model, Masks(layers, {**diagonal, **first}), input_shape=(300, 2))


class Attention(nn.Module):
    """Attention of five tokens to each other, around which nothing leads."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_attention_needs_its_values_and_its_output():
    layers = [
        Layer("attention.in_proj_weight", (12, 4), "attention.in_proj_weight"),
        Layer("attention.out_proj", (4, 4)),
        Layer("head", (2, 4)),
    ]

    def path(rows, outputs=4):
        joint = torch.zeros(12, 4, dtype=torch.bool)
        joint[rows] = True
        out = torch.zeros(4, 4, dtype=torch.bool)
        out[:outputs] = True
        head = torch.ones(2, 4, dtype=torch.bool)
        masks = Masks(layers, {"attention.in_proj_weight": joint, "attention.out_proj": out, "head": head})
        return has_path(Attention(), masks, input_shape=(5, 4))

    queries, keys, values = slice(0, 4), slice(4, 8), slice(8, 12)
    assert path(slice(0, 12))
    assert path(values)
    assert not path(slice(0, 8)), "every value is the same constant: how it is weighed does not matter"
    assert not path(queries)
    assert not path(keys)
    assert not path(slice(0, 12), outputs=0)


@pytest.mark.parametrize("seed", range(40))
def test_random_masks_of_wide_layers_against_products_of_their_matrices(seed):
    """Layers of more weights than there are different numbers in the copy; a quarter of the networks have a path."""
    rng = torch.Generator().manual_seed(seed)
    sizes = (500, 530, 510, 3)
    layers = [Layer(str(i), (sizes[i + 1], sizes[i])) for i in range(3)]
    masks = {layer.name: torch.zeros(layer.shape, dtype=torch.bool) for layer in layers}
    for layer, kept in zip(layers, (150, 150, 6), strict=True):
        masks[layer.name].view(-1)[torch.randperm(layer.total, generator=rng)[:kept]] = True
    model = nn.Sequential(*[nn.Linear(sizes[i], sizes[i + 1]) for i in range(3)])
    reached = torch.ones(sizes[0], dtype=torch.float64)
    for mask in masks.values():
        reached = mask.double() @ reached
    assert has_path(model, Masks(layers, masks), input_shape=(500,)) == bool(reached.any())
