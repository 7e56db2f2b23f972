"""Every kernel against NumPy in float64 over random shapes, and its gradients against finite differences of that."""

import time
from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.backend.ops.native import kernels
from support import kernel_references as references

pytestmark = pytest.mark.usefixtures("native")
SEEDS = range(12)
KEY, BOUND = (123456789, 987654321), 50_000
STEP = 1e-4  # of a finite difference, in float64


@pytest.fixture
def rng(request):
    return np.random.default_rng(request.node.callspec.params.get("seed", 0))


def draw(rng, *shape):
    return rng.normal(size=shape)


def device(x, rng=None):
    """The array on the device; with `rng` sometimes as a view with other strides."""
    x = mx.array(x.astype(np.float32)) if x.dtype == np.float64 else mx.array(x)
    if rng is None or x.ndim < 2 or rng.random() < 0.5:
        return x
    axes = rng.permutation(x.ndim)
    return mx.contiguous(x.transpose(*axes.tolist())).transpose(*np.argsort(axes).tolist())


def assert_close(actual, expected, tolerance=1e-5):
    actual = np.array(actual, np.float64)
    assert actual.shape == expected.shape
    limit = tolerance * max(np.abs(expected).max(initial=0), 1e-3)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=limit)


def check(rng, kernel, reference, *inputs, tolerance=1e-5):
    """Values, and the directional derivative of a weighted sum of them by every input."""
    arrays, expected = [device(x, rng) for x in inputs], reference(*inputs)
    assert_close(kernel(*arrays), expected, tolerance)
    weights = draw(rng, *expected.shape)

    def loss(*arrays):
        return (kernel(*arrays) * device(weights)).sum()

    for compiled in (False, True):
        gradients = mx.grad(loss, list(range(len(inputs))))
        result = (mx.compile(gradients) if compiled else gradients)(*arrays)
        result = result if isinstance(result, list | tuple) else [result]
        for index, gradient in enumerate(result):
            gradient = np.array(gradient, np.float64)
            along = gradient / max(np.abs(gradient).max(initial=0), 1e-9)
            for direction in (draw(rng, *gradient.shape), along):
                derivative = directional_derivative(reference, inputs, index, direction, weights)
                size = np.linalg.norm(gradient) * np.linalg.norm(direction)
                limit = 5 * tolerance * max(size, 1e-2)
                assert (gradient * direction).sum() == pytest.approx(derivative, abs=limit)


def directional_derivative(reference, inputs, index, direction, weights):
    above, below = [*inputs], [*inputs]
    above[index] = inputs[index] + STEP * direction
    below[index] = inputs[index] - STEP * direction
    return ((reference(*above) - reference(*below)) * weights).sum() / (2 * STEP)


@pytest.mark.parametrize("seed", SEEDS)
def test_linear(seed, rng):
    outer = tuple(rng.integers(1, (40, 6, 5)[: rng.integers(1, 4)]))
    size, out = (int(n) for n in rng.integers(1, 150, 2))
    if seed % 4 == 0:
        outer, size = (300,), 600  # several blocks of depth and tasks
    x, w, b = draw(rng, *outer, size), draw(rng, out, size), draw(rng, out)
    check(rng, kernels.linear, references.linear, x, w, b)
    check(rng, kernels.linear, references.linear, x, w)


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_linear_in_bfloat16(seed, rng):
    """With the same rounding as in the reference, what is left is the error of sums in float32."""
    rows, size, out = (300, 600, 70) if seed == 0 else (int(n) for n in rng.integers(1, 150, 3))
    # One bit more than bfloat16 has: half of the weights are ties.
    x, weight = draw(rng, rows, size), references.round_mantissa(draw(rng, out, size), 9)
    inputs = (x, weight, draw(rng, out))
    cotangent = draw(rng, rows, out)
    expected = references.linear_in_bfloat16(*inputs, cotangent)
    for function in (kernels.linear, mx.compile(kernels.linear)):
        with kernels.bfloat16_products(True):
            arrays = [device(x, rng) for x in inputs]
            results = mx.vjp(lambda *x, f=function: [f(*x)], arrays, [device(cotangent, rng)])
        for actual, array in zip([*results[0], *results[1]], expected, strict=True):
            assert_close(actual, array, 1e-6)


@pytest.mark.parametrize("seed", SEEDS[:6])
@pytest.mark.parametrize("kind", ["gelu", "silu"])
def test_activations(seed, rng, kind):
    shape = tuple(rng.integers(1, 60, rng.integers(1, 4)))
    x, up = (3 * draw(rng, *shape) for _ in range(2))
    check(rng, partial(kernels.activation, kind), getattr(references, kind), x)
    check(rng, partial(kernels.activation, kind), getattr(references, kind), x, up)


@pytest.mark.parametrize("seed", SEEDS[:6])
@pytest.mark.parametrize("centered", [True, False])
def test_norms(seed, rng, centered):
    size = int(rng.integers(2, 200))
    x = 3 + draw(rng, *rng.integers(1, 50, rng.integers(1, 3)), size)
    w, b = draw(rng, size), draw(rng, size)
    kernel = lambda x, w, b=None: kernels.norm(x, w, b, 1e-5, centered=centered)  # noqa: E731
    check(rng, kernel, lambda x, w, b=None: references.norm(x, w, b, 1e-5, centered), x, w, b)
    check(rng, kernel, lambda x, w, b=None: references.norm(x, w, b, 1e-5, centered), x, w)


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_losses(seed, rng):
    outer, classes = tuple(rng.integers(1, 30, rng.integers(0, 3))), int(rng.integers(2, 300))
    x, teacher = 3 * draw(rng, *outer, classes), 3 * draw(rng, *outer, classes)
    targets = rng.integers(0, classes, outer).astype(np.int32).reshape(outer)
    for smoothing in (0.0, 0.1):
        kernel = lambda x, e=smoothing: kernels.cross_entropy(x, mx.array(targets), e)  # noqa: E731
        check(rng, kernel, lambda x, e=smoothing: references.cross_entropy(x, targets, e), x)
    kernel = lambda x: kernels.kl_divergence(x, device(teacher), 0.5)  # noqa: E731
    check(rng, kernel, lambda x: references.kl_divergence(x, teacher, 0.5), x)


@pytest.mark.parametrize("seed", SEEDS)
def test_attention(seed, rng):
    rows, kv_heads, shared, length = (int(n) for n in rng.integers(1, (4, 4, 4, 90)))
    size, causal = int(rng.integers(1, 70)), bool(seed % 2)
    q = draw(rng, rows, kv_heads * shared, length, size)
    k, v = (draw(rng, rows, kv_heads, length, size) for _ in range(2))
    segments = ids = None
    if seed % 3:
        segments = np.sort(rng.integers(0, 4, (rows, length)), axis=1)[:, ::-1].astype(np.int32)
        ids = mx.array(segments)
    keep, dropout = 1.0, None
    if seed % 4 > 1:
        keep = references.keep_factors((rows, kv_heads * shared, length, length), KEY, BOUND)
        dropout = (mx.array(KEY, mx.uint32), BOUND, 65536 / BOUND)
    kernel = partial(kernels.attention, scale=0.3, causal=causal, segment_ids=ids, dropout=dropout)
    reference = partial(
        references.attention, scale=0.3, causal=causal, segments=segments, keep=keep
    )
    check(rng, kernel, reference, q, k, v)


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_rotary_positions(seed, rng):
    rows, heads, length, half = (int(n) for n in rng.integers(1, (4, 5, 300, 40)))
    table = references.rope_table(length, 2 * half)
    kernel = lambda x: kernels.rope(x, device(table))  # noqa: E731
    x = draw(rng, rows, heads, length, 2 * half)
    check(rng, kernel, lambda x: references.rope(x, table), x)


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_dropout(seed, rng):
    shape = tuple(int(n) for n in rng.integers(1, 60, rng.integers(1, 4)))
    keep = references.keep_factors(shape, KEY, BOUND)
    kernel = lambda x: kernels.dropout(x, mx.array(KEY, mx.uint32), BOUND, 65536 / BOUND)  # noqa: E731
    check(rng, kernel, lambda x: x * keep, draw(rng, *shape))


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_embedding(seed, rng):
    count, size = (int(n) for n in rng.integers(1, 100, 2))
    ids = rng.integers(0, count, tuple(rng.integers(1, 30, rng.integers(1, 3)))).astype(np.int32)
    kernel = lambda w: kernels.embedding(mx.array(ids), w)  # noqa: E731
    check(rng, kernel, lambda w: w[ids], draw(rng, count, size))


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_sum_of_squares(seed, rng):
    arrays = [draw(rng, *rng.integers(1, 200, rng.integers(0, 3))) for _ in range(5)]
    expected = np.array(sum((x**2).sum() for x in arrays))
    assert_close(kernels.square_sum([device(x, rng) for x in arrays]), expected)


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_adamw(seed, rng):
    shapes = [tuple(int(n) for n in rng.integers(1, 90, rng.integers(0, 3))) for _ in range(4)]
    groups, rates = [0, 1, 1, 0], [(0.1, 3.0, 0.2), (0.05, 3.0, 0.0)]
    settings = ((0.9, 0.99), 1e-8)
    weights = [[draw(rng, *shape) for _ in range(3)] + [draw(rng, *shape) ** 2] for shape in shapes]
    given = [[device(np.asarray(x)) for x in each] for each in weights]
    for finite in (1.0, 0.0):
        hyperparameters = mx.array([*rates[0], *rates[1], 0.5, finite])
        results = kernels.adamw(hyperparameters, given, groups, *settings)
        for each, old, group, new in zip(weights, given, groups, results, strict=True):
            gradient = 0.5 * each[1]
            expected = references.adamw(each[0], gradient, *each[2:], *rates[group], *settings)
            for array, wanted, before in zip(new, expected, (old[0], *old[2:]), strict=True):
                if finite:
                    assert_close(array, np.asarray(wanted))
                else:
                    np.testing.assert_array_equal(array, before)


def test_the_time_to_compile_a_step_of_many_weights_is_proportional_to_their_number():
    """`mx.compile` compares the outputs of a kernel with each other: one kernel for 400 adapters took minutes."""

    def seconds(count):
        arrays = [tuple(mx.ones(8) for _ in range(4)) for _ in range(count)]
        rates = mx.array([1e-3, 1.0, 0.0, 1.0, 1.0])
        step = mx.compile(lambda x: kernels.adamw(rates, x, [0] * count, (0.9, 0.99), 1e-8))
        start = time.process_time()
        mx.eval(step(arrays))
        return time.process_time() - start

    seconds(8)
    assert seconds(256) < 16 * seconds(64)  # 4 times as long; one kernel for all weights: 64 times
