"""bayes-hd: what it is told, its box, its proposals, and that it beats chance with few trials and noisy scores."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

from snas.errors import InputError
from snas.strategies import bayes_hd
from snas.strategies.base import make_strategy
from snas.strategies.bayes_hd import BayesHD, box, box_side, pose, targets
from snas.strategies.fidelity import observe
from snas.strategies.random import Random
from snas.trials import Status, Trial


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def line(scores: list[float], *, status: Status = Status.FINISHED) -> list[Trial]:
    """Trials with these scores at points evenly along [0, 1]."""
    return [Trial(i, np.array([i / (len(scores) - 1)]), status, {1: score}) for i, score in enumerate(scores)]


HILL = line([0.0, 0.36, 0.64, 0.84, 0.96, 1.0, 0.96, 0.84, 0.64, 0.36, 0.0])


def test_begins_in_the_middle_and_goes_on_uniformly():
    points = BayesHD(initial=3).ask([], 3, dimensions=2, rng=generator(0))
    assert points[0].tolist() == [0.5, 0.5]
    assert np.array_equal(points[1:], generator(0).random((2, 2)))


def test_points_that_the_search_was_started_with_count_as_initial():
    history = [Trial(i, point, Status.FINISHED, {1: 0.5}) for i, point in enumerate(generator(1).random((5, 2)))]
    drawn = generator(0).random(2)
    assert np.array_equal(BayesHD(initial=6).ask(history, 1, dimensions=2, rng=generator(0))[0], drawn)
    assert not np.array_equal(BayesHD(initial=5).ask(history, 1, dimensions=2, rng=generator(0))[0], drawn)


def test_uniform_while_nothing_is_scored():
    history = [Trial(i, np.full(2, 0.5)) for i in range(9)]
    [point] = BayesHD().ask(history, 1, dimensions=2, rng=generator(0))
    assert np.array_equal(point, generator(0).random(2))


def test_values_are_standardized():
    problem = pose(observe(line([0.2, 0.4, 0.9])), np.array([0.2, 0.4, 0.9]))
    assert problem.inputs.tolist() == [[0.0], [0.5], [1.0]]
    assert problem.values == pytest.approx(np.array([-0.3, -0.1, 0.4]) / np.sqrt(0.26 / 3))
    assert pose(observe(line([0.3, 0.3])), np.array([0.3, 0.3])).values.tolist() == [0.0, 0.0]


def test_the_length_of_the_training_is_an_input_where_it_differs():
    """log 1, log 4 and log 2 of epochs, over log 4."""
    history = [
        Trial(0, np.array([0.1]), Status.PAUSED, {1: 0.1}),
        Trial(1, np.array([0.2]), Status.FINISHED, {1: 0.2, 2: 0.3, 4: 0.5}),
        Trial(2, np.array([0.3]), Status.PAUSED, {1: 0.2, 2: 0.3}),
    ]
    observed = observe(history)
    problem = pose(observed, observed.values)
    assert problem.inputs[:, 1] == pytest.approx([0.0, 1.0, 0.5])
    assert problem.points[:, 0].tolist() == [0.1, 0.2, 0.3]


def test_a_score_and_a_cost_become_one_number():
    """Scores 1, 0.5, 0 and costs 100, 10, 1 are evenly spaced (costs by logarithm): f = (0, 1), (1/2, 1/2), (1, 0)."""
    costs = (100.0, 10.0, 1.0)
    history = [
        Trial(i, np.array([0.5]), Status.FINISHED, {1: score}, costs=(costs[i],))
        for i, score in enumerate((1.0, 0.5, 0.0))
    ]
    w, v = generator(3).dirichlet([1.0, 1.0])
    f = [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    expected = [-(max(w * x, v * y) + 0.05 * (w * x + v * y)) for x, y in f]
    assert targets(observe(history), generator(3)) == pytest.approx(expected)


def test_a_failure_that_costs_little_is_still_the_worst():
    history = [
        Trial(0, np.array([0.5]), Status.FINISHED, {1: 1.0}, costs=(100.0,)),
        Trial(1, np.array([0.6]), Status.FINISHED, {1: 0.2}, costs=(50.0,)),
        Trial(2, np.array([0.7]), Status.FAILED, costs=(1.0,)),
    ]
    for seed in range(5):
        values = targets(observe(history), generator(seed))
        assert values[2] == values.min()


def test_several_objectives_are_weighted_anew_at_every_proposal():
    """The score is best at 1, the cost at 0: proposals come on both sides."""
    points = generator(5).random((12, 1))
    history = [
        Trial(i, point, Status.FINISHED, {1: float(point[0])}, costs=(float(10 ** (2 * point[0])),))
        for i, point in enumerate(points)
    ]
    proposed = [BayesHD().ask(history, 1, dimensions=1, rng=generator(seed))[0][0] for seed in range(6)]
    assert min(proposed) < 0.3
    assert max(proposed) > 0.7


@pytest.mark.parametrize(
    ("means", "side"),
    [
        ([0.0], 0.6),
        ([0, 1, 2], 0.6),
        ([0, 1, 2, 3], 1.2),
        ([0, 1, 2, 3, 4, 5, 6], 1.6),
        ([0, 1, 2, 0, 3], 0.6),
        ([0, *[-1] * 7], 0.6),
        ([0, *[-1] * 8], 0.3),
        ([0, *[-1] * 16], 0.15),
        ([0, *[-1] * 24], 0.075),
        ([0, *[-1] * 32], 0.6),
        ([0, *[0] * 8], 0.3),
    ],
)
def test_side_of_the_box(means, side):
    assert box_side(np.array(means, dtype=float), dimensions=8, start=0.6) == pytest.approx(side)


def test_more_dimensions_have_more_patience():
    means = np.array([0.0] + [-1.0] * 24)
    assert box_side(means, dimensions=100, start=0.6) == 0.6
    assert box_side(np.append(means, -1.0), dimensions=100, start=0.6) == 0.3


def test_the_box_is_longer_where_the_score_changes_slowly():
    """Length scales 0.1, 0.4, 1.6 have the geometric mean 0.4: sides 0.05, 0.2, 0.8, the last cut at the bound."""
    low, high = box(np.array([0.5, 0.5, 0.9]), 0.2, np.array([0.1, 0.4, 1.6]))
    assert low == pytest.approx([0.475, 0.4, 0.5])
    assert high == pytest.approx([0.525, 0.6, 1.0])


def test_proposes_near_the_top_of_a_hill():
    points = BayesHD().ask(HILL, 3, dimensions=1, rng=generator(0))
    assert all(0.35 < point[0] < 0.65 for point in points)


def test_the_box_is_around_the_best_mean_not_the_best_score(monkeypatch):
    """One lucky score stands among low ones; the plateau on the other side is the better neighbourhood."""
    centers = []
    monkeypatch.setattr(bayes_hd, "box", lambda center, *rest: centers.append(center.copy()) or box(center, *rest))
    left = [Trial(i, np.array([0.01 * i]), Status.FINISHED, {1: 0.2 if i != 5 else 0.8}) for i in range(10)]
    right = [Trial(10 + i, np.array([0.9 + 0.01 * i]), Status.FINISHED, {1: 0.7}) for i in range(10)]
    BayesHD().ask(left + right, 1, dimensions=1, rng=generator(0))
    assert centers[0][0] >= 0.9


def test_failures_are_avoided_and_no_center():
    good = [Trial(i, np.array([x]), Status.FINISHED, {1: 0.5}) for i, x in enumerate((0.1, 0.2, 0.3, 0.35))]
    bad = [Trial(4, np.array([0.65]), Status.FAILED), Trial(5, np.array([0.8]), Status.REFUSED)]
    better = Trial(6, np.array([0.25]), Status.FINISHED, {1: 0.6})
    [point] = BayesHD().ask([*good, *bad, better], 1, dimensions=1, rng=generator(0))
    assert point[0] < 0.5


def test_pending_trials_push_the_next_away():
    history = line([0.2, 0.35, 0.5, 0.42, 0.3])
    [alone] = BayesHD().ask(history, 1, dimensions=1, rng=generator(0))
    waiting = [Trial(5 + i, alone + 0.002 * i) for i in range(2)]
    [other] = BayesHD().ask([*history, *waiting], 1, dimensions=1, rng=generator(0))
    assert abs(other[0] - alone[0]) > 0.01


def test_several_points_are_apart_and_the_order_of_the_history_does_not_matter():
    points = BayesHD().ask(HILL, 4, dimensions=1, rng=generator(0))
    assert len({round(float(point[0]), 6) for point in points}) == 4
    assert np.array_equal(points, BayesHD().ask(HILL[::-1], 4, dimensions=1, rng=generator(0)))


def test_short_trainings_teach_where_the_long_ones_have_not_been():
    """Only the two best of eleven were trained on; what the others showed keeps proposals near the hill's top."""
    history = [
        Trial(
            trial.number,
            trial.point,
            Status.FINISHED if trial.number in (5, 6) else Status.PAUSED,
            {1: trial.scores[1]} | ({4: 0.5 * trial.scores[1] + 0.4} if trial.number in (5, 6) else {}),
        )
        for trial in HILL
    ]
    [point] = BayesHD().ask(history, 1, dimensions=1, rng=generator(0))
    assert 0.3 < point[0] < 0.7


def regret(strategy, *, seed: int, budget: int) -> float:
    """Of the best of `budget` trials: 8 coordinates of which 3 matter, an optimum off the center, noisy scores."""
    rng = generator(seed)
    optimum, weights = rng.uniform(0.2, 0.8, 8), np.zeros(8)
    weights[rng.choice(8, 3, replace=False)] = rng.uniform(0.5, 1.5, 3)
    history: list[Trial] = []
    losses = []
    for number in range(budget):
        [point] = strategy.ask(history, 1, dimensions=8, rng=generator(seed, number))
        losses.append(float(weights @ (point - optimum) ** 2))
        history.append(Trial(number, point, Status.FINISHED, {1: 1 - losses[-1] + 0.01 * rng.normal()}))
    return min(losses)


def test_better_than_random_where_few_coordinates_matter():
    """After 25 trials the regret is less than half of random's median over many seeds."""
    drawn = np.median([regret(Random(), seed=seed, budget=25) for seed in range(50)])
    assert regret(BayesHD(), seed=1, budget=25) < drawn / 2


def test_threads_warnings_and_random_state_are_put_back():
    import torch

    threads, filters, state = torch.get_num_threads(), list(warnings.filters), torch.get_rng_state()
    BayesHD().ask(HILL, 1, dimensions=1, rng=generator(0))
    assert torch.get_num_threads() == threads
    assert warnings.filters == filters
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial": "0"}, "initial is 0; expected at least 1"),
        ({"side": "0"}, "side is 0.0; expected 0 < side <= 1.6"),
        ({"side": "nan"}, "side is nan; expected 0 < side <= 1.6"),
        ({"kappa": "1"}, "strategy 'bayes-hd' has no argument 'kappa'; choices: initial, side"),
    ],
)
def test_options_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_strategy("bayes-hd", arguments)


def test_without_botorch_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(bayes_hd, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "snas\[botorch\]"'):
        BayesHD()


def test_importing_it_does_not_import_the_libraries_behind_it():
    script = (
        "import sys, snas.strategies.bayes_hd;"
        "print([m for m in ('botorch', 'gpytorch', 'torch', 'scipy') if m in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
