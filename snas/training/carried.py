"""Checkpoints that travel: for a process that shares no folder with the search."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from snas.training.checkpoints import Checkpoints


class Carried(Checkpoints):
    """Stands where a training expects its folder of checkpoints: the state comes with a job and goes with each report,
    in memory, in the form of the files (safetensors)."""

    def __init__(self, *, last: int) -> None:
        """Begin without a state. The one after `last` epochs is nobody's to go on from, and is not kept."""
        super().__init__(Path())
        self._last = last
        self._start = 0
        self._brought = b""
        self._saved = b""

    def bring(self, start: int, state: bytes) -> None:
        """Have the state after `start` epochs at hand; b"" where there is none."""
        self._start, self._brought, self._saved = start, state, b""

    def take(self) -> bytes:
        """The state after the last epoch; b"" where none was written since."""
        saved, self._saved = self._saved, b""
        return saved

    def save(self, key: str, epoch: int, tensors: dict[str, Tensor]) -> None:
        """Keep the state until it is taken."""
        from safetensors.torch import save

        if epoch >= self._last:
            return
        self._saved = save(
            {
                name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
                for name, value in tensors.items()
            }
        )

    def load_latest(self, key: str, epoch: int) -> tuple[int, dict[str, Tensor]] | None:
        """The state that was brought, and after how many epochs it was; None where none was, of which the search has
        told."""
        from safetensors.torch import load

        return (self._start, load(self._brought)) if self._brought and self._start <= epoch else None

    def drop(self, key: str, *, before: int | None = None) -> None:
        """Nothing: the search drops what it has written."""

    def look_again(self, key: str) -> None:
        """Nothing: there are no files."""
