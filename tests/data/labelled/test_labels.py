"""Labels: which task a column poses, its classes, and what of it is refused."""

import numpy as np
import pytest

from mlxlab.data.labelled.fit_labels import LabelOptions, fit_labels, label_kind
from mlxlab.data.labelled.labels import Column, Labels, restore_labels
from mlxlab.errors import ConfigError, DataError


def column(*cells):
    values = list(dict.fromkeys(cell for cell in cells if cell is not None))
    codes = [-1 if cell is None else values.index(cell) for cell in cells]
    return Column("label", values, np.array(codes), lambda row: f"file.csv:{row + 2}")


def fit(*cells, task="auto", fixed=None, delimiter=None):
    labels, options = column(*cells), LabelOptions("label", task, fixed, delimiter)
    return fit_labels(labels, options, label_kind(labels, options))


@pytest.mark.parametrize(
    ("cells", "kind", "names"),
    [
        (["b", "a", "b"], "classification", ("a", "b")),
        (["10", "9", "9"], "classification", ("9", "10")),
        (["true", "false"], "classification", ("false", "true")),
        (["1", "b", "a"], "classification", ("1", "a", "b")),
        (["1", "2.5"], "regression", ()),
        (['["b", "a"]', "[]", '["c"]'], "multi_label", ("a", "b", "c")),
    ],
)
def test_auto_takes_the_task_from_the_labels(cells, kind, names):
    labels = fit(*cells)
    assert (labels.kind, labels.names) == (kind, names)


def test_classes_are_numbered_in_their_order():
    targets, weights = fit("b", "a").encode(column("a", None, "b")).of(np.arange(3))
    assert targets.tolist() == [0, 0, 1]
    assert weights.tolist() == [1, 0, 1]
    assert targets.dtype == np.int32


def test_fixed_labels_keep_their_order():
    assert fit("b", "a", fixed=["b", "a", "never"]).names == ("b", "a", "never")
    assert fit("1", "0", fixed=[1, 0]).names == ("1", "0")


def test_several_labels_become_a_row_of_zeros_and_ones():
    labels = fit("x|y", "", " z |x", task="multi_label", delimiter="|")
    targets, weights = labels.encode(column("z|x", "", None)).of(np.arange(3))
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert weights.tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]


def test_numbers_are_standardised_by_the_training_rows():
    labels = fit("1", "2", "6", task="regression")
    assert (labels.mean, labels.deviation) == (3.0, pytest.approx(np.std([1, 2, 6])))
    targets, _ = labels.encode(column("3", "6")).of(np.arange(2))
    assert targets == pytest.approx([0, 3 / np.std([1, 2, 6])])
    assert targets.dtype == np.float32


@pytest.mark.parametrize(
    ("cells", "settings", "message"),
    [
        (["a", "a"], {}, "one class only, 'a', in all 2 training rows"),
        (["a", None], {}, "file.csv:3: column 'label': a row without a label"),
        (["1.5", "nan"], {}, "file.csv:3: column 'label': expected a finite number, got 'nan'"),
        (["1.5", "inf"], {"task": "regression"}, "got 'inf'"),
        (
            ["1.5", "n/a"],
            {"task": "regression"},
            "file.csv:3: column 'label': expected a finite number, got 'n/a'",
        ),
        (["1.5", "2.710,5"], {"task": "regression"}, "got '2.710,5', with a comma"),
        (["7", "7"], {"task": "regression"}, "every training row holds 7"),
        (
            [*map(str, range(30)), "x"],
            {},
            "file.csv:32: column 'label': mixed types: 'x' among numbers",
        ),
        ([f"id {n}" for n in range(200)], {}, "200 classes in 200 training rows: is it an id?"),
        (
            [f"{n},5" for n in range(200)],
            {},
            "numbers with a comma, such as '0,5'; expected",
        ),
        (
            ["a", "b"],
            {"fixed": ["a", "c"]},
            "file.csv:3: column 'label': unknown label 'b', expected one of 'a', 'c'",
        ),
        (["1", "1.0", "2"], {"task": "single"}, "labels '1' and '1.0' are the same number"),
        (["1", "1.0"], {"task": "regression"}, "every training row holds 1"),
        (["1e308", "-1e308"], {"task": "regression"}, "too large to standardise"),
        (["a b"], {"task": "multi_label"}, "expected a JSON list of labels"),
        (['["a", {}]', "[]"], {}, "expected a JSON list of labels"),
        (["", " "], {"task": "multi_label", "delimiter": "|"}, "no label in any of 2"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused_with_their_place(cells, settings, message):
    with pytest.raises(DataError) as refused:
        fit(*cells, **settings)
    assert message in str(refused.value)


def test_whole_numbers_of_many_values_need_a_task():
    with pytest.raises(ConfigError, match=r"expected data\.task=regression, or single"):
        fit(*map(str, range(100)))
    assert fit(*map(str, range(100)), task="regression").kind == "regression"


@pytest.mark.parametrize(
    "settings",
    [
        {"task": "single", "delimiter": "|"},
        {"task": "regression", "fixed": ["1", "2"]},
        {"fixed": ["1", "2", "1"]},
        {"fixed": ["1"]},
        {"fixed": []},
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings):
    with pytest.raises(ConfigError):
        fit("1", "2", **settings)


def test_an_unknown_label_is_named_with_its_place():
    labels = fit("positive", "negative")
    with pytest.raises(DataError) as refused:
        labels.encode(column("positive", "negativ"))
    assert "file.csv:3: column 'label': unknown label 'negativ'" in str(refused.value)


def test_labels_are_restored_and_damaged_ones_refused():
    labels = fit("1.5", "2.5")
    assert restore_labels(labels.state_dict()) == labels
    damages = (
        {"deviation": 0.0},
        {"names": ["a"]},
        {"kind": "classification"},
        {"mean": float("inf")},
        {"delimiter": ""},
    )
    for damage in damages:
        with pytest.raises(DataError):
            restore_labels(labels.state_dict() | damage)
    with pytest.raises(DataError):
        restore_labels(Labels("classification", ("a", "a")).state_dict())
