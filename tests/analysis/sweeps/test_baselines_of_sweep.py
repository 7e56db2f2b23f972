"""The report of a sweep compares its best configuration with the baselines of the runs."""

from contextlib import suppress

import pytest

from mlxlab.analysis.sweeps.sweep_jobs import read_sweep
from mlxlab.analysis.sweeps.sweep_report import judge_runs, write_sweep_report
from mlxlab.errors import InputNotFoundError
from mlxlab.record import run_file
from mlxlab.record.run_file import new_record, read_run
from mlxlab.record.run_record import Data, Evaluation, Model, SplitResult
from support import sweep_jobs
from support.run_records import attempt_of
from support.sweep_jobs import finished

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


def result_of(accuracy, **baselines):
    named = {name: {"accuracy": value} for name, value in baselines.items()}
    return SplitResult("valid", 178, {"accuracy": accuracy}, baselines=named)


def write_run(folder, accuracy):
    """A run on rows of which the most frequent class is 0.6; a rule is right on 0.7."""
    result = result_of(accuracy, majority=0.6, female_rule=0.7)
    record = new_record(folder)
    with suppress(InputNotFoundError):
        record = read_run(folder)
    record.data = Data("titanic", "classification")
    record.model = Model("bert")
    record.evaluation = Evaluation("accuracy", [result])
    record.is_evaluated = True
    record.attempts = record.attempts or [attempt_of()]
    run_file.write_run(folder, record)


@pytest.mark.parametrize(
    ("accuracies", "value", "comparison"),
    [
        ((0.6, 0.58, 0.62), "0.6000", "Learned nothing: no better than majority class"),
        ((0.8, 0.7, 0.75), "0.7500", "Better than all women survive"),
    ],
)
def test_the_best_configuration_is_compared_with_the_baselines_of_its_runs(
    tmp_path, accuracies, value, comparison
):
    write_sweep(tmp_path, accuracies)
    report = write_sweep_report(read_sweep(tmp_path), tmp_path)
    page = report.page.read_text().replace("<wbr>", "")
    for text in (
        "bert on titanic</dd>",
        f"validation accuracy {value}",
        comparison,
        ">majority class</span>",
        'warning">No clear winner',
        "The best mean is that of trainer.learning_rate=0.001: ",
        "no test data: the score that selected",
    ):
        assert text in page
    learned_nothing = value == "0.6000"
    assert ('class="answer bad">No<' in page) == learned_nothing
    assert ('class="answer warning">With care<' in page) != learned_nothing
    assert report.verdict[0].startswith("The best configuration learned") == learned_nothing
    assert any("of each would" in sentence for sentence in report.verdict) != learned_nothing


def test_runs_with_different_best_baselines_are_compared_by_their_intervals():
    """A difference within chance is no "Worse", although no baseline is the best of all runs."""
    runs = [
        result_of(0.79, majority=0.6, rule=0.80, tfidf=0.79),
        result_of(0.79, majority=0.6, rule=0.78, tfidf=0.81),
    ]
    for gain, verdict in (((-0.05, 0.03), "unclear"), ((-0.05, -0.01), "worse")):
        for run in runs:
            run.gains = {"rule": gain, "tfidf": gain}
        judged = judge_runs(runs, "accuracy")
        assert (judged.best, judged.verdict) == ("tfidf", verdict)


def test_without_run_folders_the_report_has_the_objective_alone(tmp_path):
    write_sweep(tmp_path, ())
    report = write_sweep_report(read_sweep(tmp_path), tmp_path)
    assert report.verdict[0].startswith("No winner")
    assert "valid/loss 0.55" in report.page.read_text().replace("<wbr>", "")


def test_damaged_run_folders_are_left_out(tmp_path):
    write_sweep(tmp_path, (0.6, 0.6, 0.6))
    (tmp_path / "0" / "run.json").write_text("{")
    (tmp_path / "1" / "run.json").write_text("[]")
    sweep = read_sweep(tmp_path)
    assert [job.state for job in sweep.jobs] == ["unfinished"] * 2 + ["finished"] * 4
    report = write_sweep_report(sweep, tmp_path)
    assert report.verdict[0].startswith("The best configuration learned nothing")
    assert ": one result on the validation rows" in report.page.read_text()
