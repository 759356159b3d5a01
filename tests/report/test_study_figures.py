"""Ticks of the studies' pictures."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from snas.report.figures import log_axis, whole_axis
from snas.studies.base import Picture, Point, open_study


def labels(axis):
    """The texts of ticks that are seen."""
    axis.axes.figure.canvas.draw()
    low, high = sorted(axis.get_view_interval())
    return [
        text.get_text()
        for place, text in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
        if low <= place <= high
    ]


@pytest.mark.parametrize("last", [1, 2, 3, 10, 500])
def test_epochs_have_whole_numbers(last):
    axes = Figure().subplots()
    axes.plot(range(1, last + 1), range(last), marker="o")
    whole_axis(axes.xaxis)
    found = [float(text.replace("\N{MINUS SIGN}", "-")) for text in labels(axes.xaxis)]
    assert found
    assert all(value == int(value) for value in found)


@pytest.mark.parametrize(("low", "high"), [(0.21, 0.45), (0.3, 0.31), (5.5, 8.8), (2, 30), (0.001, 0.2), (1e-6, 10)])
def test_a_logarithmic_axis_has_numbers_however_short_it_is(low, high):
    axes = Figure().subplots()
    axes.plot([1, 2], [low, high])
    log_axis(axes.yaxis)
    found = [text for text in labels(axes.yaxis) if text]
    assert len(found) >= 3


def drawn(picture: Picture) -> Figure:
    figure = Figure(figsize=picture.size)
    picture.draw(figure)
    return figure


def test_one_short_training_has_no_half_epochs_and_no_half_steps():
    curve = {"train_loss": [1.0, 0.5], "examples": 10}
    cell = {"dataset": "d", "space": "s", "labels": "true", "sparsity": 0.5, "weight_decay": 0.0, "seed": 3}
    smooth = {"steps": [0, 1], "constants": [2.0, 3.0], "test_accuracy": None}
    for study, result in (("random-labels", curve), ("smoothness", smooth)):
        (picture,) = open_study(study).pictures([Point(cell, result)])
        axes = drawn(picture).axes[0]
        assert all("." not in text for text in labels(axes.xaxis)), study
