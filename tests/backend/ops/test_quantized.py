"""Products with packed weights are those with the weights that they stand for, in outputs and gradients."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.backend import on_linux_cpu
from mlxlab.backend.ops.quantized import MIN_ROWS, Packing, packed_product

FORMATS = [
    (4, 64, "affine"),
    (8, 32, "affine"),
    (3, 32, "affine"),
    (4, 32, "mxfp4"),
    (8, 32, "mxfp8"),
    (4, 16, "nvfp4"),
]


def random(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32))


def gradient(function, x, cotangent):
    return mx.grad(lambda x: (function(x) * cotangent).sum())(x)


@pytest.mark.parametrize("name", FORMATS)
def test_the_weight_is_that_which_mlx_unpacks_bit_for_bit(name):
    bits, group_size, mode = name
    arrays = Packing(*name).pack(random(24, 128))
    expected = mx.dequantize(*arrays, group_size=group_size, bits=bits, mode=mode, dtype=mx.float32)
    np.testing.assert_array_equal(Packing(*name).unpack(arrays), expected)
    rows = mx.array([[3, 0], [23, 3]])
    unpacked = Packing(*name).unpack([array[rows] for array in arrays])
    np.testing.assert_array_equal(unpacked, expected[rows])


@pytest.mark.parametrize("rows", [1, MIN_ROWS - 1, MIN_ROWS, 10])
@pytest.mark.parametrize("name", FORMATS)
def test_outputs_and_gradients_are_those_of_the_unpacked_weight(name, rows):
    packing = Packing(*name)
    arrays = packing.pack(random(24, 64))
    x, cotangent = random(rows, 1, 64, seed=1), random(rows, 1, 24, seed=2)
    weight = packing.unpack(arrays)
    assert weight.dtype == mx.float32
    product = packed_product(x, arrays, packing)
    np.testing.assert_allclose(product, x @ weight.T, atol=2e-5)
    actual = gradient(lambda x: packed_product(x, arrays, packing), x, cotangent)
    np.testing.assert_allclose(actual, gradient(lambda x: x @ weight.T, x, cotangent), atol=2e-5)


def test_narrow_inputs_give_narrow_outputs_and_gradients():
    packing = Packing(4, 64, "affine")
    arrays, x = packing.pack(random(24, 64)), random(8, 64, seed=1).astype(mx.bfloat16)
    product = partial(packed_product, arrays=arrays, packing=packing)
    assert product(x).dtype == gradient(product, x, mx.ones((8, 24))).dtype == mx.bfloat16


@pytest.mark.skipif(not on_linux_cpu(), reason="elsewhere MLX's product unpacks nothing")
@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.fault_injection)]
)  # 2 s
def test_no_unpacked_weight_is_kept_for_the_gradient(compiled):
    packing, width, layers = Packing(4, 64, "affine"), 256, 40
    chain = [packing.pack(random(width, width, seed=seed)) for seed in range(layers)]

    def loss(x):
        for arrays in chain:
            x = mx.sin(packed_product(x, arrays, packing))
        return x.sum()

    function = mx.compile(mx.grad(loss)) if compiled else mx.grad(loss)
    x = random(8, width)
    mx.eval(chain, x)
    mx.eval(function(x))
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(function(x))
    # Some 5 of 40 matrices, and activations.
    assert mx.get_peak_memory() - before < 12 * 4 * width**2
