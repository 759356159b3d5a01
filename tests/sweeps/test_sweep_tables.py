"""A sweep's tables and files, from cells made up here: nothing is trained."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from snas.errors import InputError
from snas.sweeps.export import SUFFIXES, require_suffix, sweep_text
from snas.sweeps.result import Cell, SweepResult, best_cell, compare
from snas.sweeps.tables import comparison_grid, comparison_notes, grid, notes, subtitle

HOSTILE = "=x|y<b>\u202e_%"


def cell(method, density, values, *, missing=0, **more) -> Cell:
    status = {"status": "refused", "reasons": ("seed 0: layer 'fc2' keeps none of its 8 weights",)} if missing else {}
    return Cell(method, density, 7, 40, dict(enumerate(values)), missing=missing, epochs_each=2, **{**status, **more})


CELLS = (
    cell("dense", None, [0.99, 0.98, 0.97]),
    cell("er", 0.1, [0.90, 0.91, 0.95]),
    cell("snip", 0.1, [0.92, 0.92, 0.93]),
    cell("er", 0.05, [0.80, 0.81, 0.85]),
    cell("snip", 0.05, [], missing=3),
)


def result(cells=CELLS, *, methods=("dense", "er", "snip"), densities=(0.1, 0.05), reference=None) -> SweepResult:
    return SweepResult(
        registry=Path("r.db"),
        space="mlp",
        dataset="digits",
        split="test",
        epochs=2,
        seeds=3,
        methods=methods,
        densities=densities,
        given=False,
        reference=reference,
        cells=tuple(cells),
        comparisons=tuple(one for density in densities for one in compare(cells, density, reference)),
        environments=({"device_name": "some processor", "snas": "1", "torch": "2"},),
        wall_seconds=1.0,
    )


def test_table_has_means_spreads_marks_and_what_is_missing():
    assert grid(result()) == [
        ["method", "0.1", "0.05"],
        ["dense", "98.00 ± 1.00", "98.00 ± 1.00"],
        ["er", "92.00 ± 2.65 ≈", "82.00 ± 2.65 *"],
        ["snip", "92.33 ± 0.58 *", "refused [1]"],
    ]
    assert result().table() == grid(result())
    assert "[1] snip at 0.05 refused: seed 0: layer 'fc2' keeps none of its 8 weights" in notes(result())
    assert subtitle(result(), error=False) == "test accuracy %, mean ± standard deviation over 3 seeds; 2 epochs"


def test_marks_are_explained_only_where_there_are_some():
    lost = result([cell("er", 0.1, [], missing=3)], methods=("er",), densities=(0.1,))
    assert [line for line in notes(lost) if line.startswith("*")] == []
    assert [line for line in notes(result()) if line.startswith("*")] != []


def test_a_notebook_shows_the_tables():
    assert result()._repr_markdown_() == sweep_text(result(), ".md")
    assert "| er | 92.00 ± 2.65 ≈ | 82.00 ± 2.65 \\* |" in result()._repr_markdown_()


def test_one_seed_is_no_test():
    one = [cell("er", 0.1, [0.9]), cell("snip", 0.1, [0.8])]
    single = replace(result(one, methods=("er", "snip"), densities=(0.1,)), seeds=1)
    assert comparison_notes(single) == ["one seed has no spread to test a difference by; give more --seeds"]
    assert comparison_grid(single, 0.1)[1][:3] == ["snip", "-10.00", "-"]
    assert "with 3 seeds" in comparison_notes(result())[0]


def test_errors_are_what_accuracies_lack():
    shown = result().table(error=True)
    assert shown[1][1] == "2.00 ± 1.00"
    assert shown[3][1] == "7.67 ± 0.58 *"
    assert "test error %" in subtitle(result(), error=True)


def test_epochs_are_told_where_methods_differ_in_them():
    lottery = cell("imp", 0.1, [0.9, 0.9, 0.9], epochs_spent=36)
    shown = grid(result([*CELLS[:3], replace(lottery, epochs_each=12)], methods=("er", "imp"), densities=(0.1,)))
    assert [line[-1] for line in shown] == ["epochs", "2", "12"]


def test_survivors_of_lost_seeds_are_shown_but_never_best():
    cells = [cell("er", 0.1, [0.5, 0.6, 0.7]), cell("snip", 0.1, [0.9, 0.95], missing=1)]
    shown = grid(result(cells, methods=("er", "snip"), densities=(0.1,)))
    assert shown[1][1].startswith("60.00 ± 10.00 *")
    assert shown[2][1].startswith("92.50 ± 3.54 (n=2 of 3) [1]")
    assert best_cell(cells) is cells[0]
    assert best_cell([cells[1], cell("dense", None, [1.0])]) is None


def test_comparisons_are_with_the_best_or_with_the_reference():
    best = {(one.method, one.density): one.reference for one in result().comparisons}
    assert best == {("dense", 0.1): "snip", ("er", 0.1): "snip", ("dense", 0.05): "er", ("snip", 0.05): "er"}
    named = result(reference="dense")
    assert {one.reference for one in named.comparisons} == {"dense"}
    one = named.comparison("er", 0.1)
    assert one.difference.mean == pytest.approx(-0.06)
    # The family has two tests: 2 x the smaller p, and no less for the larger.
    ps = [named.comparison(method, 0.1).difference.t_p for method in ("er", "snip")]
    adjusted = [named.comparison(method, 0.1).t_adjusted for method in ("er", "snip")]
    assert min(adjusted) == pytest.approx(2 * min(ps))
    assert max(adjusted) == pytest.approx(max(2 * min(ps), *ps))
    assert named.comparison("dense", 0.1) is None


def test_comparison_grid_has_dashes_where_nothing_is_common():
    lines = comparison_grid(result(), 0.05)
    assert lines[0][:3] == ["method", "points", "95 % interval"]
    assert lines[1][:2] == ["dense", "+16.00"]
    assert lines[2] == ["snip", "-", "-", "-", "-", "-", "-"]
    assert "0.25 with 3 seeds" in comparison_notes(result())[0]


def test_a_cell_that_is_not_there_is_an_input_error():
    with pytest.raises(InputError, match=r"no method 'set' at density 0\.1"):
        result().cell("set", 0.1)
    with pytest.raises(InputError, match=r"at density 0\.2"):
        result().cell("er", 0.2)


def test_json_has_every_seed_and_test():
    value = json.loads(sweep_text(result(), ".json"))
    assert value["cells"][1]["accuracies"] == {"0": 0.90, "1": 0.91, "2": 0.95}
    assert value["cells"][4]["status"] == "refused"
    assert value["comparisons"][1]["method"] == "er"
    assert {
        "mean",
        "low",
        "high",
        "t_p",
        "t_adjusted",
        "wilcoxon_p",
        "wilcoxon_adjusted",
        "indistinct",
        "seeds",
    } <= set(value["comparisons"][1])
    assert value["smallest_wilcoxon_p"] == 0.25


def test_csv_has_a_line_for_each_cell():
    lines = list(csv.DictReader(io.StringIO(sweep_text(result(), ".csv"))))
    assert [(line["method"], line["density"]) for line in lines] == [
        (method, density) for density in ("0.1", "0.05") for method in ("dense", "er", "snip")
    ]
    assert float(lines[2]["mean"]) == pytest.approx(0.92333333)
    assert json.loads(lines[2]["accuracies"]) == {"0": 0.92, "1": 0.92, "2": 0.93}
    assert (lines[2]["reference"], lines[1]["reference"]) == ("", "snip")
    assert (lines[5]["status"], lines[5]["mean"]) == ("refused", "")


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data) -> None:
        if self.cells:
            self.cells[-1] += data.strip()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_hostile_names_stay_texts(suffix):
    cells = [replace(one, method=HOSTILE) if one.method == "er" else one for one in CELLS]
    text = sweep_text(result(cells, methods=("dense", HOSTILE, "snip")), suffix)
    assert "98.00 ± 1.00" in text.replace("$\\pm$", "±") or suffix in (".csv", ".json")
    if suffix == ".html":
        page = Cells()
        page.feed(text)
        assert "b" not in page.tags
        assert "=x|y<b>_%" in page.cells
    elif suffix == ".md":
        assert "| =x\\|y\\<b\\>\\_% | 92.00 ± 2.65 ≈ |" in text
    elif suffix == ".tex":
        assert r"=x\textbar{}y\textless{}b\textgreater{}\_\% & 92.00 $\pm$ 2.65 $\approx$ &" in text
    elif suffix == ".csv":
        names = {line["method"] for line in csv.DictReader(io.StringIO(text))}
        assert "'=x|y<b>_%" in names
    else:
        assert HOSTILE in {one["method"] for one in json.loads(text)["cells"]}


def test_output_is_refused_before_anything_is_trained(tmp_path):
    require_suffix(tmp_path / "t.md")
    with pytest.raises(InputError, match="ends in one of"):
        require_suffix(tmp_path / "t.pdf")
    with pytest.raises(InputError, match="make it first"):
        require_suffix(tmp_path / "nowhere" / "t.md")
    with pytest.raises(InputError, match="choices"):
        sweep_text(result(), ".pdf")
