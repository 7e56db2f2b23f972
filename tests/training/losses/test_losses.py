"""Laws of the losses: focal loss, weighted sums, the no-op hooks of a plain loss."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from benchmarks.config import read_config

from mlxlab.config.instantiate import instantiate
from mlxlab.errors import ConfigError
from mlxlab.training.device_batch import DeviceBatch, to_device
from mlxlab.training.losses.loss import (
    FocalLoss,
    Loss,
    LossTerms,
)
from mlxlab.training.losses.weighted_sum import LinearCoefficient, WeightedSumLoss
from support.models import RandomBatches, make_model


class GivenLogits(nn.Module):
    """A model whose logits are its only weights."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = mx.array(logits)

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        return self.logits


def batch_of_targets(*targets: int) -> DeviceBatch:
    tokens = mx.zeros((len(targets), 1), mx.int32)
    return DeviceBatch(
        tokens, tokens + 1, mx.array(targets), mx.ones(len(targets)), mx.arange(len(targets))
    )


def gradient(loss: Loss, logits: list[list[float]], *targets: int) -> np.ndarray:
    model = GivenLogits(logits)
    batch = batch_of_targets(*targets)
    return np.array(nn.value_and_grad(model, lambda: loss(model, batch).total.sum())()[1]["logits"])


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_gradient_of_the_focal_loss_is_the_slope_of_the_loss(gamma):
    loss, logits, step = FocalLoss(None, gamma, 0.1), [[0.3, -0.9, 0.2], [2.0, 0.1, -1.0]], 1e-2
    slopes = np.zeros((2, 3))
    for row, column in np.ndindex(2, 3):
        sides = []
        for sign in (1, -1):
            moved = np.array(logits)
            moved[row, column] += sign * step
            sides.append(
                float(loss(GivenLogits(moved.tolist()), batch_of_targets(0, 1)).total.sum())
            )
        slopes[row, column] = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(gradient(loss, logits, 0, 1), slopes, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_focal_loss_of_the_conf_dirig_weighs_all_classes_equally(classes):
    loss = instantiate(read_config("trainer/loss/focal") | {"label_smoothing": 0.0})
    model = GivenLogits([[0.0] * classes] * classes)
    values = loss(model, batch_of_targets(*range(classes))).total
    expected = np.log(classes) * (1 - 1 / classes) ** 2
    np.testing.assert_allclose(np.array(values), [expected] * classes, rtol=1e-5)


def test_focal_alpha_is_refused_for_more_than_two_classes():
    with pytest.raises(ConfigError, match=r"expected null for 3 classes, got 0\.4"):
        FocalLoss(0.4, 2.0, 0.0)(GivenLogits([[0.0, 0.0, 0.0]]), batch_of_targets(1))


class RecordingLoss:
    """A loss that records which hooks were called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        return LossTerms(
            batch.aux["offset"] * mx.ones(batch.targets.shape), {"offset": batch.aux["offset"]}
        )

    def annotate(self, batch, fraction_done):
        self.calls.append(f"annotate {fraction_done}")
        return {"offset": np.full(len(batch.example_ids), fraction_done, np.float32)}

    def flush(self) -> None:
        self.calls.append("flush")


def test_a_weighted_sum_calls_every_hook_of_its_losses_which_read_their_own_annotations():
    losses, batch = (
        {"a": RecordingLoss(), "b": RecordingLoss()},
        RandomBatches().batch(np.arange(4)),
    )
    loss = WeightedSumLoss(losses, {"a": LinearCoefficient(0.0, 4.0, 1.0), "b": 2.0})
    arrays = loss.annotate(batch, 0.5)
    loss.flush()
    for inner in losses.values():
        assert inner.calls == ["annotate 0.5", "flush"]
    total, terms = loss(make_model(), to_device(batch._replace(aux=arrays)))
    np.testing.assert_array_equal(total, np.full(4, 2.0 * 0.5 + 2.0 * 0.5))
    assert terms.keys() == {"offset", "loss_a", "loss_b"}


def test_a_linear_coefficient_reaches_its_end_after_its_fraction_of_the_run():
    coefficient = LinearCoefficient(1.0, 0.2, 0.5)
    assert [coefficient(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert LinearCoefficient(1.0, 0.2, 0.0)(0.0) == pytest.approx(0.2)
    with pytest.raises(ConfigError, match=r"set trainer\.max_steps"):
        coefficient(None)
