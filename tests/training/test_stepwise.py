"""Trainings measured in steps, and the goal that ends them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from snas.data.arrays import from_arrays
from snas.data.split import split_data
from snas.densities import Densities
from snas.errors import InputError
from snas.pruning.methods import given_densities
from snas.pruning.prepare import prepare
from snas.search_spaces.base import SearchSpace
from snas.training.rule import TrainingRule
from snas.training.session import Session
from snas.training.stepwise import CHUNK, Goal, StepRule, StepSession
from snas.training.task import score_batch


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 3))


SPACE = SearchSpace.from_model(network, input_shape=(6,), name="net")
RNG = np.random.default_rng(0)
Y = np.arange(2000) % 3
CENTRES = RNG.normal(size=(3, 6))
DATA = split_data(from_arrays((CENTRES[Y] + RNG.normal(size=(2000, 6))).astype("f4"), Y), seed=0)
CPU = torch.device("cpu")


def sparse(seed=1):
    densities = Densities.from_fractions(SPACE.layers, [0.5, 0.6])
    return prepare(SPACE, given_densities("random"), densities, score_batch(DATA, seed=seed), seed=seed)


def session(**rule) -> StepSession:
    values = {"epochs": 1, "batch_size": 20, "lr": 0.05, "schedule": "constant", **rule}
    return StepSession(sparse(), StepRule(**values), DATA, seed=1, device=CPU)


def test_batches_are_of_one_size_and_every_example_comes_equally_often():
    examples = len(DATA.train.y)
    size = 70
    assert examples % size
    one = session(batch_size=size)
    batches = [one._next_batch() for _ in range(examples * 7 // size)]
    assert {len(batch) for batch in batches} == {size}
    seen = Counter(torch.cat(batches).tolist())
    assert len(seen) == examples
    assert set(seen.values()) <= {6, 7}
    assert len(set(torch.cat(batches)[:examples].tolist())) == examples


def test_steps_are_those_of_a_session():
    """Until the end of its first epoch a session with the same order of examples does the same."""
    model = session(weight_decay=0.01, momentum=0.5)
    rule = TrainingRule(epochs=1, batch_size=20, lr=0.05, schedule="constant", weight_decay=0.01, momentum=0.5)
    made = sparse()
    plain = Session(made.model, made.masks, rule, DATA, seed=1, device=CPU)
    batches, generator = plain.begin_epoch()
    for index, batch in enumerate(batches[:5]):
        with plain._seeded(index):
            plain.learn(batch, generator, index, len(batches))
    for _ in range(5):
        model.advance(1)
    for one, two in zip(model.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_masked_weights_stay_zero_and_equal_seeds_give_equal_networks():
    one, two = session(), session()
    one.advance(30)
    two.advance(30)
    one.finish()
    for layer in one.masks.layers:
        weight = one.model.get_parameter(layer.parameter)
        assert not weight[~one.masks[layer.name]].any()
        assert torch.equal(weight, two.model.get_parameter(layer.parameter))


def test_the_learning_rate_falls_linearly_to_its_factor():
    rule = StepRule(epochs=1, lr=0.2, schedule="constant", decay_steps=100, decay_factor=0.1)
    rates = [rule.learning_rate_at(step, 1) for step in (0, 50, 100, 500)]
    assert rates == pytest.approx([0.2, 0.11, 0.02, 0.02])
    assert StepRule(epochs=1, lr=0.2, schedule="constant").learning_rate_at(500, 1) == 0.2
    one = session(decay_steps=10, decay_factor=0.5)
    one.advance(6)
    assert one.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.75)
    with pytest.raises(InputError, match="0 < factor <= 1"):
        StepRule(decay_factor=0.0)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(InputError, match=f"batch-size is 4000; expected at most {len(DATA.train.y)}"):
        session(batch_size=4000)


@pytest.mark.parametrize("error", [0.05, 0.15, 0.3])
def test_a_goal_says_what_a_whole_evaluation_says(error):
    one = session()
    goal = Goal(DATA.train, error)
    assert len(DATA.train.y) > 2 * CHUNK
    said, right = [], []
    for _ in range(25):
        one.advance(2)
        said.append(goal.reached_by(one))
        right.append(1 - one.evaluate(DATA.train)[1] <= error)
    assert said == right
    assert any(said) != all(said) or not any(said)


def test_a_goal_far_away_is_told_by_few_examples(monkeypatch):
    one = session()
    goal = Goal(DATA.train, 0.02)
    goal.reached_by(one)
    seen = []
    logits = one.logits
    monkeypatch.setattr(one, "logits", lambda x: seen.append(len(x)) or logits(x))
    assert goal.reached_by(one) is False
    assert sum(seen) == CHUNK < len(DATA.train.y)


def test_goals_count_examples_exactly():
    """2 of 40 wrong are an error of 0.05, which floating-point arithmetic must not take for more."""
    one = session()
    one.prepare_evaluation()
    predicted = one.logits(DATA.validation.x[:40]).argmax(1)
    truth = predicted.clone()
    truth[:2] = (truth[:2] + 1) % 3
    arrays = type(DATA.validation)(DATA.validation.x[:40], truth)
    assert Goal(arrays, 0.05).reached_by(one) is True
    assert Goal(arrays, 0.049).reached_by(one) is False


def test_a_network_that_diverged_is_neither():
    one = session(lr=1e30)
    goal = Goal(DATA.validation, 0.1)
    one.advance(10)
    assert goal.reached_by(one) is None


@pytest.mark.parametrize("error", [0.0, 1.0, -0.1, float("nan")])
def test_goals_out_of_range_are_refused(error):
    with pytest.raises(InputError, match="0 < goal < 1"):
        Goal(DATA.validation, error)
