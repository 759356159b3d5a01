"""Pictures of fronts: what is drawn where, read back from the axes and the files."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from snas.errors import InputError
from snas.exports import Group, Row
from snas.report.plot import _shrink, _stretch, draw_fronts, draw_panel, require_plot

COST = ("kept_weights",)
ROW = Row(
    rank=1, id=7, name="a", kind="baseline", method="erk", space="net", dataset="d", kept_weights=100,
    total_weights=1000, density=0.1, compression=10.0, test_accuracy=0.9, test_std=0.02, validation_accuracy=0.9,
    validation_std=None, seeds=3, flops=400, epochs=1, epochs_spent=3, seconds=1.0, strategy="", mask_rule="erk",
    training_rule="sgd", layers=(("fc", 100, 1000),),
)  # fmt: skip
SEARCHED = replace(
    ROW, id=8, kind="searched", method="searched", strategy="bayes", kept_weights=200, test_accuracy=0.95, test_std=None
)
WORSE = replace(ROW, id=9, method="uniform", kept_weights=300, test_accuracy=0.5, flops=900)
GROUP = Group("net", "d", 1, "One split.", (SEARCHED, ROW, WORSE))


def panel_of(group: Group, cost: str = "kept_weights"):
    panel = Figure().subplots()
    draw_panel(panel, group, cost)
    return panel


def test_rows_are_where_their_figures_are():
    panel = panel_of(GROUP)
    drawn = {}
    for container in panel.containers:
        x, y = container.lines[0].get_data()
        (bars,) = container.lines[2]
        drawn[float(x[0])] = (float(y[0]), [float(end) for end in bars.get_segments()[0][:, 1]])
    assert drawn == {
        100.0: (90.0, [pytest.approx(88), pytest.approx(92)]),
        200.0: (95.0, [95, 95]),
        300.0: (50.0, [pytest.approx(48), pytest.approx(52)]),
    }
    assert panel.get_xscale() == "log"
    low, high = panel.get_ylim()
    assert low < 48 < 95 < high < 100


def test_the_front_is_a_step_up_at_each_of_its_rows():
    panel = panel_of(GROUP)
    (line,) = [line for line in panel.lines if line.get_drawstyle() == "steps-post"]
    assert np.column_stack(line.get_data()).tolist() == [[100, 90], [200, 95], [300, 95]]
    assert [text.get_text() for text in panel.texts] == ["7", "8"]


def test_searched_rows_are_filled_and_every_source_has_a_mark_of_its_own():
    others = [replace(WORSE, id=20 + i, method=f"m{i}") for i in range(9)]
    panel = panel_of(replace(GROUP, rows=(*GROUP.rows, replace(SEARCHED, id=30, strategy="nsga2"), *others)))
    legend = panel.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:4] == ["searched (bayes) (1)", "searched (nsga2) (1)", "erk (1)", "uniform (1)"]
    assert names[-1] == "front (3)"
    looks = []
    for container in panel.containers:
        mark = container.lines[0]
        looks.append((mark.get_marker(), mark.get_markerfacecolor() == "white"))
    assert len(set(looks)) == len(looks) == 13
    assert [hollow for _, hollow in looks] == [False, False, *[True] * 11]


def test_flops_are_an_axis_too():
    panel = panel_of(GROUP, "flops")
    assert {float(container.lines[0].get_xdata()[0]) for container in panel.containers} == {400.0, 900.0}
    assert panel.get_xlabel().startswith("FLOPs of one example")


@pytest.mark.parametrize("accuracy", [0.0, 0.03, 0.5931, 0.9, 0.982, 0.99951, 1.0])
def test_a_single_row_has_ticks_around_it(accuracy):
    panel = panel_of(replace(GROUP, rows=(replace(ROW, test_accuracy=accuracy, test_std=None),)))
    low, high = panel.get_ylim()
    assert low <= 100 * accuracy <= high
    assert any(low <= tick <= high for tick in panel.get_yticks())


def test_the_scale_of_accuracy_and_back():
    percent = np.array([0.0, 50.0, 90.0, 99.0, 99.9, 100.0])
    np.testing.assert_allclose(_shrink(_stretch(percent)), percent, atol=1e-9)
    np.testing.assert_allclose(np.diff(_stretch(percent[2:5])), [1, 1], atol=0.05)  # a tenth of the error each


def test_files_of_every_kind(tmp_path):
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("A.PDF", b"%PDF")):
        first, second = tmp_path / name, tmp_path / f"again-{name}"
        draw_fronts([GROUP], COST, first)
        draw_fronts([GROUP], COST, second)
        assert first.read_bytes().startswith(start)
        assert first.read_bytes() == second.read_bytes()
    text = (tmp_path / "a.svg").read_text()
    for words in (
        "searched (bayes) (1)",
        "erk (1)",
        "front (2)",
        "net on d, 1 epoch",
        "kept weights",
        "test accuracy %",
    ):
        assert words in text


def test_each_group_has_a_panel_and_a_page_has_room_for_six(tmp_path):
    groups = [replace(GROUP, dataset=f"data-{i}") for i in range(7)]
    draw_fronts(groups[:3], COST, tmp_path / "a.svg")
    assert set(re.findall(r"data-\d", (tmp_path / "a.svg").read_text())) == {"data-0", "data-1", "data-2"}
    with pytest.raises(InputError, match="a plot of 7 rankings has no room; choose at most 6"):
        draw_fronts(groups, COST, tmp_path / "b.svg")
    with pytest.raises(InputError, match="nothing to plot"):
        draw_fronts([], COST, tmp_path / "b.svg")
    assert not (tmp_path / "b.svg").exists()


def test_names_are_drawn_as_they_are(tmp_path):
    name = r"_$\frac{1}$<b>&"
    hostile = Group(name, name, 1, name, (replace(ROW, method=name), replace(SEARCHED, strategy=name)))
    draw_fronts([hostile], COST, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "<b>" not in text
    assert r"$\frac{1}$&lt;b&gt;&amp; (1)" in text


def test_only_known_files_and_only_with_matplotlib(monkeypatch):
    assert require_plot("x/y.SVG") == Path("x/y.SVG")
    with pytest.raises(InputError, match=r"plot is 'front.gif'; expected a name that ends in .png, .svg, .pdf"):
        require_plot("front.gif")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"plot needs matplotlib; pip install 'snas\[plots\]'"):
        require_plot("front.png")
