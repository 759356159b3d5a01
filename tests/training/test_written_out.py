"""Sessions whose networks have a graph train without autograd; the results are autograd's."""

from __future__ import annotations

import copy
import gc
from weakref import ref

import numpy as np
import pytest
import torch
from torch import nn

from snas.data.arrays import from_arrays
from snas.data.split import split_data
from snas.densities import Densities
from snas.errors import DivergedError, FailedError
from snas.masks import Masks, audit
from snas.pruning.methods import given_densities
from snas.pruning.prepare import prepare
from snas.search_spaces.base import SearchSpace
from snas.search_spaces.mlp import mlp
from snas.training import written_out
from snas.training.checkpoints import Checkpoints
from snas.training.rule import TrainingRule
from snas.training.session import Session
from snas.training.task import network_at_fault, score_batch

SPACE = mlp((1, 5, 5), 4, hidden_layers=4, width=12)
RNG = np.random.default_rng(0)
Y = np.arange(130) % 4
DATA = split_data(from_arrays(RNG.normal(size=(130, 1, 5, 5)).astype("f4") + Y[:, None, None, None] / 2, Y), seed=0)


class Usual(Session):
    """Trains by autograd always."""

    def _written_out(self):
        return None


class Written(Session):
    """Never trains by autograd."""

    def learn(self, batch, generator, index, steps):
        raise AssertionError("this network has a graph")


def session(kind: type[Session], **rule) -> Session:
    densities = Densities.from_fractions(SPACE.layers, [0.5] * len(SPACE.layers))
    sparse = prepare(SPACE, given_densities("random"), densities, score_batch(DATA, seed=1), seed=1)
    values = {"epochs": 4, "batch_size": 16, "lr": 0.05, **rule}
    return kind(sparse.model, sparse.masks, TrainingRule(**values), DATA, seed=1, device=torch.device("cpu"))


def in_double(one: Session) -> Session:
    """The same with everything in double precision, where the order of operations is the only difference."""
    one.model.double()
    arrays = {part: copy.copy(getattr(one.data, part)) for part in ("train", "validation")}
    for part in arrays.values():
        object.__setattr__(part, "x", part.x.double())
    one.data = copy.copy(one.data)
    for name, part in arrays.items():
        object.__setattr__(one.data, name, part)
    one.optimizer = one.rule.make_optimizer(one.model.parameters())
    one.enforcer = type(one.enforcer)(one.model, one.masks)
    return one


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_results_are_those_of_autograd(optimizer, smoothing):
    rule = {"optimizer": optimizer, "label_smoothing": smoothing, "lr": 0.01}
    usual, written = (in_double(session(kind, **rule)) for kind in (Usual, Written))
    for _ in range(2):
        one, two = usual.train_epoch(), written.train_epoch()
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-9)
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-9)
        assert (two.train_accuracy, two.validation_accuracy) == (one.train_accuracy, one.validation_accuracy)
        audit(written.model, written.masks)
    theirs = usual.tensors()
    for name, value in written.tensors().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_a_restored_session_goes_on_to_the_bit_by_its_graph(optimizer):
    whole, part = session(Written, optimizer=optimizer), session(Written, optimizer=optimizer)
    expected = [whole.train_epoch() for _ in range(3)][1:]
    part.train_epoch()
    restored = session(Written, optimizer=optimizer)
    restored.load_tensors({name: value.clone() for name, value in part.tensors().items()}, 1)
    found = [restored.train_epoch() for _ in range(2)]
    assert [(one.train_loss, one.validation_loss) for one in found] == [
        (one.train_loss, one.validation_loss) for one in expected
    ]
    for name, value in whole.tensors().items():
        assert torch.equal(value, restored.tensors()[name]), name


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"])
def test_a_session_goes_on_from_a_file_to_the_bit(optimizer, tmp_path):
    whole, part, restored = (session(Written, optimizer=optimizer, lr=0.01) for _ in range(3))
    part.train_epoch()
    Checkpoints(tmp_path).save("x", 1, part.checkpoint())
    state = Checkpoints(tmp_path).load("x", 1)
    assert any(name.startswith("kept/optimizer/") for name in state)
    restored.load_tensors(state, 1)
    for one, count in ((whole, 3), (restored, 2)):
        for _ in range(count):
            one.train_epoch()
    for name, value in whole.tensors().items():
        assert torch.equal(value, restored.tensors()[name]), name


def test_a_session_that_trained_already_can_be_taken_back():
    one = session(Written, optimizer="adam")
    one.train_epoch()
    kept = {name: value.clone() for name, value in one.tensors().items()}
    after = one.train_epoch()
    one.load_tensors(kept, 1)
    assert one.train_epoch().train_loss == after.train_loss


def test_a_dense_network_has_nothing_masked():
    densities = Densities.from_fractions(SPACE.layers, [1.0] * len(SPACE.layers))
    sparse = prepare(SPACE, given_densities("random"), densities, score_batch(DATA, seed=1), seed=1)
    rule = TrainingRule(epochs=2, batch_size=16, lr=0.05)
    losses = [
        kind(copy.deepcopy(sparse.model), sparse.masks, rule, DATA, seed=1, device=torch.device("cpu"))
        .train_epoch()
        .train_loss
        for kind in (Usual, Written)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_divergence_is_noticed():
    one = session(Written, lr=1e30, epochs=4)
    with pytest.raises(DivergedError):
        [one.train_epoch() for _ in range(4)]


def test_batches_of_one_example_fail_as_with_autograd():
    for kind in (Usual, Written):
        one = session(kind, batch_size=1)
        with pytest.raises(FailedError), network_at_fault():
            one.train_epoch()


def test_a_session_that_rested_goes_on_to_the_bit_and_kept_its_network_alone():
    through, rested = session(Written), session(Written)
    for _ in range(2):
        one, two = through.train_epoch(), rested.train_epoch()
        assert (one.train_loss, one.validation_loss) == (two.train_loss, two.validation_loss)
        writing = ref(rested._writing)  # with rows of gradients and factors, and memory for batches
        rested.rest()
        gc.collect()
        assert writing() is None
        assert all(parameter.grad is None for parameter in rested.model.parameters())
    for name, value in through.tensors().items():
        assert torch.equal(value, rested.tensors()[name]), name


@pytest.mark.parametrize("kind", [Usual, Written])
def test_what_is_changed_between_epochs_counts(kind):
    changed, usual = session(kind), session(kind)
    for one in (changed, usual):
        one.train_epoch()
    norms = [module for module in changed.model.modules() if isinstance(module, nn.BatchNorm1d)]
    for norm in norms:
        norm.eps = 10.0
    assert norms
    assert changed.train_epoch().train_loss > usual.train_epoch().train_loss + 0.05


@pytest.mark.parametrize("kind", [Usual, Session])
def test_a_hook_that_is_set_between_epochs_is_called(kind):
    one = session(kind)
    one.train_epoch()
    calls = []
    one.model.register_forward_hook(lambda *_: calls.append(one.model.training))
    one.train_epoch()
    batches = len(one.begin_epoch()[0])
    assert calls.count(True) == batches
    assert calls.count(False) > 1  # calibration and validation


def test_steps_are_kept_as_long_as_the_network_looks_the_same():
    one = session(Written)
    one.train_epoch()
    writing = one._writing
    one.train_epoch()
    assert one._writing is writing
    one.model.note = "something"
    one.train_epoch()
    assert one._writing is not writing


def test_an_attribute_that_nobody_knows_ends_the_training_by_steps():
    one = session(Session)
    one.train_epoch()
    assert one._writing is not None
    one.model.note = object()
    one.train_epoch()
    assert one._writing is None


@pytest.mark.parametrize("most", [1, 4 * 40, 1 << 20])
def test_losses_are_the_same_however_many_are_computed_at_once(most, monkeypatch):
    expected = session(Written, label_smoothing=0.1).train_epoch()
    monkeypatch.setattr(written_out, "MOST_OUTPUTS", most)
    found = session(Written, label_smoothing=0.1).train_epoch()
    assert found.train_loss == pytest.approx(expected.train_loss, rel=1e-12)
    assert (found.train_accuracy, found.validation_loss) == (expected.train_accuracy, expected.validation_loss)


@pytest.mark.parametrize("affine", [False, True])
def test_a_module_that_is_replaced_by_one_like_it_measures_its_own_statistics(affine):
    losses = []
    for kind in (Usual, Written):
        one = session(kind, lr=0.001)
        if not affine:
            one.model.blocks[0].first.norm = nn.BatchNorm1d(12, affine=False)
            one.optimizer = one.rule.make_optimizer(one.model.parameters())
        one.train_epoch()
        norm, old = nn.BatchNorm1d(12, affine=affine), one.model.blocks[0].first.norm
        norm.weight, norm.bias = old.weight, old.bias
        one.model.blocks[0].first.norm = norm
        losses.append(one.train_epoch().validation_loss)
        assert norm.running_mean.any()
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_what_trained_the_epoch_before_says_nothing_of_an_epoch_that_others_train():
    one = session(Session)
    one.train_epoch()
    steps = len(one.begin_epoch()[0])  # as a stack begins it, which has the parameters elsewhere
    for parameter in one.model.parameters():
        parameter.data = parameter.data.clone()
    one.model.blocks[0].first.norm.bias.data[3] = torch.inf
    with pytest.raises(DivergedError, match=r"parameter 'blocks\.0"):
        one.end_epoch(steps, 1.0, 0.5, start=0.0, validation=(1.0, 0.5))


class Cooling(nn.Module):
    """Other people's code that counts its evaluations, and trains with another number, and at last another function,
    after each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.evaluations = nn.Linear(25, 8), nn.Linear(8, 4), 0

    def forward(self, x):
        if not self.training:
            self.evaluations += 1
        x = self.a(x.flatten(1)) / (1 + self.evaluations)
        return self.b(torch.relu(x) if self.evaluations < 2 else torch.tanh(x))


COOLING = SearchSpace.from_model(Cooling, input_shape=(1, 5, 5), name="cooling")


def cooling(kind: type[Session]) -> Session:
    rule = TrainingRule(epochs=4, batch_size=16, lr=0.05)
    return kind(Cooling(), Masks.dense(COOLING.layers), rule, DATA, seed=1, device=torch.device("cpu"))


def test_what_the_code_of_others_notes_in_evaluation_counts_in_training():
    usual, written = cooling(Usual), cooling(Written)
    for _ in range(4):
        one, two = usual.train_epoch(), written.train_epoch()
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-4)
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-3)
    assert written.model.evaluations > 2


def test_an_attribute_that_nobody_knows_hides_no_hook():
    one = cooling(Session)
    one.train_epoch()
    assert one._writing is not None
    one.model.note = object()
    calls = []
    one.model.b.register_forward_hook(lambda *_: calls.append(one.model.training))
    one.train_epoch()
    assert calls.count(True) == len(one.begin_epoch()[0])


def test_a_parameter_that_is_replaced_is_not_trained_in_secret():
    one = session(Written)
    one.train_epoch()
    linear = next(module for module in one.model.modules() if isinstance(module, nn.Linear))
    linear.weight = nn.Parameter(torch.zeros_like(linear.weight))
    with pytest.raises(ValueError, match="stepped"):
        one.train_epoch()


class Halving(nn.Module):
    """Other people's code, and other code in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(25, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.a(x.flatten(1))
        return self.b(self.norm(x if self.training else x / 2))


def test_statistics_are_measured_by_the_code_of_evaluation_mode():
    sessions = []
    for kind in (Usual, Written):
        torch.manual_seed(0)
        model = Halving()
        space = SearchSpace.from_model(Halving, input_shape=(1, 5, 5), name="halving")
        rule = TrainingRule(epochs=2, batch_size=16, lr=0.05)
        masks = Masks.dense(space.layers)
        sessions.append(kind(model, masks, rule, DATA, seed=1, device=torch.device("cpu")))
        sessions[-1].train_epoch()
    means = [one.model.norm.running_mean for one in sessions]
    torch.testing.assert_close(means[1], means[0], rtol=1e-3, atol=1e-5)
    x = torch.cat([DATA.train.x[batch] for batch in sessions[1].calibration_batches(1)])
    halved = sessions[1].model.a(x.flatten(1)).detach() / 2
    torch.testing.assert_close(means[1], halved.mean(0), rtol=1e-3, atol=1e-5)
