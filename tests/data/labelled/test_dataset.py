"""Labelled rows as texts and tables: splits, labels, batches, columns, and the encoder that inference restores."""

import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from benchmarks.config import read_config

from mlxlab.config.instantiate import instantiate
from mlxlab.data.dataset import DROPPED, SAME_INPUT
from mlxlab.data.labelled.dataset import LabelledDataset
from mlxlab.data.labelled.left_out import LEFT_OUT
from mlxlab.data.loader import FixedBatchSize
from mlxlab.errors import DataError, UserError
from mlxlab.evaluation.parts.data import check_data_module, longest_row
from mlxlab.models.baselines.predict import predict_baselines, predict_rows
from support.labelled import make_texts, write_csv
from support.titanic import new_bpe_trainer

ROWS = [
    {"text": f"text {n} is {'good' if n % 3 else 'bad'}", "label": "good" if n % 3 else "bad"}
    for n in range(60)
]
MORE_ROWS = [row | {"text": f"more {row['text']}"} for row in ROWS]


@pytest.fixture
def make(tmp_path):
    """Builds the data set on rows, with changed keys."""

    def build(rows=ROWS, **keys):
        return make_texts(write_csv(tmp_path / "rows.csv", rows), tmp_path / "cache", **keys)

    return build


@pytest.fixture
def write(tmp_path):
    return lambda name, rows: write_csv(tmp_path / name, rows)


def texts_of(data, batches):
    texts = {}
    for batch in batches:
        rows = zip(batch.example_ids.tolist(), batch.tokens, batch.segment_ids, strict=True)
        texts |= {number: data.tokenizer.decode(tokens[mask > 0]) for number, tokens, mask in rows}
    return texts


def test_rows_become_batches_of_their_texts_and_classes(make):
    data = make()
    train, valid = texts_of(data, data.train), texts_of(data, data.valid)
    assert (len(train), len(valid)) == (48, 12)
    assert {**train, **valid} == {number: row["text"] for number, row in enumerate(ROWS)}
    for batch in data.valid:
        labels = [data.task.labels[target] for target in batch.targets]
        assert labels == [ROWS[n]["label"] for n in batch.example_ids]
    assert data.class_counts == [16, 32]
    assert data.texts([3, 1]) == [ROWS[3]["text"], ROWS[1]["text"]]
    assert not list(data.test)


@pytest.mark.parametrize(("words", "limit"), [(1, 128), (150, None), (600, 512)])
def test_the_limit_holds_nearly_all_rows_whole_without_a_key(make, words, limit):
    rows = [{"text": f"{n:03} " + "ab " * words, "label": n % 2} for n in range(200)]
    rows[7]["text"] = "ab " * 900
    whole = make(rows, seq_len=8192)
    longest = np.sort(whole.inputs.lengths)[-2]
    data = make(rows, seq_len=None)
    chosen = data.encoder.seq_len
    assert chosen == (limit or -(-longest // 8) * 8)
    assert data.inputs.lengths.max() == chosen
    assert longest_row(data, {"seq_len": None}) == chosen
    assert make(rows, seq_len=24).encoder.seq_len == 24
    assert make(rows, seq_len=None, positions=120).encoder.seq_len == 120


def test_files_of_their_own_validate_and_test(make, write):
    valid, test = write("valid.csv", ROWS[:5]), write("test.csv", ROWS[5:12])
    data = make(ROWS[12:], valid_source=valid, test_source=test)
    tested = texts_of(data, data.test)
    assert [*texts_of(data, data.valid).values()] == [row["text"] for row in ROWS[:5]]
    assert [*tested.values()] == [row["text"] for row in ROWS[5:12]] == data.texts(list(tested))
    assert not texts_of(data, data.valid).keys() & texts_of(data, data.train).keys()


def test_the_validation_rows_are_the_same_whatever_is_tested(make, write):
    valid = write("valid.csv", MORE_ROWS[:5])
    test = write("test.csv", MORE_ROWS[5:12])
    assert make(test_source=test).held_out == make().held_out
    held_out = make(valid_source=valid, test_source=test).held_out
    assert held_out == make(valid_source=valid).held_out
    assert held_out != make(valid_source=test).held_out
    assert make(valid_fraction=0.3).held_out != make().held_out


def test_an_unknown_label_in_the_validation_file_is_named_or_left_out(make, write):
    odd = ROWS[1] | {"label": "god"}
    with pytest.raises(DataError, match=r"valid\.csv:3: column 'label': unknown label 'god'"):
        make(valid_source=write("valid.csv", [ROWS[0], odd]))
    valid = write("valid.csv", [*ROWS, *MORE_ROWS[:59], odd])
    data = make(valid_source=valid, on_error="skip")
    assert (len(data.split.valid), data.left_out_rows) == (119, 1)
    assert data.task.labels == ("bad", "good")


def test_the_longer_text_of_a_pair_is_truncated_and_both_end_with_the_separator(make):
    rows = [{"a": "x " * 30, "b": f"short {n}", "label": n % 2} for n in range(20)]
    data = make(rows, text_column=["a", "b"], seq_len=24)
    end = data.tokenizer.end_id
    assert data.task.pair_separator == end
    for batch in data.train:
        for tokens, mask in zip(batch.tokens, batch.segment_ids, strict=True):
            row = tokens[mask > 0]
            first, second = np.flatnonzero(row == end)
            assert (row[0], second, len(row)) == (data.tokenizer.bos_id, len(row) - 1, 24)
            assert data.tokenizer.decode(row[first:]).startswith("short")
    assert data.texts([0]) == ["x " * 30 + "\nshort 0"]


def test_equal_texts_in_two_splits_are_counted_dropped_or_refused(make, write):
    valid = write("valid.csv", [*ROWS[:3], {"text": "only here", "label": "bad"}])
    kept = make(valid_source=valid)
    found = f"3 training rows{SAME_INPUT}validation rows"
    assert any(found in line for line in kept.sources)
    assert not any(line.endswith(DROPPED) for line in kept.sources)
    dropped = make(valid_source=valid, on_overlap="drop")
    assert len(texts_of(dropped, dropped.train)) == len(ROWS) - 3
    assert len(texts_of(dropped, dropped.valid)) == 4
    assert any(line.endswith(DROPPED) for line in dropped.sources)
    with pytest.raises(DataError, match="3 training rows"):
        make(valid_source=valid, on_overlap="error")


def test_malformed_rows_count_as_those_without_a_label(tmp_path):
    path = tmp_path / "rows.csv"
    good = "".join(f"text {n},{'xy'[n % 2]}\n" for n in range(40))
    path.write_text("text,label\n" + good + "a,b,c\n" * 4)
    make = partial(make_texts, str(path), tmp_path / "cache", on_error="skip")
    with pytest.raises(DataError, match=r"4 of 44 rows are malformed.*:42"):
        make()
    assert make(max_left_out=0.1).left_out_rows == 4
    path.write_text(path.read_text() + "a,\n" * 2)
    with pytest.raises(DataError, match=r"6 rows \(13.0 %\) .*\(4 malformed rows\)$"):
        make(max_left_out=0.1)


@pytest.mark.parametrize("fault", [{"text": "  ", "label": "weird"}, {"label": ""}, {"day": ""}])
def test_rows_without_text_label_or_time_are_refused_or_left_out(make, fault):
    days = [f"2024-05-{n % 30 + 1:02}" for n in range(120)]
    rows = [row | {"day": day} for row, day in zip([*ROWS, *MORE_ROWS], days, strict=True)]
    rows[30] |= fault
    options = {"time_column": "day"} if "day" in fault else {}
    with pytest.raises(DataError, match=r"rows\.csv:32: column"):
        make(rows, **options)
    data = make(rows, on_error="skip", **options)
    assert 30 not in texts_of(data, data.train) | texts_of(data, data.valid)
    [line] = [line for line in data.sources if LEFT_OUT in line]
    assert re.search(rf"1 row \(0\.8 %\){LEFT_OUT}.*:32: ", line)
    assert (data.left_out_rows, data.task.labels) == (1, ("bad", "good"))


@pytest.mark.parametrize("key", ["source", "valid_source", "test_source"])
def test_more_than_one_percent_of_rows_without_a_label_is_refused_by_file(write, tmp_path, key):
    half = [row | {"label": "" if n % 2 else row["label"]} for n, row in enumerate(ROWS)]
    files = {"source": write("all.csv", [*ROWS, *MORE_ROWS])} | {key: write("half.csv", half)}
    with pytest.raises(DataError, match=r"half\.csv: 30 rows .* without a label \(30 rows\)$"):
        make_texts(cache=tmp_path / "cache", on_error="skip", **files)


def test_all_rows_that_cannot_be_used_are_named_at_once(make):
    faults = {0: {"label": ""}, 5: {"text": ""}, 7: {"label": "odd"}, 8: {"label": "n/a"}}
    rows = [row | faults.get(number, {}) for number, row in enumerate(ROWS)]
    with pytest.raises(DataError) as info:
        make(rows)
    summary, *reasons = re.split(r"(?:: |; )\S*rows\.csv", str(info.value))
    assert "4 rows (6.7 %)" in summary
    assert [reason.split(":")[1] for reason in reasons] == ["2", "7", "9"]
    assert "single row of its class" in reasons[2]
    assert reasons[2].endswith("(2 rows)")


def test_several_labels_and_numbers_become_their_targets(make, tmp_path):
    cells = ["a|b", "c", ""]
    rows = [{"text": f"text {n}", "label": cells[n % 3]} for n in range(20)]
    data = make(rows, label_delimiter="|", valid_fraction=0.5)
    batch = next(iter(data.valid))
    assert batch.targets.shape == batch.loss_weights.shape == (len(batch.tokens), 3)
    held = [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert [held[n % 3] for n in batch.example_ids] == batch.targets.tolist()
    assert batch.loss_weights.all()
    data.save(tmp_path)
    table = {"text": ["a", "b"], "label": [None, "b"]}
    again = LabelledDataset.restore_encoder(tmp_path).encode_rows(table)
    assert again.targets.tolist() == [[0, 0, 0], [0, 1, 0]]
    assert again.loss_weights.all()
    numbers = make([row | {"label": n / 4 + 0.01} for n, row in enumerate(rows)])
    batch = next(iter(numbers.valid))
    values = batch.targets * numbers.task.target_deviation + numbers.task.target_mean
    assert values == pytest.approx(batch.example_ids / 4 + 0.01, abs=1e-5)
    assert numbers.class_counts == []


def test_the_restored_encoder_makes_the_batches_of_validation(make, tmp_path):
    data = make()
    data.save(tmp_path)
    encoder = LabelledDataset.restore_encoder(tmp_path)
    batch = next(iter(data.valid))
    table = {name: [ROWS[n][name] for n in batch.example_ids] for name in ("text", "label")}
    again = encoder.encode_rows(table)
    assert np.array_equal(again.tokens, batch.tokens)
    assert np.array_equal(again.targets, batch.targets)
    unlabelled = encoder.encode_rows({"text": table["text"]})
    assert not unlabelled.loss_weights.any()
    with pytest.raises(DataError, match="no column 'text'"):
        encoder.encode_rows({"txt": ["a"]})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"are_texts"', '"are_text"'),
        ('"types": {\n   "text"', '"types": {\n   "label"'),
        ('"kind": "text"', '"kind": "texts"'),
        ("labelled/2", "labelled/9"),
    ],
)
def test_a_damaged_encoder_is_refused(make, tmp_path, old, new):
    make().save(tmp_path)
    path = tmp_path / "data.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError):
        LabelledDataset.restore_encoder(tmp_path)


def test_the_fraction_holds_for_numbers_and_many_sets_of_labels_and_each_label_is_trained(make):
    numbers = make([{"text": f"text {n}", "label": n // 2 + 0.5} for n in range(60)])
    assert len(texts_of(numbers, numbers.valid)) == 12
    labels = [f"label {n % 40}|label {n * 7 % 40}" for n in range(200)]
    rows = [{"text": f"text {n}", "label": label} for n, label in enumerate(labels)]
    data = make(rows, label_delimiter="|", valid_fraction=0.1)
    assert len(texts_of(data, data.valid)) == pytest.approx(20, abs=2)
    assert min(data.class_counts) > 0


BRANDS = ("Audi", "BMW", "Fiat")


def write_cars(path, rows=120, bad=()):
    """A table whose price follows from brand, year and kilometres; some cells are missing."""
    generator = np.random.default_rng(0)
    lines = [["id", "brand", "year", "km", "price", "sold", "dealer"]]
    for row in range(rows):
        brand = BRANDS[row % 3]
        year = generator.integers(1990, 2020)
        km = generator.integers(1000, 300_000)
        price = (year - 1980) * 500 + 4000 * (brand == "BMW") - km / 50
        cells = [f"x{row}", brand, f"{year}", f"{km}" if row % 17 else "", f"{price:.1f}"]
        lines.append([*cells, f"20{10 + row // 12}-01-02", f"dealer {row // 10}"])
    for row, name, cell in bad:
        lines[row][lines[0].index(name)] = cell
    path.write_text("".join(",".join(cells) + "\n" for cells in lines))
    return str(path)


def make_table(folder, source=None, **changes):
    """The data set of conf/data/table.yaml."""
    if source is None:
        source = write_cars(folder / "cars.csv")
    own = {"source": source, "target": "price", "prefetch": 0} | changes
    objects = {"batching": FixedBatchSize(num_buckets=7)}
    objects["tokenizer"] = new_bpe_trainer(vocab_size=300)
    runtime = {"seed": 0, "cache": folder, "parameters": 1_000_000, "width": 128}
    return instantiate(read_config("data/table") | own, **objects, **runtime)


def sentences_of(data):
    table = data.rows.table(data.encoder.columns, data.split.valid)
    return [text for (text,) in data.encoder.renderer.render(table)]


def test_every_column_but_target_group_time_and_excluded_ones_is_read(tmp_path):
    data = check_data_module(make_table(tmp_path))
    assert (data.task.kind, data.task.num_classes) == ("regression", 1)
    names = ["id", "brand", "year", "km", "sold", "dealer"]
    text = sentences_of(data)[0]
    assert [part.split(": ")[0] for part in text.split(", ")] == names
    batch = next(iter(data.valid))
    assert data.tokenizer.decode(batch.tokens[0]) == text
    for changes, missing in [
        ({"group_column": "dealer"}, {"dealer"}),
        ({"time_column": "sold"}, {"sold"}),
        ({"exclude": ["id", "dealer"]}, {"id", "dealer"}),
    ]:
        columns = make_table(tmp_path, **changes).encoder.columns
        assert columns == [name for name in names if name not in missing]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": ["km", "price"]}, "column 'price': expected once"),
        ({"text_column": ["km", "km"]}, "column 'km': expected once"),
        ({"group_column": "price"}, "column 'price': expected once"),
        ({"columns": ["km"], "exclude": ["id"]}, "text_column, columns, exclude"),
        (
            {"target": "prize", "columns": ["yaer"], "time_column": "solde"},
            "'yaer', 'prize', 'solde'",
        ),
        ({"exclude": ["dealr"]}, "no column 'dealr', .*did you mean dealer"),
        ({"types": {"yaer": "category"}, "columns": ["year"]}, "data.types: .*did you mean year"),
    ],
)
def test_columns_that_do_not_exist_or_do_not_go_together_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        make_table(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_baselines_are_of_the_same_rows(tmp_path):
    test_source = write_cars(tmp_path / "test.csv", rows=30)
    data = make_table(tmp_path, target="brand", test_source=test_source)
    targets = np.concatenate([batch.targets for batch in data.valid])
    fitted = {each.name: each for each in predict_baselines(data)}
    assert {"majority", "gradient_boosting", "tfidf_logistic_regression"} < set(fitted)
    for each in fitted.values():
        assert (each.valid.shape, each.test.shape) == ((24, 3), (30, 3))
    for each in predict_rows(data, lambda rows: data.cells(rows + len(data.split.train)), 24):
        np.testing.assert_allclose(each.valid, fitted[each.name].valid, atol=1e-12)
        assert each.test.shape == (0, 3)
    assert sum(len(batch.targets) for batch in data.test) == 30
    assert np.mean(fitted["majority"].valid.argmax(axis=1) == targets) == pytest.approx(1 / 3)
    assert predict_baselines(make_table(tmp_path, baselines=False)) == []


def test_a_cell_of_a_validation_row_that_is_not_of_its_type_is_refused_or_left_out(tmp_path):
    valid = write_cars(tmp_path / "valid.csv", rows=40, bad=[(7, "km", "many")])
    with pytest.raises(DataError, match=r"valid\.csv:8: column 'km': expected a finite number"):
        make_table(tmp_path, valid_source=valid)
    data = make_table(tmp_path, valid_source=valid, on_error="skip", max_left_out=0.03)
    assert len(data.split.valid) == 39
    assert any("column 'km': expected a finite number" in line for line in data.sources)


def test_a_column_that_gives_the_label_away_is_named(tmp_path):
    labels = ["late", "early", "on time"]
    rows = [{"text": f"row {n % 7}", "code": n % 3, "label": labels[n % 3]} for n in range(120)]
    data = make_table(tmp_path, rows, target="label")
    assert any("column 'code' alone tells the label" in line for line in data.sources)
    without = make_table(tmp_path, rows, target="label", exclude=["code"])
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


def test_rows_in_memory_are_those_of_a_file(tmp_path):
    path = write_cars(tmp_path / "cars.csv", rows=60)
    frame = pd.read_csv(path)
    dicts = frame.to_dict("records")
    expected = make_table(tmp_path, path)
    batches = list(expected.train)
    sources = [frame, dicts, TorchRows(dicts), iter(dicts), frame.to_dict("list")]
    for source in [*sources, pytest.importorskip("datasets").Dataset.from_list(dicts)]:
        data = make_table(tmp_path, source)
        assert sentences_of(data) == sentences_of(expected)
        for batch, other in zip(data.train, batches, strict=True):
            np.testing.assert_array_equal(batch.tokens, other.tokens)
            np.testing.assert_array_equal(batch.targets, other.targets)
    with pytest.raises(DataError, match=r"TorchRows: row 1: expected a dict"):
        make_table(tmp_path, TorchRows([("text", "label")] * 9))
