"""State of checkpoints for tests of the store, which never looks into it."""

from mlxlab.checkpoint.state import History, Progress, RunningTotals, SavedState, empty_metadata


def state_at(step: int) -> SavedState:
    """A valid state of a run that has made `step` steps."""
    return {
        "architecture": {},
        "vocab_size": 20,
        "progress": Progress(step, step, step),
        "history": History(),
        "running": RunningTotals(0.5, 1.0, 0.0, step, step, step),
        "data": {"epoch": 0, "example": step},
        "metadata": empty_metadata(),
        "base": "",
    }
