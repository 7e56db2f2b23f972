"""Metrics of a regression: of values (N,) against targets (N,), both in the units of the data."""

import numpy as np


def regression_metrics(values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Mean absolute error, root mean squared error, coefficient of determination and Spearman's rank correlation.

    R2 of constant targets is 1 if all values are right, else 0, as in scikit-learn; of fewer than two examples NaN.
    Spearman's correlation is NaN where values or targets are constant.
    """
    if not len(targets):
        return dict.fromkeys(("mae", "rmse", "r2", "spearman"), float("nan"))
    values = values.astype(np.float64)
    targets = targets.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # a model that diverged
        errors = values - targets
        squares = float((errors**2).sum())
        return {
            "mae": float(np.abs(errors).mean()),
            "rmse": float(np.sqrt(squares / len(targets))),
            "r2": _determination(squares, targets),
            "spearman": _correlation(mean_ranks(values), mean_ranks(targets)),
        }


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """(N,) ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def _determination(squares: float, targets: np.ndarray) -> float:
    if len(targets) < 2:
        return float("nan")
    if targets.min() == targets.max():
        return float(squares == 0)
    return 1 - squares / float(((targets - targets.mean()) ** 2).sum())


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x = x - x.mean()
    y = y - y.mean()
    scale = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / scale if scale else float("nan")
