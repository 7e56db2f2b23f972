"""Baselines of texts for each kind of task, and their limits."""

import logging

import numpy as np
import pytest

from mlxlab.data.batch import Task
from mlxlab.data.dataset import BaselineInputs
from mlxlab.models.baselines import estimators, predict, texts

COLOURS = ("red", "green", "blue")
CLASSES = Task("classification", 3, COLOURS)
LABELS = Task("multi_label", 3, COLOURS)


def colour_texts(count, seed=0):
    """Texts with one colour among other words, and the number of that colour."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(3, size=count)
    words = generator.choice(["the", "old", "house", "street"], size=(count, 4))
    return [
        f"{' '.join(row)} {COLOURS[c]}" for row, c in zip(words, classes, strict=True)
    ], classes.astype(np.int32)


TRAIN, CLASS = colour_texts(90)
VALID, VALID_CLASS = colour_texts(30, seed=1)
TEST, TEST_CLASS = colour_texts(12, seed=2)


class Written:
    """The text of a row, as it stands."""

    num_variants = 1

    def render_all(self, table):
        return [(text,) for text in table["text"]]


class Rows:
    """Texts with their targets."""

    def __init__(self, targets, task, train=TRAIN, valid=VALID, plain=False):
        self.training_targets, self.task = targets, task
        self.baseline_inputs = BaselineInputs(texts={"": Written()}, plain=plain)
        self.texts = np.array([*train, *valid, *TEST], object)

    def cells(self, rows):
        return {"text": self.texts[rows].tolist()}


def by_name(targets, task, train=TRAIN, valid=VALID, plain=False):
    """Predictions for the validation and test texts but for those of the constant, a block at a time."""
    data = Rows(targets, task, train, valid, plain)
    predicted = predict.predict_rows(
        data, lambda rows: data.cells(rows + len(train)), len(valid), len(TEST)
    )
    return {each.name: each for each in predicted[1:]}


def test_classes_get_probabilities_on_validation_and_test_texts():
    fitted = by_name(CLASS, CLASSES)
    assert list(fitted) == ["tfidf_logistic_regression", "tfidf_linear_svm"]
    for each in fitted.values():
        np.testing.assert_array_equal(each.valid.argmax(axis=1), VALID_CLASS)
        np.testing.assert_array_equal(each.test.argmax(axis=1), TEST_CLASS)
        np.testing.assert_allclose(each.valid.sum(axis=1), 1)


def test_each_of_several_labels_gets_a_model_of_its_own():
    targets = np.stack([CLASS == 0, CLASS != 1, np.ones(90)], axis=1).astype(np.float32)
    for each in by_name(targets, LABELS).values():
        np.testing.assert_array_equal(each.test[:, 0] > 0.5, TEST_CLASS == 0)
        np.testing.assert_array_equal(each.test[:, 1] > 0.5, TEST_CLASS != 1)
        assert (each.test[:, 2] == 1).all()  # holds for every training text


def test_numbers_are_predicted_in_the_units_of_the_data():
    values = 100 + 20.0 * CLASS
    task = Task(
        "regression", 1, target_mean=float(values.mean()), target_deviation=float(values.std())
    )
    standardised = ((values - values.mean()) / values.std()).astype(np.float32)
    fitted = by_name(standardised, task)
    assert list(fitted) == ["tfidf_ridge_regression", "tfidf_linear_svm"]
    for each in fitted.values():
        np.testing.assert_allclose(each.valid, 100 + 20 * VALID_CLASS, atol=8)


@pytest.mark.parametrize(
    ("limit", "value", "line"),
    [
        ("MAX_ROWS", 60, "fitted on 60 of 90 training rows, drawn at random"),
        ("MAX_TARGETS", 120, "fitted on 40 of 90 training rows, drawn at random"),
        ("MAX_CHARACTERS", 1000, "training texts, to limit their characters"),
        ("MAX_WEIGHTS", 30, "reads the 10 most frequent features"),
        ("MAX_OUTPUTS", 2, "skipped, 3 outputs are more than 2"),
    ],
)
def test_a_limit_that_is_reached_is_logged(monkeypatch, caplog, limit, value, line):
    monkeypatch.setattr(texts if limit in vars(texts) else estimators, limit, value)
    with caplog.at_level(logging.INFO):
        fitted = by_name(CLASS, CLASSES)
    assert line in caplog.text
    assert len(fitted) == {"MAX_OUTPUTS": 0}.get(limit, 2)


def test_what_cannot_be_fitted_is_skipped_with_a_line(caplog):
    with caplog.at_level(logging.INFO):
        assert by_name(np.zeros(90, np.int32), CLASSES) == {}
        assert by_name(CLASS, CLASSES, train=["a", "b", "c"] * 30) == {}
    assert "all of one class" in caplog.text
    assert "no training text has a word" in caplog.text


def test_characters_tell_words_that_no_training_text_has(monkeypatch):
    """`redness` and `greenish` share their first characters with the words of training."""
    words = {"red": "redness", "green": "greenish", "blue": "bluest"}
    valid = [words[COLOURS[c]] for c in VALID_CLASS]
    for each in by_name(CLASS, CLASSES, valid=valid).values():
        np.testing.assert_array_equal(each.valid.argmax(axis=1), VALID_CLASS)
    [plain] = by_name(CLASS, CLASSES, valid=valid, plain=True).values()
    assert plain.name == "tfidf_logistic_regression"
    assert len(np.unique(plain.valid, axis=0)) == 1
