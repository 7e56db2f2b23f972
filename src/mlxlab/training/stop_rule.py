"""When a sweep pauses one of its runs: in the environment of the job, obeyed by the callback `Pruning`.

It is no part of the config: the run is the same until it stops, and continues as if it never had.
"""

import os
from typing import Literal, TypedDict

from mlxlab.files.untrusted import parse_json
from mlxlab.schema.constraints import Size

VARIABLE = "MLXLAB_STOP_RULE"
Unit = Literal["steps", "epochs"]
Stop = Literal["paused"]  # first word of the reason why a run stopped


class StopRule(TypedDict):
    """The budget, in `unit`, at which a run pauses, right after an evaluation; None: it runs to its end."""

    unit: Unit
    pause_at: Size | None


def stop_rule() -> StopRule | None:
    """The rule for the run of this process, None without one; raises DataError if it is malformed."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    return parse_json(text, StopRule, VARIABLE)


def stop_of(reason: str) -> Stop | None:
    """Whether a run was paused, by the reason why it stopped."""
    return "paused" if reason.startswith("paused:") else None
