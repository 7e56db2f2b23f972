"""Rows as text: words of numbers, missing cells, columns that mix both, and the saved state."""

import json

import numpy as np
import pyarrow as pa
import pytest

from mlxlab.data.labelled.renderer import RowRenderer, fit_bounds
from mlxlab.data.labelled.types import ColumnType, fit_type, read_column
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


def test_a_text_alone_is_written_as_it_stands():
    texts = {"text": [" two\n lines ", None]}
    alone = fit(texts, types={"text": "text"}, are_texts=True)
    assert alone.render(texts) == [(" two\n lines ",), ("",)]
    assert alone.required == ["text"]
    other = fit(texts, types={"text": "text"})
    assert other.render(texts) == [("text: two lines",), ("text: missing",)]
    assert other.required == []


@pytest.mark.parametrize("bins", [4, None])
def test_the_state_restores_the_renderer_and_reports_show_all_digits(bins):
    table = {"age": [f"{number}.25" for number in range(20)], "port": ["Cork", None] * 10}
    renderer = fit(table, bins)
    restored = validate(json.loads(json.dumps(renderer.state_dict())), RowRenderer)
    assert restored == renderer
    assert restored.render(table) == renderer.render(table)
    assert list(restored.types) == ["age", "port"]
    assert restored.exact().render(table)[1] == ("age: 1.25, port: missing",)


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
