"""All quantities of a snapshot, as metrics by name; docs/reference/metrics.md lists them."""

import logging
import time
from collections.abc import Set
from pathlib import Path

import numpy as np

from mlxlab.extensions.weight_analysis.drift import Drift, Pair, drift, rotate_onto
from mlxlab.extensions.weight_analysis.embeddings import embedding_geometry
from mlxlab.extensions.weight_analysis.snapshot import EMBEDDING, ROWS, Snapshot, save_snapshot
from mlxlab.extensions.weight_analysis.spectrum import (
    entropy_rank,
    rank_fraction,
    squared_singular_values,
)
from mlxlab.extensions.weight_analysis.worker import one_numpy_thread

logger = logging.getLogger(__name__)

Metrics = dict[str, float]


def analyse(
    now: Snapshot,
    before: Snapshot | None,
    kinds: Set[str],
    neighbours_above: float,
    folder: Path | None,
) -> Metrics:
    """The job of the background thread: `measure`, timed; then the snapshot is saved for a resumed run."""
    start = time.perf_counter()
    with one_numpy_thread():
        metrics = measure(now, before, kinds, neighbours_above)
    metrics["analysis/seconds"] = time.perf_counter() - start
    if folder is not None:
        try:
            save_snapshot(now, folder)
        except OSError as error:
            logger.warning(
                f"{folder}: not written: {error.strerror or error}; a resumed run will not know the drift"
            )
    return metrics


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
            metrics |= _drifts(pairs)
        if "updates" in kinds and (steps := now.step - before.step) > 0:
            metrics |= {
                f"update_ratio/{part}": drift(pairs[part]).relative / steps for part in pairs
            }
    return {f"analysis/{name}": value for name, value in metrics.items() if np.isfinite(value)}


def attention_metrics(entropies: list[list[float]]) -> Metrics:
    """Mean over the heads of each layer, and the lowest head: one that attends to a single position has 0."""
    if not entropies:
        return {}
    metrics = {
        f"analysis/attention_entropy/layer_{i}": float(np.mean(heads))
        for i, heads in enumerate(entropies)
    }
    return metrics | {"analysis/attention_entropy/min_head": min(min(heads) for heads in entropies)}


def selected(layers: list[int]) -> list[int]:
    """First, middle and last: those whose ranks and drift are measured."""
    return sorted({layers[0], layers[len(layers) // 2], layers[-1]}) if layers else []


def comparable(before: Snapshot, now: Snapshot) -> dict[str, list[Pair]]:
    """Matrices of equal shape in both, as `embedding` and `layer_<i>`."""
    pairs: dict[str, list[Pair]] = {}
    for key, array in now.arrays.items():
        old = before.arrays.get(key)
        if key == ROWS or old is None or old.shape != array.shape:
            continue
        if key == EMBEDDING and not np.array_equal(before.arrays.get(ROWS, ()), now.arrays[ROWS]):
            continue
        part = EMBEDDING if key == EMBEDDING else f"layer_{key.partition('.')[0]}"
        pairs.setdefault(part, []).append((old, array))
    return pairs


def _ranks(now: Snapshot) -> Metrics:
    metrics: Metrics = {}
    layers = now.layers
    for layer in selected(list(layers)):
        for path, matrix in layers[layer].items():
            squares = squared_singular_values(matrix)
            metrics[f"rank/{path}/layer_{layer}"] = rank_fraction(squares)
            metrics[f"entropy_rank/{path}/layer_{layer}"] = entropy_rank(squares) / len(squares)
    return metrics


def _drifts(pairs: dict[str, list[Pair]]) -> Metrics:
    metrics: Metrics = {}
    layers = sorted(int(part.partition("_")[2]) for part in pairs if part != EMBEDDING)
    for part in [
        *(["embedding"] if EMBEDDING in pairs else []),
        *(f"layer_{i}" for i in selected(layers)),
    ]:
        aligned = [(rotate_onto(before, now), now) for before, now in pairs[part]]
        for name, change in (("", drift(pairs[part])), ("aligned_", drift(aligned))):
            metrics |= {
                f"drift/{part}/{name}{key}": value for key, value in _statistics(change).items()
            }
    return metrics


def _statistics(change: Drift) -> Metrics:
    cosines = change.cosines
    if not len(cosines):
        return {"relative": change.relative}
    p10, p90 = np.percentile(cosines, (10, 90))
    return {
        "relative": change.relative,
        "cosine_mean": float(cosines.mean()),
        "cosine_p10": float(p10),
        "cosine_p90": float(p90),
    }
