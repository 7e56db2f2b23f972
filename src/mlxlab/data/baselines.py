"""What needs no neural network: the accuracies that a model has to beat, on the same validation rows."""

from collections.abc import Sequence

import numpy as np

from mlxlab.data.passenger import Passenger
from mlxlab.data.row_encoder import RowEncoder


def accuracies(encoder: RowEncoder, train: Sequence[Passenger], valid: Sequence[Passenger]) -> dict[str, float]:
    """Accuracy of majority, female rule, and TF-IDF of the sentences with logistic regression."""
    truth = _labels(valid)
    guesses = {
        "majority": np.full(len(valid), 2 * _labels(train).sum() > len(train)),
        "female_rule": np.array([row.sex == "female" for row in valid]),
        "tfidf_logistic_regression": _bag_of_words(encoder, train, valid),
    }
    return {name: float(np.mean(guess == truth)) for name, guess in guesses.items()}


def _bag_of_words(encoder: RowEncoder, train: Sequence[Passenger], valid: Sequence[Passenger]) -> np.ndarray:
    """Weights of words and pairs of words, from every sentence of the training rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    features = vectorizer.fit_transform(encoder.all_texts(train))
    model = LogisticRegression(C=10.0, max_iter=2000)
    model.fit(features, np.repeat(_labels(train), len(encoder.templates)))
    return model.predict(vectorizer.transform(encoder.texts(valid)))


def _labels(rows: Sequence[Passenger]) -> np.ndarray:
    return np.array([row.survived for row in rows])
