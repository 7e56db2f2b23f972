"""The arguments of `trial`, and what is refused before anything is trained."""

import pytest

from mlxlab.errors import ConfigError
from mlxlab.sweep.trial.setup import Budget, Texts, read_budget, split_args


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        (None, Budget()),
        ("200steps", Budget(steps=200)),
        ("30s", Budget(seconds=30)),
        ("1step,1.5m", Budget(1, 90)),
        ("2h,10steps", Budget(10, 7200)),
    ],
)
def test_a_budget_is_steps_of_a_run_or_time_of_the_trial(text, budget):
    assert read_budget(text) == budget


@pytest.mark.parametrize(
    "text", ["", "200", "steps", "0steps", "10steps,20steps", "5d", "-3s", "1s,2s", "10steps,"]
)
def test_another_budget_is_refused(text):
    with pytest.raises(ConfigError, match="expected steps of a run, time of the trial"):
        read_budget(text)


def test_where_a_run_is_recorded_is_no_change():
    change, launcher = ["model.dropout=0"], ["hydra.launcher.timeout=9"]
    recorded = ["tracking=none", "+tags.a=b", "cloud=directory"]
    texts = split_args([*recorded, *change, *launcher], Budget())
    assert texts == Texts(change, recorded, launcher)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["tracking=none"], "expected a change"),
        (["seed=3"], "trial sets seed itself"),
        (["hydra.run.dir=x"], "trial sets hydra.run.dir itself"),
        (["objective=valid/accuracy"], "trial sets objective itself"),
        (["trainer.max_steps=9"], "budget=5steps sets the length"),
        (["--jsn"], "unknown flag"),
    ],
)
def test_what_the_trial_sets_itself_is_refused(args, expected):
    with pytest.raises(ConfigError, match=expected):
        split_args(args, Budget(steps=5))
