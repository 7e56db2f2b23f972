"""Whether a regression tells two groups of rows apart and little else: its predictions lie in two narrow bands."""

import numpy as np

_MIN_ROWS = 30
_WIDTH, _GAP = 0.05, 0.3  # of a band, and between the two: shares of the range of the values
_MIN_SHARE, _MIN_TOTAL = 0.15, 0.7  # of the rows: in each band, and in both


def prediction_bands(predictions: np.ndarray, targets: np.ndarray) -> tuple[float, float] | None:
    """The medians of the two bands; None without such bands, or if the true values lie in two as well.

    Values with a single peak never do: between the bands there would be more rows than outside of them.
    """
    return None if two_bands(targets) else two_bands(predictions)


def two_bands(values: np.ndarray) -> tuple[float, float] | None:
    """The medians of two narrow bands, far from each other, that hold most of the values; None without such bands."""
    ranked = np.sort(values.ravel())
    if len(ranked) < _MIN_ROWS or not np.isfinite(ranked).all() or ranked[0] == ranked[-1]:
        return None
    span = ranked[-1] - ranked[0]
    counts = np.searchsorted(ranked, ranked + _WIDTH * span, side="right") - np.arange(len(ranked))
    first = int(counts.argmax())
    distances = np.abs(ranked - ranked[first])
    others = np.where(distances >= (_WIDTH + _GAP) * span, counts, 0)
    starts = sorted((first, int(others.argmax())))
    sizes = [int(counts[start]) for start in starts]
    if min(counts[first], others.max()) < _MIN_SHARE * len(ranked) or sum(sizes) < _MIN_TOTAL * len(
        ranked
    ):
        return None
    low, high = (
        float(np.median(ranked[start : start + size]))
        for start, size in zip(starts, sizes, strict=True)
    )
    return low, high
