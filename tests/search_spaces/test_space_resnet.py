import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from snas import InputError
from snas.search_spaces import open_space
from snas.search_spaces.resnet import DEPTHS, BasicBlock


def open_resnet(name="resnet20", shape=(1, 8, 8), classes=10, **arguments):
    return open_space(name, input_shape=shape, classes=classes, arguments=arguments)


def by_hand(depth, width, channels, classes):
    """Weights: the stem, then n blocks of two 3x3 convolutions per stage and two 1x1 shortcuts, the classifier."""
    n = (depth - 2) // 6
    stem = 9 * channels * width
    stage1 = 2 * n * 9 * width**2
    stage2 = 9 * 2 * width**2 + (2 * n - 1) * 9 * 4 * width**2 + 2 * width**2
    stage3 = 4 * stage2
    return stem + stage1 + stage2 + stage3 + 4 * width * classes


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("doubled", [False, True])
def test_weights_of_every_size(depth, doubled):
    space = open_resnet(f"resnet{depth}" + "-x2" * doubled, (3, 32, 32), 10)
    assert space.total_weights == by_hand(depth, 32 if doubled else 16, 3, 10)
    assert len(space.layers) == depth - 2 + 4
    assert space.learning_rate == 0.1


def test_layers_are_in_the_order_of_the_tables():
    layers = open_resnet("resnet20", (3, 32, 32), 10).layers
    assert [layer.name for layer in layers[5:12]] == [
        "stage1.2.conv1",
        "stage1.2.conv2",
        "stage2.0.conv1",
        "stage2.0.conv2",
        "stage2.0.shortcut.conv",
        "stage2.1.conv1",
        "stage2.1.conv2",
    ]
    assert [layer.positions for layer in layers[5:12]] == [1024, 1024, 256, 256, 256, 256, 256]
    assert layers[9].shape == (32, 16, 1, 1)


def test_blocks_share_a_density():
    space = open_resnet("resnet20").with_options(representation="block")
    assert space.coordinates[:2] == ((0,), (1, 2))
    assert space.coordinates[4] == (7, 8, 9)
    assert space.dimensions == 1 + 9 + 1


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8)])
def test_flops_equal_torch_s_own_count(shape):
    space = open_resnet("resnet20", shape)
    model = space.build(generator=torch.Generator().manual_seed(0)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    assert space.densities([1.0] * space.dimensions).flops == counter.get_total_flops()


@pytest.mark.parametrize("width", [2, 3])
def test_gradients_reach_every_parameter(width):
    model = open_resnet("resnet20", (2, 9, 8), 5, width=width).build(generator=torch.Generator().manual_seed(0))
    out = model(torch.randn(6, 2, 9, 8, generator=torch.Generator().manual_seed(1)))
    assert out.shape == (6, 5)
    out.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_a_block_adds_its_shortcut():
    x = torch.rand(2, 4, 6, 6)
    same = BasicBlock(4, 4, 1).eval()
    changed = BasicBlock(4, 8, 2).eval()
    with torch.no_grad():
        for block in (same, changed):
            block.norm2.weight.zero_()
        assert torch.equal(same(x), x)
        # A 1x1 convolution of stride 2 is a matrix product at every other pixel.
        weight = changed.shortcut.conv.weight[:, :, 0, 0]
        expected = torch.einsum("oi,bihw->bohw", weight, x[:, :, ::2, ::2])
        scale = (1 + changed.shortcut.norm.eps) ** -0.5
        torch.testing.assert_close(changed(x), torch.relu(expected * scale))


def test_the_residual_branch_by_hand():
    block = BasicBlock(1, 1, 1).eval()
    scale = (1 + block.norm1.eps) ** -0.5
    with torch.no_grad():
        for convolution, factor in ((block.conv1, 2.0), (block.conv2, -3.0)):
            convolution.weight.zero_()
            convolution.weight[0, 0, 1, 1] = factor
        x = torch.tensor([[[[1.0, -1.0]]]])
        # conv1 doubles, relu clips, conv2 times -3, plus x, relu: 1 - 6 < 0 and -1 - 0 < 0
        assert torch.equal(block(x), torch.zeros(1, 1, 1, 2))
        block.conv2.weight.neg_()
        torch.testing.assert_close(block(x), torch.tensor([[[[1 + 6 * scale**2, 0.0]]]]))


def test_wrong_use():
    with pytest.raises(InputError, match=r"space 'resnet20' takes images .* the data has shape \(64\)"):
        open_resnet(shape=(64,))
    with pytest.raises(InputError, match="argument 'width' of space 'resnet20' is 0"):
        open_resnet(width=0)
    with pytest.raises(InputError, match="space 'resnet20' has no argument 'depth'; choices: width"):
        open_resnet(depth=3)
