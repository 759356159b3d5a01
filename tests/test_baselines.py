"""Targets of baselines, their rows, and densities read from every source."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn

from snas.baselines import describe_baseline, enter, read_densities, target_of
from snas.bench import open_bench
from snas.citations.figures import Citation, as_entry
from snas.densities import Densities
from snas.errors import InputError
from snas.finals import train_entry
from snas.listener import Listener
from snas.pruning.methods import open_method
from snas.ranking import make_row
from snas.registry import Registry
from snas.search_spaces.base import SearchSpace
from snas.settings import PruneSettings


def network() -> nn.Module:
    """Layers "0" of 8 x 64 and "2" of 10 x 8 weights."""
    return nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


@pytest.fixture(name="space")
def _space() -> SearchSpace:
    return _flat()


def _flat(**options) -> SearchSpace:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), *network())

    return SearchSpace.from_model(build, input_shape=(1, 8, 8), name="small", **options)


@pytest.fixture(name="registry")
def _registry(tmp_path):
    with Registry(tmp_path / "r.db") as registry:
        yield registry


COUNTS = (256, 20)  # of 512 and 80
NAMES = ("1", "3")


def test_a_target_is_a_number_or_the_given_densities(space):
    given = Densities(space.layers, COUNTS)
    assert [layer.name for layer in space.layers] == list(NAMES)
    assert target_of(open_method("dense"), None, space, None) == 592
    assert target_of(open_method("dense"), 1, space, None) == 592
    assert target_of(open_method("snip"), 0.25, space, None) == 148
    assert target_of(open_method("snip"), None, space, given) is given


@pytest.mark.parametrize(
    ("method", "density", "given", "message"),
    [
        ("dense", 0.5, False, r"keeps every weight, but density is 0\.5"),
        ("dense", None, True, "keeps every weight, but densities are given"),
        ("snip", None, False, "needs a density"),
        ("snip", 0.5, True, "leave one of the two out"),
        ("snip", 0.001, False, r"nearest: 2 \(density"),
        ("smart", 0.02, False, "which this allocation fixes"),
        ("snip", float("nan"), False, "density is nan"),
        ("er", 1.5, False, r"density is 1\.5"),
    ],
)
def test_wrong_targets(space, method, density, given, message):
    densities = Densities(space.layers, COUNTS) if given else None
    with pytest.raises(InputError, match=message):
        target_of(open_method(method), density, space, densities)


def test_given_densities_do_not_contradict_pinned_layers():
    space = _flat(pinned={"3": 1.0})
    assert target_of(open_method("er"), None, space, Densities(space.layers, (256, 80))).kept == (256, 80)
    with pytest.raises(InputError, match="layer '3' is pinned at density 1, but 20 of its 80 weights are given"):
        target_of(open_method("er"), None, space, Densities(space.layers, COUNTS))


def test_layers_that_a_method_does_not_take_are_refused_before_anything_is_trained():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(4, 8, batch_first=True)
            self.out = nn.Linear(8, 3)

        def forward(self, x):
            return self.out(self.rnn(x)[0][:, -1])

    recurrent = SearchSpace.from_model(Reader, input_shape=(5, 4), name="reader")
    method = open_method("dct")
    for density, given in ((0.5, None), (None, Densities.dense(recurrent.layers))):
        with pytest.raises(InputError, match="weight_ih_l0' cannot have a cosine offset"):
            target_of(method, density, recurrent, given)
    assert target_of(open_method("erk"), 0.5, recurrent, None) == recurrent.total_weights // 2


def test_rows_are_told_apart_by_all_that_makes_them(registry, space):
    bench = open_bench(PruneSettings(dataset="digits", epochs=1, threads=1), space=space)
    longer = open_bench(PruneSettings(dataset="digits", epochs=2, threads=1), space=space)
    given = Densities(space.layers, COUNTS)
    one = enter(registry, bench, "er", 276, seed=0, name=None)
    assert enter(registry, bench, "er", 276, seed=0, name=None) == one
    assert (one.name, one.kind, one.kept, one.kept_weights) == ("er-0.466", "baseline", {}, 276)
    others = [
        enter(registry, bench, "erk", 276, seed=0, name=None),
        enter(registry, bench, "er:rescale=false", 276, seed=0, name=None),
        enter(registry, bench, "er", 275, seed=0, name=None),
        enter(registry, bench, "er", given, seed=0, name=None),
        enter(registry, bench, "er", Densities(space.layers, (255, 21)), seed=0, name=None),
        enter(registry, bench, "er", 276, seed=1, name=None),
        enter(registry, bench, "er", 276, seed=0, name="mine"),
        enter(registry, longer, "er", 276, seed=0, name=None),
    ]
    assert len({entry.id for entry in (one, *others)}) == 9
    assert others[3].name == "er-0.466-given"
    assert others[3].kept == {"1": 256, "3": 20}
    described = describe_baseline(bench, "er", 276, seed=0)
    assert (described.id, described.key) == (0, one.key)


FILES = {
    "d.json": json.dumps({"1": 0.5, "3": 0.25}),
    "nested.json": json.dumps({"layers": {"1": {"kept": 256, "total": 512}, "3": {"kept": 20, "total": 80}}}),
    "list.json": "[0.5, 0.25]",
    "inner.json": json.dumps({"densities": [0.5, "0.25"]}),
    "d.toml": '"1" = 0.5\n"3" = 0.25\n',
    "table.toml": '[layers]\n"3" = 0.25\n"1" = 0.5\n',
    "d.csv": "1,0.5\n\n3, 0.25\n",
    "header.csv": "layer,density\n3,0.25\n1,5e-1\n",
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_densities(space, registry, tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    expected = Densities(space.layers, COUNTS)
    assert read_densities(name, space, registry) == expected
    assert read_densities(tmp_path / name, space, registry) == expected


def test_a_mapping_and_halves_of_a_weight(space, registry):
    assert read_densities({"1": 0.5, "3": 0.25}, space, registry).kept == COUNTS
    # 0.0004 of 512 is a fifth of a weight: one is kept, for a layer without any leads nowhere.
    assert read_densities({"1": 0.0004, "3": 1}, space, registry).kept == (1, 80)


WRONG = {
    "d.txt": ("1,0.5", r"expected the id of a row, or a file: \.json, \.toml, \.csv"),
    "broken.json": ("{", "is no valid json file"),
    "deep.json": ("[" * 100_000, "is no valid json file"),
    "broken.toml": ("= 3", "is no valid toml file"),
    "bytes.json": (b"\xff\xfe\x00", "is no valid json file"),
    "number.json": ("3", "holds int; expected layer -> density"),
    "text.json": ('"x"', "holds str; expected"),
    "short.json": ("[0.5]", "has 1 densities; space 'small' has 2 layers"),
    "missing.json": ('{"1": 0.5}', "has no density for layer '3'"),
    "unknown.json": ('{"1": 0.5, "3": 1, "x": 1}', "has unknown layer 'x'; layers of space 'small': 1, 3"),
    "zero.json": ("[0.5, 0]", r"density of layer '3' is 0(\.0)?; expected 0 < density <= 1"),
    "big.json": ("[0.5, 1.5]", r"density of layer '3' is 1\.5"),
    "nan.json": ("[0.5, NaN]", "density of layer '3' is nan"),
    "true.json": ("[0.5, true]", "density of layer '3' is nan"),
    "none.json": ("[0.5, null]", "density of layer '3' is None"),
    "word.csv": ("1,0.5\n3,half\n", "density of layer '3' is 'half'"),
    "three.csv": ("1,0.5,2\n", "row 1 has 3 columns; expected layer,density"),
    "twice.csv": ("1,0.5\n3,1\n1,0.6\n", "layer '1' is given twice"),
    "empty.csv": ("", "has no density for layer '1'"),
    "kept.json": ('[0.5, {"kept": 81}]', "keeps 81 of 80 weights; expected 1 to 80"),
    "nothing.json": ('[0.5, {"kept": 0}]', "keeps 0 of 80 weights"),
    "half.json": ('[0.5, {"kept": 2.5}]', r"keeps 2\.5 of 80 weights"),
    "total.json": ('[0.5, {"kept": 20, "total": 81}]', "is of 81 weights; that layer has 80 here"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_one_clear_line(space, registry, tmp_path, name):
    content, message = WRONG[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as raised:
        read_densities(name, space, registry)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(space, registry, tmp_path):
    (tmp_path / "folder.json").mkdir()
    for name, message in (("nowhere.json", "cannot read nowhere"), ("folder.json", "cannot read folder")):
        with pytest.raises(InputError, match=message):
            read_densities(name, space, registry)
    if os.geteuid():
        (tmp_path / "secret.json").write_text("[1, 1]")
        (tmp_path / "secret.json").chmod(0)
        with pytest.raises(InputError, match="cannot read secret"):
            read_densities("secret.json", space, registry)


def test_rows_that_cannot_give_densities(registry, space):
    bench = open_bench(PruneSettings(dataset="digits", epochs=1, threads=1), space=space)
    entry = enter(registry, bench, "er", 276, seed=0, name=None)
    with pytest.raises(InputError, match="no row 7"):
        read_densities(7, space, registry)
    with pytest.raises(InputError, match=f"row {entry.id} has no densities yet; train it first: snas train {entry.id}"):
        read_densities(entry.id, space, registry)
    registry.set_kept(registry.add_run(entry, 0, seed=0), {"1": 276, "3": 0})
    with pytest.raises(InputError, match="keeps nothing of layer '3'"):
        read_densities(entry.id, space, registry)
    other = SearchSpace.from_model(network, input_shape=(64,), name="other")
    with pytest.raises(InputError, match="is of space 'small', whose layers are not those of 'other'"):
        read_densities(str(entry.id), other, registry)
    for text in ("\u00b2", "9" * 5000, "-1", ""):  # a digit that is no number, one that is no id, none at all
        with pytest.raises(InputError, match="expected the id of a row, or a file"):
            read_densities(text, space, registry)


def test_densities_of_a_mask_that_moves_are_those_of_its_end(registry, space):
    bench = open_bench(PruneSettings(dataset="digits", epochs=2, threads=1), space=space)
    given = Densities(space.layers, COUNTS)
    entry = enter(registry, bench, "dsr:every=5:threshold=0.1", given, seed=0, name=None)
    run = registry.add_run(entry, 0, seed=0)  # begun, and interrupted
    registry.set_kept(run, given.counts)
    with pytest.raises(InputError, match=f"row {entry.id} trains with a mask that moves .* snas train {entry.id}"):
        read_densities(entry.id, space, registry)
    train_entry(registry, entry, bench, seeds=1, listener=Listener())
    (ended,) = registry.runs(entry)
    assert ended.kept != given.counts  # else the test shows nothing
    assert make_row(registry, entry).layers == tuple(
        (layer.name, ended.kept[layer.name], layer.total) for layer in space.layers
    )
    assert read_densities(entry.id, space, registry).counts == ended.kept


def test_published_figures_have_no_densities_per_layer(registry, space):
    figure = Citation(space="small", dataset="d", method="snip", density=0.1, accuracy=0.9, source="a table")
    registry.cite([as_entry(figure)])
    (entry,) = registry.entries()
    with pytest.raises(InputError, match=f"row {entry.id} is a published figure"):
        read_densities(entry.id, space, registry)


@pytest.mark.parametrize("method", ["snip", "magnitude", "random", "er"])
def test_networks_keep_exactly_what_is_given(registry, space, method):
    bench = open_bench(PruneSettings(dataset="digits", epochs=1, threads=1), space=space)
    source = enter(registry, bench, "erk", 276, seed=0, name=None)
    train_entry(registry, source, bench, seeds=1, listener=Listener())
    given = read_densities(source.id, space, registry)
    assert given.kept_weights == 276
    entry = enter(registry, bench, method, given, seed=0, name=None)
    train_entry(registry, entry, bench, seeds=2, listener=Listener())
    assert [run.kept for run in registry.runs(entry)] == [given.counts] * 2
    sparse = bench.task.prepare(open_method("random"), 276, seed=0)
    assert sum(int(torch.count_nonzero(mask)) for mask in (sparse.masks[name] for name in NAMES)) == 276
