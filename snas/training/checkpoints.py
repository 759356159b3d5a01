"""Checkpoints on disk: safetensors, written beside and renamed, one per network in training."""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from snas.errors import SnasError

log = logging.getLogger("snas")


class Checkpoints:
    """A folder with the latest state of every unfinished network, named by a key and the number of epochs trained."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, made when the first checkpoint is written."""
        self.folder = folder

    def save(self, key: str, epoch: int, tensors: dict[str, Tensor]) -> None:
        """Write the state after `epoch` epochs, durably, before any older one is dropped."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self._path(key, epoch)
        temporary = path.with_suffix(".part")
        unique = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(unique, temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise SnasError(f"cannot write checkpoint {path}: {error}; make room and run the same command") from error

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
        if not self.folder.is_dir():
            return
        pattern = re.compile(re.escape(key) + r"-(\d+)\.(safetensors|part)")
        for path in self.folder.iterdir():
            match = pattern.fullmatch(path.name)
            if match and (before is None or int(match[1]) < before):
                path.unlink(missing_ok=True)

    def _path(self, key: str, epoch: int) -> Path:
        return self.folder / f"{key}-{epoch}.safetensors"
