"""Reports of a comparison of methods: Markdown, JSON and a plot."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import TYPE_CHECKING

from mlxlab.analysis.comparison import EVALUATIONS, Comparison, MethodResults
from mlxlab.analysis.comparison_numbers import fixed
from mlxlab.analysis.comparison_page import read_comparison_page
from mlxlab.analysis.comparison_table import Row, describe_test, gain_cells, method_row, sign_note
from mlxlab.figures import label, new_figure, render_png
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.markdown import markdown_table
from mlxlab.metric_names import VALID
from mlxlab.stats import LEVEL
from mlxlab.views.verdict import best_baseline, has_learned_nothing, weakest_baseline
from mlxlab.wording import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_MAX_SETTINGS = 6  # in the heading
_WIDTH = 120


def write_report(comparison: Comparison, text: str, folder: Path, name: str) -> list[Path]:
    """Writes NAME.md (`text`), NAME.json, NAME.png and NAME.html, which holds them all; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("md", "json", "png", "html")]
    write_atomic(paths[0], text + "\n")
    write_json(paths[1], asdict(comparison))
    write_atomic(paths[2], render_png(_draw(comparison)))
    write_atomic(paths[3], read_comparison_page(folder, name))
    return paths


def markdown(comparison: Comparison, command: str, share_of: str | None = None) -> str:
    """The verdicts, the table (with shares of the method `share_of`), the test, and the command that reproduces it."""
    full = next((method for method in comparison.methods if method.name == share_of), None)
    table = _table([method_row(each, comparison, full) for each in comparison.methods])
    sentences = [f"- {comparison.sentence(name)}" for name in comparison.gains]
    head = f"{comparison.metric} of the {EVALUATIONS[comparison.evaluation]}:"
    notes = _wrapped(f"{sign_note(comparison)} {describe_test(comparison)}")
    blocks = ["\n".join(sentences), head, table, notes, f"    {command}"]
    if comparison.subject["trained"]:
        blocks.insert(0, _heading(comparison))
    return "\n\n".join(blocks)


def _heading(comparison: Comparison) -> str:
    """What is compared: model and data, and the settings that differ."""
    lines = [comparison.subject["trained"]]
    differs = [*(comparison.subject["differs"] or {}).items()]
    for key, values in differs[:_MAX_SETTINGS]:
        lines.append(f"{key}: {', '.join(f'{value} ({name})' for name, value in values.items())}")
    if len(differs) > _MAX_SETTINGS:
        lines.append(f"{len(differs) - _MAX_SETTINGS} more settings differ")
    return _wrapped("; ".join(lines))


def fold_markdown(comparison: Comparison, notes: Sequence[str], command: str) -> str:
    """Verdict and warnings, then the table: every method, the best one first, with the mean of each seed."""
    rows = [_fold_row(method, comparison) for method in comparison.ranked]
    first = [comparison.verdict] if comparison.verdict else []
    first += [f"Warning: {line}." for line in comparison.warnings]
    blocks = [_wrapped(line) for line in [*first, sign_note(comparison)]]
    below = _wrapped(" ".join([*notes, describe_test(comparison)]))
    return "\n\n".join([*blocks, _table(rows), below, f"    {command}"])


def _fold_row(method: MethodResults, comparison: Comparison) -> Row:
    by_seed: dict[str, list[float]] = {}
    for run in comparison.methods[0].values:
        by_seed.setdefault(run.partition(" fold ")[0], [])
    for run, value in method.values.items():
        if value is not None:
            by_seed[run.partition(" fold ")[0]].append(value)
    places = comparison.decimals
    row = {f"{comparison.metric.removeprefix(VALID)} of": method.name}
    row |= {"mean": fixed(method.mean, places), "std. error": fixed(method.error, places)}
    for seed, values in by_seed.items():
        row[seed] = fixed(fmean(values), places) if values else ""
    gain = gain_cells(method, comparison)
    return row | {key: gain[key] for key in [*gain][:2]}


def fold_verdict(comparison: Comparison, baselines: Sequence[str]) -> str:
    """Whether the reference learned something, and is better than the best of the baselines: a sentence."""
    metric = comparison.metric.removeprefix(VALID)
    means = {each.name: each.mean for each in comparison.methods if each.mean is not None}
    mean = means[comparison.against]
    of_baselines = {name: means[name] for name in baselines if name in means}
    shown = fixed(mean, comparison.decimals)
    if has_learned_nothing(metric, mean, of_baselines):
        weakest = weakest_baseline(metric, of_baselines)
        return f"Verdict: this model learned nothing: {metric} {shown} is not better than that of {weakest}."
    name = best_baseline(metric, of_baselines)
    relations = {"significant loss": "better", "significant gain": "worse"}  # of the baseline
    relation = relations.get(comparison.gains[name].verdict, "not significantly better")
    values = f"mean {metric} {shown} against {fixed(means[name], comparison.decimals)}"
    return f"Verdict: {comparison.against} is {relation} than the best baseline, {name}: {values}."


def _table(rows: Sequence[Row]) -> str:
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows])


def _wrapped(text: str) -> str:
    return "\n".join(wrap(text, _WIDTH))


def _draw(comparison: Comparison) -> "Figure":
    """Each run and the mean, and below, if there are intervals, the difference to the reference with them."""
    names = [method.name for method in comparison.methods]
    num_axes = 1
    if any(gain.low is not None for gain in comparison.gains.values()):
        num_axes = 2
    figure = new_figure(5.5, num_axes * (0.5 * len(names) + 0.8))
    runs, *others = figure.subplots(num_axes, 1, sharey=True, squeeze=False)[:, 0]
    for y, method in enumerate(comparison.methods):
        values = [value for value in method.values.values() if value is not None]
        runs.plot(values, [y] * len(values), ".", color="C0", alpha=0.6)
        if method.mean is not None:
            runs.plot(method.mean, y, "|", color="black", markersize=14)
    runs.set_yticks(range(len(names)), [label(name) for name in names])
    runs.set(
        xlabel=f"{label(comparison.metric)}: a dot per run, and the mean",
        ylim=(len(names) - 0.5, -0.5),
    )
    for gains in others:
        _draw_gains(comparison, gains)
    return figure


def _draw_gains(comparison: Comparison, axes: "Axes") -> None:
    colors = {"significant gain": "C2", "significant loss": "C3"}
    for y, method in enumerate(comparison.methods):
        gain = method.gain
        if gain is not None and gain.mean is not None and gain.high is not None:
            color = colors.get(gain.verdict, "gray")
            axes.errorbar(gain.mean, y, xerr=gain.high - gain.mean, fmt="o", color=color, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(
        xlabel=f"difference to {label(comparison.against)} (+ is better), {percent(LEVEL, 0)} interval"
    )
