"""What training came to, from the state of a run or of its newest checkpoint."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlxlab.checkpoint.state import History, Progress
from mlxlab.files.atomic import without_nonfinite as finite
from mlxlab.past_runs.command_lines import model_changes
from mlxlab.record.run_record import Metrics, RunRecord, Training
from mlxlab.schema.dotted_keys import value_at
from mlxlab.schema.metric_names import TOKENS_PER_SEC, VALID

LIMITS = ("max_steps", "epochs", "max_tokens")
# A finished run is evaluated again if another key was changed.
LIMIT_KEYS = {f"trainer.{key}" for key in LIMITS}
_SHAPE = {  # Our keys and those of published models, by what they are called in a view.
    "layers": ("num_layers", "num_hidden_layers"),
    "width": ("hidden_size",),
    "heads": ("num_heads", "num_attention_heads"),
}


def limit_of(config: dict[str, Any], steps: int | None = None) -> str:
    """The key of the trainer by which a run with this config ends, or has ended after a number of steps."""
    keys = [key for key in LIMITS if value_at(config, f"trainer.{key}") is not None]
    max_steps = value_at(config, "trainer.max_steps")
    if steps is not None and isinstance(max_steps, int) and steps < max_steps and keys[1:]:
        return keys[1]
    return keys[0] if keys else "epochs"


def training_facts(
    record: RunRecord, progress: Progress, history: History, final_state: str = ""
) -> Training:
    """What is known after some steps; `final_state` is a digest of the state of a run that ended, or was stopped."""
    changes = model_changes(record.command.continued)
    return replace(
        record.training,
        limit=limit_of(record.config, progress.step),
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
        final_state=final_state,
    )


def final_metrics(history: History) -> Metrics:
    """Metrics of the last evaluation, also if it was made before a resume."""
    for _, metrics in reversed(history.curve):
        last = {name: value for name, value in metrics.items() if name.startswith(VALID)}
        if last:
            return finite(last)
    return {}


def shape_of(node: Mapping[str, Any]) -> dict[str, int]:
    """The sizes in the node of an architecture: pretrained weights and growth have their own."""
    inner = node.get("config")
    if isinstance(inner, dict):
        node = inner  # Architectures of mlx-lm keep their sizes there.
    sizes = {}
    for name, keys in _SHAPE.items():
        for key in keys:
            if isinstance(node.get(key), int):
                sizes[name] = node[key]
    return sizes
