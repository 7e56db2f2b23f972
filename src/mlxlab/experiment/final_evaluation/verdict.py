"""Whether a model is better than the best of its baselines, in one sentence."""

from collections.abc import Mapping

from mlxlab.experiment.run_metrics import number, numbers
from mlxlab.metric_names import lower_is_better

Interval = tuple[float, float]
_ROWS = {"valid": "the validation rows", "test": "the test rows"}


def best_baseline(metric: str, baselines: Mapping[str, float]) -> str:
    """The name of the baseline with the best value of a metric."""
    sign = -1 if lower_is_better(metric) else 1
    return max(baselines, key=lambda name: sign * baselines[name])


def verdict(
    split: str, metric: str, model: float, baselines: Mapping[str, float], gain: Interval
) -> str:
    """Which is better, by the interval of the gain on the best baseline, measured on the same rows.

    Args:
        split: valid, test, or the name of other data.
    """
    sign, best = -1 if lower_is_better(metric) else 1, best_baseline(metric, baselines)
    low, high = gain
    names, values = f"this model and {best}, the best baseline", (model, baselines[best])
    sentence = f"no significant difference between {names}"
    if high < 0:
        sentence, values, (low, high) = (
            f"{best} is better than this model",
            values[::-1],
            (-high, -low),
        )
    elif low > 0:
        sentence = f"this model is better than {best}, the best baseline"
    first, second = map(number, values)
    kind = "difference" if sign > 0 else "lower is better; gain"
    shown = numbers(sign * (values[0] - values[1]), low, high)
    difference = f"{kind} {shown[0]}" + (
        f", 95 % interval {shown[1]} to {shown[2]}" if low < high else ""
    )
    rows = _ROWS.get(split, f"the rows of {split}")
    return f"On {rows} {sentence}: {metric} {first} against {second} ({difference})."
