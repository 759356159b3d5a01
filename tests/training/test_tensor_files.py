"""Files of tensors hold what was written, or are refused; an older checkpoint is better than none."""

import json
import logging
import random

import pytest
import torch

from snas.training.checkpoints import Checkpoints
from snas.training.tensor_files import DamagedError, read_tensors, write_tensors

TENSORS = {
    "a": torch.arange(12.0).reshape(3, 4),
    "b": torch.tensor([1, 0, 1], dtype=torch.uint8),
    "c": torch.tensor(2.0),
}


def test_what_is_written_is_read(tmp_path):
    digest = write_tensors(tmp_path / "x.safetensors", {**TENSORS, "none": torch.zeros(0, 3)}, {"key": "one\u00e9"})
    found, about = read_tensors(tmp_path / "x.safetensors")
    assert about == {"key": "one\u00e9", "sha256": digest}
    assert found.pop("none").shape == (0, 3)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in TENSORS.items())
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_the_digest_is_of_names_types_shapes_bytes_and_texts(tmp_path):
    same = {"a": torch.zeros(4)}
    others = [
        ({"b": torch.zeros(4)}, {}),
        ({"a": torch.zeros(2, 2)}, {}),
        ({"a": torch.zeros(4, dtype=torch.int32)}, {}),
        ({"a": -torch.zeros(4)}, {}),
        (same, {"x": "1"}),
        ({"a": torch.zeros(3), "a1": torch.zeros(1)}, {}),
    ]
    digests = {write_tensors(tmp_path / "x.safetensors", tensors, about) for tensors, about in [(same, {}), *others]}
    assert len(digests) == 1 + len(others)


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"key": "one"})
    content, rng = path.read_bytes(), random.Random(0)
    damaged = []
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        damaged += [bytes(flipped), content[:place]]
    for changed in damaged:
        path.write_bytes(changed)
        with pytest.raises(DamagedError):
            read_tensors(path)
    path.write_bytes(content)
    read_tensors(path)


@pytest.mark.parametrize("place", [8, 60, -3])
def test_a_changed_checkpoint_is_none(place, tmp_path, caplog):
    Checkpoints(tmp_path).save("trial-1", 3, TENSORS)
    path = tmp_path / "trial-1-3.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert Checkpoints(tmp_path).load("trial-1", 3) is None
    assert "trial-1-3.safetensors is damaged" in caplog.text
    assert "its 3 epochs are trained again" in caplog.text


def test_a_checkpoint_without_a_digest_or_of_another_name_is_none(tmp_path, caplog):
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "trial-1-3.safetensors")
    assert Checkpoints(tmp_path).load("trial-1", 3) is None
    assert "no SHA-256" in caplog.text
    Checkpoints(tmp_path).save("trial-1", 4, TENSORS)
    (tmp_path / "trial-1-4.safetensors").rename(tmp_path / "trial-2-4.safetensors")
    assert Checkpoints(tmp_path).load("trial-2", 4) is None
    assert "it is of trial-1 after 4 epochs" in caplog.text


def test_the_checkpoint_before_a_damaged_one_is_taken(tmp_path, caplog):
    for epoch in (1, 2, 3):
        Checkpoints(tmp_path).save("trial-1", epoch, {"x": torch.tensor(epoch)})
    (tmp_path / "trial-1-3.safetensors").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        found = Checkpoints(tmp_path).load_latest("trial-1", 3)
    assert found is not None
    assert (found[0], int(found[1]["x"])) == (2, 2)
    assert "damaged" in caplog.text
    assert "epochs 3 to 3 are trained again" in caplog.text
    assert Checkpoints(tmp_path).load_latest("trial-1", 2)[0] == 2  # one of more epochs is not taken


def test_a_file_that_cannot_be_written_leaves_the_older_one(tmp_path, monkeypatch):
    import safetensors.torch

    write_tensors(tmp_path / "x.safetensors", TENSORS, {})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {})
    assert read_tensors(tmp_path / "x.safetensors")[0].keys() == TENSORS.keys()
    assert len(list(tmp_path.iterdir())) == 1


def test_metadata_is_json_that_others_can_read(tmp_path):
    write_tensors(tmp_path / "x.safetensors", TENSORS, {"key": "one"})
    content = (tmp_path / "x.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"]["key"] == "one"
    assert len(header["__metadata__"]["sha256"]) == 64
