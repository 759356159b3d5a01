"""Trainings with sparse kernels are those with dense ones, to floating-point reordering."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from snas.bench import open_bench
from snas.data.arrays import from_arrays
from snas.data.split import Arrays, split_data
from snas.densities import Densities
from snas.errors import InputError, SnasError
from snas.kernels import compression
from snas.kernels.sparse_linear import SparseLinear, available
from snas.masks import Masks
from snas.pruning.dynamic.base import movements
from snas.pruning.dynamic.mover import Mover
from snas.pruning.methods import Method, given_densities
from snas.pruning.prepare import prepare
from snas.search_spaces.base import SearchSpace
from snas.settings import SearchSettings, Settings
from snas.training.evaluation import split_into_batches
from snas.training.rule import TrainingRule
from snas.training.session import Session
from snas.training.task import score_batch

pytestmark = pytest.mark.skipif(not available(), reason="this build of PyTorch has no sampled product")
CPU = torch.device("cpu")
OPTIMIZERS = ["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"]


def plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 40), nn.ReLU(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 4))


class Mixed(nn.Module):
    """Convolution, normalization, dropout; layers in a list of its own, one used twice, one read without a call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm1d(40)
        self.first, self.twice, self.read = nn.Linear(72, 40), nn.Linear(40, 40), nn.Linear(40, 40, bias=False)
        self.last, self.alias = nn.Linear(40, 4), self.twice
        self.own_list = [self.twice, self.alias]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(self.conv(x).relu().flatten(1)))
        for layer in self.own_list:
            x = nn.functional.dropout(layer(x).relu(), 0.2, self.training)
        return self.last(nn.functional.linear(x, self.read.weight))


SHAPE = (1, 6, 6)
NETWORKS = {"plain": plain, "mixed": Mixed}
SPACES = {name: SearchSpace.from_model(make, input_shape=SHAPE, name=name) for name, make in NETWORKS.items()}
RNG = np.random.default_rng(0)
Y = np.arange(97) % 4
SINGLE = split_data(from_arrays(RNG.normal(size=(97, *SHAPE)).astype("f4") + Y[:, None, None, None], Y), seed=0)


def double(data):
    """The same data in double precision."""
    values = copy.copy(data)
    for name in ("train", "validation"):
        object.__setattr__(values, name, Arrays(getattr(data, name).x.double(), getattr(data, name).y))
    return values


DATA = double(SINGLE)


def session(kernel: str, network: str = "plain", *, data=DATA, density: float = 0.3, **rule) -> Session:
    space = SPACES[network]
    densities = Densities.from_fractions(space.layers, [density] * len(space.layers))
    sparse = prepare(space, given_densities("random"), densities, score_batch(SINGLE, seed=1), seed=1)
    model = sparse.model.to(data.train.x.dtype)
    values = {"epochs": 4, "batch_size": 16, "lr": 0.05, "augment": "off", **rule}
    return Session(model, sparse.masks, TrainingRule(**values), data, seed=1, device=CPU, kernel=kernel)


def dense_state(one: Session) -> dict[str, torch.Tensor]:
    """The session's state in the form that dense layers have."""
    return {
        name: value.clone() for name, value in session("dense")._kernels.translate(one.tensors(), one.masks).items()
    }


def compare(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], *, rtol: float = 1e-9) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=rtol, atol=rtol, msg=name)


def compressed(one: Session) -> list[str]:
    return [path for path, module in one.model.named_modules() if isinstance(module, SparseLinear)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_optimizers_train_alike(optimizer):
    dense, sparse = (session(kernel, optimizer=optimizer, lr=0.01, weight_decay=0.1) for kernel in ("dense", "sparse"))
    assert compressed(dense) == []
    assert compressed(sparse) == ["1", "3", "5"]
    for _ in range(3):
        one, two = dense.train_epoch(), sparse.train_epoch()
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-6)
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-9)
    compare(dense_state(sparse), dense.tensors())


def test_a_network_that_does_other_things_with_its_layers_trains_alike():
    dense, sparse = (session(kernel, "mixed") for kernel in ("dense", "sparse"))
    assert compressed(sparse) == ["first", "twice", "read", "last"]
    assert sparse.model.own_list[0] is sparse.model.twice
    for _ in range(2):
        one, two = dense.train_epoch(), sparse.train_epoch()
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-9)
    translated = dense._kernels.translate(sparse.tensors(), sparse.masks)
    compare(translated, dense.tensors())


def test_single_precision_agrees_to_its_rounding():
    dense, sparse = (session(kernel, data=SINGLE) for kernel in ("dense", "sparse"))
    for _ in range(2):
        one, two = dense.train_epoch(), sparse.train_epoch()
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-4)
    compare(dense_state(sparse), dense.tensors(), rtol=1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_only_kept_weights_have_state(optimizer):
    sparse = session("sparse", optimizer=optimizer)
    sparse.train_epoch()
    total = {layer.name: layer.total for layer in sparse.masks.layers}
    for name, layer in total.items():
        kept = sparse.masks.kept.counts[name]
        sizes = [value.numel() for key, value in sparse.tensors().items() if key.split("/")[1].startswith(f"{name}.")]
        assert kept in sizes
        assert layer not in sizes
    assert all(parameter.numel() not in total.values() for parameter in sparse.model.parameters())


@pytest.mark.parametrize("network", ["plain", "mixed"])
@pytest.mark.parametrize(("first", "second"), [("dense", "sparse"), ("sparse", "dense"), ("sparse", "sparse")])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_checkpoint_of_either_kernel_goes_on_with_the_other(optimizer, first, second, network):
    whole = session(first, network, optimizer=optimizer, lr=0.01)
    whole.train_epoch()
    state = {name: value.clone() for name, value in whole.checkpoint().items()}
    restored = session(second, network, optimizer=optimizer, lr=0.01)
    restored.load_tensors(state, 1)
    for _ in range(2):
        one, two = whole.train_epoch(), restored.train_epoch()
        if first == second:
            assert (one.train_loss, one.validation_loss) == (two.train_loss, two.validation_loss)
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-9)
    compare(
        session("dense", network)._kernels.translate(restored.tensors(), restored.masks),
        session("dense", network)._kernels.translate(whole.tensors(), whole.masks),
    )


def test_full_layers_and_what_others_have_a_hand_in_stay_dense():
    assert compressed(session("sparse", density=1.0)) == []
    densities = Densities.from_fractions(SPACES["plain"].layers, [0.3] * 3)
    sparse = prepare(SPACES["plain"], given_densities("random"), densities, score_batch(SINGLE, seed=1), seed=1)
    rule = TrainingRule(epochs=1)
    for spoil in (
        lambda model: model[1].register_forward_pre_hook(lambda *_: None),
        lambda model: model.append(nn.ParameterList([model[1].weight])),
        lambda model: model[1].weight.register_hook(lambda gradient: gradient),
        lambda model: setattr(model[1], "__class__", type("Mine", (nn.Linear,), {})),
        lambda model: setattr(model[1], "forward", model[1].forward),
    ):
        spoiled = copy.deepcopy(sparse.model)
        spoil(spoiled)
        one = Session(spoiled, sparse.masks, rule, SINGLE, seed=1, device=CPU, kernel="sparse")
        assert compressed(one) == ["3", "5"]


def test_auto_takes_the_sparse_kernel_below_the_crossover(monkeypatch):
    asked = []

    def crossover(rows, columns, examples, dtype, *, features_first):
        asked.append((rows, columns, examples, dtype))
        assert features_first
        return {40: 0.31, 30: 0.29, 4: 0.0}[rows]

    monkeypatch.setattr(compression, "crossover", crossover)
    assert compressed(session("auto")) == ["1"]
    assert asked == [(40, 36, 16, torch.float64), (30, 40, 16, torch.float64), (4, 30, 16, torch.float64)]
    assert compressed(session("auto", precision="bf16", data=SINGLE)) == []


def test_the_audit_notices_weights_at_other_places():
    one = session("sparse")
    one.train_epoch()
    one.masks = Masks(one.masks.layers, {name: mask.flip(0) for name, mask in one.masks.items()})
    with pytest.raises(SnasError, match="at places that are not the mask's"):
        one.train_epoch()


def test_the_dense_weights_are_let_go():
    one = session("sparse")
    one.train_epoch()
    largest = max(layer.total for layer in one.masks.layers)
    held = [value for state in one._kernels._dense.values() for value in state["_parameters"].values()]
    assert all(tensor.numel() < largest for tensor in held)


def test_sparse_where_it_cannot_be_is_told():
    with pytest.raises(InputError, match="kernel is sparse, but sparse kernels have no arithmetic of bf16"):
        open_bench(Settings(space="lenet-300-100", precision="bf16", kernel="sparse"))
    with pytest.raises(InputError, match="the device is cuda"):
        compression.choose_kernel("sparse", torch.device("cuda"), precision="fp32", batch_size=1)
    with pytest.raises(InputError, match="kernel is 'fast'; choices: auto, dense, sparse"):
        SearchSettings(kernel="fast")


def test_the_kernel_is_recorded_but_no_part_of_the_rule():
    one, two = (open_bench(Settings(space="lenet-300-100", kernel=kernel)) for kernel in ("dense", "sparse"))
    assert (one.environment["kernel"], two.environment["kernel"]) == ("dense", "sparse")
    assert one.describe_rule() == two.describe_rule()
    assert two.task.kernel == "sparse"


MOVEMENTS = {
    "rigl": {"every": 10}, "set": {}, "dsr": {"every": 10, "threshold": 0.05}, "gradual": {"every": 10},
    "rounds": {"rounds": 2}, "snfs": {}, "deepr": {"alpha": 0.01, "temperature": 1e-6},
}  # fmt: skip
AT_REST = ["rigl", "set", "dsr", "gradual", "rounds"]


def moving(name: str, kernel: str, **rule) -> Session:
    movement = movements.get(name)(**MOVEMENTS[name])
    space = SPACES["plain"]
    method = Method("m", "random", "dense" if movement.starts_dense else "uniform", rescale=True)
    sparse = prepare(space, method, 600, score_batch(SINGLE, seed=1), seed=1)
    values = {"epochs": 3, "batch_size": 4, "lr": 0.02, "augment": "off", **rule}
    return Session(
        sparse.model.double(), sparse.masks, TrainingRule(**values), DATA, seed=1, device=CPU, movement=movement,
        goal=replace(sparse.goal, target=600, allocation="global"), kernel=kernel,
    )  # fmt: skip


@pytest.fixture
def changes(monkeypatch):
    """Names of the changes of form, as they come."""
    seen = []
    for name in ("compress", "expand"):
        real = getattr(compression.Compression, name)

        def change(self, *arguments, _name=name, _real=real):
            _real(self, *arguments)
            if _name == "expand" or self.compressed:
                seen.append(_name)

        monkeypatch.setattr(compression.Compression, name, change)
    return seen


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", AT_REST)
def test_moving_masks_train_alike_and_rest_in_between(name, optimizer, changes):
    dense, sparse = (moving(name, kernel, optimizer=optimizer, lr=0.005) for kernel in ("dense", "sparse"))
    masks = set()
    while dense.epoch < dense.epochs:
        one, two = dense.train_epoch(), sparse.train_epoch()
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-9)
        assert dense.masks == sparse.masks
        masks.add(dense.masks.checksum())
        compare(sparse.tensors(), dense.tensors())
    assert len(masks) > 1
    assert changes.count("compress") == changes.count("expand") >= 2
    assert changes[:2] == ["compress", "expand"]


def test_an_epoch_with_updates_changes_form_around_each(changes):
    one = moving("rigl", "sparse")
    assert len(split_into_batches(torch.arange(len(DATA.train.y)), 4)) == 18
    one.train_epoch()
    assert changes == ["compress", "expand"] * 2  # 18 steps, an update in place of the eleventh; dense at the end


@pytest.mark.parametrize("name", ["snfs", "deepr"])
def test_a_movement_without_rest_stays_dense(name, changes):
    one = moving(name, "sparse")
    one.train_epoch()
    assert changes == []


@pytest.mark.parametrize("name", AT_REST)
def test_a_moving_mask_with_sparse_kernels_goes_on_to_the_bit(name):
    whole = moving(name, "sparse")
    whole.train_epoch()
    state = {key: value.clone() for key, value in whole.tensors().items()}
    restored = moving(name, "sparse")
    restored.load_tensors(state, 1)
    whole.train_epoch(), restored.train_epoch()
    for key, value in whole.tensors().items():
        assert torch.equal(value, restored.tensors()[key]), key


@pytest.mark.parametrize("name", MOVEMENTS)
def test_in_a_quiet_step_a_movement_does_nothing(name, monkeypatch):
    """What `quiet` promises, held against what the hooks do."""
    one, quiet, busy = moving(name, "dense"), 0, 0
    mover = one._mover
    before, after = Mover.before_step, Mover.after_step

    def image() -> dict[str, torch.Tensor]:
        own = {f"own/{key}": value.clone() for key, value in mover._movement.tensors().items()}
        kept = {f"mask/{key}": value.clone() for key, value in mover.support.masks.items()}
        return own | kept | {key: value.detach().clone() for key, value in mover.support.weights.items()}

    def watched(hook):
        def call(self, clock):
            nonlocal quiet, busy
            first = image()
            replaced = hook(self, clock)
            second = image()
            changed = (
                replaced
                or first.keys() != second.keys()
                or any(not torch.equal(first[key], second[key]) for key in first)
            )
            if self._movement.quiet(clock):
                quiet += 1
                assert not changed
            else:
                busy += changed
            return replaced

        return call

    monkeypatch.setattr(Mover, "before_step", watched(before))
    monkeypatch.setattr(Mover, "after_step", watched(after))
    while one.epoch < one.epochs:
        one.train_epoch()
    assert (quiet > 0) == (name in AT_REST)
    assert (busy > 0) == (name in ("rigl", "dsr", "gradual", "deepr", "snfs"))
