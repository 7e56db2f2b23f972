"""Report of a comparison of methods: Markdown, JSON and a plot, in a folder and in the tracking store."""

import math
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import Any

from mlxlab.analysis.comparison import Comparison, MethodResults, PairedDifference, method_of, summary_sentence
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.markdown import markdown_table
from mlxlab.tracking.tracker import Tracker


def write_comparison(
    comparison: Comparison, folder: Path, *, share_of: str = "", command: str = "", tracker: Tracker | None = None
) -> str:
    """Writes comparison.md, comparison.json and comparison.png; returns the Markdown.

    Args:
        share_of: the method that counts as 100 % (the teacher); empty for no such column.
        command: the command that reproduces the comparison; empty to omit it.
        tracker: logs the three files as artifacts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(comparison, share_of=share_of, command=command)
    write_atomic(folder / "comparison.md", text + "\n")
    write_json(folder / "comparison.json", figures(comparison))
    draw(comparison, folder / "comparison.png")
    for kind in ("md", "json", "png"):
        if tracker is not None:
            tracker.log_artifact(folder / f"comparison.{kind}", "comparison")
    return text


def markdown(comparison: Comparison, *, share_of: str = "", command: str = "") -> str:
    """The verdicts as sentences, the table, and the statistical method."""
    full = comparison.named(share_of) if share_of else None
    heads = ["method", "runs", comparison.metric, "s.e.", f"gain on {comparison.against}", "interval", "p", "verdict"]
    ratios = [[f"{quantity} / {share_of}"] * bool(share_of) for quantity in (comparison.metric, "parameters")]
    heads += [*ratios[0], "parameters", *ratios[1], "speed (/s)", "steps"]
    lines = [f"- {summary_sentence(comparison, name)}" for name in comparison.gains]
    lines += ["", markdown_table(heads, [_cells(series, comparison, full) for series in comparison.series])]
    lines += ["", *wrap(_method_note(comparison), 120)]
    return "\n".join([*lines, *(["", f"    {command}"] if command else [])])


def figures(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON; null for NaN and infinities."""
    rows = []
    for series in comparison.series:
        gain = comparison.gains.get(series.name)
        row = {"name": series.name, "mean": series.mean, "error": series.error, "values": dict(series.values)}
        row |= {"parameters": series.parameters, "speed": series.speed, "steps": series.steps}
        rows.append(row | ({"gain": asdict(gain) | {"verdict": gain.verdict}} if gain else {}))
    head = {"metric": comparison.metric, "against": comparison.against, "level": comparison.level}
    return _finite(head | {"method": method_of(comparison), "series": rows})


def draw(comparison: Comparison, path: Path) -> None:
    """Plots each run and the mean (left), and the gain on the reference with its interval (right)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [series.name for series in comparison.series]
    figure = Figure(figsize=(9.0, 0.6 * len(names) + 1.4))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for y, series in enumerate(comparison.series):
        left.plot(list(series.values.values()), [y] * len(series.values), ".", color="C0", alpha=0.6)
        left.plot(series.mean, y, "|", color="black", markersize=14)
        gain = comparison.gains.get(series.name)
        if gain is not None and gain.pairs > 1:
            color = "gray" if gain.verdict.startswith("no ") else "C2" if gain.mean > 0 else "C3"
            right.errorbar(gain.mean, y, xerr=gain.high - gain.mean, fmt="o", color=color, capsize=3)
    right.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(range(len(names)), names)
    left.set(xlabel=f"{comparison.metric}: a dot per run, and the mean", ylim=(len(names) - 0.5, -0.5))
    right.set(xlabel=f"gain on {comparison.against}, {comparison.level:.0%} interval")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _cells(series: MethodResults, comparison: Comparison, full: MethodResults | None) -> list[str]:
    cells = [series.name, str(len(series.values)), _number(series.mean), _number(series.error)]
    gain = comparison.gains.get(series.name)
    cells += _gain_cells(gain) if gain is not None else ["", "", "", "the reference"]
    size, full_size = series.parameters, full.parameters if full else None
    cells += [f"{series.mean / full.mean:.1%}"] if full else []
    cells += [f"{size:,}" if size is not None else ""]
    cells += [f"{size / full_size:.1%}" if size and full_size else ""] if full else []
    steps = f"{series.steps:,}" if series.steps is not None else ""
    return [*cells, f"{series.speed:,.0f}" if series.speed else "", steps]


def _gain_cells(gain: PairedDifference) -> list[str]:
    if gain.pairs < 2:
        return [f"{gain.mean:+.4g}" if gain.pairs else "", "", "", gain.verdict]
    return [f"{gain.mean:+.4g}", f"{gain.low:+.4g} to {gain.high:+.4g}", f"{gain.p:.2g}", gain.verdict]


def _method_note(comparison: Comparison) -> str:
    better = "lower" if comparison.minimised else "higher"
    steps = sorted({series.steps for series in comparison.series if series.steps is not None})
    count = len(comparison.gains)
    text = f"{comparison.metric}: {better} is better; positive gains are improvements. "
    text += f"Intervals ({comparison.level:.0%}) and p: {method_of(comparison)}."
    text += f" Not corrected for {count} comparisons." if count > 1 else ""
    return text + (f" Numbers of steps differ: {', '.join(f'{n:,}' for n in steps)}." if len(steps) > 1 else "")


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else ""


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
