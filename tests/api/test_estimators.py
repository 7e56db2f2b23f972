"""The estimators of scikit-learn: their own checks, and the tools that use them."""

import gc
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mlxlab import Classifier, Regressor
from mlxlab.api import estimators
from mlxlab.errors import RunInterrupted

IRIS = load_iris(return_X_y=True)
DIABETES = tuple(part[:120] for part in load_diabetes(return_X_y=True))


@pytest.mark.estimator_checks
@parametrize_with_checks([Classifier(epochs=2), Regressor(epochs=2)])
def test_the_checks_of_scikit_learn_pass(estimator, check):
    check(estimator)


def test_a_classifier_learns_predicts_and_survives_pickling():
    classifier = Classifier(random_state=1)
    with pytest.raises(NotFittedError):
        classifier.predict(IRIS[0])
    classifier.fit(*IRIS)
    assert classifier.score(*IRIS) > 0.9
    probabilities = classifier.predict_proba(IRIS[0])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    folder = classifier.run_.folder
    copy = pickle.loads(pickle.dumps(classifier))
    del classifier
    gc.collect()
    assert not folder.exists()
    assert (copy.predict_proba(IRIS[0]) == probabilities).all()


def test_columns_of_words_dates_and_gaps_need_no_encoding():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "color": rng.choice(["red", "blue", None], 80),
            "day": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(300, size=80), "D"),
            "size": np.where(rng.random(80) < 0.1, np.nan, rng.normal(size=80)),
        }
    )
    labels = np.where(frame["color"] == "red", "stop", "go")
    assert Classifier(epochs=5).fit(frame, labels).score(frame, labels) > 0.9


def test_a_signal_ends_a_search_and_not_one_fit_of_it(monkeypatch):
    def interrupted(*args, **options):
        raise RunInterrupted("stopped", 2)

    monkeypatch.setattr(estimators, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cross_val_score(Classifier(), *IRIS, cv=2)


def test_a_regression_is_cross_validated_in_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), Regressor(epochs=2))
    assert cross_val_score(pipeline, *DIABETES, cv=2).mean() > 0.1


@pytest.mark.slow
def test_a_grid_search_chooses_a_learning_rate():
    search = GridSearchCV(Regressor(epochs=1), {"learning_rate": [1e-5, 1e-2]}, cv=2)
    search.fit(*DIABETES)
    assert search.best_params_["learning_rate"] in (1e-5, 1e-2)
    assert len(search.predict(DIABETES[0])) == 120


def test_two_fits_of_one_random_state_are_equal():
    few = [part[::5] for part in IRIS]
    first, second = (Classifier(epochs=1, random_state=3).fit(*few) for _ in range(2))
    assert (first.predict_proba(IRIS[0]) == second.predict_proba(IRIS[0])).all()
    assert first.run_.record.seed == second.run_.record.seed != 0
