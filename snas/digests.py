"""SHA-256 of what lies in files. (Copies of registries have theirs beside them: `snas.registries.copies`.)

A digest tells that bytes are those that were written: a flipped bit, a file cut short, a copy that broke off. It does
not tell who wrote them; whoever can change a file can change the digest that lies in it or beside it too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits; raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_digest(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 of named tensors with all that tells them from others: names, types, shapes and bytes.

    Args:
        tensors: on the CPU, contiguous; in whatever order.
        about: texts that belong to them.

    Returns:
        64 hexadecimal digits.
    """
    import torch

    digest = hashlib.sha256()
    for key, text in sorted(about.items()):
        _add(digest, key)
        _add(digest, text)
    for name, tensor in sorted(tensors.items()):
        _add(digest, f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}")
        if tensor.numel():
            content: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()
            digest.update(content)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, text: str) -> None:
    """Add a text with its length, so that no two lists of texts look alike."""
    content = text.encode("utf-8", "surrogatepass")
    digest.update(len(content).to_bytes(8, "big"))
    digest.update(content)
