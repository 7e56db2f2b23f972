"""data=text_classification: splits, labels, pairs, batches, and the encoder that inference restores."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mlxlab.data.labelled.dataset import LabelledDataset
from mlxlab.data.labelled.left_out import LEFT_OUT
from mlxlab.data.sources.open import Reading
from mlxlab.errors import ConfigError, DataError
from mlxlab.evaluation.parts.data import longest_row
from mlxlab.extensions.example_losses.selection import LossSelection
from mlxlab.models.baselines.predict import predict_baselines, predict_rows
from support.labelled import make_texts, write_csv

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
    return {
        number: data.tokenizer.decode(tokens[mask > 0])
        for batch in batches
        for number, tokens, mask in zip(
            batch.example_ids.tolist(), batch.tokens, batch.segment_ids, strict=True
        )
    }


def test_rows_become_batches_of_their_texts_and_classes(make):
    data = make()
    train, valid = texts_of(data, data.train), texts_of(data, data.valid)
    assert (len(train), len(valid)) == (48, 12)
    assert {**train, **valid} == {number: row["text"] for number, row in enumerate(ROWS)}
    for batch in data.valid:
        assert [data.task.labels[target] for target in batch.targets] == [
            ROWS[n]["label"] for n in batch.example_ids
        ]
    assert data.class_counts == [16, 32]
    assert data.texts([3, 1]) == [ROWS[3]["text"], ROWS[1]["text"]]
    assert not list(data.test)


@pytest.mark.parametrize("columns", ["text", ["text", "more"]])
def test_rows_above_the_limit_are_counted_and_the_limit_that_holds_95_percent_is_measured(
    make, columns
):
    rows = [{"text": "ab " * (4 * n), "more": "c" * n, "label": n % 2} for n in range(2, 82)]
    whole = make(rows, text_column=columns, seq_len=4096)
    batches = [*whole.train, *whole.valid]
    lengths = np.sort(np.concatenate([(batch.segment_ids > 0).sum(axis=1) for batch in batches]))
    data = make(rows, text_column=columns, seq_len=int(lengths[60]))
    measured = data.row_lengths
    assert measured.too_long == (lengths > lengths[60]).sum() == 19
    assert 0 <= measured.needed - lengths[76] < 8  # 76 of 80 are as long or shorter
    assert not any("data.seq_len" in line for line in data.sources)  # a warning says it
    enough = make(rows, text_column=columns, seq_len=measured.needed)
    assert 0 < enough.row_lengths.too_long <= 4
    assert enough.row_lengths.share <= 0.05


@pytest.mark.parametrize(("words", "limit"), [(1, 128), (150, None), (1_000, 512)])
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


def test_baselines_predict_other_rows_as_they_do_validation_rows(make):
    data = make()
    texts = np.array([ROWS[number]["text"] for number in data.split.valid])
    others = predict_rows(data, lambda rows: {"text": texts[rows].tolist()}, len(texts))
    for own, other in zip(predict_baselines(data), others, strict=True):
        np.testing.assert_allclose(other.valid, own.valid, atol=1e-12)
        assert (other.name, other.test.shape) == (own.name, (0, 2))


def test_a_second_data_set_reads_the_token_cache_and_equals_the_first(make):
    first, second = make(), make()
    assert any("cache: miss" in line for line in first.sources)
    assert any("cache: hit" in line for line in second.sources)
    assert first.fingerprint == second.fingerprint
    for a, b in zip(first.train, second.train, strict=True):
        assert all(map(np.array_equal, a[:5], b[:5]))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"valid_fraction": 0.3},
        {"seq_len": 8},
        {"text_column": ["text", "label2"]},
    ],
)
def test_whatever_changes_a_batch_changes_the_fingerprint(make, changes):
    rows = [row | {"label2": "a"} for row in ROWS]
    assert make(rows).fingerprint != make(rows, **changes).fingerprint


def test_files_of_their_own_validate_and_test(make, write):
    sources = {
        "valid_source": write("valid.csv", ROWS[:5]),
        "test_source": write("test.csv", ROWS[5:12]),
    }
    data = make(ROWS[12:], **sources)
    assert [*texts_of(data, data.valid).values()] == [row["text"] for row in ROWS[:5]]
    assert [*texts_of(data, data.test).values()] == [row["text"] for row in ROWS[5:12]]
    assert not texts_of(data, data.valid).keys() & texts_of(data, data.train).keys()
    assert data.texts(list(texts_of(data, data.test))) == [row["text"] for row in ROWS[5:12]]


def test_the_validation_rows_are_the_same_whatever_is_tested(make, write):
    valid = write("valid.csv", MORE_ROWS[:5])
    test = write("test.csv", MORE_ROWS[5:12])
    assert make(test_source=test).held_out == make().held_out
    held_out = make(valid_source=valid, test_source=test).held_out
    assert held_out == make(valid_source=valid).held_out
    assert held_out != make(valid_source=test).held_out
    assert make(valid_fraction=0.3).held_out != make().held_out


def test_an_unknown_label_in_the_validation_file_is_named_with_its_line(make, write):
    with pytest.raises(DataError, match=r"valid\.csv:3: column 'label': unknown label 'god'"):
        make(valid_source=write("valid.csv", [ROWS[0], ROWS[1] | {"label": "god"}]))


def test_rows_of_an_unknown_class_are_left_out_of_a_validation_file(make, write):
    rows = [*ROWS, *MORE_ROWS[:59], ROWS[1] | {"label": "god"}]
    data = make(valid_source=write("valid.csv", rows), on_error="skip")
    assert len(data.split.valid) == 119
    assert data.task.labels == ("bad", "good")
    assert any("1 row (0.8 %) left out: " in line for line in data.sources)


def test_the_positive_class_is_part_of_the_task(make, tmp_path):
    data = make(positive_class="bad")
    data.save(tmp_path)
    assert data.task.positive_class == 0
    assert LabelledDataset.restore_encoder(tmp_path).task == data.task
    with pytest.raises(ConfigError, match=r"data\.positive_class=god"):
        make(positive_class="god")


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
    assert any(
        "3 training rows with the same input as validation rows" in line for line in kept.sources
    )
    dropped = make(valid_source=valid, on_overlap="drop")
    assert len(texts_of(dropped, dropped.train)) == len(ROWS) - 3
    assert len(texts_of(dropped, dropped.valid)) == 4
    assert any(line.endswith("; left out") for line in dropped.sources)
    assert not any(line.endswith("; left out") for line in kept.sources)
    with pytest.raises(DataError, match="3 training rows"):
        make(valid_source=valid, on_overlap="error")


def test_malformed_rows_count_as_those_without_a_label(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        "text,label\n" + "".join(f"text {n},{'xy'[n % 2]}\n" for n in range(40)) + "a,b,c\n" * 4
    )
    with pytest.raises(
        DataError,
        match=r"4 of 44 rows are malformed, more than 1 %; the first: .*:42",
    ):
        make_texts(str(path), tmp_path / "cache", on_error="skip")
    data = make_texts(str(path), tmp_path / "cache", on_error="skip", max_left_out=0.1)
    assert data.left_out_rows == 4
    path.write_text(path.read_text() + "a,\n" * 2)
    with pytest.raises(
        DataError, match=r"6 rows \(13.0 %\) cannot be used: .*\(4 malformed rows\)$"
    ):
        make_texts(str(path), tmp_path / "cache", on_error="skip", max_left_out=0.1)


def test_rows_in_another_encoding_are_not_to_be_left_out(tmp_path):
    rows = "text,label\n" + "".join(f"caf\xe9 {n},{'xy'[n % 2]}\n" for n in range(40))
    (tmp_path / "rows.csv").write_text(rows + "tea,x\n" * 40, encoding="cp1252")
    with pytest.raises(DataError, match=r"data\.reading\.encoding=cp1252") as caught:
        make_texts(str(tmp_path / "rows.csv"), tmp_path / "cache", on_error="skip")
    assert "leaves them out" not in str(caught.value)


@pytest.mark.parametrize("fault", [{"text": "  "}, {"label": ""}])
def test_rows_without_text_or_label_are_refused_or_left_out(make, fault):
    rows = [*ROWS[:30], ROWS[30] | fault, *ROWS[31:], *MORE_ROWS]
    with pytest.raises(DataError, match=r"rows\.csv:32: column"):
        make(rows)
    data = make(rows, on_error="skip")
    assert 30 not in texts_of(data, data.train) | texts_of(data, data.valid)
    [line] = [line for line in data.sources if LEFT_OUT in line]
    reason = "a row without a label" if "label" in fault else "an empty text"
    assert re.search(
        rf"rows\.csv: 1 row \(0\.8 %\) left out: .*:32: column .*: {reason} \(1 row\)$", line
    )
    assert data.left_out_rows == 1


@pytest.mark.parametrize("key", ["source", "valid_source", "test_source"])
def test_more_than_one_percent_of_rows_without_a_label_is_refused_by_the_name_of_the_file(
    write, tmp_path, key
):
    half = [row | {"label": "" if n % 2 else row["label"]} for n, row in enumerate(ROWS)]
    files = {"source": write("all.csv", [*ROWS, *MORE_ROWS])} | {key: write("half.csv", half)}
    expected = (
        r"half\.csv: 30 rows \(50\.0 %\) cannot be used: .* a row without a label \(30 rows\)$"
    )
    with pytest.raises(DataError, match=expected):
        make_texts(cache=tmp_path / "cache", on_error="skip", **files)
    files[key] = write("none.csv", [row | {"label": ""} for row in ROWS])
    with pytest.raises(
        DataError,
        match=r"none\.csv: 60 rows \(100\.0 %\) cannot be used: .* a row without a label \(60 rows\)$",
    ):
        make_texts(cache=tmp_path / "cache", on_error="skip", **files)


def test_rows_without_a_label_or_text_are_left_out_up_to_a_limit(make):
    rows = [
        row | ({"label": ""} if n % 10 == 0 else {"text": ""} if n == 5 else {})
        for n, row in enumerate(ROWS)
    ]
    with pytest.raises(
        DataError, match=r"rows\.csv:2: column 'label': a row without a label \(6 rows\)"
    ):
        make(rows)
    data = make(rows, on_error="skip", max_left_out=0.12)
    assert data.left_out_rows == 7
    with pytest.raises(
        DataError,
        match=r"7 rows \(11\.7 %\) cannot be used: ",
    ):
        make(rows, on_error="skip", max_left_out=0.11)


def test_all_rows_that_cannot_be_used_are_named_at_once(make):
    faults = {0: {"label": ""}, 5: {"text": ""}, 7: {"label": "odd"}, 8: {"label": "n/a"}}
    rows = [row | faults.get(number, {}) for number, row in enumerate(ROWS)]
    with pytest.raises(DataError) as info:
        make(rows)
    message = re.sub(r"\S*rows\.csv", "rows.csv", str(info.value))
    assert message == (
        "rows.csv: 4 rows (6.7 %) cannot be used: "
        "rows.csv:2: column 'label': a row without a label (1 row)"
        "; rows.csv:7: column 'text': an empty text (1 row)"
        "; rows.csv:9: column 'label': the single row of its class, expected at least 2"
        " (2 rows)"
    )
    numbers = [row | {"label": "" if n == 3 else str(n / 7)} for n, row in enumerate(ROWS)]
    with pytest.raises(DataError, match=r"a row without a label \(1 row\)$"):
        make(numbers)


def test_a_file_without_any_label_is_refused_without_advice(make):
    with pytest.raises(DataError, match=r"a row without a label \(60 rows\)$"):
        make([row | {"label": ""} for row in ROWS])


def test_rows_without_a_text_count_towards_the_limit_like_malformed_ones(make, tmp_path):
    rows = [
        *ROWS,
        *MORE_ROWS,
        *(row | {"text": f"again {n}"} for n, row in enumerate(ROWS)),
        ROWS[0] | {"text": " "},
    ]
    make(rows, on_error="skip")
    with pytest.raises(
        DataError, match=r"2 rows \(1\.1 %\) cannot be used: .* without a label .* an empty text"
    ):
        make([rows[0] | {"label": ""}, *rows[1:]], on_error="skip")
    path = tmp_path / "malformed.csv"
    path.write_text(Path(write_csv(path, rows)).read_text() + '"x" y,good\n')
    with pytest.raises(
        DataError, match=r"2 rows \(1\.1 %\) cannot be used: .* an empty text .*1 malformed row"
    ):
        make_texts(str(path), tmp_path / "cache", on_error="skip")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"text_column": "texts"}, "rows.csv: no column 'texts', expected one of text, label"),
        ({"text_column": ["text", "more"]}, "no column 'more'"),
        ({"target": "lable"}, "no column 'lable'"),
        ({"target": "lable"}, "did you mean label?"),
        ({"group_column": "g"}, "no column 'g'"),
        (
            {"text_column": ["text", "txt"], "target": "lable"},
            "no column 'txt', 'lable', expected",
        ),
    ],
)
def test_a_missing_column_is_named(make, keys, message):
    with pytest.raises(DataError) as refused:
        make(**keys)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "keys", [{"target": "text"}, {"text_column": ["text", "text"]}, {"group_column": "label"}]
)
def test_one_column_has_one_meaning(make, keys):
    with pytest.raises(ConfigError, match="expected"):
        make(**keys)


def test_a_class_of_a_single_row_is_refused_with_its_line(make):
    with pytest.raises(
        DataError, match=r"rows\.csv:6: column 'label': the single row of its class"
    ):
        make([*ROWS[:4], {"text": "odd", "label": "rare"}, *ROWS[4:]])


def test_classes_of_a_single_row_are_left_out_like_other_rows_that_cannot_be_used(make):
    rows = [
        *ROWS[:5],
        ROWS[5] | {"label": ""},
        *ROWS[6:],
        *({"text": label, "label": label} for label in ("n/a", "odd")),
    ]
    with pytest.raises(DataError, match=r"3 rows .* without a label .* single row of its class"):
        make(rows, on_error="skip", max_left_out=0.02)
    data = make(rows, on_error="skip", max_left_out=0.05)
    assert (data.task.labels, data.left_out_rows) == (("bad", "good"), 3)
    reading = Reading(missing=["n/a", "odd"])
    data = make(rows, on_error="skip", max_left_out=0.05, reading=reading)
    assert (data.task.labels, data.left_out_rows) == (("bad", "good"), 3)


def test_rows_without_a_time_are_left_out(make):
    rows = [
        row | {"day": "" if n == 7 else f"2024-05-{n % 30 + 1:02}"} for n, row in enumerate(ROWS)
    ]
    with pytest.raises(
        DataError,
        match=r"rows\.csv:9: column 'day': a row without a time \(1 row\)$",
    ):
        make(rows, time_column="day")
    data = make(rows, time_column="day", on_error="skip", max_left_out=0.02)
    assert data.left_out_rows == 1
    [line] = [line for line in data.sources if LEFT_OUT in line]
    assert "1 row (1.7 %) left out: " in line


def test_rows_are_selected_by_their_number(make):
    data = make(select=LossSelection(mode="random", percent=25, score="mean", source=None))
    assert len(texts_of(data, data.train)) == 12
    assert sum(data.class_counts) == 12
    assert data.fingerprint != make().fingerprint


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


def test_a_damaged_encoder_is_refused(make, tmp_path):
    make().save(tmp_path)
    path = tmp_path / "data.json"
    text = path.read_text()
    restore = partial(LabelledDataset.restore_encoder, tmp_path)
    for old, new in (
        ('"are_texts"', '"are_text"'),
        ('"types": {\n   "text"', '"types": {\n   "label"'),
        ('"kind": "text"', '"kind": "texts"'),
        ("labelled/2", "labelled/9"),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(DataError):
            restore()


def test_numbers_are_held_out_by_the_fraction_however_often_each_occurs(make):
    rows = [{"text": f"text {n}", "label": n // 2 + 0.5} for n in range(60)]
    data = make(rows)
    assert len(texts_of(data, data.valid)) == 12


def test_the_fraction_holds_for_many_sets_of_labels_and_each_label_is_trained(make):
    names = [f"label {n}" for n in range(40)]
    rows = [
        {"text": f"text {n}", "label": f"{names[n % 40]}|{names[n * 7 % 40]}"} for n in range(200)
    ]
    data = make(rows, label_delimiter="|", valid_fraction=0.1)
    assert len(texts_of(data, data.valid)) == pytest.approx(20, abs=2)
    assert min(data.class_counts) > 0


def test_white_space_around_a_label_does_not_make_another_class(make):
    padded = [
        row | {"label": f" {row['label']}" if n % 2 else f"{row['label']} "}
        for n, row in enumerate(ROWS[1:5])
    ]
    data = make([ROWS[0], *padded, *ROWS[5:]])
    assert data.task.labels == ("bad", "good")


def test_the_label_of_a_row_that_is_left_out_does_not_matter(make):
    data = make([*ROWS, *MORE_ROWS, {"text": "", "label": "weird"}], on_error="skip")
    assert data.task.labels == ("bad", "good")


def test_a_file_of_one_row_for_each_class_is_refused_by_its_reason(make):
    with pytest.raises(
        DataError, match=r"rows\.csv:2: column 'label': the single row of its class"
    ):
        make([{"text": f"text {label}", "label": label} for label in "xyz"])


def test_rows_are_located_by_their_line_after_malformed_ones(tmp_path):
    lines = [f"text {n},{'xy'[n % 2]}" for n in range(120)]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["text,label", *lines[:30], "a,b,c", *lines[30:], ""]))
    data = make_texts(str(path), tmp_path / "cache", on_error="skip", valid_fraction=0.5)
    content = path.read_text().splitlines()
    for batch in data.valid:
        for row, text in zip(
            batch.example_ids.tolist(), data.texts(batch.example_ids), strict=True
        ):
            line = int(data.location(row).removeprefix(f"{path}:"))
            assert content[line - 1].startswith(f"{text},")
