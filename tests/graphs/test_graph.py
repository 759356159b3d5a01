from __future__ import annotations

import copy
import gc
import random
import sys
from collections import OrderedDict
from threading import Event, Thread

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from snas.graphs import Graph, watched_everywhere
from snas.graphs import graph as graph_module
from snas.search_spaces.activations import SReLU
from snas.search_spaces.lenet import lenet_300_100
from snas.search_spaces.mlp import mlp


def gradients(model: nn.Module, x: torch.Tensor, wish: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.zero_grad()
    out = model(x)
    out.backward(wish)
    return out.detach(), [parameter.grad.clone() for parameter in model.parameters()]


def written(model: nn.Module, x: torch.Tensor, wish: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    graph = Graph.of(model, x.shape[1:])
    assert graph is not None
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)  # everything has to be written
    with torch.no_grad():
        frame = graph.frame(model, len(x), x[0].numel())
        for _ in range(2):  # the second time nothing of the first is left
            frame.inputs.copy_(x.flatten(1))
            out = frame.forward().clone()
            frame.backward(wish)
    return out, [parameter.grad.clone() for parameter in model.parameters()]


class Joined(nn.Module):
    """A sum that is read twice, a value added to itself, functions and reshapes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 5, bias=False), nn.Linear(5, 3)

    def forward(self, x):
        x = x.view(x.size(0), -1)
        y = functional.relu(self.a(x))
        z = torch.tanh(self.b(y)) + y
        z = z + z
        z += y
        return functional.log_softmax(self.c(z), dim=1)


NETWORKS = {
    "mlp": lambda: mlp((1, 2, 3), 3, hidden_layers=5, width=6).build(generator=torch.Generator()),
    "mlp with biases": lambda: mlp((1, 2, 3), 3, hidden_layers=2, width=7, batch_norm=False).build(
        generator=torch.Generator()
    ),
    "srelu": lambda: mlp((1, 2, 3), 3, hidden_layers=4, width=6, activation="srelu").build(generator=torch.Generator()),
    "swish": lambda: mlp((1, 2, 3), 3, hidden_layers=3, width=6, activation="swish").build(generator=torch.Generator()),
    "lenet-300-100": lambda: lenet_300_100((1, 2, 3), 3).build(generator=torch.Generator()),
    "joined": Joined,
    "normalized inputs": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)),
    "sequential": lambda: nn.Sequential(
        nn.Flatten(),
        nn.Linear(6, 4),
        nn.BatchNorm1d(4, affine=False),
        nn.PReLU(4),
        nn.Dropout(0.0),
        nn.ReLU(),
        nn.LayerNorm(4),
        nn.Linear(4, 4, bias=False),
        nn.ReLU(inplace=True),
        SReLU(4),
        nn.Linear(4, 3),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [2, 9])
def test_steps_give_what_autograd_gives(name, size):
    torch.manual_seed(0)
    model = NETWORKS[name]().double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    x, wish = torch.randn(size, 1, 2, 3).double(), torch.randn(size, 3).double()
    out, expected = gradients(copy.deepcopy(model), x, wish)
    found_out, found = written(model, x, wish)
    torch.testing.assert_close(found_out, out, rtol=1e-12, atol=1e-12)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


def test_looking_for_a_graph_leaves_the_network_and_random_numbers_alone():
    model = NETWORKS["mlp"]()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    assert Graph.of(model, (1, 2, 3)) is not None
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


class Skipping(nn.Module):
    """Two networks of the same modules compute different things."""

    def __init__(self, skip: bool) -> None:
        super().__init__()
        self.one, self.two, self._skip = nn.Linear(4, 4), nn.Linear(4, 2), skip

    def forward(self, x):
        y = self.one(x)
        return self.two(x + y if self._skip else y)


def check(model: nn.Module, shape: tuple[int, ...] = (4,)) -> None:
    """The network's graph gives what its code gives now."""
    x = torch.randn(3, *shape)
    wish = torch.randn_like(model(x))
    _, expected = gradients(copy.deepcopy(model), x, wish)
    _, found = written(model, x, wish)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two)


def test_networks_are_told_apart_by_their_attributes():
    for skip in (True, False, 1, 0, True):
        check(Skipping(skip))


FUNCTIONS = {"activation": torch.relu}


class Global(nn.Module):
    """What it computes is written elsewhere."""

    scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.two(FUNCTIONS["activation"](self.one(x)) * self.scale)


def test_code_that_depends_on_what_is_elsewhere_is_looked_at_again(monkeypatch):
    check(Global())
    monkeypatch.setattr(Global, "scale", 2.0)
    check(Global())
    monkeypatch.setitem(FUNCTIONS, "activation", torch.tanh)
    check(Global())
    monkeypatch.setattr(Global, "forward", lambda self, x: self.two(self.one(x)))
    check(Global())


class Varied(nn.Module):
    """What it computes is in a list and a function."""

    def __init__(self, order, function) -> None:
        super().__init__()
        self.layers, self.order, self.function = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), order, function

    def forward(self, x):
        for number in self.order:
            x = self.function(self.layers[number](x))
        return x


def test_lists_and_functions_of_networks_count():
    for order, function in (([0, 1], torch.relu), ([1, 0], torch.relu), ([0, 1], torch.tanh), ([0, 1], torch.relu)):
        check(nn.Sequential(Varied(order, function), nn.Linear(4, 2)))


@pytest.fixture
def noted(monkeypatch) -> dict[str, int]:
    """How many networks are traced, and how many proved, from now on and with nothing remembered."""
    found = {"traced": 0, "proved": 0}
    trace, prove = graph_module.trace, graph_module._prove

    def counted(name, function):
        def count(*given, **named):
            found[name] += 1
            return function(*given, **named)

        return count

    monkeypatch.setattr(graph_module, "trace", counted("traced", trace))
    monkeypatch.setattr(graph_module, "_prove", counted("proved", prove))
    monkeypatch.setattr(graph_module, "_known", OrderedDict())
    monkeypatch.setattr(graph_module, "_proved", OrderedDict())
    return found


def test_networks_that_look_alike_are_traced_once_where_their_code_is_known(noted):
    for _ in range(3):
        check(NETWORKS["mlp"](), (1, 2, 3))
    assert noted == {"traced": 1, "proved": 1}
    check(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)), (6,))
    check(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), (6,))
    assert noted == {"traced": 3, "proved": 3}


def test_networks_of_other_code_are_traced_each_and_proved_once(noted):
    for model in (Skipping(True), Skipping(True), Skipping(False), Varied([0, 1], torch.relu), Skipping(False)):
        assert Graph.of(model, (4,)) is not None
    assert noted == {"traced": 5, "proved": 3}


def test_the_latest_are_remembered(noted, monkeypatch):
    monkeypatch.setattr(graph_module, "_REMEMBERED", 2)
    for width in (3, 4, 3, 5, 3):  # 4 is the one that was not asked for lately
        assert Graph.of(nn.Sequential(nn.Linear(6, width), nn.Linear(width, 2)), (6,)) is not None
    assert noted["traced"] == 3
    assert len(graph_module._known) == len(graph_module._proved) == 2


def test_what_is_no_fault_of_the_network_is_not_remembered(noted, monkeypatch):
    def full(model):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(graph_module, "double_copy", full)
        assert Graph.of(NETWORKS["mlp"](), (1, 2, 3)) is None
    check(NETWORKS["mlp"](), (1, 2, 3))


def shared(again: bool) -> nn.Module:
    """Known code, with a module under two names, or without."""
    act = nn.ReLU()
    rest = [act] if again else []
    return nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), *rest, nn.Linear(4, 2))


@pytest.mark.parametrize("first", [True, False])
def test_a_module_under_two_names_is_not_taken_for_one_under_one(first, noted):
    for again in (first, not first):
        assert (Graph.of(shared(again), (4,)) is None) == again
    linear = nn.Linear(4, 4)
    assert Graph.of(nn.Sequential(linear, nn.ReLU()), (4,)) is not None
    assert Graph.of(nn.Sequential(linear, nn.ReLU(), linear), (4,)) is None


FLAGS = {"detached": False, "capped": False}
CAP = 1e9


def cap(x):
    return x.clamp(max=CAP)


class Flagged(nn.Module):
    """One of several networks, by what is elsewhere, and not seen from the network or the names in its code."""

    kind = "relu"

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.slope = nn.Linear(4, 4), nn.Linear(4, 2), nn.PReLU()

    def forward(self, x):
        y = self.slope(self.one(x))
        y = y.clamp(max=6.0) if FLAGS["capped"] else y
        return self.two(self.rectify(cap(y.detach() if FLAGS["detached"] else y)))

    def rectify(self, x):
        return getattr(functional, self.kind)(x)


def test_what_numbers_of_usual_size_do_not_show_is_told_apart(noted, monkeypatch):
    check(Flagged())
    for number, change in enumerate(
        (
            lambda: monkeypatch.setitem(FLAGS, "capped", True),
            lambda: monkeypatch.setattr(sys.modules[__name__], "CAP", 8.0),
            lambda: monkeypatch.setattr(Flagged, "kind", "relu6"),
        ),
        2,
    ):
        change()
        check(Flagged())
        assert noted == {"traced": 2 * number - 2, "proved": number}
        check(Flagged())


def test_one_whose_gradients_alone_differ_by_what_is_elsewhere_is_told_apart(monkeypatch):
    check(Flagged())
    monkeypatch.setitem(FLAGS, "detached", True)  # the same outputs, and no gradient of the first layer
    assert Graph.of(Flagged(), (4,)) is None
    monkeypatch.setitem(FLAGS, "detached", False)
    check(Flagged())


LOOKING = False


class Named(nn.Module):
    """Looks at its inputs' values only if a number elsewhere says so."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return -self.linear(x) if LOOKING and x[0, 0] > 100 else self.linear(x)


def test_code_that_begins_to_look_at_its_inputs_is_noticed(monkeypatch):
    assert Graph.of(Named(), (4,)) is not None
    monkeypatch.setattr(sys.modules[__name__], "LOOKING", True)
    assert Graph.of(Named(), (4,)) is None


class Quieter(nn.Module):
    """Other code in evaluation mode, in which BatchNorm's statistics are measured."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x):
        x = self.a(x)
        return self.b(self.norm(x if self.training else x / 2))


def test_graphs_of_other_code_do_not_stand_for_evaluation_mode():
    known, other = Graph.of(NETWORKS["mlp"](), (1, 2, 3)), Graph.of(Quieter(), (4,))
    assert known is not None
    assert other is not None
    assert known.measures
    assert not other.measures


@pytest.mark.parametrize("make", [Flagged, NETWORKS["mlp"]])
def test_copies_that_are_traced_are_freed_without_the_garbage_collector(make, noted):
    models = [make() for _ in range(3)]
    gc.collect()
    gc.disable()
    try:
        before = sum(type(found) is nn.PReLU for found in gc.get_objects())
        for model in models:
            assert Graph.of(model, (4,) if make is Flagged else (1, 2, 3)) is not None
        assert sum(type(found) is nn.PReLU for found in gc.get_objects()) == before
    finally:
        gc.enable()


class Clamping(nn.Module):
    """Changes its own weights where they are large."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        self.linear.weight.data.clamp_(-0.01, 0.01)
        return self.linear(x)


def test_tracing_a_network_leaves_it_and_random_numbers_alone():
    model = Flagged()
    assert Graph.of(Flagged(), (4,)) is not None
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    model.one.weight.grad = given = torch.ones(4, 4)
    assert Graph.of(model, (4,)) is not None
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.one.weight.grad is given
    assert torch.equal(given, torch.ones(4, 4))
    assert model.two.weight.grad is None
    clamping = Clamping()
    weight = clamping.linear.weight.detach().clone()
    assert Graph.of(clamping, (4,)) is None
    assert torch.equal(clamping.linear.weight, weight)


def test_networks_of_other_threads_work_while_one_is_traced():
    stop, errors = Event(), []
    other = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))

    def work():
        while not stop.is_set():
            try:
                other(torch.ones(1, 4))
            except Exception as error:
                errors.append(error)

    thread = Thread(target=work)
    thread.start()
    try:
        for _ in range(30):
            assert Graph.of(Skipping(True), (4,)) is not None
    finally:
        stop.set()
        thread.join()
    assert errors == []


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(4, 2), 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * (1 + self.calls % 2)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.linear(self.linear(x)))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x) if x.mean() > 0 else -self.linear(x)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return functional.dropout(self.linear(x), 0.5, self.training)


class Borrowing(nn.Module):
    """Uses a layer's weight without calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.other = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.other(x @ self.linear.weight)


class Holding(nn.Module):
    """Has an object of which nobody knows what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.object = nn.Linear(4, 2), object()

    def forward(self, x):
        return self.linear(x)


class Late(nn.Module):
    """Changes what it does after some steps, and counts these in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.steps = nn.Linear(4, 2), [0]

    def forward(self, x):
        self.steps[0] += 1
        return self.linear(x) * (0.5 if self.steps[0] > 10 else 1.0)


class Depth(nn.Module):
    """Leaves a layer out now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(x if random.random() < 0.01 else self.linear(x))


class Numpy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x) if np.random.random() < 2 else x  # noqa: NPY002


class Leaf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.slope if float(torch.rand(())) > 0.01 else torch.zeros_like(x)


class Scalar(nn.Module):
    """Has a parameter without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return x * self.slope


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 2))
    model[0].register_forward_hook(lambda module, inputs, output: output * 2)
    return model


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    "make",
    [
        Counting, Twice, Branching, Noisy, Borrowing, Holding, Late, Depth, Numpy, hooked, frozen, tied,
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3)),
        lambda: nn.Sequential(nn.Linear(4, 2), Leaf()),
        lambda: nn.Sequential(nn.Linear(4, 2), Scalar()),
        lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2), nn.Flatten()),
        lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.InstanceNorm1d(1, track_running_stats=True), nn.Flatten()),
        lambda: nn.Sequential(nn.Linear(4, 1 << 18)),
    ],
)  # fmt: skip
def test_what_is_no_straight_line_is_trained_as_it_is(make):
    assert Graph.of(make(), (4,)) is None


def test_what_draws_random_numbers_leaves_the_generators_as_they_were():
    leaf, depth = nn.Sequential(nn.Linear(4, 2), Leaf()), Depth()
    before = torch.random.get_rng_state(), random.getstate()
    assert Graph.of(leaf, (4,)) is None
    assert Graph.of(depth, (4,)) is None
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_hooks_on_all_modules_are_noticed():
    assert not watched_everywhere()
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    try:
        assert watched_everywhere()
    finally:
        handle.remove()
