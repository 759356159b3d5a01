"""What all tests share: one thread, a folder of their own, no registry of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("snas", deadline=None, derandomize=True)
settings.load_profile("snas")
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SNAS_REGISTRY", raising=False)
    monkeypatch.setenv("SNAS_DATA", str(tmp_path / "data-cache"))
