"""No code comes out of a file: no module reads pickles, and what files name is not run."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import snas
from snas.checks import require_name
from snas.cli.main import main
from snas.errors import InputError
from snas.exports import export, write_export
from snas.registry import Registry

PACKAGE = Path(snas.__file__).parent
# The private connection of a process to the one that started it: nothing of it comes from a file (sharing.py says how).
PRIVATE = {  # messages between processes of one search
    "evaluators/worker.py": {"pickle.loads"},
    "evaluators/ray_adapters.py": {"pickle.loads"},
    "evaluators/ray_tune.py": {"pickle.loads"},
}
READS_CODE = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "marshal.loads"),
    *("marshal.load", "shelve.open", "torch.load", "joblib.load", "dill.load", "dill.loads", "jsonpickle.decode"),
    *("eval", "exec", "compile", "__import__", "yaml.load", "numpy.fromfile", "torch.jit.load", "torch.hub.load"),
    *("os.system", "os.popen", "pandas.read_pickle", "numpy.lib.format.read_array"),
}
NAMES = {"np": "numpy", "pd": "pandas"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call by its dotted name, whatever the module is imported as."""
    known = dict(NAMES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            head, dot, rest = name.partition(".")
            yield f"{known.get(head, head)}{dot}{rest}", node


def suspicious(source: str) -> list[str]:
    """What a module calls that may run what it reads."""
    found = []
    for name, call in calls(ast.parse(source)):
        if name in READS_CODE:
            found.append(name)
        if name == "numpy.load":
            allowed = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if allowed.get("allow_pickle") != "False":
                found.append(name)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "from pickle import loads as read\nread(text)",
        "import torch as t\nt.load(path)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "from numpy import load\nload(path, allow_pickle=kind)",
        "exec(text)",
    ],
)
def test_the_search_for_pickles_finds_them(source):
    assert suspicious(source)


def test_no_module_reads_pickles_or_runs_texts():
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 100
    found = {
        path.relative_to(PACKAGE).as_posix(): set(suspicious(path.read_text(encoding="utf-8"))) for path in modules
    }
    assert {name: names for name, names in found.items() if names} == PRIVATE


CODE = "from pathlib import Path\nPath('RAN').touch()\nfrom torch import nn\n\ndef factory(classes):\n"
CODE += "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, classes))\n"
SMALL = ["--epochs", "1", "--final-seeds", "1", "--quiet"]


@pytest.mark.parametrize(
    "values",
    [
        {"space": ["evil.py:factory"]},
        {"space": ["mlp", "evil.py:factory"]},
        {"factor": {"space": "evil.py:factory"}},
        {"factor": {"space": "mlp,evil.py:factory"}},
        {"factor": {"space": ["mlp", "evil.py:factory"]}},
    ],
)
def test_a_config_cannot_name_code_in_a_list_or_as_a_factor_of_a_study(values, tmp_path, capsys):
    (tmp_path / "evil.py").write_text(CODE)
    config = tmp_path / "shared.json"
    config.write_text(json.dumps(values))
    assert main(["study", "smoothness", "--config", str(config), "--registry", "r.db"]) == 2
    assert "names code, space '" in capsys.readouterr().err
    assert not Path("RAN").exists()


@pytest.mark.parametrize(
    ("values", "file"),
    [
        ({"factor": {"space": [["evil.py:factory"]]}}, "['evil.py"),
        ({"factor": {"space": {"a": "x"}}}, "{'a.py"),
        ({"factor": {"space": ["mlp", {"a": "x"}]}}, "{'a.py"),
        ({"space": {"a": "x"}}, "{'a.py"),
    ],
)
def test_a_config_cannot_name_code_in_a_nested_list_or_a_mapping(values, file, tmp_path, capsys):
    (tmp_path / file).write_text(CODE)
    (tmp_path / "shared.json").write_text(json.dumps(values))
    assert main(["study", "smoothness", "--config", "shared.json", "--registry", "r.db"]) == 2
    err = capsys.readouterr().err
    assert "config shared.json: space is not all text; expected a text, or a list of texts" in err
    assert err.count("\n") == 1
    factor = values.get("factor", values)["space"]
    with pytest.raises(InputError, match=r"factor 'space' has a (list|dict) as a value; expected text or a number$"):
        snas.run_study("smoothness", factor={"space": factor}, registry="r.db")
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("space", ["evil.py:factory", "evil:factory"])
@pytest.mark.parametrize("ending", ["toml", "json"])
@pytest.mark.parametrize("command", [["search"], ["prune", "--density", "0.5"], ["sweep"]])
def test_a_config_cannot_name_code(command, ending, space, tmp_path, capsys):
    (tmp_path / "evil.py").write_text(CODE)
    config = tmp_path / f"shared.{ending}"
    config.write_text(json.dumps({"space": space}) if ending == "json" else f'space = "{space}"\n')
    assert main([*command, "--config", str(config), "--epochs", "1"]) == 2
    err = capsys.readouterr().err
    assert f"names code, space '{space}'" in err
    assert f"add --space {space}" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "RAN").exists()


def test_code_that_the_command_line_names_runs_beside_a_config(tmp_path, capsys):
    (tmp_path / "evil.py").write_text(CODE)
    (tmp_path / "shared.toml").write_text('space = "evil.py:factory"\nmethod = "random"\ndensity = 0.5\n')
    assert main(["prune", "--config", "shared.toml", "--space", "evil.py:factory", *SMALL]) == 0
    assert (tmp_path / "RAN").exists()


def test_a_config_may_be_json(tmp_path, capsys):
    settings = {"space": "mlp", "space-arg": {"hidden_layers": 2}, "method": "random", "density": 0.5}
    (tmp_path / "own.json").write_text(json.dumps(settings))
    assert main(["prune", "--config", "own.json", *SMALL, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["space"] == "mlp (hidden_layers=2)"
    for text in ("[1]", "[" * 100_000, "{", "3", '"x"', "\ufeff{}"):
        (tmp_path / "own.json").write_text(text)
        assert main(["prune", "--config", "own.json", *SMALL]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["evil.py:factory", "evil:factory", "os:system", "../evil.py:factory"])
def test_a_registry_cannot_name_code(name, tmp_path, capsys):
    (tmp_path / "evil.py").write_text(CODE)
    result = snas.prune("mlp", density=0.5, method="random", epochs=1, final_seeds=1, registry="snas.db")
    import sqlite3

    connection = sqlite3.connect("snas.db")
    for column in ("space", "dataset"):
        connection.execute(f"UPDATE entries SET {column} = json_set({column}, '$.name', ?)", (name,))
    connection.commit()
    connection.close()
    for words in (["train", "1"], ["transfer", "1"], ["show", "1"], ["leaderboard"], ["weights", "1"]):
        assert main([*words]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "RAN").exists()
    assert result.id == 1


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "/x",
            "a\0b",
            "a\nb",
            "-x",
            ".hidden",
            "a b",
            "a\u202eb",
            "\u0661",
            "x" * 101,
        ),
        *("CON", "con", "nul.txt", "Aux.db", "COM1", "lpt9.x", "x."),
    ],
)
def test_names_that_are_no_names_of_files_are_refused(name):
    with pytest.raises(InputError) as caught:
        require_name(name)
    assert "\n" not in str(caught.value)


def test_names_like_those_are_allowed():
    for name in ("console", "a.b", "nula", "com", "com10", "A+b_c-1.x", "x" * 100):
        require_name(name)


@pytest.mark.parametrize("odd", ["\udc80\udcff", "a\ud800", "a\0b", "x" * 300, "\u202e"])
@pytest.mark.parametrize(
    "words",
    [
        ["prune", *SMALL, "--density", "0.5", "--registry"],
        ["leaderboard", "export", "-o"],
        ["cite"],
        ["search", "--config"],
    ],
)
def test_odd_names_of_files_are_names_or_one_line(words, odd, capsys):
    Registry("snas.db").close()
    assert main([*words, odd]) in (0, 1, 2)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.count("\n") <= 1


@pytest.mark.parametrize("column", ["space", "dataset", "rule", "kept", "environment"])
@pytest.mark.parametrize("value", ["[" * 100_000, "3", "null", "[]", "{", '{"epochs": 1e400}', '{"x": NaN}', ""])
def test_a_damaged_row_is_one_line(column, value, capsys):
    import sqlite3

    snas.prune("mlp", density=0.5, method="random", epochs=1, final_seeds=1, registry="snas.db")
    connection = sqlite3.connect("snas.db")
    connection.execute(f"UPDATE entries SET {column} = ?", (value,))
    connection.commit()
    connection.close()
    for words in (["leaderboard"], ["show", "1"], ["leaderboard", "export"], ["train", "1"]):
        code = main(words)
        out, err = capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1), (words, err)
        assert "row 1" in err
        assert "damaged, or not ours" in err


def test_an_export_goes_where_it_was_asked_for_and_nowhere_else(tmp_path):
    outside = tmp_path / "outside.md"
    outside.write_text("mine")
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / "link.md"
    link.symlink_to(outside)
    with pytest.raises(InputError, match="link"):
        write_export(export([], "md"), link)
    assert outside.read_text() == "mine"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["link.md"]


def test_a_terminal_shows_control_sequences_and_obeys_none(capsys):
    snas.prune("mlp", density=0.5, method="random", epochs=1, final_seeds=1, registry="snas.db")
    import sqlite3

    hostile = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e[red]x[/red]"
    connection = sqlite3.connect("snas.db")
    connection.execute("UPDATE entries SET name = ?, mask_rule = ?", (hostile, hostile))
    connection.execute("UPDATE entries SET space = json_set(space, '$.name', ?)", (hostile,))
    connection.execute("UPDATE trainings SET reason = ?", (hostile,))
    connection.commit()
    connection.close()
    for words in (
        ["leaderboard"],
        ["show", "1"],
        ["show", "1", "--format", "json"],
        ["leaderboard", "--space", "no\x1b"],
    ):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out + err), words
        if "--space" not in words:
            assert "[red]x[/red]" in out
    with Registry("snas.db") as registry:
        assert registry.find_entry(1).name == hostile  # kept as it is, shown as it cannot harm


def test_a_config_names_no_cluster(tmp_path, capsys):
    config = tmp_path / "shared.toml"
    config.write_text('evaluator = "ray"\nray-address = "203.0.113.1:6379"\n')
    assert main(["search", "--config", str(config)]) == 2
    assert "names a cluster, ray-address '203.0.113.1:6379'" in capsys.readouterr().err
