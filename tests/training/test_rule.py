from __future__ import annotations

import pytest
import torch

from snas.bench import open_bench
from snas.errors import InputError
from snas.settings import Settings
from snas.training import devices
from snas.training.augment import crop_and_flip
from snas.training.rule import TrainingRule


def test_cosine_goes_from_the_full_rate_to_zero():
    rule = TrainingRule(epochs=4, lr=0.2)
    assert rule.learning_rate_at(0, 10) == 0.2
    assert rule.learning_rate_at(20, 10) == pytest.approx(0.1)
    assert rule.learning_rate_at(40, 10) == pytest.approx(0.0, abs=1e-12)


def test_step_divides_by_ten_at_half_and_three_quarters():
    rule = TrainingRule(epochs=4, lr=1.0, schedule="step")
    assert [rule.learning_rate_at(step, 10) for step in (0, 19, 20, 29, 30)] == [1.0, 1.0, 0.1, 0.1, 0.01]


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": float("nan")},
        {"lr": 0.0},
        {"weight_decay": -1.0},
        {"label_smoothing": 1.0},
        {"optimizer": "sdg"},
        {"schedule": "linear"},
        {"augment": "maybe"},
        {"precision": "fp8"},
    ],
)
def test_values_outside_their_range_are_refused(values):
    with pytest.raises(InputError, match="expected"):
        TrainingRule(**values)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"])
def test_every_optimizer_has_the_rules_rate_and_decay(name):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = TrainingRule(optimizer=name, lr=0.3, weight_decay=0.01).make_optimizer([parameter])
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.01)
    assert group.get("nesterov", False) is (name == "nesterov")


def test_crops_are_shifts_of_the_padded_image_mirrored_or_not():
    x = torch.arange(1.0, 1 + 6 * 2 * 8 * 8).reshape(6, 2, 8, 8)
    out = crop_and_flip(x, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    mirrored = 0
    for before, after in zip(padded, out, strict=True):
        crops = [before[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
        plain = any(torch.equal(crop, after) for crop in crops)
        flipped = any(torch.equal(crop.flip(2), after) for crop in crops)
        assert plain or flipped
        mirrored += flipped
    assert 0 < mirrored < 6
    assert torch.equal(out, crop_and_flip(x, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(out, crop_and_flip(x, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(
    ("flags", "space", "asked", "chosen"),
    [
        ({"avx512_bf16"}, "resnet14", "auto", "bf16"),
        ({"amx_bf16"}, "resnet14", "auto", "bf16"),
        ({"avx512f"}, "resnet14", "auto", "fp32"),
        ({"avx512_bf16"}, "lenet-300-100", "auto", "fp32"),
        ({"avx512_bf16"}, "resnet14", "fp32", "fp32"),
        (set(), "lenet-300-100", "bf16", "bf16"),
    ],
)
def test_auto_precision_is_bf16_for_convolutions_on_processors_that_multiply_it(
    flags, space, asked, chosen, monkeypatch
):
    monkeypatch.setattr(devices, "_processor_flags", lambda: frozenset(flags))
    bench = open_bench(Settings(space=space, precision=asked, device="cpu"))
    assert bench.task.rule.precision == chosen
    assert bench.describe_rule()["precision"] == chosen


def test_the_default_precision_is_single():
    assert Settings().precision == "fp32"
    with pytest.raises(InputError, match="precision is 'half'"):
        Settings(precision="half")


def test_momentum_can_be_set_and_the_usual_one_is_filed_as_before_it_could_be():
    parameters = [torch.nn.Parameter(torch.ones(2))]
    assert TrainingRule(momentum=0.0).make_optimizer(parameters).param_groups[0]["momentum"] == 0.0
    assert (
        TrainingRule(optimizer="nesterov", momentum=0.5).make_optimizer(parameters).param_groups[0]["momentum"] == 0.5
    )
    assert "momentum" not in TrainingRule().as_dict()
    assert TrainingRule(momentum=0.5).as_dict()["momentum"] == 0.5
    assert TrainingRule(momentum=0.0).describe().startswith("sgd lr 0.1 wd 0.0005")
    assert TrainingRule().describe().startswith("sgd lr 0.1 momentum 0.9 wd")
    for given, message in (
        ({"momentum": 1.0}, "momentum is 1.0; expected 0 <= value < 1"),
        ({"momentum": 0.5, "optimizer": "adam"}, "momentum is 0.5; expected none beside optimizer adam"),
        ({"momentum": 0.0, "optimizer": "nesterov"}, "momentum is 0.0; expected a value above 0"),
    ):
        with pytest.raises(InputError, match=message):
            TrainingRule(**given)
