"""Doctests of the package run in a folder of their own, like the tests."""

import pytest


@pytest.fixture(autouse=True)
def _doctest_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SNAS_REGISTRY", raising=False)
