"""Baselines without a neural network, from scikit-learn: what a model has to beat on the same rows.

Targets are those of a `Batch`: classes (N,), labels (N, L) of 0 and 1, or standardised numbers (N,). Large data is
sampled, so that a fit takes minutes at most; a limit that is reached is logged.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import Baseline

MAX_ROWS = 20_000  # that are fitted
MAX_CHARACTERS = 30_000_000  # of the texts that are fitted
MAX_OUTPUTS = 1_000  # classes or labels
MAX_TARGETS = 2_000_000  # rows that are fitted x outputs
MAX_WEIGHTS = 2_000_000  # features x outputs; L-BFGS holds 25 numbers of 8 bytes for each
CHUNK = 10_000  # rows read or predicted at a time
STRENGTHS = (1.0, 10.0)  # see `new_linear_model`; the first is scikit-learn's default
SEED = 0

logger = logging.getLogger(__name__)


Matrix = Any  # N rows of features: dense or sparse, or a data frame
Estimator = Any  # of scikit-learn, which has no types
Predict = Callable[[Matrix], np.ndarray]  # -> (N, C), (N, L) or (N,), as in `Baseline`


def constant_baseline(train_targets: np.ndarray, num_valid: int, num_test: int, task: Task) -> Baseline:
    """The same prediction for every row: frequencies of the classes or labels, or the mean (`mean`)."""
    if task.kind == "classification":
        value = np.bincount(train_targets, minlength=task.num_classes) / len(train_targets)
    else:
        value = train_targets.mean(axis=0, dtype=np.float64)
    value = _to_data_units(value, task)
    valid, test = (np.broadcast_to(value, (rows, *value.shape)) for rows in (num_valid, num_test))
    return Baseline("mean" if task.kind == "regression" else "majority", valid, test)


def text_baselines(
    texts: Callable[[np.ndarray], Sequence[str]],
    split: Sequence[np.ndarray],
    train_targets: np.ndarray,
    task: Task,
    tuned: bool = True,
) -> list[Baseline]:
    """The constant, and TF-IDF of words and pairs of words with logistic (`Ridge` for numbers) regression.

    Args:
        texts: the texts of rows by number.
        split: numbers of the training, validation and test rows.
        train_targets: as in a `Batch`.
        tuned: sublinear term frequencies, and the better of `STRENGTHS`; otherwise scikit-learn's defaults.
    """
    train, valid, test = split
    constant = constant_baseline(train_targets, len(valid), len(test), task)
    name = f"tfidf_{linear_name(task)}"
    rows = sample_rows(name, train_targets, task, MAX_ROWS, MAX_OUTPUTS)
    if rows is None:
        return [constant]
    rows, train_texts = _within_characters(name, lambda sampled: texts(train[sampled]), rows)
    from sklearn.feature_extraction.text import TfidfVectorizer

    max_features = MAX_WEIGHTS // task.num_classes
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=max_features, sublinear_tf=tuned)
    try:
        features = vectorizer.fit_transform(train_texts)
    except ValueError:  # an empty vocabulary
        logger.info(f"baseline {name}: skipped, no training text has a word of two characters")
        return [constant]
    if features.shape[1] == max_features:
        logger.info(f"baseline {name}: reads the {max_features} most frequent words and pairs")
    targets = train_targets[rows]
    with fitting(name):
        strength = best_strength(features, targets, task) if tuned else STRENGTHS[0]
        predict = fit(new_linear_model(task, strength), features, targets, task)
        predictions = [
            predict_in_chunks(part, lambda chunk: predict(vectorizer.transform(texts(chunk))), task)
            for part in (valid, test)
        ]
    return [constant, Baseline(name, *predictions)]


def linear_name(task: Task) -> str:
    return "ridge_regression" if task.kind == "regression" else "logistic_regression"


def new_linear_model(task: Task, strength: float = STRENGTHS[0], tolerance: float = 1e-6) -> Callable[[], Estimator]:
    """`strength` is `C` of logistic regression and 1 / `alpha` of ridge regression: the inverse of the penalty."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if task.kind == "regression":
        return lambda: Ridge(alpha=1 / strength, random_state=SEED)
    return lambda: LogisticRegression(C=strength, max_iter=1000, tol=tolerance, random_state=SEED)


def best_strength(features: Matrix, targets: np.ndarray, task: Task) -> float:
    """The one of `STRENGTHS` with the least squared error (Brier score) on a random fifth of the rows."""
    order = np.random.default_rng(SEED).permutation(len(targets))
    held_out, rest = np.split(order, [len(order) // 5])
    if not len(held_out):
        return STRENGTHS[0]
    expected = np.eye(task.num_classes)[targets] if task.kind == "classification" else targets
    expected = _to_data_units(expected[held_out], task)

    def squared_error(strength: float) -> float:
        predict = fit(new_linear_model(task, strength, tolerance=1e-4), features[rest], targets[rest], task)
        return float(np.square(predict(features[held_out]) - expected).mean())

    return min(STRENGTHS, key=squared_error)


def sample_rows(name: str, targets: np.ndarray, task: Task, max_rows: int, max_outputs: int) -> np.ndarray | None:
    """Indices of the training rows to fit, ascending; None, with a line in the log, where a fit makes no sense."""
    if task.num_classes > max_outputs:
        logger.info(f"baseline {name}: skipped, {task.num_classes} outputs are more than {max_outputs}")
        return None
    if task.kind == "classification" and len(np.unique(targets)) < 2:
        logger.info(f"baseline {name}: skipped, the training rows are all of one class")
        return None
    limit = min(max_rows, MAX_TARGETS // task.num_classes)
    if len(targets) <= limit:
        return np.arange(len(targets))
    logger.info(f"baseline {name}: fitted on {limit} of {len(targets)} training rows, drawn at random")
    return np.sort(np.random.default_rng(SEED).choice(len(targets), limit, replace=False))


def _within_characters(
    name: str, texts: Callable[[np.ndarray], Sequence[str]], rows: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """As many rows, drawn at random, as have `MAX_CHARACTERS`, ascending, with their texts."""
    order = np.random.default_rng(SEED).permutation(rows)
    sample: dict[int, str] = {}
    characters = 0
    for row, text in _by_row(texts, order):
        characters += len(text)
        if characters > MAX_CHARACTERS and sample:
            limit = f"which have {MAX_CHARACTERS} characters"
            logger.info(f"baseline {name}: fitted on {len(sample)} training texts, drawn at random, {limit}")
            break
        sample[row] = text
    fitted = np.sort(np.fromiter(sample, np.int64))
    return fitted, [sample[row] for row in fitted.tolist()]


def _by_row(texts: Callable[[np.ndarray], Sequence[str]], rows: np.ndarray) -> Iterator[tuple[int, str]]:
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        yield from zip(chunk.tolist(), texts(chunk), strict=True)


def fit(new_model: Callable[[], Estimator], features: Matrix, targets: np.ndarray, task: Task) -> Predict:
    """Fits a model to features of N rows; one for each label if several may hold."""
    if task.kind == "regression":
        regressor = new_model()
        regressor.fit(features, targets)
        return lambda rows: _to_data_units(regressor.predict(rows), task)
    if task.kind == "classification":
        return _fit_classifier(new_model, features, targets, task.num_classes)
    labels = [_fit_classifier(new_model, features, column.astype(np.int64), 2) for column in targets.T]
    return lambda rows: np.stack([predict(rows)[:, 1] for predict in labels], axis=1)


def _fit_classifier(
    new_model: Callable[[], Estimator], features: Matrix, classes: np.ndarray, num_classes: int
) -> Predict:
    """Probabilities of all classes, 0 for those without a training row."""
    present = np.unique(classes)
    if len(present) == 1:
        return lambda rows: np.tile(np.eye(num_classes)[present], (rows.shape[0], 1))
    model = new_model()
    model.fit(features, classes)

    def predict(rows: Matrix) -> np.ndarray:
        present_probabilities = model.predict_proba(rows)
        probabilities = np.zeros((len(present_probabilities), num_classes))
        probabilities[:, present] = present_probabilities
        return probabilities

    return predict


def predict_in_chunks(rows: np.ndarray, predict: Predict, task: Task) -> np.ndarray:
    """The predictions of rows by number, of which `predict` gets a few thousand at a time."""
    shape = (0,) if task.kind == "regression" else (0, task.num_classes)
    chunks = [predict(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros(shape)


def _to_data_units(standardised: np.ndarray, task: Task) -> np.ndarray:
    return standardised * task.target_deviation + task.target_mean if task.kind == "regression" else standardised


@contextmanager
def fitting(name: str) -> Iterator[None]:
    """Around the use of scikit-learn: logs in one line that a fit did not converge, hides its other warnings.

    One thread: on a busy machine the threads of gradient boosting wait for each other, up to twenty times as long as
    the fit takes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        logger.info(f"baseline {name}: its fit stopped before it converged")
