"""What training came to, from the state of a run or of its newest checkpoint."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlxlab.checkpoint.state import History, Progress
from mlxlab.dotted_keys import value_at
from mlxlab.experiment.facts.command_lines import model_changes
from mlxlab.files.atomic import without_nonfinite as finite
from mlxlab.metric_names import TOKENS_PER_SEC, VALID
from mlxlab.record.run_record import Metrics, RunRecord, Training

if TYPE_CHECKING:
    from mlxlab.training.state import TrainState

LIMITS = ("max_steps", "epochs", "max_tokens")
# A finished run is evaluated again if another key was changed.
LIMIT_KEYS = {f"trainer.{key}" for key in LIMITS}


def limit_of(config: dict[str, Any], steps: int | None = None) -> str:
    """The key of the trainer by which a run with this config ends, or has ended after a number of steps."""
    keys = [key for key in LIMITS if value_at(config, f"trainer.{key}") is not None]
    max_steps = value_at(config, "trainer.max_steps")
    if steps is not None and isinstance(max_steps, int) and steps < max_steps and keys[1:]:
        return keys[1]
    return keys[0] if keys else "epochs"


def training_facts(
    before: Training,
    config: dict[str, Any],
    progress: Progress,
    history: History,
    changes: Iterable[tuple[int, str]],
) -> Training:
    """What is known after some steps.

    Args:
        before: what was known before the first one.
        changes: (step, what changed) of the command lines that continued the run.
    """
    return replace(
        before,
        limit=limit_of(config, progress.step),
        steps=progress.step,
        tokens=progress.tokens,
        is_resized=bool(progress.batch_sizes),
        nonfinite_steps=progress.nonfinite_steps,
        rollbacks=progress.rollbacks,
        best_step=history.best_step,
        best=finite(history.best),
        final=final_metrics(history),
        speed=finite(history.latest(TOKENS_PER_SEC)),
        evaluations=[(step, finite(value)) for step, value in history.evaluations],
        curve=[(step, finite(metrics)) for step, metrics in history.curve],
        events=sorted([*changes, *history.events], key=lambda event: event[0]),
    )


def ended_training(record: RunRecord, state: "TrainState", digest: str) -> Training:
    """What is known of a run that took its last step, or was stopped; `digest` is that of its state."""
    changes = model_changes(record.command.continued)
    training = training_facts(
        record.training, record.config, state.progress, state.history, changes
    )
    return replace(training, final_state=digest)


def final_metrics(history: History) -> Metrics:
    """Metrics of the last evaluation, also if it was made before a resume."""
    for _, metrics in reversed(history.curve):
        last = {name: value for name, value in metrics.items() if name.startswith(VALID)}
        if last:
            return finite(last)
    return {}
