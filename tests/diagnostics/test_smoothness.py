"""The local Lipschitz constant of the gradient, on functions whose constant is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snas.data.arrays import from_arrays
from snas.data.split import split_data
from snas.densities import Densities, Layer
from snas.diagnostics.smoothness import SmoothnessWatcher, local_lipschitz
from snas.errors import FailedError, InputError
from snas.masks import Masks
from snas.pruning.scores import Batch
from snas.training.rule import TrainingRule
from snas.training.session import Session


@pytest.mark.parametrize("delta", [0.1, 0.3, 1.0])
def test_it_is_exact_on_quadratics(delta):
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(5, generator=generator, dtype=torch.double)]
    end = [torch.randn(5, generator=generator, dtype=torch.double)]
    assert local_lipschitz(lambda w: [2.5 * w[0] + 1], start, end, delta=delta) == pytest.approx(2.5, rel=1e-12)
    half = torch.randn(5, 5, generator=generator, dtype=torch.double)
    curvature = half @ half.T
    step = end[0] - start[0]
    expected = float((curvature @ step).norm() / step.norm())
    assert local_lipschitz(lambda w: [curvature @ w[0]], start, end, delta=delta) == pytest.approx(expected, rel=1e-10)
    # Along an eigenvector it is the eigenvalue, and along that of the largest the constant of the whole function.
    values, vectors = torch.linalg.eigh(curvature)
    along = [start[0] + 0.3 * vectors[:, -1]]
    assert local_lipschitz(lambda w: [curvature @ w[0]], start, along) == pytest.approx(float(values[-1]), rel=1e-9)


def test_it_is_the_largest_ratio_along_the_step():
    start, end = [torch.zeros(1)], [torch.ones(1)]
    assert local_lipschitz(lambda w: [w[0] ** 2], start, end) == pytest.approx(1.0)
    # sqrt is steepest at the beginning: at a tenth of the way the ratio is sqrt(0.1) / 0.1.
    assert local_lipschitz(lambda w: [w[0].sqrt()], start, end) == pytest.approx(0.1**-0.5)
    assert local_lipschitz(lambda w: [w[0].sqrt()], start, end, delta=0.5) == pytest.approx(0.5**-0.5)


def test_a_gradient_that_is_not_finite_has_no_constant():
    start, end = [torch.tensor([1.0, 2.0])], [torch.tensor([0.0, 4.0])]
    for factor in (float("nan"), float("inf")):
        with pytest.raises(FailedError, match="not finite at"):
            local_lipschitz(lambda weights, factor=factor: [weights[0] * factor], start, end)


def test_no_step_has_no_constant_and_impossible_settings_are_refused():
    same = [torch.ones(2)]
    assert local_lipschitz(lambda w: w, same, same) == 0.0
    for delta in (0.0, 1.5):
        with pytest.raises(InputError, match="expected 0 < delta <= 1"):
            local_lipschitz(lambda w: w, same, same, delta=delta)
    with pytest.raises(InputError, match="every is 0"):
        SmoothnessWatcher(Batch(torch.zeros(1, 2), torch.zeros(1)), every=0)


def trained(watcher, *, masks=None):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(80, 4, generator=generator)
    data = split_data(from_arrays(x.numpy(), (x[:, 0] > 0).long().numpy()), seed=0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    layers = [Layer("0", (6, 4), parameter="0.weight"), Layer("4", (2, 6), parameter="4.weight")]
    masks = masks or Masks.dense(layers)
    masks.apply(model)
    rule = TrainingRule(epochs=2, batch_size=16, lr=0.1)
    session = Session(model, masks, rule, data, seed=3, device=torch.device("cpu"), watcher=watcher)
    epochs = [session.train_epoch() for _ in range(2)]
    return session, [(epoch.train_loss, epoch.validation_loss) for epoch in epochs]


def test_a_training_that_is_watched_is_the_same_to_the_bit():
    generator = torch.Generator().manual_seed(4)
    watcher = SmoothnessWatcher(Batch(torch.randn(50, 4, generator=generator), torch.arange(50) % 2), every=3)
    plain, losses = trained(None)
    watched, same = trained(watcher)
    assert losses == same
    assert all(
        torch.equal(one, other) for one, other in zip(plain.tensors().values(), watched.tensors().values(), strict=True)
    )
    assert [step for step, _ in watcher.found] == [0, 3, 6]
    assert all(constant > 0 for _, constant in watcher.found)


def test_the_constant_of_a_training_is_that_of_the_steps_it_made():
    """Measured again from the weights before and after a step, by a gradient of our own."""
    layers = (Layer("0", (6, 4), parameter="0.weight"), Layer("4", (2, 6), parameter="4.weight"))
    keep = {"0": torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) < 0.5, "4": torch.ones(2, 6) > 0}
    masks = Masks(layers, keep)
    assert masks.kept != Densities.dense(layers)
    batch = Batch(torch.randn(40, 4, generator=torch.Generator().manual_seed(9)), torch.arange(40) % 2)

    class Noting(SmoothnessWatcher):
        def on_step(self, session, index, steps):
            if self._start is not None:
                self.before = [part.clone() for part in self._start]
                self.after = [part.detach().clone() for part in session.model.parameters()]
            super().on_step(session, index, steps)

    watcher = Noting(batch, every=100)
    session, _ = trained(watcher, masks=masks)
    model = session.model.train()
    model[3].p = 0.0

    def gradient(weights):
        for parameter, weight in zip(model.parameters(), weights, strict=True):
            parameter.data.copy_(weight)
        loss = nn.functional.cross_entropy(model(batch.x), batch.y)
        parts = list(torch.autograd.grad(loss, list(model.parameters())))
        parts[0] = parts[0] * keep["0"]
        return parts

    (found,) = watcher.found
    assert found[0] == 0
    assert found[1] == pytest.approx(local_lipschitz(gradient, watcher.before, watcher.after), rel=1e-4)
