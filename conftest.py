"""Doctests of the package run in a folder of their own, like the tests."""

from importlib.util import find_spec

import pytest

# These cannot be imported without Ray, which need not be there.
collect_ignore = [] if find_spec("ray") else ["snas/evaluators/ray_adapters.py", "snas/integrations/ray.py"]


@pytest.fixture(autouse=True)
def _doctest_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SNAS_REGISTRY", raising=False)
