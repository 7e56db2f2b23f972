"""The mixture of several readings of the same rows, fitted on rows that the readers did not see."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlxlab.data.batch import TaskKind

SHARPNESS = (
    0.4,
    0.55,
    0.7,
    0.85,
    1.0,
    1.2,
    1.4,
    1.7,
    2.0,
    2.5,
    3.3,
    4.5,
    6.0,
)  # inverse temperatures
PRIOR = 0.5  # picks that each reader has before the first one
PICKS = 20
MIN_PROBABILITY = 1e-5


class Mixture(NamedTuple):
    """Each reader's share, and the factor of its logits."""

    shares: np.ndarray
    sharpness: np.ndarray


def fit_mixture(outputs: Sequence[np.ndarray], targets: np.ndarray, kind: TaskKind) -> Mixture:
    """The mixture with a small loss, by greedy selection of readers with replacement (Caruana et al. 2004).

    Args:
        outputs: of each reader (N, O): probabilities of classes or labels, or numbers, for rows it has not seen.
        targets: as in a `Batch`.
    """
    sharpness = np.ones(len(outputs))
    if kind != "regression":
        sharpness = np.array([_best_sharpness(each, targets, kind) for each in outputs])
    readings = [
        sharpen(each, factor, kind) for each, factor in zip(outputs, sharpness, strict=True)
    ]
    picks = np.full(len(readings), PRIOR)
    total = sum(pick * reading for pick, reading in zip(picks, readings, strict=True))
    for _ in range(PICKS):
        mixtures = [(total + reading) / (picks.sum() + 1) for reading in readings]
        best = int(np.argmin([loss(each, targets, kind) for each in mixtures]))
        picks[best] += 1
        total = total + readings[best]
    return Mixture(picks / picks.sum(), sharpness)


def sharpen(outputs: np.ndarray, sharpness: float, kind: TaskKind) -> np.ndarray:
    """Probabilities of which the logits are multiplied by `sharpness`; numbers as they are."""
    if kind == "regression":
        return outputs
    powers = np.clip(outputs, MIN_PROBABILITY, 1) ** sharpness
    if kind == "classification":
        return powers / powers.sum(axis=1, keepdims=True)
    others = np.clip(1 - outputs, MIN_PROBABILITY, 1) ** sharpness
    return powers / (powers + others)


def loss(outputs: np.ndarray, targets: np.ndarray, kind: TaskKind) -> float:
    """The mean negative log-likelihood, or the mean squared error."""
    if kind == "regression":
        return float(np.mean((outputs[:, 0] - targets) ** 2))
    if kind == "multi_label":
        likelihood = np.where(targets > 0, outputs, 1 - outputs)
    else:
        likelihood = outputs[np.arange(len(targets)), targets]
    return float(-np.log(np.clip(likelihood, MIN_PROBABILITY, 1)).mean())


def _best_sharpness(outputs: np.ndarray, targets: np.ndarray, kind: TaskKind) -> float:
    losses = [loss(sharpen(outputs, factor, kind), targets, kind) for factor in SHARPNESS]
    return SHARPNESS[int(np.argmin(losses))]
