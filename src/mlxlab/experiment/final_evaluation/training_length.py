"""How a run was trained, and what to change after one that learned nothing."""

from dataclasses import dataclass
from math import ceil, isfinite
from statistics import fmean
from typing import Any

from mlxlab.checkpoint.state import History
from mlxlab.config.issues import value_at
from mlxlab.metric_names import LEARNING_RATE, LOSS

LIMITS = ("max_steps", "epochs", "max_tokens")  # keys of the trainer by which a run ends
_FEW_STEPS = 200
_FLAT, _ROSE, _DIVERGED = 0.02, 0.05, 0.5  # changes of the training loss, as a share of it
_LATE = 0.25  # of its fall, in the second half of a run that was too short
_HIGH_RATE, _LEAST_RATE = 1e-3, 1e-4  # learning rates


@dataclass(frozen=True)
class TrainingLength:
    """How long a run was trained, by which of `LIMITS` it ended, and how.

    Attributes:
        losses: of the training, in order.
        learning_rate: the highest one; 0 is not known.
        evaluations: the steps of the evaluations, in order.
        best_step: that of the best one.
        epochs: the limit by which a longer run may end sooner than by `max_steps`.
    """

    steps: int
    limit: str = "epochs"
    batches_per_epoch: int | None = None
    losses: tuple[float, ...] = ()
    learning_rate: float = 0.0
    evaluations: tuple[int, ...] = ()
    best_step: int = 0
    epochs: int | str | None = None

    @property
    def advice(self) -> str:
        """What to change after a run that learned nothing, by its training loss and its learning rate."""
        if len(self.losses) < 2 or not self.learning_rate:
            return self._longer(
                "train longer, raise trainer.learning_rate, or start from model.pretrained"
            )
        part = max(1, len(self.losses) // 4)
        start, end = fmean(self.losses[:part]), fmean(self.losses[-part:])
        rate, values = (
            f"trainer.learning_rate from {self.learning_rate:.2g} to",
            f"({start:.4f} to {end:.4f})",
        )
        if part > 1:
            values = f"{values[:-1]}, means of the first and the last quarter of its logged values)"
        if not isfinite(end) or end > start + _ROSE * abs(start):
            lower = f"lower {rate} {self.learning_rate / 10:.1g}"
            is_little = isfinite(end) and end <= start + _DIVERGED * abs(start)
            few = (
                self._longer("") if is_little else ""
            )  # a few steps on single batches rise and fall by chance
            return f"the training loss rose {values}: {f'{few}; if it rises further, ' if few else ''}{lower}"
        if abs(end - start) <= _FLAT * abs(start):
            flat = f"the training loss hardly changed {values}"
            if self.learning_rate < _HIGH_RATE:
                higher = f"raise {rate} {max(10 * self.learning_rate, _LEAST_RATE):.1g}"
                few = self._longer("")
                return f"{flat}: {few}; if it stays flat, {higher}" if few else f"{flat}: {higher}"
            return self._longer(f"{flat}: lower {rate} {self.learning_rate / 10:.1g}")
        if fmean(self.losses[len(self.losses) // 2 :][:part]) - end > _LATE * (start - end):
            return self._longer(
                f"the training loss still falls {values}: {self._limit(2 * self.steps)}"
            )
        return self._longer(f"the training loss fell {values}{self._after_the_fall()}")

    def _after_the_fall(self) -> str:
        """What the evaluations say of a run whose training loss fell."""
        if not self.evaluations:
            return ": check the labels and the split"
        if self.best_step == self.evaluations[-1]:
            return f", and the best evaluation is the last one: {self._limit(2 * self.steps)}"
        if self.best_step == self.evaluations[0]:
            return (
                ", but no evaluation was better than the first one: check the labels and the split"
            )
        late = f", but no evaluation was better than that of step {self.best_step:,}"
        return f"{late}: train on more rows, or start from model.pretrained"

    def _longer(self, otherwise: str) -> str:
        """Advice on the steps if they are few."""
        few = f"{self.steps:,} steps are few" if self.steps > 1 else "1 step is little"
        return (
            otherwise
            if self.steps >= _FEW_STEPS
            else f"{few}: {self._limit(max(_FEW_STEPS, 2 * self.steps))}"
        )

    def _limit(self, steps: int) -> str:
        if self.limit == "epochs" and self.batches_per_epoch:
            return f"try trainer.epochs={10 * ceil(steps / self.batches_per_epoch / 10)}"
        if self.limit != "max_steps":
            return f"raise trainer.{self.limit}"
        known = (
            self.epochs * self.batches_per_epoch
            if isinstance(self.epochs, int) and self.batches_per_epoch
            else 0
        )
        return f"try trainer.max_steps={steps}{' trainer.epochs=null' * (self.epochs is not None and steps > known)}"


def training_length(
    history: History | None,
    steps: int,
    limit: str,
    batches_per_epoch: int | None,
    learning_rate: float | None = None,
    epochs: int | str | None = None,
) -> TrainingLength:
    """`learning_rate` is the configured one; None takes the highest that was logged."""
    curve = [metrics for _, metrics in history.curve] if history else []
    losses = tuple(metrics[LOSS] for metrics in curve if LOSS in metrics)
    logged = max(
        (metrics[LEARNING_RATE] for metrics in curve if LEARNING_RATE in metrics), default=0.0
    )
    evaluations = tuple(step for step, _ in history.evaluations) if history else ()
    best_step, rate = history.best_step if history else 0, learning_rate or logged
    return TrainingLength(
        steps, limit, batches_per_epoch, losses, rate, evaluations, best_step, epochs
    )


def limit_of(config: dict[str, Any], steps: int | None = None) -> str:
    """The key of the trainer by which a run with this config ends, or has ended after a number of steps."""
    limits: dict[str, Any] = {key: value_at(config, f"trainer.{key}") for key in LIMITS}
    keys = [key for key in LIMITS if limits[key] is not None]
    if steps is not None and keys[1:] and keys[0] == "max_steps" and steps < limits["max_steps"]:
        return keys[1]
    return keys[0] if keys else "epochs"
