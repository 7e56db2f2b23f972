"""Geometry of an embedding: cosine similarities of its rows and their near neighbours."""

import numpy as np

CHUNK = 1024  # rows whose similarities to all others are in memory at a time
BINS = 20_000  # Similarities lie from -1 to 1: their percentiles are exact to 1e-4.
RANGE = (-1.0 - 1e-6, 1.0 + 1e-6)  # leaves room for rounding


def embedding_geometry(rows: np.ndarray, neighbours_above: float) -> dict[str, float]:
    """Statistics of the cosine similarities of all pairs of different rows (N, D).

    A neighbour of a row is another row with a similarity above `neighbours_above`. Rows of zeros
    are left out; nothing is returned for fewer than two others.
    """
    norms = np.linalg.norm(rows, axis=1)
    is_used = norms > 0
    unit = (rows[is_used] / norms[is_used, None]).astype(np.float32)
    count = len(unit)
    if count < 2:
        return {}
    neighbours = np.zeros(count, np.int64)
    histogram = np.zeros(BINS, np.int64)
    for start in range(0, count, CHUNK):
        similar = unit[start : start + CHUNK] @ unit.T  # (chunk, N)
        np.fill_diagonal(similar[:, start:], -np.inf)  # A row is no pair with itself.
        neighbours[start : start + CHUNK] = (similar > neighbours_above).sum(axis=1)
        histogram += np.histogram(similar, BINS, RANGE)[0]

    # Sums over all pairs follow from the sum of the rows and from their Gram matrix (D, D).
    exact = unit.astype(np.float64)
    pairs = count * (count - 1)
    mean = (np.square(exact.sum(axis=0)).sum() - count) / pairs
    mean_square = (np.square(exact.T @ exact).sum() - count) / pairs
    near10, near90, near99 = np.percentile(neighbours, (10, 90, 99))
    return {
        "similarity/mean": float(mean),
        "similarity/std": float(max(mean_square - mean**2, 0.0) ** 0.5),
        "similarity/p10": _percentile(histogram, 10),
        "similarity/p90": _percentile(histogram, 90),
        "neighbours/mean": float(neighbours.mean()),
        "neighbours/p10": float(near10),
        "neighbours/p90": float(near90),
        "neighbours/p99": float(near99),
    }


def _percentile(histogram: np.ndarray, percent: float) -> float:
    """The centre of the bin of [-1, 1] that holds a percentile."""
    total = np.cumsum(histogram)
    index = np.searchsorted(total, percent / 100 * total[-1])
    return float(2 * (index + 0.5) / len(histogram) - 1)
