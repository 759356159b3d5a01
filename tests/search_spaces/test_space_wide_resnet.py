import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from snas import InputError
from snas.search_spaces import open_space
from snas.search_spaces.wide_resnet import WideBlock, WideResNet


def test_wrn_28_2_by_hand():
    space = open_space("wrn-28-2", input_shape=(3, 32, 32), classes=10)
    stages = [(16, 32), (32, 64), (64, 128)]
    expected = 432 + sum(9 * a * b + 7 * 9 * b * b + a * b for a, b in stages) + 1280
    assert (space.total_weights, len(space.layers)) == (expected, 29)
    assert [layer.name for layer in space.layers[:5]] == [
        "stem",
        "stage1.0.conv1",
        "stage1.0.conv2",
        "stage1.0.shortcut",
        "stage1.1.conv1",
    ]
    assert space.learning_rate == 0.1
    assert space.with_options(representation="block").dimensions == 1 + 12 + 1


def test_flops_equal_torch_s_own_count():
    space = open_space("wrn-28-2", input_shape=(1, 8, 8), classes=3)
    model = space.build(generator=torch.Generator().manual_seed(0)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, 8, 8))
    assert space.densities([1.0] * 29).flops == counter.get_total_flops()


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    model = WideResNet(2, 5, 1, 1, 0.0)
    out = model(torch.randn(6, 2, 8, 8))
    assert out.shape == (6, 5)
    out.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_a_block_adds_its_shortcut():
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    same, changed = WideBlock(4, 4, 1, 0.0).eval(), WideBlock(4, 8, 2, 0.0).eval()
    with torch.no_grad():
        for block in (same, changed):
            block.conv2.weight.zero_()
        assert torch.equal(same(x), x)  # negative values too: the activation comes first
        activated = torch.relu(x * (1 + changed.norm1.eps) ** -0.5)
        expected = torch.einsum("oi,bihw->bohw", changed.shortcut.weight[:, :, 0, 0], activated[:, :, ::2, ::2])
        torch.testing.assert_close(changed(x), expected)


def test_dropout_acts_in_training_only():
    block = WideBlock(2, 2, 1, 0.5)
    x = torch.rand(2, 2, 6, 6)
    block.train()
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_wrong_use():
    with pytest.raises(InputError, match=r"argument 'dropout' of space 'wrn-28-2' is 1\.0; expected 0 <= dropout < 1"):
        open_space("wrn-28-2", input_shape=(3, 8, 8), classes=2, arguments={"dropout": "1"})
    with pytest.raises(InputError, match="space 'wrn-28-10' takes images"):
        open_space("wrn-28-10", input_shape=(3, 64), classes=2)
