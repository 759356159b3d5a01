from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from snas.data.arrays import from_arrays
from snas.data.split import split_data
from snas.densities import Densities
from snas.errors import FailedError, InputError, RefusedError
from snas.pruning.dynamic.base import Movement, movements
from snas.pruning.dynamic.mover import Mover
from snas.pruning.methods import Method, open_method
from snas.pruning.prepare import prepare
from snas.search_spaces.base import SearchSpace
from snas.training.checkpoints import Checkpoints
from snas.training.rule import TrainingRule
from snas.training.session import Session
from snas.training.task import score_batch


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(6 * 36, 4)
    )


SPACE = SearchSpace.from_model(network, input_shape=(3, 6, 6), name="net")
RNG = np.random.default_rng(0)
Y = np.arange(80) % 4
DATA = split_data(from_arrays(RNG.normal(size=(80, 3, 6, 6)).astype("f4") + Y[:, None, None, None], Y), seed=0)
STEPS = -(-len(DATA.train.y) // 16)  # of an epoch
KEPT = 205
CPU = torch.device("cpu")

# movement, options, allocation of the starting mask; updates often enough for few steps an epoch
MOVEMENTS = {
    "gradual": ("gradual", {"every": 2}, "global"),
    "rounds-init": ("rounds", {"rounds": 2}, "global"),
    "rounds-none": ("rounds", {"rounds": 1, "rewind": "none"}, "global"),
    "rounds-redraw": ("rounds", {"rounds": 1, "rewind": "redraw"}, "global"),
    "rounds-1": ("rounds", {"rounds": 2, "rewind": "1", "score": "snip"}, "global"),
    "set": ("set", {}, "er"),
    "rigl": ("rigl", {"every": 2}, "erk"),
    "dsr": ("dsr", {"every": 2, "threshold": 0.02}, "uniform"),
    "snfs": ("snfs", {}, "uniform"),
    "deepr": ("deepr", {"alpha": 0.01, "temperature": 1e-6}, "uniform"),
}
DYNAMIC = ["set", "rigl", "dsr", "snfs", "deepr"]


def make(
    movement: Movement | None,
    *,
    allocation: str = "uniform",
    space: SearchSpace = SPACE,
    kept: int = KEPT,
    goal_kept: int | None = None,
    **rule,
) -> Session:
    dense = movement is not None and movement.starts_dense
    method = Method("m", "random", "dense" if dense else allocation, rescale=True)
    sparse = prepare(space, method, kept, score_batch(DATA, seed=1), seed=1)
    goal = replace(sparse.goal, target=kept if goal_kept is None else goal_kept, allocation="global")
    values = {"epochs": 3, "batch_size": 16, "lr": 0.05, **rule}
    return Session(
        sparse.model, sparse.masks, TrainingRule(**values), DATA, seed=1, device=CPU, movement=movement, goal=goal
    )


def session(name: str, **rule) -> Session:
    kind, options, allocation = MOVEMENTS[name]
    return make(movements.get(kind)(**options), allocation=allocation, **rule)


def state(one: Session) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in one.tensors().items()}


@pytest.mark.parametrize("name", MOVEMENTS)
def test_a_training_interrupted_after_any_epoch_goes_on_to_the_bit(name, tmp_path):
    whole, checkpoints = session(name), Checkpoints(tmp_path)
    epochs, masks = [], []
    for number in range(1, whole.epochs + 1):
        epochs.append(whole.train_epoch())
        checkpoints.save("x", number, whole.tensors())
        masks.append(whole.masks)
    assert whole.masks.kept.kept_weights == KEPT
    last = state(whole)
    for start in range(1, whole.epochs):
        restored = session(name)
        restored.load_tensors(checkpoints.load("x", start), start)
        assert restored.masks == masks[start - 1]
        for epoch in epochs[start:]:
            again = restored.train_epoch()
            assert (epoch.number, epoch.train_loss, epoch.validation_loss) == (
                again.number, again.train_loss, again.validation_loss,
            )  # fmt: skip
        assert state(restored).keys() == last.keys()
        assert all(torch.equal(value, last[key]) for key, value in state(restored).items())
        assert restored.masks == whole.masks


@pytest.fixture
def watched(monkeypatch):
    """Check, around every moment at which a mask may move, what must hold; collect the counts of layers."""
    counts: list[dict[str, int]] = []

    def watch(hook):
        def checked(self, *arguments):
            support = self.support
            before = {name: mask.clone() for name, mask in support.masks.items()}
            result = hook(self, *arguments)
            for name, mask in support.masks.items():
                weight = support.weights[name]
                moments = [m for m in support.optimizer.state[weight].values() if m.shape == weight.shape]
                assert torch.equal(support.factors[name].bool(), mask)
                assert not weight[~mask].any()
                if hook.__name__ != "begin_epoch":  # rewinding puts weights back
                    came = mask & ~before[name]
                    assert not weight[came].any()
                    assert all(not moment[came].any() for moment in moments)
                assert all(not moment[~mask].any() for moment in moments)
            counts.append(support.kept())
            return result

        return checked

    for name in ("begin_epoch", "before_step", "after_step", "end_epoch"):
        monkeypatch.setattr(Mover, name, watch(getattr(Mover, name)))
    return counts


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adagrad"])
@pytest.mark.parametrize("name", DYNAMIC)
def test_counts_are_exact_and_new_weights_fresh_after_every_update(name, optimizer, watched):
    one = session(name, optimizer=optimizer, lr=0.05 if optimizer == "sgd" else 0.005)
    first = one.masks
    while one.epoch < one.epochs:
        one.train_epoch()
    assert len(watched) == 3 * (2 + 2 * STEPS)
    assert {sum(counts.values()) for counts in watched} == {KEPT}
    assert one.masks != first
    if name in ("set", "rigl", "deepr"):
        assert all(counts == first.kept.counts for counts in watched)
    else:
        assert any(counts != first.kept.counts for counts in watched)


@pytest.mark.parametrize("name", [name for name in MOVEMENTS if name not in DYNAMIC])
def test_pruning_only_ever_removes(name, watched):
    one = session(name, optimizer="adam", lr=0.005)
    assert one.masks.kept.kept_weights == one.masks.kept.total_weights
    while one.epoch < one.epochs:
        one.train_epoch()
    totals = [sum(counts.values()) for counts in watched]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == one.masks.kept.kept_weights == KEPT


@pytest.mark.parametrize("name", ["dsr", "snfs"])
def test_pinned_layers_keep_their_count(name, watched):
    kind, options, _ = MOVEMENTS[name]
    space = SearchSpace.from_model(network, input_shape=(3, 6, 6), name="net", pinned={"0": 0.5})
    one = make(movements.get(kind)(**options), space=space)
    while one.epoch < one.epochs:
        one.train_epoch()
    assert {counts["0"] for counts in watched} == {81}
    assert {sum(counts.values()) for counts in watched} == {KEPT}


PROCESS = """
import sys
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads(1)
import test_moving_masks as tests
for name in tests.MOVEMENTS:
    one = tests.session(name)
    while one.epoch < one.epochs:
        one.train_epoch()
    print(one.masks.checksum())
"""


@pytest.mark.slow
def test_the_same_seed_gives_the_same_masks_in_another_process():
    code = PROCESS.format(folder=str(Path(__file__).parent))
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    here = []
    for name in MOVEMENTS:
        one = session(name)
        while one.epoch < one.epochs:
            one.train_epoch()
        here.append(one.masks.checksum())
    assert here == there


def test_a_movement_that_never_moves_changes_nothing():
    still, fixed = make(Movement()), make(None)
    for _ in range(3):
        one, two = still.train_epoch(), fixed.train_epoch()
        assert (one.train_loss, one.validation_loss) == (two.train_loss, two.validation_loss)
    for name, value in fixed.tensors().items():
        assert torch.equal(value, still.tensors()[name]), name


@dataclass(kw_only=True)
class Spy(Movement):
    """Notes what it is shown."""

    cycles_: int = 1

    def __post_init__(self) -> None:
        self.clocks, self.afters, self.ends, self.gradients = [], [], [], []

    @property
    def cycles(self) -> int:
        return self.cycles_

    def before_step(self, support, goal, clock) -> bool:
        self.clocks.append((clock, support.optimizer.param_groups[0]["lr"]))
        self.gradients.append({name: support.gradient(name).clone() for name in support.weights})
        return False

    def after_step(self, support, goal, clock) -> None:
        self.afters.append((clock.step, clock.place, clock.learning_rate))

    def after_epoch(self, support, goal, clock) -> None:
        self.ends.append((clock.step, clock.cycle, clock.progress))


def test_the_schedule_starts_again_with_every_cycle_and_epochs_count_on():
    spy = Spy(cycles_=2)
    one = make(spy)
    assert one.epochs == 6
    numbers = [one.train_epoch().number for _ in range(6)]
    assert numbers == [1, 2, 3, 4, 5, 6]
    cycle = 3 * STEPS
    assert [clock.step for clock, _ in spy.clocks] == [*range(2 * cycle)]
    assert [clock.place for clock, _ in spy.clocks] == [*range(cycle), *range(cycle)]
    expected = [0.05 * 0.5 * (1 + np.cos(np.pi * place / cycle)) for place in range(cycle)]
    assert [rate for _, rate in spy.clocks] == pytest.approx(expected * 2)
    assert [clock.learning_rate for clock, _ in spy.clocks] == pytest.approx(expected * 2)
    assert spy.afters == [(clock.step + 1, clock.place + 1, clock.learning_rate) for clock, _ in spy.clocks]
    places = [(0, 1 / 3), (0, 2 / 3), (0, 1), (1, 1 / 3), (1, 2 / 3), (1, 1)]
    assert spy.ends == [(STEPS * epoch, *place) for epoch, place in enumerate(places, start=1)]
    with pytest.raises(InputError, match="over after 6 epochs"):
        one.train_epoch()


def test_rewound_cycles_enter_the_schedule_where_they_rewind_to(monkeypatch):
    rates = []
    one = session("rounds-1", epochs=3)
    step = one.optimizer.step
    monkeypatch.setattr(one.optimizer, "step", lambda: (rates.append(one.optimizer.param_groups[0]["lr"]), step()))
    assert one.epochs == 3 + 2 * 2
    while one.epoch < one.epochs:
        one.train_epoch()
    expected = [0.05 * 0.5 * (1 + np.cos(np.pi * place / (3 * STEPS))) for place in range(3 * STEPS)]
    assert rates == pytest.approx([*expected, *expected[STEPS:], *expected[STEPS:]])


class Replacing(Movement):
    """Takes the place of every step of the optimizer."""

    def before_step(self, support, goal, clock) -> bool:
        return True


def test_a_movement_can_take_the_place_of_the_optimizers_step():
    one = make(Replacing())
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    one.train_epoch()
    assert all(torch.equal(old, new) for old, new in zip(before, one.model.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_movements_see_unscaled_gradients_of_all_weights(precision):
    """Second way: the gradients of the same network, put together by hand."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
    space = SearchSpace.from_model(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(108, 4)), input_shape=(3, 6, 6), name="linear"
    )
    spy = Spy()
    one = make(spy, space=space, kept=40, batch_size=len(DATA.train.y), augment="off", precision=precision)
    model.load_state_dict(one.model.state_dict())
    one.train_epoch()
    x = DATA.train.x.flatten(1)
    errors = torch.softmax(model(DATA.train.x), 1) - functional.one_hot(DATA.train.y, 4)
    expected = (errors.T @ x / len(x)).detach()
    (gradient,) = spy.gradients[0].values()
    assert gradient.dtype == torch.float32
    assert int(gradient.count_nonzero()) > 400
    tolerance = 1e-6 if precision == "fp32" else 0.05
    torch.testing.assert_close(gradient, expected, rtol=10 * tolerance, atol=tolerance)


@dataclass(kw_only=True)
class Cut(Movement):
    """Takes every weight of a layer that `keep` does not."""

    layer: str
    keep: torch.Tensor
    hook: str

    def before_epoch(self, support, goal, clock) -> None:
        if self.hook == "before" and clock.step:
            support.move({self.layer: self.keep})

    def after_step(self, support, goal, clock) -> None:
        if self.hook == "after" and clock.step == 7:
            support.move({self.layer: self.keep})


@pytest.mark.parametrize(("hook", "when"), [("before", "before epoch 2"), ("after", "after epoch 2")])
def test_a_layer_that_is_emptied_is_refused(hook, when):
    one = make(Cut(layer="5", keep=torch.zeros(4, 216, dtype=torch.bool), hook=hook))
    one.train_epoch()
    with pytest.raises(RefusedError, match=f"{when} the mask moved: layer '5' keeps none of its 864 weights"):
        one.train_epoch()


def test_a_network_without_a_path_is_refused():
    kept = torch.zeros(6, 3, 3, 3, dtype=torch.bool)
    kept[0] = True
    one = make(Cut(layer="0", keep=kept, hook="after"))
    readers = one.masks["5"].clone()
    one.train_epoch()
    readers[:, :36] = False  # nobody reads the one channel that is left
    one.enforcer.move({"5": readers})
    with pytest.raises(RefusedError, match="no path of kept weights"):
        one.train_epoch()


def test_a_goal_that_is_missed_is_told_at_the_end():
    one = make(Movement(), goal_kept=KEPT + 3)
    one.train_epoch()
    one.train_epoch()
    with pytest.raises(FailedError, match="ended with 205 weights instead of 208, 3 too few"):
        one.train_epoch()


def test_masks_are_those_of_the_network_after_every_epoch():
    one = session("gradual")
    seen = []
    while one.epoch < one.epochs:
        one.train_epoch()
        seen.append(one.masks.kept.kept_weights)
        for name, mask in one.masks.items():
            weight = one.model.get_parameter(f"{name}.weight")
            assert not weight[~mask].any()
            assert weight[mask].any()
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 3


def test_a_movement_needs_a_goal_and_enough_epochs():
    sparse = prepare(SPACE, Method("m", "random", "uniform"), KEPT, score_batch(DATA, seed=1), seed=1)
    with pytest.raises(InputError, match="without a goal"):
        Session(sparse.model, sparse.masks, TrainingRule(epochs=1), DATA, seed=1, device=CPU, movement=Movement())
    with pytest.raises(InputError, match="rewind is 1; expected fewer than the 1 epochs"):
        session("rounds-1", epochs=1)


def test_given_densities_are_where_gradual_pruning_ends():
    target = Densities.from_fractions(SPACE.layers, [0.5, 0.1])
    sparse = prepare(SPACE, Method("m", "random", "dense"), target, score_batch(DATA, seed=1), seed=1)
    goal = replace(sparse.goal, target=target)
    rule = TrainingRule(epochs=2, batch_size=16, lr=0.05)
    one = Session(
        sparse.model, sparse.masks, rule, DATA, seed=1, device=CPU,
        movement=movements.get("gradual")(), goal=goal,
    )  # fmt: skip
    one.train_epoch()
    one.train_epoch()
    assert one.masks.kept == target


@pytest.mark.parametrize(
    "name",
    [
        "magnitude-trained", "obd-trained", "gradual", "imp", "imp-rewind", "set", "deepr", "dsr", "snfs", "rigl",
        "rigl-er",
    ],
)  # fmt: skip
def test_every_method_of_the_library_makes_its_movement(name):
    movement = open_method(name).make_movement()
    assert movement.total_epochs(4) >= 4
    assert movement.tensors().keys() <= {"threshold"}
