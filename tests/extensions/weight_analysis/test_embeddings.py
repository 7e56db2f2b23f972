"""Geometry of an embedding against the direct definition."""

import numpy as np
import pytest

from mlxlab.extensions.weight_analysis import measure
from mlxlab.extensions.weight_analysis.measure import embedding_geometry


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


def test_orthogonal_rows_have_no_neighbours_and_equal_rows_have_all():
    assert embedding_geometry(np.eye(6, dtype=np.float32), 0.7) == {
        "similarity/mean": 0.0,
        "similarity/std": 0.0,
        "similarity/p10": pytest.approx(0.0, abs=1e-4),
        "similarity/p90": pytest.approx(0.0, abs=1e-4),
        "neighbours/mean": 0.0,
        "neighbours/p10": 0.0,
        "neighbours/p90": 0.0,
        "neighbours/p99": 0.0,
    }
    equal = embedding_geometry(np.ones((6, 3), np.float32), 0.7)
    assert equal["neighbours/p10"] == 5
    assert equal["similarity/p90"] == pytest.approx(1.0, abs=1e-4)


def test_rows_of_zeros_are_left_out():
    rows = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    padded = np.concatenate([rows, np.zeros((3, 4), np.float32)])
    assert embedding_geometry(padded, 0.7) == embedding_geometry(rows, 0.7)
    assert embedding_geometry(padded[7:], 0.7) == {}
