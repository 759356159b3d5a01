"""`snas sweep` as a user meets it: tables, files, refusals, interruption; and `snas prune --densities-from`."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial

import pytest

from snas.cli.main import main
from snas.cli.sweep import fitting

FAST = ["--space", "lenet-300-100", "--epochs", "1", "--threads", "1", "--quiet"]
SWEEP = ["sweep", *FAST, "--methods", "dense,random,er", "--densities", "0.2,0.1", "--seeds", "2"]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_json_is_exactly_one_object_and_the_same_again(capsys):
    code, out, err = run(capsys, *SWEEP, "--format", "json")
    assert (code, err) == (0, "")
    first = json.loads(out)
    assert [(cell["method"], cell["density"]) for cell in first["cells"]] == [
        ("dense", None), ("random", 0.2), ("er", 0.2), ("random", 0.1), ("er", 0.1),
    ]  # fmt: skip
    assert all(set(cell["accuracies"]) == {"0", "1"} for cell in first["cells"])
    assert {one["method"] for one in first["comparisons"]} >= {"dense", "random"}
    again = json.loads(run(capsys, *SWEEP, "--format", "json")[1])
    for value in (first, again):
        del value["wall_seconds"]
    assert first == again
    rows = json.loads(run(capsys, "leaderboard", "--format", "json")[1])["groups"][0]["rows"]
    means = {row["id"]: row["test_accuracy"] for row in rows}
    assert means == {cell["id"]: pytest.approx(cell["mean"]) for cell in first["cells"]}


def test_table_is_plain_where_it_is_piped_and_goes_to_files(capsys, tmp_path):
    for suffix in ("md", "tex", "csv", "json", "html"):
        code, out, err = run(capsys, *SWEEP, "--output", f"table.{suffix}", "--error")
        assert (code, err) == (0, f"wrote 5 cells to table.{suffix}\n")
        assert "er" in (tmp_path / f"table.{suffix}").read_text(encoding="utf-8")
    assert "\x1b" not in out
    assert "lenet-300-100 on digits" in out
    assert "test error %, mean ± standard deviation over 2 seeds; 1 epoch" in out
    assert "signed-rank test is 0.5 with 2 seeds" in out


def test_refused_cells_say_so_and_the_rest_goes_on(capsys):
    # 10 of 50,200 weights lead nowhere, and "smart" holds 300 of the last layer.
    arguments = ["sweep", *FAST, "--methods", "dense,random,smart", "--densities", "0.0002,0.1", "--seeds", "1"]
    code, out, err = run(capsys, *arguments, "--format", "json")
    assert (code, err) == (0, "")
    cells = {(cell["method"], cell["density"]): cell for cell in json.loads(out)["cells"]}
    assert cells["random", 0.0002]["status"] == "refused"
    assert "path" in cells["random", 0.0002]["reasons"][0]
    assert (cells["smart", 0.0002]["status"], cells["smart", 0.0002]["id"]) == ("out of reach", None)
    assert cells["smart", 0.1]["accuracies"]
    code, out, err = run(capsys, *[word for word in arguments if word != "--quiet"])
    assert code == 0
    assert "refused [1]" in out
    assert "[2] smart at 0.0002 out of reach: cannot keep 10 of 50200 weights" in " ".join(out.split())
    assert "smart at density 0.0002: cannot keep 10" in err
    assert "4 of them trained already" in err


def test_not_one_network_is_a_failure(capsys):
    code, out, err = run(capsys, "sweep", *FAST, "--methods", "random", "--densities", "0.0002", "--format", "json",
                         "--seeds", "1")  # fmt: skip
    assert code == 1
    assert json.loads(out)["cells"][0]["status"] == "refused"
    assert err.count("\n") == 1
    assert "not one network could be trained; random: seed 0: no path" in err


def test_settings_come_from_a_file_too(capsys, tmp_path):
    (tmp_path / "s.toml").write_text('methods = "er"\ndensities = "0.1"\nseeds = 1\n')
    value = json.loads(run(capsys, "sweep", *FAST, "--config", "s.toml", "--format", "json")[1])
    assert [(cell["method"], len(cell["accuracies"])) for cell in value["cells"]] == [("er", 1)]


def test_lists_in_a_file_may_be_lists(capsys, tmp_path):
    (tmp_path / "s.toml").write_text('methods = ["er", "random"]\ndensities = [0.1, 0.05]\nseeds = 1\n')
    value = json.loads(run(capsys, "sweep", *FAST, "--config", "s.toml", "--format", "json")[1])
    assert [(cell["method"], cell["density"]) for cell in value["cells"]] == [
        ("er", 0.1), ("random", 0.1), ("er", 0.05), ("random", 0.05),
    ]  # fmt: skip
    (tmp_path / "s.toml").write_text('methods = ["er"]\ndensities = [[0.1]]\n')
    code, out, err = run(capsys, "sweep", *FAST, "--config", "s.toml")
    assert (code, out, err) == (2, "", "snas: density is '[0.1]'; expected 0 < density <= 1\n")


@pytest.mark.parametrize("width", [30, 60, 80])
def test_narrow_terminals_get_several_tables_of_few_columns(width):
    grid = [["method", *(f"0.{number}" for number in range(1, 8))], ["rigl:every=50", *["97.42 ± 0.31"] * 7]]
    parts = fitting(grid, width)
    assert [title for part in parts for title in part[0][1:]] == grid[0][1:]
    assert all(part[1][0] == "rigl:every=50" for part in parts)
    used = [max(len("rigl:every=50"), 6) + sum(2 + len("97.42 ± 0.31") for _ in part[0][1:]) for part in parts]
    assert max(used) <= width
    assert len(parts) == -(-7 // max(1, (width - 13) // 14))


def test_tables_fit_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    arguments = ["--methods", "dense,random,er,erk,uniform-dense-first", "--seeds", "2",
                 "--densities", "0.9,0.8,0.7,0.6,0.5"]  # fmt: skip
    code, out, _ = run(capsys, "sweep", *FAST, *arguments)
    assert code == 0
    out = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert max(map(len, out.splitlines())) <= 80
    for title in ("0.9", "0.8", "0.7", "0.6", "0.5"):
        assert f"density {title}: accuracy minus that of" in out
    assert sum(line.startswith("method") for line in out.splitlines()) == 2 + 5  # the table in two parts
    assert "…" not in out


BASE = ["--space", "lenet-300-100", "--methods", "er", "--densities", "0.1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "methods is empty"),
        (["--methods", ""], "methods is empty"),
        (["--methods", "er"], "'er' needs densities; give --densities"),
        (["--methods", "er,,erk", "--densities", "0.1"], "item 2 is empty"),
        (["--methods", "er,err", "--densities", "0.1"], "unknown method 'err'"),
        (["--methods", "er,er", "--densities", "0.1"], "method 'er' is given twice"),
        (["--methods", "er", "--densities", "0.1,,0.2"], "item 2 is empty"),
        (["--methods", "er", "--densities", ""], "densities is empty"),
        (["--methods", "er", "--densities", "abc"], "density is 'abc'"),
        (["--methods", "er", "--densities", "0.1,0"], "density is 0"),
        (["--methods", "er", "--densities", "1.1"], "density is 1.1"),
        (["--methods", "er", "--densities", "nan"], "density is nan"),
        (["--methods", "er", "--densities", "0.1,0.10"], "density '0.1' is given twice"),
        ([*BASE[:4], "--densities", "0.1,0.1000001"], "both keep 5020 weights"),
        ([*BASE[:4], "--densities", "1e-5"], "density 1e-05: cannot keep 1 of 50200 weights"),
        ([*BASE, "--seeds", "0"], "seeds is 0"),
        ([*BASE, "--jobs", "0"], "jobs is 0"),
        ([*BASE, "--jobs", "many"], "--jobs"),
        ([*BASE, "--reference", "snip"], "reference is 'snip'; choose one of the methods: er"),
        ([*BASE, "--densities-from", "1"], "contradict"),
        ([*BASE[:4], "--densities-from", "99"], "no row 99"),
        ([*BASE[:4], "--densities-from", "nowhere.json"], "cannot read nowhere.json"),
        ([*BASE, "--output", "t.pdf"], "ends in one of .md"),
        ([*BASE, "--output", "no/t.md"], "no folder 'no'"),
        ([*BASE, "--format", "xml"], "format is 'xml'"),
        ([*BASE, "--final-seeds", "2"], "--final-seeds"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_clear_line_and_exit_code_2(capsys, arguments, message):
    code, out, err = run(capsys, "sweep", *arguments, "--epochs", "1")
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1, err
    assert message in err


@pytest.mark.parametrize("method", ["snip", "magnitude", "random"])
def test_prune_keeps_exactly_the_densities_of_a_row_or_a_file(capsys, tmp_path, method):
    source = ["prune", *FAST, "--method", "er", "--density", "0.1", "--final-seeds", "1", "--format", "json"]
    row = json.loads(run(capsys, *source)[1])
    shown = run(capsys, "show", str(row["id"]), "--format", "json")[1]
    (tmp_path / "shown.json").write_text(shown)
    counts = {name: layer["kept"] for name, layer in row["layers"].items()}
    densities = {name: layer["kept"] / layer["total"] for name, layer in row["layers"].items()}
    (tmp_path / "list.json").write_text(json.dumps(list(densities.values())))
    (tmp_path / "d.toml").write_text(
        "[densities]\n" + "".join(f"{name} = {value}\n" for name, value in densities.items())
    )
    (tmp_path / "d.csv").write_text(
        "layer,density\n" + "".join(f"{name},{value}\n" for name, value in densities.items())
    )
    ids = set()
    for given in (str(row["id"]), "shown.json", "list.json", "d.toml", "d.csv"):
        arguments = ["--method", method, "--densities-from", given, "--final-seeds", "1", "--format", "json"]
        code, out, err = run(capsys, "prune", *FAST, *arguments)
        assert (code, err) == (0, ""), given
        value = json.loads(out)
        assert {name: layer["kept"] for name, layer in value["layers"].items()} == counts
        ids.add(value["id"])
    assert len(ids) == 1  # one row, trained once
    assert row["id"] not in ids


LONG = [sys.executable, "-m", "snas", "sweep", "--space", "lenet-300-100", "--methods", "dense,er"]
LONG += ["--densities", "0.1", "--seeds", "2", "--epochs", "20", "--threads", "1", "--format", "json"]
LONG += ["--registry", "s.db"]


def start(tmp_path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*LONG, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # shells ignore it in background jobs
    )


@pytest.mark.slow
def test_ctrl_c_and_kill_lose_nothing(tmp_path, wait_for_reports):
    whole = subprocess.run([*LONG[:-1], "w.db", "--quiet"], capture_output=True, text=True, cwd=tmp_path, check=True)
    for number, jobs, number_of_signal, expected in (
        (3, "1", signal.SIGINT, 130),
        (12, "2", signal.SIGINT, 130),
        (25, "1", signal.SIGKILL, -9),
    ):
        process = start(tmp_path, "--jobs", jobs)
        wait_for_reports(str(tmp_path / "s.db"), number)
        os.killpg(process.pid, number_of_signal)  # as a terminal does: to all processes of the command
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (expected, "")
        assert "Traceback" not in err
        if expected == 130:
            assert "the same command resumes" in err.splitlines()[-1]
        connection = sqlite3.connect(tmp_path / "s.db")
        before = set(connection.execute("SELECT * FROM reports").fetchall())
        connection.close()
    done = subprocess.run([*LONG, "--quiet"], capture_output=True, text=True, cwd=tmp_path, check=True)
    one, two = (
        {(cell["method"], cell["density"]): cell["accuracies"] for cell in json.loads(process.stdout)["cells"]}
        for process in (whole, done)
    )
    assert one == two
    connection = sqlite3.connect(tmp_path / "s.db")
    assert before <= set(connection.execute("SELECT * FROM reports").fetchall())
    connection.close()


@pytest.mark.slow
def test_a_killed_worker_ends_the_sweep_with_a_line(tmp_path, wait_for_reports):
    process = start(tmp_path, "--jobs", "2", "--epochs", "200")
    wait_for_reports(str(tmp_path / "s.db"), 2)
    try:
        found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True)
        os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (1, "")
        assert "one of 2 workers was ended by signal 9" in err.splitlines()[-1]
        for _ in range(200):  # the other one, and what tracks their memory, end with their parent
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)
        raise AssertionError("a worker goes on without its parent")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
