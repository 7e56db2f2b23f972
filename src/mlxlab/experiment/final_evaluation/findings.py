"""What is wrong with a trained model, in a sentence each: for the console, `summary.md` and the report."""

from collections.abc import Mapping

import numpy as np

from mlxlab.experiment.run_metrics import interval_text, number
from mlxlab.metric_names import lower_is_better, plain_name
from mlxlab.training.metrics.classification import ClassCounts

_CONSTANT = ("majority", "mean", "unigram")  # baselines
_MAX_NAMED = 3  # classes
_ROWS = {"valid": "validation", "test": "test"}


def weakest_baseline(metric: str, baselines: Mapping[str, float]) -> str:
    """The name of the baseline that predicts the same for every row; without one, that with the worst value, or ""."""
    if constant := next((name for name in _CONSTANT if name in baselines), ""):
        return constant  # of a small data set a fitted baseline may be worse
    sign = -1 if lower_is_better(metric) else 1
    return min(baselines, key=lambda name: sign * baselines[name], default="")


def has_learned_nothing(metric: str, value: float, baselines: Mapping[str, float]) -> bool:
    """Whether a model is no better than the weakest baseline; False without baselines."""
    sign = -1 if lower_is_better(metric) else 1
    return bool(baselines) and sign * (value - baselines[weakest_baseline(metric, baselines)]) <= 0


def same_as_weakest(metric: str, value: float, baseline: str, baseline_value: float) -> str:
    """`accuracy 0.5593 is that of majority`; where it is worse, by both values."""
    shown = number(value), number(baseline_value)
    relation = (
        f"that of {baseline}" if shown[0] == shown[1] else f"worse than {shown[1]} of {baseline}"
    )
    return f"{plain_name(metric)} {shown[0]} is {relation}"


def learned_nothing_sentence(
    metric: str,
    value: float,
    baselines: Mapping[str, float],
    ranking: str = "",
) -> list[str]:
    """A line for the console if the model is no better than the weakest baseline; `ranking` as in `ranking_text`."""
    if not has_learned_nothing(metric, value, baselines):
        return []
    weakest = weakest_baseline(metric, baselines)
    text = same_as_weakest(metric, value, weakest, baselines[weakest])
    return [f"{text}; {ranking}" if ranking else f"this model learned nothing: {text}"]


def ranking_text(roc_auc: float | None, interval: tuple[float, float] | None) -> str:
    """What a model has learned that decides no better than a constant; "" if the interval does not lie above 0.5."""
    if roc_auc is None or interval is None or not interval[0] > 0.5:  # of one class it is NaN
        return ""
    low_high = f", 95 % interval {text}" if (text := interval_text(interval)) else ""
    return f"the ranking carries information (ROC AUC {number(roc_auc)}{low_high})"


def never_predicted(names: tuple[str, ...], counts: ClassCounts) -> dict[str, int]:
    """Classes or labels that occur and are never predicted, with their numbers of rows, the most frequent one first."""
    missed = np.flatnonzero((counts.predicted == 0) & (counts.support > 0)).tolist()
    return {
        names[n]: int(counts.support[n])
        for n in sorted(missed, key=lambda n: -int(counts.support[n]))
    }


def never_predicted_sentence(classes: Mapping[str, int], split: str, rows: int) -> str:
    """`other is never predicted (6 of 60 test rows)`."""
    named = [f"{name} ({count:,})" for name, count in [*classes.items()][:_MAX_NAMED]]
    if len(classes) == 1:
        return f"{next(iter(classes))} is never predicted ({sum(classes.values()):,} of {rows:,} {_ROWS[split]} rows)"
    if rest := len(classes) - len(named):
        named.append(f"{rest:,} more")
    listed = f"{', '.join(named[:-1])} and {named[-1]}"
    return (
        f"{listed} are never predicted ({sum(classes.values()):,} of {rows:,} {_ROWS[split]} rows)"
    )
