"""The record of what continued a run: each command line, and where it continued."""

from typing import TypedDict

from mlxlab.schema.constraints import Count


class Continuation(TypedDict):
    """A command line that continued a run.

    Attributes:
        step: of the checkpoint that it continued from.
        overrides: as typed, `hydra.run.dir` included; empty if `forked`.
        model: keys of the model that it changed -> (before, after).
        forked: it began the run with a checkpoint of another one, or continued that other one.
    """

    step: Count
    overrides: list[str]
    model: dict[str, tuple[object, object]]
    forked: bool
