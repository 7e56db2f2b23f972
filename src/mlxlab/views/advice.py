"""What to change after a run that is no better than a baseline, by its training loss."""

from collections.abc import Sequence
from math import ceil, isfinite
from statistics import fmean
from typing import NamedTuple

from mlxlab.record.run_record import Training

FEW_STEPS = 200
FLAT = 0.02  # change of the training loss, as a share of it
ROSE = 0.05
HIGH_RATE = 1e-3


class Advice(NamedTuple):
    """What the training loss did, and what to try."""

    loss: str
    start: float
    end: float
    action: str


def advise(losses: Sequence[float], training: Training) -> Advice:
    """`losses` are those of the training, in order."""
    if len(losses) < 2:
        return Advice("is not known", 0.0, 0.0, longer(training))
    quarter = max(1, len(losses) // 4)
    start = fmean(losses[:quarter])
    end = fmean(losses[-quarter:])
    change = end - start
    size = abs(start)

    if not isfinite(end) or change > ROSE * size:
        return Advice("rose", start, end, change_rate(training, 0.1))
    if training.steps < FEW_STEPS:
        return Advice("covers few steps", start, end, longer(training))
    if abs(change) <= FLAT * size:
        factor = 10 if training.learning_rate < HIGH_RATE else 0.1
        return Advice("hardly changed", start, end, change_rate(training, factor))
    if is_last_best(training):
        return Advice("still falls", start, end, longer(training))
    return Advice(
        "fell", start, end, "Check the labels, use more rows, or start from model.pretrained"
    )


def is_last_best(training: Training) -> bool:
    steps = [step for step, _ in training.evaluations]
    return bool(steps) and training.best_step == steps[-1]


def change_rate(training: Training, factor: float) -> str:
    rate = training.learning_rate
    return f"Set trainer.learning_rate={factor * rate:.1g} (it was {rate:.2g})"


def longer(training: Training) -> str:
    steps = max(FEW_STEPS, 2 * training.steps)
    batches = training.batches_per_epoch
    if training.limit == "epochs" and batches:
        epochs = 10 * ceil(steps / batches / 10)
        return f"Train longer: trainer.epochs={epochs}"
    return f"Train longer: trainer.max_steps={steps} trainer.epochs=null"
