"""What to change after a run that is no better than a baseline, by its training loss."""

from collections.abc import Sequence
from math import isfinite
from statistics import fmean
from typing import NamedTuple

from mlxlab.record.run_record import Training

FEW_STEPS = 200
HIGH_RATE = 1e-3
FLAT = 0.02  # change of the training loss, as a share of it
ROSE = 0.05


class Advice(NamedTuple):
    """What the training loss did, and what to try."""

    loss: str
    action: str


def advise(losses: Sequence[float], training: Training) -> Advice:
    """`losses` are those of the training, in order."""
    longer = f"Train longer: raise trainer.{training.limit}"
    few = Advice("covers few steps", longer)
    if len(losses) < 2:
        return few
    quarter = max(1, len(losses) // 4)
    start = fmean(losses[:quarter])
    change = fmean(losses[-quarter:]) - start
    rate = f"trainer.learning_rate (it was {training.learning_rate:.2g})"
    if not isfinite(change) or change > ROSE * abs(start):
        return Advice("rose", f"Lower {rate}")
    if training.steps < FEW_STEPS:
        return few
    if change >= -FLAT * abs(start):
        verb = "Lower"
        if training.learning_rate < HIGH_RATE:
            verb = "Raise"
        return Advice("hardly changed", f"{verb} {rate}")
    return Advice("fell", f"{longer}, check the labels, or start from model.pretrained")
