"""SHA-256 of files and tensors."""

import hashlib

import torch

from snas.digests import file_digest, tensors_digest


def test_a_files_digest_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "a copy.db"
    path.write_bytes(b"content")
    assert file_digest(path) == hashlib.sha256(b"content").hexdigest()


def test_the_digest_of_tensors_tells_all_that_belongs_to_them_and_not_their_order():
    tensors = {"a": torch.arange(4.0), "b": torch.zeros(0)}
    digest = tensors_digest(tensors, {"key": "x"})
    assert digest == tensors_digest(dict(reversed(tensors.items())), {"key": "x"})
    others = [
        ({"a": torch.arange(4.0).reshape(2, 2), "b": torch.zeros(0)}, {"key": "x"}),
        ({"a": torch.arange(4.0), "b": torch.zeros(0, 1)}, {"key": "x"}),
        ({"a": torch.arange(4.0).view(torch.int32), "b": torch.zeros(0)}, {"key": "x"}),
        ({"c": torch.arange(4.0), "b": torch.zeros(0)}, {"key": "x"}),
        (tensors, {"key": "y"}),
        (tensors, {"ke": "yx"}),
    ]
    assert digest not in {tensors_digest(*other) for other in others}
    flipped = torch.arange(4.0)
    flipped.view(torch.uint8)[5] ^= 1
    assert digest != tensors_digest({"a": flipped, "b": torch.zeros(0)}, {"key": "x"})
