"""Checkpoints outlive the process that wrote them, and damaged ones are noticed."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from snas.training.checkpoints import Checkpoints


def test_a_new_process_drops_what_an_earlier_one_left(tmp_path):
    for epoch in (1, 2, 3):
        Checkpoints(tmp_path).save("trial-1", epoch, {"x": torch.ones(1)})
    (tmp_path / "trial-1-2.part").touch()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("trial-1", 4, {"x": torch.ones(1)})
    checkpoints.drop("trial-1", before=4)
    assert [path.name for path in tmp_path.iterdir()] == ["trial-1-4.safetensors"]
    checkpoints.save("trial-1", 5, {"x": torch.ones(1)})
    Checkpoints(tmp_path).save("trial-1", 6, {"x": torch.ones(1)})
    checkpoints.drop("trial-1", before=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trial-1-5.safetensors", "trial-1-6.safetensors"]
    checkpoints.drop("trial-1")
    assert not list(tmp_path.iterdir())


def test_the_folder_is_not_read_for_every_epoch(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("trial-1", 1, {"x": torch.ones(1)})
    checkpoints.drop("trial-1", before=1)
    monkeypatch.setattr(os, "listdir", None)
    for epoch in (2, 3):
        checkpoints.save("trial-1", epoch, {"x": torch.ones(1)})
        checkpoints.drop("trial-1", before=epoch)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["trial-1-3.safetensors"]


@pytest.mark.parametrize("left", [0, 7, 100, -1])
def test_a_checkpoint_that_was_cut_short_is_none(tmp_path, left, caplog):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("trial-1", 3, {"x": torch.arange(1000), "y": torch.ones(3)})
    path = tmp_path / "trial-1-3.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    assert checkpoints.load("trial-1", 3) is None
    assert "trial-1-3.safetensors is damaged" in caplog.text


def test_a_killed_process_leaves_its_last_checkpoint(tmp_path):
    code = f"""
import os, signal, torch
from pathlib import Path
from snas.training.checkpoints import Checkpoints
checkpoints = Checkpoints(Path({str(tmp_path)!r}))
checkpoints.save("trial-1", 1, {{"x": torch.arange(100000)}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert torch.equal(Checkpoints(tmp_path).load("trial-1", 1)["x"], torch.arange(100000))


def test_a_checkpoint_holds_copies_of_tensors_that_share_or_stride(tmp_path):
    whole = torch.arange(24.0).reshape(2, 3, 4, 1)
    tensors = {"whole": whole, "part": whole[1], "turned": whole.transpose(1, 2), "scalar": torch.tensor(3)}
    tensors["last"] = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    Checkpoints(tmp_path).save("x", 1, tensors)
    loaded = Checkpoints(tmp_path).load("x", 1)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
