"""Baselines without a neural network: the accuracies that a model has to beat, on the same validation rows.

The features and the objective of `BagOfWords` are the defaults of scikit-learn's `TfidfVectorizer(ngram_range=(1, 2))`
and `LogisticRegression()`; the minimum of that convex objective is found to rounding error by Newton's method.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mlxlab.data.dataset import Baseline
from mlxlab.data.titanic.encoder import PassengerEncoder
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.data.titanic.templates import TEMPLATES

BASIC_TEMPLATES = {name: TEMPLATES[name] for name in ("basic", "narrative", "descriptive", "story")}
_WORD = re.compile(r"\b\w\w+\b")
_NEWTON_STEPS, _CG_STEPS, _TOLERANCE = 50, 1000, 1e-8


def predictions(encoder: PassengerEncoder, train: Sequence[Passenger], valid: Sequence[Passenger]) -> list[Baseline]:
    """Predictions on `valid` of baselines that are fitted on `train`.

    majority: the most frequent class. female_rule: women survive. tfidf_logistic_regression: words and pairs of words
    of the four basic sentences, the same for all templates. tfidf_same_sentences: the same model on `encoder`'s own
    sentences, where these differ: a gain over it is more than counting words.
    """
    basic = PassengerEncoder(BASIC_TEMPLATES, encoder.statistics, encoder.tokenizer, 8, encoder.seed)
    survival = {
        "majority": np.full(len(valid), _labels(train).mean()),
        "female_rule": np.array([float(row.sex == "female") for row in valid]),
        "tfidf_logistic_regression": _predict(basic, train, valid),
    }
    if encoder.templates != BASIC_TEMPLATES:
        survival["tfidf_same_sentences"] = _predict(encoder, train, valid)
    none = np.zeros((0, 2))
    return [Baseline(name, np.stack([1 - p, p], axis=1), none) for name, p in survival.items()]


def _predict(encoder: PassengerEncoder, train: Sequence[Passenger], valid: Sequence[Passenger]) -> np.ndarray:
    """Probability of survival by a bag of words: fitted on every sentence of a row, and averaged over them."""
    model = BagOfWords(encoder.all_texts(train), np.repeat(_labels(train), len(encoder.templates)))
    probabilities = model.probabilities(encoder.all_texts(valid))  # sentence after sentence of a row
    return probabilities.reshape(len(valid), -1).mean(1)


def _labels(rows: Sequence[Passenger]) -> np.ndarray:
    return np.array([row.survived for row in rows])


class BagOfWords:
    """A classifier of texts into 0 and 1 by their words and pairs of adjacent words (TF-IDF, logistic regression)."""

    def __init__(self, texts: Sequence[str], labels: np.ndarray) -> None:
        """Fits vocabulary, inverse document frequencies and weights on N texts and their (N,) labels."""
        counts = [_count_ngrams(text) for text in texts]
        self._columns = {ngram: column for column, ngram in enumerate(sorted(set().union(*counts)))}
        frequency = np.bincount([self._columns[ngram] for text in counts for ngram in text])
        self._idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
        self._weights = _fit_logistic_regression(self._features(counts), labels)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """The probability (N,) of class 1."""
        return _sigmoid(self._features([_count_ngrams(text) for text in texts]).times(self._weights))

    def _features(self, counts: Sequence[Counter[str]]) -> "_SparseRows":
        cells = [
            (row, self._columns[ngram], count)
            for row, text in enumerate(counts)
            for ngram, count in text.items()
            if ngram in self._columns
        ]
        rows, columns, values = np.array(cells, np.int64).reshape(-1, 3).T
        tfidf = values * self._idf[columns]
        norms = np.sqrt(np.bincount(rows, tfidf**2, len(counts)))
        return _SparseRows(rows, columns, tfidf / norms[rows], (len(counts), len(self._columns)))


class _SparseRows(NamedTuple):
    """A matrix X of N rows and F features by its non-zero elements, row after row, and a column of ones after them."""

    rows: np.ndarray  # (nonzero,) ascending
    columns: np.ndarray  # (nonzero,)
    values: np.ndarray  # (nonzero,)
    shape: tuple[int, int]

    def times(self, vector: np.ndarray) -> np.ndarray:
        """X @ vector: (F + 1,) -> (N,)."""
        return np.bincount(self.rows, self.values * vector[self.columns], self.shape[0]) + vector[-1]

    def transposed_times(self, vector: np.ndarray) -> np.ndarray:
        """X.T @ vector: (N,) -> (F + 1,)."""
        return np.append(np.bincount(self.columns, self.values * vector[self.rows], self.shape[1]), np.sum(vector))


def _count_ngrams(text: str) -> Counter[str]:
    unigrams = _WORD.findall(text.lower())
    return Counter([*unigrams, *(f"{first} {second}" for first, second in pairwise(unigrams))])


def _fit_logistic_regression(features: _SparseRows, labels: np.ndarray) -> np.ndarray:
    """Weights (F + 1,), the last one the bias, that minimise sum(log loss) + |weights without bias|^2 / 2."""
    weights = np.zeros(features.shape[1] + 1)
    penalty = np.append(np.ones(features.shape[1]), 0.0)
    for _ in range(_NEWTON_STEPS):
        p = _sigmoid(features.times(weights))
        gradient = features.transposed_times(p - labels) + penalty * weights
        if np.linalg.norm(gradient) < _TOLERANCE * len(labels):
            break
        weights = weights - _newton_direction(features, p * (1 - p), penalty, gradient)
    return weights


def _newton_direction(
    features: _SparseRows, curvature: np.ndarray, penalty: np.ndarray, gradient: np.ndarray
) -> np.ndarray:
    """Solves Hessian @ direction = gradient by conjugate gradients."""
    direction, residual = np.zeros_like(gradient), gradient.copy()
    search, norm = residual.copy(), residual @ residual
    for _ in range(_CG_STEPS):
        product = features.transposed_times(curvature * features.times(search)) + penalty * search
        step = norm / (search @ product)
        direction += step * search
        residual -= step * product
        previous, norm = norm, residual @ residual
        if norm < 1e-12 * (gradient @ gradient):
            break
        search = residual + norm / previous * search
    return direction


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
