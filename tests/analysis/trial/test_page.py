"""The page of a trial: what was changed on what, and how large and how sure the gain is."""

import json

import pytest

from mlxlab.analysis.trial.page import trial_blocks
from mlxlab.analysis.trial.record import new_record
from mlxlab.experiment.run_writer import RunWriter
from mlxlab.record.run_record import Data, Model
from support.run_records import blank_record, write_result
from support.trial_records import QUESTION, look


def test_the_page_says_what_is_replaced_on_which_data_and_that_the_difference_may_be_chance(
    tmp_path,
):
    record = new_record(QUESTION, "mlxlab trial") | {
        "verdict": "undecided",
        "reason": "no decision",
        "gains": [-0.02],
    }
    record["looks"] = [look(-0.01, -0.03, 0.01)]
    for folder, arm, value in (("0", "baseline", 0.66), ("1", "changed", 0.68)):
        run = {
            "seed": 0,
            "arm": arm,
            "folder": folder,
            "digest": "",
            "value": value,
            "reused": False,
            "seconds": 1.0,
        }
        record["runs"].append(run)
    with RunWriter(tmp_path / "0") as writer:
        data = Data(name="titanic", task="classification")
        writer.begin(blank_record(data=data, model=Model(name="bert")))
    page = trial_blocks(json.loads(json.dumps(record)), tmp_path)
    what, gain, size, certainty = page.cards
    assert (gain.answer, gain.tone) == ("Undecided", "warning")
    assert what.facts["Instead of"] == "trainer.learning_rate=2e-3"
    assert what.facts["Trained"] == "bert on titanic"
    assert (certainty.answer, certainty.tone) == ("It may be chance", "warning")
    assert certainty.lines[0] == "The 95 % interval includes 0, which is no difference."
    assert size.answer == "0.0100 worse"
    assert (
        size.lines[0] == "Mean validation loss: baseline 0.6600, changed 0.6800; lower is better."
    )
    assert [block.kind for block in page.sections[0].blocks] == ["plots", "table"]
    assert "Trained" not in trial_blocks(record, tmp_path / "elsewhere").cards[0].facts


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (["trainer.learning_rate=1e-5"], "learning_rate=1e-5"),
        (["model.pretrained=a.b/c=d"], "pretrained=a.b/c=d"),
        (["trainer/schedule=linear"], "trainer/schedule=linear"),
        (["~callbacks.report"], "~callbacks.report"),
        (["+model.x=3"], "+model.x=3"),
        (["a.b=1", "c.d=2"], "a.b=1 c.d=2"),
        ([], "nothing"),
    ],
)
def test_one_plain_override_is_shown_without_the_path_of_its_key(tmp_path, change, answer):
    record = new_record(QUESTION | {"change": change}, "mlxlab trial")
    assert trial_blocks(record, tmp_path).cards[0].answer == answer


@pytest.mark.parametrize(
    ("log_loss", "majority", "answer"),
    [
        (0.66, 0.65, "Neither is better than class frequencies, 0.6500"),
        (0.66, 0.67, "Better than the weakest baseline"),
        (0.50, 0.65, None),  # the loss is not the log loss: label smoothing, say
    ],
)
def test_both_arms_of_a_trial_are_compared_with_the_log_loss_of_the_class_frequencies(
    tmp_path, log_loss, majority, answer
):
    record = new_record(QUESTION, "mlxlab trial") | {
        "verdict": "undecided",
        "gains": [-0.02, -0.01, -0.03],
    }
    for number, (arm, value) in enumerate((("baseline", 0.66), ("changed", 0.68))):
        run = {"seed": 0, "arm": arm, "digest": "", "value": value, "reused": False, "seconds": 1.0}
        record["runs"].append(run | {"folder": f"{number}"})
    values = {"loss": 0.66, "log_loss": log_loss}
    write_result(tmp_path / "0", values, {"majority": {"log_loss": majority}})
    _, gain, _, *compared, _ = trial_blocks(record, tmp_path).cards
    assert (gain.answer, gain.lines[0]) == ("Undecided, probably worse", "3 of 3 pairs are worse.")
    assert [card.answer for card in compared] == ([answer] if answer else [])
