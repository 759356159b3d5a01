from __future__ import annotations

import json

import pytest

import snas
from snas.cli.main import main


@pytest.fixture
def registry(capsys) -> str:
    for method, density in (("dense", None), ("erk", 0.1), ("erk", 0.02), ("random", 0.02)):
        snas.prune("lenet-300-100", method=method, density=density, epochs=1, final_seeds=1, registry="r.db", threads=1)
    capsys.readouterr()
    return "r.db"


def test_the_front_is_printed_exported_and_drawn(registry, capsys, tmp_path):
    everything = snas.leaderboard(registry)[0].rows
    kept = {row.id: (row.test_accuracy, row.kept_weights) for row in everything}
    expected = sorted(
        (
            number
            for number, (accuracy, weights) in kept.items()
            if not any(a >= accuracy and w <= weights and (a, w) != (accuracy, weights) for a, w in kept.values())
        ),
        key=lambda number: kept[number][1],
    )
    assert main(["leaderboard", "--registry", registry, "--pareto", "accuracy,kept-weights", "--plot", "a.svg"]) == 0
    out, err = capsys.readouterr()
    assert f"{len(expected)} of 4 rows are on the front" in " ".join(out.split())
    assert err == "wrote a.svg\n"
    assert "dense (1)" in (tmp_path / "a.svg").read_text()
    assert main(["leaderboard", "--registry", registry, "--pareto", "accuracy,kept_weights", "--format", "json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert [row["id"] for row in group["rows"]] == expected
    assert group["hypervolume"]["all"] >= group["hypervolume"]["erk"] > 0
    for before, after in ((["--pareto", "accuracy,flops"], []), ([], ["--pareto", "accuracy,flops"])):
        assert main(["leaderboard", "--registry", registry, *before, "export", "--format", "json", *after]) == 0
        (group,) = json.loads(capsys.readouterr().out)["groups"]
        assert "accuracy and flops" in group["subtitle"]


def test_from_python(registry, tmp_path):
    (group,) = snas.leaderboard(registry, plot=tmp_path / "a.png")
    assert group == snas.leaderboard(registry, pareto="accuracy,kept_weights")[0]
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pareto", "accuracy"], "pareto is 'accuracy'; name a cost beside the accuracy"),
        (["--pareto", "weights,accuracy"], "objective 'weights' is unknown; choices: accuracy, kept_weights, flops"),
        (["--plot", "a.gif"], "plot is 'a.gif'; expected a name that ends in .png, .svg, .pdf"),
        (["--plot", "no/folder/a.png"], "cannot write 'no/folder/a.png': no folder 'no/folder'"),
        (["--plot", "a.png", "--epochs", "77"], "there is nothing to plot"),
        (["--plot", "a.png", "export"], "--plot and export are two commands"),
    ],
)
def test_wrong_use_is_one_line(arguments, message, capsys, tmp_path):
    snas.prune("lenet-300-100", method="erk", density=0.1, epochs=1, final_seeds=1, registry="r.db", threads=1)
    capsys.readouterr()
    assert main(["leaderboard", "--registry", "r.db", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"snas: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "a.png").exists()
