"""The checks of a report: is the model better than what takes no training?"""

from dataclasses import replace

import pytest

from mlxlab.experiment.run_report.checks import _baselines
from mlxlab.experiment.run_report.results import Results

RESULTS = Results("accuracy", "valid", {"accuracy": 0.8}, None, 100, {"majority": 0.6, "tfidf": 0.75}, (0.01, 0.09))


@pytest.mark.parametrize(
    ("value", "gain", "state", "name", "text"),
    [
        (0.8, (0.01, 0.09), "good", "Baselines", "Better than tfidf by 0.0500."),
        (0.76, (-0.03, 0.05), "warning", "Baselines", "No better than tfidf."),
        (0.65, (-0.2, -0.01), "warning", "Baselines", "Worse than tfidf by 0.1000."),
        (0.6, (-0.3, -0.01), "warning", "Learned nothing", "accuracy is no better than that of majority"),
    ],
)
def test_a_model_is_compared_with_the_best_and_the_weakest_baseline(value, gain, state, name, text):
    check = _baselines(replace(RESULTS, values={"accuracy": value}, gain=gain))
    assert (check.state, check.title) == (state, name)
    assert check.text.startswith(text)


def test_errors_are_better_when_lower_and_without_baselines_there_is_no_check():
    results = replace(RESULTS, metric="rmse", values={"rmse": 2.0}, baselines={"mean": 1.5, "ridge": 1.0}, gain=None)
    assert _baselines(results).title == "Learned nothing"
    assert _baselines(replace(results, baselines={})) is None
