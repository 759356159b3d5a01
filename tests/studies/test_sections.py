"""No table takes a mean over settings that differ: every study, every factor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import snas
from snas.cli.main import main
from snas.exports.grids import Table
from snas.report.figures import picture_bytes
from snas.studies.base import Picture, Point, Study, open_study, studies
from snas.studies.sections import pictures_of, sections_of, tables_of

# The smallest run of each study that fills all of its tables.
RUNS = {
    "connections": {"sparsity": [0.5, 0.9], "examples": 20},
    "gradient-flow": {
        "dense_width": [10, 30, 50], "optimizer": "adam", "hidden_layers": 1, "epochs": 1, "examples": 200, "seeds": 1,
    },
    "isometry": {
        "space": "mlp-tanh:layers=3:width=20", "sparsity": [0.0, 0.5], "epochs": 1, "examples": 20, "seeds": 1,
        "init": ["glorot", "orthogonal"],
    },
    "random-labels": {"examples": 100, "epochs": 1, "sparsity": [0.0, 0.9]},
    "sc-sdc": {
        "dense_width": [10, 50], "optimizer": "adam", "hidden_layers": 1, "epochs": 1, "examples": 200, "seeds": 1,
    },
    "sculpting": {
        "space": "resnet14:width=2:shortcut=padding", "network": ["base", "widening=2"], "epochs": 1, "seeds": 1,
    },
    "smoothness": {"epochs": 1, "every": 15, "examples": 50, "seeds": 1},
    "snip-sensitivity": {"factor": {"examples": "10,1"}, "epochs": 1, "seeds": 1},
    "steps-to-result": {
        "factor": {"batch_size": "16,64,256"}, "trials": 2, "goal": "0.3", "every": 4, "budget": 60,
    },
    "transfer": {"epochs": 1, "seeds": 1},
}  # fmt: skip
# Another value of a factor where any text will not do.
OTHERS = {
    "init": {"glorot": "he", "orthogonal": "lecun"},
    "pruning": {"snip": "magnitude", "random": "magnitude", "supervised": "unsupervised", "unsupervised": "random"},
    "isometry": {"none": "spectral", "frobenius": "spectral"},
    "network": {"sparse": "dense", "dense": "sparse", "base": "blocks=5"},
    "method": {"dense": "snip"},
    "optimizer": {"adam": "sgd", "momentum": "sgd"},
}


# What a table is of all values of: blocks of trials are one search, a law is of all batch sizes, some columns are
# of the largest sparsity.
TOGETHER = {
    ("steps-to-result", "block"),
    ("steps-to-result", "batch_size"),
    ("isometry", "sparsity"),
    ("connections", "sparsity"),
}


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch):
    monkeypatch.setattr("snas.studies.steps_curves.ROUNDS", 40)


@pytest.fixture(scope="module", params=sorted(RUNS))
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return snas.run_study(request.param, registry=str(folder / "r.db"), **RUNS[request.param])


def changed(value, factor):
    """Another value for the same factor, of the same type; None stays."""
    if isinstance(value, str):
        return OTHERS.get(factor, {}).get(value, f"{value}x")
    return value if value is None else value * 2 + 1


def shifted(value, name=""):
    """A result with all of its measured numbers different, also their ranks and correlations, and nothing else."""
    if isinstance(value, dict):
        return {key: shifted(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [shifted(part) for part in value]
    if isinstance(value, float):
        return 0.83 * abs(value - 0.3)
    return value - 3 if name == "steps" and value else value


def twice(run, factor):
    """The points, and as many others with another value of a factor and other results."""
    own = list(run.points)
    shared = run.study.shared.get(factor, None)
    copies = [
        Point({**point.cell, factor: changed(point[factor], factor)}, shifted(dict(point.result)), point.reason)
        for point in own
        if point[factor] is not None and point[factor] != shared
    ]
    return own, copies


def plain(tables):
    """Tables without what their titles say of the section."""
    return [(table.titles, table.rows, table.notes, table.bold) for table in tables]


def test_every_study_of_the_library_is_looked_at_here():
    assert set(RUNS) == set(studies.names())


def test_other_factors_give_the_tables_of_each_value_as_if_it_were_alone(run):
    study = run.study
    alone = study.tables(run.points)
    assert alone
    assert all(table.rows for table in alone)
    others = [name for name in run.grid if name not in (*study.shown, "seed")]
    assert others
    tried = 0
    for factor in others:
        own, copies = twice(run, factor)
        if not copies:
            continue
        tried += 1
        rest = [point for point in own if point[factor] in (None, study.shared.get(factor))]
        both = tables_of(study, own + copies)
        assert plain(both) == plain(alone) + plain(study.tables(rest + copies)), factor
        word = factor.replace("_", " ")
        assert all(f"({word} " in table.title for table in both)
        assert len({table.title for table in both}) == len(both)
    assert tried


def test_factors_that_a_study_lays_out_are_not_mixed(run):
    """Every number of a table of one value is in the table of several."""
    study = run.study
    tried = 0
    for factor in study.shown:
        if factor not in run.grid or (study.name, factor) in TOGETHER:
            continue
        own, copies = twice(run, factor)
        cells = {repr(sorted(point.cell.items(), key=str)) for point in own}
        copies = [one for one in copies if repr(sorted(one.cell.items(), key=str)) not in cells]
        if study.name == "isometry" and factor == "isometry":  # what is dense has none
            copies = [one for one in copies if one["pruning"]]
        if not copies or factor in ("network", "dense_width", "labels"):  # halves of a pair; all of a comparison
            continue
        tried += 1
        before = numbers(study.tables(own))
        assert before
        after = numbers(study.tables(own + copies))
        lost = [text for text in before if text not in after]
        assert not lost, (factor, lost)
    assert tried


def numbers(tables):
    """Texts of measured numbers: those with a decimal point."""
    return {text for table in tables for row in table.rows for text in row[1:] if re.search(r"\d\.\d", text)}


def test_pictures_of_all_sections_have_names_and_headings_of_their_own(run):
    study = run.study
    factor = next(name for name in run.grid if name not in (*study.shown, "seed") and twice(run, name)[1])
    own, copies = twice(run, factor)
    alone = study.pictures(own)
    both = pictures_of(study, own + copies)
    assert len(both) == 2 * len(alone)
    names = [picture.name for picture in both]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9.=_-]+", name) for name in names)
    for picture, value in ((both[0], own[0][factor]), (both[-1], copies[-1][factor])):
        svg = picture_bytes(picture.draw, picture.size, "svg").decode()
        assert svg.count(f"{factor.replace('_', ' ')} {value}".replace(">", "&gt;")) >= 1


def test_a_value_with_which_every_network_fails_leaves_the_others_as_they_are(run):
    study = run.study
    factor = next(name for name in run.grid if name not in (*study.shown, "seed") and twice(run, name)[1])
    own, copies = twice(run, factor)
    failed = [Point(point.cell, {}, "diverged") for point in copies]
    alone, both = plain(study.tables(own)), plain(tables_of(study, own + failed))
    shared = study.shared.get(factor)
    rest = [point for point in own if point[factor] in (None, shared)]  # stands in the section of the failed ones too
    assert both == alone + plain(study.tables(rest + failed))
    assert not numbers(study.tables(failed))
    assert len(pictures_of(study, own + failed)) >= len(study.pictures(own))


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
@pytest.mark.parametrize("name", sorted(RUNS))
def test_the_grids_of_the_library_are_laid_out_whole(name, scale):
    """What a study compares by itself is in one set of tables."""
    study = open_study(name)
    grid = {factor: values[:3] if factor == "block" else values for factor, values in study.grid(scale).items()}
    points = [Point(cell, {}) for cell in study.cells(grid)]
    assert [section.factors for section in sections_of(study, points)] == [{}]


class Bars(Study):
    """Numbers by width."""

    shown = ("width",)
    shared = {"epochs": 0}  # noqa: RUF012

    def grid(self, scale):
        return {"dataset": ("digits",), "width": (1, 2), "method": ("snip",), "epochs": (1,), "seed": (0, 1)}

    def measure(self, cell, lab):
        return {"value": 10.0 * cell["width"] + cell["seed"]}

    def tables(self, points):
        return [Table("Bars", ["width", "n"], [[str(point["width"]), str(len(points))] for point in points])]

    def pictures(self, points):
        return [Picture("bars", lambda figure: figure.subplots().plot([1, 2]), (2, 2))]


def bar(**cell):
    return Point({"width": 1, "method": "snip", "epochs": 1, "seed": 0, **cell}, {"value": 1.0})


def told(*points):
    return [(section.label, [point.cell for point in section.points]) for section in sections_of(Bars(), points)]


def test_one_value_of_everything_is_one_section_without_a_name():
    assert told(bar(), bar(seed=1), bar(width=2)) == [("", [bar().cell, bar(seed=1).cell, bar(width=2).cell])]
    assert told() == [("", [])]


def test_two_factors_give_their_combinations_in_order_and_none_that_is_empty():
    points = [bar(method="snip", lr=0.1), bar(method="grasp", lr=0.1), bar(method="snip", lr=0.01)]
    assert [(label, len(cells)) for label, cells in told(*points)] == [
        ("method snip, lr 0.1", 1), ("method grasp, lr 0.1", 1), ("method snip, lr 0.01", 1),
    ]  # fmt: skip


class Agreeing(int):
    """A value that counts how often it is compared."""

    compared = 0

    def __eq__(self, other):
        Agreeing.compared += 1
        return int.__eq__(self, other)

    def __hash__(self):
        return int(self)


def test_settings_are_compared_only_with_those_that_leave_some_open():
    points = [bar(lr=Agreeing(lr), width=width) for lr in range(200) for width in (1, 2)]
    assert len(sections_of(Bars(), points)) == 200
    assert Agreeing.compared < 20 * len(points)
    # With one that is open, it is compared with each once more, and stands among their points in its place.
    points.insert(1, bar(lr=None, width=3))
    sections = sections_of(Bars(), points)
    assert [point["width"] for point in sections[0].points] == [1, 3, 2]
    assert [point["width"] for point in sections[-1].points] == [3, 1, 2]


def test_long_settings_have_pictures_that_can_be_told_apart_and_keep_their_names():
    spaces = [f"resnet20:shortcut=padding:width=6:blocks=3:kernel={kernel}" for kernel in (3, 5)]
    data = "/very/long/path/to/some/data/set/of/mine-with-a-name.npz"
    points = [
        bar(dataset=dataset, space=space, lr=lr)
        for dataset in (data, "digits")
        for space in spaces
        for lr in (0.1, 0.01)
    ]
    pictures = pictures_of(Bars(), points)
    names = [picture.name for picture in pictures]
    assert len(set(names)) == 8
    assert all(re.fullmatch(r"bars-dataset-[A-Za-z0-9.-]+-[0-9a-f]{6}", name) for name in names[:4])  # cut
    assert all(len(name) <= len("bars-") + 80 for name in names)
    # More values in front of these leave each its name.
    more = [bar(dataset="mnist", space=spaces[0], lr=0.1), *reversed(points)]
    assert [picture.name for picture in pictures_of(Bars(), more)][:0:-1] == names
    for picture, section in zip(pictures, sections_of(Bars(), points), strict=True):
        figure = Figure(figsize=picture.size, layout="constrained")
        picture.draw(figure)
        heading = figure.get_suptitle()
        assert re.sub(r"\s", "", heading) == re.sub(r"\s", "", section.label.replace(data, "mine-with-a-name.npz"))
        assert max(len(line) for line in heading.splitlines()) <= 24
        assert picture.size == pytest.approx((2, 2 + 0.17 * heading.count("\n")))


def test_files_of_one_name_in_two_folders_are_told_by_their_folders():
    pictures = pictures_of(Bars(), [bar(dataset="/a/x.npz"), bar(dataset="/b/x.npz")])
    headings = []
    for picture in pictures:
        figure = Figure(figsize=picture.size)
        picture.draw(figure)
        headings.append(figure.get_suptitle())
    assert headings == ["dataset /a/x.npz", "dataset /b/x.npz"]
    names = [picture.name for picture in pictures]
    assert names[0] != names[1]
    # A name is the setting's own, whatever stands beside it.
    beside = pictures_of(Bars(), [bar(dataset="digits"), bar(dataset="/b/x.npz")])
    assert beside[1].name == names[1]


def test_what_has_no_value_of_its_own_is_in_all_sections():
    dense, untrained = bar(method=None, width=2), bar(epochs=0, width=3)
    points = [dense, bar(), bar(method="grasp"), untrained, bar(epochs=5)]
    found = told(*points)
    assert [label for label, _ in found] == ["method snip, epochs 1", "method grasp, epochs 1", "method snip, epochs 5"]
    assert [[cell["width"] for cell in cells] for _, cells in found] == [[2, 1, 3], [2, 1], [3, 1]]
    # Without a section that has it, what is open in one factor is one of its own.
    assert [label for label, _ in told(bar(method=None, epochs=7), bar(), bar(method="grasp"))] == [
        "epochs 7", "method snip, epochs 1", "method grasp, epochs 1",
    ]  # fmt: skip


def test_a_user_who_gives_two_learning_rates_gets_two_tables(capsys):
    options = ["--factor", "lr=0.1,0.01", "--factor", "every=30", "--factor", "sparsity=0,0.9", "--seeds", "1"]
    assert main(["study", "smoothness", "--epochs", "1", *options, "--registry", "r.db", "-q", "-o", "out"]) == 0
    out = capsys.readouterr().out
    assert out.count("gradient along training (lr 0.1)") == out.count("gradient along training (lr 0.01)") == 1
    assert {path.name for path in Path("out").glob("*.png")} == {
        "smoothness-constants-lr-0.1.png", "smoothness-constants-lr-0.01.png",
    }  # fmt: skip
    assert Path("out/smoothness.md").read_text().count("| 90 % |") == 2


def test_two_numbers_with_commas_are_read_from_a_flag_python_and_a_config():
    one = open_study("smoothness")
    assert one.shown == ("sparsity",)
    Path("c.json").write_text('{"batch-size": [64, 128], "epochs": 1, "factor": {"every": "30", "sparsity": "0.9"}}')
    assert main(["study", "smoothness", "--config", "c.json", "--seeds", "1", "--registry", "a.db", "-q"]) == 0
    flags = ["--batch-size", "64, 128", "--epochs", "1", "--factor", "every=30", "--factor", "sparsity=0.9"]
    assert main(["study", "smoothness", *flags, "--seeds", "1", "--registry", "a.db", "-q"]) == 0
    result = snas.run_study(
        "smoothness", batch_size=[64, 128], epochs=1, every=30, sparsity=0.9, seeds=1, registry="a.db"
    )
    assert [point["batch_size"] for point in result.points] == [64, 128]
    assert [table.title.rpartition("(")[2] for table in result.tables] == ["batch size 64)", "batch size 128)"]


@pytest.mark.parametrize("text", ["64,x", "1.5", "True"])
def test_batch_sizes_that_are_no_whole_numbers_are_refused(text, capsys):
    assert main(["study", "smoothness", "--batch-size", text, "--registry", "r.db"]) == 2
    assert "factor 'batch_size' is" in capsys.readouterr().err
