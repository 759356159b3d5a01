"""Checkpoints on disk: safetensors, written beside and renamed, one per network in training."""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from snas.errors import SnasError

log = logging.getLogger("snas")


class Checkpoints:
    """A folder with the latest state of every unfinished network, named by a key and the number of epochs trained.

    Files are handed to the system without waiting for the disk: a process that is killed loses none. What a power cut
    takes away or cuts short is noticed when it is read, and its epochs are trained again.
    """

    def __init__(self, folder: Path) -> None:
        """Use `folder`, made when the first checkpoint is written."""
        self.folder = folder
        self._files: dict[str, dict[Path, int]] = {}  # of each key in training here: its files, and their epochs

    def save(self, key: str, epoch: int, tensors: dict[str, Tensor]) -> None:
        """Write the state after `epoch` epochs, before any older one is dropped."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self._path(key, epoch)
        temporary = path.with_suffix(".part")
        unique = {
            name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(unique, temporary)
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise SnasError(f"cannot write checkpoint {path}: {error}; make room and run the same command") from error
        if key in self._files:
            self._files[key][path] = epoch

    def load(self, key: str, epoch: int) -> dict[str, Tensor] | None:
        """The state after `epoch` epochs; None, with a warning, where there is no readable one."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(key, epoch)
        try:
            return load_file(path)
        except FileNotFoundError:
            log.warning("checkpoint %s is gone; its %d epochs are trained again", path.name, epoch)
        except (SafetensorError, OSError) as error:
            log.warning("checkpoint %s is damaged (%s); its %d epochs are trained again", path.name, error, epoch)
        return None

    def drop(self, key: str, *, before: int | None = None) -> None:
        """Delete the key's checkpoints; with `before`, only those of fewer epochs."""
        files = self._files.get(key) if before is not None else None
        if files is None:  # an earlier process may have left some
            files = self._files[key] = self._find(key)
        for path in [path for path, epoch in files.items() if before is None or epoch < before]:
            path.unlink(missing_ok=True)
            del files[path]
        if before is None:
            del self._files[key]

    def look_again(self, key: str) -> None:
        """Forget which files the key has: another process may have written and dropped some."""
        self._files.pop(key, None)

    def _find(self, key: str) -> dict[Path, int]:
        """The key's files in the folder, and their epochs."""
        if not self.folder.is_dir():
            return {}
        pattern = re.compile(re.escape(key) + r"-(\d+)\.(safetensors|part)")
        matches = {name: pattern.fullmatch(name) for name in os.listdir(self.folder)}
        return {self.folder / name: int(match[1]) for name, match in matches.items() if match}

    def _path(self, key: str, epoch: int) -> Path:
        return self.folder / f"{key}-{epoch}.safetensors"
