"""Labelled rows that an evaluation reads from a file of the user's own."""

from functools import partial
from types import SimpleNamespace

import pytest

from mlxlab.data.labelled.encoder import LabelledEncoder
from mlxlab.data.labelled.labels import Labels
from mlxlab.data.labelled.renderer import RowRenderer
from mlxlab.data.labelled.types import ColumnType
from mlxlab.errors import DataError
from mlxlab.inference.eval_data import open_eval_rows
from support.labelled import make_texts, write_csv

ROWS = [{"text": f"text {n}", "label": "good" if n % 3 else "bad"} for n in range(120)]


def of_texts(folder, delimiter=None):
    source = write_csv(folder / "train.csv", ROWS)
    return make_texts(source, folder / "cache", label_delimiter=delimiter).encoder


def of_numbers(folder):
    number = ColumnType("number")
    renderer = RowRenderer({"km": number}, False, {"km": [50.0]}, 2)
    labels = Labels("regression", number)
    return LabelledEncoder(renderer, labels, "price", of_texts(folder).tokenizer, 64)


NUMBERS = [{"km": n, "price": n * 1.5} for n in range(120)]
UNUSABLE = [  # an encoder, rows for it, what is wrong with one, and what is said of it
    (of_texts, ROWS, {"label": " "}, ".*"),
    (of_texts, ROWS, {"text": ""}, ".*"),
    (partial(of_texts, delimiter="|"), ROWS, {"label": "good|weird"}, ".* label 'weird', .*"),
    (of_numbers, NUMBERS, {"km": "many"}, "column 'km': expected a finite number, got 'many'"),
    (of_numbers, NUMBERS, {"price": "n/a"}, "column 'price': expected a finite number, got 'n/a'"),
]


@pytest.mark.parametrize(("encoder", "rows", "fault", "message"), UNUSABLE)
def test_rows_that_cannot_be_used_are_left_out_up_to_the_limit(
    tmp_path, encoder, rows, fault, message
):
    restored = SimpleNamespace(encoder=encoder(tmp_path))

    def batches(rows, on_error):
        source = write_csv(tmp_path / "rows.csv", rows)
        node = {"source": source, "on_error": on_error, "max_left_out": 0.01}
        opened = open_eval_rows(restored, node, tmp_path / "cache")
        return opened.batches(), opened.description

    rows = [*rows[:7], rows[7] | fault, *rows[8:]]
    data, description = batches(rows, "skip")
    numbers = [number for batch in data for number in batch.example_ids]
    assert numbers == [n for n in range(120) if n != 7]
    assert description.startswith("119 rows of ")
    assert "rows.csv: 1 row (0.8 %) left out: " in description.splitlines()[1]  # a line of its own
    with pytest.raises(DataError, match=rf"rows\.csv:9: {message} \(1 row\)$"):
        batches(rows, "strict")
    with pytest.raises(DataError, match=r"2 rows \(1.7 %\) cannot be used: "):
        batches([*rows[:-1], rows[-1] | fault], "skip")
