"""The baselines of the Titanic; their published accuracies are in test_dataset.py."""

from itertools import chain

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from mlxlab.models.baselines.predict import predict_baselines, predict_rows
from support.titanic import make_titanic, new_renderer, real_rows, table_of

ROWS = real_rows()


def test_the_bag_of_words_is_fitted_on_each_sentence_and_averaged_over_those_of_a_row(tmp_path):
    data = make_titanic(tmp_path, templates=["full"])
    predictions = {each.name: each.valid for each in predict_baselines(data)}
    renderer = new_renderer(["basic", "narrative", "descriptive", "story"])
    train, valid = (
        list(zip(*(renderer.sentences(ROWS[row].typed()) for row in rows), strict=True))
        for rows in (data.split.train, data.split.valid)
    )
    labels = np.array([ROWS[row].survived for row in data.split.train] * 4)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    model = LogisticRegression(tol=1e-8, max_iter=10_000).fit(
        vectorizer.fit_transform(list(chain(*train))), labels
    )
    expected = np.mean(
        [model.predict_proba(vectorizer.transform(texts)) for texts in valid], axis=0
    )
    np.testing.assert_allclose(predictions["tfidf_logistic_regression"], expected, atol=1e-3)
    assert not np.allclose(predictions["tfidf_same_sentences"], expected, atol=1e-2)


def test_women_survive_by_the_female_rule(tmp_path):
    data = make_titanic(tmp_path)
    rule = next(each for each in predict_baselines(data) if each.name == "female_rule")
    assert rule.valid[:, 1].tolist() == [ROWS[row].sex == "female" for row in data.split.valid]
    assert rule.test.shape == (0, 2)
    predicted = predict_rows(data, lambda rows: table_of(ROWS[row] for row in rows), 9)
    others = next(each for each in predicted if each.name == "female_rule")
    assert others.valid[:, 1].tolist() == [row.sex == "female" for row in ROWS[:9]]


def test_baselines_can_be_turned_off(tmp_path):
    assert predict_baselines(make_titanic(tmp_path, baselines=False)) == []
