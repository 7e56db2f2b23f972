"""The effective rank of a matrix, from its singular values."""

import numpy as np

MASS = 0.98  # of the sum of all squares


def squared_singular_values(matrix: np.ndarray) -> np.ndarray:
    """The min(N, M) squares of a matrix (N, M), falling: eigenvalues of the smaller Gram matrix."""
    wide = matrix.astype(np.float64)
    if wide.shape[0] > wide.shape[1]:
        wide = wide.T
    return np.maximum(np.linalg.eigvalsh(wide @ wide.T)[::-1], 0.0)


def rank_fraction(squares: np.ndarray) -> float:
    """The fewest singular values that hold 98 % of the squares, as a fraction of their number."""
    total = np.cumsum(squares)
    if total[-1] == 0:
        return 0.0
    needed = np.searchsorted(total, MASS * total[-1] * (1 - 1e-12)) + 1  # less rounding
    return float(needed / len(squares))
