"""What the documents say is checked where a machine can."""

from __future__ import annotations

import re
from pathlib import Path

import snas
from snas.cli.main import app
from snas.pruning.dynamic.base import movements
from snas.pruning.methods import Method, methods
from snas.pruning.scores import scores
from snas.search_spaces.base import spaces
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
