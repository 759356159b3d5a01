"""Measure the cells of a study that are not in the registry yet, beside whatever other process is doing the same."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from snas.crew import Relay, require_locks, telling, work_together
from snas.errors import FailedError, RefusedError, SnasError
from snas.listener import Listener
from snas.locks import BusyError, owned
from snas.registry import Registry
from snas.settings import Settings, StudySettings, registry_path
from snas.studies.base import Cell, Point, Study, open_study
from snas.studies.lab import Lab, split_space
from snas.training.devices import environment, intraop_threads

PAUSE_SECONDS = 0.5  # between looks at cells that another process is measuring


def key_of(study: Study, cell: Cell, lab: Lab) -> str:
    """All that a cell's result depends on: its factors, the data themselves, networks of the user's own code, and the
    study's version."""
    data = {name: lab.dataset(name).fingerprint for name in study.datasets(cell)}
    content: dict[str, Any] = {"version": study.version, "cell": dict(cell), "data": data}
    space = cell.get("space")
    if isinstance(space, str) and ":" in split_space(space)[0]:  # code that may have changed since
        content["networks"] = {name: lab.bench(space, name).space.network for name in data}
    return json.dumps(content, sort_keys=True)


def require_settings(study: Study, cells: Sequence[Cell]) -> None:
    """Raise InputError for settings that no network can be trained with, so that nothing is measured beside them."""
    made = [dict(study.settings(cell)) for cell in cells]
    for settings in {json.dumps(one, sort_keys=True): one for one in made}.values():
        Settings(**settings)


def read_points(registry: Registry, study: Study, cells: Sequence[Cell], lab: Lab) -> list[Point]:
    """The cells that are measured, in the order of `cells`."""
    known = registry.measurements(study.store)
    found = (known.get(key_of(study, cell, lab)) for cell in cells)
    return [Point(one.cell, one.result, one.reason, one.seconds, one.environment) for one in found if one is not None]


def measure_cells(
    registry: Registry, study: Study, cells: Sequence[Cell], lab: Lab, *, listener: Listener, patient: bool = False
) -> None:
    """Measure every cell that is not measured yet, in their order. Each is filed before the next begins.

    Args:
        registry: where results are.
        study: what to measure.
        cells: of its grid.
        lab: to measure with.
        listener: hears of progress.
        patient: wait for other processes without a word, as workers do that share one study.
    """
    registry.use_environment(environment(lab.device))
    waiting = {key_of(study, cell, lab): cell for cell in cells}
    told = patient
    while waiting:
        known = registry.measurements(study.store)
        waiting = {key: cell for key, cell in waiting.items() if key not in known}
        busy = {
            key: cell
            for key, cell in waiting.items()
            if not _measure(registry, study, key, cell, lab, listener=listener)
        }
        if busy and len(busy) == len(waiting):
            if not told:
                listener.on_message("waiting for another process, which is measuring the rest of this study")
                told = True
            time.sleep(PAUSE_SECONDS)
        waiting = busy


def _measure(registry: Registry, study: Study, key: str, cell: Cell, lab: Lab, *, listener: Listener) -> bool:
    """Measure one cell and file it; says False where another process has it."""
    lock = f"cell-{hashlib.sha256(f'{study.store} {key}'.encode()).hexdigest()[:24]}"
    try:
        with owned(registry, lock):
            if not registry.has_measurement(study.store, key):
                _measure_now(registry, study, key, cell, lab, listener=listener)
            (registry.files / "locks" / lock).unlink(missing_ok=True)  # who waits for it finds the result
    except BusyError:
        return False
    return True


def _measure_now(registry: Registry, study: Study, key: str, cell: Cell, lab: Lab, *, listener: Listener) -> None:
    listener.on_cell(study.name, cell)
    lab.heard = lambda epoch, epochs: listener.on_cell_epoch(study.name, cell, epoch=epoch, epochs=epochs)
    start, reason, result = time.perf_counter(), None, {}
    try:
        with intraop_threads(1):
            result = dict(study.measure(cell, lab))
        _require_plain(result, study.name)
    except (RefusedError, FailedError) as error:
        reason = str(error)
    seconds = time.perf_counter() - start
    registry.add_measurement(study.store, key, cell=cell, result=result, reason=reason, seconds=seconds)
    listener.on_cell_end(study.name, cell, seconds=seconds, reason=reason)


def _require_plain(value: Any, study: str) -> None:
    """Raise SnasError for what JSON cannot hold: the study's defect, told before it is filed."""
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise SnasError(f"study {study!r} measured a mapping whose names are not all text")
        parts = list(value.values())
    elif isinstance(value, (list, tuple)):
        parts = list(value)
    elif value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return
    else:
        raise SnasError(f"study {study!r} measured {value!r}, which cannot be filed; expected JSON with finite numbers")
    for part in parts:
        _require_plain(part, study)


def measure_in_workers(settings: StudySettings, cells: Sequence[Cell], *, listener: Listener) -> None:
    """Measure the cells in `settings.workers` processes of one thread each until all are done.

    Raises:
        InputError, SnasError: what a worker met; or that one died. What was filed is kept.
    """
    require_locks("workers")
    arguments = (settings, tuple(cells))
    work_together(settings.workers, _work, arguments, listener=listener, name="snas-study", flag="--workers")


def _work(settings: StudySettings, cells: Sequence[Cell], writer: Connection) -> None:
    """What a worker does from its start to its end."""
    with telling(writer), intraop_threads(1):
        listener = Relay(writer)
        lab = Lab(data_dir=settings.data_dir, device=settings.device, progress=listener.on_message)
        with Registry(registry_path(settings.registry)) as registry:
            measure_cells(registry, open_study(settings.study), cells, lab, listener=listener, patient=True)
