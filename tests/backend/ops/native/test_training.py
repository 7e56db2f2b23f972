"""Training with the native kernels and without, and with products in bfloat16."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from benchmarks.subject import language_model

from mlxlab.backend.ops.native import state
from mlxlab.data.batch import Batch
from mlxlab.training.device_batch import to_device
from mlxlab.training.losses.loss import CrossEntropyLoss
from mlxlab.training.optim.optimizers import adamw
from mlxlab.training.steps.optimized import OptimizedStep
from support.models import OPTIMIZED_STEP, step_scalars, weights_of

FAMILIES = ("bert", "cnn_hybrid", "transformer")
SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 48}


def losses_of(family, steps, *, dropout=0.1, **changes):
    """The losses of training on sequences that a random walk makes, and the weights afterwards."""
    model = language_model(family, "nano", 40, dropout=dropout, **SIZES)
    optimizer = adamw(0.01, [0.9, 0.999], 1e-8, learning_rate=3e-3)
    optimizer.init(model.trainable_parameters())
    step = OptimizedStep(
        **OPTIMIZED_STEP | changes, model=model, loss=CrossEntropyLoss(0.0), optimizer=optimizer
    )
    model.train()
    losses, rng = [], np.random.default_rng(0)
    for number in range(steps):
        mx.random.seed(number)
        walk = (rng.integers(0, 40, (8, 1)) + np.cumsum(rng.integers(-1, 3, (8, 25)), axis=1)) % 40
        ids = np.repeat([[1] * 14 + [2] * 8 + [0] * 2], 8, axis=0).astype(np.int32)
        tokens, targets = (walk[:, part].astype(np.int32) for part in (slice(24), slice(1, 25)))
        batch = Batch(tokens, ids, targets, (ids > 0).astype(np.float32), np.arange(8))
        losses.append(step_scalars(step(to_device(batch)))["loss"])
    return np.array(losses), weights_of(model)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_weights_are_those_of_the_operators_of_mlx(family):
    native, weights = losses_of(family, 3)
    state.deactivate()
    losses, expected = losses_of(family, 3)
    np.testing.assert_allclose(native, losses, rtol=2e-5)
    for name, weight in weights.items():
        np.testing.assert_allclose(
            weight, expected[name], atol=2e-3, err_msg=name
        )  # AdamW magnifies tiny gradients
        assert weight.size < 8 or np.median(np.abs(weight - expected[name])) < 2e-6, name


@pytest.mark.fault_injection
@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("family", ["bert", "transformer"])
def test_500_steps_in_bfloat16_end_within_a_hundredth_of_the_loss_in_float32(family):
    losses = partial(losses_of, family, 500, dropout=0.0)
    wide, narrow = losses()[0], losses(dtype="bfloat16", allow_slow_dtype=True)[0]
    assert (narrow != wide).any()
    assert wide[-50:].mean() < 0.7 * wide[:5].mean()
    assert narrow[-50:].mean() == pytest.approx(wide[-50:].mean(), rel=0.01)
