"""The fault tests of the repository, a little of each: they find nothing, and would find something."""

from __future__ import annotations

import json
import random
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

NAMES = ("bitflips", "command_lines", "densities", "payloads")


@pytest.fixture(scope="module")
def faults():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "faults")
        yield SimpleNamespace(**{name: import_module(name) for name in NAMES})
        for name in NAMES:
            sys.modules.pop(name, None)


def test_every_script_can_be_run_by_another(faults):
    for name in NAMES:
        script = getattr(faults, name)
        assert callable(script.main)
        assert (script.__doc__ or "").strip().partition("\n")[0].endswith((".", ","))


def test_damaged_files_are_noticed(faults, capsys):
    assert faults.bitflips.main(["--flips", "60", "--cuts", "14"]) == 0
    out = capsys.readouterr().out
    assert "74 damaged files: 74 noticed, 0 harmless, 0 missed, 0 crashed" in out
    assert "5 of 5 end as if it had been whole" in out


def test_what_is_not_noticed_would_be_missed(faults, tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"0123456789")
    found = faults.bitflips.damage(
        "files", path, lambda one: one.read_bytes(), 5, 5, faults.bitflips.anywhere, random.Random(0)
    )
    assert found == {"missed": 10}


def test_fuzzed_densities_are_refused_in_a_line_or_exact(faults, capsys):
    assert faults.densities.main(["--count", "120"]) == 0
    assert "0 wrong" in capsys.readouterr().out


def test_densities_are_counted_by_decimals(faults):
    counts = [faults.densities.own_count(value, 10) for value in (0.05, 0.25, "0.5", 1, 0, 1.1, "x", True, {"kept": 3})]
    assert counts == [1, 3, 5, 10, None, None, None, None, 3]


def test_fuzzed_command_lines_end_as_they_should(faults):
    known = faults.command_lines.grammar()
    assert {"search", "prune", "sweep", "train", "leaderboard", "weights"} <= {path[0] for path in known if path}
    faults.command_lines.furnish(Path.cwd())
    for number in range(30):
        words = faults.command_lines.command_line(random.Random(f"0 {number}"), known)
        code, out, err = faults.command_lines.run_line(words)
        assert not faults.command_lines.fault(words, code, out, err), (words, code, err)


@pytest.mark.parametrize(
    ("code", "out", "err", "wrong"),
    [
        (None, "", "", "exit code None"),
        (3, "", "", "exit code 3"),
        (1, "", "Traceback (most recent call last):", "traceback"),
        (0, "\x1b[31m", "", "control characters"),
        (2, "", "a\nb\n", "several lines"),
        (0, "{", "", "does not parse"),
        (0, "NaN", "", "does not parse"),
        (0, "", "", "no JSON"),
        (0, "{}", "", ""),
        (1, "", "snas: no\n", ""),
    ],
)
def test_what_is_wrong_with_a_line_is_seen(faults, code, out, err, wrong):
    found = faults.command_lines.fault(["show", "1", "--format", "json"], code, out, err)
    assert wrong in found
    assert bool(found) == bool(wrong)


@pytest.mark.parametrize(
    ("format", "plain", "live"),
    [
        ("csv", "a,b\r\nx,'=1\r\n", "a,b\r\nx,=1\r\n"),
        ("csv", "a,b\r\nx,y;'=1\r\n", "a,b\r\nx,y;=1\r\n"),
        ("html", "<p class='x'>&lt;b&gt;</p>", "<p class='x'><b></p>"),
        ("html", "<p class='x'>y</p>", "<p class='x' onclick='z'>y</p>"),
        ("md", r"| a\|b |", "| a|b |"),
        ("md", r"| \<b\> |", "| <b> |"),
        ("latex", r"a \& b\_c \\", r"a & b\_c \\"),
        ("latex", r"\textbackslash{}input", r"\input"),
    ],
)
def test_live_cells_and_tags_are_seen(faults, format, plain, live):
    assert faults.payloads.SHAPES[format](plain) != faults.payloads.SHAPES[format](live)


def test_payloads_stay_texts(faults, tmp_path, monkeypatch):
    trial = faults.payloads.Trial(tmp_path)
    faults.payloads.texts(trial, ["=1+1", "</td><script>\x1b[31m", "\\input{x} | & \u202e"])
    faults.payloads.names(trial, ["../../../up", "a\0b"])
    assert not trial.wrong
    assert trial.counts["texts in exports"] == 3 * 5
    json.dumps(trial.counts)


def test_code_that_ran_and_files_outside_are_seen(faults, tmp_path, monkeypatch):
    trial = faults.payloads.Trial(tmp_path)
    (tmp_path / "a" / "stray").touch()
    Path(faults.payloads.MARK).touch()
    trial.look_around("nothing")
    assert [text.partition(":")[0] for text in trial.wrong] == ["executions", "writes outside"]
