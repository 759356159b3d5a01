"""The command line as a user meets it: results, refusals, interruption. Run in process where that is the same."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from scipy import stats

from snas.cli.main import main
from snas.cli.search import difference_line
from snas.compare import compare_all
from snas.registry import Registry

FAST = ["--samples", "2", "--epochs", "1", "--final-seeds", "1", "--strategy", "random", "--quiet"]
SEARCH = ["search", "--space", "lenet-300-100", *FAST]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_search_prints_one_json_object_and_nothing_else(capsys):
    code, out, err = run(capsys, *SEARCH, "--format", "json")
    assert (code, err) == (0, "")
    value = json.loads(out)
    assert list(value) == [
        "study", "registry", "space", "dataset", "strategy", "candidates", "epochs_trained", "wall_seconds", "best",
        "baselines", "differences", "front", "hypervolume",
    ]  # fmt: skip
    assert (value["differences"], value["front"], value["hypervolume"]) == ([], [], {})  # one seed, one objective
    assert list(value["baselines"]) == ["dense", "snip", "ldi"]
    for row in (value["best"], *value["baselines"].values()):
        assert {
            "id",
            "kept_weights",
            "total_weights",
            "density",
            "layers",
            "validation_accuracy",
            "test_accuracy",
        } <= set(row)
        assert sum(layer["kept"] for layer in row["layers"].values()) == row["kept_weights"]
        assert sum(layer["total"] for layer in row["layers"].values()) == row["total_weights"]
        assert row["test_accuracy"]["n"] == 1
        assert 0 <= row["test_accuracy"]["mean"] <= 1
    kept = {name: row["kept_weights"] for name, row in value["baselines"].items()}
    assert kept["snip"] == kept["ldi"] == value["best"]["kept_weights"]
    assert kept["dense"] == value["best"]["total_weights"]
    assert (value["candidates"], value["epochs_trained"]) == (2, 2 + 2 * 2)  # both again on two fresh seeds


def test_search_again_is_resumed_and_reported_the_same(capsys):
    first = json.loads(run(capsys, *SEARCH, "--format", "json")[1])
    second = json.loads(run(capsys, *SEARCH, "--format", "json")[1])
    for value in (first, second):
        del value["wall_seconds"]
    assert first == second


def test_leaderboard_show_export_and_train_follow_a_search(capsys, tmp_path):
    run(capsys, *SEARCH)
    code, out, _ = run(capsys, "leaderboard")
    assert code == 0
    assert "lenet-300-100 on digits" in out
    assert "searched (random, random)" in out
    groups = json.loads(run(capsys, "leaderboard", "--format", "json")[1])["groups"]
    identity = groups[0]["rows"][0]["id"]
    code, out, _ = run(capsys, "show", str(identity))
    assert code == 0
    assert "█" in out
    assert "fingerprint" in out
    shown = json.loads(run(capsys, "show", str(identity), "--format", "json")[1])
    assert shown["seeds"][0]["status"] == "finished"
    for name in ("csv", "json", "md", "html", "latex"):
        code, out, _ = run(capsys, "leaderboard", "export", "--format", name, "-o", str(tmp_path / f"board.{name}"))
        assert (code, out) == (0, "")
        assert "lenet-300-100" in (tmp_path / f"board.{name}").read_text()
    code, out, err = run(capsys, "leaderboard", "--space", "resnet20")
    assert code == 0
    assert "no row meets all filters" in err
    code, out, _ = run(capsys, "train", str(identity), "--final-seeds", "2", "--format", "json", "--quiet")
    assert code == 0
    assert json.loads(out)["test_accuracy"]["n"] == 2


PAIRED = ["search", "--space", "lenet-300-100", "--samples", "2", "--epochs", "1", "--strategy", "random", "--quiet",
          "--baselines", "dense,snip", "--density", "0.05"]  # fmt: skip


def test_search_tells_how_sure_its_differences_are(capsys):
    code, out, err = run(capsys, *PAIRED, "--final-seeds", "3")
    assert (code, err) == (0, "")
    value = json.loads(run(capsys, *PAIRED, "--final-seeds", "3", "--format", "json")[1])
    assert [one["reference"] for one in value["differences"]] == ["dense", "snip"]
    with Registry("snas.db") as registry:
        rows = {entry.method: entry for entry in registry.entries()}
        accuracies = {name: [run.test_accuracy for run in registry.runs(entry)] for name, entry in rows.items()}
    tests = {
        name: stats.ttest_rel(accuracies["searched"], accuracies[name], alternative="two-sided")
        for name in ("dense", "snip")
    }
    smaller = min(tests.values(), key=lambda test: test.pvalue).pvalue
    for one in value["differences"]:
        name, expected = one["reference"], tests[one["reference"]]
        mean = np.subtract(accuracies["searched"], accuracies[name]).mean()
        assert (one["method"], one["seeds"]) == ("searched", 3)
        assert one["mean"] == pytest.approx(mean)
        assert one["t_p"] == pytest.approx(expected.pvalue)
        interval = expected.confidence_interval(0.95)
        assert (one["low"], one["high"]) == pytest.approx((interval.low, interval.high))
        holm = min(1, 2 * smaller) if expected.pvalue == smaller else max(expected.pvalue, min(1, 2 * smaller))
        assert one["t_adjusted"] == pytest.approx(holm)
        assert (
            f"searched - {name}: {100 * mean:+.2f} ({100 * one['low']:+.2f} to {100 * one['high']:+.2f}), 3 seeds"
            in out
        )
    assert "which the search has not seen" in out


def test_lines_of_a_search_fit_a_terminal_of_80_columns():
    ours, other = {seed: 0.9 + seed / 500 for seed in range(10)}, {seed: 0.85 + seed**2 / 5000 for seed in range(10)}
    (one,) = compare_all(0.05, [("searched", ours, "rigl:every=50", other)])
    line = difference_line(one, at=False)
    assert line.startswith("searched - rigl:every=50: +5.33 (")
    assert len(line) <= 90
    assert len(difference_line(compare_all(0.05, [("searched", ours, "snip", other)])[0])) <= 80
    single = compare_all(0.05, [("searched", {0: 0.5, 1: 0.5}, "snip", {0: 0.25, 1: 0.25})])[0]
    # Both seeds differ alike: there is no spread to make an interval of.
    assert difference_line(single, at=True) == "searched - snip at 5.00%: +25.00, 2 seeds, p - (t), 0.5 (ranks)"


def test_search_for_a_front_prints_it_and_what_it_covers(capsys):
    arguments = ["search", "--space", "lenet-300-100", "--samples", "4", "--epochs", "1", "--strategy", "random"]
    arguments += ["--objectives", "accuracy,kept_weights", "--max-density", "0.2", "--front", "3", "--quiet"]
    arguments += ["--final-seeds", "1", "--baselines", "erk", "--confirm-seeds", "1", "--warm-start", "none"]
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    value = json.loads(run(capsys, *arguments, "--format", "json")[1])
    front = value["front"]
    assert 1 <= len(front) <= 3
    assert value["best"]["id"] == front[0]["id"]
    assert "front of accuracy and kept_weights" in out
    # By hand: each network adds the accuracy above guessing that no cheaper one has, times its decades.
    height, area = 0.0, 0.0
    for row in sorted(front, key=lambda row: row["kept_weights"]):
        decades, gain = np.log10(50200 / row["kept_weights"]), row["test_accuracy"]["mean"] - 0.1 - height
        area += max(gain, 0.0) * decades
        height += max(gain, 0.0)
    assert value["hypervolume"]["searched (random)"] == pytest.approx(area)
    assert set(value["hypervolume"]) == {"all", "searched (random)", "erk"}
    assert f"searched (random) {area:.3f}" in out.replace("\n", " ")


def test_show_tells_how_a_search_found_its_row(capsys):
    run(capsys, *PAIRED, "--final-seeds", "1", "--mask", "random,snip", "--train", "rigl")
    code, out, _ = run(capsys, "show", "1")
    assert code == 0
    assert "of 2, strategy random" in out
    assert "6 epochs and" in out
    assert "warm start erk" in out
    assert "on 2 fresh seeds before it was named (4 such trainings in the study)" in out
    assert "budget      density 0.05" in out
    found = json.loads(run(capsys, "show", "1", "--format", "json")[1])["search"]
    assert (found["epochs"], found["repeats_of_study"], found["shape"]) == (6, 4, None)
    assert found["rule"] in ("random + rigl", "snip + rigl")
    assert found["origin"].startswith("erk")
    assert [(one["number"], one["status"], one["epochs"]) for one in found["repeats"]] == [
        (1, "finished", 1),
        (2, "finished", 1),
    ]
    baseline = json.loads(run(capsys, "show", "2", "--format", "json")[1])
    assert baseline["search"] is None


def test_prune_prints_its_row(capsys):
    arguments = [
        "prune",
        "--space",
        "lenet-300-100",
        "--method",
        "random",
        "--density",
        "0.1",
        "--epochs",
        "1",
        "--quiet",
    ]
    code, out, _ = run(capsys, *arguments, "--final-seeds", "1", "--format", "json")
    value = json.loads(out)
    assert code == 0
    assert value["method"] == "random"
    assert value["kept_weights"] == round(0.1 * value["total_weights"])
    assert value["wall_seconds"] > 0


def test_a_training_too_short_for_its_method_leaves_no_row(capsys):
    base = ["--space", "lenet-300-100", "--method", "imp-rewind:rounds=1", "--density", "0.1", "--epochs", "2"]
    code, out, _ = run(capsys, "prune", *base, "--final-seeds", "1", "--quiet", "--format", "json")
    assert code == 0
    row = json.loads(out)["id"]
    code, _, err = run(capsys, "train", str(row), "--epochs", "1", "--quiet")
    assert (code, err) == (2, "snas: rewind is 1; expected fewer than the 1 epochs of the training\n")
    groups = json.loads(run(capsys, "leaderboard", "--format", "json")[1])["groups"]
    assert [item["id"] for group in groups for item in group["rows"]] == [row]


@pytest.mark.parametrize("what", ["spaces", "strategies", "methods", "datasets", "masks", "allocations", "evaluators"])
def test_lists_have_a_line_of_help_for_everything(capsys, what):
    code, out, _ = run(capsys, "list", what, "--format", "json")
    assert code == 0
    items = json.loads(out)[what]
    assert items
    for item in items:
        assert item["help"], item


BAD_MODULE = """
from torch import nn
def raising():
    raise RuntimeError("no such luck")
def bare():
    return nn.Flatten()
def number():
    return 3
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--space", "resnet33"], "unknown space 'resnet33'"),
        (["search", "--strategy", "bays"], "did you mean 'bayes'"),
        (["search", "--dataset", "digts"], "digits"),
        (["search", "--dataset", "nowhere.npz"], "nowhere.npz"),
        (["search", "--dataset", "mnist", "--data-dir", "empty"], "train-images"),
        (["search", "--samples", "0"], "samples is 0; expected an integer of at least 1"),
        (["search", "--samples", "many"], "--samples"),
        (["search", "--epochs", "0"], "epochs is 0"),
        (["search", "--grace", "99"], "grace is 99"),
        (["search", "--eta", "1"], "eta is 1"),
        (["search", "--lr", "nan"], "lr is nan"),
        (["search", "--mask", "snap"], "did you mean 'snip'"),
        (["search", "--representation", "cell"], "representation is 'cell'; choices: layer, block, depth, uniform"),
        (["search", "--first-layer", "no"], "first-layer is 'no'"),
        (["search", "--device", "abacus"], "unknown device"),
        (["search", "--threads", "0"], "threads is 0"),
        (["search", "--seed", "-1"], "seed is -1"),
        (["search", "--name", "../x"], "name is '../x'"),
        (["search", "--evaluator", "warp"], "unknown evaluator"),
        (["search", "--format", "xml"], "format is 'xml'"),
        (["search", "--space-arg", "width"], "expected key=value"),
        (["search", "--space", "mlp", "--space-arg", "depth=3"], "no argument 'depth'"),
        (["search", "--space", "mlp", "--space-arg", "hidden_layers=none"], "hidden_layers"),
        (["search", "--space", "mlp", "--space-arg", "hidden_layers=65"], "65"),
        (["search", "--strategy-arg", "kapa=1"], "no argument 'kapa'"),
        (["search", "--config", "nowhere.toml"], "cannot read config"),
        (["search", "--registry", "notes.txt"], "not a snas registry"),
        (["search", "--registry", "other.db"], "another program"),
        (["search", "--registry", "no/such/folder/x.db"], "does not exist"),
        (["search", "--space", "bad.py:raising"], "RuntimeError: no such luck"),
        (["search", "--space", "bad.py:bare"], "no prunable layer"),
        (["search", "--space", "bad.py:number"], "int"),
        (["search", "--space", "bad.py:nothing"], "nothing"),
        (["search", "--space", "nowhere.py:factory"], "nowhere.py"),
        (["search", "--space", "no_such_module:factory"], "no_such_module"),
        (["search", "--unknown"], "--unknown"),
        (["prune", "--density", "0"], "density is 0"),
        (["prune", "--density", "1.5"], "density is 1.5"),
        (["prune", "--density", "nan"], "density is nan"),
        (["prune", "--density", "-inf"], "density is -inf"),
        (["prune", "--density", "1e-9"], "nearest: 34 (density"),
        (["prune", "--method", "snipp"], "did you mean 'snip'"),
        (["prune", "--method", "dense", "--density", "0.5"], "keeps every weight"),
        (["prune", "--final-seeds", "0"], "final-seeds is 0"),
        (["train", "1"], "no registry at"),
        (["train", "x"], "ID"),
        (["show", "1"], "no registry at"),
        (["leaderboard"], "no registry at"),
        (["leaderboard", "export", "--format", "pdf"], "format is 'pdf'"),
        (["list", "things"], "cannot list 'things'"),
        (["serch"], "serch"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_clear_line_and_exit_code_2(capsys, tmp_path, arguments, message):
    (tmp_path / "bad.py").write_text(BAD_MODULE)
    (tmp_path / "notes.txt").write_text("plain text, no database " * 100)
    (tmp_path / "empty").mkdir()
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE things (x)")
    connection.commit()
    connection.close()
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1, err
    assert message in err
    assert "Traceback" not in err


def test_missing_row_is_named(capsys):
    run(capsys, *SEARCH)
    for command in ("show", "train"):
        for identity in ("999", str(2**63)):
            code, _, err = run(capsys, command, identity)
            assert (code, err.count("\n")) == (2, 1)
            assert f"no row {identity}" in err


def test_collapsed_pruning_fails_with_its_reason(capsys, tmp_path):
    # One weight a layer: the method decides where they go, and the paths do not meet.
    arguments = ["prune", "--space", "lenet-300-100", "--method", "random", "--density", "0.0002", "--epochs", "1"]
    code, _, err = run(capsys, *arguments, "--final-seeds", "1", "--quiet")
    assert code == 1
    assert "path" in err
    assert err.count("\n") == 1


def test_config_file_gives_settings_and_flags_win(capsys, tmp_path):
    (tmp_path / "c.toml").write_text(
        'space = "lenet-300-100"\nsamples = 2\nepochs = 1\nfinal-seeds = 1\nstrategy = "random"\n'
    )
    value = json.loads(run(capsys, "search", "--config", "c.toml", "--samples", "1", "--quiet", "--format", "json")[1])
    assert (value["space"], value["candidates"], value["strategy"]) == ("lenet-300-100", 1, "random")
    for text, message in (
        ("sample = 3", "unknown setting 'sample'"),
        ('samples = "3"', "expected int"),
        ("x = [", "not valid TOML"),
    ):
        (tmp_path / "bad.toml").write_text(text)
        code, _, err = run(capsys, "search", "--config", "bad.toml")
        assert code == 2
        assert message in err


def test_registry_comes_from_the_environment(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SNAS_REGISTRY", str(tmp_path / "elsewhere.db"))
    run(capsys, *SEARCH)
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "snas.db").exists()


def test_data_of_ones_own(capsys, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    np.savez(tmp_path / "mine.npz", x=rng.normal(size=(200, 12)) + y[:, None], y=y)
    code, out, _ = run(capsys, "search", "--space", "mlp", "--dataset", "mine.npz", *FAST, "--format", "json")
    assert code == 0
    value = json.loads(out)
    assert value["dataset"] == "mine.npz"
    assert value["best"]["total_weights"] == 12 * 16 + 3 * 16 * 16 + 16 * 4


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snas", *arguments]


LONG = ["search", "--space", "lenet-300-100", "--strategy", "random", "--samples", "8", "--epochs", "4",
        "--final-seeds", "1", "--batch-size", "32", "--threads", "1", "--format", "json"]  # fmt: skip


def test_ctrl_c_stops_cleanly_and_says_how_to_resume(tmp_path, wait_for_reports):
    process = subprocess.Popen(
        command(*LONG, "--samples", "400", "--registry", "c.db"),  # a busy machine may be slow to interrupt it
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # shells ignore it in background jobs
    )
    wait_for_reports(str(tmp_path / "c.db"), 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "resumes" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_killed_search_resumes_to_the_same_result(tmp_path, wait_for_reports):
    whole = subprocess.run(
        command(*LONG, "--registry", "w.db", "--quiet"), capture_output=True, text=True, cwd=tmp_path, check=True
    )
    for number in (3, 9):
        process = subprocess.Popen(
            command(*LONG, "--registry", "k.db"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
        )
        wait_for_reports(str(tmp_path / "k.db"), number)
        process.kill()
        process.wait()
        connection = sqlite3.connect(tmp_path / "k.db")
        before = connection.execute("SELECT * FROM reports ORDER BY training_id, epoch").fetchall()
        connection.close()
    done = subprocess.run(
        command(*LONG, "--registry", "k.db", "--quiet"), capture_output=True, text=True, cwd=tmp_path, check=True
    )
    one, two = json.loads(whole.stdout), json.loads(done.stdout)
    for value in (one, two):
        del value["wall_seconds"], value["registry"]
    assert one == two
    connection = sqlite3.connect(tmp_path / "k.db")
    after = set(connection.execute("SELECT * FROM reports").fetchall())
    connection.close()
    assert set(before) <= after


def test_help_is_there_for_every_command(capsys):
    for arguments in (
        [],
        ["search"],
        ["prune"],
        ["train"],
        ["show"],
        ["list"],
        ["leaderboard"],
        ["leaderboard", "export"],
    ):
        code, out, _ = run(capsys, *arguments, "--help")
        assert code == 0
        assert "Usage" in out


def test_neither_import_nor_help_loads_torch():
    for statement in ("import snas", "import snas.cli.main"):
        check = f"{statement}; import sys; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
