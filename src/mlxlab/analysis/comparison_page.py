"""A comparison of methods as a page, from the files of its report."""

from contextlib import suppress
from pathlib import Path

from mlxlab.analysis.comparison import Comparison
from mlxlab.analysis.comparison_cards import MAX_IN_CARD, all_cards, of_evaluation
from mlxlab.analysis.comparison_numbers import fixed
from mlxlab.analysis.comparison_table import describe_test, method_row, sign_note
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import read_json, read_text
from mlxlab.stats import LEVEL
from mlxlab.views.blocks import Block, Listing, Page, Paragraph, Plots, Section
from mlxlab.views.pages import block_page
from mlxlab.views.plots import Row, RowPlot, short_label
from mlxlab.views.tables import Column, Table, numeric
from mlxlab.wording import one_line, percent

_MAX_BYTES = 4 * 2**20
_MAX_METHODS = 12  # that have a column
_STYLES = {"significant gain": "good", "significant loss": "bad"}  # by the verdict
_TEXTS = ("method", "interval", "verdict")  # columns


def read_comparison_page(folder: Path, name: str) -> str:
    """The page of NAME.json and NAME.md; InputNotFoundError or DataError without a usable NAME.json."""
    comparison = read_json(folder / f"{name}.json", Comparison)
    report: list[Block] = []
    with suppress(InputNotFoundError, DataError):
        report.append(Listing(read_text(folder / f"{name}.md", max_bytes=_MAX_BYTES)))
    notes = f"{sign_note(comparison)} {describe_test(comparison)}"
    results: list[Block] = [*_verdicts(comparison)]
    for line in comparison.warnings:
        results.append(Paragraph(f"Warning: {line}.", is_verdict=True))
    results += [
        _table(comparison),
        Paragraph(notes, is_note=True),
        Plots(comparison_plots(comparison)),
    ]
    sections = [
        Section("Methods", results),
        Section("What differs", _differences(comparison)),
        Section("Each run", [_runs(comparison)], is_folded=True),
        Section("As Markdown, with the command", report, is_folded=True),
    ]
    page = Page(
        title=_title(comparison),
        subtitle=f"Decided by {comparison.metric}{of_evaluation(comparison)}, in {folder.absolute()}",
        cards=all_cards(comparison),
        sections=[section for section in sections if section.blocks],
    )
    return block_page(page)


def comparison_plots(comparison: Comparison) -> list[RowPlot]:
    """The runs, and if there are intervals, the differences to the reference with them."""
    runs = []
    gains = []
    for method in comparison.methods:
        name = short_label(method.name)
        values = [value for value in method.values.values() if value is not None]
        runs.append(Row(name, values, mean=method.mean))
        gain = method.gain
        if gain and gain.mean is not None and gain.low is not None and gain.high is not None:
            style = _STYLES.get(gain.verdict, "soft")
            gains.append(Row(name, mean=gain.mean, span=(gain.low, gain.high), style=style))
    metric = short_label(comparison.metric)
    plots = [RowPlot("Methods: a dot per run, and the mean", metric, runs)]
    if gains:
        title = (
            f"Differences to {short_label(comparison.against)}, with {percent(LEVEL, 0)} intervals"
        )
        plots.append(RowPlot(title, f"gain in {metric} (+ is better)", gains, guide=0.0))
    return plots


def _verdicts(comparison: Comparison) -> list[Paragraph]:
    """The verdict of a cross-validation, else one for each method."""
    if comparison.verdict:
        return [Paragraph(comparison.verdict, is_verdict=True)]
    paragraphs = []
    for name, gain in comparison.gains.items():
        is_good = gain.verdict == "significant gain"
        paragraphs.append(Paragraph(comparison.sentence(name), is_verdict=True, is_good=is_good))
    return paragraphs


def _title(comparison: Comparison) -> str:
    """The methods, and of which model and data they are."""
    methods = one_line(" vs ".join(each.name for each in comparison.methods), 120)
    trained = one_line(comparison.subject["trained"], 80)
    return f"{methods}: {trained}" if trained else f"Comparison: {methods}"


def _table(comparison: Comparison) -> Table:
    """The columns in which any method has something."""
    ranked = comparison.ranked
    rows = [method_row(each, comparison) for each in ranked]
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    columns = [Column(name, "text" if name in _TEXTS else "number") for name in names]
    table = Table(columns)
    for each, row in zip(ranked, rows, strict=True):
        is_better = each.gain is not None and each.gain.verdict == "significant gain"
        table.add([row[name] for name in names], strong=is_better and table.strong is None)
    return table


def _differences(comparison: Comparison) -> list[Block]:
    """The settings that differ, if they are too many for the first card."""
    differs = comparison.subject["differs"] or {}
    if len(differs) <= MAX_IN_CARD:
        return []
    names = [each.name for each in comparison.methods[:_MAX_METHODS]]
    rows = [[key, *(values.get(name, "") for name in names)] for key, values in differs.items()]
    return [Table([Column("setting"), *map(Column, names)], rows)]


def _runs(comparison: Comparison) -> Table:
    shown = comparison.ranked[:_MAX_METHODS]
    columns = [Column("run"), *numeric(*(each.name for each in shown))]
    rows = []
    for run in dict.fromkeys(run for each in comparison.methods for run in each.values):
        rows.append([run, *(fixed(each.values.get(run), comparison.decimals) for each in shown)])
    return Table(columns, rows)
