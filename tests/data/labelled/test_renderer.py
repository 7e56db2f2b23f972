"""Rows as text: words of numbers, missing cells, columns that mix both, and the saved state."""

import json

import numpy as np
import pyarrow as pa
import pytest

from mlxlab.data.labelled.renderer import (
    NumberFormat,
    RowRenderer,
    Template,
    default_template,
    fit_bounds,
    parse_template,
)
from mlxlab.data.labelled.types import ColumnType, fit_type, read_column
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import ShapeError, validate

BINS = NumberFormat(mode="bins", bins=4, digits=4)
DIGITS = NumberFormat(mode="text", bins=4, digits=3)


def fit(table, numbers=BINS, types=None, template=None):
    cells = {name: pa.array(each, pa.string()) for name, each in table.items()}
    types = types or {}
    fitted = {name: fit_type(each, types.get(name)) for name, each in cells.items()}
    columns = {name: read_column(name, cells[name], each) for name, each in fitted.items()}
    templates = (template or default_template(list(table)),)
    return RowRenderer(templates, fitted, numbers, fit_bounds(columns, numbers))


def test_bins_hold_about_equally_many_training_values():
    values = np.random.default_rng(0).normal(size=1000)
    bins = NumberFormat(mode="bins", bins=10, digits=4)
    counts = np.unique(bins.write_bins(values, bins.fit(values)), return_counts=True)
    assert counts[0].tolist() == [f"q{i:02d}" for i in range(10)]
    assert counts[1].min() >= 90


def test_few_different_values_have_a_bin_each():
    bounds = BINS.fit(np.array([1.0] * 97 + [2, 3, 7]))
    assert BINS.write_bins(np.array([1.0, 2, 3, 7]), bounds) == ["q00", "q01", "q02", "q03"]


def test_a_frequent_value_leaves_the_other_bins_to_the_rest():
    values = np.array([0.0] * 970 + list(range(1, 31)))
    counts = np.unique(BINS.write_bins(values, BINS.fit(values)), return_counts=True)[1]
    assert counts.tolist() == [970, 10, 10, 10]


def test_numbers_beyond_the_training_values_are_in_the_outer_bins():
    bounds = BINS.fit(np.arange(100.0))
    assert BINS.write_bins(np.array([-1e300, 1e300]), bounds) == ["q00", "q03"]


def test_digits_are_significant():
    renderer = fit({"x": ["3.14159", "120000", "-0.0", "7", None]}, DIGITS)
    cells = ["3.14159", "120000", "-0.0", "7", " "]
    words = ["x: 3.14", "x: 1.2e+05", "x: 0", "x: 7", "x: missing"]
    assert renderer.render({"x": cells}) == [(word,) for word in words]


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
    alone = fit(texts, types={"text": "text"}, template=Template(("", ""), ("text",)))
    assert alone.render(texts) == [(" two\n lines ",), ("",)]
    assert alone.required == ["text"]
    other = fit(texts, types={"text": "text"}, template=parse_template("it says {text}"))
    assert other.render(texts) == [("it says two lines",), ("it says missing",)]
    assert other.required == []


def test_reports_show_all_digits():
    table = {"age": ["1234567.25", "2"]}
    assert fit(table).exact().render(table) == [("age: 1234567.25",), ("age: 2",)]
    assert fit(table, DIGITS).exact().render(table) == [("age: 1234567.25",), ("age: 2",)]


def test_a_cell_to_predict_from_that_is_no_number_is_located():
    renderer = fit({"age": ["1", "2", "3"]})
    with pytest.raises(DataError, match="row 2: column 'age': expected a finite number"):
        renderer.render({"age": ["1", "inf"]})
    with pytest.raises(DataError, match="no column 'age'"):
        renderer.render({"agee": ["1"]})


def test_the_state_restores_the_renderer():
    table = {"age": [str(number) for number in range(20)], "port": ["Cork", None] * 10}
    for numbers in (BINS, DIGITS):
        renderer = fit(table, numbers)
        restored = validate(json.loads(json.dumps(renderer.state_dict())), RowRenderer)
        assert restored == renderer
        assert restored.render(table) == renderer.render(table)
        assert list(restored.types) == ["age", "port"]


@pytest.mark.parametrize(
    "change",
    [
        {"templates": []},
        {"templates": [{"literals": ["age: "], "fields": ["age"]}]},
        {"templates": [{"literals": ["age: "], "fields": []}]},
        {"templates": [{"literals": ["", ""], "fields": ["other"]}]},
        {"types": {"age": {"kind": "integer"}}},
        {"bounds": {"age": [2.0, 1.0]}},
        {"bounds": {"age": [float("nan")]}},
        {"bounds": {"age": ["1"]}},
        {"bounds": {"other": [1.0]}},
        {"numbers": {"mode": "bins", "bins": 1, "digits": 4}},
        {"numbers": {"mode": "code", "bins": 4, "digits": 4}},
        {"more": 1},
    ],
)
def test_a_damaged_state_is_refused(change):
    templates = (default_template(["age"]),)
    renderer = RowRenderer(templates, {"age": ColumnType("integer")}, BINS, {"age": [1.0, 2.0]})
    state = json.loads(json.dumps(renderer.state_dict()))
    assert list(validate(state, RowRenderer).types) == ["age"]
    with pytest.raises(ShapeError):
        validate({**state, **change}, RowRenderer)


def test_rules_are_equal_for_renderers_that_make_the_same_texts():
    table = {"age": ["1", "2"], "port": ["Cork", "Bray"]}
    assert fit(table).rules() == fit({**table, "port": ["Cork", "Cobh"]}).rules()
    assert fit(table).rules() != fit(table, DIGITS).rules()
    assert fit(table).rules() != fit({**table, "age": ["1", "3"]}).rules()


def test_the_default_names_every_column():
    template = default_template(["age", "fare {\u00a3}"])
    assert template.literals == ("age: ", ", fare {\u00a3}: ", "")
    assert template.fields == ("age", "fare {\u00a3}")


def test_placeholders_are_names_of_columns_whatever_they_contain():
    parsed = parse_template("{age}, {sepal length (cm)}{a:b!c}.")
    assert parsed.literals == ("", ", ", "", ".")
    assert parsed.fields == ("age", "sepal length (cm)", "a:b!c")


def test_doubled_braces_are_braces():
    parsed = parse_template("{{{age}}} {{age}}")
    assert (parsed.literals, parsed.fields) == (("{", "} {age}"), ("age",))


@pytest.mark.parametrize("text", ["{age", "{age}}", "no column", "{a} }"])
def test_a_wrong_template_is_refused(text):
    with pytest.raises(ConfigError, match=r"^data\.template: expected a placeholder"):
        parse_template(text)
