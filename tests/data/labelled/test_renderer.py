"""Rows as text: words of numbers, missing cells, columns that mix both, and the saved state."""

import json

import numpy as np
import pyarrow as pa
import pytest

from mlxlab.data.labelled.renderer import RowRenderer, fit_bins, fit_bounds
from mlxlab.data.labelled.types import ColumnType, fit_type, read_column
from mlxlab.errors import DataError
from mlxlab.files.untrusted import ShapeError, validate


def fit(table, bins=4, types=None, are_texts=False):
    cells = {name: pa.array(each, pa.string()) for name, each in table.items()}
    types = types or {}
    fitted = {name: fit_type(each, types.get(name)) for name, each in cells.items()}
    columns = {name: read_column(name, cells[name], each) for name, each in fitted.items()}
    return RowRenderer(fitted, are_texts, fit_bounds(columns, bins), 2)


def words(trained, values, bins=4):
    """The bins of numbers, by those of the training rows."""
    renderer = fit({"x": list(map(str, trained.tolist()))}, bins)
    texts = renderer.render({"x": list(map(str, values.tolist()))})
    return [text.removeprefix("x: ") for (text,) in texts]


def test_bins_hold_about_equally_many_training_values():
    values = np.random.default_rng(0).normal(size=1000)
    counts = np.unique(words(values, values, bins=10), return_counts=True)
    assert counts[0].tolist() == [f"q{i:02d}" for i in range(10)]
    assert counts[1].min() >= 90


def test_bins_of_few_frequent_and_outer_values():
    trained = np.array([1.0] * 97 + [2, 3, 7])
    assert fit_bins(trained, 4) == [2, 3, 7]
    assert words(trained, np.array([1.0, 2, 3, 7])) == ["q00", "q01", "q02", "q03"]
    frequent = np.array([0.0] * 970 + list(range(1, 31)))
    counts = np.unique(words(frequent, frequent), return_counts=True)[1]
    assert counts.tolist() == [970, 10, 10, 10]
    assert words(np.arange(100.0), np.array([-1e300, 1e300])) == ["q00", "q03"]


def test_without_bins_all_digits_are_written():
    cells = ["3.14159", "120000", "-0.0", "7", " "]
    texts = ["x: 3.14159", "x: 120000", "x: 0", "x: 7", "x: missing"]
    assert fit({"x": cells}, None).render({"x": cells}) == [(text,) for text in texts]


def test_a_row_becomes_its_words_and_a_missing_value_is_stated():
    table = {
        "age": ["1", "2", None, "4"],
        "port": ["Le\n Havre", None, " ", "Cork"],
        "paid": ["True", "false", None, "TRUE"],
        "day": ["2024-01-02", "2024-01-02T00:00:00", "2024-01-02 03:04", None],
    }
    renderer = fit(table)
    assert renderer.render(table) == [
        ("age: q00, port: Le Havre, paid: true, day: 2024-01-02",),
        ("age: q01, port: missing, paid: false, day: 2024-01-02",),
        ("age: missing, port: missing, paid: missing, day: 2024-01-02T03:04:00",),
        ("age: q02, port: Cork, paid: true, day: missing",),
    ]
    assert renderer.render({name: [] for name in table}) == []


def test_numbers_that_are_categories_are_names():
    renderer = fit({"ward": ["1", "2"] * 3}, types={"ward": "category"})
    assert renderer.render({"ward": ["1.0", "9"]}) == [("ward: 1",), ("ward: 9",)]
    renderer = fit({"postcode": ["0123", "8001"] * 3})
    assert renderer.render({"postcode": ["0123", "123"]}) == [
        ("postcode: 0123",),
        ("postcode: 123",),
    ]


def test_a_text_alone_is_written_as_it_stands():
    texts = {"text": [" two\n lines ", None]}
    alone = fit(texts, types={"text": "text"}, are_texts=True)
    assert alone.render(texts) == [(" two\n lines ",), ("",)]
    assert alone.required == ["text"]
    other = fit(texts, types={"text": "text"})
    assert other.render(texts) == [("text: two lines",), ("text: missing",)]
    assert other.required == []


def test_two_texts_are_a_pair():
    table = {"first": ["a", None], "second": ["b", "c"]}
    pair = fit(table, types=dict.fromkeys(table, "text"), are_texts=True)
    assert pair.is_pair
    assert pair.render(table) == [("a", "b"), ("", "c")]


@pytest.mark.parametrize("bins", [4, None])
def test_the_state_restores_the_renderer_and_reports_show_all_digits(bins):
    table = {"age": [f"{number}.25" for number in range(20)], "port": ["Cork", None] * 10}
    renderer = fit(table, bins)
    restored = validate(json.loads(json.dumps(renderer.state_dict())), RowRenderer)
    assert restored == renderer
    assert restored.render(table) == renderer.render(table)
    assert list(restored.types) == ["age", "port"]
    assert restored.exact().render(table)[1] == ("age: 1.25, port: missing",)


def test_a_cell_to_predict_from_that_is_no_number_is_located():
    renderer = fit({"age": ["1", "2", "3"]})
    with pytest.raises(DataError, match="row 2: column 'age': expected a finite number"):
        renderer.render({"age": ["1", "inf"]})
    with pytest.raises(DataError, match="no column 'age'"):
        renderer.render({"agee": ["1"]})


@pytest.mark.parametrize(
    "change",
    [
        {"types": {}, "bounds": {}},
        {"types": {"age": {"kind": "whole"}}},
        {"types": {name: {"kind": "text"} for name in "abc"}, "bounds": {}, "are_texts": True},
        {"are_texts": "both"},
        {"bounds": {"age": [2.0, 1.0]}},
        {"bounds": {"age": [float("nan")]}},
        {"bounds": {"age": ["1"]}},
        {"bounds": {"other": [1.0]}},
        {"bin_digits": 1},
        {"bin_digits": 40},
        {"more": 1},
    ],
)
def test_a_damaged_state_is_refused(change):
    renderer = RowRenderer({"age": ColumnType("integer")}, False, {"age": [1.0, 2.0]}, 2)
    state = json.loads(json.dumps(renderer.state_dict()))
    assert list(validate(state, RowRenderer).types) == ["age"]
    with pytest.raises(ShapeError):
        validate({**state, **change}, RowRenderer)


def test_rules_are_equal_for_renderers_that_make_the_same_texts():
    table = {"age": ["1", "2"], "port": ["Cork", "Bray"]}
    assert fit(table).rules() == fit({**table, "port": ["Cork", "Cobh"]}).rules()
    assert fit(table).rules() != fit(table, None).rules()
    assert fit(table).rules() != fit({**table, "age": ["1", "3"]}).rules()
