"""The mixture of several readings of the same rows, fitted on rows that the readers did not see.

A run keeps what such readers said of its training rows in a file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlxlab.data.batch import TaskKind
from mlxlab.errors import DataError
from mlxlab.files.atomic import write_atomic
from mlxlab.files.untrusted import open_regular

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
BAGS = 20  # resampled sets of rows, over whose shares the mean is taken
MAX_ROWS = 20_000  # a resampled set has no more
MIN_PROBABILITY = 1e-5
FILE = "out_of_fold.safetensors"
HEADER_BYTES = 2**12


class OutOfFold(NamedTuple):
    """Probabilities or standardised numbers for all training rows."""

    ids: np.ndarray  # (N,)
    targets: np.ndarray  # encoded like those of a `Batch`
    outputs: np.ndarray  # (N, O) float32


class Mixture(NamedTuple):
    """Each reader's share, and the factor of its logits."""

    shares: np.ndarray
    sharpness: np.ndarray


def fit_mixture(outputs: Sequence[np.ndarray], targets: np.ndarray, kind: TaskKind) -> Mixture:
    """The mixture with a small loss, by greedy selection of readers with replacement (Caruana et al. 2004).

    It is the mean of the selections by resampled rows, which no single row decides.

    Args:
        outputs: of each reader (N, O): probabilities of classes or labels, or numbers, for rows it has not seen.
        targets: as in a `Batch`.
    """
    sharpness = np.ones(len(outputs))
    if kind != "regression":
        sharpness = np.array([_best_sharpness(each, targets, kind) for each in outputs])
    readings = [
        _read(sharpen(each, factor, kind), targets, kind)
        for each, factor in zip(outputs, sharpness, strict=True)
    ]
    rng = np.random.default_rng(0)
    size = min(len(targets), MAX_ROWS)
    shares = []
    for _ in range(BAGS):
        rows = rng.integers(len(targets), size=size)
        shares.append(_select([each[rows] for each in readings], targets[rows], kind))
    return Mixture(np.mean(shares, axis=0), sharpness)


def mix(mixture: Mixture, outputs: Sequence[np.ndarray], kind: TaskKind) -> np.ndarray:
    """The mixture (N, O) of the outputs of all readers."""
    parts = zip(mixture.shares, mixture.sharpness, outputs, strict=True)
    mixed = np.sum([share * sharpen(each, factor, kind) for share, factor, each in parts], axis=0)
    if kind != "regression":
        mixed = np.clip(mixed, 0, 1)
    return mixed


def _select(readings: Sequence[np.ndarray], targets: np.ndarray, kind: TaskKind) -> np.ndarray:
    """The share of each reader: picks, each the one that lowers the loss most."""
    picks = np.full(len(readings), PRIOR)
    total = sum(pick * reading for pick, reading in zip(picks, readings, strict=True))
    for _ in range(PICKS):
        mixtures = [(total + reading) / (picks.sum() + 1) for reading in readings]
        best = int(np.argmin([_loss(each, targets, kind) for each in mixtures]))
        picks[best] += 1
        total = total + readings[best]
    return picks / picks.sum()


def sharpen(outputs: np.ndarray, sharpness: float, kind: TaskKind) -> np.ndarray:
    """Probabilities of which the logits are multiplied by `sharpness`; numbers as they are."""
    if kind == "regression":
        return outputs
    powers = np.clip(outputs, MIN_PROBABILITY, 1) ** sharpness
    if kind == "classification":
        return powers / powers.sum(axis=1, keepdims=True)
    others = np.clip(1 - outputs, MIN_PROBABILITY, 1) ** sharpness
    return powers / (powers + others)


def _best_sharpness(outputs: np.ndarray, targets: np.ndarray, kind: TaskKind) -> float:
    losses = []
    for factor in SHARPNESS:
        reading = _read(sharpen(outputs, factor, kind), targets, kind)
        losses.append(_loss(reading, targets, kind))
    return SHARPNESS[int(np.argmin(losses))]


def _read(outputs: np.ndarray, targets: np.ndarray, kind: TaskKind) -> np.ndarray:
    """What the loss reads: the probability of the class (N,) or of each label (N, L), or the number (N,)."""
    if kind == "regression":
        return outputs[:, 0]
    if kind == "multi_label":
        return np.where(targets > 0, outputs, 1 - outputs)
    return outputs[np.arange(len(targets)), targets]


def _loss(reading: np.ndarray, targets: np.ndarray, kind: TaskKind) -> float:
    """The mean negative log-likelihood, or the mean squared error."""
    if kind == "regression":
        return float(np.mean((reading - targets) ** 2))
    return float(-np.log(np.clip(reading, MIN_PROBABILITY, 1)).mean())


def save_out_of_fold(folder: Path, rows: OutOfFold) -> None:
    from safetensors.numpy import save

    write_atomic(folder / FILE, save(rows._asdict()))


def load_out_of_fold(folder: Path, num_outputs: int, max_rows: int) -> OutOfFold | None:
    """None without the file; DataError if `save_out_of_fold` did not write it for so many outputs and rows."""
    path = folder / FILE
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load

    bytes_of_row = 8 + 4 * 2 * num_outputs
    with open_regular(path) as file:
        content = file.read(HEADER_BYTES + max_rows * bytes_of_row)
    try:
        arrays = load(content)
        rows = OutOfFold(*(arrays[name] for name in OutOfFold._fields))
    except (SafetensorError, KeyError) as error:
        raise DataError(f"{path}: {error}") from None
    if not _is_consistent(rows, num_outputs):
        raise DataError(f"{path}: expected {num_outputs} numbers of each row")
    return rows


def _is_consistent(rows: OutOfFold, num_outputs: int) -> bool:
    """Whether a mixture of so many outputs could have said it of targets that it has."""
    ids, targets, outputs = rows
    if ids.ndim != 1 or ids.dtype != np.int64 or outputs.dtype != np.float32:
        return False
    if outputs.shape != (len(ids), num_outputs) or targets.shape[:1] != ids.shape:
        return False
    if not np.isfinite(outputs).all() or not np.isfinite(targets).all():
        return False
    is_class = targets.dtype.kind == "i"
    return not is_class or bool(((targets >= 0) & (targets < num_outputs)).all())
