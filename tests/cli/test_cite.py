"""snas cite, and what published figures do to the leaderboard and to snas show."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from snas.citations import HEADER, builtin_citations
from snas.cli.main import main

HEAD = "space,dataset,method,density,accuracy,source"
HOSTILE = r"<b>A & B</b>; =cmd | $x_1$ \input{x} 100% [Table 1]"
FIGURES = [
    HEAD,
    f'lenet-300-100,digits,lottery,0.1,0.91,"{HOSTILE}"',
    "lenet-300-100,digits,dense,1,0.93,Paper 2",
    "lenet-300-100,mnist,snip,0.05,0.984,Paper 2",
]
OLD = Path(__file__).parents[1] / "registries" / "format-1.db"  # has measured rows of lenet-300-100 on digits


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def board(tmp_path, capsys) -> None:
    """snas.db with measured rows, and three figures imported."""
    shutil.copy(OLD, tmp_path / "snas.db")
    (tmp_path / "figures.csv").write_text("\n".join(FIGURES))
    assert main(["cite", "figures.csv"]) == 0
    capsys.readouterr()


def groups(capsys, *arguments: str) -> list[dict]:
    code, out, _ = run(capsys, "leaderboard", "--format", "json", *arguments)
    assert code == 0
    return json.loads(out)["groups"]


def test_importing_twice_adds_nothing_twice_and_a_correction_corrects(capsys, tmp_path):
    file = tmp_path / "figures.csv"
    file.write_text("\n".join(FIGURES))
    said = [json.loads(run(capsys, "cite", "figures.csv", "--format", "json")[1]) for _ in range(2)]
    assert said == [
        {"registry": "snas.db", "added": 3, "changed": 0, "known": 0},
        {"registry": "snas.db", "added": 0, "changed": 0, "known": 3},
    ]
    file.write_text("\n".join(FIGURES).replace("0.93", "0.94"))
    code, out, err = run(capsys, "cite", "figures.csv")
    assert (code, err) == (0, "")
    assert out == "snas.db: of 3 published figures 0 added, 1 corrected, 2 known already; snas leaderboard shows them\n"
    assert [row["test_accuracy"] for row in groups(capsys)[0]["rows"]] == [0.94, 0.91]


def test_one_bad_line_imports_nothing(capsys, tmp_path):
    (tmp_path / "figures.csv").write_text("\n".join([*FIGURES, "a,b,c,0.1,98.4,Paper 3"]))
    code, out, err = run(capsys, "cite", "figures.csv", "--registry", "new.db")
    assert (code, out) == (2, "")
    assert err == (
        "snas: figures.csv line 5, column accuracy is 98.4; expected a fraction in [0, 1]: give 0.984, not 98.4\n"
    )
    assert not (tmp_path / "new.db").exists()


def test_the_built_in_figures_are_listed_and_imported(capsys, tmp_path):
    code, out, err = run(capsys, "cite")
    assert (code, err) == (0, "")
    assert ",".join(HEADER) in out
    assert "Table 3.1" in out
    listed = json.loads(run(capsys, "cite", "--format", "json")[1])
    assert listed["header"] == list(HEADER)
    assert len(listed["builtin"]) == len(builtin_citations())
    assert listed["builtin"][1]["accuracy"] == 0.984
    assert not (tmp_path / "snas.db").exists()  # listing makes no registry
    said = json.loads(run(capsys, "cite", "--builtin", "--format", "json")[1])
    assert (said["added"], said["changed"], said["known"]) == (len(builtin_citations()), 0, 0)
    assert sum(len(group["rows"]) for group in groups(capsys)) == len(builtin_citations())


def test_the_list_can_be_imported_as_it_is(capsys, tmp_path):
    listed = json.loads(run(capsys, "cite", "--format", "json")[1])
    out = io.StringIO()
    writer = csv.DictWriter(out, listed["header"])
    writer.writeheader()
    writer.writerows(listed["builtin"])
    (tmp_path / "again.csv").write_text(out.getvalue())
    run(capsys, "cite", "--builtin")
    said = json.loads(run(capsys, "cite", "again.csv", "--format", "json")[1])
    assert (said["added"], said["changed"]) == (0, 0)


@pytest.mark.usefixtures("board")
def test_published_figures_stand_below_the_measured_rows(capsys):
    first, second, alone = groups(capsys)
    for group in (first, second):
        assert [(row["rank"], row["kind"], row["method"]) for row in group["rows"][-2:]] == [
            (None, "cited", "dense"),
            (None, "cited", "lottery"),
        ]
        assert group["rows"][-1]["source"] == HOSTILE
    assert (alone["dataset"], alone["epochs"], len(alone["rows"])) == ("mnist", 0, 1)
    code, out, _ = run(capsys, "leaderboard", "--epochs", "1")
    assert code == 0
    assert "lottery (cited)" in out
    assert f"[2] {HOSTILE}" in out
    assert "published figures of other splits" in " ".join(out.split())


@pytest.mark.usefixtures("board")
def test_flags_rank_or_hide_them(capsys):
    ranked = groups(capsys, "--rank-cited", "--epochs", "1")[0]["rows"]
    assert [(row["rank"], row["kind"]) for row in ranked[:2]] == [(1, "cited"), (2, "baseline")]
    hidden = groups(capsys, "--no-cited")
    assert [row["kind"] for group in hidden for row in group["rows"]].count("cited") == 0
    assert len(hidden) == 2
    for place in (["--no-cited", "export"], ["export", "--no-cited"]):
        assert "cited" not in run(capsys, "leaderboard", *place)[1]
    code, _, err = run(capsys, "leaderboard", "--no-cited", "--rank-cited")
    assert (code, "contradict each other" in err) == (2, True)


@pytest.mark.usefixtures("board")
@pytest.mark.parametrize(
    ("format", "written"),
    [
        ("csv", r"<b>A & B</b>;' =cmd | $x_1$ \input{x} 100% [Table 1]"),
        ("json", r"<b>A & B</b>; =cmd | $x_1$ \\input{x} 100% [Table 1]"),
        ("md", r"\<b\>A \& B\</b\>; =cmd \| \$x\_1\$ \\input\{x\} 100% \[Table 1\]"),
        ("html", r"&lt;b&gt;A &amp; B&lt;/b&gt;; =cmd | $x_1$ \input{x} 100% [Table 1]"),
        (
            "latex",
            r"\textless{}b\textgreater{}A \& B\textless{}/b\textgreater{}; =cmd \textbar{} \$x\_1\$ "
            r"\textbackslash{}input\{x\} 100\% {[}Table 1{]}",
        ),
    ],
)
def test_sources_are_safe_in_every_export(capsys, format, written):
    code, out, _ = run(capsys, "leaderboard", "export", "--format", format, "--dataset", "digits")
    assert code == 0
    assert out.count(written) == 2  # once in each group
    assert "None" not in out  # a published figure has no machine and no version


@pytest.mark.usefixtures("board")
def test_show_tells_what_the_source_tells(capsys):
    identity = groups(capsys, "--dataset", "mnist")[0]["rows"][0]["id"]
    code, out, err = run(capsys, "show", str(identity))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"row {identity}: snip (cited), lenet-300-100 on mnist (published figure)"
    assert lines[1:3] == ["density 5.000%, 20.00x smaller", "test % 98.40"]
    assert lines[3].split() == ["source", "Paper", "2"]
    shown = json.loads(run(capsys, "show", str(identity), "--format", "json")[1])
    assert (shown["kind"], shown["source"], shown["kept_weights"], shown["seeds"]) == ("cited", "Paper 2", None, [])
    assert shown["test_accuracy"]["mean"] == 0.984


@pytest.mark.usefixtures("board")
def test_there_is_nothing_to_train_in_a_published_figure(capsys):
    identity = groups(capsys, "--dataset", "mnist")[0]["rows"][0]["id"]
    code, _, err = run(capsys, "train", str(identity))
    assert (code, err) == (2, f"snas: row {identity} is a published figure; there is nothing to train\n")


def test_cite_without_a_readable_file_says_so(capsys):
    code, _, err = run(capsys, "cite", "none.csv")
    assert (code, err) == (2, "snas: cannot read 'none.csv': No such file or directory\n")
    code, _, err = run(capsys, "cite", "--format", "xml")
    assert (code, err) == (2, "snas: format is 'xml'; choices: table, json\n")
