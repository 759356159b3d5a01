"""SC-SDC: equal counts, equal distributions, paired seeds, exact tests."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest, wilcoxon

import snas
from snas.errors import InputError
from snas.masks import weights_of
from snas.registry import Registry
from snas.studies.base import Point, measured, open_study
from snas.studies.lab import Lab
from snas.studies.same_capacity import OPTIMIZERS, open_pair, parts_of, prepare_network, widths_of
from snas.studies.sc_sdc import BEST, SameCapacity, compare, one_tailed
from snas.studies.sections import tables_of

CELL = {
    "dataset": "digits", "examples": 0, "hidden_layers": 4, "dense_width": 30, "optimizer": "momentum",
    "regularization": "NR", "activation": "relu", "lr": 0.05, "epochs": 2, "batch_size": 128, "network": "sparse",
    "pruning": "random", "init": "he", "seed": 0,
}  # fmt: skip


def cell(**changes):
    return {**CELL, **changes}


@pytest.fixture(scope="module")
def lab():
    return Lab(device="cpu")


def test_widths_are_those_of_the_source():
    assert widths_of(3072, 100)[0] == 3076
    assert [widths_of(784, percent)[1] for percent in (10, 30, 50, 70, 90)] == [79, 236, 394, 552, 709]
    assert widths_of(1, 1) == (5, 1)


@pytest.mark.parametrize(
    ("width", "pruning"),
    [*((width, "random") for width in (10, 30, 50, 70, 90, 100)), (1, "magnitude"), (90, "magnitude")],
)
def test_every_layer_keeps_as_many_weights_as_the_dense_one_has_and_there_are_no_biases(lab, width, pruning):
    bench, _, target, sparse = prepare_network(cell(dense_width=width, pruning=pruning), lab)
    _, narrow = open_pair(cell(dense_width=width), lab)
    assert [layer.shape for layer in bench.space.layers] == [(68, 64), *[(68, 68)] * 3, (10, 68)]
    units = widths_of(64, width)[1]
    expected = [units * 64, *[units * units] * 3, 10 * units]
    assert [layer.total for layer in narrow.space.layers] == expected == list(target.kept)
    for network in (sparse.model, lab.prepare(narrow, "dense", sum(expected), seed=0).model):
        assert not [name for name, _ in network.named_parameters() if "bias" in name]
    if pruning == "random":
        kept = [int((weight != 0).sum()) for weight in weights_of(sparse.model, bench.space.layers)]
        assert kept == expected


@pytest.mark.parametrize(
    ("init", "activation"),
    [("he", "relu"), ("glorot", "relu"), ("lecun", "relu"), ("he-truncated", "prelu"), ("normal:0.05", "sigmoid")],
)
def test_active_weights_are_drawn_from_the_distribution_of_the_dense_ones(lab, init, activation):
    settings = {"init": init, "activation": activation}
    for width in (10, 30, 90):
        wide, _, _, sparse = prepare_network(cell(dense_width=width, **settings), lab)
        narrow, _, _, dense = prepare_network(cell(dense_width=width, network="dense", seed=1, **settings), lab)
        pairs = zip(
            weights_of(sparse.model, wide.space.layers), weights_of(dense.model, narrow.space.layers), strict=True
        )
        for active, weights in pairs:
            drawn = active[active != 0].detach().numpy()
            assert ks_2samp(drawn, weights.detach().numpy().ravel()).pvalue > 0.001
            if init == "he" and activation == "relu":
                assert kstest(drawn, "norm", args=(0, math.sqrt(2 / weights.shape[1]))).pvalue > 0.001


def test_the_test_of_distributions_would_notice_weights_of_the_wide_networks_own_scale(lab):
    wide, _, _, sparse = prepare_network(cell(dense_width=30), lab)
    own = lab.prepare(wide, "dense", wide.space.total_weights, seed=0)
    middle = wide.space.layers[1:2]
    (active,), (weights,) = weights_of(sparse.model, middle), weights_of(own.model, middle)
    assert ks_2samp(active[active != 0].detach().numpy(), weights.detach().numpy().ravel()).pvalue < 1e-6


def test_pairs_share_order_of_data_and_rule(lab):
    wide, narrow = open_pair(cell(regularization="DA_L2_SC_BN", optimizer="adamw"), lab)
    assert wide.task.rule == narrow.task.rule
    assert (wide.task.rule.weight_decay, wide.task.rule.augment, wide.task.rule.optimizer) == (1e-4, "on", "adamw")
    assert wide.task.data.checksum == narrow.task.data.checksum
    plain, _ = open_pair(cell(), lab)
    assert (plain.task.rule.weight_decay, plain.task.rule.augment) == (0.0, "off")
    model = wide.space.factory()
    assert [pair.skip for pair in model.blocks] == [False, True]
    assert model.blocks[0].first.norm.num_features == 68


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_every_optimizer_keeps_masked_weights_zero_and_counts_as_they_are(lab, optimizer):
    study = open_study("sc-sdc")
    own = cell(optimizer=optimizer, regularization="L2_BN", epochs=1, lr=0.01, dense_width=50, hidden_layers=1)
    result = study.measure(own, lab)
    assert list(result["kept"].values()) == [34 * 64, 340]
    assert (
        set(result["flow"])
        == set(result["flows"])
        == {f"{kind}{p}{end}" for kind in ("gf", "egf") for p in "12" for end in ("", "-all")}
    )
    assert result["flow"]["gf2"] < result["flow"]["gf2-all"]


def test_networks_pruned_by_magnitude_are_dense_for_half_of_the_training(lab):
    result = open_study("sc-sdc").measure(cell(pruning="magnitude", epochs=4, dense_width=10, hidden_layers=1), lab)
    assert list(result["kept"].values()) == [7 * 64, 70]
    flows = result["flows"]
    assert flows["gf2"][0] == flows["gf2-all"][0]
    assert flows["gf2"][-1] < flows["gf2-all"][-1]


def test_the_study_compares_pairs_and_its_p_values_are_scipys():
    grid = {"dense_width": [10, 50, 90], "epochs": 1, "optimizer": "adam", "hidden_layers": 1, "seeds": 2}
    result = snas.run_study("sc-sdc", registry="r.db", output="out", **grid)
    assert len(result.points) == 3 * 2 * 2 * 2
    for name in ("NR", "BN"):
        own = measured(result.points, regularization=name)
        pairs = {}
        for point in own:
            pairs.setdefault((point["dense_width"], point["seed"]), {})[point["network"]] = point.result[
                "test_accuracy"
            ]
        sparse, dense = zip(*((pair["sparse"], pair["dense"]) for pair in pairs.values()), strict=True)
        found = compare(own)
        assert found.pairs == 6
        assert found.p == wilcoxon(sparse, dense, alternative="greater", method="exact").pvalue
        assert found.difference == pytest.approx(np.mean(sparse) - np.mean(dense))
        column = result.tables[0].titles.index(name)
        assert result.tables[0].rows[0][column] == f"{found.p:.3f}"
        assert result.tables[0].shades[0, column] == found.p
    # What is stored is what the table was made of; and gradient flow looks at the very same networks.
    with Registry("r.db") as registry:
        stored = registry.measurements("sc-sdc")
    assert [one.result for one in stored.values()] == [dict(point.result) for point in result.points]
    flow = snas.run_study("gradient-flow", registry="r.db", output="out", **grid)
    with Registry("r.db") as registry:
        assert registry.measurements("sc-sdc").keys() == stored.keys()
        assert registry.measurements("gradient-flow") == {}
    assert "12 sparse networks of 2 configurations" in "".join(flow.tables[0].notes).replace("digits: ", "")


def test_exact_p_values_of_small_samples():
    better = [(0.5 + 0.01 * place, 0.4) for place in range(15)]
    assert one_tailed(better) == pytest.approx(2**-15)
    assert one_tailed([(dense, sparse) for sparse, dense in better]) == 1.0
    assert one_tailed([(0.5, 0.5)] * 3) is None
    assert one_tailed([]) is None
    ties = [(0.5, 0.5), (0.6, 0.5), (0.7, 0.6), (0.3, 0.4)]
    assert one_tailed(ties) == wilcoxon(*zip(*ties, strict=True), alternative="greater", method="exact").pvalue


def point(network, width, seed, accuracy):
    result = {} if accuracy is None else {"test_accuracy": accuracy}
    own = cell(network=network, dense_width=width, seed=seed, pruning="random" if network == "sparse" else None)
    return Point(own, result, None if result else "diverged")


def test_a_pair_without_a_result_is_missing_and_told():
    points = [
        point("sparse", 10, 0, 0.9), point("dense", 10, 0, 0.8),
        point("sparse", 10, 1, None), point("dense", 10, 1, 0.8),
        point("sparse", 30, 0, 0.7),
    ]  # fmt: skip
    found = compare(points)
    assert (found.pairs, found.missing, found.p) == (1, 1, 0.5)
    tables = SameCapacity().tables(points)
    assert "1 pairs are missing: a network was refused or failed" in tables[0].notes
    assert tables[1].rows == [["momentum", "+10.00 (n=1)"]]


def test_the_papers_grid_is_the_sources():
    study = open_study("sc-sdc")
    grid = study.grid("paper")
    cells = study.cells(grid)
    own = [one for one in cells if one["dataset"] == "cifar100" and one["hidden_layers"] == 4 and one["lr"] == 0.1]
    others = {(one["optimizer"], one["regularization"]) for one in own if one["activation"] == "swish"}
    assert others == set(BEST.items())
    assert {one["epochs"] for one in own} == {1000}
    assert {one["epochs"] for one in cells if one["dataset"] == "fashion-mnist"} == {500}
    assert {one["pruning"] for one in own if one["network"] == "dense"} == {None}
    # optimizers x (10 regularizations with ReLU + 5 activations with the best) x 5 widths x 3 seeds x 2 networks
    assert len(own) == 6 * (10 + 5) * 5 * 3 * 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"regularization": "NR_BN"}, "regularization is 'NR_BN'"),
        ({"regularization": "BN_BN"}, "regularization is 'BN_BN'"),
        ({"regularization": "dropout"}, "expected NR, or some of DA_L2_SC_BN"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; choices: adagrad"),
        ({"network": "wide"}, "network is 'wide'"),
        ({"pruning": "snip"}, "pruning is 'snip'; choices: random, magnitude"),
        ({"dense_width": 0}, "dense_width is 0; expected a percentage"),
        ({"dense_width": 120}, "a wider dense network has more weights than the sparse one can match"),
        ({"init": "orthogonal"}, "init is 'orthogonal'"),
        ({"epochs": 0}, "epochs is 0, the source's own, but it has no data set 'digits'; give epochs"),
        ({"activation": "relu,swish"}, "the best regularization of momentum, DA_L2_SC_BN, which is not among NR, BN"),
    ],
)
def test_grids_that_cannot_be_compared_are_refused(given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        snas.run_study("sc-sdc", registry="r.db", **given)


def test_more_examples_than_there_are_and_unknown_activations_are_refused():
    for given, message in (
        ({"examples": 5000}, "examples is 5000; digits has 1294 to train on"),
        ({"activation": "gelu"}, "argument 'activation' of space 'mlp' is 'gelu'"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            snas.run_study("sc-sdc", registry="r.db", seeds=1, **given)


def test_every_length_learning_rate_and_batch_size_is_measured_and_has_tables_of_its_own():
    study = open_study("sc-sdc")
    grid = study.grid("tiny") | {"epochs": (5, 10), "lr": (0.1, 0.01), "batch_size": (32, 64)}
    grid |= {"optimizer": ("adam",), "dense_width": (10,), "seed": (0,), "pruning": ("random", "magnitude")}
    cells = study.cells(grid)
    assert {(one["epochs"], one["lr"], one["batch_size"]) for one in cells} == {
        (epochs, lr, size) for epochs in (5, 10) for lr in (0.1, 0.01) for size in (32, 64)
    }
    points = [
        Point(
            one, {"test_accuracy": 0.5 + 0.1 * (one["network"] == "sparse") + one["lr"] * (one["pruning"] == "random")}
        )
        for one in cells
    ]
    tables = [table for table in tables_of(study, points) if "sparse - dense" in table.title]
    assert len(tables) == 2**4
    assert len({table.title for table in tables}) == len(tables)
    for table in tables:
        expected = 10.0 + (0 if "magnitude" in table.title else 10.0 if "lr 0.1," in table.title else 1.0)
        assert table.rows == [["adam", *[f"{expected:+.2f} (n=1)"] * 2]]
        assert ("(batch size 32)" in table.title) != ("(batch size 64)" in table.title)


def test_the_correlation_with_gradient_flow_keeps_prunings_apart():
    points = [
        Point(
            cell(network=network, dense_width=width, pruning=pruning),
            {
                "flow": {"egf2": flow * (1 if pruning != "magnitude" else -1)},
                "test_loss": 1.0,
                "test_accuracy": width / 100,
            },
        )
        for network, pruning in (("sparse", "random"), ("sparse", "magnitude"), ("dense", None))
        for width, flow in ((10, 1.0), (30, 2.0), (50, 3.0))
    ]
    tables = tables_of(open_study("gradient-flow"), points)
    assert [table.title.rpartition("(")[2] for table in tables] == ["pruning random)"] * 2 + ["pruning magnitude)"] * 2
    for table in tables[1::2]:
        assert table.rows[0][0] == "all"
        assert table.rows[0][3] == "2"  # the dense ones, in both
    assert [table.rows[0][1] for table in tables[1::2]] == ["2", "-2"]


def test_names_are_read():
    assert parts_of("NR") == ()
    assert parts_of("DA_L2_SC_BN") == ("DA", "L2", "SC", "BN")
