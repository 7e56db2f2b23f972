"""Labelled rows that an evaluation reads from a file of the user's own."""

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


@pytest.mark.parametrize("fault", [{"label": " "}, {"text": ""}])
def test_rows_that_cannot_be_used_are_left_out_up_to_the_limit(tmp_path, fault):
    cache = tmp_path / "cache"
    restored = SimpleNamespace(
        encoder=make_texts(write_csv(tmp_path / "train.csv", ROWS), cache).encoder
    )

    def batches(rows, on_error):
        source = write_csv(tmp_path / "rows.csv", rows)
        node = {"source": source, "on_error": on_error, "max_left_out": 0.01}
        opened = open_eval_rows(restored, node, cache)
        return opened.batches(), opened.description

    rows = [*ROWS[:7], ROWS[7] | fault, *ROWS[8:]]
    data, description = batches(rows, "skip")
    assert [number for batch in data for number in batch.example_ids] == [
        n for n in range(120) if n != 7
    ]
    assert description.startswith("119 rows of ")
    assert "rows.csv: 1 row (0.8 %) left out: " in description.splitlines()[1]  # a line of its own
    with pytest.raises(DataError, match=r"rows\.csv:9: .* \(1 row\)$"):
        batches(rows, "strict")
    with pytest.raises(DataError, match=r"2 rows \(1.7 %\) cannot be used: "):
        batches([*rows[:-1], rows[-1] | fault], "skip")


@pytest.mark.parametrize("fault", [{"km": "many"}, {"price": "n/a"}])
def test_rows_with_text_in_a_column_of_numbers_are_left_out(tmp_path, fault):
    rows = [{"km": n, "price": n * 1.5} for n in range(120)]
    cache, source = (
        tmp_path / "cache",
        write_csv(tmp_path / "rows.csv", [*rows[:7], rows[7] | fault, *rows[8:]]),
    )
    tokenizer = make_texts(write_csv(tmp_path / "train.csv", ROWS), cache).tokenizer
    number = ColumnType("number")
    renderer = RowRenderer({"km": number}, False, {"km": [50.0]}, 2)
    restored = SimpleNamespace(
        encoder=LabelledEncoder(renderer, Labels("regression", number), "price", tokenizer, 64)
    )

    def batches(on_error):
        node = {"source": source, "on_error": on_error, "max_left_out": 0.01}
        rows = open_eval_rows(restored, node, cache)
        return rows.batches(), rows.description

    data, description = batches("skip")
    assert [number for batch in data for number in batch.example_ids] == [
        n for n in range(120) if n != 7
    ]
    assert "rows.csv: 1 row (0.8 %) left out: " in description
    [(name, cell)] = fault.items()
    expected = rf"rows\.csv:9: column '{name}': expected a finite number, got '{cell}' \(1 row\)$"
    with pytest.raises(DataError, match=expected):
        batches("strict")


@pytest.mark.parametrize("delimiter", [None, "|"])
def test_rows_with_a_label_that_no_training_row_has_are_left_out(tmp_path, delimiter):
    cache, source = tmp_path / "cache", write_csv(tmp_path / "train.csv", ROWS)
    restored = SimpleNamespace(encoder=make_texts(source, cache, label_delimiter=delimiter).encoder)
    label = "weird" if delimiter is None else "good|weird"
    source = write_csv(tmp_path / "rows.csv", [*ROWS[:7], ROWS[7] | {"label": label}, *ROWS[8:]])

    def batches(on_error):
        node = {"source": source, "on_error": on_error, "max_left_out": 0.01}
        rows = open_eval_rows(restored, node, cache)
        return rows.batches(), rows.description

    data, description = batches("skip")
    assert [number for batch in data for number in batch.example_ids] == [
        n for n in range(120) if n != 7
    ]
    assert "rows.csv: 1 row (0.8 %) left out: " in description
    expected = r"rows\.csv:9: column 'label': unknown label 'weird', expected .* \(1 row\)$"
    with pytest.raises(DataError, match=expected):
        batches("strict")


def test_a_line_says_why_there_are_no_baselines(tmp_path, caplog):
    caplog.set_level("INFO")
    source = write_csv(tmp_path / "rows.csv", ROWS)
    restored = SimpleNamespace(encoder=make_texts(source, tmp_path / "cache").encoder)
    rows = open_eval_rows(restored, {"source": source}, tmp_path / "cache")
    assert not rows.baselines(None)
    assert "no baselines: the training data of the run has changed" in caplog.text
