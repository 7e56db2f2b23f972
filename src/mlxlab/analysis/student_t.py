"""Student's t distribution: tail probability and quantile, from the regularised incomplete beta function."""

import math

_TINY = 1e-300


def tail_probability(t: float, degrees: float) -> float:
    """P(T > t) for t >= 0 and `degrees` of freedom."""
    if not math.isfinite(t):
        return 0.0
    return 0.5 * incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))


def quantile(probability: float, degrees: float) -> float:
    """The t >= 0 with P(T <= t) = `probability`, for `probability` in [0.5, 1), by bisection."""
    if not 0.5 <= probability < 1:
        raise ValueError(f"probability {probability}: expected 0.5 <= probability < 1")
    low, high = 0.0, 1.0
    while tail_probability(high, degrees) > 1 - probability:
        low, high = high, 2 * high
    for _ in range(100):
        mid = (low + high) / 2
        low, high = (mid, high) if tail_probability(mid, degrees) > 1 - probability else (low, mid)
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b) for 0 <= x <= 1: Lentz's evaluation of the continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast only below this point
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or _TINY)
    fraction = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d = 1 / (1 + numerator * d or _TINY)
            c = 1 + numerator / c or _TINY
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction / a
