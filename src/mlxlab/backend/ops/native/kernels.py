"""The native library, and typed functions of it, float32 on a CPU: any strides; ValueError for wrong shapes.

They are functions of lazy arrays with first derivatives, and can be compiled; but they have no `mx.vmap`, `mx.jvp` or
second derivatives, and cannot be exported: `MLXLAB_NATIVE=off` for those.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Literal

import mlx.core as mx

from mlxlab import backend
from mlxlab.backend.ops.native import state
from mlxlab.backend.ops.native.toolchain import KernelsUnavailable

_OFFSETS = range(8, 4096)  # bytes from a Python object to what nanobind wraps
_OTHER_LAYOUT = "this build of MLX lays arrays out in another way than expected"
_loaded: dict[Path, str] = {}  # the library that is bound -> its features

# The types of arguments, by their letters in the module `struct`.
_TYPES: dict[str, type] = {
    "P": ctypes.c_void_p,
    "i": ctypes.c_int,
    "I": ctypes.c_uint32,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}
_SIGNATURES = {
    "linear": "PPPPi",
    "activation": "PPPi",
    "norm": "PPPPfi",
    "cross_entropy": "PPPf",
    "kl_divergence": "PPPf",
    "attention": "PPPPPPifIf",
    "rope": "PPP",
    "dropout": "PPPIf",
    "embedding": "PPP",
    "square_sum": "PPi",
    "adamw": "PPPPiddf",
}
MAX_SIZE = 2**31  # elements of an array, and weights of an attention
# One AdamW kernel takes so many weights. `mx.compile` compares all outputs of a kernel with each other, for every input:
# tracing takes time cubic in this number (420 adapters in one kernel took four minutes).
WEIGHTS_PER_KERNEL = 16

_library: ctypes.PyDLL | None = None
_bfloat16 = False


def bind(library: ctypes.PyDLL) -> None:
    """Uses a loaded library from now on; AttributeError if it lacks a function."""
    global _library
    library.mlxlab_set_threads.argtypes = [ctypes.c_int]
    library.mlxlab_set_threads.restype = None
    for name, letters in _SIGNATURES.items():
        function = getattr(library, f"mlxlab_{name}")
        function.argtypes = [_TYPES[letter] for letter in letters]
        function.restype = ctypes.c_char_p
    _library = library


def set_threads(count: int) -> None:
    _bound().mlxlab_set_threads(count)


def usable(*arrays: mx.array) -> bool:
    """Whether the kernels are in use and can take these arrays: float32, not empty, and not too large."""
    if not state.is_active():
        return False
    return all(array.dtype == mx.float32 and 0 < array.size < MAX_SIZE for array in arrays)


@contextmanager
def bfloat16_products(enabled: bool) -> Iterator[None]:
    """Inside, if `enabled`, products of linear layers round their inputs to bfloat16; sums stay float32."""
    global _bfloat16
    before = _bfloat16
    _bfloat16 = enabled
    try:
        yield
    finally:
        _bfloat16 = before


def linear(x: mx.array, weight: mx.array, bias: mx.array | None = None) -> mx.array:
    """(..., K) times the transposed (N, K), plus (N,) -> (..., N)."""
    return _call("linear", x, weight, bias, int(_bfloat16))


def activation(kind: Literal["gelu", "silu"], x: mx.array, up: mx.array | None = None) -> mx.array:
    """The activation of x, times `up` of the same shape."""
    return _call("activation", x, up, ("gelu", "silu").index(kind))


def norm(
    x: mx.array, weight: mx.array, bias: mx.array | None, eps: float, *, centered: bool
) -> mx.array:
    """LayerNorm if `centered`, else RMSNorm, over the last axis: (..., D), (D,), (D,) -> (..., D)."""
    return _call("norm", x, weight, bias, eps, int(centered))


def cross_entropy(logits: mx.array, targets: mx.array, label_smoothing: float) -> mx.array:
    """(..., C), (...) -> (...); NaN for a target out of range."""
    return _call("cross_entropy", logits, targets.astype(mx.int32), label_smoothing)


def kl_divergence(student: mx.array, teacher: mx.array, scale: float) -> mx.array:
    """KL(softmax(scale teacher) || softmax(scale student)): (..., C) twice -> (...). Gradients reach the student."""
    return _call("kl_divergence", student, teacher, scale)


def attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    causal: bool,
    segment_ids: mx.array | None = None,
    dropout: tuple[mx.array, int, float] | None = None,
) -> mx.array:
    """(B, H, T, d), (B, K, T, d), (B, K, T, d) -> (B, H, T, d).

    Args:
        segment_ids: (B, T), as for `mlxlab.backend.ops.attention.SegmentMask`.
        dropout: key (2,) uint32, bound and scale of a `mlxlab.backend.ops.dropout.DropoutMask`.
    """
    if segment_ids is not None:
        segment_ids = segment_ids.astype(mx.int32)
    key, bound, factor = dropout or (None, 0, 1.0)
    return _call("attention", q, k, v, segment_ids, key, int(causal), scale, bound, factor)


def rope(x: mx.array, table: mx.array) -> mx.array:
    """Rotary positions of halves: (B, H, T, d), (T, d) of d / 2 cosines and d / 2 sines -> (B, H, T, d)."""
    return _call("rope", x, table)


def dropout(x: mx.array, key: mx.array, bound: int, scale: float) -> mx.array:
    """x times 0 or `scale`, by the masks of `mlxlab.backend.ops.dropout`."""
    return _call("dropout", x, key, bound, scale)


def embedding(ids: mx.array, table: mx.array) -> mx.array:
    """(...), (V, D) -> (..., D); NaN for an index out of range."""
    return _call("embedding", ids.astype(mx.int32), table)


def square_sum(arrays: Sequence[mx.array]) -> mx.array:
    """The sum of the squares of all elements: a scalar."""
    out = mx.array(0.0)
    _check(_bound().mlxlab_square_sum(id(out), _addresses(arrays), len(arrays)))
    return out


def adamw(
    hyperparameters: mx.array,
    arrays: Sequence[tuple[mx.array, mx.array, mx.array, mx.array]],
    groups: Sequence[int],
    betas: tuple[float, float],
    eps: float,
) -> list[tuple[mx.array, mx.array, mx.array]]:
    """AdamW with bias correction of many weights at once -> new weight, first and second moment of each.

    Args:
        hyperparameters: (3 G + 2,): learning rate, step (from 1) and decay of each group; the factor of all gradients;
            1, or 0 to change nothing.
        arrays: weight, gradient, first and second moment of each weight.
        groups: the group of each weight.
    """
    new = [mx.array(0.0) for _ in range(3 * len(arrays))]
    for start in range(0, len(arrays), WEIGHTS_PER_KERNEL):
        chunk = slice(start, start + WEIGHTS_PER_KERNEL)
        outputs = _addresses(new[3 * chunk.start : 3 * chunk.stop])
        inputs = _addresses(list(chain.from_iterable(arrays[chunk])))
        indices = groups[chunk]
        group_array = (ctypes.c_int * len(indices))(*indices)
        run = _bound().mlxlab_adamw
        rates = id(hyperparameters)
        _check(run(outputs, rates, inputs, group_array, len(indices), *betas, eps))
    return list(zip(new[::3], new[1::3], new[2::3], strict=True))


def _call(name: str, *arguments: mx.array | float | None) -> mx.array:
    out = mx.array(0.0)  # becomes the result
    values = [id(value) if isinstance(value, mx.array) else value for value in arguments]
    _check(getattr(_bound(), f"mlxlab_{name}")(id(out), *values))
    return out


def _bound() -> ctypes.PyDLL:
    assert _library is not None
    return _library


def _addresses(arrays: Sequence[mx.array]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(arrays))(*map(id, arrays))


def _check(fault: bytes | None) -> None:
    if fault is not None:
        raise ValueError(fault.decode(errors="replace"))


def load(path: Path) -> str:
    """Loads and binds a library, if it finds MLX's arrays in Python's objects; returns its features.

    Raises:
        KernelsUnavailable: it cannot be loaded, or is for another MLX.
    """
    if path not in _loaded:
        try:
            library = ctypes.PyDLL(str(path))  # Calls, which take microseconds, keep Python's lock.
            features = _features_of(library)
            bind(library)
        except (OSError, AttributeError) as error:  # AttributeError: it lacks a function
            raise KernelsUnavailable(f"the library cannot be loaded ({error})") from None
        _loaded.clear()  # only one is bound
        _loaded[path] = features
    set_threads(backend.blas_threads())
    return _loaded[path]


def _features_of(library: ctypes.PyDLL) -> str:
    """What the compiler found in the processor; KernelsUnavailable if the library is for another MLX."""
    for function in (library.mlxlab_version, library.mlxlab_features, library.mlxlab_probe):
        function.restype = ctypes.c_char_p
    version = library.mlxlab_version().decode()
    installed = mx.__version__  # type: ignore[attr-defined]
    if version != installed:
        raise KernelsUnavailable(f"the library is for MLX {version}, and {installed} is installed")
    _probe(library)
    features: str = library.mlxlab_features().decode()
    return features


def _probe(library: ctypes.PyDLL) -> None:
    """C++ reads an array at its place in the Python object, so their layout must be nanobind's."""
    header = object.__basicsize__
    sizes = (ctypes.c_size_t * 4)()
    for array in (mx.zeros((3, 5)), mx.zeros((7,), mx.uint8), mx.array(1.0)):
        if ctypes.c_int32.from_address(id(array) + header).value not in _OFFSETS:
            raise KernelsUnavailable(_OTHER_LAYOUT)
        fault = library.mlxlab_probe(ctypes.c_void_p(id(array)), ctypes.c_size_t(header), sizes)
        last_size = (0, *array.shape)[-1]
        expected = (array.size, array.itemsize, array.ndim, last_size)
        if fault is not None or tuple(sizes) != expected:
            raise KernelsUnavailable(_OTHER_LAYOUT)
