"""Baselines on texts: linear models on TF-IDF of words and characters."""

from collections.abc import Callable, Sequence

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import Baseline
from mlxlab.data.labelled import baselines
from mlxlab.data.labelled.baselines import SEED, Estimator, Matrix, Predict
from mlxlab.wording import counted

MAX_ROWS = 20_000  # that are fitted
MAX_CHARACTERS = 20_000_000  # of the texts that are fitted
MAX_WEIGHTS = 2_000_000  # features x outputs; L-BFGS holds 25 numbers of 8 bytes for each
CHARACTERS = (2, 4)  # how long the n-grams of characters are, within words
STRENGTHS = (1.0, 10.0)  # see `new_linear_model`; the first is scikit-learn's default

ReadTexts = Callable[[np.ndarray], Sequence[str]]  # the texts of rows by number


def tfidf_baselines(
    texts: ReadTexts,
    split: Sequence[np.ndarray],
    train_targets: np.ndarray,
    task: Task,
    plain: bool = False,
) -> list[Baseline]:
    """TF-IDF with logistic (`Ridge` for numbers) regression, and with a linear SVM.

    Args:
        split: numbers of the training, validation and test rows.
        train_targets: as in a `Batch`.
        plain: words and pairs of words with logistic regression alone, with scikit-learn's default settings; otherwise
            characters too, sublinear term frequencies, and the better of `STRENGTHS`.
    """
    train, valid, test = split
    name = f"tfidf_{baselines.linear_name(task)}"
    rows = baselines.sample_rows(name, train_targets, task, MAX_ROWS, baselines.MAX_OUTPUTS)
    if rows is None:
        return []
    rows, train_texts = _within_characters(name, texts, train, rows)
    max_features = MAX_WEIGHTS // task.num_classes
    vectorizer = _new_vectorizer(max_features, plain)
    try:
        features = vectorizer.fit_transform(train_texts)
    except ValueError:  # The vocabulary is empty.
        baselines.log(name, "skipped, no training text has a word of two characters")
        return []
    if features.shape[1] >= max_features:
        baselines.log(name, f"reads the {max_features} most frequent features")

    targets = train_targets[rows]
    models: dict[str, Predict] = {}
    with baselines.fitting(name):
        strength = STRENGTHS[0] if plain else best_strength(features, targets, task)
        models[name] = _fit_linear(strength, features, targets, task)
    if not plain:
        machine = "tfidf_linear_svm"
        with baselines.fitting(machine):
            models[machine] = baselines.fit(lambda: _new_svm(task), features, targets, task)

    def transform(chunk: np.ndarray) -> Matrix:
        return vectorizer.transform(texts(chunk))

    return baselines.predict(models, transform, valid, test)


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


def _fit_linear(
    strength: float, features: Matrix, targets: np.ndarray, task: Task, tolerance: float = 1e-6
) -> Predict:
    def new_model() -> Estimator:
        return baselines.new_linear_model(task, strength, tolerance)

    return baselines.fit(new_model, features, targets, task)


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
        predict = _fit_linear(strength, features[rest], targets[rest], task, tolerance=1e-4)
        return float(np.square(predict(features[held_out]) - expected).mean())

    return min(STRENGTHS, key=squared_error)


def _within_characters(
    name: str, texts: ReadTexts, train: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """As many rows, drawn at random, as have `MAX_CHARACTERS`, ascending, with their texts."""
    order = np.random.default_rng(SEED).permutation(rows)
    sample: dict[int, str] = {}
    characters = 0
    for start in range(0, len(order), baselines.CHUNK):
        chunk = order[start : start + baselines.CHUNK]
        for row, text in zip(chunk.tolist(), texts(train[chunk]), strict=True):
            characters += len(text)
            if characters <= MAX_CHARACTERS or not sample:
                sample[row] = text
        if characters > MAX_CHARACTERS:
            fitted = f"fitted on {counted(len(sample), 'training text')}, drawn at random"
            baselines.log(name, f"{fitted}, which have {MAX_CHARACTERS:,} characters")
            break
    kept = np.sort(np.fromiter(sample, np.int64))
    return kept, [sample[row] for row in kept.tolist()]
