"""State of checkpoints for tests of the store, which never looks into it."""

from mlxlab.checkpoint.state import CheckpointState, empty_metadata


def state_at(step: int) -> CheckpointState:
    """A valid state of a run that has made `step` steps."""
    counts = {"samples": step, "tokens": step, "nonfinite_steps": 0, "consecutive_nonfinite": 0, "rollbacks": 0}
    curve = {"evaluations": [], "curve": [], "best": None, "best_step": 0, "best_metrics": {}, "best_confusion": []}
    sums = {"loss": 0.5, "weight": 1.0, "grad_norm": 0.0, "steps": step, "tokens": step, "token_slots": step}
    return {
        "progress": {"step": step, "batch_sizes": [], **counts},
        "history": {"reference": {}, **curve},
        "running": {"terms": {}, **sums},
        "data": {"epoch": 0, "example": step},
        "metadata": empty_metadata(),
    }
