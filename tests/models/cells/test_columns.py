"""The cells of a table as numbers: scaled, coded, and restored."""

import numpy as np
import pyarrow as pa
import pytest

from mlxlab.data.labelled.types import ColumnType, fit_type, read_column
from mlxlab.models.cells.columns import fit_columns, read_cells


def typed(name, cells, column_type=None):
    texts = pa.array(cells, pa.string())
    return read_column(name, texts, column_type or fit_type(texts))


def fit(name, cells, column_type=None):
    column = typed(name, cells, column_type)
    return column, fit_columns({name: column})


def test_a_number_is_in_robust_deviations_from_the_median():
    values = [str(number) for number in [1, 2, 3, 4, 100]]
    column, [fitted] = fit("a", [*values, None])
    assert fitted.cells["median"] == 3
    cells = read_cells(column, fitted.cells)
    scale = 2 / 1.349  # of the quartiles 2 and 4
    np.testing.assert_allclose(cells[:5], (np.array([1, 2, 3, 4, 100]) - 3) / scale, rtol=1e-6)
    assert np.isnan(cells[5])
    assert fitted.model["missing"]
    assert fitted.model["edges"] == sorted(set(fitted.model["edges"]))


def test_a_category_has_a_code_by_its_frequency_and_an_unseen_one_has_none():
    column, [fitted] = fit("a", ["x", "y", "y", "z", "y", "x", None])
    assert fitted.cells["categories"] == ["y", "x"]  # A single row is too few for z.
    later = typed("a", ["x", "y", "new", None], column.type)
    assert read_cells(later, fitted.cells)[:3].tolist() == [1, 0, -1]
    assert np.isnan(read_cells(later, fitted.cells)[3])
    assert fitted.model == {"categories": 2, "missing": True}


def test_the_parts_of_a_date_that_vary_are_numbers():
    dates = ["2024-01-01", "2024-01-02", "2024-03-05", "2024-12-31"]
    column, fitted = fit("day", dates)
    assert [each.cells["part"] for each in fitted] == ["day", "month", "weekday"]
    [_, month, weekday] = [read_cells(column, each.cells) for each in fitted]
    assert month[0] == month[1] < month[2] < month[3]
    assert weekday[0] < weekday[1] == weekday[2] == weekday[3]


@pytest.mark.parametrize("cells", [["1", "1"], ["x", "x"], ["a text of its own", "another"]])
def test_a_column_without_information_has_no_cells(cells):
    column_type = ColumnType("text") if " " in cells[0] else None
    assert fit("a", cells, column_type)[1] == []


def test_a_number_far_from_the_training_rows_stays_finite():
    column, [fitted] = fit("a", ["1", "2", "3"])
    later = typed("a", ["1e300", "-1e300"], column.type)
    assert np.isfinite(read_cells(later, fitted.cells)).all()
