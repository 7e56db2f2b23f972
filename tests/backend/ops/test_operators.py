"""The formulations for Linux CPU against MLX's own: values, gradients, edges. They run on any device."""

import math
import sys
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxlab.backend.ops import activations, attention, exp
from mlxlab.backend.ops import cross_entropy as cross_entropy_module
from mlxlab.backend.ops.attention import MASK_VALUE, scaled_dot_product_attention
from mlxlab.backend.ops.cross_entropy import cross_entropy, fused_cross_entropy
from mlxlab.backend.ops.dropout import Dropout, DropoutMask
from mlxlab.backend.ops.exp import exp_of_negative

MODULES = (activations, attention, cross_entropy_module)


# The forms for MLX alone.
pytestmark = pytest.mark.usefixtures("mlx_kernels")


@pytest.fixture
def choose(monkeypatch):
    """Sets which of the two formulations is used."""

    def chosen(rewritten):
        for module in MODULES:
            monkeypatch.setattr(module, "use_custom_ops", lambda: rewritten)

    return chosen


def both(choose, function, *arrays):
    """Value and gradients by each formulation, for an uneven cotangent."""

    def total(*arrays):
        out = function(*arrays)
        return (out * mx.cos(mx.arange(out.size).reshape(out.shape))).sum()

    results = []
    for rewritten in (True, False):
        choose(rewritten)
        value = function(*arrays)
        _, gradients = mx.value_and_grad(total, argnums=list(range(len(arrays))))(*arrays)
        results.append([np.array(value), *map(np.array, gradients)])
    return results


def assert_near(results, tolerance):
    for actual, expected in zip(*results, strict=True):
        limit = tolerance * max(1, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=limit)


def attend(mask="causal", **options):
    """A function of queries, keys and values."""
    return partial(scaled_dot_product_attention, mask=mask, scale=0.4, **options)


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def test_the_exponential_is_right_to_six_digits_and_at_its_edges():
    x = np.linspace(-20, 0, 20_001).astype(np.float32)
    np.testing.assert_allclose(
        np.array(exp_of_negative(mx.array(x))), np.exp(x.astype(np.float64)), rtol=6e-6
    )
    far = np.array(exp_of_negative(mx.array([-20.5, -50.0, -88.0, -1e3, MASK_VALUE, -math.inf])))
    assert (far >= 0).all()
    assert (far < 2e-9).all()
    assert far[-2:].tolist() == [0, 0]
    assert np.isnan(np.array(exp_of_negative(mx.array(math.nan))))
    assert exp_of_negative(mx.array(0.0)).item() == 1


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_activations_and_their_gradients(choose, name):
    x = mx.concatenate(
        [normal(1000) * 3, mx.array([0.0, -0.0, 1e-35, -1e-35, 30.0, -30.0, 1e4, -1e4])]
    )
    assert_near(both(choose, getattr(activations, name), x), 3e-6)
    assert np.isnan(np.array(getattr(activations, name)(mx.array([math.nan])))).all()
    gated = (normal(500) * 3, normal(500, seed=1))
    assert_near(both(choose, partial(activations.glu, name), *gated), 1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(3, 5, 70), (4, 1030)])
def test_cross_entropy_and_its_gradient(choose, shape, smoothing):
    targets = mx.array(np.random.default_rng(0).integers(0, shape[-1], shape[:-1]))
    loss = partial(cross_entropy, targets=targets, label_smoothing=smoothing)
    assert_near(both(choose, loss, normal(*shape) * 5), 5e-6)


@pytest.mark.parametrize("classes", [3, 64, 200])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_for_gpus_has_the_values_and_gradient_of_the_loss_of_mlx(classes, smoothing):
    logits = 3 * normal(4, 7, classes) + 1
    targets = mx.random.randint(0, classes, (4, 7), key=mx.random.key(1))
    weights = mx.cos(mx.arange(28.0)).reshape(4, 7)
    results = []
    for loss, options in (
        (fused_cross_entropy, {}),
        (nn.losses.cross_entropy, {"reduction": "none"}),
    ):
        value = partial(loss, targets=targets, label_smoothing=smoothing, **options)
        total, gradient = mx.value_and_grad(lambda x, f=value: (f(x) * weights).sum())(logits)
        results.append([*map(np.array, (total, gradient, value(logits)))])
    assert_near(results, 2e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_for_gpus_reads_bfloat16_logits(smoothing):
    logits = (3 * normal(4, 3000)).astype(mx.bfloat16)
    options = {"targets": mx.array([0, 7, 100, 2999]), "label_smoothing": smoothing}
    total = mx.value_and_grad(lambda x: fused_cross_entropy(x, **options).sum())
    loss, gradient = total(logits)
    exact = nn.losses.cross_entropy(logits.astype(mx.float32), reduction="sum", **options)
    assert (loss.dtype, gradient.dtype) == (mx.float32, mx.bfloat16)
    assert abs(loss.item() - exact.item()) < 0.02 * exact.item()  # on a CPU MLX reduces in bfloat16


def test_cross_entropy_of_extreme_logits_is_finite_and_of_nan_is_nan(choose):
    choose(True)
    logits = mx.zeros((1, 100))
    logits[0, 3] = 1e4
    assert cross_entropy(logits, mx.array([3])).item() == 0
    assert cross_entropy(logits, mx.array([4])).item() == 1e4
    assert math.isnan(cross_entropy(logits * math.nan, mx.array([4])).item())


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (150, 150), (5, 12), (70, 100)])
def test_causal_attention_and_its_gradients(choose, queries, keys, kv_heads):
    """Blocks of queries, a last block that is short, more keys than queries, shared heads."""
    k, v = (normal(2, kv_heads, keys, 8, seed=seed) for seed in (1, 2))
    assert_near(both(choose, attend(), normal(2, 4, queries, 8), k, v), 1e-5)


def test_attention_with_a_mask_and_its_gradients(choose):
    arrays = [normal(2, 4, 20, 8, seed=seed) for seed in range(3)]
    real = np.arange(20) < np.array([[20], [7]])
    mask = mx.array(np.where(real, 0, MASK_VALUE).astype(np.float32))[:, None, None]
    assert_near(both(choose, attend(mask), *arrays), 1e-5)
    choose(True)
    assert np.isfinite(np.array(attend(mx.full((2, 1, 1, 20), MASK_VALUE))(*arrays))).all()


@pytest.mark.parametrize("mask", ["causal", "none"])
def test_dropout_in_attention_acts_on_the_weights_alike_on_the_way_there_and_back(choose, mask):
    """Against the definition, with the very draws that were made."""
    arrays = [normal(1, 2, 10, 8, seed=seed) for seed in range(3)]
    bias = mx.zeros((1, 1, 10, 10))
    if mask == "causal":
        bias = mx.where(mx.arange(10)[:, None] >= mx.arange(10), 0.0, MASK_VALUE)

    def fast(q, k, v):
        mx.random.seed(3)
        return attend("causal" if mask == "causal" else bias[..., :1, :], dropout=0.3)(q, k, v)

    def plain(q, k, v):
        mx.random.seed(3)
        kept = DropoutMask.draw((1, 2, 10, 10), 0.3)
        return kept.apply(mx.softmax(q @ k.swapaxes(-1, -2) * 0.4 + bias, axis=-1)) @ v

    choose(True)
    results = []
    for function in (fast, plain):
        total = mx.value_and_grad(lambda *a, f=function: mx.square(f(*a)).sum(), argnums=(0, 1, 2))
        results.append([function(*arrays), *total(*arrays)[1]])
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(np.array(actual), np.array(expected), atol=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_drops_its_fraction_and_keeps_the_mean(share):
    mx.random.seed(1)
    layer, x = Dropout(share), mx.ones((401, 499))
    out = np.array(layer(x))
    assert abs((out == 0).mean() - share) < 0.005
    assert out.mean() == pytest.approx(1, abs=0.03)
    assert np.unique(out).tolist() == pytest.approx([0, 1 / (1 - share)], rel=1e-3)
    for axis in (0, 1):  # no rows or columns that are dropped together
        deviation = math.sqrt(share * (1 - share) / x.shape[axis])
        assert (out == 0).mean(axis=axis).std() < 1.3 * deviation
    assert (np.array(layer.eval()(x)) == 1).all()
    assert not np.array_equal(np.array(layer.train()(x)), out)
    mx.random.seed(1)
    np.testing.assert_array_equal(np.array(layer(x)), out)


def test_formulations_are_chosen_by_device_and_can_be_refused(monkeypatch):
    is_linux_cpu = sys.platform == "linux" and mx.default_device() == mx.Device(mx.cpu)
    assert exp.use_custom_ops() == is_linux_cpu
    monkeypatch.setenv("MLXLAB_CUSTOM_OPS", "0")
    assert not exp.use_custom_ops()
