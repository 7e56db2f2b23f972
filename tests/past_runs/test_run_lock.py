"""Two `run.lock` compared: which result, since which step, and what differs."""

import pytest

from mlxlab.errors import DataError
from mlxlab.past_runs.run_lock import compare, describe

CODE = {"commit": "a" * 40, "diff": "", "digest": ""}


def lock(losses, state="00", steps=20, best=0.5, **changes):
    outcome = {"steps": steps, "state": state, "objective": "valid/loss", "best": best}
    origin = {"data": "d", "tokenizer": "t", "teachers": {}, "initial_weights": {}}
    origin |= {"changed_at": [], "code": CODE}
    facts = {"versions": {"mlx": "1"}, "machine": {"device": "cpu"}, "losses": losses}
    facts |= {"outcome": outcome}
    return {**origin, **facts, **changes}


@pytest.mark.parametrize(
    ("now", "tolerance", "result", "diverged_at"),
    [
        (lock({"1": 0.5, "10": 0.25, "20": None}), 0.0, "bit-exact", None),
        (lock({"1": 0.5, "10": 0.2501, "20": None}), 0.01, "within tolerance", None),
        (lock({"1": 0.5, "10": 0.2501, "20": None}), 0.0, "diverged", 10),
        (lock({"1": 0.5, "10": 0.25, "20": None}, state="01"), 0.01, "within tolerance", None),
        (lock({"1": 0.5, "10": 0.25, "20": None}, state="01"), 0.0, "diverged", 20),
        (lock({"1": 0.5, "10": 0.25, "20": None}, state="01", best=0.6), 0.01, "diverged", 20),
        (lock({"1": 0.5, "10": 0.25, "20": 0.1}), 0.01, "diverged", 20),
        (lock({"1": 0.5, "10": 0.25}, state="01", steps=15, best=0.6), 0.01, "bit-exact", None),
    ],
)
def test_the_result_depends_on_losses_final_state_and_tolerance(
    now, tolerance, result, diverged_at
):
    comparison = compare(lock({"1": 0.5, "10": 0.25, "20": None}), now, tolerance)
    assert (comparison["result"], comparison["diverged_at"]) == (result, diverged_at)
    assert describe(comparison).startswith(result)


def test_what_differs_is_named_the_likeliest_reason_first():
    now = lock(
        {"1": 0.7},
        data="e",
        versions={"mlx": "2"},
        machine={"device": "gpu"},
        code=CODE | {"commit": "b" * 40},
    )
    lines = describe(compare(lock({"1": 0.5}, changed_at=[8]), now, 0.01)).splitlines()
    assert lines[0] == "diverged at step 1 (relative difference up to 0.4), because these differ:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "data",
        "config",
        "commit",
        "mlx",
        "device",
    ]
    assert lines[3] == f"  commit: {'a' * 12} -> {'b' * 12}"
    assert "all else in run.lock is equal" in describe(
        compare(lock({"1": 0.5}), lock({"1": 0.7}), 0.01)
    )


def test_runs_without_a_common_step_cannot_be_compared():
    with pytest.raises(DataError):
        compare(lock({}), lock({"1": 0.5}), 0.01)
