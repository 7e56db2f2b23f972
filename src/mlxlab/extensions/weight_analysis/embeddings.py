"""Geometry of an embedding: cosine similarities of its rows and their near neighbours."""

import numpy as np

CHUNK = 1024  # rows whose similarities to all others are in memory at a time
BINS = 20_000  # of similarities in [-1, 1]: their percentiles are exact to 1e-4


def embedding_geometry(rows: np.ndarray, neighbours_above: float) -> dict[str, float]:
    """Statistics of the cosine similarities of all pairs of different rows (N, D), and of the neighbours of a row.

    A neighbour of a row is another row with a similarity above `neighbours_above`. Rows of zeros are left out; nothing
    is returned for fewer than two others.
    """
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = (rows / np.where(norms > 0, norms, 1))[norms[:, 0] > 0].astype(np.float32)
    if (count := len(unit)) < 2:
        return {}
    neighbours = np.zeros(count, np.int64)
    histogram = np.zeros(BINS, np.int64)
    total = squares = 0.0
    for start in range(0, count, CHUNK):
        similar = unit[start : start + CHUNK] @ unit.T  # (chunk, N)
        chunk = np.arange(len(similar))
        others = np.ones(similar.shape, bool)
        others[chunk, start + chunk] = False  # a row is no pair with itself
        neighbours[start : start + CHUNK] = ((similar > neighbours_above) & others).sum(axis=1)
        pairs = similar[others]
        histogram += np.histogram(pairs, BINS, (-1.0 - 1e-6, 1.0 + 1e-6))[0]
        total += float(pairs.sum(dtype=np.float64))
        squares += float(np.square(pairs, dtype=np.float64).sum())
    mean = total / (count * (count - 1))
    p10, p90 = _percentiles(histogram, (10, 90))
    near10, near90, near99 = np.percentile(neighbours, (10, 90, 99))
    return {
        "similarity/mean": mean,
        "similarity/std": max(squares / (count * (count - 1)) - mean**2, 0.0) ** 0.5,
        "similarity/p10": p10,
        "similarity/p90": p90,
        "neighbours/mean": float(neighbours.mean()),
        "neighbours/p10": float(near10),
        "neighbours/p90": float(near90),
        "neighbours/p99": float(near99),
    }


def _percentiles(histogram: np.ndarray, percents: tuple[int, ...]) -> list[float]:
    """Centres of the bins of [-1, 1] that hold the percentiles."""
    cumulated = np.cumsum(histogram)
    bins = [np.searchsorted(cumulated, percent / 100 * cumulated[-1]) for percent in percents]
    return [float(2 * (index + 0.5) / len(histogram) - 1) for index in bins]
