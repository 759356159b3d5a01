"""Checkpoints on disk: safetensors with their SHA-256, written beside and renamed, one per network in training."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from torch import Tensor

from snas.errors import SnasError
from snas.training.tensor_files import DamagedError, read_tensors, write_tensors

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

        path = self._path(key, epoch)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_tensors(path, tensors, _about(key, epoch))
        except (OSError, SafetensorError) as error:
            raise SnasError(f"cannot write checkpoint {path}: {error}; make room and run the same command") from error
        if key in self._files:
            self._files[key][path] = epoch

    def load(self, key: str, epoch: int) -> dict[str, Tensor] | None:
        """The state after `epoch` epochs; None, with a warning, where there is no whole one."""
        found = self.load_latest(key, epoch)
        return found[1] if found and found[0] == epoch else None

    def load_latest(self, key: str, epoch: int) -> tuple[int, dict[str, Tensor]] | None:
        """The state after `epoch` epochs or, with a warning, the latest whole one before that: its epochs and state.

        None, with a warning, where there is no whole one.
        """
        fault = ""
        for found in sorted({epoch, *(one for one in self._find(key).values() if one < epoch)}, reverse=True):
            path = self._path(key, found)
            try:
                tensors, about = read_tensors(path)
                if {name: about.get(name) for name in ("key", "epoch")} != _about(key, found):
                    raise DamagedError(f"it is of {about.get('key')} after {about.get('epoch')} epochs")
            except FileNotFoundError:
                fault = fault or f"checkpoint {path.name} is gone"
            except DamagedError as error:
                fault = fault or f"checkpoint {path.name} is damaged ({error})"
            else:
                if fault:
                    log.warning("%s; epochs %d to %d are trained again", fault, found + 1, epoch)
                return found, tensors
        log.warning("%s; its %d epochs are trained again", fault, epoch)
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


def _about(key: str, epoch: int) -> dict[str, str]:
    """What a checkpoint tells of itself, so that one that was renamed is not taken for another."""
    return {"key": key, "epoch": str(epoch)}
