"""Initial weights, drawn on the host: the same bits for the same seed on every platform.

Every number is a function of (seed, parameter path, index): a counter-based hash gives uniform bits, Wichura's AS 241
(1988) a normal number, relative error 1e-16. Only integer operations and the float64 operations + - * / sqrt are used,
which IEEE 754 defines exactly; NumPy's own logarithm is not the same on every processor.
"""

import hashlib
import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from mlxlab.data.rng import counter_hash
from mlxlab.models.bert import Bert
from mlxlab.models.cnn_hybrid import CnnHybrid
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import CausalHead, Classifier, MaskedHead
from mlxlab.models.tabular import TabularHead
from mlxlab.models.transformer import Transformer
from mlxlab.models.zoo.mlx_lm import MlxLm

STD = 0.02
CHUNK = 1 << 16  # numbers at a time: temporaries stay in the processor's cache
CONVOLUTIONS = nn.Conv1d | nn.Conv2d
RESIDUAL_OUTPUTS = ("attention.out.weight", "feed_forward.down.weight")

# Wichura's AS 241: numerator and denominator for the center and both parts of a tail, constant terms first.
CENTER = (
    (
        3.3871328727963666080,
        133.14166789178437745,
        1971.5909503065514427,
        13731.693765509461125,
        45921.953931549871457,
        67265.770927008700853,
        33430.575583588128105,
        2509.0809287301226727,
    ),
    (
        1.0,
        42.313330701600911252,
        687.18700749205790830,
        5394.1960214247511077,
        21213.794301586595867,
        39307.895800092710610,
        28729.085735721942674,
        5226.4952788528545610,
    ),
)
NEAR_TAIL = (
    (
        1.42343711074968357734,
        4.63033784615654529590,
        5.76949722146069140550,
        3.64784832476320460504,
        1.27045825245236838258,
        0.241780725177450611770,
        0.0227238449892691845833,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187,
        1.67638483018380384940,
        0.689767334985100004550,
        0.148103976427480074590,
        0.0151986665636164571966,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
FAR_TAIL = (
    (
        6.65790464350110377720,
        5.46378491116411436990,
        1.78482653991729133580,
        0.296560571828504891230,
        0.0265321895265761230930,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        0.599832206555887937690,
        0.136929880922735805310,
        0.0148753612908506148525,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


def initialize(module: nn.Module, seed: int, name: str) -> None:
    """Draws the weights of one of our backbones or heads (GPT-2, BERT): N(0, 0.02), biases 0, norms 1.

    In a decoder the layers that write into the residual stream get 0.02 / sqrt(2 num_layers). Convolutions, fusion and
    pooling of a CnnHybrid are uniform in +-1 / sqrt(fan-in), as MLX draws them. Of an architecture of mlx-lm only the
    matrices of linear layers and embeddings are drawn, which it may leave zero. A user's own backbone keeps the weights
    that its constructor drew from MLX's generator. `name` is the path of the module in the model.
    """
    if isinstance(module, MlxLm):
        _initialize_matrices(module, seed, name)
        return
    if isinstance(module, TabularHead):
        _initialize_networks(module, seed, name)
        return
    if not isinstance(
        module, Bert | CnnHybrid | Transformer | Classifier | CausalHead | MaskedHead
    ):
        return
    residual_std = STD
    if isinstance(module, Transformer):
        residual_std = STD / math.sqrt(2 * module.num_layers)
    layers = dict(module.named_modules())

    def draw(path: str, shape: tuple[int, ...]) -> mx.array:
        layer = layers[path.rpartition(".")[0]]
        stream = f"{name}.{path}"
        as_mlx = isinstance(module, CnnHybrid) and not path.startswith("encoder.")
        if as_mlx and (len(shape) >= 2 or isinstance(layer, nn.Linear)):
            bound = 1 / math.sqrt(math.prod(layer.weight.shape[1:]))
            return mx.array(uniform(seed, stream, shape, bound))
        if path.endswith("bias"):
            return mx.zeros(shape)
        if len(shape) < 2:
            return mx.ones(shape)
        std = STD
        if path.endswith(RESIDUAL_OUTPUTS):
            std = residual_std
        return mx.array(normal(seed, stream, shape, std))

    new = [(path, draw(path, leaf.shape)) for path, leaf in named_parameters(module).items()]
    module.update(tree_unflatten(new))


def _initialize_matrices(module: MlxLm, seed: int, name: str) -> None:
    """Draws the floating-point weights of linear layers (also of experts) and embeddings: N(0, 0.02)."""
    layers = dict(module.named_modules())
    for path, leaf in named_parameters(module).items():
        owner, _, parameter = path.rpartition(".")
        is_matrix = (
            parameter == "weight" and leaf.ndim >= 2 and mx.issubdtype(leaf.dtype, mx.floating)
        )
        if is_matrix and not isinstance(layers[owner], CONVOLUTIONS):
            layers[owner].weight = mx.array(normal(seed, f"{name}.{path}", leaf.shape, STD))


def _initialize_networks(head: TabularHead, seed: int, name: str) -> None:
    """Draws the networks of a table: He et al. 2015, and a random sign for each input of each member."""

    def draw(path: str, shape: tuple[int, ...]) -> mx.array:
        part = path.rpartition(".")[2]
        if path == "signs":
            return mx.array(np.sign(normal(seed, f"{name}.{path}", shape, 1.0)))
        if path.endswith((".scale", "out_bias")):
            return mx.full(shape, float(part == "scale"))
        std = 0.1
        if path.startswith("codes.") and part == "weight":
            std = 0.35
        elif path == "out":
            std = 0.5 / math.sqrt(shape[-2])
        elif part == "weight":
            std = math.sqrt(2 / shape[-2])
        return mx.array(normal(seed, f"{name}.{path}", shape, std))

    network = head.network
    leaves = named_parameters(network).items()
    network.update(tree_unflatten([(path, draw(path, leaf.shape)) for path, leaf in leaves]))


def normal(seed: int, path: str, shape: tuple[int, ...], std: float) -> np.ndarray:
    """Float32 numbers from N(0, std^2); float64 until the last rounding."""
    return _draw(seed, path, shape, lambda u: std * inverse_normal_cdf(u))


def uniform(seed: int, path: str, shape: tuple[int, ...], bound: float) -> np.ndarray:
    """Float32 numbers, uniform in (-bound, bound)."""
    return _draw(seed, path, shape, lambda u: bound * (2 * u - 1))


def _draw(
    seed: int, path: str, shape: tuple[int, ...], transform: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """`transform` of one uniform number in (0, 1) for each element of `shape`, by rows."""
    stream = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big")
    out = np.empty(math.prod(shape), np.float32)
    for start in range(0, len(out), CHUNK):
        index = np.arange(start, min(start + CHUNK, len(out)), dtype=np.uint64)
        bits = counter_hash(seed, np.array([stream], np.uint64), index)
        out[start : start + CHUNK] = transform(
            ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        )
    return out.reshape(shape)


def inverse_normal_cdf(u: np.ndarray) -> np.ndarray:
    """The z below which a standard normal number lies with probability u in (0, 1), float64."""
    q = u - 0.5
    r = 0.180625 - q * q
    z = q * _ratio(CENTER, r)  # where |q| <= 0.425
    (tails,) = np.nonzero(r < 0)
    p = np.minimum(u[tails], 1 - u[tails])
    r = np.sqrt(-_log(p))
    magnitude = _ratio(NEAR_TAIL, r - 1.6)
    (far,) = np.nonzero(r > 5)  # beyond 6.6 standard deviations
    magnitude[far] = _ratio(FAR_TAIL, r[far] - 5)
    z[tails] = np.where(q[tails] < 0, -magnitude, magnitude)
    return z


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: np.ndarray) -> np.ndarray:
    return _polynomial(coefficients[0], x) / _polynomial(coefficients[1], x)


def _polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    """Horner's rule; multiplication and addition are separate calls, so that no processor fuses them."""
    y = np.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        y *= x
        y += c
    return y


def _log(x: np.ndarray) -> np.ndarray:
    """The natural logarithm: exponent and mantissa apart, 2 artanh((m - 1) / (m + 1)) by its series."""
    mantissa, exponent = np.frexp(x)  # [0.5, 1), exact
    low = mantissa < math.sqrt(0.5)
    mantissa = np.where(low, 2 * mantissa, mantissa)
    exponent = exponent - low
    s = (mantissa - 1) / (mantissa + 1)  # |s| <= 0.172
    series = _polynomial(tuple(1 / (2 * k + 1) for k in range(11)), s * s)
    return exponent * 0.6931471805599453 + 2 * s * series
