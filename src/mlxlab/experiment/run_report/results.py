"""The results of a run in the terms of its report: which metric counts, on which examples, compared with what."""

from dataclasses import dataclass
from math import isfinite

from mlxlab.experiment.final_evaluation.verdict import best_baseline, verdict
from mlxlab.experiment.run_metrics import Metrics, RunMetrics, number
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.metric_names import TEST, VALID, VALID_LOSS, lower_is_better

ROWS = {"valid": "validation", "test": "test"}
UNIGRAM = "token frequencies alone (unigram)"


@dataclass(frozen=True)
class Results:
    """What a run reached. Without a final evaluation the values are of the best evaluation so far.

    Attributes:
        metric: by which the run is judged, without its split; "" if nothing is known.
        split: the test rows, if they were evaluated, else the validation rows.
        values: by name, of the split.
    """

    metric: str
    split: str
    values: Metrics
    interval: tuple[float, float] | None
    rows: int | None
    baselines: dict[str, float]  # of the metric
    gain: tuple[float, float] | None  # on the best baseline

    @property
    def value(self) -> float | None:
        return self.values.get(self.metric)


def results_of(files: RunFiles) -> Results:
    metrics, outcome = files.metrics, files.manifest.get("outcome", {})
    history = files.state["history"] if files.state else None
    best: Metrics = metrics["metrics"] if metrics else {**history.best_metrics} if history else outcome.get("final", {})
    split = "test" if metrics and metrics["test"] else "valid"
    values = _of(metrics["test"], TEST) if metrics and split == "test" else _of(best, VALID)
    objective = outcome.get("objective") or str(files.config.get("objective", VALID_LOSS))
    metric = (metrics and metrics["main_metric"]) or _main_metric(values, objective.removeprefix(VALID))
    key = f"{split}/{metric}"
    interval = _finite(metrics["intervals"].get(key)) if metrics else None
    rows = metrics.get("rows", {}).get(split) if metrics else None
    baselines = (
        {}
        if metrics is None
        else {name: value for name, each in metrics["baselines"].items() if (value := each.get(key)) is not None}
    )
    gain = _gain(metrics, metric, baselines, key) if metrics else None
    return Results(metric, split, values, interval, rows, baselines, gain)


def _main_metric(values: Metrics, objective: str) -> str:
    return next((name for name in ("accuracy", "f1_macro", "rmse") if name in values), objective)


def _of(metrics: Metrics, prefix: str) -> Metrics:
    return {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}


def _finite(pair: tuple[float | None, float | None] | None) -> tuple[float, float] | None:
    if pair is None or pair[0] is None or pair[1] is None:
        return None
    return pair[0], pair[1]


def _gain(metrics: RunMetrics, metric: str, baselines: dict[str, float], key: str) -> tuple[float, float] | None:
    if not baselines:
        return None
    return _finite(metrics.get("gains", {}).get(best_baseline(metric, baselines), {}).get(key))


def baseline_sentence(results: Results) -> str:
    """Whether the model is better than the best baseline; "" where that is not known."""
    if results.gain is None or results.value is None:
        return ""
    return verdict(results.split, results.metric, results.value, results.baselines, results.gain)


def compared_with_best(results: Results) -> str:
    """The same in a few words, for a card."""
    if not results.baselines or results.value is None:
        return ""
    best = best_baseline(results.metric, results.baselines)
    sign = -1 if lower_is_better(results.metric) else 1
    gain = sign * (results.value - results.baselines[best])
    low, high = results.gain or (gain, gain)  # without an interval by the value itself
    if low > 0:
        return f"Better than {best} by {shown(gain)}"
    return f"Worse than {best} by {shown(-gain)}" if high < 0 else f"No better than {best}"


def first_evaluation(files: RunFiles) -> tuple[int, float] | None:
    """Step and objective of the first evaluation that is finite, if the run had more than one."""
    if files.metrics and "evaluations" in files.metrics:
        evaluations = files.metrics["evaluations"]
    else:
        evaluations = [*files.state["history"].evaluations] if files.state else []
    finite = [(step, value) for step, value in evaluations if value is not None and isfinite(value)]
    return finite[0] if len(finite) > 1 else None


def shown(value: float | None) -> str:
    return "not finite" if value is None or not isfinite(value) else number(value)
