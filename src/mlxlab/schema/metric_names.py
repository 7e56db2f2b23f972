"""Metric keys that the training loop logs (docs/reference/metrics.md), and which metrics are better when lower."""

import math
from typing import Literal

LOSS = "train/loss"
GRAD_NORM = "train/grad_norm"
LEARNING_RATE = "train/learning_rate"
NONFINITE_STEPS = "train/nonfinite_steps"
STEPS_PER_SEC = "throughput/steps_per_sec"
TOKENS_PER_SEC = "throughput/tokens_per_sec"
DATA_WAIT_SECONDS = "throughput/data_wait_seconds"
PADDING_FRACTION = "data/padding_fraction"
SKIPPED_RECORDS = "data/skipped_records"
VALID_LOSS = "valid/loss"
AGREEMENT = "agreement"  # share of examples where student and teacher predict the same

TRAIN = "train/"
VALID = "valid/"
TEST = "test/"
ANALYSIS = "analysis/"

Metric = Literal[
    "valid/loss",
    "valid/accuracy",
    "valid/balanced_accuracy",
    "valid/precision",
    "valid/recall",
    "valid/f1",
    "valid/f1_macro",
    "valid/f1_micro",
    "valid/roc_auc",
    "valid/average_precision",
    "valid/log_loss",
    "valid/calibration_error",
    "valid/exact_match",
    "valid/mae",
    "valid/rmse",
    "valid/r2",
    "valid/spearman",
    "valid/perplexity",
    "valid/bits_per_byte",
]
_RANKING = ("valid/roc_auc", "valid/average_precision", "valid/log_loss")
_F1 = ("valid/f1_macro", "valid/f1_micro")
BY_TASK = {  # what the evaluation of each kind of task gives
    "classification": (
        "valid/loss",
        "valid/accuracy",
        "valid/balanced_accuracy",
        "valid/precision",
        "valid/recall",
        "valid/f1",
        *_F1,
        *_RANKING,
        "valid/calibration_error",
    ),
    "multi_label": ("valid/loss", "valid/accuracy", "valid/exact_match", *_F1, *_RANKING),
    "regression": ("valid/loss", "valid/mae", "valid/rmse", "valid/r2", "valid/spearman"),
    "language_modelling": ("valid/loss", "valid/perplexity", "valid/bits_per_byte"),
}

_LOWER_IS_BETTER = (
    "loss",
    "perplexity",
    "bits_per_byte",
    "error",
    "seconds",
    "nonfinite_steps",
    "skipped_records",
)
_ERRORS = ("mae", "rmse")
_SPLITS = {"valid": "validation", "train": "training"}
_PLAIN_NAMES = {
    "f1": "F1",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "roc_auc": "ROC AUC",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2",
}


def plain_name(metric: str) -> str:
    """The name of a metric without its split, in a sentence."""
    return _PLAIN_NAMES.get(metric, metric.replace("_", " "))


def plain_key(key: str) -> str:
    """The name of a metric with its split, in a sentence: `validation loss` of valid/loss."""
    split, _, name = key.rpartition("/")
    return f"{_SPLITS.get(split, split)} {plain_name(name)}".strip()


def lower_is_better(metric: str) -> bool:
    """True for losses, errors, times and counts of failures."""
    name = metric.lower()
    return name.rpartition("/")[2] in _ERRORS or any(word in name for word in _LOWER_IS_BETTER)


def sign_of(metric: str) -> int:
    """1 where higher values are better, else -1."""
    return -1 if lower_is_better(metric) else 1


def better_direction(metric: str) -> str:
    return "lower" if lower_is_better(metric) else "higher"


def is_better(metric: str, new: float, old: float | None, min_delta: float = 0.0) -> bool:
    """True if `new` is better than `old` by more than `min_delta`; NaN never is."""
    if math.isnan(new):
        return False
    if old is None:
        return True
    if lower_is_better(metric):
        return new < old - min_delta
    return new > old + min_delta
