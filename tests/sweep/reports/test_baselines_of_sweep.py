"""The report of a sweep compares its best configuration with the baselines of the runs."""

import json
from dataclasses import replace

import pytest

from mlxlab.analysis.sweeps.best_configuration import mean_results
from mlxlab.experiment.run_report.cards import baselines_card
from mlxlab.experiment.run_report.results import Results, compared_with_best
from mlxlab.sweep.reports.read_sweep import read_sweep
from mlxlab.sweep.reports.sweep_report import write_sweep_report
from support import sweep_jobs
from support.sweep_jobs import finished

RESULTS = Results(
    "accuracy", "valid", {"accuracy": 0.79}, None, 178, {"majority": 0.6, "rule": 0.8}, None
)
LOSSES = {"0.001": (0.5, 0.6, 0.55), "0.01": (0.52, 0.61, 0.57)}


def write_sweep(folder, accuracies):
    """Two learning rates with three seeds each; the runs of the first rate, the best one, have these accuracies."""
    jobs = []
    for rate, losses in LOSSES.items():
        for seed, loss in enumerate(losses):
            texts = [f"trainer.learning_rate={rate}", f"seed={seed}"]
            jobs.append(finished(len(jobs), texts, loss))
    sweep_jobs.write_sweep(folder, jobs)
    for number, accuracy in enumerate(accuracies):
        write_run(folder / str(number), accuracy)


def write_run(folder, accuracy):
    """A run on rows of which the most frequent class is 0.6; a rule is right on 0.7."""
    folder.mkdir(parents=True, exist_ok=True)
    attempt = {
        "host": "here",
        "pid": 1,
        "process_start": 0.0,
        "start": 1000.0,
        "status": "DONE",
        "end": 1060.0,
    }
    inputs = {"choices": {"model": "bert", "data": "titanic"}, "overrides": []}
    fields = {
        "format": 2,
        "id": folder.name,
        "name": folder.name,
        "status": "DONE",
        "attempts": [attempt],
    }
    (folder / "manifest.json").write_text(json.dumps(fields | {"inputs": inputs}))
    metrics = {
        "best_step": 40,
        "steps": 40,
        "main_metric": "accuracy",
        "metrics": {"valid/accuracy": accuracy},
    }
    metrics |= {"final": {}, "test": {}, "intervals": {}, "reference": {}, "rows": {"valid": 178}}
    baselines = {"majority": {"valid/accuracy": 0.6}, "female_rule": {"valid/accuracy": 0.7}}
    (folder / "metrics.json").write_text(json.dumps(metrics | {"baselines": baselines}))


@pytest.mark.parametrize(
    ("accuracies", "value", "comparison"),
    [
        ((0.6, 0.58, 0.62), "0.6000", "Learned nothing: no better than majority"),
        ((0.8, 0.7, 0.75), "0.7500", "Better than female rule by 0.0500"),
    ],
)
def test_the_best_configuration_is_compared_with_the_baselines_of_its_runs(
    tmp_path, accuracies, value, comparison
):
    write_sweep(tmp_path, accuracies)
    report = write_sweep_report(read_sweep(tmp_path), tmp_path)
    page = report.page.read_text().replace("<wbr>", "")
    for text in (
        "bert on titanic</h1>",
        f"validation accuracy {value}",
        comparison,
        "majority (the most frequent",
    ):
        assert text in page
    for text in (
        'warning">No clear winner',
        "learning_rate=0.001 has the best mean.",
        "no test data: what chose",
    ):
        assert text in page
    learned_nothing = value == "0.6000"
    assert ('class="answer long bad"' in page) == learned_nothing
    assert ('class="answer bad">No<' in page) == learned_nothing
    assert ('class="answer warning">With care<' in page) != learned_nothing
    assert report.summary["learned_nothing"] == learned_nothing
    assert (
        report.verdict[0].startswith("The best configuration learned nothing: accuracy 0.6000")
        == learned_nothing
    )
    assert any("of each would" in sentence for sentence in report.verdict) != learned_nothing


def test_runs_with_different_best_baselines_are_compared_by_their_intervals():
    """A difference within chance is no "Worse", although no baseline is the best of all runs."""
    scores = (
        {"majority": 0.6, "rule": 0.80, "tfidf": 0.79},
        {"majority": 0.6, "rule": 0.78, "tfidf": 0.81},
    )
    results = [
        Results("accuracy", "valid", {"accuracy": 0.79}, None, 178, each, (-0.05, 0.03))
        for each in scores
    ]
    assert compared_with_best(mean_results(results)) == "No clear difference from tfidf"
    worse = [replace(each, gain=(-0.05, -0.01)) for each in results]
    assert compared_with_best(mean_results(worse)) == "Worse than tfidf by 0.0100"


def test_without_run_folders_the_report_has_the_objective_alone(tmp_path):
    write_sweep(tmp_path, ())
    report = write_sweep_report(read_sweep(tmp_path), tmp_path)
    assert report.summary["learned_nothing"] is None
    assert "valid/loss 0.55" in report.page.read_text().replace("<wbr>", "")


def test_damaged_run_folders_are_left_out(tmp_path):
    write_sweep(tmp_path, (0.6, 0.6, 0.6))
    (tmp_path / "0" / "metrics.json").write_text("{")
    (tmp_path / "1" / "manifest.json").write_text("[]")
    report = write_sweep_report(read_sweep(tmp_path), tmp_path)
    assert report.summary["learned_nothing"] is True
    assert "One result on the validation rows" in report.page.read_text()


def write_ranked_by_accuracy(folder, accuracies, key="trainer.learning_rate"):
    """A sweep over two rates, three seeds each, ranked by accuracy; every run has a folder."""
    jobs = []
    for rate, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            texts = ["experiment=titanic", f"{key}={rate}", f"seed={seed}"]
            jobs.append(finished(len(jobs), texts, accuracy))
            write_run(folder / str(len(jobs) - 1), accuracy)
    sweep_jobs.write_sweep(folder, jobs, "valid/accuracy")
    return write_sweep_report(read_sweep(folder), folder).page.read_text().replace("<wbr>", "")


def test_the_trust_card_names_a_baseline_that_is_as_good(tmp_path):
    page = write_ranked_by_accuracy(tmp_path, {"0.001": (0.69, 0.7, 0.68), "0.01": (0.6, 0.6, 0.6)})
    assert "flatters; worse than female rule by 0.0100." in page
    assert (
        "No better than majority (the most frequent class), 0.6000: trainer.learning_rate=0.01."
        in page
    )


def test_baselines_of_swept_data_are_not_those_of_the_best_configuration(tmp_path):
    accuracies = {"a.csv": (0.69, 0.7, 0.68), "b.csv": (0.6, 0.6, 0.6)}
    assert "No better than majority" in write_ranked_by_accuracy(tmp_path / "rates", accuracies)
    assert "No better than majority" not in write_ranked_by_accuracy(
        tmp_path / "data", accuracies, key="data.source"
    )


@pytest.mark.parametrize("key", ["data.source", "model", "model/adapter", "experiment"])
def test_the_heading_names_model_and_data_only_if_they_are_the_same(tmp_path, key):
    accuracies = {"a": (0.69, 0.7, 0.68), "b": (0.6, 0.6, 0.6)}
    assert "bert on titanic</h1>" in write_ranked_by_accuracy(tmp_path / "rates", accuracies)
    assert "bert on titanic</h1>" not in write_ranked_by_accuracy(
        tmp_path / "named", accuracies, key
    )


def test_means_of_runs_have_no_interval_of_a_difference(tmp_path):
    page = write_ranked_by_accuracy(tmp_path, {"0.001": (0.69, 0.7, 0.68), "0.01": (0.6, 0.6, 0.6)})
    assert (
        "Means of 3 runs, each on the same rows as its baselines; another seed may split them differently."
        in page
    )
    mean = replace(RESULTS, gain=(-0.05, 0.02))
    assert any("95 % interval" in line for line in baselines_card(mean).lines)
    assert not any("95 % interval" in line for line in baselines_card(mean, is_mean=True).lines)
