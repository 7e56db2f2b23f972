"""The table of a comparison, for terminals and pages, and what is to be said below it."""

from mlxlab.analysis.comparison import Comparison, MethodResults
from mlxlab.analysis.comparison_numbers import fixed
from mlxlab.metric_names import better_direction
from mlxlab.stats import LEVEL
from mlxlab.wording import percent

Row = dict[str, str]


def method_row(
    method: MethodResults, comparison: Comparison, full: MethodResults | None = None
) -> Row:
    """The cells of a method by the heads of their columns; `full` is the method that counts as 100 %."""
    places = comparison.decimals
    row = {"method": method.name, "runs": str(len(method.values))}
    row |= {comparison.metric: fixed(method.mean, places), "s.e.": fixed(method.error, places)}
    row |= gain_cells(method, comparison)
    if full:
        row[f"{comparison.metric} / {full.name}"] = _share(method.mean, full.mean)
    row["parameters"] = _whole(method.parameters)
    if full:
        row[f"parameters / {full.name}"] = _share(method.parameters, full.parameters)
    return row | {"tokens/s": _whole(method.speed), "steps": _whole(method.steps)}


def gain_cells(method: MethodResults, comparison: Comparison) -> Row:
    gain = method.gain
    head = f"difference to {comparison.against}"
    if gain is None:
        return {head: "", "interval": "", "p": "", "verdict": "the reference"}
    numbers = (gain.mean, gain.low, gain.high)
    mean, low, high = (fixed(value, comparison.decimals, signed=True) for value in numbers)
    row = {head: mean, "interval": "", "p": "", "verdict": gain.verdict}
    if low:
        row |= {"interval": f"{low} to {high}", "p": f"{gain.p:.2g}"}
    return row


def sign_note(comparison: Comparison) -> str:
    better = better_direction(comparison.metric)
    return f"{comparison.metric}: {better} is better. Difference: + is better than {comparison.against}, - is worse."


def describe_test(comparison: Comparison) -> str:
    steps = sorted({method.steps for method in comparison.methods if method.steps is not None})
    count = len(comparison.gains)
    sentences = [f"Intervals ({percent(LEVEL, 0)}) and p: {comparison.test}."]
    if count > 1:
        sentences.append(f"Not corrected for {count} comparisons.")
    if len(steps) > 1:
        sentences.append(f"Numbers of steps differ: {', '.join(map(_whole, steps))}.")
    return " ".join(sentences)


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _share(value: float | None, whole: float | None) -> str:
    return percent(value / whole) if value is not None and whole else ""
