"""When a sweep stops one of its runs: in the environment of the job, obeyed by the callback `Pruning`.

It is no part of the config: the run is the same until it stops, and continues as if it never had.
"""

import os
from typing import Literal, TypedDict

from mlxlab.constraints import Count, Size
from mlxlab.files.untrusted import parse_json

VARIABLE = "MLXLAB_STOP_RULE"
MAX_LIMITS = 400  # later evaluations have none
Unit = Literal["steps", "epochs"]
Stop = Literal["paused", "pruned"]  # first word of the reason why a run stopped


class StopRule(TypedDict):
    """Budgets are counted in `unit`. A run stops only right after an evaluation."""

    unit: Unit
    pause_at: Size | None  # budget; None: it is not paused
    prune_from: Count  # budget before which nothing is pruned
    limits: list[
        float | None
    ]  # worst objective with which the run continues after evaluation 1, 2, ...


def stop_rule() -> StopRule | None:
    """The rule for the run of this process, None without one; raises DataError if it is malformed."""
    text = os.environ.get(VARIABLE)
    return parse_json(text, StopRule, VARIABLE) if text else None


def stop_of(reason: str) -> Stop | None:
    """Whether a run was paused or pruned, by the reason why it stopped; None if neither."""
    word = reason.partition(":")[0]
    return "paused" if word == "paused" else "pruned" if word == "pruned" else None
