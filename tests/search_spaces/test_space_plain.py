"""VGG, AlexNet, Conv-6, Simple CNN and plain perceptrons: layers, sizes of image, arithmetic."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from snas import InputError
from snas.search_spaces import open_space
from snas.search_spaces.plain import divided
from snas.search_spaces.vgg import VARIANTS

SMALL = ["conv-6", "simple-cnn"]
NAMES = [*VARIANTS, "alexnet-s", "alexnet-b", *SMALL]


def opened(name, shape=(3, 32, 32), classes=10, **arguments):
    return open_space(name, input_shape=shape, classes=classes, arguments=arguments)


def built(space, seed=0):
    return space.build(generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (2, 1, 1), (1, 33, 20)])
@pytest.mark.parametrize("name", ["vgg-c", "vgg16", "alexnet-s", *SMALL])
def test_any_size_of_image(name, shape):
    """Built without values: the shapes are checked as the real network's would be."""
    space = opened(name, shape, 7)
    with torch.device("meta"):
        out = space.factory()(torch.zeros(2, *shape))
    assert out.shape == (2, 7)
    sizes = {
        "conv-6": ((2,) * 3, 256),
        "simple-cnn": ((2,) * 2, 64),
        "vgg-c": ((2,) * 5, 512),
        "vgg16": ((2,) * 5, 512),
    }
    steps, channels = sizes.get(name, ((2,) * 5, 256))
    first_linear = next(layer for layer in space.layers if len(layer.shape) == 2)
    assert first_linear.shape[1] == channels * divided(shape[1], *steps) * divided(shape[2], *steps)


@pytest.mark.parametrize("name", ["vgg-c", "alexnet-s", *SMALL])
def test_flops_equal_torch_s_own_count(name):
    space = opened(name, (3, 16, 16))
    with FlopCounterMode(display=False) as counter, torch.device("meta"), torch.no_grad():
        space.factory().eval()(torch.zeros(1, 3, 16, 16))
    assert space.densities([1.0] * space.dimensions).flops == counter.get_total_flops()


def test_the_third_kernels_of_vgg():
    kernels = {name: [layer.shape[2] for layer in opened(name).layers if len(layer.shape) == 4] for name in VARIANTS}
    assert kernels.pop("vgg-c") == [3, 3, 3, 3, 3, 3, 1, 3, 3, 1, 3, 3, 1]
    assert all(sizes == [3] * 13 for sizes in kernels.values())
    linear = {name: [layer.shape for layer in opened(name).layers if len(layer.shape) == 2] for name in VARIANTS}
    assert linear["vgg-d"] == linear["vgg-c"] == [(512, 512), (512, 512), (10, 512)]
    assert linear["vgg-like"] == [(512, 512), (10, 512)]
    assert linear["vgg16"] == linear["vgg16-bn"] == [(10, 512)]


@pytest.mark.parametrize("name", NAMES)
def test_normalization(name):
    with torch.device("meta"):
        modules = [type(module).__name__ for module in opened(name).factory().modules()]
    convolutions, linear = modules.count("Conv2d"), modules.count("Linear")
    plain = name in ("vgg16", *SMALL)
    assert modules.count("BatchNorm2d") == (0 if plain else convolutions)
    assert modules.count("BatchNorm1d") == (0 if plain else linear - 1)
    assert modules.count("ReLU") == convolutions + linear - 1
    assert modules.count("Dropout") == 0


def test_batch_norm_for_conv_6():
    with torch.device("meta"):
        modules = [type(module).__name__ for module in opened("conv-6", batch_norm="yes").factory().modules()]
    assert (modules.count("BatchNorm2d"), modules.count("BatchNorm1d")) == (6, 2)
    assert opened("conv-6").network != opened("conv-6", batch_norm="yes").network


@pytest.mark.parametrize(("name", "stages", "rest"), [("vgg-d", 5, 3), ("alexnet-b", 1, 3), ("conv-6", 3, 3)])
def test_blocks_are_stages(name, stages, rest):
    assert opened(name).with_options(representation="block").dimensions == stages + rest


@pytest.mark.parametrize(("name", "stride"), [("vgg-c", 2), ("alexnet-s", 4)])
def test_a_larger_first_stride_makes_up_for_larger_images(name, stride):
    """64x64 with the stride doubled has the layers of 32x32: [Lee2020b] tables 3.5 and 3.6, captions."""
    small, large = opened(name), opened(name, (3, 64, 64), stride=stride)
    assert [layer.shape for layer in small.layers] == [layer.shape for layer in large.layers]
    assert [layer.positions for layer in small.layers] == [layer.positions for layer in large.layers]


def test_simple_cnn_by_hand():
    model = built(opened("simple-cnn", (1, 5, 6), 3))
    x = torch.randn(2, 1, 5, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = x
        for stage in (model.stage1, model.stage2):
            conv = stage[0].conv
            patches = F.unfold(F.pad(y, (2, 2, 2, 2)), 5)  # "same": two pixels of zeros around
            y = (conv.weight.flatten(1) @ patches + conv.bias[:, None]).clamp(min=0).reshape(2, -1, *y.shape[2:])
            y = F.pad(y, (0, y.shape[3] % 2, 0, y.shape[2] % 2))  # nothing is below zero: padding changes no maximum
            y = y.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))
        fc1, classifier = model.fc1.linear, model.classifier
        hidden = (y.flatten(1) @ fc1.weight.T + fc1.bias).clamp(min=0)
        torch.testing.assert_close(model(x), hidden @ classifier.weight.T + classifier.bias)


def test_conv_6_has_the_shapes_of_published_densities():
    """Densities of one network pruned by SNIP to 5 %, as published: they keep whole numbers of our layers' weights,
    and 5 % of their sum. [Cunegatti2024] Cunegatti et al., Understanding Sparse Neural Networks from their Topology
    via Multipartite Graph Representations, data of CONV-6 on CIFAR-10, seed 0."""
    published = [0.769676, 0.441542, 0.335097, 0.176737, 0.074758, 0.018623, 0.003121, 0.104065, 0.609766]
    totals = [layer.total for layer in opened("conv-6").layers]
    kept = [density * total for density, total in zip(published, totals, strict=True)]
    for count, total in zip(kept, totals, strict=True):
        assert count == pytest.approx(round(count), abs=total * 0.51e-6)
    assert sum(kept) / sum(totals) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("name", ["alexnet-s", "simple-cnn"])
def test_gradients_reach_every_weight(name):
    model = built(opened(name, (1, 8, 8), 4))
    out = model(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    F.cross_entropy(out, torch.arange(8) % 4).backward()
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        if key.endswith("weight"):
            assert parameter.grad.any(), key


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_refused(name):
    with pytest.raises(InputError, match=f"space '{name}' takes images .* the data has shape"):
        opened(name, (64,))


@pytest.mark.parametrize("name", ["vgg-like", "alexnet-b"])
def test_a_stride_of_nothing_is_refused(name):
    with pytest.raises(InputError, match=f"argument 'stride' of space '{name}' is 0; expected an integer, at least 1"):
        opened(name, stride=0)


# Perceptrons


@pytest.mark.parametrize(("layers", "weights"), [(1, 7840), (3, 89_400), (5, 109_400), (7, 129_400)])
@pytest.mark.parametrize("activation", ["tanh", "linear", "relu"])
def test_perceptrons(activation, layers, weights):
    space = opened(f"mlp-{activation}", (1, 28, 28), layers=layers)
    assert (space.total_weights, len(space.layers)) == (weights, layers)
    assert space.nonlinearity == activation
    assert opened(f"mlp-{activation}", (1, 28, 28)).dimensions == 7


@pytest.mark.parametrize(
    ("activation", "function"), [("tanh", torch.tanh), ("linear", lambda x: x), ("relu", lambda x: x.clamp(min=0))]
)
def test_perceptrons_by_hand(activation, function):
    model = built(opened(f"mlp-{activation}", (2, 3), 4, layers=3, width=5))
    x = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        hidden = function(x.reshape(6, 6) @ model.fc1.weight.T + model.fc1.bias)
        hidden = function(hidden @ model.fc2.weight.T + model.fc2.bias)
        torch.testing.assert_close(model(x), hidden @ model.fc3.weight.T + model.fc3.bias)


@pytest.mark.parametrize("arguments", [{"layers": 0}, {"layers": 257}, {"width": 0}])
def test_perceptrons_of_no_size(arguments):
    with pytest.raises(InputError, match=r"of space 'mlp-relu' is (0|257); expected an integer"):
        opened("mlp-relu", (4,), **arguments)
