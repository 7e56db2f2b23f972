"""TF-IDF and L2-regularised logistic regression: the baseline that a text classifier has to beat.

The features and the objective are the defaults of scikit-learn's `TfidfVectorizer(ngram_range=(1, 2))` and
`LogisticRegression()`; the minimum of that convex objective is found to rounding error by Newton's method.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

_WORD = re.compile(r"\b\w\w+\b")
_NEWTON_STEPS, _CG_STEPS, _TOLERANCE = 50, 1000, 1e-8


class SparseRows(NamedTuple):
    """A matrix of N rows and F features by its non-zero elements, row after row."""

    rows: np.ndarray  # (nonzero,) ascending
    columns: np.ndarray  # (nonzero,)
    values: np.ndarray  # (nonzero,)
    shape: tuple[int, int]

    def times(self, vector: np.ndarray) -> np.ndarray:
        """X @ vector: (F,) -> (N,)."""
        return np.bincount(self.rows, self.values * vector[self.columns], self.shape[0])

    def transposed_times(self, vector: np.ndarray) -> np.ndarray:
        """X.T @ vector: (N,) -> (F,)."""
        return np.bincount(self.columns, self.values * vector[self.rows], self.shape[1])


class BagOfWords:
    """A classifier of texts into 0 and 1 by their words and pairs of adjacent words."""

    def __init__(self, texts: Sequence[str], labels: np.ndarray) -> None:
        """Fits vocabulary, inverse document frequencies and weights on N texts and their (N,) labels."""
        counts = [_count_ngrams(text) for text in texts]
        self._columns = {ngram: column for column, ngram in enumerate(sorted(set().union(*counts)))}
        frequency = np.bincount([self._columns[ngram] for text in counts for ngram in text])
        self._idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
        self._weights, self._bias = _fit_logistic_regression(self._features(counts), labels)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """The probability (N,) of class 1."""
        features = self._features([_count_ngrams(text) for text in texts])
        return _sigmoid(features.times(self._weights) + self._bias)

    def _features(self, counts: Sequence[Counter[str]]) -> SparseRows:
        cells = [
            (row, self._columns[ngram], count)
            for row, text in enumerate(counts)
            for ngram, count in text.items()
            if ngram in self._columns
        ]
        rows, columns, values = np.array(cells, np.int64).reshape(-1, 3).T
        tfidf = values * self._idf[columns]
        norms = np.sqrt(np.bincount(rows, tfidf**2, len(counts)))
        return SparseRows(rows, columns, tfidf / norms[rows], (len(counts), len(self._columns)))


def _count_ngrams(text: str) -> Counter[str]:
    words = _WORD.findall(text.lower())
    return Counter([*words, *(f"{first} {second}" for first, second in pairwise(words))])


def _fit_logistic_regression(features: SparseRows, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (F,) and bias that minimise sum(log loss) + |weights|^2 / 2; the bias is not regularised."""
    solution = np.zeros(features.shape[1] + 1)  # the bias last
    penalty = np.append(np.ones(features.shape[1]), 0.0)
    for _ in range(_NEWTON_STEPS):
        p = _sigmoid(features.times(solution[:-1]) + solution[-1])
        gradient = np.append(features.transposed_times(p - labels), np.sum(p - labels)) + penalty * solution
        if np.linalg.norm(gradient) < _TOLERANCE * len(labels):
            break
        solution = solution - _newton_direction(features, p * (1 - p), penalty, gradient)
    return solution[:-1], float(solution[-1])


def _newton_direction(
    features: SparseRows, curvature: np.ndarray, penalty: np.ndarray, gradient: np.ndarray
) -> np.ndarray:
    """Solves Hessian @ direction = gradient by conjugate gradients."""
    direction, residual = np.zeros_like(gradient), gradient.copy()
    search, norm = residual.copy(), residual @ residual
    for _ in range(_CG_STEPS):
        weighted = curvature * (features.times(search[:-1]) + search[-1])
        product = np.append(features.transposed_times(weighted), weighted.sum()) + penalty * search
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
