import os
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from snas import InputError
from snas.search_spaces import open_space

ROOT = Path(__file__).resolve().parents[2]

CODE = """
    from __future__ import annotations
    import typing
    from torch import nn
    from snas.search_spaces import SearchSpace

    if typing.TYPE_CHECKING:
        from nowhere import Unknown

    def factory(input_shape: tuple[int, ...], classes: int, width: int = 5, bias=True) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(6, width, bias=bias), nn.ReLU(), nn.Linear(width, classes))

    class Net(nn.Module):
        def __init__(self, in_channels: int, num_classes: int, *, hidden: int = 4):
            super().__init__()
            self.conv = nn.Conv1d(in_channels, hidden, 3)
            self.head = nn.Linear(hidden, num_classes)

        def forward(self, x):
            return self.head(self.conv(x).mean(2))

    class Nets:
        small = Net

    def space(input_shape, classes, *, pin: float = 1.0):
        return SearchSpace.from_model(
            lambda: factory(input_shape, classes), input_shape=input_shape, name="inner", arguments={"a": 1},
            pinned={"1": pin}, learning_rate=0.3,
        )

    module = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    ready = SearchSpace.from_model(lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), input_shape=(2, 3), name="r")
    number = 7

    def unresolved(x: Unknown = 3):
        return nn.Sequential(nn.Flatten(), nn.Linear(6, x))

    def lists(x: list[int] | None = None):
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))

    def needs(what): return nn.Linear(6, what)
    def raises(): raise ValueError("two\\nlines")
    def quits(): raise SystemExit(3)
    def nothing(): return None
    def unprunable(): return nn.Flatten()
    def vector(): return nn.Linear(5, 3)
    def one_class(): return nn.Sequential(nn.Flatten(), nn.Linear(6, 1))
    def other_shape(): return SearchSpace.from_model(lambda: nn.Linear(5, 3), input_shape=(5,), name="other")
    def late():
        import sibling_of_custom
        return nn.Sequential(nn.Flatten(), nn.Linear(6, sibling_of_custom.CLASSES))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with mynets.py, current; nothing of it stays imported."""
    (tmp_path / "mynets.py").write_text(textwrap.dedent(CODE))
    (tmp_path / "sibling_of_custom.py").write_text("CLASSES = 3\n")
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "__init__.py").touch()
    (tmp_path / "nested" / "deep.py").write_text(textwrap.dedent(CODE))
    (tmp_path / "broken.py").write_text("def factory(:\n")
    (tmp_path / "imports.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit('bye')\n")
    monkeypatch.chdir(tmp_path)
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in set(sys.modules) - modules:
        if name.split(".")[0] in ("mynets", "nested", "sibling_of_custom") or name.startswith("snas_custom_"):
            del sys.modules[name]


def open_custom(name, **arguments):
    return open_space(name, input_shape=(2, 3), classes=3, arguments=arguments)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("mynets:factory", "mynets:factory"),
        ("nested.deep:factory", "nested.deep:factory"),
        ("mynets.py:factory", "mynets:factory"),
        ("./nested/deep.py:factory", "deep:factory"),
    ],
)
def test_functions_of_modules_and_files(here, name, label):
    space = open_custom(name, width="7", bias="no")
    assert space.name == label
    assert [layer.shape for layer in space.layers] == [(7, 6), (3, 7)]
    assert space.arguments == {"width": 7, "bias": False}
    assert space.build(generator=torch.Generator().manual_seed(0))[1].bias is None


def test_an_absolute_path(here, monkeypatch):
    path = here / "mynets.py"
    monkeypatch.chdir(os.sep)
    assert open_custom(f"{path}:factory").name == "mynets:factory"


@pytest.mark.parametrize("attribute", ["Net", "Nets.small"])
def test_classes(here, attribute):
    space = open_custom(f"mynets:{attribute}", hidden="6")
    assert [(layer.name, layer.shape) for layer in space.layers] == [("conv", (6, 2, 3)), ("head", (3, 6))]
    assert space.name == f"mynets:{attribute}"


def test_a_function_that_returns_a_space(here):
    space = open_custom("mynets:space", pin="0.5")
    assert (space.name, space.arguments, space.learning_rate) == ("mynets:space", {"a": 1, "pin": 0.5}, 0.3)
    assert space.densities([1.0]).kept == (15, 15)


def test_a_space_that_is_there_already(here):
    space = open_custom("mynets:ready")
    assert (space.name, space.total_weights) == ("mynets:ready", 18)


def test_a_module_is_copied_for_each_candidate(here):
    space = open_custom("mynets:module")
    first, second = (space.build(generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(first[1].weight, second[1].weight)
    with torch.no_grad():
        first[1].weight.zero_()
    assert second[1].weight.any()
    assert space.build(generator=torch.Generator().manual_seed(0))[1].weight.any()


def test_annotations_that_cannot_be_resolved_fall_back_on_the_default(here):
    assert open_custom("mynets:unresolved", x="4").classes == 4


def test_imports_while_the_network_is_built(here):
    space = open_custom("mynets.py:late")
    sys.modules.pop("sibling_of_custom")
    assert space.build(generator=torch.Generator().manual_seed(0))[1].out_features == 3


def test_opening_leaves_random_state_alone(here):
    state = torch.random.get_rng_state()
    space = open_custom("mynets:module")  # drawn while the module is imported
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.random.manual_seed(0)
    expected = torch.nn.Linear(6, 3).weight
    assert torch.equal(space.build(generator=torch.Generator())[1].weight, expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":factory", "space ':factory' is incomplete; expected module:factory or path/to/file.py:factory"),
        ("mynets:", "space 'mynets:' is incomplete"),
        ("absent:factory", "space 'absent:factory': there is no module 'absent', neither installed nor in"),
        ("nested.absent:factory", "there is no module 'nested.absent'"),
        ("imports:factory", "importing imports raised ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("imports.py:factory", "loading imports.py raised ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("broken.py:factory", "space 'broken.py:factory': loading broken.py raised SyntaxError"),
        ("leaves.py:factory", "loading leaves.py raised SystemExit: bye"),
        ("absent.py:factory", "there is no Python file .*absent.py; expected path/to/file.py:factory"),
        ("nested/:factory", "there is no Python file"),
        (
            "mynets:absent",
            "space 'mynets:absent': mynets has no 'absent'; it has: SearchSpace, factory, Net, Nets, space, module, re",
        ),
        ("mynets.py:Nets.large", "mynets.py has no 'Nets.large'"),
        ("mynets:number", "space 'mynets:number' is a int; expected a function or class that returns"),
        ("mynets:needs", "space 'mynets:needs': its factory raised TypeError: .*missing 1 required .*'what'"),
        ("mynets:raises", r"space 'mynets:raises': its factory raised ValueError: two lines"),
        ("mynets:quits", "space 'mynets:quits': its factory raised SystemExit: 3"),
        ("mynets:nothing", "its factory returned NoneType; expected a torch.nn.Module or a SearchSpace"),
        ("mynets:unprunable", "space 'mynets:unprunable' has no prunable layer"),
        ("mynets:vector", r"the network rejects an input of shape \(batch, 2, 3\): RuntimeError"),
        ("mynets:one_class", "space 'mynets:one_class' tells 1 classes apart; the data has 3"),
        ("mynets:other_shape", r"takes examples of shape \(5,\); the data has shape \(2, 3\)"),
    ],
)
def test_wrong_code_is_one_clear_line(here, name, message):
    with pytest.raises(InputError, match=message) as error:
        open_custom(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mynets:factory", {"depth": "2"}, "no argument 'depth'; choices: input_shape, classes, width, bias"),
        ("mynets:factory", {"width": "wide"}, "argument 'width' of space 'mynets:factory' is 'wide'; expected a value"),
        ("mynets:module", {"width": "2"}, "space 'mynets:module' has no argument 'width'; choices: none"),
        ("mynets:ready", {"width": "2"}, "space 'mynets:ready' has no argument 'width'; choices: none"),
    ],
)
def test_wrong_arguments(here, name, arguments, message):
    with pytest.raises(InputError, match=message):
        open_custom(name, **arguments)


def test_two_files_of_one_name_do_not_mix(here):
    other = here / "other"
    other.mkdir()
    (other / "mynets.py").write_text(
        "from torch import nn\ndef factory(): return nn.Sequential(nn.Flatten(), nn.Linear(6, 9))\n"
    )
    first, second = open_custom("mynets.py:factory"), open_custom("other/mynets.py:factory")
    assert (first.classes, second.classes) == (3, 9)
    assert first.build(generator=torch.Generator().manual_seed(0))[-1].out_features == 3


def test_a_changed_file_is_read_again(here):
    assert open_custom("mynets.py:factory").classes == 3
    (here / "mynets.py").write_text("from torch import nn\nfactory = nn.Sequential(nn.Flatten(), nn.Linear(6, 11))\n")
    assert open_custom("mynets.py:factory").classes == 11


def test_the_example():
    name = f"{ROOT / 'examples' / 'custom_space.py'}:factory"
    space = open_space(name, input_shape=(1, 8, 8), classes=10, arguments={"width": "48"})
    assert space.name == "custom_space:factory"
    assert [layer.shape for layer in space.layers] == [(48, 64), (48, 48), (10, 48)]
