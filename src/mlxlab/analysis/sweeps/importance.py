"""How much each key of a sweep matters for the objective, by permutation importance of a random forest.

Breiman (2001), "Random forests", on rows that the forest has not seen: each configuration is predicted by forests
fitted to the others (cross-validation), then the values of one key are replaced by those of other configurations. The
importance of a key is the error that this adds, as a share of that of all keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.wording import percent

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestRegressor

MIN_CONFIGURATIONS = 12
MAX_CONFIGURATIONS = 1000  # later ones are left out
_FOLDS, _TREES, _REPLACEMENTS, _SEED = 4, 40, 10, 0


@dataclass(frozen=True)
class Importance:
    """Keys with their importance, the largest first; without any, `note` says why.

    Args:
        explained: share of the variance that the forest predicts on configurations that it has not seen.
    """

    shares: dict[str, float]
    explained: float
    note: str


def measure_importance(points: Sequence[dict[str, str]], values: Sequence[float]) -> Importance:
    """The importance of the keys of `points` for `values`, one of each configuration."""
    points, target = points[:MAX_CONFIGURATIONS], np.array(values[:MAX_CONFIGURATIONS])
    keys = list(points[0]) if points else []
    needed = max(MIN_CONFIGURATIONS, 4 * len(keys))
    if len(keys) < 2:
        return Importance({}, 0.0, "Importance compares two keys or more.")
    if len(points) < needed:
        return Importance(
            {}, 0.0, f"Too few configurations for importance: {len(points)} of {needed}."
        )
    if not target.std() > 0:
        return Importance({}, 0.0, "All configurations have the same value.")
    columns = {key: _column([point[key] for point in points]) for key in keys}
    explained, shares = _added_errors(columns, target)
    if explained <= 0:
        return Importance(
            {}, explained, "The keys do not predict the objective: what differs is noise."
        )
    losses = {key: max(shares[key], 0.0) for key in sorted(shares, key=lambda key: -shares[key])}
    text = f"The keys predict {percent(explained, 0)} of the variance of configurations that the forest has not seen."
    total = sum(losses.values()) or 1.0
    return Importance({key: loss / total for key, loss in losses.items()}, explained, text)


def _added_errors(
    columns: dict[str, np.ndarray], target: np.ndarray
) -> tuple[float, dict[str, float]]:
    """(share of the variance that is predicted, error that replacing the values of each key adds)."""
    from sklearn.model_selection import KFold

    rows = np.concatenate(list(columns.values()), axis=1)
    widths = [column.shape[1] for column in columns.values()]
    ends = np.cumsum(widths)
    errors, losses = 0.0, np.zeros(len(columns))
    rng = np.random.default_rng(_SEED)
    for train, test in KFold(_FOLDS, shuffle=True, random_state=_SEED).split(rows):
        forest = _forest().fit(rows[train], target[train])
        errors += np.square(forest.predict(rows[test]) - target[test]).sum()
        changed = np.tile(
            rows[test], (len(columns), _REPLACEMENTS, 1, 1)
        )  # (key, draw, row, column)
        for index, end in enumerate(ends):
            own = slice(end - widths[index], end)
            changed[index, :, :, own] = rows[rng.choice(len(rows), (_REPLACEMENTS, len(test))), own]
        predicted = forest.predict(changed.reshape(-1, rows.shape[1])).reshape(changed.shape[:3])
        losses += np.square(predicted - target[test]).sum((1, 2)) / _REPLACEMENTS
    total = np.square(target - target.mean()).sum()
    return float(1 - errors / total), dict(zip(columns, (losses - errors).tolist(), strict=True))


def _forest() -> "RandomForestRegressor":
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=_SEED)


def _column(texts: list[str]) -> np.ndarray:
    """A column of numbers, or one for each of several texts. (A forest sees only the order of numbers.)"""
    try:
        return np.array([float(text) for text in texts])[:, None]
    except ValueError:
        values = sorted(set(texts))
        return np.array([[float(text == value) for value in values] for text in texts])
