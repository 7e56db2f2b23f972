"""The command lines of a run: what began it, and each that continued it."""

from pathlib import Path

import pytest

from mlxlab.checkpoint.state import empty_metadata
from mlxlab.experiment.facts.command_lines import (
    CommandLine,
    command_lines,
    continuations,
    model_changes,
)
from mlxlab.experiment.manifest import Inputs
from mlxlab.files.untrusted import ShapeError, validate

FIRST = ["model=bert", "trainer.max_steps=10", "hydra.run.dir=x"]


def continuation(step, *overrides, **model):
    return {
        "step": step,
        "overrides": [*overrides],
        "model": {f"model.{key}": value for key, value in model.items()},
    }


def test_a_run_of_an_earlier_version_has_the_last_override_of_each_key():
    inputs = {"first": FIRST, "overrides": ["model=bert", "trainer.max_steps=30", "resume=auto"]}
    expected = [("", ["hydra.run.dir=x", "resume=auto", "trainer.max_steps=30"])]
    assert command_lines(inputs, Path("x")) == (FIRST, expected)
    later = continuation(30, "trainer.max_steps=40")
    inputs |= {"overrides": ["model=bert", "trainer.max_steps=40", "seed=1"], "continued": [later]}
    merged = ("", ["hydra.run.dir=x", "resume=auto", "seed=1"])
    assert command_lines(inputs, Path("x"))[1] == [merged, ("at step 30", ["trainer.max_steps=40"])]


def test_one_command_that_is_repeated_is_one_line():
    continued = [continuation(step, "resume=auto") for step in (5, 1000, 2000)]
    continued += [
        continuation(2000, "trainer.max_steps=9"),
        {"rounds": 1, "overrides": ["a=1"], "model": {}},
    ]
    _, later = command_lines(
        {"first": FIRST, "overrides": FIRST[:2], "continued": continued}, Path("x")
    )
    assert [at for at, _ in later] == [
        "at steps 5 to 2,000 (3 times)",
        "at step 2,000",
        "after 1 round",
    ]
    back = [continuation(step, "resume=step-20") for step in (50, 20)]
    unknown = {"overrides": ["a=1"], "model": {}}
    _, later = command_lines(
        {"first": FIRST, "overrides": FIRST, "continued": [*back, unknown]}, Path("x")
    )
    assert [at for at, _ in later] == ["at steps 20 to 50 (2 times)", ""]


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([{"step": 50}, {"step": 20}], "at steps 20 to 50 (2 times)"),
        ([{}], ""),
        ([{}, {"step": 7}], "at step 7 (2 times)"),
        ([{}, {}], "(2 times)"),
        ([{"rounds": 2}, {"rounds": 1}], "after 1 to 2 rounds (2 times)"),
    ],
)
def test_positions_are_the_lowest_and_highest_that_are_known(positions, expected):
    continued = [each | {"overrides": ["resume=auto"], "model": {}} for each in positions]
    _, later = command_lines(
        {"first": FIRST, "overrides": FIRST[:2], "continued": continued}, Path("x")
    )
    assert later == [(expected, ["resume=auto"])]


def test_a_command_that_typed_nothing_is_no_fork():
    before = empty_metadata()
    [record] = continuations(CommandLine([], {}, []), before, (5, {}), {}, continues=True)
    inputs = {"first": FIRST, "overrides": [*FIRST, "seed=1"], "continued": [record]}
    merged = ("", ["hydra.run.dir=x", "resume=auto", "seed=1"])
    assert command_lines(inputs, Path("x"))[1] == [merged, ("at step 5", [])]
    del record["forked"]
    assert command_lines(inputs, Path("x"))[1] == [], "of an older record"


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
    assert own == [*earlier, last | {"forked": False}]
    steps = [(10, "model.num_layers 1 -> 2"), (50, "model.adapter.rank 8 -> 16")]
    assert model_changes({"continued": own}) == steps
    fork = continuations(command, before, at, changes, continues=False)
    assert model_changes({"continued": fork}) == steps
    inputs = {"first": FIRST, "overrides": ["b=1", *FIRST], "continued": fork}
    assert command_lines(inputs, Path("x")) == (FIRST, []), "those of another run"


@pytest.mark.parametrize(
    "fault", [{"step": -1}, {"overrides": "x"}, {"model": {"model.x": [1]}}, {"more": 1}]
)
def test_a_damaged_record_is_refused(fault):
    validate({"continued": [continuation(1, "x", y=[1, 2])]}, Inputs)
    with pytest.raises(ShapeError):
        validate({"continued": [continuation(1, "x") | fault]}, Inputs)
