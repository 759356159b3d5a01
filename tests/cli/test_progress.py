"""What a search says while it runs: how much there is to do, and never more than all of it."""

from __future__ import annotations

import re

import pytest

import snas
from snas.cli import progress
from snas.cli.progress import Terminal, planned_epochs
from snas.registry import Registry
from snas.settings import SearchSettings


def planned(**settings) -> int:
    return planned_epochs(SearchSettings(**{"confirm": 0, "final_seeds": 0, **settings}))


def test_planned_epochs_worked_by_hand():
    assert planned(samples=8, epochs=4) == 8 + 4 + 2 * 2
    # Brackets of rungs 1, 2, 4 and 2, 4 with 4 and 3 of 7 candidates: 4 + 2 + 1 * 2, and 3 * 2 + 1.5 * 2.
    assert planned(samples=7, epochs=4, brackets=2) == 8 + 9
    assert planned(samples=8, epochs=4, confirm=3, confirm_seeds=2) == 16 + 3 * 2 * 4
    assert planned(samples=2, epochs=4, confirm=3, confirm_seeds=2) == 2 + 1 + 2 + 2 * 2 * 4  # only two to confirm
    assert planned(samples=1, epochs=4, confirm=3, confirm_seeds=2) == 4
    assert planned(samples=8, epochs=4, confirm=1, confirm_seeds=2) == 16
    assert planned(samples=8, epochs=4, final_seeds=3, baselines="snip,erk") == 16 + 3 * 3 * 4
    assert planned(samples=8, epochs=4, final_seeds=1, baselines="imp:rounds=3") == 16 + 4 + 4 * 4
    several = {"objectives": "accuracy,kept_weights", "front": 5, "baselines": "snip"}
    assert planned(samples=8, epochs=4, final_seeds=1, **several) == 16 + 5 * 2 * 4
    assert planned(samples=8, epochs=4, confirm=3, confirm_seeds=1, **several) == 16 + 5 * 4


SEARCH = {"space": "lenet-300-100", "strategy": "random", "epochs": 4, "final_seeds": 1, "baselines": "snip"}


@pytest.mark.parametrize("more", [{}, {"brackets": 2}, {"samples": 3, "confirm": 2}])
def test_what_is_done_grows_to_about_what_was_planned(capsys, monkeypatch, more):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    settings = {**SEARCH, "samples": 8, **more}
    total = planned_epochs(SearchSettings(**settings))
    with Terminal(planned=total) as listener:
        result = snas.search(listener=listener, registry="p.db", **settings)
    text = capsys.readouterr().err
    shares = [int(share) for share in re.findall(r"(\d+)% done", text)]
    assert shares == sorted(shares)
    assert shares[-1] <= 100
    with Registry("p.db") as registry:
        spent = result.epochs_trained + sum(run.epochs for entry in registry.entries() for run in registry.runs(entry))
    assert abs(spent - total) <= 0.4 * total
    assert text.count("training the candidates near the top again") == 1
    assert "again on fresh seed 2, epoch 4" in text
    # Resumed with one more seed, it is nearly done from its first line on.
    with Terminal(planned=total + 8) as listener:
        snas.search(listener=listener, registry="p.db", **{**settings, "final_seeds": 2})
    again = [int(share) for share in re.findall(r"(\d+)% done", capsys.readouterr().err)]
    assert again[0] >= 100 * result.epochs_trained // (total + 8)
    assert again == sorted(again)


def test_a_study_tells_what_differs_between_its_cells(capsys):
    from snas.cli.progress import StudyTerminal

    terminal = StudyTerminal()
    terminal._said = -1e9  # long ago
    terminal.on_cells("sums", cells=4, done=1)
    terminal.on_cell_end("sums", {"a": 1, "b": 2, "seed": 0}, seconds=1.0, reason="diverged")
    terminal.on_cell_end("sums", {"a": 2, "b": 2, "seed": 0}, seconds=1.0, reason="diverged")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "study sums: 4 cells, 1 of them measured already"
    assert [line for line in lines if "diverged" in line] == ["seed=0: diverged", "a=2 seed=0: diverged"]
