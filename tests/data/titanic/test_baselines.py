"""The baseline in NumPy against scikit-learn's own TF-IDF and logistic regression."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from mlxlab.data.titanic.baselines import BagOfWords
from mlxlab.data.titanic.templates import TEMPLATES, fit_statistics, render_sentence
from support.titanic import real_rows


def scikit_learn_probabilities(train, labels, valid):
    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    model = LogisticRegression(tol=1e-10, max_iter=10_000).fit(vectorizer.fit_transform(train), labels)
    return model.predict_proba(vectorizer.transform(valid))[:, 1]


@pytest.mark.parametrize("template", ["basic", "full"])
def test_probabilities_on_the_titanic_equal_those_of_scikit_learn(template):
    rows = real_rows()[:891]
    statistics = fit_statistics(rows[:700], labels=False)
    texts = [render_sentence(row, TEMPLATES[template], statistics) for row in rows]
    labels = np.array([row.survived for row in rows[:700]])
    expected = scikit_learn_probabilities(texts[:700], labels, texts[700:])
    np.testing.assert_allclose(BagOfWords(texts[:700], labels).probabilities(texts[700:]), expected, atol=1e-6)


def test_unusual_texts_are_tokenized_as_by_scikit_learn():
    train = ["A b, CC dd-dd", "", "cc CC cc x", "\u00c9t\u00e9 1912 -- 19", "dd"] * 3
    labels = np.array([0, 1, 1, 0, 1] * 3)
    valid = [*train[:5], "unknown words only", "cc\ndd"]
    expected = scikit_learn_probabilities(train, labels, valid)
    np.testing.assert_allclose(BagOfWords(train, labels).probabilities(valid), expected, atol=1e-6)
