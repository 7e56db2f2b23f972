"""Operations that change settings of the trainer, not the model."""

import math
from dataclasses import replace
from typing import NamedTuple

from mlxlab.checkpoint.state import Settings
from mlxlab.growth.settings_schema import SettingsOperation


class RunLength(NamedTuple):
    """Steps that are done, and of the whole run; None where that is unknown."""

    step: int
    planned: int | None

    def after_resize(self, before: int | None, after: int | None) -> int | None:
        """The planned steps, where a whole run has `before` steps with the old batch size and `after` with the new."""
        if self.planned is None or not before or not after or before == after:
            return self.planned
        return self.step + math.ceil((1 - self.step / self.planned) * after)


def change_settings(operation: SettingsOperation, settings: Settings, schedule_step: int) -> Settings:
    """The settings after the operation; `schedule_step` is the position on the learning-rate schedule."""
    match operation["op"]:
        case "rewarm":
            start = schedule_step if operation.get("restart", False) else settings.schedule_start
            warmup = {"warmup_start": schedule_step, "warmup_steps": operation["steps"]}
            return replace(settings, **warmup, schedule_start=start)
        case "set_learning_rate":
            return replace(settings, learning_rate=operation["learning_rate"])
        case "set_batch_size":
            return replace(settings, batch_size=operation["batch_size"])
        case "set_accumulation":
            return replace(settings, accumulate=operation["accumulate"])
        case "set_curriculum":
            return replace(settings, curriculum=operation["strength"])
        case "set_evaluation":
            every, batches = operation.get("eval_every"), operation.get("eval_batches")
            return replace(
                settings,
                eval_every=every or settings.eval_every,
                eval_batches=batches or settings.eval_batches,
            )
