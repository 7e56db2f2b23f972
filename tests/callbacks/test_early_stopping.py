"""When a run of a sweep pauses: a function of its state."""

from types import SimpleNamespace

import pytest

from mlxlab.callbacks.early_stopping import Pruning
from mlxlab.checkpoint.state import History, Progress
from mlxlab.errors import DataError
from mlxlab.training.callback import FitContext
from mlxlab.training.stop_rule import VARIABLE, StopRule, stop_rule


def reason(rule: dict, values: list[float], *, step: int | None = None, epoch: int = 0) -> str:
    """Why a run stops that was evaluated every 10 steps, the last time at `step`."""
    history, context = History(), FitContext("valid/loss")
    for number, value in enumerate(values, 1):
        history.add_evaluation(10 * number, {"valid/loss": value}, "valid/loss")
    step = 10 * len(values) if step is None else step
    state = SimpleNamespace(
        history=history, progress=Progress(step=step), data=SimpleNamespace(epoch=epoch)
    )
    defaults = StopRule(unit="steps", pause_at=None)
    Pruning(StopRule(**{**defaults, **rule})).on_start(context, state)
    return context.control.stop_reason


@pytest.mark.parametrize(
    ("rule", "values", "progress", "expected"),
    [
        ({"pause_at": 20}, [0.5, 0.4], {}, "paused: at 20 steps"),
        ({"pause_at": 15}, [0.5, 0.4], {}, "paused: at 20 steps"),
        ({"pause_at": 20}, [0.5], {}, ""),
        ({}, [0.5, 0.4], {}, ""),
        ({"pause_at": 20}, [0.5, 0.4], {"step": 21}, ""),
        ({"pause_at": 1}, [], {"step": 0}, ""),
        ({"unit": "epochs", "pause_at": 2}, [0.5], {"epoch": 1}, ""),
        ({"unit": "epochs", "pause_at": 2}, [0.5], {"epoch": 2}, "paused: at 2 epochs"),
    ],
)
def test_a_run_pauses_at_the_evaluation_of_its_rung(rule, values, progress, expected):
    assert reason(rule, values, **progress) == expected


def test_a_malformed_rule_is_refused(monkeypatch):
    assert stop_rule() is None
    monkeypatch.setenv(VARIABLE, '{"unit": "steps", "pause_at": 0}')
    with pytest.raises(DataError, match="MLXLAB_STOP_RULE"):
        stop_rule()
