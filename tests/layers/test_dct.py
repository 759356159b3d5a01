"""The layers' transform against scipy's cosine transform, and their place in the rest of the package."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from scipy.fft import dct
from torch import nn
from torch.nn import functional

from snas.data.arrays import from_arrays
from snas.data.split import split_data
from snas.densities import Layer
from snas.errors import InputError
from snas.layers.dct import DCTConv2d, DCTLinear, add_offsets, cosine_matrix, cosine_transform
from snas.masks import Enforcer, Masks, audit
from snas.pruning.methods import methods
from snas.pruning.prepare import prepare
from snas.pruning.scores import Batch
from snas.search_spaces.base import SearchSpace
from snas.training.checkpoints import Checkpoints
from snas.training.rule import TrainingRule
from snas.training.session import Session

SIZES = [(1, 1), (2, 1), (1, 2), (4, 4), (5, 5), (8, 3), (3, 8), (7, 6), (6, 7), (9, 5), (300, 100)]  # in, out


def scipy_matrix(inputs: int, outputs: int) -> torch.Tensor:
    """D from the transforms of unit vectors, shape (outputs, inputs)."""
    n = max(inputs, outputs)
    return torch.from_numpy(dct(np.eye(n), type=2, norm="ortho", axis=0)[:outputs, :inputs].copy())


def scipy_kernel(out: int, channels: int, height: int, width: int) -> torch.Tensor:
    """The convolution's D, entry by entry: pixel by pixel, and within a pixel channel by channel."""
    matrix = scipy_matrix(height * width * channels, out)
    kernel = torch.empty(out, channels, height, width, dtype=torch.float64)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                kernel[:, c, i, j] = matrix[:, (i * width + j) * channels + c]
    return kernel


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def filled(layer: nn.Module) -> nn.Module:
    """The layer in double precision with other parameters than it starts with."""
    layer.double()
    for number, parameter in enumerate(layer.parameters()):
        parameter.data = drawn(*parameter.shape, seed=number + 1)
    return layer


def layer_of(module: nn.Module, name: str) -> Layer:
    return Layer(name, tuple(module.get_submodule(name).weight.shape))


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_transform_is_scipys(inputs: int, outputs: int) -> None:
    x = drawn(3, 2, inputs)
    expected = x @ scipy_matrix(inputs, outputs).T
    torch.testing.assert_close(cosine_transform(x, outputs), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(cosine_matrix(outputs, inputs), scipy_matrix(inputs, outputs), atol=1e-12, rtol=0)


def test_transform_of_one_vector_and_in_single_precision() -> None:
    x = drawn(33)
    assert cosine_transform(x, 33).shape == (33,)
    single = cosine_transform(x.float(), 33)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), scipy_matrix(33, 33) @ x, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_rows_or_columns_are_orthonormal(inputs: int, outputs: int) -> None:
    matrix = cosine_matrix(outputs, inputs)
    gram = matrix @ matrix.T if outputs <= inputs else matrix.T @ matrix
    torch.testing.assert_close(gram, torch.eye(min(inputs, outputs), dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("inputs", "outputs"), [(7, 4), (4, 7), (6, 6)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_is_the_explicit_matrix(inputs: int, outputs: int, bias: bool) -> None:
    layer = filled(DCTLinear(inputs, outputs, bias=bias))
    x = drawn(5, 3, inputs, seed=9)
    weight = layer.weight + layer.scale * scipy_matrix(inputs, outputs)
    torch.testing.assert_close(layer(x), functional.linear(x, weight, layer.bias))
    first = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    second = torch.autograd.grad(functional.linear(x, weight, layer.bias).square().sum(), list(layer.parameters()))
    for ours, expected in zip(first, second, strict=True):
        torch.testing.assert_close(ours, expected)


CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (2, 3), "stride": 2, "bias": False},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 3, "padding": 1, "groups": 2},
    {"kernel_size": 3, "padding": (2, 1), "stride": (1, 2), "padding_mode": "circular"},
    {"kernel_size": 1},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("out", [2, 30])  # below and above the length of a patch
def test_convolution_is_one_with_the_explicit_kernel(options: dict, out: int) -> None:
    plain = filled(nn.Conv2d(4, out, **options))
    layer = DCTConv2d(4, out, **options, dtype=torch.float64)
    layer.load_state_dict({**plain.state_dict(), "scale": torch.tensor([0.7])})
    with torch.no_grad():
        plain.weight += 0.7 * scipy_kernel(*plain.weight.shape)
    x = drawn(2, 4, 7, 6, seed=9)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-6, atol=1e-6)  # 0.7 is stored in single precision


def test_convolution_is_the_transform_of_unfolded_patches() -> None:
    layer = DCTConv2d(3, 5, 2, bias=False, dtype=torch.float64)
    x = drawn(1, 3, 4, 4)
    result = layer(x)
    for i in range(3):
        for j in range(3):
            patch = x[0, :, i : i + 2, j : j + 2].permute(1, 2, 0).flatten()
            torch.testing.assert_close(result[0, :, i, j], cosine_transform(patch, 5))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (DCTLinear(5, 3), (2, 5)),
        (DCTLinear(3, 6), (2, 3)),
        (DCTConv2d(2, 4, 2, groups=2), (1, 2, 3, 3)),
    ],
    ids=["narrower", "wider", "convolution"],
)
def test_gradients_of_both_orders(layer: nn.Module, shape: tuple[int, ...]) -> None:
    names = [name for name, _ in filled(layer).named_parameters()]
    inputs = (drawn(*shape), *(parameter.detach().clone() for parameter in layer.parameters()))
    for tensor in inputs:
        tensor.requires_grad_()

    def call(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_a_new_layer_is_the_transform_alone() -> None:
    layer = DCTLinear(6, 4, bias=False)
    assert not layer.weight.any()
    assert layer.scale.tolist() == [1.0]
    assert layer.scale.requires_grad
    x = drawn(2, 6, dtype=torch.float32)
    torch.testing.assert_close(layer(x), cosine_transform(x, 4))


def test_the_transform_is_no_parameter_and_not_stored() -> None:
    layer = DCTConv2d(2, 3, 3)
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias", "scale"}
    assert set(layer.state_dict()) == {"weight", "bias", "scale"}
    other = DCTConv2d(2, 3, 3)
    filled(layer).float()
    other.load_state_dict(load(save(layer.state_dict())))
    x = drawn(1, 2, 5, 5, dtype=torch.float32)
    assert torch.equal(layer(x), other(x))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(16, 8, bias=False))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.norm(self.conv(x))))


def network() -> tuple[Network, list[Layer]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Network()
    return model, [layer_of(model, name) for name in ("conv", "body.2", "head")]


def test_offsets_keep_names_parameters_and_hooks() -> None:
    model, layers = network()
    before = dict(model.named_parameters())
    biases = {name: value.detach().clone() for name, value in before.items() if name.endswith("bias")}
    called = []
    model.head.register_forward_hook(lambda *_: called.append("head"))
    model.eval()
    add_offsets(model, layers)
    assert [type(model.get_submodule(layer.name)) for layer in layers] == [DCTConv2d, DCTLinear, DCTLinear]
    after = dict(model.named_parameters())
    assert set(after) - set(before) == {"conv.scale", "body.2.scale", "head.scale"}
    assert all(after[name] is parameter for name, parameter in before.items())
    assert not any(after[layer.parameter].any() for layer in layers)
    assert all(torch.equal(after[name], value) for name, value in biases.items())
    assert not model.conv.training
    model(drawn(2, 1, 4, 4, dtype=torch.float32))
    assert called == ["head"]
    assert "DCTConv2d(1, 4, kernel_size=(3, 3)" in repr(model)


def test_only_the_given_layers_change_and_again_is_the_same() -> None:
    model, layers = network()
    add_offsets(model, layers[1:2])
    assert [type(module).__name__ for module in (model.conv, model.body[2], model.head)] == [
        "Conv2d",
        "DCTLinear",
        "Linear",
    ]
    with torch.no_grad():
        model.body[2].scale.fill_(3.0)
        model.body[2].weight.fill_(1.0)
    add_offsets(model, layers[1:2])
    assert model.body[2].scale.tolist() == [1.0]
    assert not model.body[2].weight.any()


def test_a_network_that_is_one_layer() -> None:
    model = nn.Linear(4, 2)
    add_offsets(model, [Layer("weight", (2, 4), "weight")])
    assert type(model) is DCTLinear


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_training_keeps_masked_weights_zero_and_moves_the_rest(optimizer: type) -> None:
    model, layers = network()
    add_offsets(model, layers)
    generator = torch.Generator().manual_seed(1)
    masks = Masks(layers, {layer.name: torch.rand(layer.shape, generator=generator) < 0.2 for layer in layers})
    masks.apply(model)
    enforcer, steps = Enforcer(model, masks), optimizer(model.parameters(), lr=0.05, weight_decay=0.1)
    x, y = drawn(12, 1, 4, 4, dtype=torch.float32), torch.arange(12) % 3
    losses = []
    for _ in range(20):
        loss = functional.cross_entropy(model(x), y)
        losses.append(loss.item())
        steps.zero_grad()
        loss.backward()
        enforcer.mask_gradients()
        steps.step()
        enforcer.mask_weights()
    audit(model, masks)
    assert losses[-1] < 0.9 * losses[0]
    assert all(model.get_submodule(layer.name).scale.item() != 1.0 for layer in layers)
    for layer in layers:
        assert torch.equal(model.get_parameter(layer.parameter) != 0, masks[layer.name])


def test_a_copy_in_double_precision_computes_the_same_and_is_apart() -> None:
    model, layers = network()
    add_offsets(model, layers)
    model.eval()
    x = drawn(3, 1, 4, 4, dtype=torch.float32)
    twin = copy.deepcopy(model).double()
    torch.testing.assert_close(twin(x.double()).float(), model(x))
    with torch.no_grad():
        twin.head.scale.zero_()
        twin.conv.offset.zero_()
    assert model.head.scale.item() == 1.0
    assert model.conv.offset.any()


def test_half_precision() -> None:
    model, layers = network()
    add_offsets(model, layers)
    x = drawn(4, 1, 4, 4, dtype=torch.float32)
    model.eval()
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(x)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), exact, atol=0.05, rtol=0.05)
    mixed.sum().backward()
    assert model.head.scale.grad.dtype == torch.float32
    torch.testing.assert_close(model.bfloat16()(x.bfloat16()).float(), exact, atol=0.05, rtol=0.05)


def test_channels_last_changes_nothing() -> None:
    layer = filled(DCTConv2d(3, 4, 3))
    assert layer.offset.is_contiguous(memory_format=torch.channels_last)
    x = drawn(2, 3, 5, 5, seed=9)
    expected = layer(x)
    layer.weight.data = layer.weight.data.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("shape", [(0, 6), (6,), (2, 3, 6)])
def test_batches_of_any_shape(shape: tuple[int, ...]) -> None:
    layer = filled(DCTLinear(6, 4))
    x = drawn(*shape)
    weight = layer.weight + layer.scale * scipy_matrix(6, 4)
    torch.testing.assert_close(layer(x), functional.linear(x, weight, layer.bias))


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


REFUSED = [
    (lambda: nn.Sequential(nn.Conv1d(1, 2, 3)), "0", "its module is of type Conv1d"),
    (lambda: nn.Sequential(nn.utils.parametrizations.orthogonal(nn.Linear(2, 2))), "0", "no weight"),
    (tied, "0", "its weight is shared by modules '0', '1'"),
    (
        lambda: nn.Sequential(nn.MultiheadAttention(4, 2)),
        "0.out_proj",
        "its module is of type NonDynamicallyQuantizableLinear",
    ),
    (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8)),
        "0.linear1",
        "TransformerEncoderLayer reads its weights without calling it",
    ),
]


@pytest.mark.parametrize(("make", "name", "reason"), REFUSED)
def test_what_cannot_have_an_offset_is_refused(make, name: str, reason: str) -> None:
    model = make()
    with pytest.raises(InputError, match=reason):
        add_offsets(model, [layer_of(model, name)])


def test_recurrent_and_attention_weights_are_refused() -> None:
    for model, parameter in ((nn.LSTM(2, 3), "weight_ih_l0"), (nn.MultiheadAttention(4, 2), "in_proj_weight")):
        layer = Layer(parameter, tuple(model.get_parameter(parameter).shape), parameter)
        with pytest.raises(InputError, match=f"layer '{parameter}' cannot have a cosine offset"):
            add_offsets(model, [layer])


def test_a_refusal_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Conv1d(1, 2, 3))
    with pytest.raises(InputError, match="layer '1'"):
        add_offsets(model, [layer_of(model, "0"), layer_of(model, "1")])
    assert type(model[0]) is nn.Linear
    assert model[0].weight.any()


def test_unknown_weight_is_refused() -> None:
    with pytest.raises(InputError, match=r"no weight 'gone\.weight'"):
        add_offsets(nn.Sequential(nn.Linear(2, 2)), [Layer("gone", (2, 2))])


def sparse_session() -> Session:
    """The "dct" method on a small network of images, one weight in eight kept."""
    space = SearchSpace.from_model(
        lambda: nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)),
        input_shape=(1, 6, 6),
        name="net",
    )
    y = np.arange(60) % 3
    x = np.random.default_rng(0).normal(size=(60, 1, 6, 6)) + y[:, None, None, None]
    data = split_data(from_arrays(x.astype("f4"), y), seed=0)
    batch = Batch(data.train.x, data.train.y)
    sparse = prepare(space, methods.get("dct"), space.total_weights // 8, batch, seed=1)
    assert [int(mask.sum()) for mask in sparse.masks.values()] == [7, 35]
    assert not any(sparse.model.get_parameter(layer.parameter).any() for layer in space.layers)
    rule = TrainingRule(epochs=3, batch_size=16, lr=0.05)
    return Session(sparse.model, sparse.masks, rule, data, seed=1, device=torch.device("cpu"))


def test_the_method_trains_learns_and_resumes_to_the_bit(tmp_path) -> None:
    whole, part, restored = sparse_session(), sparse_session(), sparse_session()
    epochs = [whole.train_epoch() for _ in range(3)]
    assert epochs[-1].train_loss < epochs[0].train_loss
    checkpoints = Checkpoints(tmp_path)
    part.train_epoch()
    checkpoints.save("x", 1, part.tensors())
    restored.load_tensors(checkpoints.load("x", 1), 1)
    for expected in epochs[1:]:
        assert restored.train_epoch().validation_loss == expected.validation_loss
    for name, value in whole.tensors().items():
        assert torch.equal(value, restored.tensors()[name]), name
    assert "model/0.scale" in whole.tensors()
    assert not any("offset" in name for name in whole.tensors())
