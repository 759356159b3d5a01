"""Sculpted networks have exactly the weights of their base."""

from __future__ import annotations

import numpy as np
import pytest

import snas
from snas.cli.main import main
from snas.data.arrays import from_arrays
from snas.data.split import split_data
from snas.errors import InputError
from snas.pruning.methods import open_method
from snas.pruning.prepare import prepare
from snas.pruning.scores import Batch
from snas.search_spaces.catalog import open_space
from snas.studies.base import open_study
from snas.studies.lab import split_space
from snas.studies.sculpting import EQUIVALENTS, SCULPTED, equivalent

SMALL = {"registry": "r.db", "epochs": 1, "seeds": 1, "space": "resnet14:width=2:shortcut=padding"}


def test_every_equivalent_is_trained_with_the_bases_number_of_weights(tmp_path):
    networks = ["base", "widening=2", "widening=2:blocks=1", "blocks=3"]
    result = snas.run_study("sculpting", **SMALL, network=networks, output=tmp_path)
    kept = {point["network"]: sum(point.result["layers"].values()) for point in result.points}
    assert list(kept) == networks
    assert len(set(kept.values())) == 1
    totals = {point["network"]: point.result["total"] for point in result.points}
    assert totals["base"] == kept["base"]
    assert all(totals[name] > kept["base"] for name in networks[1:])
    assert [row[1:4] for row in result.tables[0].rows] == [
        ["base", "1", "2"],
        ["wider", "2", "2"],
        ["wider and shallower", "2", "1"],
        ["deeper", "1", "3"],
    ]
    assert (tmp_path / "sculpting-errors.png").exists()


def test_a_network_smaller_than_the_base_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"network 'blocks=1' has [\d,]+ weights, fewer than the [\d,]+ of resnet14"):
        snas.run_study("sculpting", **SMALL, network=["blocks=1"])


@pytest.mark.parametrize("network", ["wide", "widening:2", "wide:widening=2", "widening=", "blocks=1:blocks=2", ""])
def test_what_is_no_argument_is_not_taken_for_the_base_network(network, capsys):
    with pytest.raises(
        InputError, match=rf"^network is '{network}'; expected base, or arguments .*widening=2:blocks=2$"
    ):
        open_study("sculpting").cells(open_study("sculpting").grid("tiny") | {"network": ("base", network)})


def test_code_is_no_network(capsys):
    assert main(["study", "sculpting", "--factor", "network=evil.py:factory", "--registry", "r.db"]) == 2
    err = capsys.readouterr().err
    assert "network is 'evil.py:factory'; expected base, or arguments" in err
    assert err.count("\n") == 1


def test_arguments_that_the_space_does_not_have_are_refused():
    with pytest.raises(InputError, match="girth"):
        snas.run_study("sculpting", **SMALL, network=["girth=2"])


def test_the_paper_scale_is_table_4_6():
    study = open_study("sculpting")
    grid = study.grid("paper")
    assert grid["network"] == ("base", *EQUIVALENTS)
    sizes = {}
    for network in EQUIVALENTS:
        name, arguments = split_space(equivalent(grid["space"][0], network))
        sizes[network] = open_space(name, input_shape=(3, 32, 32), classes=10, arguments=arguments).total_weights
    base = open_space("resnet20", input_shape=(3, 32, 32), classes=10, arguments={"shortcut": "padding"}).total_weights
    printed = (74.8, 93.7, 97.2, 98.4, 60.4, 90.1, 95.6, 42.0)
    assert [100 * (1 - base / size) for size in sizes.values()] == [pytest.approx(one, abs=0.11) for one in printed]


@pytest.mark.slow
@pytest.mark.parametrize("network", EQUIVALENTS)
def test_all_equivalents_of_table_4_6_are_pruned_to_the_weight(network):
    rng = np.random.default_rng(0)
    data = split_data(from_arrays(rng.random((40, 3, 32, 32)).astype("f4"), np.arange(40) % 10), seed=0)
    name, arguments = split_space(equivalent("resnet20:shortcut=padding", network))
    space = open_space(name, input_shape=(3, 32, 32), classes=10, arguments=arguments)
    sparse = prepare(space, open_method(SCULPTED), 268_336, Batch(data.train.x, data.train.y), seed=0)
    assert sparse.masks.kept.kept_weights == 268_336
    nonzero = sum(int((sparse.model.get_parameter(layer.parameter) != 0).sum()) for layer in space.layers)
    assert nonzero == 268_336
