"""All quantities of a snapshot, as metrics by name; docs/reference/metrics.md lists them."""

from collections.abc import Set

import numpy as np

from mlxlab.extensions.weight_analysis.drift import Pair, drift, rotate_onto
from mlxlab.extensions.weight_analysis.embeddings import embedding_geometry
from mlxlab.extensions.weight_analysis.snapshot import Snapshot

MASS = 0.98  # the share of the squared singular values that an effective rank holds

Metrics = dict[str, float]


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


def attention_metrics(entropies: list[list[float]]) -> Metrics:
    """The mean over the heads of each layer, and the minimum of all heads."""
    if not entropies:
        return {}
    metrics = {"analysis/attention_entropy/min_head": min(map(min, entropies))}
    for layer, heads in enumerate(entropies):
        metrics[f"analysis/attention_entropy/layer_{layer}"] = float(np.mean(heads))
    return metrics


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
