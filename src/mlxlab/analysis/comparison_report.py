"""Reports of a comparison of methods: Markdown, JSON and a plot."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import TYPE_CHECKING

from mlxlab.analysis.comparison import EVALUATIONS, LEVEL, Comparison, MethodResults
from mlxlab.analysis.comparison_numbers import fixed
from mlxlab.analysis.comparison_page import read_comparison_page
from mlxlab.experiment.final_evaluation.findings import learned_nothing_sentence
from mlxlab.figures import label
from mlxlab.files.atomic import without_nonfinite, write_atomic, write_json
from mlxlab.html.page import render_page
from mlxlab.markdown import markdown_table
from mlxlab.metric_names import VALID
from mlxlab.wording import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_MAX_SETTINGS = 6  # in the heading


def write_report(comparison: Comparison, text: str, folder: Path, name: str) -> list[Path]:
    """Writes NAME.md (`text`), NAME.json, NAME.png and NAME.html, which holds them all; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("md", "json", "png", "html")]
    write_atomic(paths[0], text + "\n")
    write_json(paths[1], without_nonfinite(as_json(comparison)))
    _draw(comparison, paths[2])
    write_atomic(paths[3], render_page(read_comparison_page(folder, name)))
    return paths


def as_json(comparison: Comparison) -> dict[str, object]:
    """Every method with its values, mean, standard error and verdict."""
    methods = []
    for method in comparison.methods:
        gain = comparison.gains.get(method.name)
        verdict = {"gain": asdict(gain) | {"verdict": gain.verdict}} if gain else {}
        methods.append(asdict(method) | {"mean": method.mean, "error": method.error} | verdict)
    heading = {
        "metric": comparison.metric,
        "against": comparison.against,
        "level": LEVEL,
        "test": comparison.test,
    }
    heading["evaluation"] = comparison.evaluation
    heading |= {"subject": comparison.subject} if comparison.subject else {}
    heading |= {"verdict": comparison.verdict} if comparison.verdict else {}
    heading |= {"warnings": list(comparison.warnings)} if comparison.warnings else {}
    return heading | {"methods": methods}


def markdown(comparison: Comparison, command: str, share_of: str | None = None) -> str:
    """The verdicts, the table (with shares of the method `share_of`), the test, and the command that reproduces it."""
    evaluation = EVALUATIONS[comparison.evaluation]
    full = next((method for method in comparison.methods if method.name == share_of), None)
    rows = [_row(method, comparison, full) for method in comparison.methods]
    lines = [
        *_heading(comparison),
        *(f"- {comparison.sentence(name)}" for name in comparison.gains),
    ]
    lines += ["", f"{comparison.metric} of the {evaluation}:", ""]
    lines += [
        markdown_table(list(rows[0]), [list(row.values()) for row in rows]),
        "",
        *wrap(f"{_sign_note(comparison)} {_test_note(comparison)}", 120),
    ]
    return "\n".join([*lines, "", f"    {command}"])


def _heading(comparison: Comparison) -> list[str]:
    """What is compared: model and data, and the settings that differ."""
    if comparison.subject is None:
        return []
    lines = [comparison.subject["trained"]]
    differs = [*(comparison.subject["differs"] or {}).items()]
    for key, values in differs[:_MAX_SETTINGS]:
        lines.append(f"{key}: {', '.join(f'{value} ({name})' for name, value in values.items())}")
    if len(differs) > _MAX_SETTINGS:
        lines.append(f"{len(differs) - _MAX_SETTINGS} more settings differ")
    return [*wrap("; ".join(lines), 120), ""]


def fold_markdown(comparison: Comparison, notes: Sequence[str], command: str) -> str:
    """Verdict and warnings, then the table: every method, the best one first, with the mean of each seed."""
    seeds = list(dict.fromkeys(run.partition(" fold ")[0] for run in comparison.methods[0].values))
    rows = []
    for method in sorted(
        comparison.methods, key=lambda method: method.mean, reverse=not comparison.minimised
    ):
        folds = [
            [value for run, value in method.values.items() if run.startswith(f"{seed} ")]
            for seed in seeds
        ]
        means = [method.mean, method.error, *map(fmean, folds)]
        cells = _gain_cells(comparison, method.name)
        numbers = [fixed(value, comparison.decimals) for value in means]
        rows.append([method.name, *numbers, *list(cells.values())[:2]])
    head = [
        f"{comparison.metric.removeprefix(VALID)} of",
        "mean",
        "std. error",
        *seeds,
        *list(cells)[:2],
    ]
    first = [comparison.verdict] if comparison.verdict else []
    first += [f"Warning: {line}." for line in comparison.warnings]
    blocks = ["\n".join(wrap(line, 120)) for line in [*first, _sign_note(comparison)]]
    text = "\n".join(wrap(" ".join([*notes, _test_note(comparison)]), 120))
    return "\n\n".join([*blocks, markdown_table(head, rows), text, f"    {command}"])


def fold_verdict(comparison: Comparison, baselines: Sequence[MethodResults]) -> str:
    """Whether the reference learned something, and is better than the best of the baselines: a sentence."""
    metric, means = (
        comparison.metric.removeprefix(VALID),
        {each.name: each.mean for each in baselines},
    )
    mean = next(method.mean for method in comparison.methods if method.name == comparison.against)
    if lines := learned_nothing_sentence(metric, mean, means):
        return f"Verdict: {lines[0]}."
    name = min(means, key=lambda name: means[name] if comparison.minimised else -means[name])
    shown, other = (fixed(value, comparison.decimals) for value in (mean, means[name]))
    gain, values = comparison.gains[name], f"mean {metric} {shown} against {other}"
    relation = (
        "better" if gain.high < 0 else "worse" if gain.low > 0 else "not significantly better"
    )
    return f"Verdict: {comparison.against} is {relation} than the best baseline, {name}: {values}."


def _row(
    method: MethodResults, comparison: Comparison, full: MethodResults | None
) -> dict[str, str]:
    """The cells of a method by the heads of their columns; `full` is the method that counts as 100 %."""
    metric, size = comparison.metric, method.parameters
    row = {"method": method.name, "runs": str(len(method.values))}
    mean, error = (fixed(value, comparison.decimals) for value in (method.mean, method.error))
    row |= {metric: mean, "s.e.": error} | _gain_cells(comparison, method.name)
    row |= {f"{metric} / {full.name}": percent(method.mean / full.mean)} if full else {}
    row["parameters"] = f"{size:,.0f}" if size is not None else ""
    if full:
        row[f"parameters / {full.name}"] = (
            percent(size / full.parameters) if size and full.parameters else ""
        )
    row["tokens/s"] = f"{method.speed:,.0f}" if method.speed else ""
    return row | {"steps": f"{method.steps:,}" if method.steps is not None else ""}


def _gain_cells(comparison: Comparison, name: str) -> dict[str, str]:
    gain = comparison.gains.get(name)
    tested = gain is not None and gain.pairs > 1
    values = (None, None, None) if gain is None else (gain.mean, gain.low, gain.high)
    mean, low, high = (fixed(value, comparison.decimals, signed=True) for value in values)
    return {
        f"difference to {comparison.against}": mean,
        "interval": f"{low} to {high}" if tested else "",
        "p": f"{gain.p:.2g}" if gain and tested else "",
        "verdict": gain.verdict if gain else "the reference",
    }


def _test_note(comparison: Comparison) -> str:
    steps = sorted({method.steps for method in comparison.methods if method.steps is not None})
    count = len(comparison.gains)
    text = f"Intervals ({percent(LEVEL, 0)}) and p: {comparison.test}."
    text += f" Not corrected for {count} comparisons." if count > 1 else ""
    return text + (
        f" Numbers of steps differ: {', '.join(f'{n:,}' for n in steps)}." if len(steps) > 1 else ""
    )


def _sign_note(comparison: Comparison) -> str:
    better = "lower" if comparison.minimised else "higher"
    return f"{comparison.metric}: {better} is better. Difference: + is better than {comparison.against}, - is worse."


def _draw(comparison: Comparison, path: Path) -> None:
    """Plots each run and the mean, and below, if there are intervals, the difference to the reference with them."""
    from matplotlib.figure import Figure

    names = [method.name for method in comparison.methods]
    has_intervals = any(gain.pairs > 1 for gain in comparison.gains.values())
    figure = Figure(figsize=(5.5, (1 + has_intervals) * (0.5 * len(names) + 0.8)))
    runs, *others = figure.subplots(1 + has_intervals, 1, sharey=True, squeeze=False)[:, 0]
    for y, method in enumerate(comparison.methods):
        runs.plot(
            list(method.values.values()), [y] * len(method.values), ".", color="C0", alpha=0.6
        )
        runs.plot(method.mean, y, "|", color="black", markersize=14)
    runs.set_yticks(range(len(names)), [label(name) for name in names])
    runs.set(
        xlabel=f"{label(comparison.metric)}: a dot per run, and the mean",
        ylim=(len(names) - 0.5, -0.5),
    )
    for gains in others:
        _draw_gains(comparison, gains)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _draw_gains(comparison: Comparison, axes: "Axes") -> None:
    for y, method in enumerate(comparison.methods):
        gain = comparison.gains.get(method.name)
        if gain is not None and gain.pairs > 1:
            color = "gray" if gain.verdict.startswith("no ") else "C2" if gain.mean > 0 else "C3"
            axes.errorbar(gain.mean, y, xerr=gain.high - gain.mean, fmt="o", color=color, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(
        xlabel=f"difference to {label(comparison.against)} (+ is better), {percent(LEVEL, 0)} interval"
    )
