"""The command lines of a run: what began it, and each that continued it."""

import pytest

from mlxlab.checkpoint.continuation import Continuation as Saved
from mlxlab.checkpoint.state import empty_metadata
from mlxlab.files.untrusted import ShapeError, validate
from mlxlab.past_runs.changes import CommandLine, continuations, model_changes
from mlxlab.record.run_record import Continuation
from mlxlab.views.commands import continuing_lines


def continuation(step, *overrides, **model):
    return {
        "step": step,
        "overrides": [*overrides],
        "model": {f"model.{key}": value for key, value in model.items()},
        "forked": False,
    }


def lines_of(*continued):
    return continuing_lines([Continuation(**each) for each in continued])


def test_one_command_that_is_repeated_is_one_line():
    repeated = [continuation(step, "resume=auto") for step in (5, 1000, 2000)]
    later = lines_of(*repeated, continuation(2000, "trainer.max_steps=9"))
    assert [place for place, _ in later] == ["at step 5 (3 times)", "at step 2,000"]


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([{"step": 50}, {"step": 20}], "at step 50 (2 times)"),
        ([{}], ""),
        ([{}, {}], "(2 times)"),
        ([{"rounds": 1}], "after 1 round"),
        ([{"rounds": 2}, {"rounds": 1}], "after 2 rounds (2 times)"),
    ],
)
def test_a_position_is_that_of_the_first_time(positions, expected):
    continued = [Continuation(["resume=auto"], **each) for each in positions]
    assert continuing_lines(continued) == [(expected, ["resume=auto"])]


def test_a_command_that_typed_nothing_is_no_fork():
    before = empty_metadata()
    [record] = continuations(CommandLine([], {}, []), before, (5, {}), {}, continues=True)
    assert lines_of(record) == [("at step 5", [])]


def test_changes_of_the_model_are_recorded_and_those_of_the_trainer_are_not():
    changes = {
        "model.adapter.rank": (8, 16),
        "trainer.max_steps": (50, 60),
        "model.dropout": (0.1, 0.0),
    }
    command = CommandLine([], {}, [], ["trainer.max_steps=60"])
    earlier = [continuation(10, "a=1", num_layers=(1, 2)), continuation(20, "b=1")]
    before, at = (
        empty_metadata() | {"continued": earlier},
        (50, {"adapter": {"rank": 8}}),
    )  # which has grown from 4
    own = continuations(
        command, before, at, changes | {"model.adapter.rank": (4, 16)}, continues=True
    )
    last = continuation(50, "trainer.max_steps=60", **{"adapter.rank": (8, 16)})
    assert own == [*earlier, last]
    steps = [
        (10, "by a resume: model.num_layers 1 -> 2"),
        (50, "by a resume: model.adapter.rank 8 -> 16"),
    ]
    assert model_changes(Continuation(**each) for each in own) == steps
    fork = continuations(command, before, at, changes, continues=False)
    assert model_changes(Continuation(**each) for each in fork) == steps
    assert lines_of(*fork) == [], "those of another run"


@pytest.mark.parametrize(
    "fault", [{"step": -1}, {"overrides": "x"}, {"model": {"model.x": [1]}}, {"more": 1}]
)
def test_a_damaged_record_is_refused(fault):
    validate(continuation(1, "x", y=[1, 2]), Saved)
    with pytest.raises(ShapeError):
        validate(continuation(1, "x") | fault, Saved)
