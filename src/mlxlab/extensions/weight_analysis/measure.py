"""The quantities of a snapshot, as metrics by name; docs/reference/metrics.md lists them."""

from collections.abc import Iterable, Set
from typing import NamedTuple

import numpy as np

from mlxlab.extensions.weight_analysis.snapshot import Snapshot

MASS = 0.98  # the share of the squared singular values that an effective rank holds

CHUNK = 1024  # rows whose similarities to all others are in memory at a time
BINS = 20_000  # Similarities lie from -1 to 1: their percentiles are exact to 1e-4.
RANGE = (-1.0 - 1e-6, 1.0 + 1e-6)  # leaves room for rounding

Metrics = dict[str, float]
Pair = tuple[np.ndarray, np.ndarray]  # a matrix (N, D) earlier and now


def measure(
    now: Snapshot, before: Snapshot | None, kinds: Set[str], neighbours_above: float
) -> Metrics:
    """Metrics of the snapshot `now`; drift and updates need the one `before` it."""
    metrics: Metrics = {}
    if "embedding" in kinds and now.embedding is not None:
        metrics |= embedding_geometry(now.embedding, neighbours_above)
    if "rank" in kinds:
        metrics |= _ranks(now)
    if before is not None:
        pairs = comparable(before, now)
        if "drift" in kinds:
            metrics |= _drifts(pairs, now)
        steps = now.step - before.step
        if "updates" in kinds and steps:
            for part, matrices in pairs.items():
                metrics[f"update_ratio/{part}"] = drift(matrices).relative / steps
    return {f"analysis/{name}": value for name, value in metrics.items() if np.isfinite(value)}


def first_middle_last(layers: list[int]) -> list[int]:
    """The layers whose ranks and drift are measured."""
    return sorted({layers[0], layers[len(layers) // 2], layers[-1]}) if layers else []


def comparable(before: Snapshot, now: Snapshot) -> dict[str, list[Pair]]:
    """Matrices that both have, as `embedding` and `layer_<i>`."""
    pairs: dict[str, list[Pair]] = {}
    for layer, matrices in now.layers.items():
        old = before.layers.get(layer, {})
        pairs[f"layer_{layer}"] = [(old[path], matrices[path]) for path in matrices if path in old]
    if before.embedding is not None and now.embedding is not None:
        pairs["embedding"] = [(before.embedding, now.embedding)]
    return pairs


def _ranks(now: Snapshot) -> Metrics:
    metrics: Metrics = {}
    for layer in first_middle_last(list(now.layers)):
        for path, matrix in now.layers[layer].items():
            squares = squared_singular_values(matrix)
            metrics[f"rank/{path}/layer_{layer}"] = rank_fraction(squares)
    return metrics


def _drifts(pairs: dict[str, list[Pair]], now: Snapshot) -> Metrics:
    parts = [f"layer_{layer}" for layer in first_middle_last(list(now.layers))]
    if "embedding" in pairs:
        parts.append("embedding")
    metrics: Metrics = {}
    for part in parts:
        aligned = [(rotate_onto(before, now), now) for before, now in pairs[part]]
        metrics |= _statistics(f"drift/{part}/", pairs[part])
        metrics |= _statistics(f"drift/{part}/aligned_", aligned)
    return metrics


def _statistics(prefix: str, pairs: list[Pair]) -> Metrics:
    relative, cosines = drift(pairs)
    metrics = {f"{prefix}relative": relative}
    if len(cosines):
        metrics[f"{prefix}cosine_mean"] = float(cosines.mean())
        for percent in (10, 90):
            metrics[f"{prefix}cosine_p{percent}"] = float(np.percentile(cosines, percent))
    return metrics


def squared_singular_values(matrix: np.ndarray) -> np.ndarray:
    """The min(N, M) squares of a matrix (N, M), falling."""
    return np.square(np.linalg.svd(matrix.astype(np.float64), compute_uv=False))


def rank_fraction(squares: np.ndarray) -> float:
    """The fewest singular values that hold 98 % of the squares, as a fraction of their number."""
    total = np.cumsum(squares)
    if total[-1] == 0:
        return 0.0
    needed = np.searchsorted(total, MASS * total[-1] * (1 - 1e-12)) + 1  # less rounding
    return float(needed / len(squares))


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


class Drift(NamedTuple):
    """The change of one or several matrices together.

    Args:
        relative: Frobenius norm of the change, divided by that of the earlier weights; NaN if
            these are zeros.
        cosines: of each row earlier and now, without rows of zeros.
    """

    relative: float
    cosines: np.ndarray


def drift(pairs: Iterable[Pair]) -> Drift:
    change = 0.0
    norm = 0.0
    cosines = [np.zeros(0)]
    for before, now in pairs:
        change += float(np.square(now - before, dtype=np.float64).sum())
        norm += float(np.square(before, dtype=np.float64).sum())
        cosines.append(row_cosines(before, now))
    relative = (change / norm) ** 0.5 if norm else float("nan")
    return Drift(relative, np.concatenate(cosines))


def row_cosines(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The cosine of each pair of rows of (N, D), without pairs with a row of zeros."""
    before = before.astype(np.float64)
    now = now.astype(np.float64)
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(now, axis=1)
    products = (before * now).sum(axis=1)
    return products[norms > 0] / norms[norms > 0]


def rotate_onto(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """`before` (N, D) times the orthogonal (D, D) that brings it nearest to `now`, not centred.

    This is the orthogonal Procrustes problem (Schonemann 1966). It hides a rotation that all rows
    share, also one that training really made.
    """
    # The coordinates of both in their QR decompositions have at most min(N, D) dimensions.
    _, r = np.linalg.qr(before.T.astype(np.float64))
    q_now, r_now = np.linalg.qr(now.T.astype(np.float64))
    u, _, v = np.linalg.svd(r @ r_now.T)
    return r.T @ (u @ v) @ q_now.T
