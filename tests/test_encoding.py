"""What points stand for: rules, shapes and densities, there and back."""

import numpy as np
import pytest

from snas import InputError
from snas.budget import Budget
from snas.checks import read_rules
from snas.encoding import AUTO_MASKS, Encoding
from snas.pruning.methods import given_densities, join_rules, open_training
from snas.search_spaces import open_space
from snas.settings import AUTO_TRAINS

FEATURES = (16,)


def mlp(representation="layer", **arguments):
    return open_space("mlp", input_shape=FEATURES, classes=3, arguments=arguments, representation=representation)


def sculpted(shapes, *, representation="depth", space_arguments=None, **options):
    return Encoding(
        mlp(representation, **(space_arguments or {})),
        shapes=shapes,
        reopen=lambda shape: mlp(representation, **{**(space_arguments or {}), **shape}),
        **options,
    )


def many():
    """Encodings with and without budgets, rules and shapes."""
    exact = Budget(density=0.3)
    return {
        "plain": Encoding(mlp()),
        "exact": Encoding(mlp(), budget=exact),
        "range": Encoding(mlp("block"), budget=Budget(max_density=0.5)),
        "rules": Encoding(mlp("uniform"), budget=exact, masks=("random", "snip"), trains=AUTO_TRAINS),
        "one shape": sculpted({"width": (8,), "hidden_layers": (1, 2, 3)}, budget=Budget(weights=60), masks=AUTO_MASKS),
        "shapes": sculpted({"width": (4, 8, 12), "hidden_layers": (1, 2, 3)}, budget=Budget(weights=200)),
        "shapes, range": sculpted(
            {"hidden_layers": (1, 2, 4)}, budget=Budget(max_density=0.5), pins={"classifier": 0.8}, trains=("rigl",)
        ),
        "shapes, uniform": sculpted({"width": (4, 8)}, representation="uniform", budget=Budget(weights=100)),
        "free shapes": sculpted({"width": (4, 8)}, representation="layer"),
    }


ENCODINGS = many()


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_canonical_point_stands_for_the_same_candidate_and_is_its_own(name):
    encoding = ENCODINGS[name]
    rng = np.random.default_rng(0)
    corners = [np.zeros(encoding.dimensions), np.ones(encoding.dimensions)]
    for point in [*corners, *rng.random((60, encoding.dimensions))]:
        candidate = encoding.decode(point)
        moved = encoding.canonical(point)
        assert encoding.decode(moved) == candidate
        assert (encoding.canonical(moved) == moved).all()
        assert candidate.space.budget is None
        assert candidate.densities.are_of(candidate.space.layers)


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_candidate_s_point_stands_for_its_rules_and_shape_and_its_densities_where_they_have_one(name):
    encoding = ENCODINGS[name]
    rng = np.random.default_rng(1)
    for point in 0.3 + 0.4 * rng.random((30, encoding.dimensions)):
        candidate = encoding.decode(point)
        mask, _, train = candidate.rule.partition(" + ")
        shape = {name: candidate.space.arguments[name] for name in encoding.shapes}
        back = encoding.encode(candidate.densities, mask=mask, train=train or "static", shape=shape)
        again = encoding.decode(back)
        assert (again.rule, again.space) == (candidate.rule, candidate.space)
        assert (encoding.canonical(back) == back).all()
        if encoding.space.representation in ("layer", "uniform") and not encoding.shapes:
            assert again.densities == candidate.densities


def test_without_anything_to_choose_a_point_is_the_space_s():
    space = mlp()
    encoding = Encoding(space)
    point = np.linspace(0.1, 0.9, space.dimensions)
    candidate = encoding.decode(point)
    assert candidate.space is space
    assert candidate.densities == space.densities(point)
    assert candidate.rule == "random"
    assert (encoding.canonical(point) == point).all()
    assert encoding.describe() == {}
    assert encoding.traits(candidate) == {"rule": "random"}


def test_a_choice_cuts_its_coordinate_into_equal_parts():
    encoding = Encoding(
        mlp("uniform"), budget=Budget(density=0.2), masks=("random", "snip", "grasp"), trains=AUTO_TRAINS
    )
    assert encoding.dimensions == 2  # an exact total and one density for all leave only the rules
    found = {u: encoding.decode(np.array([u, 0.0])).rule for u in (0, 0.33, 0.34, 0.66, 0.67, 1)}
    assert list(found.values()) == ["random", "random", "snip", "snip", "grasp", "grasp"]
    assert encoding.decode(np.array([0.5, 0.5])).rule == "snip + set"
    assert encoding.canonical(np.array([0.4, 0.9])) == pytest.approx([1 / 2, 5 / 6])
    assert encoding.describe() == {
        "budget": {"density": 0.2},
        "masks": ["random", "snip", "grasp"],
        "train": "static,set,rigl",
    }


def test_what_has_one_value_has_no_coordinate():
    assert ENCODINGS["one shape"].dimensions == 5 + 2  # along the depth; mask rule and hidden layers
    assert {c.space.arguments["width"] for c in map(ENCODINGS["one shape"].decode, np.eye(7))} == {8}
    assert ENCODINGS["shapes, uniform"].dimensions == 1
    assert Encoding(mlp(), budget=Budget(density=0.2), trains=("set",)).dimensions == len(mlp().layers)


def test_settings_of_rules():
    encoding = Encoding(mlp(), masks=("snip:target=uniform", "random"), trains=("rigl:every=50",))
    candidate = encoding.decode(np.full(encoding.dimensions, 0.1))
    assert candidate.rule == "snip:target=uniform + rigl:every=50"
    method = candidate.method
    assert (method.target, method.movement, method.options, method.allocation) == (
        "uniform",
        "rigl",
        {"every": 50},
        "given",
    )


def test_every_rule_that_auto_stands_for_works():
    for mask in AUTO_MASKS:
        for train in AUTO_TRAINS:
            assert given_densities(join_rules(mask, train)).allocation == "given"
    assert read_rules("mask", " snip , random", AUTO_MASKS) == ("snip", "random")


def test_shapes_keep_the_number_of_weights():
    encoding = ENCODINGS["shapes"]
    rng = np.random.default_rng(2)
    seen = set()
    for point in rng.random((60, encoding.dimensions)):
        candidate = encoding.decode(point)
        assert candidate.densities.kept_weights == 200
        seen.add((candidate.space.arguments["width"], candidate.space.arguments["hidden_layers"]))
        assert encoding.traits(candidate)["shape"] == {
            name: candidate.space.arguments[name] for name in ("width", "hidden_layers")
        }
    assert len(seen) > 2
    assert all(mlp(width=width, hidden_layers=cells).total_weights >= 200 for width, cells in seen)


def test_a_density_is_a_fraction_of_the_space_that_was_named_also_for_other_shapes():
    encoding = sculpted({"width": (8, 40)}, budget=Budget(density=0.5), space_arguments={"width": 8})
    base = mlp(width=8).total_weights
    kept = {encoding.decode(np.append(np.full(5, 0.5), u)).densities.kept_weights for u in (0.2, 0.8)}
    assert kept == {int(0.5 * base + 0.5)}
    low = sculpted({"width": (8, 40)}, budget=Budget(min_density=0.1, max_density=0.5), space_arguments={"width": 8})
    for architecture in low.architectures:
        assert architecture.limits.least == pytest.approx(0.1 * base, abs=1)
        assert architecture.limits.most == int(0.5 * base)


def test_a_shape_out_of_reach_gives_way_to_the_nearest():
    encoding = sculpted({"width": (2, 4, 20, 40)}, budget=Budget(weights=500))
    assert [space.arguments["width"] for space in encoding.architectures] == [20, 40]
    point = np.append(np.full(5, 0.5), 0.1)
    assert encoding.decode(point).space.arguments["width"] == 20
    assert encoding.canonical(point)[-1] == 2.5 / 4
    assert encoding.space_of({"width": 2}).arguments["width"] == 20


def test_the_usual_shape():
    shapes = {"width": (4, 8), "hidden_layers": (1, 3)}
    assert sculpted(shapes).space_of({}).arguments == {"width": 4, "hidden_layers": 1}
    assert sculpted(shapes, space_arguments={"width": 8}).space_of({}).arguments["width"] == 8
    encoding = sculpted(shapes, usual={"hidden_layers": 3})
    assert encoding.space_of({}).arguments["hidden_layers"] == 3
    assert encoding.space_of({"hidden_layers": 1, "width": 8}).arguments == {"width": 8, "hidden_layers": 1}


def test_pins_are_in_every_candidate():
    encoding = Encoding(mlp(), budget=Budget(density=0.4), pins={"classifier": 1.0})
    assert encoding.dimensions == len(mlp().layers) - 1
    for point in np.random.default_rng(3).random((20, encoding.dimensions)):
        candidate = encoding.decode(point)
        assert candidate.densities.fractions["classifier"] == 1.0
        assert candidate.densities.kept_weights == int(0.4 * mlp().total_weights + 0.5)
        assert candidate.space.pinned == {"classifier": 1.0}
    alone = Encoding(mlp(), pins={"classifier": 0.5})
    assert alone.decode(np.zeros(alone.dimensions)).densities.kept[-1] == mlp().layers[-1].total // 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Encoding(mlp("uniform"), budget=Budget(density=0.2)),
            "leave nothing to search: all points are ",
        ),
        (lambda: Encoding(mlp(), budget=Budget(density=1.0)), "leave nothing to search"),
        (
            lambda: sculpted({"width": (8,)}, representation="uniform", budget=Budget(weights=50)),
            "leave nothing to search",
        ),
        (lambda: Encoding(mlp(), pins={"*": 0.5}), "every layer is pinned"),
        (lambda: Encoding(mlp(), masks=("nope",)), "unknown mask rule 'nope'"),
        (lambda: Encoding(mlp(), masks=("dense",)), "mask rule 'dense' does not choose a fixed mask"),
        (lambda: Encoding(mlp(), trains=("imp",)), "unknown training rule 'imp'; choices: static, "),
        (lambda: Encoding(mlp(), trains=("rigl:score=snip",)), "sets more than how the mask moves|no argument|has no"),
        (
            lambda: Encoding(mlp(), masks=("snip", "snip:target=labels")),
            "rule 'snip' is given twice, in different words",
        ),
        (lambda: Encoding(mlp(), budget=Budget(weights=2)), "^weights 2 cannot be met: "),
        (
            lambda: sculpted({"width": (4, 8)}, budget=Budget(weights=10**6)),
            "no shape that is searched can meet the budget; with width=8, weights 1000000 cannot be met: the layers ",
        ),
        (
            lambda: sculpted({"hidden_layers": (1, 2)}, representation="layer", budget=Budget(weights=50)),
            "'layer' gives the searched shapes .* coordinates; choose representation depth or uniform",
        ),
        (lambda: Encoding(mlp(), shapes={"width": (4, 8)}), "cannot be searched; name a space that takes arguments"),
        (lambda: sculpted({"width": tuple(range(1, 700))}), "699 shapes are too many; search at most 512"),
        (lambda: sculpted({"hidden_layers": (0, 1)}), "argument 'hidden_layers' of space 'mlp' is 0"),
        (
            lambda: read_rules("mask", "snip,,random", AUTO_MASKS),
            "expected different rules with commas between, or auto",
        ),
        (lambda: read_rules("train", "set,set", AUTO_TRAINS), "train is 'set,set'; expected different rules"),
        (lambda: open_training("static"), "unknown training rule 'static'"),
    ],
)
def test_what_cannot_be_searched(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_wrong_points_and_names():
    encoding = ENCODINGS["shapes"]
    for point in (np.full(encoding.dimensions - 1, 0.5), np.full((1, encoding.dimensions), 0.5)):
        for read in (encoding.decode, encoding.canonical):
            with pytest.raises(InputError, match=f"the search expects \\({encoding.dimensions},\\)"):
                read(point)
    for entry in (-0.1, 1.1, np.nan):
        with pytest.raises(InputError, match=r"expected entries in \[0, 1\]"):
            encoding.decode(np.full(encoding.dimensions, entry))
    densities = encoding.decode(np.full(encoding.dimensions, 0.5)).densities
    with pytest.raises(InputError, match="width 5 is not searched; choices: 4, 8, 12"):
        encoding.encode(densities, shape={"width": 5})
    with pytest.raises(InputError, match="argument 'depth' is not searched; choices: width, hidden_layers"):
        encoding.space_of({"depth": 5})
    with pytest.raises(InputError, match="mask rule 'snip' is not searched; choices: random"):
        encoding.encode(densities, mask="snip")
