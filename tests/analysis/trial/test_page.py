"""The page of a trial: what was changed on what, and how large and how sure the gain is."""

import json

from mlxlab.analysis.trial.page import trial_page
from mlxlab.analysis.trial.record import Question, new_record
from mlxlab.experiment.manifest import RunManifest


def test_the_page_says_what_is_replaced_on_which_data_and_that_the_difference_may_be_chance(tmp_path):
    overrides = {"baseline": ["data=titanic", "trainer.learning_rate=2e-3"], "changed": ["trainer.learning_rate=1e-5"]}
    question = Question(
        baseline="x",
        change=["trainer.learning_rate=1e-5"],
        overrides=overrides,
        metric="valid/loss",
        evaluation="best",
        min_gain=None,
        looks=[3, 3],
        first_seed=0,
        code={},
    )
    record = new_record(question, "mlxlab trial") | {"verdict": "undecided", "reason": "no decision", "gains": [-0.02]}
    record["looks"] = [{"pairs": 3, "mean": -0.01, "low": -0.03, "high": 0.01}]
    for folder, arm, value in (("0", "baseline", 0.66), ("1", "changed", 0.68)):
        run = {"seed": 0, "arm": arm, "folder": folder, "digest": "", "value": value, "reused": False, "seconds": 1.0}
        record["runs"].append(run)
    with RunManifest(tmp_path / "0") as manifest:
        manifest.begin({"choices": {"model": "bert", "data": "titanic"}, "facts": {"task": "classification"}})
    what, gain, size, _ = trial_page(json.loads(json.dumps(record)), tmp_path).cards
    assert what.facts["Instead of"] == "trainer.learning_rate=2e-3"
    assert what.facts["Trained"] == "bert on titanic"
    assert gain.lines[-1] == "The interval includes 0: the difference may be chance."
    assert size.lines[0] == "Mean: baseline 0.66, changed 0.68."
    assert "Trained" not in trial_page(record, tmp_path / "elsewhere").cards[0].facts
