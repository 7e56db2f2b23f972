"""A comparison of methods for the reader: Markdown, JSON and a picture, in the run folder and in the store."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import Any

from mlxlab.analysis.comparison import Comparison, MethodResults, PairedDifference, method_of, summary_sentence
from mlxlab.markdown import markdown_table
from mlxlab.tracking.tracker import Tracker


def write_comparison(
    comparison: Comparison, folder: Path, *, share_of: str = "", command: str = "", tracker: Tracker | None = None
) -> str:
    """Writes comparison.md, comparison.json and comparison.png; returns the Markdown.

    Args:
        share_of: the method that is 100 % (the teacher); empty for no such column.
        command: that makes the comparison again; empty says none.
        tracker: gets the three files as artifacts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(comparison, share_of=share_of, command=command)
    (folder / "comparison.md").write_text(text + "\n")
    (folder / "comparison.json").write_text(json.dumps(figures(comparison), indent=1) + "\n")
    draw(comparison, folder / "comparison.png")
    for kind in ("md", "json", "png"):
        if tracker is not None:
            tracker.log_artifact(folder / f"comparison.{kind}", "comparison")
    return text


def markdown(comparison: Comparison, *, share_of: str = "", command: str = "") -> str:
    """The verdicts as sentences, the table, and how it was judged."""
    whole = comparison.named(share_of) if share_of else None
    heads = ["method", "runs", comparison.metric, "s.e.", f"gain on {comparison.against}", "interval", "p", "verdict"]
    ratios = [[f"{what} / {share_of}"] * bool(share_of) for what in (comparison.metric, "parameters")]
    heads += [*ratios[0], "parameters", *ratios[1], "per second", "steps"]
    lines = [f"- {summary_sentence(comparison, name)}" for name in comparison.gains]
    lines += ["", markdown_table(heads, [_cells(series, comparison, whole) for series in comparison.series])]
    lines += ["", *wrap(_judgement(comparison), 120)]
    return "\n".join([*lines, *(["", f"    {command}"] if command else [])])


def figures(comparison: Comparison) -> dict[str, Any]:
    """Everything as JSON: no NaN, no infinity."""
    rows = []
    for one in comparison.series:
        gain = comparison.gains.get(one.name)
        row = {"name": one.name, "mean": one.mean, "error": one.error, "values": dict(one.values)}
        row |= {"parameters": one.parameters, "speed": one.speed, "steps": one.steps}
        rows.append(row | ({"gain": asdict(gain) | {"verdict": gain.verdict}} if gain else {}))
    head = {"metric": comparison.metric, "against": comparison.against, "level": comparison.level}
    return _finite(head | {"method": method_of(comparison), "series": rows})


def draw(comparison: Comparison, path: Path) -> None:
    """Left: a dot per run, and the mean. Right: the gain on the reference with its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [one.name for one in comparison.series]
    figure = Figure(figsize=(9.0, 0.6 * len(names) + 1.4))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for place, one in enumerate(comparison.series):
        left.plot(list(one.values.values()), [place] * len(one.values), ".", color="C0", alpha=0.6)
        left.plot(one.mean, place, "|", color="black", markersize=14)
        gain = comparison.gains.get(one.name)
        if gain is not None and gain.pairs > 1:
            color = "gray" if gain.verdict.startswith("no ") else "C2" if gain.mean > 0 else "C3"
            right.errorbar(gain.mean, place, xerr=gain.high - gain.mean, fmt="o", color=color, capsize=3)
    right.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(range(len(names)), names)
    left.set(xlabel=f"{comparison.metric}: a dot per run, and the mean", ylim=(len(names) - 0.5, -0.5))
    right.set(xlabel=f"gain on {comparison.against}, {comparison.level:.0%} interval")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _cells(one: MethodResults, comparison: Comparison, whole: MethodResults | None) -> list[str]:
    cells = [one.name, str(len(one.values)), _number(one.mean), _number(one.error)]
    gain = comparison.gains.get(one.name)
    cells += _gain_cells(gain) if gain is not None else ["", "", "", "the reference"]
    parts = one.parameters, whole.parameters if whole else None
    cells += [f"{one.mean / whole.mean:.1%}"] if whole else []
    cells += [f"{one.parameters:,}" if one.parameters is not None else ""]
    cells += [f"{parts[0] / parts[1]:.1%}" if parts[0] and parts[1] else ""] if whole else []
    return [*cells, f"{one.speed:,.0f}" if one.speed else "", f"{one.steps:,}" if one.steps is not None else ""]


def _gain_cells(gain: PairedDifference) -> list[str]:
    if gain.pairs < 2:
        return [f"{gain.mean:+.4g}" if gain.pairs else "", "", "", gain.verdict]
    return [f"{gain.mean:+.4g}", f"{gain.low:+.4g} to {gain.high:+.4g}", f"{gain.p:.2g}", gain.verdict]


def _judgement(comparison: Comparison) -> str:
    better = "less" if comparison.minimised else "more"
    steps = {one.steps for one in comparison.series if one.steps is not None}
    at = "" if len(steps) < 2 else f" Not at equal steps: {', '.join(f'{step:,}' for step in sorted(steps))}."
    many = len(comparison.gains)
    text = f"Of {comparison.metric}, {better} is better; a gain is above 0. Intervals ({comparison.level:.0%}) and p: "
    text += f"{method_of(comparison)}."
    return text + (f" Not corrected for there being {many} comparisons." if many > 1 else "") + at


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else ""


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
