from __future__ import annotations

import pytest
import torch

from snas.errors import InputError
from snas.pruning.dynamic.rewinding import Rounds
from snas.pruning.scores import scores

FIRST = [[float(index) for index in range(1, 17)]]  # 1 .. 16
# trained weights of the first cycle: magnitude 17 - index; of the second: those of even index are large
SECOND = [[(17.0 - index) * (-1) ** index for index in range(1, 17)]]
THIRD = [[10.0 + index if index % 2 == 0 else index / 100 for index in range(1, 17)]]


def put(support, values: list) -> None:
    with torch.no_grad():
        support.weights["a"].copy_(torch.tensor(values))
    support.mask_weights()


def prune_twice(support, goal, at, **options) -> list[torch.Tensor]:
    """From 16 weights to 4 in two rounds; the weights after each."""
    movement, results = Rounds(rounds=2, **options), []
    movement.before_epoch(support, goal, at(0))
    for cycle, trained in ((1, SECOND), (2, THIRD)):
        put(support, trained)
        support.optimizer.state[support.weights["a"]]["momentum_buffer"].fill_(1.0)
        movement.before_epoch(support, goal, at(100 * cycle, cycle=cycle, place=0))
        results.append(support.weights["a"].detach().clone()[0])
        assert not support.optimizer.state[support.weights["a"]]["momentum_buffer"].any()
    return results


def test_two_rounds_rewound_to_the_initial_weights(make_support, goal_of, at):
    support = make_support({"a": FIRST})
    one, two = prune_twice(support, goal_of(support, 4), at)
    assert one.tolist() == [*range(1, 9), *[0] * 8]  # 16 -> 8 -> 4: the same share in each round
    assert two.tolist() == [0, 2, 0, 4, 0, 6, 0, 8, *[0] * 8]


def test_two_rounds_without_rewinding(make_support, goal_of, at):
    support = make_support({"a": FIRST})
    one, two = prune_twice(support, goal_of(support, 4), at, rewind="none")
    assert one.tolist() == [*SECOND[0][:8], *[0] * 8]
    assert two.tolist() == [0, 12, 0, 14, 0, 16, 0, 18, *[0] * 8]


def test_two_rounds_with_fresh_weights(make_support, goal_of, at):
    support = make_support({"a": FIRST})
    one, two = prune_twice(support, goal_of(support, 4), at, rewind="redraw")
    assert one.nonzero().flatten().tolist() == [*range(8)]
    assert two.nonzero().flatten().tolist() == [1, 3, 5, 7]
    for weights in (one, two):
        drawn = weights[weights != 0].tolist()
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) <= set(FIRST[0])
        assert drawn != [FIRST[0][place] for place in weights.nonzero().flatten().tolist()]
    assert one[[1, 3, 5, 7]].tolist() != two[[1, 3, 5, 7]].tolist()  # each round draws anew


def test_everything_else_is_rewound_too(goal_of, at):
    from snas.densities import Layer
    from snas.masks import Masks
    from snas.pruning.dynamic.support import Support
    from snas.pruning.scores import Batch

    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = Batch(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64))
    support = Support(model, Masks.dense([Layer("0", (3, 4))]), optimizer, batch)
    movement = Rounds(rounds=1)
    movement.before_epoch(support, goal_of(support, 6), at(0))
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    movement.before_epoch(support, goal_of(support, 6), at(100, cycle=1, place=0))
    for name, value in model.state_dict().items():
        expected = before[name] * support.masks["0"] if name == "0.weight" else before[name]
        assert torch.equal(value, expected), name
    assert int(support.masks["0"].sum()) == 6


def test_later_cycles_start_where_they_rewind_to(make_support, goal_of, at):
    support = make_support({"a": FIRST})
    movement, goal = Rounds(rounds=1, rewind="2"), goal_of(support, 8)
    assert movement.total_epochs(10) == 10 + 8
    assert [movement.position(number, 10) for number in (1, 3, 10, 11, 18)] == [(0, 0), (0, 2), (0, 9), (1, 2), (1, 9)]
    movement.before_epoch(support, goal, at(0))
    assert not movement.tensors()
    put(support, [[value + 0.5 for value in FIRST[0]]])
    movement.before_epoch(support, goal, at(20))
    put(support, SECOND)
    movement.before_epoch(support, goal, at(100, cycle=1, place=20))
    assert support.weights["a"].tolist() == [[*(value + 0.5 for value in FIRST[0][:8]), *[0] * 8]]


def test_named_ways_take_whole_cycles():
    movement = Rounds(rounds=3)
    assert movement.total_epochs(5) == 20
    assert [movement.position(number, 5) for number in (1, 5, 6, 20)] == [(0, 0), (0, 4), (1, 0), (3, 4)]


def test_scores_see_the_training_examples_and_the_mask(make_support, goal_of, at, monkeypatch):
    seen = []

    def spy(model, layers, batch, *, generator):
        seen.append(batch)
        return {layer.name: model.get_parameter(layer.parameter).detach().abs() for layer in layers}

    monkeypatch.setitem(scores._members, "spy", spy)
    support = make_support({"a": FIRST})
    prune_twice(support, goal_of(support, 4), at, score="spy", examples=2)
    assert [len(batch.y) for batch in seen] == [2, 2]
    assert [batch.masks.kept.kept_weights for batch in seen] == [16, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"examples": -1}, "examples is -1"),
        ({"rewind": "start"}, "rewind is 'start'"),
        ({"rewind": "-1"}, "rewind is '-1'"),
        ({"rewind": ""}, "rewind is ''"),
        ({"score": "nothing"}, "unknown score 'nothing'"),
    ],
)
def test_options_out_of_range_are_told(options, message):
    with pytest.raises(InputError, match=message):
        Rounds(**options)


def test_a_rewinding_point_after_the_training_is_told():
    with pytest.raises(InputError, match="rewind is 5; expected fewer than the 5 epochs"):
        Rounds(rewind="5").total_epochs(5)
