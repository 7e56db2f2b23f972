"""How much each key of a sweep matters for the objective, by permutation importance of a random forest.

Breiman (2001), "Random forests", on rows that the forest has not seen: each configuration is predicted by forests
fitted to the others (cross-validation), then the values of one key are permuted. The importance of a key is the error
that this adds, as a share of that of all keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

MIN_CONFIGURATIONS = 12
MAX_CONFIGURATIONS = 1000  # later ones are left out
_FOLDS = 4
_TREES = 40
_REPEATS = 10
_SEED = 0

Reason = Literal["", "one key", "too few configurations", "equal values", "noise"]


@dataclass(frozen=True)
class Importance:
    """Keys with their importance, the largest first.

    Args:
        explained: share of the variance that the forest predicts on configurations that it has not seen.
        reason: why there are no shares.
    """

    shares: dict[str, float]
    explained: float
    reason: Reason


def measure_importance(points: Sequence[dict[str, str]], values: Sequence[float]) -> Importance:
    """The importance of the keys of `points` for `values`, one of each configuration."""
    points = points[:MAX_CONFIGURATIONS]
    target = np.array(values[:MAX_CONFIGURATIONS])
    keys = list(points[0]) if points else []
    if len(keys) < 2:
        return Importance({}, 0.0, "one key")
    if len(points) < max(MIN_CONFIGURATIONS, 4 * len(keys)):
        return Importance({}, 0.0, "too few configurations")
    if target.std() == 0:
        return Importance({}, 0.0, "equal values")
    columns = [_column(points, key) for key in keys]
    explained, added = _added_errors(np.stack(columns, axis=1), target)
    if explained <= 0:
        return Importance({}, explained, "noise")
    losses = np.maximum(added, 0.0)
    shares = losses / (losses.sum() or 1.0)
    order = np.argsort(-added, kind="stable")
    return Importance({keys[index]: float(shares[index]) for index in order}, explained, "")


def _added_errors(columns: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """(share of the variance that is predicted, error that permuting each column adds)."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    error = 0.0
    added = np.zeros(columns.shape[1])
    for train, test in KFold(_FOLDS, shuffle=True, random_state=_SEED).split(columns):
        forest = RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=_SEED)
        forest.fit(columns[train], target[train])
        error += np.square(forest.predict(columns[test]) - target[test]).sum()
        permuted = permutation_importance(
            forest,
            columns[test],
            target[test],
            scoring="neg_mean_squared_error",
            n_repeats=_REPEATS,
            random_state=_SEED,
        )
        added += permuted.importances_mean * len(test)
    total = np.square(target - target.mean()).sum()
    return float(1 - error / total), added


def _column(points: Sequence[dict[str, str]], key: str) -> np.ndarray:
    """Numbers as they are, other texts by their place in the sorted order. (A forest sees only the order.)"""
    texts = [point[key] for point in points]
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        _, places = np.unique(texts, return_inverse=True)
        return places.astype(float)
