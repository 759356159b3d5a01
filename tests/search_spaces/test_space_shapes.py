"""Searched arguments of a space: how they are read, the networks of [Lee2020b] table 4.6, and a search over shapes."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import snas
import snas.cli.main
from snas.budget import Budget
from snas.encoding import Encoding
from snas.errors import InputError
from snas.search_spaces import open_space
from snas.search_spaces.shapes import read_shapes, usual_shape

CIFAR = {"input_shape": (3, 32, 32), "classes": 10}
# Table 4.6: widening, block size, sparsity in per cent of a network with as many weights as the base.
TABLE = [
    (1, 3, 0.0), (2, 3, 74.8), (4, 3, 93.7), (6, 3, 97.2), (8, 3, 98.4), (2, 2, 60.4), (4, 2, 90.1), (6, 2, 95.6),
    (1, 5, 42.0),
]  # fmt: skip


def test_values_are_read_from_texts_and_sequences():
    read = read_shapes(
        {
            "a": "2..4",
            "b-c": " 8,2 , 4",
            "d": "relu,tanh",
            "e": "0.5,0",
            "f": np.arange(2),
            "g": [None, "x"],
            "h": 3,
            "i": "true,false",
            "j": range(1, 3),
            "k": "none,7",
        }
    )
    assert read == {
        "a": (2, 3, 4), "b_c": (2, 4, 8), "d": ("relu", "tanh"), "e": (0, 0.5), "f": (0, 1), "g": (None, "x"),
        "h": (3,), "i": (True, False), "j": (1, 2), "k": (None, 7),
    }  # fmt: skip
    assert json.loads(json.dumps(read["f"])) == [0, 1]


@pytest.mark.parametrize(
    "value", ["", "1,", "3..2", "1,1", "1,1.0", "1..65", "1..9999999999", [], [1, 1], [[1]], ["", 2]]
)
def test_wrong_values(value):
    with pytest.raises(
        InputError, match=r"shape width is .*; expected up to 64 different values, such as 1,2,4 or 1..6"
    ):
        read_shapes({"width": value})


def test_an_argument_is_searched_once_and_not_fixed_as_well():
    with pytest.raises(InputError, match="shape hidden_layers is given twice"):
        read_shapes({"hidden-layers": "1,2", "hidden_layers": "3"})
    with pytest.raises(InputError, match="'hidden_layers' is fixed with --space-arg and searched with --shape"):
        read_shapes({"hidden-layers": "1,2"}, fixed=["hidden_layers"])
    assert read_shapes({"width": "1,2"}, fixed=["skip"]) == {"width": (1, 2)}


def test_the_usual_shape_is_the_nearest_to_the_spaces_own():
    assert usual_shape("resnet32", {"blocks": (1, 4, 9), "shortcut": ("padding", "convolution")}) == {
        "blocks": 4,
        "shortcut": "convolution",
    }
    assert usual_shape("wrn-16-8", {"widening": (1, 2)}) == {"widening": 2}
    assert usual_shape("mlp", {"width": (1, 2, 3)}) == {"width": 2}  # its own depends on the data
    assert usual_shape("my/file.py:net", {"width": (1, 2, 3, 4)}) == {"width": 3}


@pytest.mark.parametrize(("widening", "blocks", "sparsity"), TABLE)
def test_sculpted_networks_have_the_sparsities_of_the_table(widening, blocks, sparsity):
    arguments = {"shortcut": "padding", "widening": widening, "blocks": blocks}
    space = open_space("resnet20", **CIFAR, arguments=arguments)
    base = open_space("resnet20", **CIFAR, arguments={"shortcut": "padding"}).total_weights
    assert base == 268_336
    assert 100 * (1 - base / space.total_weights) == pytest.approx(sparsity, abs=0.1)
    # Stem of 16 channels, three stages of 2 blocks convolutions (one of them from fewer channels), classifier.
    widths = [16, 16 * widening, 32 * widening, 64 * widening]
    stages = sum(9 * a * b + (2 * blocks - 1) * 9 * b * b for a, b in itertools.pairwise(widths))
    assert space.total_weights == 27 * 16 + stages + 10 * widths[-1]


def test_blocks_and_widening_lead_to_the_networks_of_other_names():
    for name, arguments, same in (
        ("resnet20", {"blocks": 5}, "resnet32"),
        ("resnet20", {"widening": 2, "stem": 32}, "resnet20-x2"),
        ("wrn-28-2", {"blocks": 2, "widening": 8}, "wrn-16-8"),
        ("wrn-16-8", {"blocks": "4", "widening": "2"}, "wrn-28-2"),
    ):
        space, other = open_space(name, **CIFAR, arguments=arguments), open_space(same, **CIFAR)
        assert (space.network, space.layers) == (other.network, other.layers)
        assert open_space(name, **CIFAR).network != other.network


@pytest.mark.parametrize("name", ["resnet20", "wrn-28-2"])
@pytest.mark.parametrize("argument", ["blocks", "widening"])
def test_shapes_out_of_range(name, argument):
    for value in (0, -1, *([201] if argument == "blocks" else [])):
        with pytest.raises(
            InputError, match=f"argument '{argument}' of space '{name}' is {value}; expected an integer"
        ):
            open_space(name, **CIFAR, arguments={argument: value})


def test_the_four_kinds_of_the_table_are_points_of_one_search():
    shapes = {"blocks": (2, 3, 5), "widening": (1, 2)}
    base = open_space("resnet20", **CIFAR, arguments={"shortcut": "padding"}, representation="depth")
    encoding = Encoding(
        base,
        budget=Budget(weights=200_000),
        shapes=shapes,
        usual=usual_shape("resnet20", shapes),
        reopen=lambda shape: open_space(
            "resnet20", **CIFAR, arguments={"shortcut": "padding", **shape}, representation="depth"
        ),
    )
    assert len(encoding.architectures) == 5  # two blocks without widening have 171,000 weights
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        candidate = encoding.decode(rng.random(encoding.dimensions))
        assert candidate.densities.kept_weights == 200_000
        shape = encoding.traits(candidate)["shape"]
        seen.add((shape["widening"], shape["blocks"]))
        assert candidate.space.arguments == {"shortcut": "padding", **shape}
    assert seen == {(1, 3), (2, 3), (2, 2), (1, 5), (2, 5)}
    assert encoding.space_of({}).arguments["blocks"] == 3


def search(**settings):
    usual = {"dataset": "digits", "epochs": 1, "samples": 3, "final_seeds": 1, "confirm": 0, "strategy": "random"}
    return snas.search("mlp", **{**usual, "baselines": "erk", "registry": "r.db", "threads": 1, **settings})


def test_a_search_over_shapes_can_be_resumed_shown_trained_and_compared(capsys):
    shape = {"hidden-layers": "1..3", "width": "8,16"}
    result = search(shape=shape, weights=500)
    arguments = dict(result.best.entry.space["arguments"])
    assert set(arguments) == {"hidden_layers", "width"}
    assert result.best.row.kept_weights == result.baselines["erk"].row.kept_weights == 500
    assert len(result.best.row.layers) == arguments["hidden_layers"] + 1
    assert result.best.build().classifier.weight.shape == (10, arguments["width"])
    # The same command trains nothing again; another range is another study.
    again = search(shape={"hidden_layers": range(1, 4), "width": [16, 8]}, weights=500)
    assert (again.study, again.best.row) == (result.study, result.best.row)
    assert search(shape={"hidden-layers": "1..3", "width": "8"}, weights=500).study != result.study
    # Longer, and a rule on the same shape: both find the network by its arguments.
    longer = snas.train(result.best.id, epochs=2, registry="r.db", threads=1)
    assert (longer.row.space, longer.row.epochs) == (result.best.row.space, 2)
    rule = snas.prune(
        "mlp", method="snip", density=0.5, space_arg=dict(reversed(arguments.items())), epochs=1, final_seeds=1,
        registry="r.db", threads=1,
    )  # fmt: skip
    assert rule.row.space == result.best.row.space
    (ranking,) = [group for group in snas.leaderboard("r.db") if group.rows[0].id in (1, 2, rule.row.id)]
    assert {result.best.id, rule.row.id} <= {row.id for row in ranking.rows}
    assert snas.cli.main.main(["show", str(result.best.id), "--registry", "r.db"]) == 0
    assert f"mlp (hidden_layers={arguments['hidden_layers']}, width={arguments['width']})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": {"depth": "1,2"}}, "space 'mlp' has no argument 'depth'; choices: hidden_layers, width"),
        ({"shape": {"width": "0,2"}}, "argument 'width' of space 'mlp' is 0; expected an integer, at least 1"),
        ({"shape": {"width": "wide"}}, "argument 'width' of space 'mlp' is 'wide'; expected a value of type int"),
        ({"shape": {"width": ""}}, "shape width is ''; expected up to 64 different values"),
        ({"shape": {"width": "1..60", "hidden_layers": "1..60"}}, "3600 shapes are too many; search at most 512"),
        ({"shape": {"width": "2,4"}, "space_arg": {"width": 8}}, "'width' is fixed with --space-arg and searched"),
        ({"shape": {"hidden_layers": "1,2"}, "representation": "layer"}, "choose representation depth or uniform"),
        ({"shape": {"width": "2,4"}, "weights": 99_999}, "no shape that is searched can meet the budget"),
    ],
)
def test_wrong_shapes_are_told_before_there_is_a_file(settings, message, tmp_path):
    with pytest.raises(InputError, match=message):
        search(**{"weights": 100, **settings})
    assert list(tmp_path.iterdir()) == []


def test_a_space_object_has_one_shape(tmp_path):
    space = open_space("mlp", input_shape=(1, 8, 8), classes=10)
    with pytest.raises(InputError, match="shape is for spaces by name"):
        snas.search(space, shape={"width": "2,4"}, registry="r.db")
    assert list(tmp_path.iterdir()) == []
