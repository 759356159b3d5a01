"""The law of steps and batch size, fitted to curves whose constants are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from snas.errors import InputError
from snas.studies.scaling_law import Law, bounded, fit_law, fit_laws, resampled

SIZES = [2**power for power in range(1, 15)]


def test_the_law_is_that_of_the_theorem():
    law = Law(c=600.0, t=30.0)
    assert law.steps([10, 60, 90]).tolist() == [240.0, 40.0, 600 * (1 / 30 + 1 / 60)]
    assert law.critical == 60
    assert law.plateau == 20
    below, above = law.steps([60 - 1e-4, 60 + 1e-4])
    assert below == pytest.approx(above, rel=1e-5)
    slopes = np.diff(law.steps([60 - 1e-3, 60, 60 + 1e-3]))
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)


@pytest.mark.parametrize("t", [3.0, 60.0, 900.0])
def test_exact_curves_give_their_constants_back(t):
    fitted = fit_law(SIZES, Law(5000.0, t).steps(SIZES))
    assert fitted.c == pytest.approx(5000, rel=1e-4)
    assert fitted.t == pytest.approx(t, rel=1e-4)
    assert bounded(fitted, SIZES) == ""


def test_the_sum_of_both_regimes_is_told_from_the_theorem():
    steps = [3000 / size + 3000 / 50 for size in SIZES]
    law = fit_law(SIZES, steps, form="sum")
    assert (law.c, law.critical, law.plateau) == tuple(pytest.approx(value, rel=1e-4) for value in (3000, 50, 60))
    other = fit_law(SIZES, steps)
    assert np.abs(np.log(law.steps(SIZES) / steps)).max() < 1e-4
    assert np.abs(np.log(other.steps(SIZES) / steps)).max() > 0.05


def test_noisy_curves_looked_at_every_16_steps_give_them_within_their_noise():
    rng = np.random.default_rng(0)
    law = Law(40_000.0, 200.0)
    found = []
    for _ in range(100):
        steps = np.ceil(law.steps(SIZES) * np.exp(0.1 * rng.normal(size=len(SIZES))) / 16) * 16
        found.append(fit_law(SIZES, steps.tolist(), every=16))
    assert np.median([one.critical for one in found]) == pytest.approx(400, rel=0.1)
    assert np.std([math.log(one.critical) for one in found]) < 0.25
    assert np.median([one.c for one in found]) == pytest.approx(40_000, rel=0.1)


def test_a_curve_without_a_plateau_or_without_scaling_bounds_the_critical_batch_size():
    sizes = SIZES[:6]
    assert bounded(fit_law(sizes, [1000 / size for size in sizes]), sizes) == ">"
    assert bounded(fit_law(sizes, [100.0] * 6), sizes) == "<"


def test_coarse_steps_weigh_less():
    """Of two plateaus that contradict the rest, the one of few steps is known coarsely if they are looked at seldom."""
    law = Law(2000.0, 100.0)
    steps = law.steps(SIZES)
    steps[-3:] = 40.0  # 20 in truth
    exact, coarse = (fit_law(SIZES, steps.tolist(), every=every).steps(SIZES)[0] for every in (1, 64))
    assert abs(coarse - steps[0]) < abs(exact - steps[0])


def test_two_batch_sizes_are_too_few():
    with pytest.raises(InputError, match="2 batch sizes; give 3"):
        fit_law([2, 2, 4], [10, 10, 5])


def test_resamples_are_of_the_trials_and_know_of_the_cap():
    rows = resampled({4: {0: [10, 20, None]}, 8: {0: [None, None]}}, rounds=2000, seed=0, cap=1.5)
    assert set(rows[:, 0]) == {10.0, 15.0}  # 20 and None are beyond the cap of 15
    assert np.mean(rows[:, 0] == 10) == pytest.approx(1 - (2 / 3) ** 3, abs=0.03)
    assert np.isnan(rows[:, 1]).all()
    free = resampled({4: {0: [10, 20, None]}}, rounds=500, seed=0, cap=None)[:, 0]
    assert set(free[np.isfinite(free)]) == {10.0, 20.0}
    assert np.mean(np.isnan(free)) == pytest.approx(1 / 27, abs=0.03)
    again = [resampled({4: {0: [10, 20]}}, rounds=5, seed=3, cap=None).tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_trials_are_drawn_within_each_seed_and_then_averaged():
    """Worked out by hand: of (10, 20) the fewest of two draws is 10 in 3 of 4, of (40, 80) 40 in 3 of 4."""
    found = resampled({4: {0: [10, 20], 1: [40, 80]}}, rounds=20_000, seed=0, cap=None)[:, 0]
    chances = {25.0: 9 / 16, 30.0: 3 / 16, 45.0: 3 / 16, 50.0: 1 / 16}  # (10 + 40) / 2 ...
    assert {value: np.mean(found == value) for value in chances} == pytest.approx(chances, abs=0.012)
    assert found.mean() == pytest.approx((12.5 + 50) / 2, abs=0.3)
    # Drawn from all four trials at once, the fewest would be 10 or 20 nearly always: below what was measured, 25.
    assert found.min() == 25.0


def test_a_seed_without_a_draw_that_arrived_leaves_the_batch_size_open():
    found = resampled({4: {0: [10], 1: [20, None]}}, rounds=4000, seed=0, cap=None)[:, 0]
    assert np.mean(np.isnan(found)) == pytest.approx(1 / 4, abs=0.03)
    assert set(found[np.isfinite(found)]) == {15.0}
    capped = resampled({4: {0: [10], 1: [20, None]}}, rounds=4000, seed=0, cap=1.5)[:, 0]
    assert set(capped) == {15.0, 20.0}  # the second seed's own cap: 1.5 times 20


def test_draws_of_a_batch_size_and_seed_depend_on_nothing_else():
    trials = [float(number) for number in range(100, 130)]
    alone = resampled({64: {1: trials}}, rounds=50, seed=0, cap=None)[:, 0]
    among = resampled({4: {1: trials}, 64: {1: trials}, 256: {1: trials}}, rounds=50, seed=0, cap=None)
    assert among[:, 1].tolist() == alone.tolist()
    assert among[:, 0].tolist() != alone.tolist()
    # A network that needs twice the steps in every trial needs twice the steps in every round.
    double = resampled({64: {1: [2 * steps for steps in trials]}}, rounds=50, seed=0, cap=None)[:, 0]
    assert double.tolist() == (2 * alone).tolist()
    other = resampled({64: {2: trials}}, rounds=50, seed=0, cap=None)[:, 0]
    assert other.tolist() != alone.tolist()


def test_laws_are_fitted_to_the_rows_that_have_enough_and_keep_their_places():
    nan = math.nan
    row = Law(1000.0, 10.0).steps([4, 16, 64, 256]).tolist()
    laws = fit_laws([4, 16, 64, 256], np.array([row, [nan, nan, *row[2:]], [*row[:3], nan]]), every=1)
    assert laws[1] is None
    for law in (laws[0], laws[2]):
        assert (law.t, law.c) == (pytest.approx(10, rel=1e-3), pytest.approx(1000, rel=1e-3))
    assert fit_laws([4, 16, 64], np.full((2, 3), nan), every=1) == [None, None]
