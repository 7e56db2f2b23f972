"""The metrics of a run that ended, `metrics.json`."""

from math import isclose, isfinite
from typing import Literal, NotRequired, TypedDict

from mlxlab.wording import counted

FILE = "metrics.json"
Metrics = dict[str, float | None]  # by key: `valid/accuracy`; None is not finite


class CountedText(TypedDict):
    """The training text in which a baseline counted pairs and triples of tokens."""

    batches: int
    tokens: int  # targets


class RunMetrics(TypedDict):
    """`metrics.json`."""

    best_step: int
    steps: int
    main_metric: str | None  # in which models are compared with baselines; None of a language model
    metrics: Metrics  # of the best evaluation
    final: Metrics  # of the last evaluation: nothing was chosen by them
    test: Metrics  # of the best weights on the test rows, which chose nothing either
    out_of_fold: NotRequired[
        Metrics
    ]  # of the training rows, each by models that did not learn from it
    intervals: dict[str, tuple[float | None, float | None]]  # of the best weights, by key
    baselines: dict[str, Metrics]  # by name
    reference: dict[str, Metrics]  # of student and teacher
    gains: NotRequired[
        dict[str, dict[str, tuple[float | None, float | None]]]
    ]  # by baseline and key of the main metric:
    # the interval of how much better the model is
    rows: NotRequired[dict[str, int]]  # by split: those that the intervals are of
    never_predicted: NotRequired[
        dict[str, dict[str, int]]
    ]  # by split: rows of each class that is never predicted
    prediction_bands: NotRequired[
        dict[str, tuple[float, float]]
    ]  # by split: the two values that a regression predicts
    counted_text: NotRequired[CountedText]
    evaluations: NotRequired[list[tuple[int, float | None]]]  # (step, objective), in order
    state: NotRequired[
        Literal["finished", "paused", "pruned"]
    ]  # by the sweep that the run belongs to
    reason: NotRequired[
        str
    ]  # why it was paused or pruned; it then has no test, intervals and baselines


def describe_counted(text: CountedText) -> str:
    """What the baselines of a language model know, in which they differ between lengths of a run."""
    size = f"{counted(text['batches'], 'training batch', 'training batches')} ({counted(text['tokens'], 'token')})"
    return f"Pairs and triples of tokens are those of the first {size}."


def baseline_values(metrics: RunMetrics, key: str) -> dict[str, float]:
    """A metric of the baselines, by name; their log loss where the loss of the model is its log loss."""
    values = metrics["metrics"] | metrics["test"]
    if key.endswith("/loss") and not any(key in each for each in metrics["baselines"].values()):
        loss, key = values.get(key), key.replace("/loss", "/log_loss")
        log_loss = values.get(key)
        if loss is None or log_loss is None or not isclose(loss, log_loss, rel_tol=1e-3):
            return {}
    return {
        name: value
        for name, each in metrics["baselines"].items()
        if (value := each.get(key)) is not None
    }


def number(value: float) -> str:
    """Four decimals, or four digits of what is very large or small; rounding errors are 0."""
    return f"{value:.4g}" if 1e-9 < abs(value) < 0.001 or abs(value) >= 1e5 else f"{value:z.4f}"


def numbers(*values: float) -> list[str]:
    """Numbers of one sentence in one style: four decimals for all, unless the largest is very large or small."""
    is_usual = 0.001 <= max(map(abs, values)) < 1e5
    return [f"{value:z.4f}" if is_usual else number(value) for value in values]


def interval_text(interval: tuple[float | None, float | None] | None) -> str:
    """`0.7500 to 0.8500`; "" if there is none, or without a width: all resamples are equal, which says nothing."""
    low, high = interval or (None, None)
    if low is None or high is None or not isfinite(high - low) or low == high:
        return ""
    return " to ".join(numbers(low, high))
