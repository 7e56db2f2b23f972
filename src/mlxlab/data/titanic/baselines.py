"""Baselines without a neural network: the accuracies that a model has to beat, on the same validation rows."""

from collections.abc import Sequence

import numpy as np

from mlxlab.data.titanic.bag_of_words import BagOfWords
from mlxlab.data.titanic.encoder import PassengerEncoder
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.data.titanic.templates import TEMPLATES

PLAIN = {name: TEMPLATES[name] for name in ("basic", "narrative", "descriptive", "story")}


def accuracies(encoder: PassengerEncoder, train: Sequence[Passenger], valid: Sequence[Passenger]) -> dict[str, float]:
    """Accuracies on `valid` of baselines that are fitted on `train`.

    majority: the most frequent class. female_rule: women survive. tfidf_logistic_regression: words and pairs of words
    of the four plain sentences, the same for all templates. tfidf_same_sentences: the same model on `encoder`'s own
    sentences, where these differ: a gain over it is more than counting words.
    """
    labels, plain = _labels(valid), PassengerEncoder(PLAIN, encoder.statistics, encoder.tokenizer, 8, encoder.seed)
    predictions = {
        "majority": np.full(len(valid), 2 * _labels(train).sum() > len(train)),
        "female_rule": np.array([row.sex == "female" for row in valid]),
        "tfidf_logistic_regression": _bag_of_words(plain, train, valid),
    }
    if encoder.templates != PLAIN:
        predictions["tfidf_same_sentences"] = _bag_of_words(encoder, train, valid)
    return {name: float(np.mean(predicted == labels)) for name, predicted in predictions.items()}


def _bag_of_words(encoder: PassengerEncoder, train: Sequence[Passenger], valid: Sequence[Passenger]) -> np.ndarray:
    """Predicted labels: fitted on every sentence of a row, with the probabilities averaged over them."""
    model = BagOfWords(encoder.all_texts(train), np.repeat(_labels(train), len(encoder.templates)))
    probabilities = model.probabilities(encoder.all_texts(valid))  # sentence after sentence of a row
    return probabilities.reshape(len(valid), -1).mean(1) > 0.5


def _labels(rows: Sequence[Passenger]) -> np.ndarray:
    return np.array([row.survived for row in rows])
