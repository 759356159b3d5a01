"""The fault tests themselves: the replay that judges promotions, what counts as a clear line, which parts there are."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from snas.evaluators.asha import Ladder

FAULTS = Path(__file__).resolve().parents[1] / "faults"


@pytest.fixture
def faults(monkeypatch):
    """Import a script of the folder by name."""
    monkeypatch.syspath_prepend(str(FAULTS))
    names = {path.stem for path in FAULTS.glob("*.py")}  # there are others of these names, in benchmarks/
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(others)


def test_a_replay_trains_one_after_another_and_promotes_the_better_half(faults):
    replay = faults("kills").replay
    scores = {0: {1: 0.5, 2: 0.9}, 1: {1: 0.9, 2: 0.8}, 2: {1: 0.2}}
    order, statuses = replay(Ladder(1, 2), scores, slots=1)
    assert order == [(0, 1), (1, 1), (1, 2), (2, 1)]
    assert statuses == {0: "paused", 1: "finished", 2: "paused"}


def test_a_replay_fills_its_slots_and_ends_with_one_that_is_trained_fully(faults):
    replay = faults("kills").replay
    scores = {0: {1: 0.5, 2: 0.6}, 1: {1: 0.4}}
    order, statuses = replay(Ladder(1, 2), scores, slots=2)
    assert order == [(0, 1), (1, 1), (0, 2)]
    assert statuses == {0: "finished", 1: "paused"}
    order, statuses = replay(Ladder(1, 2), {0: {1: 0.5, 2: 0.6}}, slots=2)
    assert (order, statuses) == ([(0, 1), (0, 2)], {0: "finished"})


def test_a_replay_can_choose_ahead(faults):
    replay = faults("kills").replay
    scores = {0: {1: 0.5, 2: 0.6}, 1: {1: 0.4}, 2: {1: 0.3}}
    order, _ = replay(Ladder(1, 2), scores, slots=2, ahead=True)
    assert order == [(0, 1), (1, 1), (0, 2), (2, 1)]
    order, _ = replay(Ladder(1, 2), scores, slots=1, ahead=True)
    assert order == [(0, 1), (1, 1), (2, 1), (0, 2)]  # 2 was chosen before 1 had told that 0 is promoted


def test_a_clear_line_is_one_without_a_traceback(faults):
    clear_line = faults("common").clear_line
    assert clear_line(1, "snas: no room\n")
    assert not clear_line(1, "Traceback (most recent call last):\nsnas: no room\n")
    assert not clear_line(1, "")
    assert not clear_line(0, "snas: no room\n")
    assert not clear_line(1, "no room\n")


def test_a_verdict_counts_and_fails(faults, capsys):
    verdict = faults("common").Verdict("part")
    verdict.count("rows", 2)
    verdict.most("ahead", 1)
    verdict.most("ahead", 0)
    assert verdict.end() == 0
    assert not verdict.require(False, "a row is gone")
    assert verdict.end() == 1
    out = capsys.readouterr().out.splitlines()
    assert out == ["part: rows 2, ahead 1", "  FAILED: a row is gone", "part: FAILED (1); rows 2, ahead 1"]


def test_every_part_is_found_and_told_of(faults):
    parts = faults("run").parts()
    assert {"kills", "writers", "stops", "full_disk"} <= set(parts)
    assert "common" not in parts
    assert "run" not in parts
    for name, text in parts.items():
        assert 10 < len(text) <= 120, name
        tree = ast.parse((FAULTS / f"{name}.py").read_text(encoding="utf-8"))
        (main,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
        assert [argument.arg for argument in main.args.args] == ["argv"], name


def test_a_part_that_fails_or_dies_fails_the_whole(faults, monkeypatch, tmp_path, capfd):
    run = faults("run")
    (tmp_path / "good.py").write_text('"""Finds nothing wrong."""\ndef main(argv): pass\nprint("good: rows 1")\n')
    (tmp_path / "bad.py").write_text(
        '"""Finds something."""\ndef main(argv): pass\nprint("bad: FAILED (1)")\nraise SystemExit(1)\n'
    )
    (tmp_path / "dead.py").write_text('"""Dies."""\nimport os\ndef main(argv): pass\nos.kill(os.getpid(), 9)\n')
    (tmp_path / "tool.py").write_text('"""Is no part."""\n')
    monkeypatch.setattr(run, "HERE", tmp_path)
    assert list(run.parts()) == ["bad", "dead", "good"]
    assert run.main(["--only", "good"]) == 0
    assert run.main([]) == 1
    table = capfd.readouterr().out.splitlines()[-3:]
    assert [re.split(r"\s+", line)[:2] for line in table] == [["bad", "FAILED"], ["dead", "FAILED"], ["good", "ok"]]
    assert table[1].endswith("ended by signal 9")
    assert table[2].endswith("rows 1")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["writers", "stops", "full_disk", "kills"])
def test_a_small_part_of_each_finds_nothing(name):
    done = subprocess.run(
        [sys.executable, FAULTS / f"{name}.py", "--quick"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
