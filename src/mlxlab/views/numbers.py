"""Formats numbers, intervals, durations and times, and names metrics; counts and shares are those of `wording`."""

from datetime import UTC, datetime
from math import isfinite

from mlxlab.record.run_record import Interval
from mlxlab.schema.metric_names import plain_name

MISSING = "not finite"
# What is smaller or larger is written with an exponent.
TINY = 1e-3
HUGE = 1e5
ROUNDING_ERROR = 1e-9
_LETTERS = {1_000_000_000: "B", 1_000_000: "M", 1_000: "k"}
_TITLES = {
    "average_precision": "average precision",
    "calibration_error": "expected calibration error",
    "spearman": "Spearman correlation",
    "agreement": "same prediction as the teacher",
}
MAIN_OF_TASK = {"classification": "accuracy", "multi_label": "f1_macro", "regression": "rmse"}
SIDE_METRICS = ("f1_macro", "roc_auc", "perplexity", "r2", "mae", "loss")
_BASELINES = {
    "majority": "majority class",
    "mean": "training mean",
    "unigram": "unigram model",
    "bigram": "bigram model",
    "trigram": "trigram model",
    "tfidf_logistic_regression": "TF-IDF + logistic regression",
    "tfidf_linear_svm": "TF-IDF + linear SVM",
    "tfidf_ridge_regression": "TF-IDF + ridge",
    "tfidf_same_sentences": "TF-IDF + linear model on the same sentences",
    "female_rule": "all women survive",
}
ROWS = {"valid": "validation", "test": "test", "out_of_fold": "out-of-fold training"}


def number(value: float | None, digits: int = 4) -> str:
    """So many decimals, and at most one more significant digit: `0.7416`, `69.339`, `3e-05`."""
    if value is None or not isfinite(value):
        return MISSING
    size = abs(value)
    if ROUNDING_ERROR < size < TINY or size >= HUGE:
        return f"{value:.{digits}g}"
    return f"{value:z.{_decimals(size, digits)}f}"


def compact(value: float) -> str:
    """Up to four significant digits, and whole numbers in full: `0.25`, `1024`, `nan`."""
    digits = 9 if float(value).is_integer() else 4
    return f"{value:.{digits}g}"


def rounded(value: float) -> str:
    """Two significant digits, of what is uncertain itself; all digits before the point."""
    if abs(value) < 99.5:
        return f"{value:.2g}"
    return f"{value:.0f}"


def signed(value: float | None, digits: int = 4) -> str:
    text = number(value, digits)
    if value is not None and value > 0:
        return f"+{text}"
    return text


def interval(pair: Interval | None, digits: int = 4) -> str:
    """`0.7500 to 0.8500`; "" without one, or without a width, which says nothing."""
    if pair is None:
        return ""
    low, high = pair
    if low == high:
        return ""
    largest = max(abs(low), abs(high))
    if not TINY <= largest < HUGE:
        return f"{number(low, digits)} to {number(high, digits)}"
    decimals = _decimals(largest, digits)
    return f"{low:z.{decimals}f} to {high:z.{decimals}f}"


def _decimals(size: float, digits: int) -> int:
    whole = len(str(int(size)))
    return max(0, min(digits, digits + 1 - whole))


def short(value: int) -> str:
    """`22.7 M` for 22,713,216."""
    for size, letter in _LETTERS.items():
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return str(value)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {rest} s"
    return f"{seconds:.0f} s"


def moment(seconds: float) -> str:
    """A time since 1970 as a date in UTC."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.4g} s"


def title(metric: str) -> str:
    return _TITLES.get(metric, plain_name(metric))


def baseline_name(name: str) -> str:
    """The name of a baseline in a sentence."""
    return _BASELINES.get(name, name.replace("_", " "))
