"""Grids, the runner and its registry, with a study that costs nothing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import snas
from snas.cli.main import main
from snas.errors import FailedError, InputError, SnasError
from snas.exports.grids import Table
from snas.listener import Listener
from snas.locks import owned
from snas.registry import Registry
from snas.studies.base import Picture, Study, combinations, in_order, measured, studies, values_of
from snas.studies.grid import adjusted
from snas.studies.lab import split_space

README = Path(__file__).resolve().parents[2] / "docs" / "studies" / "README.md"


class Sums(Study):
    """Adds numbers up: a study of no network."""

    def grid(self, scale):
        numbers = {"tiny": (1, 2), "small": (1, 2, 3), "paper": (1, 2, 3, 4)}
        return {"dataset": ("digits",), "a": numbers[scale], "b": (0.5, None), "seed": (0, 1)}

    def cells(self, grid):
        if 99 in grid["a"]:
            raise InputError("a is 99; expected less")
        return super().cells(grid)

    def measure(self, cell, lab):
        if cell["a"] == 13:
            raise FailedError("thirteen")
        if cell["a"] == 14:
            return {"sum": float("nan")}
        return {"sum": cell["a"] + (cell["b"] or 0) + cell["seed"], "list": [1, 2]}

    def tables(self, points):
        rows = [[str(point["a"]), f"{point.result['sum']:g}"] for point in measured(points, b=0.5)]
        return [Table("Sums", ["a", "sum"], rows, ["a note"], {(0, 1): 0.25}, frozenset({(0, 1)}))]

    def pictures(self, points):
        return [Picture("line", lambda figure: figure.subplots().plot([1, 2]), (2, 2))]


class Heard(Listener):
    def __init__(self):
        self.cells, self.counts, self.messages = [], [], []

    def on_cells(self, study, *, cells, done):
        self.counts.append((study, cells, done))

    def on_cell_end(self, study, cell, *, seconds, reason):
        self.cells.append((cell["a"], cell["b"], cell["seed"]))

    def on_message(self, text):
        self.messages.append(text)


@pytest.fixture(autouse=True)
def _sums():
    studies.names()  # the built-in ones come first
    studies.register("sums")(Sums)
    yield
    del studies._members["sums"]


def test_a_study_is_measured_once_and_can_be_extended():
    heard = Heard()
    first = snas.run_study("sums", registry="r.db", listener=heard)
    assert heard.counts == [("sums", 8, 0)]
    assert heard.cells[:4] == [
        (1, 0.5, 0),
        (1, None, 0),
        (2, 0.5, 0),
        (2, None, 0),
    ]  # the first seed of all comes first
    assert [point.result["sum"] for point in measured(first.points, a=2)] == [2.5, 2, 3.5, 3]
    again = snas.run_study("sums", registry="r.db", listener=heard)
    assert (len(heard.cells), heard.counts[-1]) == (8, ("sums", 8, 8))
    assert [point.result for point in again.points] == [point.result for point in first.points]
    small = snas.run_study("sums", scale="small", registry="r.db", listener=heard)
    assert heard.counts[-1] == ("sums", 12, 8)
    assert {cell[0] for cell in heard.cells[8:]} == {3}
    assert len(small.points) == 12
    more = snas.run_study("sums", seeds=1, a=[1, 7], registry="r.db", listener=heard)
    assert [(point["a"], point["b"], point["seed"]) for point in more.points] == [
        (1, 0.5, 0), (1, None, 0), (7, 0.5, 0), (7, None, 0)
    ]  # fmt: skip
    assert heard.counts[-1] == ("sums", 4, 2)


def test_other_versions_and_other_data_are_measured_anew(tmp_path, monkeypatch):
    import numpy as np

    def save(value):
        np.savez("mine.npz", x=np.full((20, 3), value), y=np.arange(20) % 2)

    save(1.0)
    heard = Heard()
    options = {"registry": "r.db", "listener": heard, "dataset": "mine.npz"}
    snas.run_study("sums", **options)
    save(2.0)
    snas.run_study("sums", **options)
    assert [count[2] for count in heard.counts] == [0, 0]
    monkeypatch.setattr(Sums, "version", 2)
    snas.run_study("sums", **options)
    snas.run_study("sums", **options)
    assert [count[2] for count in heard.counts] == [0, 0, 0, 8]


def test_a_network_of_ones_own_that_has_changed_is_measured_anew(monkeypatch):
    class Counts(Study):
        """Counts weights."""

        def grid(self, scale):
            return {"dataset": ("digits",), "space": ("own.py:make",), "seed": (0,)}

        def measure(self, cell, lab):
            return {"weights": lab.bench(cell["space"], cell["dataset"]).space.total_weights}

        def tables(self, points):
            return [Table("Weights", ["weights"], [[str(point.result["weights"])] for point in measured(points)])]

    monkeypatch.setitem(studies._members, "counts", Counts)
    found = []
    for width in (20, 20, 5):
        Path("own.py").write_text(
            "from torch import nn\ndef make(input_shape, classes):\n"
            f"    return nn.Sequential(nn.Flatten(), nn.Linear(64, {width}), nn.ReLU(), nn.Linear({width}, 10))\n"
        )
        result = snas.run_study("counts", registry="r.db")
        with Registry("r.db") as registry:
            found.append((result.points[0].result["weights"], len(registry.measurements("counts"))))
    assert found == [(1480, 1), (1480, 1), (370, 2)]


def test_a_cell_that_fails_is_filed_with_its_reason_and_one_that_cannot_be_filed_stops_the_study():
    heard = Heard()
    result = snas.run_study("sums", a=[13, 1], b=0.5, seeds=1, registry="r.db", listener=heard)
    assert [(point["a"], point.reason, dict(point.result)) for point in result.points] == [
        (13, "thirteen", {}), (1, None, {"sum": 1.5, "list": [1, 2]})
    ]  # fmt: skip
    assert "1 of them without result" in result.headline
    snas.run_study("sums", a=[13, 1], b=0.5, seeds=1, registry="r.db", listener=heard)
    assert len(heard.cells) == 2
    with pytest.raises(SnasError, match="cannot be filed"):
        snas.run_study("sums", a=[14], registry="r.db")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"c": 1}, "has no factor 'c'; factors: dataset, a, b, seed"),
        ({"space": "mlp"}, "has no factor 'space'"),
        ({"epochs": 3}, "has no factor 'epochs'"),
        ({"a": "1,x"}, "factor 'a' is 'x'; expected a value of type int"),
        ({"a": 1.5}, "factor 'a' is 1.5; expected a value of type int"),
        ({"a": True}, "factor 'a' is True"),
        ({"a": "none"}, "factor 'a' is 'none'"),
        ({"a": ""}, "factor 'a' has no value; give some with commas between, as in a=1,2"),
        ({"a": "1,1"}, "given twice"),
        ({"a": 99}, "a is 99"),
        ({"factor": {"a": "1"}, "a": 2}, "factor 'a' is given twice"),
        ({"factor": {"seeds": "1"}, "seeds": 2}, "factor 'seeds' is given twice"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": 2, "seed": 1}, "contradict each other"),
        ({"scale": "huge"}, "scale is 'huge'; choices: tiny, small, paper"),
        ({"workers": 0}, "workers is 0"),
        ({"dataset": "nowhere"}, "unknown dataset 'nowhere'"),
    ],
)
def test_bad_grids_are_refused_before_anything_is_measured(given, message):
    heard = Heard()
    with pytest.raises(InputError, match=re.escape(message)):
        snas.run_study("sums", registry="r.db", listener=heard, **given)
    assert heard.cells == []


@pytest.mark.parametrize(
    ("study", "given", "message"),
    [
        ("smoothness", {"lr": "0.1,-1"}, "lr is -1.0; expected a number above 0"),
        ("smoothness", {"schedule": "constant,nope"}, "schedule is nope; expected one of cosine, step, constant"),
        ("random-labels", {"batch_size": "50,0"}, "batch-size is 0; expected an integer of at least 1"),
        ("sculpting", {"epochs": "1,0"}, "epochs is 0; expected an integer of at least 1"),
        ("snip-sensitivity", {"optimizer": "adam,nope"}, "optimizer is nope"),
        ("transfer", {"weight_decay": "0,-1"}, "weight-decay is -1.0; expected >= 0"),
        ("connections", {"init": "he,nope"}, "nope"),
        ("sc-sdc", {"lr": "0.1,nan"}, "lr is nan; expected a number above 0"),
        ("gradient-flow", {"lr": "0.1,0"}, "lr is 0.0; expected a number above 0"),
    ],
)
def test_settings_of_all_trainings_are_checked_before_the_first(study, given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        snas.run_study(study, registry="r.db", seeds=1, **given)
    assert not Path("r.db").exists()


def test_what_is_no_plain_value_is_no_value_of_a_factor():
    for value in (["a", ["b"]], {"a": 1}, [{"b": 2}], {"a", "b"}, b"a", [("a",)]):
        with pytest.raises(InputError, match=r"^factor 't' has a \w+ as a value; expected text or a number$"):
            adjusted({"t": ("a",)}, {"t": value}, study="sums")


def test_infinity_is_no_whole_number():
    with pytest.raises(InputError, match="expected a value of type int"):
        adjusted({"every": (1, 2)}, {"every": float("inf")}, study="sums")


def test_values_are_read_in_the_type_of_the_factor():
    grid = {"n": (1,), "x": (0.5, None), "t": ("a",), "b": (True,), "seed": (0,)}
    given = {"n": "3,4", "x": "none,2", "t": ["q"], "b": "no", "seeds": 3}
    found = adjusted(grid, given, study="s")
    assert found == {"n": (3, 4), "x": (None, 2.0), "t": ("q",), "b": (False,), "seed": (0, 1, 2)}
    assert adjusted(grid, {"t": "none"}, study="s")["t"] == ("none",)


def test_order_and_values():
    cells = combinations({"a": (1, 2), "seed": (0, 1)})
    assert [(cell["a"], cell["seed"]) for cell in in_order(cells + cells)] == [(1, 0), (2, 0), (1, 1), (2, 1)]
    points = [snas.studies.base.Point({"a": a}, {"x": 1}) for a in (3, None, 1)]
    assert values_of(points, "a") == [None, 1, 3]


def test_spaces_take_arguments_in_their_names():
    assert split_space("mlp:width=8") == ("mlp", {"width": "8"})
    with pytest.raises(InputError, match="is no argument"):
        split_space("mlp:width=8:width=9")


def test_all_files_are_written(tmp_path):
    result = snas.run_study("sums", registry="r.db", output=tmp_path / "deep" / "out")
    folder = tmp_path / "deep" / "out"
    names = {path.name for path in folder.iterdir()}
    assert names == {f"sums.{kind}" for kind in ("csv", "json", "md", "html", "tex")} | {
        "sums-line.png",
        "sums-line.svg",
    }
    found = json.loads((folder / "sums.json").read_text())
    assert [point["result"] for point in found["points"]] == [dict(point.result) for point in result.points]
    lines = (folder / "sums.csv").read_text().splitlines()
    assert lines[0] == "dataset,a,b,seed,sum,list,reason,seconds"
    assert lines[1].startswith('digits,1,0.5,0,1.5,"[1, 2]",')
    assert "| 1 | **1.5** |" in (folder / "sums.md").read_text()
    assert '<td class="n top s25"' in (folder / "sums.html").read_text()
    assert r"\cellcolor[RGB]{174,208,218}\textbf{1.5}" in (folder / "sums.tex").read_text()
    assert (folder / "sums-line.png").read_bytes().startswith(b"\x89PNG")
    again = (folder / "sums-line.svg").read_bytes()
    result.save(folder)
    assert (folder / "sums-line.svg").read_bytes() == again


def test_pictures_of_an_earlier_grid_are_removed_and_nothing_else(tmp_path, monkeypatch):
    def pictures(self, points):
        return [Picture(f"line-{one['a']}", lambda figure: figure.subplots().plot([1, 2]), (2, 2)) for one in points]

    monkeypatch.setattr(Sums, "pictures", pictures)
    options = {"registry": "r.db", "output": tmp_path / "deep", "b": 0.5, "seeds": 1}
    snas.run_study("sums", **options, a=[1, 2])
    table = tmp_path / "deep" / "sums.json"
    found = json.loads(table.read_text())
    assert found["pictures"] == [f"sums-line-{a}.{kind}" for a in (1, 2) for kind in ("png", "svg")]
    others = {"sums-mine.png", "sums-line-2.txt", "sums-more.svg", "other-line-2.png"}
    for name in (*others, "../sums-x.png"):
        (tmp_path / "deep" / name).write_text("mine")
    found["pictures"] += ["other-line-2.png", "sums-line-2.txt", "../sums-x.png", "sums-/../../sums-x.png", 3, None]
    table.write_text(json.dumps(found))
    snas.run_study("sums", **options, a=[2, 3])
    drawn = {f"sums-line-{a}.{kind}" for a in (2, 3) for kind in ("png", "svg")}
    texts = {f"sums.{kind}" for kind in ("csv", "json", "md", "html", "tex")}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == drawn | texts | others
    assert (tmp_path / "sums-x.png").exists()


@pytest.mark.parametrize("text", ["", "[1]", '{"pictures": 3}', '{"pictures": {"sums-mine.png": 1}}', "[" * 100_000])
def test_a_file_that_is_not_the_studys_removes_no_picture(text, tmp_path):
    (tmp_path / "sums.json").write_text(text)
    (tmp_path / "sums-mine.png").write_text("mine")
    snas.run_study("sums", registry="r.db", output=tmp_path, a=1, seeds=1)
    assert (tmp_path / "sums-mine.png").read_text() == "mine"
    assert "sums-line.png" in json.loads((tmp_path / "sums.json").read_text())["pictures"]


def test_output_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    heard = Heard()
    with pytest.raises(InputError, match="cannot make folder"):
        snas.run_study("sums", registry="r.db", output=tmp_path / "file", listener=heard)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="output needs matplotlib for pictures"):
        snas.run_study("sums", registry="r.db", output=tmp_path / "out", listener=heard)
    assert heard.cells == []


def test_a_cell_that_another_process_has_is_waited_for(monkeypatch):
    import snas.studies.runner as runner

    heard = Heard()
    snas.run_study("sums", registry="r.db", a=[1], b=0.5, seeds=1)
    with Registry("r.db") as other:
        taken: list = []

        def busy(registry, name):
            taken.append(name)
            return owned(registry, name)

        lock = None

        def sleep(seconds):
            nonlocal lock
            lock.__exit__(None, None, None)

        monkeypatch.setattr(runner, "owned", busy)
        monkeypatch.setattr(runner.time, "sleep", sleep)
        snas.run_study("sums", registry="q.db", a=[2], b=0.5, seeds=1)
        lock = owned(other, taken[0])
        lock.__enter__()
        snas.run_study("sums", registry="r.db", a=[2], b=0.5, seeds=1, listener=heard)
    assert heard.messages == ["waiting for another process, which is measuring the rest of this study"]
    assert heard.cells == [(2, 0.5, 0)]
    assert not list(Path("r.db.files/locks").glob("cell-*"))


def test_the_command_prints_tables_and_exits_with_its_codes(capsys):
    assert main(["study", "sums", "--registry", "r.db", "--factor", "a=3", "-q"]) == 0
    out, err = capsys.readouterr()
    assert "Study sums, tiny: 4 cells" in out
    assert "3.5" in out
    assert err == ""
    assert main(["study", "sums", "--registry", "r.db", "--format", "json", "--seeds", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["study"] == "sums"
    for arguments, message in (
        (["study", "sum"], "unknown study 'sum'; did you mean 'sums'?"),
        (["study", "sums", "--scale", "big"], "scale is 'big'"),
        (["study", "sums", "--factor", "a"], "expected key=value"),
    ):
        assert main([*arguments, "--registry", "r.db"]) == 2
        assert message in capsys.readouterr().err
    assert main(["study", "sums", "--factor", "a=13", "--registry", "r.db", "-q"]) == 1
    assert "not one cell could be measured; the first: thirteen" in capsys.readouterr().err
    assert main(["list", "studies"]) == 0
    assert "Adds numbers up" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "flags", "expected"),
    [
        ("[factor]\na = 7\nb = 0.5\n", ["--factor", "a=3"], [(3, 0.5)]),
        ("seeds = 1\n[factor]\na = [7, 8]\n", ["--factor", "b=0.5"], [(7, 0.5), (8, 0.5)]),
        ("[factor]\na = 7\nb = 0.5\ndataset = 'nowhere'\n", ["--dataset", "digits"], [(7, 0.5)]),
        ("dataset = 'nowhere'\n[factor]\na = 7\nb = 0.5\n", ["--factor", "dataset=digits"], [(7, 0.5)]),
    ],
)
def test_a_flag_replaces_one_factor_of_a_config_and_leaves_the_others(config, flags, expected, capsys):
    Path("own.toml").write_text(config)
    command = ["study", "sums", "--config", "own.toml", "--registry", "r.db", "--format", "json", "-q", *flags]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["cell"]["a"], one["cell"]["b"]) for one in found["points"] if one["cell"]["seed"] == 0] == expected


def test_the_recipe_in_the_documents_is_a_study():
    code = re.search(r"```python\n(@studies\.register.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    imports = "from snas.exports.grids import Table\nfrom snas.studies.base import Study, measured, studies\n"
    exec(imports + code, {"__name__": __name__})
    try:
        result = snas.run_study("mine", registry="r.db", epochs=1, seeds=1)
    finally:
        del studies._members["mine"]
    assert [row[0] for row in result.tables[0].rows] == ["0.1", "0.5"]


@pytest.mark.slow
def test_two_workers_give_the_results_of_one_and_a_kill_repeats_nothing(tmp_path):
    grid = {"epochs": 1, "every": 40, "sparsity": [0.0, 0.9], "seeds": 2}
    one = snas.run_study("smoothness", registry="one.db", **grid)
    two = snas.run_study("smoothness", registry="two.db", workers=2, **grid)
    assert [point.result for point in one.points] == [point.result for point in two.points]
    command = [sys.executable, "-m", "snas", "study", "smoothness", "--registry", "three.db", "--epochs", "6"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    cells = 0
    while cells == 0:
        if Path("three.db").exists():
            with Registry("three.db") as registry:
                cells = len(registry.measurements("smoothness"))
    running.send_signal(signal.SIGINT)
    _, err = running.communicate()
    assert running.returncode == 130
    assert err.splitlines()[-1] == "snas: interrupted; what was recorded is kept, and the same command resumes"
    with Registry("three.db") as registry:
        before = registry.measurements("smoothness")
    subprocess.run(command, check=True, capture_output=True)
    with Registry("three.db") as registry:
        after = registry.measurements("smoothness")
    assert len(after) == 6
    assert {key: after[key].seconds for key in before} == {key: one.seconds for key, one in before.items()}
