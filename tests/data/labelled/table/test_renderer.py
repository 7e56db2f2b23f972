"""Rows as text: words of numbers, missing cells, columns that mix both, and the saved state."""

import json

import numpy as np
import pytest

from mlxlab.data.labelled.labels import Column
from mlxlab.data.labelled.table.fit_renderer import fit_renderer
from mlxlab.data.labelled.table.renderer import NumberFormat, TableRenderer, restore_renderer
from mlxlab.data.labelled.table.template import default_template
from mlxlab.errors import DataError

BINS = NumberFormat(mode="bins", bins=4, digits=4)
DIGITS = NumberFormat(mode="text", bins=4, digits=3)


def column(name, cells):
    values = list(dict.fromkeys(cell for cell in cells if cell is not None))
    codes = np.array([-1 if cell is None else values.index(cell) for cell in cells], np.int64)
    return Column(name, values, codes, lambda row: f"cars.csv:{row + 2}")


def fit(table, numbers=BINS, categorical=(), train=None):
    rows = len(next(iter(table.values())))
    train = np.arange(rows) if train is None else train
    template = default_template(list(table))
    return fit_renderer(
        template, lambda name: column(name, table[name]), train, numbers, categorical
    )


def test_bins_hold_about_equally_many_training_values():
    values = np.random.default_rng(0).normal(size=1000)
    bins = NumberFormat(mode="bins", bins=10, digits=4)
    counts = np.unique(bins.write(values, bins.fit(values)), return_counts=True)
    assert counts[0].tolist() == [f"q{i:02d}" for i in range(10)]
    assert counts[1].min() >= 90


def test_few_different_values_have_a_bin_each():
    bounds = BINS.fit(np.array([1.0] * 97 + [2, 3, 7]))
    assert BINS.write(np.array([1.0, 2, 3, 7]), bounds) == ["q00", "q01", "q02", "q03"]


def test_a_frequent_value_leaves_the_other_bins_to_the_rest():
    values = np.array([0.0] * 970 + list(range(1, 31)))
    counts = np.unique(BINS.write(values, BINS.fit(values)), return_counts=True)[1]
    assert counts.tolist() == [970, 10, 10, 10]


def test_numbers_beyond_the_training_values_are_in_the_outer_bins():
    bounds = BINS.fit(np.arange(100.0))
    assert BINS.write(np.array([-1e300, 1e300]), bounds) == ["q00", "q03"]


def test_digits_are_significant():
    assert DIGITS.write(np.array([3.14159, 120000, -0.0, 7]), DIGITS.fit(np.arange(9.0))) == [
        "3.14",
        "1.2e+05",
        "0",
        "7",
    ]


def test_bins_are_fitted_on_the_training_rows_alone():
    cells = [str(number) for number in range(100)]
    few, _ = fit({"age": cells}, train=np.arange(50))
    assert max(few.bounds["age"]) < 50
    assert few.render({"age": ["99"]}) == [("age: q03",)]


def test_a_row_becomes_its_words_and_a_missing_value_is_stated():
    table = {"age": ["1", "2", None, "4"], "port": ["Le\n Havre", None, " ", "Cork"]}
    renderer, lines = fit(table)
    assert renderer.render(table) == [
        ("age: q00, port: Le Havre",),
        ("age: q01, port: missing",),
        ("age: missing, port: missing",),
        ("age: q02, port: Cork",),
    ]
    assert lines == ["1 column of numbers (at most 4 bins each), 1 of text"]
    assert renderer.render({"age": [], "port": []}) == []


def test_numbers_of_a_categorical_column_are_names():
    renderer, _ = fit({"postcode": ["0123", "8001"] * 3}, categorical=["postcode"])
    assert renderer.render({"postcode": ["0123", "unheard of"]}) == [
        ("postcode: 0123",),
        ("postcode: unheard of",),
    ]


def test_mostly_numbers_are_an_error_that_names_cells_rows_and_the_way_out():
    with pytest.raises(DataError) as caught:
        fit({"age": ["1", "?", "3.5", None, "?", "4", "5", "nan"]})
    message = str(caught.value)
    assert message.startswith(
        "cars.csv:3: column 'age': 3 of 7 cells are no finite numbers: '?', 'nan'"
    )
    assert "cars.csv:9" in message
    for key in ("data.reading.missing", "data.columns", "data.categorical"):
        assert key in message


@pytest.mark.parametrize("cells", [["99,5", "-1,25"], ["1.234,5", "2,0"], ["1,234", "12,345.6"]])
def test_numbers_with_commas_are_not_taken_for_text(cells):
    with pytest.raises(DataError, match=r"cars\.csv:2: column 'km': numbers with a comma, such as"):
        fit({"km": cells})
    assert fit({"km": cells}, categorical=["km"])
    assert fit({"km": [*cells, "many"]})


def test_mostly_other_cells_make_a_column_of_text():
    renderer, _ = fit({"cabin": ["C85", "12", "B 4", "E1"]})
    assert renderer.bounds == {}


def test_a_cell_of_a_validation_row_that_is_no_number_is_located():
    with pytest.raises(
        DataError, match=r"cars.csv:5: column 'age': expected a finite number .* got 'old'"
    ):
        fit({"age": ["1", "2", "3", "old"]}, train=np.arange(3))


def test_a_cell_to_predict_from_that_is_no_number_is_located():
    renderer, _ = fit({"age": ["1", "2", "3"]})
    with pytest.raises(DataError, match="row 2: column 'age': expected a finite number"):
        renderer.render({"age": ["1", "inf"]})
    with pytest.raises(DataError, match="no column 'age'"):
        renderer.render({"agee": ["1"]})


def test_columns_that_say_nothing_are_logged():
    rows = 12
    _, lines = fit(
        {"id": [f"x{row}" for row in range(rows)], "sea": ["Baltic"] * rows, "note": [None] * rows}
    )
    assert lines[1:] == [
        "column 'id' has another text in each of 12 training rows, as an id has",
        "column 'sea' is 'Baltic' in all training rows: it says nothing",
        "column 'note' is missing in all training rows",
    ]


def test_texts_that_hardly_repeat_are_logged_as_ids_or_sentences():
    tickets = [f"T-{row}" for row in range(19)]
    _, lines = fit(
        {
            "ticket": [*tickets, "T-0"],
            "note": [f"note on {row}" for row in tickets] + ["note on T-0"],
        }
    )
    assert lines[1:] == [
        "column 'ticket' has 19 different texts in 20 training rows, as an id has",
        "column 'note' has 19 different texts in 20 training rows: of the baselines only TF-IDF reads their words",
    ]


def test_numbers_that_identify_rows_are_logged():
    numbers = range(12)
    table = {
        "number": [str(100 + row) for row in numbers],
        "PassengerId": [str(1000 * row) for row in numbers],
        "paid": [str(1000 * row) for row in numbers],
        "share": [f"{row}.5" for row in numbers],
        "child_id": [str(row // 2) for row in numbers],
    }
    _, lines = fit(table)
    assert [
        line.partition(" has another whole number in each of 12 ")[0] for line in lines[1:]
    ] == [
        "column 'number'",
        "column 'PassengerId'",
    ]


def test_the_state_restores_the_renderer():
    table = {"age": [str(number) for number in range(20)], "port": ["Cork", None] * 10}
    for numbers in (BINS, DIGITS):
        renderer, _ = fit(table, numbers)
        restored = restore_renderer(json.loads(json.dumps(renderer.state_dict())))
        assert restored.render(table) == renderer.render(table)
        assert restored.columns == ["age", "port"]


@pytest.mark.parametrize(
    "change",
    [
        {"literals": ["age: "]},
        {"fields": []},
        {"fields": ["other"]},
        {"bounds": {"age": [2.0, 1.0]}},
        {"bounds": {"age": [float("nan")]}},
        {"bounds": {"age": ["1"]}},
        {"numbers": {"mode": "bins", "bins": 1, "digits": 4}},
        {"numbers": {"mode": "code", "bins": 4, "digits": 4}},
        {"more": 1},
    ],
)
def test_a_damaged_state_is_refused(change):
    state = TableRenderer(["age: ", ""], ["age"], BINS, {"age": [1.0, 2.0]}).state_dict()
    assert restore_renderer(state).columns == ["age"]
    with pytest.raises(DataError, match=r"^renderer: "):
        restore_renderer({**state, **change})
