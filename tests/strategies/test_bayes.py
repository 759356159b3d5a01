"""Bayesian optimization: what the Gaussian process is told, the bound and its gradient, and the search as a whole."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

from snas.errors import InputError
from snas.strategies.base import make_strategy
from snas.strategies.bayes import Bayes, UpperConfidenceBound, _merged, observations
from snas.strategies.random import Random
from snas.trials import Status, Trial

NAN = float("nan")


def values(history, **options) -> list[float]:
    return observations(history, **{"dimensions": 1, **options})[1].tolist()


def trial(number: int, scores: dict[int, float] | None = None, status: Status = Status.FINISHED) -> Trial:
    return Trial(number, np.array([number / 10]), status, scores or {})


HISTORY = [
    trial(0, {1: 0.2, 2: 0.6}, Status.PAUSED),
    trial(1, {1: 0.9, 2: 0.4}, Status.PAUSED),
    trial(2, {1: 0.95}, Status.PAUSED),
    trial(3, {1: 0.99}, Status.RUNNING),
    trial(4, None, Status.RUNNING),
    trial(5, {1: 1.0, 2: 1.0}, Status.FAILED),
    trial(6, None, Status.REFUSED),
    trial(7, {1: 0.5, 2: NAN}, Status.PAUSED),
    trial(8, {1: 0.5, 2: float("inf")}),
    trial(9, {1: 0.5, 2: 0.8}),
]


@pytest.mark.parametrize(("liar", "lie"), [("min", 0.4), ("mean", 0.6), ("max", 0.8)])
def test_targets_of_a_history_with_everything(liar, lie):
    """Length 2 has the scores 0.6, 0.4 and 0.8 (one dimension needs two): the worst is 0.4, their mean 0.6."""
    assert values(HISTORY, liar=liar) == pytest.approx([0.6, 0.4, 0.4, lie, lie, 0.4, 0.4, 0.4, 0.4, 0.8])


def test_too_few_at_the_longer_length_mean_the_shorter_for_all():
    """34 dimensions need 35 scores, and three of eight are not most: every score is that of the first epoch."""
    history = [
        Trial(old.number, np.full(34, 0.5), old.status, old.scores)
        for old in [*HISTORY[:5], trial(5, {1: 0.3}, Status.PAUSED), trial(6, {1: 0.1}, Status.PAUSED)]
    ]
    lie = np.mean([0.2, 0.9, 0.95, 0.99, 0.3, 0.1])
    assert values(history, dimensions=34) == pytest.approx([0.2, 0.9, 0.95, 0.99, lie, 0.3, 0.1])


def test_a_promoted_trial_that_runs_again_is_pending_and_not_outranked():
    history = [trial(0, {1: 0.2, 2: 0.5}), trial(1, {1: 0.2, 2: 0.7}), trial(2, {1: 0.1}, Status.RUNNING)]
    assert values(history) == pytest.approx([0.5, 0.7, 0.6])


def test_nothing_scored_gives_nothing():
    for history in ([], [trial(0, None, Status.RUNNING)], [trial(0, {1: 0.9}, Status.FAILED)], [trial(0, {1: NAN})]):
        points, targets = observations(history, dimensions=1)
        assert points.shape == (0, 1)
        assert targets.shape == (0,)


def test_huge_scores_have_a_finite_lie():
    history = [trial(0, {1: 1.7e308}), trial(1, {1: 1.5e308}), trial(2, None, Status.RUNNING)]
    assert observations(history, dimensions=1)[1][2] == pytest.approx(1.6e308)


def test_points_are_clipped():
    history = [Trial(0, np.array([-0.1, 1.2]), Status.FINISHED, {1: 0.5})]
    assert observations(history, dimensions=2)[0].tolist() == [[0.0, 1.0]]


def test_equal_points_are_averaged_and_targets_scaled():
    """Targets 1, 3, 2, 5 over the largest, from 0.2 to 1, scaled into [0, 1]: 0, 0.5, 0.25, 1; the first two meet."""
    points = np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1], [0.1, 0.9]])
    merged, targets = _merged(points, np.array([1.0, 3.0, 2.0, 5.0]))
    assert merged.tolist() == [[0.1, 0.9], [0.5, 0.5], [0.9, 0.1]]
    assert targets == pytest.approx([1.0, 0.25, 0.25])


def test_constant_targets_scale_to_zero():
    assert _merged(np.array([[0.0], [-0.0], [1.0]]), np.array([7.0, 7.0, 7.0]))[1].tolist() == [0.0, 0.0]
    assert _merged(np.array([[0.2], [1.0]]), np.array([0.0, 0.0]))[1].tolist() == [0.0, 0.0]


@pytest.fixture
def fitted():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern

    rng = np.random.default_rng(0)
    points, targets = rng.random((12, 4)), rng.normal(3.0, 2.0, 12)
    gp = GaussianProcessRegressor(Matern(0.7, nu=2.5), alpha=1e-6, normalize_y=True, optimizer=None)
    return gp.fit(points, targets), targets


def test_the_bound_is_that_of_scikit_learn_in_normalized_units(fitted):
    gp, targets = fitted
    points = np.random.default_rng(1).random((20, 4))
    mean, deviation = gp.predict(points, return_std=True)
    bound = UpperConfidenceBound(gp, kappa=10.0)
    expected = (mean - targets.mean() + 10.0 * deviation) / targets.std()
    assert bound(points) == pytest.approx(expected, rel=1e-9)
    assert [-bound.negative(point)[0] for point in points] == pytest.approx(expected, rel=1e-9)


def test_the_gradient_is_that_of_finite_differences(fitted):
    bound = UpperConfidenceBound(fitted[0], kappa=2.5)
    for point in np.random.default_rng(1).random((10, 4)):
        numeric = [(bound.negative(point + h)[0] - bound.negative(point - h)[0]) / 2e-6 for h in 1e-6 * np.eye(4)]
        assert bound.negative(point)[1] == pytest.approx(numeric, rel=1e-5, abs=1e-7)


def test_the_gradient_is_finite_at_an_observed_point(fitted):
    gp, _ = fitted
    value, gradient = UpperConfidenceBound(gp, kappa=10.0).negative(gp.X_train_[0])
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_not_worse_than_the_packages_own_maximum():
    """The package's bound at our proposal, against its own multi-start with finite differences on the same data."""
    from bayes_opt import BayesianOptimization, acquisition

    rng = np.random.default_rng(0)
    points = rng.random((15, 3))
    scores = -((points - 0.3) ** 2).sum(axis=1)
    history = [Trial(i, points[i], Status.FINISHED, {1: float(scores[i])}) for i in range(15)]
    theirs = BayesianOptimization(
        None,
        {str(i): (0.0, 1.0) for i in range(3)},
        acquisition_function=acquisition.UpperConfidenceBound(kappa=2.0),
        random_state=0,
        verbose=0,
    )
    for point, score in zip(points, scores, strict=True):
        theirs.space.register(point, score)
    found = theirs.space.params_to_array(theirs.suggest())
    [ours] = Bayes(kappa=2.0, floor=0.0).ask(history, 1, dimensions=3, rng=np.random.default_rng(0))

    def bound(point):
        mean, deviation = theirs.predict({str(i): x for i, x in enumerate(point)}, return_std=True, fit_gp=False)
        return mean + 2.0 * deviation

    assert bound(ours) >= bound(found) - 1e-3 * np.ptp(scores)


def test_the_order_of_the_history_does_not_matter():
    strategy = Bayes()
    points = strategy.ask(HISTORY, 2, dimensions=1, rng=np.random.default_rng(0))
    again = strategy.ask(HISTORY[::-1], 2, dimensions=1, rng=np.random.default_rng(0))
    assert np.array_equal(points, again)


def test_several_points_are_those_asked_for_one_by_one_with_running_trials():
    history = HISTORY[:6]
    together = Bayes().ask(history, 3, dimensions=1, rng=np.random.default_rng(5))
    rng, alone = np.random.default_rng(5), list(history)
    for _ in range(3):
        alone.append(Trial(len(alone), Bayes().ask(alone, 1, dimensions=1, rng=rng)[0], Status.RUNNING))
    assert np.array_equal(together, [trial.point for trial in alone[-3:]])


def test_the_first_points_are_uniform_and_the_rest_are_not():
    history = [Trial(i, np.array([i / 5, 0.5]), Status.FINISHED, {1: i / 5}) for i in range(5)]
    drawn = np.random.default_rng(0).random(2)
    assert np.array_equal(Bayes(initial=6).ask(history, 1, dimensions=2, rng=np.random.default_rng(0))[0], drawn)
    assert not np.array_equal(Bayes(initial=5).ask(history, 1, dimensions=2, rng=np.random.default_rng(0))[0], drawn)


def test_uniform_while_nothing_is_scored():
    history = [Trial(i, np.array([0.5, 0.5]), Status.RUNNING) for i in range(9)]
    [point] = Bayes().ask(history, 1, dimensions=2, rng=np.random.default_rng(0))
    assert np.array_equal(point, np.random.default_rng(0).random(2))


def test_a_pending_trial_pushes_the_next_away():
    """Without a lie the bound would be highest where the first of the two proposals is."""
    history = [Trial(i, np.array([x]), Status.FINISHED, {1: x}) for i, x in enumerate((0.1, 0.2, 0.3, 0.4, 0.5))]
    first, second = Bayes().ask(history, 2, dimensions=1, rng=np.random.default_rng(0))
    assert abs(first[0] - second[0]) > 0.1


@pytest.mark.parametrize("mirrored", [False, True])
def test_failures_are_avoided(mirrored):
    """The left third scores, the right third fails: the next point is on the left, and the other way round."""
    good = {0.1: 0.50, 0.2: 0.54, 0.3: 0.52, 0.35: 0.53}
    scored = [(x, Status.FINISHED, {1: score}) for x, score in good.items()]
    failed = [(0.65, Status.FAILED, {}), (0.7, Status.REFUSED, {}), (0.8, Status.FAILED, {1: 0.9})]
    history = [
        Trial(i, np.array([1 - x if mirrored else x]), status, scores)
        for i, (x, status, scores) in enumerate([*scored, *failed])
    ]
    [point] = Bayes(kappa=1.0).ask(history, 1, dimensions=1, rng=np.random.default_rng(0))
    assert (point[0] > 0.5) == mirrored


@pytest.mark.parametrize("floor", [0.01, 0.2])
def test_the_process_proposes_nothing_below_the_floor(floor):
    """Scores fall with every coordinate, so that a greedy search goes to the lowest corner."""
    rng = np.random.default_rng(0)
    history = [
        Trial(i, point, Status.FINISHED, {1: -float(point.sum())}) for i, point in enumerate(rng.random((12, 2)))
    ]
    [point] = Bayes(kappa=0.0, floor=floor).ask(history, 1, dimensions=2, rng=rng)
    assert point.min() == pytest.approx(floor)


def test_an_observed_maximum_is_not_proposed_again():
    history = [
        *(Trial(i, np.array([i / 10]), Status.FINISHED, {1: i / 10}) for i in range(10)),
        Trial(10, np.array([1.0]), Status.FINISHED, {1: 1.0}),
    ]
    [point] = Bayes(kappa=0.0).ask(history, 1, dimensions=1, rng=np.random.default_rng(0))
    assert point[0] not in {trial.point[0] for trial in history}


def best_found(strategy, *, seed: int, budget: int = 25) -> float:
    """Best value of a smooth function with one maximum, 0 at (0.7, 0.3)."""
    history: list[Trial] = []
    for number in range(budget):
        [point] = strategy.ask(history, 1, dimensions=2, rng=np.random.default_rng([seed, number]))
        value = -float((point[0] - 0.7) ** 2 + 2 * (point[1] - 0.3) ** 2)
        history.append(Trial(number, point, Status.FINISHED, {1: value}))
    return max(trial.scores[1] for trial in history)


def test_better_than_random_on_a_smooth_function():
    """The median loss after 25 evaluations is less than a fifth of random's."""
    modelled = np.median([best_found(Bayes(kappa=2.0), seed=seed) for seed in range(5)])
    drawn = np.median([best_found(Random(), seed=seed) for seed in range(5)])
    assert -modelled < -drawn / 5


def test_the_number_of_threads_is_put_back():
    from threadpoolctl import threadpool_info, threadpool_limits

    with threadpool_limits(2, user_api="blas"):
        Bayes().ask(HISTORY, 1, dimensions=1, rng=np.random.default_rng(0))
        threads = {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
    assert threads <= {2}


def test_warnings_are_silenced_here_alone():
    before = list(warnings.filters)
    Bayes().ask(HISTORY, 1, dimensions=1, rng=np.random.default_rng(0))
    assert warnings.filters == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kappa": "-1"}, "kappa is -1.0; expected a number of at least 0"),
        ({"kappa": "nan"}, "kappa is nan; expected a number of at least 0"),
        ({"initial": "0"}, "initial is 0; expected at least 1"),
        ({"liar": "median"}, "'median'; choices: min, mean, max"),
        ({"floor": "1"}, "floor is 1.0; expected 0 <= floor < 1"),
        ({"floor": "-0.1"}, "floor is -0.1; expected 0 <= floor < 1"),
        ({"kapa": "1"}, "strategy 'bayes' has no argument 'kapa'; choices: kappa, initial, liar, floor"),
    ],
)
def test_options_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_strategy("bayes", arguments)


def test_liar_is_checked_in_python_too():
    with pytest.raises(InputError, match="liar is 'median'; choices: min, mean, max"):
        Bayes(liar="median")  # type: ignore[arg-type]


def test_importing_the_strategies_does_not_import_the_libraries_behind_them():
    script = (
        "import sys; from snas.strategies import strategies; strategies.names();"
        "print([m for m in ('bayes_opt', 'sklearn', 'scipy', 'torch') if m in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
