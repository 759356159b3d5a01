from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from snas.data.arrays import from_arrays
from snas.data.split import split_data
from snas.densities import Densities
from snas.errors import DivergedError
from snas.masks import audit
from snas.pruning.methods import given_densities
from snas.pruning.prepare import prepare
from snas.search_spaces.base import SearchSpace
from snas.training.checkpoints import Checkpoints
from snas.training.evaluation import split_into_batches
from snas.training.rule import TrainingRule
from snas.training.session import Session
from snas.training.task import score_batch
from snas.training.together import Steps


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(6 * 64, 4)
    )


SPACE = SearchSpace.from_model(network, input_shape=(3, 8, 8), name="net")
RNG = np.random.default_rng(0)
Y = np.arange(97) % 4
DATA = split_data(from_arrays(RNG.normal(size=(97, 3, 8, 8)).astype("f4") + Y[:, None, None, None], Y), seed=0)


def session(**rule) -> Session:
    densities = Densities.from_fractions(SPACE.layers, [0.5, 0.3])
    sparse = prepare(SPACE, given_densities("random"), densities, score_batch(DATA, seed=1), seed=1)
    values = {"epochs": 4, "batch_size": 16, "lr": 0.05, **rule}
    return Session(sparse.model, sparse.masks, TrainingRule(**values), DATA, seed=1, device=torch.device("cpu"))


def state(one: Session) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in one.tensors().items()}


@pytest.mark.parametrize("alone", [True, False], ids=["kept weights alone", "all weights"])
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"])
def test_a_restored_session_goes_on_to_the_bit(optimizer, alone, tmp_path):
    whole = session(optimizer=optimizer)
    first = [whole.train_epoch() for _ in range(3)]
    part = session(optimizer=optimizer)
    part.train_epoch()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("x", 1, part.checkpoint() if alone else part.tensors())
    restored = session(optimizer=optimizer)
    loaded = checkpoints.load("x", 1)
    assert any(name.startswith("kept/") for name in loaded) is alone
    assert restored.misfit(loaded) == ""
    restored.load_tensors(loaded, 1)
    second = [restored.train_epoch() for _ in range(2)]
    for one, two in zip(first[1:], second, strict=True):
        assert (one.train_loss, one.validation_loss) == (two.train_loss, two.validation_loss)
    for name, value in state(whole).items():
        assert torch.equal(value, state(restored)[name]), name


def test_masked_weights_and_their_momenta_stay_zero_through_training_and_in_the_file(tmp_path):
    one = session()
    for _ in range(2):
        one.train_epoch()
    Checkpoints(tmp_path).save("x", 2, one.tensors())
    tensors = Checkpoints(tmp_path).load("x", 2)
    for name, mask in one.masks.items():
        assert int(tensors[f"model/{name}.weight"].count_nonzero()) <= int(mask.sum())
        assert not tensors[f"model/{name}.weight"][~mask].any()
        assert not tensors[f"optimizer/{name}.weight/momentum_buffer"][~mask].any()


def test_checkpoints_have_no_room_for_masked_weights():
    one = session(optimizer="adam")
    one.train_epoch()
    whole, kept = one.tensors(), one.checkpoint()
    assert {name.removeprefix("kept/") for name in kept} == {*whole, "masks/sha256"}
    assert 2 * one.masks.kept.counts["0"] == one.masks.layers[0].total  # half of them: it begins to be worth it
    moments = [("model", ""), ("optimizer", "/exp_avg"), ("optimizer", "/exp_avg_sq")]
    names = [(layer, f"{kind}/{layer}.weight{moment}") for kind, moment in moments for layer in one.masks]
    assert {name for name in kept if name.startswith("kept/")} == {f"kept/{name}" for _, name in names}
    for layer, name in names:
        assert torch.equal(kept[f"kept/{name}"], whole[name][one.masks[layer]])  # in torch's own order


def test_layers_that_keep_most_are_written_whole():
    densities = Densities.from_fractions(SPACE.layers, [0.6, 1.0])
    sparse = prepare(SPACE, given_densities("random"), densities, score_batch(DATA, seed=1), seed=1)
    one = Session(sparse.model, sparse.masks, TrainingRule(epochs=1), DATA, seed=1, device=torch.device("cpu"))
    one.train_epoch()
    assert one.checkpoint().keys() == one.tensors().keys()


def test_a_checkpoint_of_other_masks_does_not_fit():
    one = session()
    one.train_epoch()
    kept = one.checkpoint()
    name = next(name for name in kept if name.startswith("kept/model/"))
    assert "weights" in one.misfit(kept | {name: kept[name][1:]})
    assert "stranger" in one.misfit(kept | {"kept/model/stranger.weight": torch.ones(3)})
    densities = Densities.from_fractions(SPACE.layers, [0.5, 0.3])
    sparse = prepare(SPACE, given_densities("random"), densities, score_batch(DATA, seed=2), seed=2)
    other = Session(sparse.model, sparse.masks, one.rule, DATA, seed=2, device=torch.device("cpu"))
    assert other.masks.kept == one.masks.kept
    assert "other masks" in other.misfit(kept)
    with pytest.raises(RuntimeError, match="other masks"):
        other.load_tensors(kept, 1)


def test_batchnorm_is_measured_with_the_weights_as_they_are():
    """Independent second way: normalize the whole training split by hand."""
    one = session()
    one.train_epoch()
    norm = one.model[1]
    with torch.no_grad():
        activations = one.model[0](DATA.train.x)
    # 88 examples are one calibration batch: the statistics are those of the split.
    torch.testing.assert_close(norm.running_mean, activations.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, activations.transpose(0, 1).flatten(1).var(1), rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1


def test_calibration_changes_no_weight(monkeypatch):
    with_it = session()
    with_it.train_epoch()
    with_it.train_epoch()
    monkeypatch.setattr(Session, "_calibrate", lambda self, number: None)
    without = session()
    without.train_epoch()
    without.train_epoch()
    for (name, one), (_, two) in zip(with_it.model.named_parameters(), without.model.named_parameters(), strict=True):
        assert torch.equal(one, two), name


def test_reported_accuracy_is_that_of_the_network():
    one = session()
    epoch = one.train_epoch()
    one.model.eval()
    with torch.no_grad():
        logits = one.model(DATA.validation.x)
    right = (logits.argmax(1) == DATA.validation.y).float().mean()
    assert epoch.validation_accuracy == pytest.approx(float(right))
    loss = nn.functional.cross_entropy(logits, DATA.validation.y)
    assert epoch.validation_loss == pytest.approx(float(loss), rel=1e-5)


def test_learning_rate_follows_the_schedule_step_by_step():
    one = session(schedule="cosine")
    seen = []
    original = one.optimizer.step

    def step(*arguments, **keywords):
        seen.append(one.optimizer.param_groups[0]["lr"])
        return original(*arguments, **keywords)

    one.optimizer.step = step
    for _ in range(4):
        one.train_epoch()
    steps = -(-len(DATA.train.y) // 16)
    expected = [0.05 * 0.5 * (1 + np.cos(np.pi * i / (4 * steps))) for i in range(4 * steps)]
    assert seen == pytest.approx(expected)


def test_a_last_batch_of_one_joins_its_neighbour():
    order = torch.arange(9)
    assert [len(batch) for batch in split_into_batches(order, 4)] == [4, 5]
    assert [len(batch) for batch in split_into_batches(order, 3)] == [3, 3, 3]
    assert [len(batch) for batch in split_into_batches(torch.arange(1), 4)] == [1]
    assert torch.equal(torch.cat(split_into_batches(order, 4)), order)


def test_colour_images_are_augmented_unless_told_otherwise():
    by_default, off, on = (session(augment=value).train_epoch().train_loss for value in ("auto", "off", "on"))
    assert by_default == on
    assert by_default != off


def test_bf16_trains_with_float32_weights_and_exact_zeros():
    one = session(precision="bf16")
    losses = [one.train_epoch().train_loss for _ in range(4)]
    assert losses[-1] < losses[0]
    for name, mask in one.masks.items():
        weight = one.model.get_parameter(f"{name}.weight")
        assert weight.dtype == torch.float32
        assert not weight[~mask].any()


def test_infinite_loss_is_said_at_once():
    one = session(lr=1e30)
    with pytest.raises(DivergedError, match=r"loss is (nan|inf) at epoch 1"):
        one.train_epoch()


def test_dropout_and_augmentation_leave_global_randomness_alone():
    before = torch.get_rng_state()
    session().train_epoch()
    assert torch.equal(before, torch.get_rng_state())


def test_checkpoints_are_dropped_by_key_and_age(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for key in ("trial-1", "trial-11"):
        for epoch in (1, 2):
            checkpoints.save(key, epoch, {"x": torch.ones(1)})
    checkpoints.drop("trial-1", before=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "trial-1-2.safetensors", "trial-11-1.safetensors", "trial-11-2.safetensors",
    ]  # fmt: skip
    checkpoints.drop("trial-1")
    assert checkpoints.load("trial-1", 2) is None
    assert checkpoints.load("trial-11", 2)["x"].item() == 1


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"])
def test_steps_taken_together_are_those_of_each_session_to_the_bit(optimizer):
    together, alone = ([session(optimizer=optimizer) for _ in range(2)] for _ in range(2))
    for ahead in (together[1], alone[1]):  # another learning rate, and moments that are there already
        ahead.train_epoch()
    for one in (*together, *alone):
        one.begin_epoch()
    steps = Steps(together)
    for index in range(3):
        for one in (*together, *alone):
            generator = torch.Generator().manual_seed(index)
            for parameter in one.model.parameters():
                gradient = torch.randn(parameter.shape, generator=generator)
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
        steps.take(index, 6)
        for one in alone:
            one.take_step(index, 6)
    for one, other in zip(together, alone, strict=True):
        assert state(one).keys() == state(other).keys()
        for name, value in state(one).items():
            assert torch.equal(value, state(other)[name]), name
        audit(one.model, one.masks)
