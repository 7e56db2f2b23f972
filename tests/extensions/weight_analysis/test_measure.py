"""Quantities of a snapshot against the direct definitions: drift, geometry and ranks of known matrices."""

import numpy as np
import pytest

from mlxlab.extensions.weight_analysis import measure
from mlxlab.extensions.weight_analysis.measure import (
    drift,
    embedding_geometry,
    rank_fraction,
    rotate_onto,
    squared_singular_values,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(30, 6), (6, 30), (6, 6)])
def test_a_rotation_is_found_and_no_other_is_nearer(shape):
    before = RNG.normal(size=shape) + 1.0  # not centred
    rotation = np.linalg.qr(RNG.normal(size=(shape[1], shape[1])))[0]
    now = before @ rotation
    assert drift([(before, now)]).relative > 0.5
    aligned = drift([(rotate_onto(before, now), now)])
    assert aligned.relative < 1e-10
    np.testing.assert_allclose(aligned.cosines, 1.0)
    now = RNG.normal(size=shape)
    u, _, v = np.linalg.svd(before.T @ now)
    np.testing.assert_allclose(
        np.linalg.norm(rotate_onto(before, now) - now), np.linalg.norm(before @ u @ v - now)
    )


@pytest.mark.parametrize("chunk", [7, 100])  # smaller than the 60 rows, and larger
def test_statistics_are_those_of_all_pairs_of_different_rows(monkeypatch, chunk):
    monkeypatch.setattr(measure, "CHUNK", chunk)
    rows = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32) + 0.5
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similar = unit @ unit.T
    pairs = similar[~np.eye(60, dtype=bool)]
    neighbours = (similar > 0.7).sum(axis=1) - 1
    geometry = embedding_geometry(rows, 0.7)
    assert geometry["similarity/mean"] == pytest.approx(pairs.mean(), abs=1e-6)
    assert geometry["similarity/std"] == pytest.approx(pairs.std(), abs=1e-6)
    assert geometry["similarity/p10"] == pytest.approx(np.percentile(pairs, 10), abs=2e-3)
    assert geometry["similarity/p90"] == pytest.approx(np.percentile(pairs, 90), abs=2e-3)
    assert geometry["neighbours/mean"] == pytest.approx(neighbours.mean())
    assert geometry["neighbours/p99"] == pytest.approx(np.percentile(neighbours, 99))


def matrix(values: list[float], shape: tuple[int, int]) -> np.ndarray:
    """A dense matrix with these singular values."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(size, size)))[0] for size in shape)
    middle = np.zeros(shape)
    np.fill_diagonal(middle, values)
    return (u @ middle @ v).astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_singular_values_are_those_of_numpy(shape):
    dense = matrix([5, 4, 2, 1, 0.1], shape)
    expected = np.linalg.svd(dense.astype(np.float64), compute_uv=False) ** 2
    np.testing.assert_allclose(squared_singular_values(dense), expected, rtol=1e-6)


def test_the_rank_is_the_number_of_values_that_hold_98_percent_of_the_squares():
    assert rank_fraction(np.array([98.0, 1.0, 1.0, 0.0])) == 1 / 4
    assert rank_fraction(np.array([97.0, 2.0, 1.0, 0.0])) == 2 / 4
    assert rank_fraction(squared_singular_values(np.eye(50))) == 49 / 50
    assert rank_fraction(np.zeros(4)) == 0.0
    two = squared_singular_values(matrix([3, 3, 0, 0, 0], (5, 7)))
    assert rank_fraction(two) == 2 / 5
