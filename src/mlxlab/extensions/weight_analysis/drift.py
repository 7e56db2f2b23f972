"""How far matrices have moved, before and after the best rotation of the earlier ones."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]  # a matrix (N, D) earlier and now


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
