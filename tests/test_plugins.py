import sys
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, Literal

import pytest

from snas import InputError
from snas import plugins as plugins_module
from snas.plugins import Family, bind_arguments


def test_members_are_listed_by_name_with_numbers_by_size():
    family: Family[Any] = Family("thing")

    @family.register("b")
    def second():
        """First line.

        More.
        """

    for name in ("a110", "a20", "a20-x2"):
        family.register(name)(int)
    assert family.names() == ["a20", "a20-x2", "a110", "b"]
    assert family.get("b") is second
    assert family.summary("b") == "First line."


def test_a_name_is_taken_once():
    family: Family[int] = Family("thing")
    family.register("a")(1)
    with pytest.raises(InputError, match="thing 'a' is registered already; choose another name"):
        family.register("a")(2)
    assert family.get("a") == 1


def test_unknown_names_list_the_choices():
    family: Family[int] = Family("thing")
    family.register("alpha")(1)
    family.register("beta")(2)
    with pytest.raises(InputError, match=r"unknown thing 'alpa'; did you mean 'alpha'[?] choices: alpha, beta"):
        family.get("alpa")
    with pytest.raises(InputError, match="unknown thing 'x'; choices: alpha, beta"):
        family.get("x")


def test_modules_are_imported_at_the_first_look_up(tmp_path, monkeypatch):
    (tmp_path / "plugged_thing.py").write_text("from test_plugins_family import family\nfamily.register('late')(3)\n")
    (tmp_path / "test_plugins_family.py").write_text(
        "from snas.plugins import Family\nfamily = Family('thing', modules=('plugged_thing',))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import test_plugins_family

    assert "plugged_thing" not in sys.modules
    assert test_plugins_family.family.get("late") == 3
    del sys.modules["plugged_thing"]
    del sys.modules["test_plugins_family"]


def test_other_packages_add_members_by_entry_points(monkeypatch):
    family: Family[int] = Family("thing", group="snas.things")

    class Entry(EntryPoint):
        def load(self):
            family.register(self.name)(4)

    entries = EntryPoints([Entry("theirs", "package", "snas.things"), Entry("others", "package", "snas.more")])
    readings = []
    monkeypatch.setattr(plugins_module, "entry_points", lambda: readings.append(1) or entries)
    plugins_module._installed.cache_clear()
    try:
        assert family.names() == ["theirs"]
        assert family.get("theirs") == 4
        family = Family("more", group="snas.more")
        assert family.names() == ["others"]
        assert len(readings) == 1  # for all families
    finally:
        plugins_module._installed.cache_clear()


def function(
    positional: int,
    *,
    count: int = 1,
    rate: float = 0.5,
    flag: bool = True,
    limit: int | None = None,
    mode: Literal["fast", "slow"] = "fast",
    label: str = "",
    anything: Any = None,
) -> None: ...


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "12", 12),
        ("count", 12, 12),
        ("rate", "1e-3", 0.001),
        ("flag", "false", False),
        ("flag", "Yes", True),
        ("flag", "0", False),
        ("limit", "none", None),
        ("limit", None, None),
        ("limit", "3", 3),
        ("mode", "slow", "slow"),
        ("label", "7", "7"),
        ("anything", "7", "7"),
    ],
)
def test_text_becomes_the_parameter_s_type(name, text, value):
    bound = bind_arguments(function, {name: text}, what="it")
    assert bound == {name: value}
    assert type(bound[name]) is type(value)


def test_dashes_are_accepted_and_what_is_not_given_is_left_out():
    def dashed(*, two_words: int = 1, other: int = 2): ...

    assert bind_arguments(dashed, {"two-words": "5"}, what="it") == {"two_words": 5}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"absent": 1}, "it has no argument 'absent'; choices: count, rate, flag, limit, mode, label, anything"),
        ({"positional": 1}, "it has no argument 'positional'"),
        ({"count": "1.5"}, "argument 'count' of it is '1.5'; expected a value of type int"),
        ({"rate": "fast"}, "argument 'rate' of it is 'fast'; expected a value of type float"),
        ({"flag": "maybe"}, "argument 'flag' of it is 'maybe'; expected a value of type bool"),
        ({"limit": "x"}, "argument 'limit' of it is 'x'; expected a value of type int"),
        ({"mode": "medium"}, "argument 'mode' of it is 'medium'; choices: fast, slow"),
    ],
)
def test_wrong_arguments(given, message):
    with pytest.raises(InputError, match=message):
        bind_arguments(function, given, what="it")


def test_a_function_without_arguments():
    with pytest.raises(InputError, match="it has no argument 'x'; choices: none"):
        bind_arguments(lambda: None, {"x": 1}, what="it")
