"""Starts of a search: rules inside every kind of budget, densities from rows and files, and carrying them over."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import snas
from snas.budget import Budget
from snas.carry_over import carry_over
from snas.densities import Densities, Layer
from snas.encoding import Encoding
from snas.errors import InputError
from snas.pruning.allocations import allocations, erk
from snas.registry import Registry
from snas.search_spaces.base import SearchSpace
from snas.search_spaces.catalog import open_space
from snas.warm_starts import Source, open_source, open_starts, turn_of


@pytest.fixture(name="space", scope="module")
def _space() -> SearchSpace:
    return open_space("lenet-300-100", input_shape=(1, 8, 8), classes=10)


def _mlp(width: int) -> SearchSpace:
    return open_space("mlp", input_shape=(64,), classes=10, arguments={"width": width, "hidden_layers": 2})


def _starts(encoding: Encoding, text: str = "rules", source: Source | None = None):
    sources = [] if source is None else [source]
    return [(origin, encoding.decode(point)) for origin, point in open_starts(text, encoding, sources)]


# Rules


def test_the_rules_at_an_exact_budget_are_the_allocations_themselves(space):
    encoding = Encoding(space, budget=Budget(density=0.05))
    starts = dict(_starts(encoding))
    assert list(starts) == ["erk", "smart", "uniform"]
    for name, candidate in starts.items():
        wanted = allocations.get(name)(space.layers, 2510, pinned={}).kept
        assert sum(candidate.densities.kept) == 2510
        assert max(abs(np.subtract(candidate.densities.kept, wanted))) <= 1, name


def test_a_rule_that_cannot_be_met_is_skipped(space):
    # 100 weights, of which smart ratios would give 300 to the classifier.
    with pytest.raises(InputError, match="302"):
        allocations.get("smart")(space.layers, 100, pinned={})
    assert [origin for origin, _ in _starts(Encoding(space, budget=Budget(weights=100)))] == ["erk", "uniform"]


def test_a_range_is_tried_at_five_sizes_the_largest_and_smallest_first(space):
    encoding = Encoding(space, budget=Budget(min_density=0.002, max_density=0.2))
    starts = _starts(encoding)
    kept = [candidate.densities.kept_weights for origin, candidate in starts if origin.startswith("erk")]
    assert kept[:2] == [10040, 101]
    assert sorted(kept) == pytest.approx([10040 * (101 / 10040) ** (k / 4) for k in (4, 3, 2, 1, 0)], abs=2)
    assert [origin.split()[0] for origin, _ in starts[:3]] == ["erk", "erk", "smart"]
    smart = [candidate.densities.kept_weights for origin, candidate in starts if origin.startswith("smart")]
    assert min(smart) > 302
    assert len(starts) == 5 + 5 + len(smart)


def test_equal_starts_are_tried_once(space):
    # One coordinate for all layers: every rule is read as the same densities at each of the five sizes.
    uniform = space.with_options(representation="uniform")
    starts = _starts(Encoding(uniform, budget=Budget(min_density=0.01, max_density=0.2)))
    assert len({candidate.densities.kept for _, candidate in starts}) == len(starts) == 5


def test_starts_obey_floors_caps_and_pins(space):
    budget = Budget(density=0.05, floors={"fc3": 0.5}, caps={"fc1": 0.06})
    starts = _starts(Encoding(space, budget=budget, pins={"fc2": 0.03}))
    assert len(starts) >= 1
    for _, candidate in starts:
        first, second, third = candidate.densities.kept
        assert (second, first + second + third) == (900, 2510)
        assert first <= 0.06 * 19200
        assert third >= 500


def test_every_rule_of_mask_and_training_is_tried_with_erk(space):
    encoding = Encoding(
        space, budget=Budget(density=0.05), masks=("random", "snip", "grasp"), trains=("static", "rigl")
    )
    rules = [candidate.rule for origin, candidate in _starts(encoding) if origin.startswith("erk")]
    assert rules == ["random", "random + rigl", "snip", "grasp"]
    assert [origin for origin, _ in _starts(encoding)][:3] == [
        "erk random static",
        "erk random rigl",
        "smart random static",
    ]


def test_the_ends_of_a_searched_shape_are_tried():
    encoding = Encoding(
        _mlp(16),
        budget=Budget(weights=300),
        shapes={"width": (8, 16, 32)},
        usual={"width": 16},
        reopen=lambda shape: _mlp(shape["width"]),
    )
    starts = _starts(encoding)
    widths = [candidate.space.arguments["width"] for _, candidate in starts]
    assert widths[0] == 16
    assert set(widths) == {8, 16, 32}
    assert {candidate.densities.kept_weights for _, candidate in starts} == {300}
    assert starts[0][0] == "erk width=16"


def test_rules_need_a_budget(space):
    with pytest.raises(InputError, match="needs a budget, such as --density"):
        open_starts("rules", Encoding(space))
    assert open_starts("none", Encoding(space)) == []


@given(st.integers(1, 400))
def test_at_most_half_of_a_search_are_starts(samples):
    taken = [turn for turn in map(turn_of, range(samples)) if turn is not None]
    assert taken == list(range(len(taken)))  # in their order, none left out
    assert len(taken) <= max(3, samples / 2)
    assert len(taken) >= min(samples, 3, samples // 2)


# Sources


def _row(tmp_path, **settings):
    return snas.prune(
        "lenet-300-100", method="smart", epochs=1, final_seeds=1, registry=str(tmp_path / "r.db"), **settings
    )


def test_a_row_starts_a_search_before_the_rules(tmp_path):
    row = _row(tmp_path, density=0.05)
    found = snas.search(
        "lenet-300-100",
        density=0.05,
        warm_start=row.id,
        samples=4,
        epochs=1,
        final_seeds=0,
        confirm=0,
        strategy="random",
        registry=str(tmp_path / "r.db"),
    )
    with Registry(tmp_path / "r.db") as registry:
        study = registry.find_study(found.study)
        records = registry.candidates(study)
    assert [record.traits["origin"] for record in records] == [f"row {row.id}", "erk", "uniform", "strategy"]
    assert records[0].kept == row.densities.counts
    assert study.identity["warm-start"]["from"] == str(row.id)


def test_a_row_of_another_network_and_rule_is_carried_over(tmp_path):
    row = _row(tmp_path, density=0.05)
    source = open_source(str(row.id), str(tmp_path / "r.db"))
    encoding = Encoding(_mlp(64), budget=Budget(density=0.1), masks=("snip", "random"))
    starts = _starts(encoding, str(row.id), source)
    assert [origin for origin, _ in starts[:2]] == [f"row {row.id} random", f"row {row.id} snip"]  # its own rule first
    limits = Budget(density=0.1).limits(encoding.space.layers)
    assert max(abs(np.subtract(starts[0][1].densities.kept, carry_over(row.densities, limits).kept))) <= 1


def test_without_a_budget_a_row_starts_as_it_is(tmp_path, space):
    row = _row(tmp_path, density=0.05)
    source = open_source(str(row.id), str(tmp_path / "r.db"))
    ((origin, candidate),) = _starts(Encoding(space), str(row.id), source)
    assert (origin, candidate.densities.counts) == (f"row {row.id}", row.densities.counts)


@pytest.mark.parametrize("suffix", ["json", "toml", "csv"])
def test_files_of_every_format_start_a_search(tmp_path, space, suffix):
    densities = {"fc1": 0.02, "fc2": 0.05, "fc3": 0.6}
    text = {
        "json": json.dumps(densities),
        "toml": "".join(f"{name} = {value}\n" for name, value in densities.items()),
        "csv": "layer,density\n" + "".join(f"{name},{value}\n" for name, value in densities.items()),
    }[suffix]
    (tmp_path / f"d.{suffix}").write_text(text)
    source = open_source(f"d.{suffix}", "none.db")
    kept = (384, 1500, 600)
    starts = _starts(Encoding(space, budget=Budget(weights=sum(kept))), f"d.{suffix}", source)
    assert starts[0][0] == f"d.{suffix}"
    assert starts[0][1].densities.kept == kept
    # With another total the ratios to ERK are what stays.
    half = _starts(Encoding(space, budget=Budget(weights=sum(kept) // 2)), f"d.{suffix}", source)[0][1].densities
    assert half.kept_weights == sum(kept) // 2
    gain = np.array(kept) / erk(space.layers, sum(kept), pinned={}).kept
    there = np.array(half.kept) / erk(space.layers, sum(kept) // 2, pinned={}).kept
    assert there / there[0] == pytest.approx(gain / gain[0], rel=0.02)


def test_what_show_writes_tells_the_layers_too(tmp_path, capsys):
    from snas.cli.main import main

    row = _row(tmp_path, density=0.05)
    assert main(["show", str(row.id), "--registry", "r.db", "--format", "json"]) == 0
    (tmp_path / "shown.json").write_text(capsys.readouterr().out)
    source = open_source("shown.json", "none.db")
    assert source.known(_mlp(64)) == row.densities
    assert (source.name, source.rule) == ("shown.json", "smart")
    (tmp_path / "shown.json").write_text('{"space": {"layers": [{"name": "a"}]}, "layers": {}}')
    with pytest.raises(InputError, match=r"shown\.json is not as snas show"):
        open_source("shown.json", "none.db")


def test_a_file_of_other_layers_is_refused(tmp_path, space):
    (tmp_path / "d.json").write_text('{"conv1": 0.5}')
    with pytest.raises(InputError, match=r"d\.json has unknown layer 'conv1'; layers of space 'lenet-300-100'"):
        _starts(Encoding(space, budget=Budget(density=0.1)), "d.json", open_source("d.json", "none.db"))


WRONG = {
    "9": "no registry at r.db",
    "nowhere.json": "cannot read nowhere.json",
    "nowhere": "warm-start is 'nowhere'; expected none, rules, methods, the id of a row, or a file",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_warm_start_is_one_line_before_anything_is_written(tmp_path, text):
    with pytest.raises(InputError, match=WRONG[text]) as raised:
        snas.search("lenet-300-100", density=0.1, warm_start=text, registry="r.db")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_row_leaves_the_registry_as_it_was(tmp_path):
    row = _row(tmp_path, density=0.05)
    with pytest.raises(InputError, match="no row 77"):
        snas.search("lenet-300-100", density=0.1, warm_start="77", registry=str(tmp_path / "r.db"))
    with Registry(tmp_path / "r.db") as registry:
        assert [entry.id for entry in registry.entries()] == [row.id]
        assert registry.studies() == []


# Carrying over


def _by_hand(source: Densities, layers: list[Layer], total: int) -> np.ndarray:
    """For stacks of matrices with as many layers: ratios one to one, no bounds."""
    here, there = erk(layers, total, pinned={}).kept, erk(source.layers, source.kept_weights, pinned={}).kept
    wish = [mine * kept / usual for mine, kept, usual in zip(here, source.kept, there, strict=True)]
    return np.array(wish) * total / sum(wish)


def test_wider_layers_get_the_same_ratios_to_erk():
    narrow = [Layer(f"l{i}", shape) for i, shape in enumerate([(20, 30), (20, 20), (20, 20), (10, 20)])]
    wide = [Layer(f"x{i}", shape) for i, shape in enumerate([(60, 30), (60, 60), (60, 60), (10, 60)])]
    source = Densities(tuple(narrow), (30, 60, 20, 40))
    found = carry_over(source, Budget(weights=500).limits(wide))
    assert found.kept_weights == 500
    assert np.array(found.kept) == pytest.approx(_by_hand(source, wide, 500), abs=1)


def test_a_deeper_network_takes_straight_lines_between_the_layers():
    def stack(inner: int) -> tuple[Layer, ...]:
        return tuple(Layer(f"l{i}", (40, 40)) for i in range(inner + 2))

    # ERK is even here: the ratios of the inner layers are 1/4, 1 and 4 times one number.
    source = Densities(stack(3), (50, 25, 100, 400, 50))
    found = carry_over(source, Budget(weights=1000).limits(stack(5))).kept
    inner = np.log2(np.array(found[1:-1]) / found[1])
    assert inner == pytest.approx([0, 1, 2, 3, 4], abs=0.05)
    assert found[0] == pytest.approx(2 * found[1], abs=1)
    assert found[-1] == pytest.approx(2 * found[1], abs=1)


def test_shortcuts_learn_from_shortcuts():
    def network(blocks: int) -> tuple[Layer, ...]:
        inner = [
            layer for i in range(blocks) for layer in (Layer(f"b{i}", (16, 16, 3, 3)), Layer(f"s{i}", (16, 16, 1, 1)))
        ]
        return (Layer("stem", (16, 3, 3, 3)), *inner, Layer("head", (10, 16)))

    two, four = network(2), network(4)
    usual = dict(zip([layer.name for layer in two], erk(two, 200, pinned={}).kept, strict=True))
    counts = {name: kept * (4 if name.startswith("s") and len(name) == 2 else 1) for name, kept in usual.items()}
    source = Densities.from_counts(two, counts)
    found = carry_over(source, Budget(weights=500).limits(four)).counts
    plain = erk(four, 500, pinned={}).counts
    gains = {name: found[name] / plain[name] for name in found}
    for i in range(4):
        assert gains[f"s{i}"] / gains[f"b{i}"] == pytest.approx(4, rel=0.1)


def test_a_kind_that_the_source_lacks_takes_its_inner_layers():
    source = Densities(tuple(Layer(f"l{i}", (40, 40)) for i in range(4)), (100, 25, 25, 100))
    layers = (Layer("a", (40, 40)), Layer("b", (40, 40, 1)), Layer("c", (40, 40, 1)), Layer("d", (40, 40)))
    found = carry_over(source, Budget(weights=250).limits(layers)).kept
    assert found[0] / found[1] == pytest.approx(4, rel=0.1)
    assert found[1] == pytest.approx(found[2], abs=1)


def test_a_network_without_inner_layers_tells_nothing_of_them():
    source = Densities((Layer("a", (40, 40)), Layer("b", (40, 40))), (50, 50))
    layers = tuple(Layer(f"l{i}", (40, 40)) for i in range(4))
    assert carry_over(source, Budget(weights=400).limits(layers)).kept == (100, 100, 100, 100)
    assert carry_over(Densities((Layer("a", (40, 40)),), (50,)), Budget(weights=400).limits(layers)).kept_weights == 400


def test_empty_layers_cannot_be_carried_over():
    layers = (Layer("a", (4, 4)), Layer("b", (4, 4)))
    with pytest.raises(InputError, match="layer 'b' keeps nothing"):
        carry_over(Densities(layers, (3, 0)), Budget(density=0.5).limits(layers))


SIDES = st.lists(st.integers(1, 40), min_size=2, max_size=8)


@st.composite
def networks(draw):
    """Layers, and numbers of weights that they keep."""
    sides = draw(SIDES)
    kernels = draw(st.lists(st.sampled_from([(), (1, 1), (3, 3)]), min_size=len(sides) - 1, max_size=len(sides) - 1))
    layers = tuple(
        Layer(f"l{i}", (out, into, *kernel))
        for i, (into, out, kernel) in enumerate(zip(sides[:-1], sides[1:], kernels, strict=True))
    )
    return Densities(layers, tuple(draw(st.integers(1, layer.total)) for layer in layers))


@given(networks())
def test_the_same_network_at_the_same_total_is_left_as_it_is(source):
    assert carry_over(source, Budget(weights=source.kept_weights).limits(source.layers)).kept == source.kept
    assert carry_over(source, Budget().limits(source.layers)).kept == source.kept


@given(networks(), networks(), st.floats(0, 1), st.floats(0.3, 1))
def test_totals_are_exact_and_bounds_are_kept(source, target, share, cap):
    caps = {layer.name: cap for layer in target.layers if math.floor(cap * layer.total * (1 + 1e-12)) >= 1}
    bare = Budget(caps=caps).limits(target.layers)
    total = round(sum(bare.low) + share * (sum(bare.high) - sum(bare.low)))
    limits = Budget(weights=total, caps=caps).limits(target.layers)
    found = carry_over(source, limits)
    assert found.kept_weights == total
    assert all(low <= kept <= high for low, kept, high in zip(limits.low, found.kept, limits.high, strict=True))


def test_a_space_of_a_module_is_a_source_as_good_as_any():
    def space(width: int) -> SearchSpace:
        def build() -> nn.Module:
            return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, 10))

        return SearchSpace.from_model(build, input_shape=(64,), name="own")

    small, large = space(16), space(64)
    found = carry_over(Densities(small.layers, (50, 100, 20)), large.with_budget(Budget(density=0.02)).limits)
    assert found.kept_weights == round(0.02 * large.total_weights)
