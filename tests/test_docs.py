"""What the documents say is checked where a machine can."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import snas
from snas.bench import open_bench
from snas.checks import plain_type
from snas.cli.main import app
from snas.plan import make_plan
from snas.pruning.dynamic.base import movements
from snas.pruning.methods import Method, methods
from snas.pruning.scores import scores
from snas.search_spaces.base import spaces
from snas.settings import SearchSettings
from snas.strategies.base import strategies
from snas.testing import check_strategy

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_command_is_in_the_readme():
    names = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    assert len(names) >= 6
    for name in names:
        assert re.search(rf"snas {name}\b", README), name


def test_every_plug_in_is_in_the_readme():
    for name in (*strategies.names(), *methods.names(), *scores.names()):
        assert f"`{name}`" in README, name
    for name in spaces.names():
        family = name.partition("-x2")[0]
        assert family in README or re.fullmatch(r"resnet\d+", family), name


def test_every_room_is_in_the_architecture():
    for path in (ROOT / "snas").iterdir():
        if path.name.startswith("_") or path.suffix not in ("", ".py"):
            continue
        name = path.name if path.suffix else f"{path.name}/"
        assert f"`{name}`" in ARCHITECTURE or f"{name}" in ARCHITECTURE, name


def test_links_in_documents_lead_somewhere():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), (document.name, target)


def test_the_recipe_for_a_strategy_keeps_the_contract():
    code = re.search(r"```python\n(@strategies\.register.*?)```", ARCHITECTURE, re.DOTALL)[1]
    code = code.replace('@strategies.register("mine")\n', "")
    namespace: dict = {}
    exec("import numpy as np\n" + code, namespace)
    assert len(code.strip().splitlines()) <= 10
    check_strategy(namespace["Mine"])


def test_the_recipe_for_a_movement_makes_a_baseline(tmp_path):
    code = re.search(r"```python\n(@movements\.register.*?)```", ARCHITECTURE, re.DOTALL)[1]
    imports = "from dataclasses import dataclass\nfrom snas.pruning.dynamic.base import Movement, movements\n"
    exec(imports + "from snas.pruning.dynamic.picking import draw\n" + code, {"__name__": __name__})
    methods.register("mine")(Method("mine", "random", "erk", movement="mine"))
    try:
        result = snas.prune(
            "lenet-300-100",
            method="mine:every=5",
            density=0.1,
            epochs=1,
            final_seeds=1,
            registry=str(tmp_path / "snas.db"),
        )
    finally:
        del movements._members["mine"], methods._members["mine"]
    assert result.row.method == "mine:every=5"
    assert result.densities.kept_weights == result.row.kept_weights == 5020


def test_the_root_shows_the_three_families_as_links():
    for name in ("search_spaces", "strategies", "evaluators"):
        assert (ROOT / name).is_symlink()
        assert (ROOT / name).resolve() == ROOT / "snas" / name


def documented_searches() -> list[str]:
    """The searches of README and docs/search.md that need no data set, row or network of the reader's own."""
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("snas search --space")]
    return [line for line in lines if not re.search(r"--dataset|examples/", line)]


@pytest.mark.parametrize("line", documented_searches())
def test_documented_searches_can_begin(line: str):
    given: dict[str, Any] = {}
    words = shlex.split(line, comments=True)[2:]
    for flag, value in zip(words[::2], words[1::2], strict=True):
        name = flag[2:].replace("-", "_")
        if plain_type(get_type_hints(SearchSettings)[name]) is dict:
            key, _, rest = value.partition("=")
            given.setdefault(name, {})[key] = rest
        else:
            kind = plain_type(get_type_hints(SearchSettings)[name])
            given[name] = kind(value)
    settings = SearchSettings(**given)
    bench = open_bench(settings, representation="depth" if settings.shape else None)
    assert make_plan(bench, settings).encoding.dimensions > 0
