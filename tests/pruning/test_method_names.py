"""A method's name and its settings: read, filed, refused."""

from __future__ import annotations

import pytest

from snas.errors import InputError
from snas.pruning.methods import Method, given_densities, methods, open_method


def test_a_plain_name_is_the_registered_method():
    assert open_method("snip") is methods.get("snip")


def test_settings_change_the_method_and_its_name():
    method = open_method("snip:target=uniform:examples=0")
    assert (method.score, method.target, method.examples) == ("snip", "uniform", 0)
    assert open_method("early-ticket:examples=500:passes=2").passes == 2
    assert method.name == "snip:examples=0:target=uniform"
    assert open_method(method.name) == method


def test_the_order_of_settings_does_not_matter():
    assert open_method("snip:examples=5:target=raw") == open_method("snip:target=raw:examples=5")


def test_one_setting_has_one_name():
    assert open_method("rigl:fraction=.50:every=020").name == "rigl:every=20:fraction=0.5"
    assert open_method("snip:rescale=on").name == open_method("snip:rescale=yes").name == "snip:rescale=True"
    assert open_method(open_method("snip:rescale=on").name).rescale


def test_what_is_so_anyway_is_not_in_the_name():
    assert open_method("rigl:every=100:fraction=0.3").name == "rigl"
    assert open_method("imp:rounds=5:rewind=init").name == "imp"
    assert open_method("imp-rewind:rewind=1:rounds=2").name == "imp-rewind:rounds=2"
    assert open_method("snip:examples=128").name == "snip"


def test_a_value_may_hold_a_colon():
    assert open_method("snip:initialization=normal:0.02:examples=7").initialization == "normal:0.02"


def test_settings_of_the_movement_go_there():
    method = open_method("rigl:fraction=0.5:every=20:control=shuffle")
    assert method.options == {"fraction": 0.5, "every": 20}
    assert method.control == "shuffle"
    assert method.make_movement() == type(method.make_movement())(fraction=0.5, every=20)


def test_the_training_length_is_that_of_the_movement():
    lengths = {"snip": 10, "rigl": 10, "magnitude-trained": 20, "imp:rounds=3": 40, "imp:rounds=3:rewind=4": 10 + 3 * 6}
    for name, epochs in lengths.items():
        assert open_method(name).total_epochs(10) == epochs
    with pytest.raises(InputError, match="rewind is 4; expected fewer than the 4 epochs"):
        open_method("imp:rewind=4").total_epochs(4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("snpi", "did you mean 'snip'"),
        ("snip:", "unknown method 'snip:'"),
        ("snip:=3", "is no setting"),
        ("snip:examples=", "is no setting"),
        ("snip:examples=5:examples=6", "sets examples twice"),
        ("erk:control=invert", "has random scores, on which control=invert has no effect"),
        ("snip:exampels=3", "has no argument 'exampels'"),
        ("snip:examples=-1", "examples is -1"),
        ("snip:examples=many", "expected a value of type int"),
        ("snip:iterations=0", "iterations is 0"),
        ("snip:target=mean", "choices: labels, uniform, raw, softmax"),
        ("snip:control=upside-down", "choices: none, shuffle, redraw, invert"),
        ("snip:score=nope", "unknown score 'nope'"),
        ("snip:allocation=nope", "unknown allocation 'nope'"),
        ("snip:allocation=given", "--densities-from"),
        ("snip:every=5", "has no argument 'every'"),
        ("snip:initialization=hee", "choices: he, glorot"),
        ("imp:control=redraw", "rewind=redraw"),
        ("dct:control=redraw", "control=redraw has no effect"),
        ("dct:score=snip", "score has no effect"),
        ("erk:target=uniform", "looks at no data, on which target has no effect"),
        ("synflow:examples=0", "looks at no data, on which examples has no effect"),
        ("dct:rescale=true", "rescale has no effect"),
        ("ldi:rescale=true", "rescale has no effect"),
        ("dense:score=snip", "keeps all weights, on which score has no effect"),
        ("dense:control=invert", "control=invert has no effect"),
        ("gradual:control=redraw", "starts with all weights, on which control=redraw has no effect"),
        ("gradual:examples=0", "examples has no effect"),
        ("imp:iterations=5", "iterations has no effect"),
        ("early-ticket:passes=-1", "passes is -1; expected an integer of at least 0"),
        ("early-ticket:target=uniform", "looks at no data, on which target has no effect"),
        ("force:passes=1", "lets weights come back"),
        ("erk:passes=1", "has random scores, on which passes has no effect"),
        ("rigl:passes=1", "passes has no effect"),
        ("dense:passes=1", "keeps all weights, on which passes has no effect"),
        ("imp:score=snip:target=uniform", "target has no effect"),
    ],
)
def test_wrong_names_say_what_is_allowed(text: str, reason: str):
    with pytest.raises(InputError, match=reason):
        open_method(text)


def test_any_static_method_or_score_chooses_within_given_densities():
    assert given_densities("random").rescale
    assert given_densities("synflow").iterations == 100
    assert given_densities("snip:target=uniform").target == "uniform"
    assert given_densities("magnitude") == Method("magnitude", "magnitude", "given", help=methods.get("magnitude").help)


@pytest.mark.parametrize("rule", ["dense", "rigl", "gradual", "nope"])
def test_what_chooses_no_fixed_mask_is_no_mask_rule(rule: str):
    with pytest.raises(InputError, match="mask"):
        given_densities(rule)
