"""SHA-256 of what lies in files, and how it is written beside or into them.

A digest tells that bytes are those that were written: a flipped bit, a file cut short, a copy that broke off. It does
not tell who wrote them; whoever can change a file can change the digest that lies in it or beside it too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snas.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".sha256"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)\n?")


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


def write_sidecar(path: Path) -> Path:
    """Write the file's SHA-256 beside it, as `sha256sum` does: `name.sha256` with digest and name; returns its path."""
    sidecar = path.with_name(path.name + SUFFIX)
    sidecar.write_text(f"{file_digest(path)}  {path.name}\n", encoding="utf-8")
    return sidecar


def check_sidecar(path: Path) -> bool:
    """Whether the file is what its sidecar tells; False where there is none, and nothing is known.

    Raises:
        InputError: if the file is another one, or the sidecar cannot be read.
    """
    sidecar = path.with_name(path.name + SUFFIX)
    try:
        line = _LINE.fullmatch(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {sidecar}: {error}; make another copy") from error
    if line is None:
        raise InputError(f"{sidecar} is damaged: it is no line of digest and name; make another copy")
    if line[1] != file_digest(path):
        raise InputError(
            f"{path} is not what {sidecar.name} tells of it: it was changed or is damaged; use another copy"
        )
    return True


def _add(digest: hashlib._Hash, text: str) -> None:
    """Add a text with its length, so that no two lists of texts look alike."""
    content = text.encode("utf-8", "surrogatepass")
    digest.update(len(content).to_bytes(8, "big"))
    digest.update(content)
