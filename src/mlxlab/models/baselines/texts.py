"""Baselines on texts: linear models on TF-IDF of words and characters."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import LabelledRows, RowTexts, Table
from mlxlab.data.labelled.encoder import render_sequences
from mlxlab.models.baselines.estimators import (
    SEED,
    Estimator,
    FittedModels,
    Matrix,
    Model,
    fit_estimators,
    limit_scikit,
    linear_name,
    log,
    new_linear_model,
    sample_rows,
    to_data_units,
)

MAX_ROWS = 20_000  # texts that are fitted
CHUNK = 10_000  # texts that are read at a time
MAX_CHARACTERS = 20_000_000  # characters of all fitted texts
MAX_WEIGHTS = 2_000_000  # features x outputs; L-BFGS holds 25 numbers of 8 bytes for each
CHARACTERS = (2, 4)  # how long the n-grams of characters are, within words
STRENGTHS = (1.0, 10.0)  # see `new_linear_model`; the first is scikit-learn's default

ReadTexts = Callable[[np.ndarray], Sequence[str]]  # the training texts of these numbers, from 0


def fit_texts(data: LabelledRows, texts: RowTexts, name: str, plain: bool) -> FittedModels:
    """TF-IDF with logistic (`Ridge` for numbers) regression, and with a linear SVM; no models if nothing can be fitted.

    They are fitted on every variant of a row.

    Args:
        name: of the regression; "" names it by its kind.
        plain: words and pairs of words with logistic regression alone, with scikit-learn's default settings; otherwise
            characters too, sublinear term frequencies, and the better of `STRENGTHS`.
    """
    task = data.task
    num_variants = texts.num_variants
    targets = np.repeat(data.training_targets, num_variants, axis=0)
    name = f"tfidf_{name or linear_name(task)}"
    max_features = MAX_WEIGHTS // task.num_classes
    vectorizer = _new_vectorizer(max_features, plain)

    # Two texts of a pair stand on a line each.
    def features(table: Table) -> Matrix:
        return vectorizer.transform(list(map("\n".join, texts.render_all(table))))

    def training_texts(sequences: np.ndarray) -> list[str]:
        return list(map("\n".join, render_sequences(texts, data.cells, sequences)))

    models: dict[str, Model] = {}
    fitted = FittedModels(features, models, num_variants)
    rows = sample_rows(name, targets, task, MAX_ROWS)
    if rows is None:
        return fitted
    sample = _within_characters(training_texts, rows)
    if len(sample) < len(rows):
        log(name, f"fitted on {len(sample)} training texts, to limit their characters")
    try:
        matrix = vectorizer.fit_transform(sample.values())
    except ValueError:  # The vocabulary is empty.
        log(name, "skipped, no training text has a word of two characters")
        return fitted
    if matrix.shape[1] >= max_features:
        log(name, f"reads the {max_features} most frequent features")

    targets = targets[list(sample)]
    with limit_scikit(name):
        strength = STRENGTHS[0]
        if not plain:
            strength = best_strength(matrix, targets, task)
        new_model = partial(new_linear_model, task, strength)
        models[name] = Model(fit_estimators(new_model, matrix, targets, task.kind), task)
    if not plain:
        machine = "tfidf_linear_svm"
        with limit_scikit(machine):
            estimators = fit_estimators(partial(_new_svm, task), matrix, targets, task.kind)
        models[machine] = Model(estimators, task)
    return fitted


def _new_vectorizer(max_features: int, plain: bool) -> Estimator:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    if plain:
        return TfidfVectorizer(ngram_range=(1, 2), max_features=max_features)
    half = max_features // 2
    words = TfidfVectorizer(ngram_range=(1, 2), max_features=half, sublinear_tf=True)
    characters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=CHARACTERS, max_features=half, sublinear_tf=True
    )
    return make_union(words, characters)


def _new_svm(task: Task) -> Estimator:
    from sklearn.svm import LinearSVC, LinearSVR

    if task.kind == "regression":
        return LinearSVR(loss="squared_epsilon_insensitive", dual=True, random_state=SEED)
    return LinearSVC(random_state=SEED)


def best_strength(features: Matrix, targets: np.ndarray, task: Task) -> float:
    """The one of `STRENGTHS` with the least squared error (Brier score) on a random fifth of the rows."""
    order = np.random.default_rng(SEED).permutation(len(targets))
    held_out, rest = np.split(order, [len(order) // 5])
    if not len(held_out):
        return STRENGTHS[0]
    expected = targets[held_out]
    if task.kind == "classification":
        expected = np.eye(task.num_classes)[expected]
    expected = to_data_units(expected, task)

    def squared_error(strength: float) -> float:
        new_model = partial(new_linear_model, task, strength, tolerance=1e-4)
        model = Model(fit_estimators(new_model, features[rest], targets[rest], task.kind), task)
        return float(np.square(model(features[held_out]) - expected).mean())

    return min(STRENGTHS, key=squared_error)


def _within_characters(texts: ReadTexts, rows: np.ndarray) -> dict[int, str]:
    """Draws as many texts at random as have `MAX_CHARACTERS` together, by row in rising order."""
    order = np.random.default_rng(SEED).permutation(rows)
    sample: dict[int, str] = {}
    characters = 0
    for start in range(0, len(order), CHUNK):
        chunk = order[start : start + CHUNK]
        for row, text in zip(chunk.tolist(), texts(chunk), strict=True):
            characters += len(text)
            if characters <= MAX_CHARACTERS or not sample:
                sample[row] = text
        if characters > MAX_CHARACTERS:
            break
    return dict(sorted(sample.items()))
