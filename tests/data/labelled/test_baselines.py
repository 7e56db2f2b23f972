"""Baselines of texts for each kind of task, and their limits."""

import logging

import numpy as np
import pytest

from mlxlab.data.batch import Task
from mlxlab.data.labelled import baselines
from mlxlab.data.labelled.baselines import best_strength, text_baselines

COLOURS = ("red", "green", "blue")
CLASSES = Task("classification", 3, COLOURS)
LABELS = Task("multi_label", 3, COLOURS)
NUMBERS = Task("regression", 1, target_mean=100.0, target_deviation=20.0)


def colour_texts(count, seed=0):
    """Texts with one colour among other words, and the number of that colour."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(3, size=count)
    words = generator.choice(["the", "old", "house", "street"], size=(count, 4))
    return [f"{' '.join(row)} {COLOURS[c]}" for row, c in zip(words, classes, strict=True)], classes.astype(np.int32)


TRAIN, CLASS = colour_texts(90)
VALID, VALID_CLASS = colour_texts(30, seed=1)
TEST, TEST_CLASS = colour_texts(12, seed=2)


SPLIT = np.split(np.arange(132), [90, 120])


def by_name(targets, task, train=TRAIN):
    texts = np.array([*train, *VALID, *TEST], object)
    return {each.name: each for each in text_baselines(lambda rows: texts[rows].tolist(), SPLIT, targets, task)}


def test_classes_get_probabilities_on_validation_and_test_texts():
    majority, words = by_name(CLASS, CLASSES).values()
    assert (majority.name, words.name) == ("majority", "tfidf_logistic_regression")
    np.testing.assert_allclose(majority.valid, [np.bincount(CLASS) / 90] * 30)
    np.testing.assert_array_equal(words.valid.argmax(axis=1), VALID_CLASS)
    np.testing.assert_array_equal(words.test.argmax(axis=1), TEST_CLASS)
    np.testing.assert_allclose(words.valid.sum(axis=1), 1)


def test_a_class_without_a_training_text_has_probability_0():
    targets = np.where(CLASS == 1, 2, CLASS)
    words = by_name(targets, CLASSES)["tfidf_logistic_regression"]
    assert words.valid.shape == (30, 3)
    assert (words.valid[:, 1] == 0).all()


def test_each_of_several_labels_gets_a_model_of_its_own():
    targets = np.stack([CLASS == 0, CLASS != 1, np.ones(90)], axis=1).astype(np.float32)
    majority, words = by_name(targets, LABELS).values()
    np.testing.assert_allclose(majority.test, [targets.mean(axis=0)] * 12)
    np.testing.assert_array_equal(words.test[:, 0] > 0.5, TEST_CLASS == 0)
    np.testing.assert_array_equal(words.test[:, 1] > 0.5, TEST_CLASS != 1)
    assert (words.test[:, 2] == 1).all()  # holds for every training text


def test_numbers_are_predicted_in_the_units_of_the_data():
    values = 100 + 20.0 * CLASS
    task = Task("regression", 1, target_mean=float(values.mean()), target_deviation=float(values.std()))
    standardised = ((values - values.mean()) / values.std()).astype(np.float32)
    mean, words = by_name(standardised, task).values()
    assert (mean.name, words.name) == ("mean", "tfidf_ridge_regression")
    np.testing.assert_allclose(mean.valid, np.full(30, values.mean()), rtol=1e-6)
    np.testing.assert_allclose(words.valid, 100 + 20 * VALID_CLASS, atol=8)


def test_predictions_are_the_same_each_time(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_ROWS", 50)
    first, second = (by_name(CLASS, CLASSES)["tfidf_logistic_regression"] for _ in range(2))
    np.testing.assert_array_equal(first.valid, second.valid)


def test_predictions_do_not_depend_on_how_many_rows_are_predicted_at_a_time(monkeypatch):
    expected = by_name(CLASS, CLASSES)["tfidf_logistic_regression"].valid
    monkeypatch.setattr(baselines, "CHUNK", 7)
    np.testing.assert_allclose(by_name(CLASS, CLASSES)["tfidf_logistic_regression"].valid, expected)


def test_no_more_texts_are_read_at_a_time_than_are_predicted(monkeypatch):
    monkeypatch.setattr(baselines, "CHUNK", 7)
    texts, sizes = np.array([*TRAIN, *VALID, *TEST], object), []

    def read(rows):
        sizes.append(len(rows))
        return texts[rows].tolist()

    text_baselines(read, SPLIT, CLASS, CLASSES)
    assert max(sizes) == 7
    assert sum(sizes) == 132


def test_a_sample_of_rows_sorted_by_class_has_all_classes(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_CHARACTERS", sum(map(len, TRAIN)) // 3)
    order = np.argsort(CLASS, kind="stable")
    words = by_name(CLASS[order], CLASSES, train=[TRAIN[row] for row in order])["tfidf_logistic_regression"]
    np.testing.assert_array_equal(words.valid.argmax(axis=1), VALID_CLASS)


def test_the_weaker_penalty_is_taken_where_it_predicts_held_out_rows_better():
    generator = np.random.default_rng(0)
    features, noise = np.eye(3)[CLASS] / 10, generator.integers(3, size=90)
    assert best_strength(features, CLASS, CLASSES) == 10
    assert best_strength(generator.normal(size=(90, 40)), noise, CLASSES) == 1


def test_a_single_row_is_no_reason_to_tune():
    assert best_strength(np.ones((1, 2)), np.zeros(1, np.float32), NUMBERS) == 1


@pytest.mark.parametrize(
    ("limit", "value", "line"),
    [
        ("MAX_ROWS", 60, "fitted on 60 of 90 training rows, drawn at random"),
        ("MAX_TARGETS", 120, "fitted on 40 of 90 training rows, drawn at random"),
        ("MAX_CHARACTERS", 1000, "training texts, drawn at random, which have 1000 characters"),
        ("MAX_WEIGHTS", 30, "reads the 10 most frequent words and pairs"),
        ("MAX_OUTPUTS", 2, "skipped, 3 outputs are more than 2"),
    ],
)
def test_a_limit_that_is_reached_is_logged(monkeypatch, caplog, limit, value, line):
    monkeypatch.setattr(baselines, limit, value)
    with caplog.at_level(logging.INFO):
        fitted = by_name(CLASS, CLASSES)
    assert line in caplog.text
    assert len(fitted) == (1 if "skipped" in line else 2)


def test_what_cannot_be_fitted_is_skipped_with_a_line(caplog):
    with caplog.at_level(logging.INFO):
        assert list(by_name(np.zeros(90, np.int32), CLASSES)) == ["majority"]
        assert list(by_name(CLASS, CLASSES, train=["a", "b", "c"] * 30)) == ["majority"]
    assert "all of one class" in caplog.text
    assert "no training text has a word" in caplog.text


def test_a_fit_that_does_not_converge_is_a_line_and_no_warning(caplog):
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with caplog.at_level(logging.INFO), baselines.fitting("model"):
        warnings.warn("stopped", ConvergenceWarning, stacklevel=1)
        warnings.warn("of no interest", FutureWarning, stacklevel=1)
    assert [record.getMessage() for record in caplog.records] == ["baseline model: its fit stopped before it converged"]
