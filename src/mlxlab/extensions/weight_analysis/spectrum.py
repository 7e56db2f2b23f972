"""Effective ranks of a matrix, from its singular values."""

import numpy as np


def squared_singular_values(matrix: np.ndarray) -> np.ndarray:
    """Of a matrix (N, M): min(N, M) of them, falling. Eigenvalues of the smaller Gram matrix, which are cheaper."""
    small = matrix.astype(np.float64)
    small = small if small.shape[0] <= small.shape[1] else small.T
    return np.maximum(np.linalg.eigvalsh(small @ small.T)[::-1], 0.0)


def rank_fraction(squares: np.ndarray, mass: float = 0.98) -> float:
    """The fewest singular values that hold `mass` of the sum of all squares, as a fraction of their number."""
    cumulated = np.cumsum(squares)
    if cumulated[-1] == 0:
        return 0.0
    # The sum of all squares is reached by the last one, whatever is rounded.
    needed = np.searchsorted(cumulated, mass * cumulated[-1] * (1 - 1e-12)) + 1
    return float(min(needed, len(squares)) / len(squares))


def entropy_rank(squares: np.ndarray) -> float:
    """exp(entropy of the singular values divided by their sum), between 1 and their number (Roy and Vetterli 2007)."""
    values = np.sqrt(squares)
    if values.sum() == 0:
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
