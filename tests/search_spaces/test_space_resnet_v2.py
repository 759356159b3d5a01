import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from snas import InputError
from snas.search_spaces import open_space
from snas.search_spaces.resnet import BasicBlock, PaddedShortcut
from snas.search_spaces.resnet_v2 import PlainBlock


def test_layers_of_resnet_8():
    space = open_space("resnet-8", input_shape=(3, 32, 32), classes=10)
    assert [layer.shape[:2] for layer in space.layers] == [
        (16, 3),
        (16, 16),
        (16, 16),
        (32, 16),
        (32, 32),
        (64, 32),
        (64, 64),
        (10, 64),
    ]
    assert [layer.positions for layer in space.layers] == [1024, 1024, 1024, 256, 256, 64, 64, 1]
    assert space.with_options(representation="block").dimensions == 5


def test_flops_equal_torch_s_own_count():
    space = open_space("resnet-8", input_shape=(1, 9, 8), classes=3)
    model = space.build(generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert model(torch.zeros(1, 1, 9, 8)).shape == (1, 3)
    assert space.densities([1.0] * 8).flops == counter.get_total_flops()


def test_padding_by_hand():
    x = torch.arange(2 * 9.0).reshape(1, 2, 3, 3)
    out = PaddedShortcut(3, 2)(x)
    assert out.shape == (1, 5, 2, 2)
    assert out[0, 0].tolist() == [[0, 2], [6, 8]]
    assert out[0, 1].tolist() == [[9, 11], [15, 17]]
    assert not out[0, 2:].any()
    assert torch.equal(PaddedShortcut(0, 1)(x), x)


def test_the_block_adds_what_came_in_before_its_activation():
    block = PlainBlock(2, 4, 2)
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = F.conv2d(x.clamp(min=0), block.conv1.weight, block.conv1.bias, stride=2, padding=1)
        second = F.conv2d(first.clamp(min=0), block.conv2.weight, block.conv2.bias, padding=1)
        second[:, :2] += x[:, :, ::2, ::2]  # negative values too
        torch.testing.assert_close(block(x), second)


def test_a_padded_basic_block():
    block = BasicBlock(2, 4, 2, "padding").eval()
    x = torch.rand(1, 2, 4, 4)
    with torch.no_grad():
        block.norm2.weight.zero_()
        assert torch.equal(block(x)[:, :2], x[:, :, ::2, ::2])
        assert not block(x)[:, 2:].any()


def test_shortcuts_without_weights():
    plain = open_space("resnet20", input_shape=(3, 8, 8), classes=10, arguments={"shortcut": "padding"})
    usual = open_space("resnet20", input_shape=(3, 8, 8), classes=10)
    assert [layer for layer in usual.layers if "shortcut" not in layer.name] == list(plain.layers)
    assert plain.network != usual.network
    stem = open_space("resnet14", input_shape=(3, 8, 8), classes=10, arguments={"width": 32, "stem": 16})
    assert [layer.shape[:2] for layer in stem.layers[:3]] == [(16, 3), (32, 16), (32, 32)]
    assert stem.layers[3].name == "stage1.0.shortcut.conv"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shortcut": "none"}, "argument 'shortcut' of space 'resnet20' is 'none'; choices: convolution, padding"),
        ({"stem": "0"}, "argument 'stem' of space 'resnet20' is 0; expected an integer, at least 1"),
        (
            {"stem": 32, "shortcut": "padding"},
            "argument 'stem' of space 'resnet20' is 32; expected an integer, 1 to 16",
        ),
    ],
)
def test_wrong_use(arguments, message):
    with pytest.raises(InputError, match=message):
        open_space("resnet20", input_shape=(3, 8, 8), classes=10, arguments=arguments)


def test_vectors_are_refused():
    with pytest.raises(InputError, match="space 'resnet-8' takes images"):
        open_space("resnet-8", input_shape=(64,), classes=10)
