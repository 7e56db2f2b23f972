"""Columns that give the label away."""

import numpy as np
import pyarrow as pa

from mlxlab.data.labelled.labels import find_giveaways
from mlxlab.data.labelled.types import fit_type, read_column


def column_of(name, cells):
    array = pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
    return read_column(name, array, fit_type(array))


def test_a_column_that_gives_the_label_away_is_found():
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=400)
    cells = {
        "noise": rng.normal(size=400),
        "copy": np.where(label, "late", "on time"),
        "id": range(400),
        "score": label + rng.random(400) / 2,
        "sex": np.where(rng.random(400) < 0.8, label, 1 - label),
        "constant": ["a"] * 400,
        "gaps": [1 if each else None for each in label],
        "names": [f"name {number}" for number in range(200)] * 2,
        "empty": [None] * 400,
    }
    columns = {name: column_of(name, each) for name, each in cells.items()}
    named = [line.split("'")[1] for line in find_giveaways(columns, label)]
    assert named == ["copy", "score", "gaps"]
    rare = np.zeros(400, np.int64)
    rare[0] = 1
    assert find_giveaways(columns, rare) == []
