"""The page of a trial: what was changed on what, and how large and how sure the gain is."""

from dataclasses import replace

import pytest

from mlxlab.record.run_record import Data, Model
from mlxlab.run.writer import RunWriter
from mlxlab.sweep.trial.record import RunRecord, TrialRecord
from mlxlab.sweep.trial.view import TrialView, trial_page
from support.html_pages import ParsedPage
from support.run_records import blank_record, write_result
from support.trial_records import QUESTION, look


def add_runs(record):
    for number, (arm, value) in enumerate((("baseline", 0.66), ("changed", 0.68))):
        record.runs.append(RunRecord(0, arm, f"{number}", "", value, False, 1.0))


def test_the_page_says_what_is_replaced_on_which_data_and_that_the_difference_may_be_chance(
    tmp_path,
):
    record = TrialRecord(QUESTION, "mlxlab trial", verdict="undecided", reason="no decision")
    record.gains.append(-0.02)
    record.looks.append(look(-0.01, -0.03, 0.01))
    add_runs(record)
    with RunWriter(tmp_path / "0") as writer:
        data = Data(name="titanic", task="classification")
        writer.begin(blank_record(data=data, model=Model(name="bert")))
    html = trial_page(record, tmp_path)
    text = ParsedPage(html).text
    assert '<p class="answer warning">Undecided</p>' in html
    assert '<p class="answer warning">0.0100 worse</p>' in html
    for expected in (
        "Instead of trainer.learning_rate=2e-3",
        "Trained bert on titanic",
        "95 % interval of the gain, corrected for repeated looks, -0.0300 to +0.0100; it includes 0",
        "Mean validation loss: baseline 0.6600, changed 0.6800; lower is better.",
    ):
        assert expected in text
    assert html.count("<svg") == 1
    assert "Trained" not in trial_page(record, tmp_path / "elsewhere")


def test_a_setting_that_was_not_typed_is_replaced_as_the_config_of_a_run_has_it(tmp_path):
    question = replace(QUESTION, change=["model.layers=3", "data.x=1"])
    record = TrialRecord(question, "mlxlab trial")
    add_runs(record)
    with RunWriter(tmp_path / "0") as writer:
        writer.begin(blank_record(config={"model": {"layers": 2}}))
    assert TrialView(record, tmp_path).replaced == ["model.layers=2"]


@pytest.mark.parametrize(
    ("log_loss", "majority", "answer"),
    [
        (0.66, 0.65, "Learned nothing: no better than majority class"),
        (0.66, 0.67, "Better than majority class"),
        (0.50, 0.65, ""),  # the loss is not the log loss: label smoothing, say
    ],
)
def test_the_better_arm_is_compared_with_the_log_loss_of_the_class_frequencies(
    tmp_path, log_loss, majority, answer
):
    record = TrialRecord(QUESTION, "mlxlab trial")
    add_runs(record)
    values = {"loss": 0.66, "log_loss": log_loss}
    write_result(tmp_path / "0", values, {"majority": {"log_loss": majority}})
    html = trial_page(record, tmp_path)
    assert ("Compared with what?" in html) == bool(answer)
    assert answer in html
