"""Whether a regression tells two groups of rows apart and little else: its predictions lie in two narrow bands."""

import numpy as np

MIN_ROWS = 30
WIDTH = 0.05  # of a band, as a share of the range of the values
GAP = 0.3  # between the bands, as a share of that range
MIN_SHARE = 0.15  # of the rows in each band
MIN_TOTAL = 0.7  # of the rows in both bands


def prediction_bands(predictions: np.ndarray, targets: np.ndarray) -> tuple[float, float] | None:
    """The medians of the two bands; None without such bands, or if the true values lie in two as well.

    Values with a single peak never do: between the bands there would be more rows than outside of them.
    """
    return None if two_bands(targets) else two_bands(predictions)


def two_bands(values: np.ndarray) -> tuple[float, float] | None:
    """The medians of two narrow bands, far from each other, that hold most of the values; None without such bands."""
    ranked = np.sort(values.ravel())
    if len(ranked) < MIN_ROWS or not np.isfinite(ranked).all() or ranked[0] == ranked[-1]:
        return None
    span = ranked[-1] - ranked[0]
    ends = np.searchsorted(ranked, ranked + WIDTH * span, side="right")
    sizes = ends - np.arange(len(ranked))  # rows of the band that begins at each value
    largest = int(sizes.argmax())
    is_apart = np.abs(ranked - ranked[largest]) >= (WIDTH + GAP) * span
    other = int(np.where(is_apart, sizes, 0).argmax())
    if not is_apart[other]:
        return None
    smaller = sizes[other]
    if smaller < MIN_SHARE * len(ranked) or sizes[largest] + smaller < MIN_TOTAL * len(ranked):
        return None
    low, high = sorted(float(np.median(ranked[start : ends[start]])) for start in (largest, other))
    return low, high
