"""Whether a model is better than its baselines: judged once, shown by every view."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isclose
from typing import Literal, TypeAlias

from mlxlab.record.run_record import Interval, Metrics, SplitResult
from mlxlab.schema.metric_names import sign_of

Verdict: TypeAlias = Literal[
    "unknown", "learned nothing", "ranks only", "chance", "worse", "unclear", "better"
]
MODEL = "this model"
CONSTANT = ("majority", "mean", "unigram")  # They predict the same for every row.


@dataclass(frozen=True)
class Judgement:
    """The main metric of a model against its baselines on the same rows.

    Attributes:
        ranked: (baseline, value), the best one first.
        gain: how much better than the best baseline; negative is worse.
    """

    metric: str
    value: float | None
    verdict: Verdict = "unknown"
    ranked: tuple[tuple[str, float], ...] = ()
    best: str = ""
    weakest: str = ""
    gain: float = 0.0
    gain_interval: Interval | None = None

    @property
    def best_value(self) -> float:
        return dict(self.ranked)[self.best]

    @property
    def weakest_value(self) -> float:
        return dict(self.ranked)[self.weakest]

    @property
    def is_trivial(self) -> bool:
        """Whether the model may be no better than a constant."""
        return self.verdict in ("learned nothing", "ranks only", "chance")

    @property
    def is_bad(self) -> bool:
        clearly_worse = self.gain_interval is not None and self.gain_interval[1] < 0
        return self.verdict in ("learned nothing", "worse") or clearly_worse

    @property
    def lower_is_better(self) -> bool:
        return sign_of(self.metric) < 0

    @property
    def rows(self) -> list[tuple[str, float]]:
        """The model among its baselines, the best one first."""
        rows = [*self.ranked, (MODEL, self.value or 0.0)]
        return sorted(rows, key=lambda row: -sign_of(self.metric) * row[1])


def judge(result: SplitResult, metric: str) -> Judgement:
    """Compares a model with its baselines by the intervals of the differences."""
    baselines = baseline_values(result, metric)
    area = result.intervals.get("roc_auc")
    return judge_value(metric, result.metrics.get(metric), baselines, result.gains, area)


def judge_mean(
    metric: str,
    value: float,
    baselines: Mapping[str, float],
    gains: Mapping[str, Interval],
) -> Judgement:
    """Compares a mean over runs with those of baselines; without an interval a lower one may be chance.

    Args:
        gains: the known intervals of the differences.
    """
    judgement = judge_value(metric, value, baselines, gains)
    if judgement.verdict == "worse" and judgement.gain_interval is None:
        return replace(judgement, verdict="unclear")
    return judgement


def judge_value(
    metric: str,
    value: float | None,
    baselines: Mapping[str, float],
    gains: Mapping[str, Interval],
    area: Interval | None = None,
) -> Judgement:
    """Compares a value with those of baselines.

    Args:
        gains: the known intervals of the differences.
        area: the interval of the ROC AUC.
    """
    if value is None or not baselines:
        return Judgement(metric, value)
    sign = sign_of(metric)
    best = best_baseline(metric, baselines)
    weakest = weakest_baseline(metric, baselines)
    gain = sign * (value - baselines[best])
    interval = gains.get(best)
    from_weakest = gains.get(weakest)
    low, high = interval or (gain, gain)
    verdict: Verdict = "unclear"
    if sign * (value - baselines[weakest]) <= 0:
        verdict = "learned nothing"
        if area and area[0] > 0.5:
            verdict = "ranks only"
    elif from_weakest and from_weakest[0] <= 0:
        verdict = "chance"
    elif low > 0:
        verdict = "better"
    elif high < 0:
        verdict = "worse"
    ranked = sorted(baselines.items(), key=lambda item: -sign * item[1])
    return Judgement(metric, value, verdict, tuple(ranked), best, weakest, gain, interval)


def baseline_values(result: SplitResult, metric: str) -> dict[str, float]:
    """The metric of each baseline; for the loss their log loss, where both mean the same."""
    values = _values(result.baselines, metric)
    if metric != "loss" or values:
        return values
    loss = result.metrics.get("loss")
    log_loss = result.metrics.get("log_loss")
    if loss is None or log_loss is None or not isclose(loss, log_loss, rel_tol=1e-3):
        return {}
    return _values(result.baselines, "log_loss")


def best_baseline(metric: str, baselines: Mapping[str, float]) -> str:
    return max(baselines, key=lambda name: sign_of(metric) * baselines[name])


def weakest_baseline(metric: str, baselines: Mapping[str, float]) -> str:
    """The constant baseline: of a small data set a fitted one may be worse than it."""
    for name in CONSTANT:
        if name in baselines:
            return name
    return min(baselines, key=lambda name: sign_of(metric) * baselines[name], default="")


def _values(baselines: Mapping[str, Metrics], metric: str) -> dict[str, float]:
    return {
        name: value
        for name, metrics in baselines.items()
        if (value := metrics.get(metric)) is not None
    }
