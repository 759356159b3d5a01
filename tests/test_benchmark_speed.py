"""The benchmarks of speed run small, without Ray and without a GPU; what they compare with is what they say it is."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.utils import prune

from snas.search_spaces.mlp import mlp

NAMES = ("timing", "plain", "candidates", "convolutions", "proposals", "gpu", "run")


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
        yield SimpleNamespace(**{name: import_module(name) for name in NAMES})


@pytest.fixture(autouse=True)
def _same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_jobs_take_turns_and_the_first_round_does_not_count(bench):
    order = []
    jobs = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    values = iter([100.0, 100.0, 1.0, 10.0, 3.0, 20.0, 2.0, 60.0])

    def measure(job):
        job()
        return next(values)

    assert bench.timing.interleaved(jobs, 3, measure=measure) == {"a": 2.0, "b": 20.0}
    assert "".join(order) == "abababab"


linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")


@linux
def test_memory_is_that_of_the_job_alone(bench):
    size = 64 * 2**20

    def job():
        np.ones(size, np.uint8)

    np.ones(2 * size, np.uint8)  # higher than the job, and forgotten
    assert 0.9 * size < bench.timing.memory_of(job)["above"] < 1.5 * size


@linux
def test_memory_of_a_tree_counts_the_processes_that_are_started(bench):
    code = "import time; x = b'1' * (64 << 20); time.sleep(1)"
    found = bench.timing.memory_of(lambda: subprocess.run([sys.executable, "-c", code], check=True), tree=True)
    assert found["above"] > 0.9 * 64 * 2**20


def test_plain_perceptron_is_the_network_of_the_search(bench):
    space = mlp((1, 8, 8), 10, hidden_layers=3, width=16)
    own = space.build(generator=torch.Generator().manual_seed(0))
    other = bench.plain.perceptron([64, 16, 16, 16], 10)
    values = own.state_dict().values()
    other.load_state_dict(dict(zip(other.state_dict(), values, strict=True)))
    x = torch.randn(5, 1, 8, 8)
    assert torch.equal(own.eval()(x), other.eval()(x))


def test_plain_training_is_that_of_torch_prune(bench):
    """The same steps with torch.nn.utils.prune give the same weights."""
    torch.manual_seed(0)
    x, y = torch.randn(20, 6), torch.arange(20) % 3
    data = bench.plain.Data(x, y, x, y)
    rule = bench.plain.Rule(epochs=3, batch_size=8, lr=0.1)
    model, other = bench.plain.perceptron([6, 5], 3), bench.plain.perceptron([6, 5], 3)
    masks = bench.plain.mask_randomly(model, [12, 7])
    assert [int(mask.sum()) for mask in masks] == [12, 7]
    assert [int((w != 0).sum()) for w in bench.plain.prunable(model)] == [12, 7]
    other.load_state_dict(model.state_dict())
    for module, mask in zip((other[1][0], other[2]), masks, strict=True):
        prune.custom_from_mask(module, "weight", mask)
    torch.manual_seed(1)
    accuracies = list(bench.plain.train_epochs(model, masks, data, rule))
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step in range(9):
        if step % 3 == 0:
            batches = torch.randperm(20).split(8)
            other.train()
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * 0.5 * (1 + np.cos(np.pi * step / 9))
        optimizer.zero_grad()
        batch = batches[step % 3]
        torch.nn.functional.cross_entropy(other(x[batch]), y[batch]).backward()
        optimizer.step()
    assert len(accuracies) == 3
    for weight, module in zip(bench.plain.prunable(model), (other[1][0], other[2]), strict=True):
        torch.testing.assert_close(weight, module.weight_orig * module.weight_mask, rtol=1e-4, atol=1e-6)


def test_candidates_are_the_same_for_all_alternatives(bench):
    case = bench.candidates.Case(samples=4, epochs=2, width=64)
    names, budgets = ("serial", "there-is-none"), ("no budget",)
    figures = bench.candidates.measure(case, seeds=1, ray_rounds=0, names=names, budgets=budgets)
    rows = figures["no budget"]
    ours, loop = rows["snas, serial"], rows["plain loop, 1 threads, as snas, serial"]
    assert ours["epochs"] == loop["epochs"]
    assert 4 < ours["epochs"]["mean"] < 8  # ASHA stops some
    assert ours["best accuracy"]["n"] == 1
    assert min(ours["best accuracy"]["least"], loop["best accuracy"]["least"]) > 0.2
    ratio = bench.candidates.ratios(rows)["snas, serial : plain loop"]
    assert ratio == pytest.approx(loop["seconds"]["median"] / ours["seconds"]["median"])


def test_ratios_are_of_pairs_and_against_the_faster_loop(bench):
    seconds = {
        "snas, serial": [1.0, 2.0, 4.0],
        "plain loop, 2 threads, as snas, serial": [3.0, 8.0, 4.0],
        "plain loop, 1 threads, as snas, serial": [2.0, 2.0, 6.0],
        "Ray Tune": [30.0],
    }
    figures = {name: {"each, seconds": values} for name, values in seconds.items()}
    assert bench.candidates.ratios(figures) == {"snas, serial : plain loop": 1.5, "snas, serial : Ray Tune": 30.0}


def test_plain_loop_is_given_the_weights_of_the_search(bench):
    case = bench.candidates.Case(samples=3, epochs=1, width=64)
    run = bench.candidates.ours(case, 0, density=0.25)
    total = 64 * 64 + 2 * 64 * 64 + 640
    assert [sum(kept) for kept in run.kept] == [round(0.25 * total)] * 3
    assert run.epochs == (1, 1, 1)
    data, rule, sizes, classes = bench.candidates.setting_of(case, 0)
    model = bench.plain.perceptron(sizes, classes)
    assert (len(data.y), len(data.validation_y), rule.lr) == (1294, 144, 0.01)
    assert all(0 < count <= w.numel() for count, w in zip(run.kept[0], bench.plain.prunable(model), strict=True))


def test_convolutions_compare_the_same_steps(bench):
    case = bench.convolutions.Case("resnet20", (1, 8, 8), 1)
    parts = bench.convolutions.measure(case, 0.1, 1)
    assert list(parts) == ["plain PyTorch", "snas, fp32", "snas, bf16"]
    for name, own in parts.items():
        assert 0 < own.step < own.whole
        assert (own.rest > 0) == name.startswith("snas")
        assert own.epoch == pytest.approx(352 * own.step + 5000 * own.image + own.rest)


def test_both_kinds_of_training_see_the_same_images(bench):
    case = bench.convolutions.Case("resnet20", (1, 8, 8), 3)
    setting = bench.convolutions.setting_of(case, 0.1)
    assert len(setting.data.train.y) == 3 * 128
    one, two = setting.sparse(), setting.sparse()
    assert one.masks == two.masks


def test_every_strategy_is_timed(bench):
    found = bench.proposals.measure(["random", "sobol"], [4, 8], 3, 1)
    assert {name: list(row) for name, row in found.items()} == {"random": [4, 8], "sobol": [4, 8]}
    assert bench.proposals.exponent({25: 1.0, 100: 8.0}) == pytest.approx(1.5)


def test_gpu_part_runs_on_a_cpu_and_is_skipped_without_one(bench, capsys, monkeypatch):
    case = bench.gpu.Case(samples=2, epochs=1, images=300, shape=(3, 4, 4))
    found = bench.gpu.measure(case, torch.device("cpu"), names=("mlp",), kinds=("serial",))
    assert len(found["mlp"]) == 2
    assert all(row["seconds per epoch"] > 0 for row in found["mlp"].values())
    assert len(bench.gpu.ratios(found)) == 1
    assert bench.gpu.matrix_rate(torch.device("cpu"), 32) > 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    bench.gpu.main()
    assert capsys.readouterr().out.splitlines() == ["(F) there is no CUDA device; the GPU part is skipped"]


def test_operations_of_a_perceptron(bench):
    case = bench.gpu.Case(shape=(1, 2, 2))
    width = 4 + 4  # inputs + 4, the usual width of the space
    assert bench.gpu.operations("mlp", case) == 6 * (4 * width + 3 * width * width + 10 * width)


def test_summary_is_what_was_saved(bench, tmp_path):
    path = bench.timing.save(
        "x", {"a": 1}, about={"cores": 2}, summary={"ours : theirs": 2.5, "memory": "3 MiB"}, folder=tmp_path
    )
    assert json.loads(path.read_text())["environment"] == {"cores": 2}
    summary = bench.run.read_summary(path)
    lines = [bench.run.line(text, value) for text, value in summary.items()]
    assert [re.split(r"\s{2,}", text.strip()) for text in lines] == [["ours : theirs", "2.5x"], ["memory", "3 MiB"]]
    assert bench.run.read_summary(tmp_path / "none.json") == {}


def test_every_part_is_a_script(bench):
    folder = Path(bench.run.__file__).parent
    there = {part.name for part in bench.run.PARTS if (folder / f"{part.name}.py").is_file()}
    assert there >= {"candidates", "convolutions", "proposals", "gpu"}
