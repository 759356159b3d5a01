"""Ranges and the Sobol sequence of trials."""

from __future__ import annotations

import math

import numpy as np
import pytest

from snas.errors import InputError
from snas.studies.metaparameters import Range, read_range, sobol_trials

RANGES = {"lr": Range(0.001, 1.0), "momentum": Range(0.5, 0.99, "distance"), "decay": Range(0.2, 1.0, "linear")}


@pytest.mark.parametrize("own", RANGES.values())
def test_places_reach_from_end_to_end(own):
    values = [own.at(place) for place in (0.0, 0.3, 1.0)]
    assert values[0] == pytest.approx(own.low)
    assert values[-1] == pytest.approx(own.high)
    assert values == sorted(values)


def test_momentum_is_uniform_in_the_logarithm_of_its_distance_from_one():
    assert Range(0.0, 0.99, "distance").at(0.5) == pytest.approx(0.9)


def test_each_metaparameter_is_spread_over_its_range():
    trials = sobol_trials(RANGES, range(16), seed=1)
    logs = np.array([math.log10(trial["lr"] / 0.001) / 3 for trial in trials])
    assert np.histogram(logs, bins=16, range=(0, 1))[0].tolist() == [1] * 16
    decays = np.array([(trial["decay"] - 0.2) / 0.8 for trial in trials])
    assert np.histogram(decays, bins=16, range=(0, 1))[0].tolist() == [1] * 16


def test_a_trial_is_known_by_its_number():
    first = sobol_trials(RANGES, range(6), seed=1)
    assert sobol_trials(RANGES, range(100), seed=1)[:6] == first
    assert sobol_trials(RANGES, [5], seed=1) == first[5:]
    assert sobol_trials(RANGES, range(6), seed=2) != first
    assert sobol_trials(RANGES, [], seed=1) == []


def test_a_single_number_is_not_searched():
    trials = sobol_trials({"lr": read_range("0.1", "lr")}, range(4), seed=0)
    assert [trial["lr"] for trial in trials] == [pytest.approx(0.1)] * 4


@pytest.mark.parametrize(
    ("text", "by", "message"),
    [
        ("fast", "log", "lr is 'fast'; expected low..high"),
        ("0.1..0.2..0.3", "log", "expected low..high"),
        ("0..1", "log", "expected 0 < low <= high"),
        ("0.3..0.1", "log", "expected 0 < low <= high"),
        ("0..1", "distance", "expected 0 <= low <= high < 1"),
        ("-1..1", "linear", "expected 0 <= low <= high"),
        ("nan..1", "log", "expected 0 < low <= high"),
    ],
)
def test_what_is_no_range_is_refused(text, by, message):
    with pytest.raises(InputError, match=message):
        read_range(text, "lr", by=by)
