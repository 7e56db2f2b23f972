"""Values and differences of one comparison with one number of decimals, and their direction in words."""

import math
from collections.abc import Iterable

MIN_DECIMALS, MAX_DECIMALS = 4, 8  # decimals
_LARGE = 1e9
_NOISE = 1e-9  # Smaller shares of the largest value are rounding errors.


def decimals_of(values: Iterable[float | None]) -> int:
    """Four, or as many more as the smallest of these needs for two digits."""
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value)]
    sizes = [size for size in sizes if size > _NOISE * max(sizes)]
    needed = (1 - math.floor(math.log10(size)) for size in sizes)
    return min(max([MIN_DECIMALS, *needed]), MAX_DECIMALS)


def fixed(value: float | None, decimals: int, *, signed: bool = False) -> str:
    """Writes a number with these decimals; 0 has no sign, and "" is what is not known or not finite."""
    if value is None or not math.isfinite(value):
        return ""
    text = f"{value:z.{decimals}f}" if abs(value) < _LARGE else f"{value:.4g}"
    return f"+{text}" if signed and float(text) > 0 else text


def direction(gain: float, *, minimised: bool) -> str:
    """How the values of a method with this gain differ from those of the reference: `lower, which is better`."""
    better = "better" if gain > 0 else "worse"
    return f"{'higher' if (gain > 0) != minimised else 'lower'}, which is {better}"
