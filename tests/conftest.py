"""What all tests share: one thread, a folder of their own, no registry of the user's."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("snas", deadline=None, derandomize=True)
settings.load_profile("snas")
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SNAS_REGISTRY", raising=False)
    monkeypatch.setenv("SNAS_DATA", str(tmp_path / "data-cache"))
    monkeypatch.setenv("SNAS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def wait_for_reports() -> Callable[..., None]:
    """Wait until the running command has recorded so many epochs in the registry at a path, a minute at most or
    `seconds`."""
    return _wait_for_reports


def _wait_for_reports(path: str, number: int, seconds: int = 60) -> None:
    for _ in range(20 * seconds):
        if os.path.exists(path):
            connection = sqlite3.connect(path, timeout=30)
            try:
                if connection.execute("SELECT count(*) FROM reports").fetchone()[0] >= number:
                    return
            except sqlite3.OperationalError:
                pass  # the tables are not made yet
            finally:
                connection.close()
        time.sleep(0.05)
    raise AssertionError("the command recorded nothing")
