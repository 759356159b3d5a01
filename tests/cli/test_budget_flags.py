"""Budgets as a user types them: what is impossible is one line with a way out, and leaves nothing behind."""

import json
import re
import shlex

import pytest

from snas.cli.main import main

FAST = "--epochs 1 --samples 2 --final-seeds 1 --baselines none --strategy random --threads 1 --quiet"


def search(capsys, words, *, space="lenet-300-100", tail=FAST):
    code = main(["search", "--space", space, *shlex.split(words), *shlex.split(tail), "--registry", "runs.db"])
    out, err = capsys.readouterr()
    return code, out, err


IMPOSSIBLE = [  # lenet-300-100 on digits: 19,200 + 30,000 + 1,000 weights
    ("--density 0", "density is 0.0; expected 0 < density <= 1", ""),
    ("--density nan", "density is nan; expected 0 < density <= 1", ""),
    ("--max-density 1.5", "max-density is 1.5; expected 0 < density <= 1", ""),
    ("--density 0.1 --max-density 0.2", "density says exactly how much is kept, max-density gives a range", ""),
    ("--density 0.1 --weights 100", "density and weights both say exactly how much is kept; give one of them", ""),
    ("--density 1e-9", "the nearest budget is density 8e-05 (4 weights)", "--density 8e-05"),
    ("--density 1e-9 --representation block", "the nearest budget is density 8e-05", "--density 8e-05"),
    ("--weights 2", "the nearest budget is weights 4", "--weights 4"),
    ("--weights 99999999999999999999999", "the layers have 50200 weights; the nearest budget is weights 50199", ""),
    ("--max-weights 2", "the nearest budget is max-weights 4", "--max-weights 4"),
    ("--min-density 0.5 --max-density 0.1", "the nearest budget is min-density 0.1", ""),
    ("--min-density 0.5 --max-weights 100", "the nearest budget is min-density 0.00199 (100 weights)", ""),
    (
        "--density 0.01 --floor fc1=0.5 --floor fc2=0.5",
        "one weight in each of 3 layers and the floors take 24601 weights; the nearest budget is density 0.49008",
        "--floor fc1=0.5 --floor fc2=0.5 --density 0.49008",
    ),
    ("--density 0.5 --cap *=0.1", "leave 5020 weights; the nearest budget is density 0.09998 (5019 weights)", ""),
    ("--density 0.1 --cap fc3=0.0001", "cap 0.0001, which leaves 0; the nearest budget is cap fc3=0.001", ""),
    ("--density 0.1 --cap fc1=0.1 --floor fc1=0.5", "the nearest budget is cap fc1=0.5", ""),
    ("--density 0.1 --pin fc1=0.5", "the pins take 9602 weights; the nearest budget is density 0.1913", ""),
    ("--density 0.1 --pin fc3=0.5 --cap fc3=0.2", "pinned at density 0.5, above its cap 0.2", ""),
    ("--density 0.1 --pin conv*=0.5", "pinned layer 'conv*' matches no layer; layers: fc1, fc2, fc3", ""),
    ("--density 0.1 --pin *=0.1", "every layer is pinned; pin fewer", ""),
    ("--density 0.1 --floor conv*=0.5", "floor 'conv*' matches no layer; layers: fc1, fc2, fc3", ""),
    ("--density 0.1 --floor fc1", "--floor is 'fc1'; expected key=value", ""),
    ("--density 0.1 --floor fc1=much", "floor of layer 'fc1' is 'much'; expected 0 < density <= 1", ""),
    ("--first-layer dense --density 0.01", "the pins take 19202 weights; the nearest budget is density 0.38253", ""),
    ("--first-layer dense --density 0.5 --pin fc1=0.5", "pinned at density 0.5, and at 1 by its space or the po", ""),
    ("--max-flops 3", "max-flops 3 cannot be met: one weight in each of 3 layers take 6 operations", "--max-flops 8"),
    ("--max-flops 1000 --density 0.5", "is max-flops 50200, or density 0.00996 (500 weights)", ""),
    ("--density 0.1 --representation uniform", "leave nothing to search: all points are the same network", ""),
    ("--density 1", "leave nothing to search: all points are the same network", ""),
    ("--density 0.1 --objectives accuracy,kept_weights", "an exact budget leaves one number of weights", ""),
]


@pytest.mark.parametrize(("words", "message", "way_out"), IMPOSSIBLE)
def test_what_is_impossible_is_one_line_before_anything_is_written(capsys, tmp_path, words, message, way_out):
    code, out, err = search(capsys, words)
    assert (code, out) == (2, "")
    assert message in err
    assert re.fullmatch(r"snas: [^\n]+\n", err)
    assert list(tmp_path.iterdir()) == []
    if way_out:  # accepted; so few weights may leave no path through the network, which is known only with masks
        code, _, err = search(capsys, way_out, tail=FAST.replace("--final-seeds 1", "--final-seeds 0"))
        assert code == 0 or (code == 1 and "no path of kept weights" in err), err


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("--density 0.05", 2510),
        ("--density 0.05 --representation depth", 2510),
        ("--weights 777 --pin fc3=0.1 --cap fc1=0.02", 777),
        ("--density 0.02 --representation uniform --mask random,magnitude", 1004),
    ],
)
def test_the_winner_has_the_budget_s_weights(capsys, words, kept):
    code, out, err = search(capsys, f"{words} --format json")
    assert (code, err) == (0, "")
    best = json.loads(out)["best"]
    assert best["kept_weights"] == kept
    layers = {name: layer["kept"] for name, layer in best["layers"].items()}
    assert sum(layers.values()) == kept
    if "--pin" in words:
        assert layers["fc3"] == 100
        assert layers["fc1"] <= 384
