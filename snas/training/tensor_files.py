"""Files of tensors: safetensors with the SHA-256 of their content in the header, written beside and renamed.

safetensors itself notices a header that makes no sense, not a changed bit among the numbers. What is read here is what
was written, or an error; and no code can hide in it, since the format holds names, shapes and bytes alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from snas.digests import tensors_digest
from snas.errors import SnasError

DIGEST = "sha256"


class DamagedError(SnasError):
    """A file does not hold what was written to it."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """Write tensors, wherever they are and however they lie; an older file is there until the new one is whole.

    Args:
        path: of the file; its folder exists.
        tensors: by name.
        about: texts to keep with them; "sha256" is ours.

    Returns:
        The digest.

    Raises:
        OSError, SafetensorError: if the file cannot be written; nothing is left of it.
    """
    from safetensors.torch import save_file

    whole = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    digest = tensors_digest(whole, about)
    temporary = path.with_suffix(".part")
    try:
        save_file(whole, temporary, metadata={**about, DIGEST: digest})
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return digest


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and the texts that were kept with them, "sha256" among these.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it cannot be read, or holds anything else than what was written.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                tensors[name] = file.get_tensor(name)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        # A type or shape that makes no sense is torch's to complain of, in whatever way.
        raise DamagedError(f"it cannot be read: {' '.join(str(error).split())[:200]}") from error
    digest = about.get(DIGEST)
    if digest is None:
        raise DamagedError("it has no SHA-256 of what it holds")
    if digest != tensors_digest(tensors, {key: text for key, text in about.items() if key != DIGEST}):
        raise DamagedError("what it holds is not what was written: its SHA-256 is another one")
    return tensors, about
