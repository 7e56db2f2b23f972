"""Baselines without a neural network: what a model has to beat on the same validation rows."""

from collections.abc import Sequence

import numpy as np

from mlxlab.data.dataset import Baseline
from mlxlab.data.labelled.baselines import constant_baseline
from mlxlab.data.labelled.text_baselines import tfidf_baselines
from mlxlab.data.titanic.encoder import PassengerEncoder
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.data.titanic.templates import TEMPLATES

BASIC_TEMPLATES = {name: TEMPLATES[name] for name in ("basic", "narrative", "descriptive", "story")}


def predictions(
    encoder: PassengerEncoder, train: Sequence[Passenger], valid: Sequence[Passenger]
) -> list[Baseline]:
    """Predictions on `valid` of baselines that are fitted on `train`.

    majority: the most frequent class. female_rule: women survive. tfidf_logistic_regression: words and pairs of words
    of the four basic sentences, the same for all templates. tfidf_same_sentences: the same model on `encoder`'s own
    sentences, where these differ: a gain over it is more than counting words.
    """
    basic = PassengerEncoder(
        BASIC_TEMPLATES, encoder.statistics, encoder.tokenizer, 8, encoder.seed
    )
    is_female = np.array([float(row.sex == "female") for row in valid])
    female_rule = Baseline(
        "female_rule", np.stack([1 - is_female, is_female], axis=1), np.zeros((0, 2))
    )
    survived = np.array([row.survived or 0 for row in train])
    majority = constant_baseline(survived, len(valid), 0, encoder.task)
    words = _of_sentences(basic, train, valid)
    if encoder.templates == BASIC_TEMPLATES:
        return [majority, female_rule, *words]
    same_words = [
        each._replace(name="tfidf_same_sentences") for each in _of_sentences(encoder, train, valid)
    ]
    return [majority, female_rule, *words, *same_words]


def _of_sentences(
    encoder: PassengerEncoder, train: Sequence[Passenger], valid: Sequence[Passenger]
) -> list[Baseline]:
    """Fitted on every sentence of a row with scikit-learn's default settings, and averaged over them."""
    targets = np.repeat([row.survived or 0 for row in train], len(encoder.templates))
    sentences = np.array(encoder.all_texts([*train, *valid]), object)
    split = np.split(np.arange(len(sentences)), [len(targets), len(sentences)])
    by_sentence = tfidf_baselines(
        lambda rows: sentences[rows].tolist(),
        split,
        targets,
        encoder.task,
        tuned=False,
        boosting=False,
    )
    shape = (len(valid), len(encoder.templates), len(encoder.task.labels))
    return [each._replace(valid=each.valid.reshape(shape).mean(axis=1)) for each in by_sentence]
