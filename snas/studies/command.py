"""The command `study` as a function."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from snas.commands import make_settings
from snas.errors import InputError
from snas.listener import Listener
from snas.registry import Registry
from snas.settings import StudySettings, registry_path
from snas.studies.base import in_order, open_study
from snas.studies.grid import adjusted
from snas.studies.lab import Lab
from snas.studies.result import StudyResult
from snas.studies.runner import key_of, measure_cells, measure_in_workers, read_points, require_settings
from snas.training.devices import intraop_threads


def run_study(
    study: str, *, scale: str = "tiny", listener: Listener | None = None, output: str | Path | None = None, **given: Any
) -> StudyResult:
    """Measure a study's grid, a cell at a time into the registry; then make its tables and pictures.

    What is measured already is not measured again, so that the same call resumes; another scale, or more values of a
    factor, extend what is there. Several processes may work on one study.

    Args:
        study: its name; `snas list studies` tells them.
        scale: "tiny", "small" or "paper": which grid.
        listener: hears of progress.
        output: a folder for table, points and pictures; made if it is missing.
        given: fields of `StudySettings` (workers, registry, data_dir, seeds ...), and factors of the study's grid, each
            a value or several: epochs=5, optimizer=["sgd", "adam"].

    Returns:
        All points and their tables.

    Raises:
        InputError: for anything unknown, out of range or contradictory. Factors and settings of trainings are checked
            before anything is measured; what only a network or its data show ends the study at its cell.

    Example:
        >>> import snas, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = snas.run_study(
        ...         "smoothness", sparsity=0.9, epochs=1, seeds=1, every=30, registry=f"{folder}/snas.db"
        ...     )
        >>> [(point["sparsity"], point.reason) for point in result.points]
        [(0.9, None)]
    """
    start = time.perf_counter()
    own = {name: value for name, value in given.items() if name in StudySettings.__dataclass_fields__}
    factors = {name: value for name, value in given.items() if name not in own}
    settings = make_settings(StudySettings, own, study=study, scale=scale)
    chosen = open_study(settings.study)
    twice = [name for name in factors if name in settings.factors()]
    if twice:
        raise InputError(f"factor {twice[0]!r} is given twice; give it once")
    grid = adjusted(chosen.grid(settings.scale), settings.factors() | factors, study=settings.study)
    cells = in_order(chosen.cells(grid))
    if not cells:
        raise InputError(f"the grid of study {settings.study!r} has no cell; give its factors other values")
    require_settings(chosen, cells)
    listener = listener or Listener()
    if output is not None:
        from snas.studies.result import require_output

        require_output(Path(output))
    lab = Lab(data_dir=settings.data_dir, device=settings.device, progress=listener.on_message)
    with Registry(registry_path(settings.registry)) as registry, intraop_threads(1):
        known = registry.measurements(chosen.store)
        done = sum(key_of(chosen, cell, lab) in known for cell in cells)
        listener.on_cells(settings.study, cells=len(cells), done=done)
        if settings.workers > 1 and done < len(cells):
            measure_in_workers(settings, cells, listener=listener)
        else:
            measure_cells(registry, chosen, cells, lab, listener=listener)
        points = read_points(registry, chosen, cells, lab)
    result = StudyResult(chosen, settings.scale, points, grid, time.perf_counter() - start)
    if output is not None:
        result.save(output)
    return result
