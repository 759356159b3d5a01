from __future__ import annotations

import json
import multiprocessing

import pytest
import torch

from snas.kernels import crossover as room
from snas.kernels.crossover import crossover, measure


@pytest.fixture
def measured(monkeypatch):
    """What is asked to be measured; every answer is 0.125."""
    asked = []

    def answer(*sizes, features_first):
        asked.append((*sizes, *(["features first"] if features_first else [])))
        return 0.125

    monkeypatch.setattr(room, "measure", answer)
    monkeypatch.setattr(room, "_KNOWN", {})
    return asked


def test_it_is_measured_once_and_read_from_then_on(measured, monkeypatch, tmp_path):
    monkeypatch.setenv("SNAS_CACHE", str(tmp_path))
    assert crossover(300, 784, 64, torch.float32) == 0.125
    assert crossover(310, 784, 60, torch.float32) == 0.125  # of the same class
    monkeypatch.setattr(room, "_KNOWN", {})  # as another process begins
    assert crossover(300, 784, 64, torch.float32) == 0.125
    assert measured == [(256, 1024, 64, torch.float32)]
    crossover(300, 784, 64, torch.float64)
    crossover(5000, 5000, 10**6, torch.float32)
    crossover(300, 784, 64, torch.float32, features_first=True)
    assert measured[1:] == [
        (256, 1024, 64, torch.float64),
        (2048, 2048, 1024, torch.float32),
        (256, 1024, 64, torch.float32, "features first"),
    ]


def test_small_layers_are_not_worth_a_measurement(measured):
    assert crossover(100, 100, 64, torch.float32) == 0
    assert measured == []


@pytest.mark.parametrize("content", ["", "[1]", '{"x": 1}', "machine"])
def test_a_damaged_file_is_measured_anew(measured, monkeypatch, tmp_path, content):
    monkeypatch.setenv("SNAS_CACHE", str(tmp_path))
    if content == "machine":
        content = json.dumps({room._machine(): {"256 1024 64 float32 rows": "fast"}, "another": {"a": 0.25}})
    (tmp_path / "crossovers.json").write_text(content)
    assert crossover(300, 784, 64, torch.float32) == 0.125
    found = json.loads((tmp_path / "crossovers.json").read_text())
    assert found[room._machine()] == {"256 1024 64 float32 rows": 0.125}
    assert ("another" in found) == ("another" in content)


def test_without_a_folder_to_write_to_every_process_measures(measured, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SNAS_CACHE", str(tmp_path / "file" / "folder"))
    assert crossover(300, 784, 64, torch.float32) == crossover(300, 784, 64, torch.float32) == 0.125
    assert len(measured) == 1


def _in_a_process(number, results):
    room._KNOWN.clear()
    room.measure = lambda *sizes, features_first: 0.125 if number % 2 else 0.25
    results.put(crossover(300, 784, 64, torch.float32))


def test_processes_that_come_together_agree(monkeypatch, tmp_path):
    monkeypatch.setenv("SNAS_CACHE", str(tmp_path))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_in_a_process, args=(number, results)) for number in range(3)]
    for process in processes:
        process.start()
    found = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1


def test_a_measurement_leaves_threads_and_random_state_alone():
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    try:
        found = measure(256, 256, 16, torch.float32)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(state, torch.get_rng_state())
    assert 0 <= found <= room.LARGEST


@pytest.mark.parametrize(
    ("dense", "sparse", "expected"),
    [
        (1.25, (0.2, 1.0), 0.088),  # dense / margin is 1.0: crosses at 0.1, the next lower power is 0.5 ** 3.5
        (1.25, (0.1, 0.1), 0.25),  # more weights cost nothing: the largest
        (1.25, (1.0, 9.0), 0.0),  # the sparse kernel is slower at the lower density already
        (12.5, (0.1, 0.2), 0.25),
    ],
)
def test_where_the_lines_cross(monkeypatch, dense, sparse, expected):
    monkeypatch.setattr(room, "_best", lambda jobs: [dense, *sparse])
    assert measure(64, 64, 16, torch.float32) == pytest.approx(expected, abs=1e-3)
