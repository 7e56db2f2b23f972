"""The key of the trainer by which a run ends."""

from typing import Any

from mlxlab.dotted_keys import value_at

LIMITS = ("max_steps", "epochs", "max_tokens")
# A finished run is evaluated again if another key was changed.
LIMIT_KEYS = {f"trainer.{key}" for key in LIMITS}


def limit_of(config: dict[str, Any], steps: int | None = None) -> str:
    """The key of the trainer by which a run with this config ends, or has ended after a number of steps."""
    limits: dict[str, Any] = {key: value_at(config, f"trainer.{key}") for key in LIMITS}
    keys = [key for key in LIMITS if limits[key] is not None]
    if steps is not None and keys[1:] and keys[0] == "max_steps" and steps < limits["max_steps"]:
        return keys[1]
    return keys[0] if keys else "epochs"
