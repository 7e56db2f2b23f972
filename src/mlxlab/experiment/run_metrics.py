"""The metrics of a run that ended, `metrics.json`."""

from math import isclose
from typing import Literal, NotRequired, TypedDict

FILE = "metrics.json"
Metrics = dict[str, float | None]  # by key: `valid/accuracy`; None is not finite


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
    evaluations: NotRequired[list[tuple[int, float | None]]]  # (step, objective), in order
    state: NotRequired[Literal["finished", "paused"]]  # by the sweep that the run belongs to
    reason: NotRequired[str]  # why it was paused; it then has no test, intervals and baselines


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
