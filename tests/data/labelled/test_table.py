"""The data set of tables: which columns are read, what is fitted on training rows, baselines, the saved state."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import mlxlab.data
from mlxlab.data.labelled.dataset import LabelledDataset
from mlxlab.data.loader import FixedBatchSize
from mlxlab.data.sources.open import Reading
from mlxlab.errors import ConfigError, DataError
from mlxlab.evaluation.parts.data import check_data_module
from mlxlab.extensions.example_losses.selection import LossSelection
from mlxlab.models.baselines.predict import predict_baselines, predict_rows
from support.titanic import new_bpe_trainer

CONF = Path(mlxlab.data.__file__).parents[3] / "conf" / "data" / "table.yaml"
NODES = {
    "reading": Reading(),
    "select": LossSelection(None, 25, "mean", None),
    "batching": FixedBatchSize(num_buckets=7),
    "tokenizer": new_bpe_trainer(vocab_size=300),
}
BRANDS = ("Audi", "BMW", "Fiat")


def write_cars(path, rows=120, bad=None):
    """A table whose price follows from brand, year and kilometres; some cells are missing."""
    generator = np.random.default_rng(0)
    lines = ["id,brand,year,km,price,sold,dealer"]
    for row in range(rows):
        brand, year, km = (
            BRANDS[row % 3],
            generator.integers(1990, 2020),
            generator.integers(1000, 300_000),
        )
        price = (year - 1980) * 500 + 4000 * (brand == "BMW") - km / 50
        sold, dealer = f"20{10 + row // 12}-01-02", f"dealer {row // 10}"
        lines.append(f"x{row},{brand},{year},{km if row % 17 else ''},{price:.1f},{sold},{dealer}")
    for row, name, cell in bad or []:
        cells = lines[row].split(",")
        cells[lines[0].split(",").index(name)] = cell
        lines[row] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def make_table(folder, source=None, **changes):
    """The data set of conf/data/table.yaml."""
    config = yaml.safe_load(CONF.read_text())
    del config["_target_"], config["defaults"]
    if source is None:
        source = write_cars(folder / "cars.csv")
    own = {"source": source, "target": "price", "prefetch": 0}
    run = {"seed": 0, "cache": folder, "parameters": 1_000_000, "width": 128}
    return LabelledDataset(**(config | NODES | own | run | changes))


def texts_of(data):
    table = data.rows.table(data.encoder.columns, data.split.valid)
    return [text for (text,) in data.encoder.renderer.render(table)]


def test_every_column_but_the_target_is_read_by_default(tmp_path):
    data = check_data_module(make_table(tmp_path))
    assert (data.task.kind, data.task.num_classes) == ("regression", 1)
    text = texts_of(data)[0]
    names = [part.split(": ")[0] for part in text.split(", ")]
    assert names == ["id", "brand", "year", "km", "sold", "dealer"]
    assert "price" not in text
    batch = next(iter(data.valid))
    assert data.tokenizer.decode(batch.tokens[0]) == text


def test_columns_of_group_and_time_are_not_read(tmp_path):
    assert "dealer" not in texts_of(make_table(tmp_path, group_column="dealer"))[0]
    assert "sold" not in texts_of(make_table(tmp_path, time_column="sold"))[0]


def test_columns_choose_what_is_read(tmp_path):
    chosen = make_table(tmp_path, columns=["km", "brand"])
    assert texts_of(chosen)[0].startswith("km: q")
    rows = chosen.split.valid[:1]
    [km] = chosen.rows.table(["km"], rows)["km"]
    assert chosen.texts(rows)[0].startswith(f"km: {km}, brand: "), (
        "reports show numbers, not their bins"
    )
    written = make_table(tmp_path, columns=["year", "brand"], bins=None)
    year = texts_of(written)[0].partition(",")[0]
    assert 1990 <= int(year.removeprefix("year: ")) < 2020
    assert chosen.fingerprint != written.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"columns": ["km", "price"]},
            "column 'price': expected once in the keys of data, got it twice",
        ),
        ({"columns": ["km", "km"]}, "column 'km': expected once in the keys of data, got it twice"),
        (
            {"columns": ["km"], "text_column": "brand"},
            "data: expected at most one of text_column, columns, exclude",
        ),
        (
            {"group_column": "price"},
            "column 'price': expected once in the keys of data, got it twice",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError) as caught:
        make_table(tmp_path, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "prize"}, "{}: no column 'prize', expected one of "),
        (
            {"columns": ["brnd", ""]},
            "{}: no column 'brnd', '', expected one of ",
        ),
        (
            {
                "target": "prize",
                "columns": ["yaer", "km"],
                "time_column": "solde",
            },
            "{}: no column 'yaer', 'prize', 'solde', expected one of ",
        ),
        (
            {"types": {"yaer": "category"}, "columns": ["year"]},
            "data.types: no column 'yaer', expected one of year, price; did you mean year",
        ),
    ],
)
def test_columns_that_do_not_exist_are_named_together(tmp_path, changes, message):
    with pytest.raises(DataError) as caught:
        make_table(tmp_path, **changes)
    text = re.sub(r"^\S*\.csv(?=: no)", "{}", str(caught.value))
    assert text.startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", ["?", "inf", "1_000"])
def test_a_cell_among_numbers_is_located(tmp_path, cell):
    source = write_cars(tmp_path / "bad.csv", bad=[(7, "km", cell)])
    with pytest.raises(DataError, match=r"bad\.csv:8: column 'km'"):
        make_table(tmp_path, source)
    reading = Reading(missing=[cell])
    assert make_table(tmp_path, source, reading=reading).task.kind == "regression"
    assert make_table(tmp_path, source, types={"km": "category"}).task.kind == "regression"


def test_baselines_are_of_the_same_rows(tmp_path):
    test_source = write_cars(tmp_path / "test.csv", rows=30)
    data = make_table(tmp_path, target="brand", test_source=test_source)
    targets = np.concatenate([batch.targets for batch in data.valid])
    fitted = {each.name: each for each in predict_baselines(data)}
    assert list(fitted) == [
        "majority",
        "logistic_regression",
        "gradient_boosting",
        "tfidf_logistic_regression",
        "tfidf_linear_svm",
    ]
    assert all(
        each.valid.shape == (24, 3) and each.test.shape == (30, 3) for each in fitted.values()
    )
    again = predict_rows(data, lambda rows: data.cells(rows + len(data.split.train)), 24)
    for each in again:
        np.testing.assert_allclose(each.valid, fitted[each.name].valid, atol=1e-12)
        assert each.test.shape == (0, 3)
    assert sum(len(batch.targets) for batch in data.test) == 30
    assert np.mean(fitted["majority"].valid.argmax(axis=1) == targets) == pytest.approx(1 / 3)
    assert predict_baselines(make_table(tmp_path, baselines=False)) == []


def test_baselines_predict_numbers_better_than_their_mean(tmp_path):
    data = make_table(tmp_path)
    targets = np.concatenate([batch.targets for batch in data.valid])
    values = targets * data.task.target_deviation + data.task.target_mean
    errors = {each.name: np.abs(each.valid - values).mean() for each in predict_baselines(data)}
    assert errors["gradient_boosting"] < errors["mean"]
    assert errors["ridge_regression"] < 0.5 * errors["mean"]
    assert errors["tfidf_ridge_regression"] < errors["mean"]


def test_inference_restores_the_encoding(tmp_path):
    data = make_table(tmp_path, columns=["year", "brand", "km"])
    data.save(tmp_path)
    encoder = LabelledDataset.restore_encoder(tmp_path)
    assert list(encoder.columns) == ["year", "brand", "km"]
    rows = data.split.valid[:5]
    batch = encoder.encode_rows(data.rows.table([*encoder.columns, "price"], rows))
    expected = next(iter(data.valid))
    for row in range(5):
        tokens = expected.tokens[row][expected.segment_ids[row] > 0]
        np.testing.assert_array_equal(batch.tokens[row][batch.segment_ids[row] > 0], tokens)
    np.testing.assert_allclose(batch.targets, expected.targets[:5], rtol=1e-6)


def test_a_damaged_renderer_is_refused_by_file(tmp_path):
    make_table(tmp_path).save(tmp_path)
    path = tmp_path / "data.json"
    state = json.loads(path.read_text())
    state["renderer"]["bounds"]["km"] = [3, 2]
    path.write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"data\.json: renderer: .* ascending bounds"):
        LabelledDataset.restore_encoder(tmp_path)


def test_excluded_columns_are_not_read(tmp_path):
    data = make_table(tmp_path, exclude=["id", "dealer"])
    assert data.encoder.columns == ["brand", "year", "km", "sold"]
    assert "dealer" not in data.rows.columns
    with pytest.raises(DataError, match=r"no column 'dealr', .*did you mean dealer"):
        make_table(tmp_path, exclude=["dealr"])
    with pytest.raises(
        ConfigError, match=r"data: expected at most one of text_column, columns, exclude"
    ):
        make_table(tmp_path, exclude=["id"], columns=["km"])


def test_types_are_those_of_the_training_rows_and_can_be_chosen(tmp_path):
    kinds = {name: each.kind for name, each in make_table(tmp_path).encoder.types.items()}
    assert kinds == {
        "id": "text",
        "brand": "category",
        "year": "integer",
        "km": "integer",
        "sold": "datetime",
        "dealer": "category",
    }
    chosen = make_table(tmp_path, types={"year": "category", "sold": "text"}).encoder.types
    assert (chosen["year"].kind, chosen["sold"].kind) == ("category", "text")
    assert "1995" in chosen["year"].categories


def test_a_cell_of_a_validation_row_that_is_not_of_its_type_is_refused_or_left_out(tmp_path):
    valid = write_cars(tmp_path / "valid.csv", rows=40, bad=[(7, "km", "many")])
    with pytest.raises(DataError, match=r"valid\.csv:8: column 'km': expected a finite number"):
        make_table(tmp_path, valid_source=valid)
    data = make_table(tmp_path, valid_source=valid, on_error="skip", max_left_out=0.03)
    assert len(data.split.valid) == 39
    assert any("column 'km': expected a finite number" in line for line in data.sources)


def test_a_column_that_gives_the_label_away_is_named(tmp_path):
    rows = ["text,code,label"]
    for row in range(120):
        label = ["late", "early", "on time"][row % 3]
        rows.append(f"row {row % 7},{row % 3},{label}")
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    data = make_table(tmp_path, str(tmp_path / "rows.csv"), target="label")
    assert any("column 'code' alone tells the label" in line for line in data.sources)
    without = make_table(tmp_path, str(tmp_path / "rows.csv"), target="label", exclude=["code"])
    assert not any("alone tells the label" in line for line in without.sources)


class TorchRows:
    """A data set like those of torch."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


SAME_NAMES = pd.DataFrame([[1, 2, 3.5]] * 40, columns=["a", "a", "price"])


@pytest.mark.parametrize("source", [[{"a": 1}, 3], {"a": [1, 2], "price": [1]}, SAME_NAMES])
def test_rows_in_memory_that_are_no_table_are_one_line(tmp_path, source):
    with pytest.raises(DataError, match=r"row 2: expected a dict|one length|occurs twice"):
        make_table(tmp_path, source)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_with_an_index_or_objects_is_read_without_them(tmp_path, suffix):
    frame = pd.read_csv(write_cars(tmp_path / "cars.csv"))
    path = tmp_path / f"rows.{suffix}"
    nested = frame.assign(nested=[{"b": number} for number in range(len(frame))])
    if suffix == "csv":
        frame.to_csv(path)
    elif suffix == "jsonl":
        nested.to_json(path, orient="records", lines=True)
    else:
        nested.to_parquet(path)
    expected = [name for name in frame.columns if name != "price"]
    assert list(make_table(tmp_path, str(path)).encoder.columns) == expected


def test_rows_in_memory_are_those_of_a_file(tmp_path):
    path = write_cars(tmp_path / "cars.csv")
    frame = pd.read_csv(path)
    dicts = frame.to_dict("records")
    expected = make_table(tmp_path, path)
    batches = list(expected.train)
    sources = [frame, dicts, TorchRows(dicts), iter(dicts), frame.to_dict("list")]
    sources.append(pytest.importorskip("datasets").Dataset.from_list(dicts))
    for source in sources:
        data = make_table(tmp_path, source)
        assert texts_of(data) == texts_of(expected)
        for batch, other in zip(data.train, batches, strict=True):
            np.testing.assert_array_equal(batch.tokens, other.tokens)
            np.testing.assert_array_equal(batch.targets, other.targets)
    tuples = [("text", "label")] * 9
    with pytest.raises(DataError, match=r"TorchRows: row 1: expected a dict"):
        make_table(tmp_path, TorchRows(tuples))
