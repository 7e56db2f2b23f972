"""Baselines on texts: linear models on TF-IDF of words and characters."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import Table
from mlxlab.data.labelled import baselines
from mlxlab.data.labelled.baselines import SEED, Estimator, FittedModels, Matrix, Predict
from mlxlab.data.labelled.encoder import Renderer, Texts, render_sequences

MAX_ROWS = 20_000  # texts that are fitted
CHUNK = 10_000  # texts that are read at a time
MAX_CHARACTERS = 20_000_000  # characters of all fitted texts
MAX_WEIGHTS = 2_000_000  # features x outputs; L-BFGS holds 25 numbers of 8 bytes for each
CHARACTERS = (2, 4)  # how long the n-grams of characters are, within words
STRENGTHS = (1.0, 10.0)  # see `new_linear_model`; the first is scikit-learn's default

ReadTexts = Callable[[np.ndarray], Sequence[str]]  # the training texts of these numbers, from 0


def fit_sentence_models(
    renderer: Renderer,
    read: Callable[[np.ndarray], Table],
    targets: np.ndarray,
    task: Task,
    plain: bool = False,
) -> FittedModels:
    """`fit_tfidf` on every variant of a row; the predictions are averaged over them.

    Args:
        read: the training rows of these numbers, from 0.
    """
    num_variants = renderer.num_variants

    def training_texts(sequences: np.ndarray) -> list[str]:
        return _joined(render_sequences(renderer, read, sequences))

    fitted = fit_tfidf(training_texts, np.repeat(targets, num_variants, axis=0), task, plain)

    def features(table: Table) -> Matrix:
        return fitted.features(_joined(renderer.render_all(table)))

    def predict(model: Predict, features: Matrix) -> np.ndarray:
        predictions = model(features)
        return predictions.reshape(-1, num_variants, *predictions.shape[1:]).mean(axis=1)

    models = {name: partial(predict, model) for name, model in fitted.models.items()}
    return FittedModels(features, models)


def _joined(texts: Texts) -> list[str]:
    """Two texts of a pair on a line each."""
    return ["\n".join(parts) for parts in texts]


def fit_tfidf(
    texts: ReadTexts, targets: np.ndarray, task: Task, plain: bool = False
) -> FittedModels:
    """TF-IDF with logistic (`Ridge` for numbers) regression, and with a linear SVM; no models if nothing can be fitted.

    Args:
        targets: as in a `Batch`.
        plain: words and pairs of words with logistic regression alone, with scikit-learn's default settings; otherwise
            characters too, sublinear term frequencies, and the better of `STRENGTHS`.
    """
    name = f"tfidf_{baselines.linear_name(task)}"
    max_features = MAX_WEIGHTS // task.num_classes
    vectorizer = _new_vectorizer(max_features, plain)
    models: dict[str, Predict] = {}
    fitted = FittedModels(vectorizer.transform, models)
    rows = baselines.sample_rows(name, targets, task, MAX_ROWS, baselines.MAX_OUTPUTS)
    if rows is None:
        return fitted
    sample = _within_characters(texts, rows)
    if len(sample) < len(rows):
        baselines.log(name, f"fitted on {len(sample)} training texts, to limit their characters")
    try:
        features = vectorizer.fit_transform(sample.values())
    except ValueError:  # The vocabulary is empty.
        baselines.log(name, "skipped, no training text has a word of two characters")
        return fitted
    if features.shape[1] >= max_features:
        baselines.log(name, f"reads the {max_features} most frequent features")

    targets = targets[list(sample)]
    with baselines.fitting(name):
        strength = STRENGTHS[0] if plain else best_strength(features, targets, task)
        new_model = partial(baselines.new_linear_model, task, strength)
        models[name] = baselines.fit(new_model, features, targets, task)
    if not plain:
        machine = "tfidf_linear_svm"
        with baselines.fitting(machine):
            models[machine] = baselines.fit(partial(_new_svm, task), features, targets, task)
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
    expected = baselines.to_data_units(expected, task)

    def squared_error(strength: float) -> float:
        new_model = partial(baselines.new_linear_model, task, strength, tolerance=1e-4)
        predict = baselines.fit(new_model, features[rest], targets[rest], task)
        return float(np.square(predict(features[held_out]) - expected).mean())

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
