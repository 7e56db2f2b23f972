"""Reports of a comparison of methods: Markdown, JSON and a page."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from textwrap import wrap

from mlxlab.analysis.comparison import EVALUATIONS, Comparison, MethodResults
from mlxlab.analysis.comparison_numbers import fixed
from mlxlab.analysis.comparison_page import read_comparison_page
from mlxlab.analysis.comparison_table import Row, describe_test, gain_cells, method_row, sign_note
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.markdown import markdown_table
from mlxlab.metric_names import VALID
from mlxlab.views.verdict import best_baseline, has_learned_nothing, weakest_baseline

_MAX_SETTINGS = 6  # in the heading
_WIDTH = 120


def write_report(comparison: Comparison, text: str, folder: Path, name: str) -> list[Path]:
    """Writes NAME.md (`text`), NAME.json and NAME.html, which holds both; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("md", "json", "html")]
    write_atomic(paths[0], text + "\n")
    write_json(paths[1], asdict(comparison))
    write_atomic(paths[2], read_comparison_page(folder, name))
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
