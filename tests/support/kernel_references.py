"""The kernels' formulas in NumPy, float64, one by one as they are written in textbooks."""

import math

import numpy as np

erf = np.vectorize(math.erf, otypes=[float])


def linear(x, w, b=None):
    return x @ w.T + (0 if b is None else b)


def round_mantissa(x, bits):
    """To the nearest number with so many bits, ties to even: 8 are those of bfloat16."""
    mantissa, exponent = np.frexp(x.astype(np.float32).astype(np.float64))
    return np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits)


def linear_in_bfloat16(x, w, b, cotangent):
    """The value, and the gradients of x, w and b. Every factor of a product is rounded, the sum of the bias is not."""
    narrow_x, narrow_w, narrow_c = (round_mantissa(array, 8) for array in (x, w, cotangent))
    return (
        narrow_x @ narrow_w.T + b,
        narrow_c @ narrow_w,
        narrow_c.T @ narrow_x,
        cotangent.sum(axis=0),
    )


def gelu(x, up=1.0):
    return x * 0.5 * (1 + erf(x / math.sqrt(2))) * up


def silu(x, up=1.0):
    return x / (1 + np.exp(-x)) * up


def norm(x, w, b, eps, centered):
    h = x - x.mean(axis=-1, keepdims=True) if centered else x
    return h / np.sqrt((h**2).mean(axis=-1, keepdims=True) + eps) * w + (0 if b is None else b)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def cross_entropy(x, targets, smoothing):
    logs = log_softmax(x)
    chosen = np.take_along_axis(logs, targets[..., None], axis=-1)[..., 0]
    return -(1 - smoothing) * chosen - smoothing * logs.mean(axis=-1)


def kl_divergence(student, teacher, scale):
    p, q = log_softmax(scale * teacher), log_softmax(scale * student)
    return (np.exp(p) * (p - q)).sum(axis=-1)


def attention(q, k, v, scale, causal, segments=None, keep=1.0):
    """A query that attends to nothing has the output 0."""
    heads, length = q.shape[1], q.shape[2]
    k, v = (np.repeat(x, heads // x.shape[1], axis=1) for x in (k, v))
    allowed = np.ones((1, 1, length, length), bool)
    if causal:
        allowed = allowed & np.tri(length, dtype=bool)
    if segments is not None:
        query, key = segments[:, None, :, None], segments[:, None, None, :]
        allowed = allowed & (key > 0) & ((query == key) | (query == 0))
    powers = np.where(allowed, np.exp(scale * q @ k.swapaxes(-1, -2)), 0)
    sums = powers.sum(axis=-1, keepdims=True)
    return (powers / np.where(sums == 0, 1, sums) * keep) @ v


def rope_table(length, size, theta=1e4):
    angles = np.outer(np.arange(length), theta ** (-np.arange(size // 2) * 2 / size))
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def rope(x, table):
    half = x.shape[-1] // 2
    a, b, cos, sin = x[..., :half], x[..., half:], table[:, :half], table[:, half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def keep_factors(shape, key, bound):
    """0 or 65536 / bound: 16 bits of Wellons' lowbias32 of half the index, with two keys."""
    count = math.prod(shape)
    x = np.arange(-(-count // 2), dtype=np.uint64) ^ np.uint64(key[0])
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = (x ^ np.uint64(key[1])) ^ (x >> 15)
    x = (x * 0x846CA68B) & 0xFFFFFFFF
    x ^= x >> 16
    bits = np.stack([x & 0xFFFF, x >> 16], axis=-1).reshape(-1)[:count]
    return np.where(bits < bound, 65536 / bound, 0.0).reshape(shape)


def adamw(p, g, m, v, rate, step, decay, betas, eps):
    m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
    step_size = rate / (1 - betas[0] ** step)
    return (
        p * (1 - rate * decay) - step_size * m / (np.sqrt(v / (1 - betas[1] ** step)) + eps),
        m,
        v,
    )
