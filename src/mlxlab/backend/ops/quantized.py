"""Products with weights in few bits. On Linux CPU in float32, where MLX's own product takes 20 to 40 times as long.

Only MLX's product with few rows is faster there: it reads fewer bytes, and unpacking takes as long as several rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlxlab.backend.ops.exp import Arrays, use_custom_ops, with_gradient

# How a byte of codes becomes one byte for each: shifts and masks that spread its bits, of the first code first.
SPREAD: dict[int, tuple[mx.Dtype, tuple[tuple[int, int], ...]]] = {
    8: (mx.uint8, ()),
    4: (mx.uint16, ((4, 0x0F0F),)),
    2: (mx.uint32, ((12, 0x000F000F), (6, 0x03030303))),
}
MIN_ROWS = 4  # rows of inputs; MLX's product of fewer is faster on any device


@dataclass(frozen=True)
class Packing:
    """How the numbers of a matrix (out, in) are packed: `bits` each, with scales for each `group_size` of a row.

    The arrays are MLX's: codes (out, in * bits / 32) uint32, scales (out, in / group_size), and in affine mode biases
    of that shape.
    """

    bits: int
    group_size: int
    mode: str

    def pack(self, weight: mx.array) -> Arrays:
        """The arrays of a matrix (out, in); the group size must divide its width."""
        return tuple(mx.quantize(weight, self.group_size, self.bits, mode=self.mode))

    def unpack(self, arrays: Sequence[mx.array]) -> mx.array:
        """The matrix (out, in), float32; of some of the rows, those rows."""
        weight, scales, *biases = arrays
        if self.mode == "affine" and self.bits in SPREAD and use_custom_ops():
            codes = _bytes_of(weight, self.bits).astype(mx.float32)
            groups = mx.unflatten(codes, -1, (-1, self.group_size))
            factor = scales[..., None].astype(mx.float32)
            bias = biases[0][..., None].astype(mx.float32)
            return mx.flatten(groups * factor + bias, -2)
        offset = next(iter(biases), None)
        return mx.dequantize(
            weight, scales, offset, self.group_size, self.bits, self.mode, dtype=mx.float32
        )


def _bytes_of(codes: mx.array, bits: int) -> mx.array:
    """One byte for each code of a row. MLX's own unpacking is three to six times as slow on a CPU."""
    dtype, steps = SPREAD[bits]
    codes = codes.view(mx.uint8)
    if not steps:
        return codes
    codes = codes.astype(dtype)  # Each number becomes as wide as the bytes of its codes.
    for shift, mask in steps:
        codes = (codes | (codes << mx.array(shift, dtype))) & mx.array(mask, dtype)
    return codes.view(mx.uint8)


def packed_product(x: mx.array, arrays: Sequence[mx.array], packing: Packing) -> mx.array:
    """(..., in) times the transposed matrix (out, in) -> (..., out). Gradients reach `x` alone.

    No float32 matrix is held between the forward and the backward pass, nor one of another layer.
    """
    if use_custom_ops() and x.size >= MIN_ROWS * x.shape[-1]:
        return _unpacked_product(packing, x, arrays)
    weight, scales, *biases = arrays
    offset = next(iter(biases), None)
    return mx.quantized_matmul(
        x, weight, scales, offset, True, packing.group_size, packing.bits, packing.mode
    )


def _unpacked_product(packing: Packing, x: mx.array, arrays: Sequence[mx.array]) -> mx.array:
    def unpack_after(first: mx.array, arrays: Sequence[mx.array]) -> mx.array:
        # Not before it is needed; and a compiler would share one matrix between the forward and the backward pass.
        return packing.unpack(mx.depends(list(arrays), [first]))

    def forward(x: mx.array, *arrays: mx.array) -> Arrays:
        return ((x.astype(mx.float32) @ unpack_after(x, arrays).T).astype(x.dtype),)

    def backward(inputs: Arrays, cotangent: mx.array, _: Arrays) -> Arrays:
        x, *arrays = inputs
        gradient = (cotangent.astype(mx.float32) @ unpack_after(cotangent, arrays)).astype(x.dtype)
        return gradient, *(mx.zeros_like(array) for array in arrays)

    return with_gradient(forward, backward)(x, *arrays)
