"""A comparison of methods as a page, from the JSON and PNG files of its report."""

from pathlib import Path

from mlxlab.analysis.comparison_cards import (
    MAX_IN_CARD,
    all_cards,
    decimals,
    gain_text,
    is_without_difference,
    of_evaluation,
    probability,
)
from mlxlab.analysis.comparison_fields import ComparisonFields, MethodFields
from mlxlab.analysis.comparison_numbers import fixed
from mlxlab.config.issues import one_line
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import read_bytes, read_json, read_text
from mlxlab.html.blocks import (
    Block,
    Column,
    Image,
    Listing,
    Page,
    Paragraph,
    Section,
    Table,
    png_width,
)
from mlxlab.metric_names import lower_is_better
from mlxlab.wording import percent

DPI = 120
_MAX_BYTES = 4 * 2**20


def read_comparison_page(folder: Path, name: str) -> Page:
    """The page of NAME.json, NAME.png and NAME.md; InputNotFoundError or DataError without a usable NAME.json."""
    fields = read_json(folder / f"{name}.json", ComparisonFields)
    try:
        png = read_bytes(folder / f"{name}.png", max_bytes=_MAX_BYTES)
        png_width(png)
    except (InputNotFoundError, DataError, ValueError):
        png = b""
    try:
        text = read_text(folder / f"{name}.md", max_bytes=_MAX_BYTES)
    except (InputNotFoundError, DataError):
        text = ""
    return comparison_page(fields, folder, png, text)


def comparison_page(fields: ComparisonFields, folder: Path, png: bytes, text: str) -> Page:
    """`text` is the report as Markdown, which holds the command that made it."""
    metric, sign = fields["metric"], -1 if lower_is_better(fields["metric"]) else 1
    ranked = sorted(
        fields["methods"],
        key=lambda each: -sign * each["mean"] if each["mean"] is not None else 1e308,
    )
    better = "lower" if sign < 0 else "higher"
    notes = f"{better.capitalize()} is better. Difference: + is better than {fields['against']}, - is worse"
    notes = (
        f"{notes}; s.e.: standard error."
        if any(each["error"] is not None for each in ranked)
        else f"{notes}."
    )
    notes += (
        " Tokens/s are those of training steps, without evaluations."
        if any(each["speed"] for each in ranked)
        else ""
    )
    if any(map(_has_interval, ranked)):
        notes += f" {percent(fields['level'], 0)} intervals and p: {fields['test']}."
    results: list[Block] = [
        *_verdicts(ranked, fields),
        *(Paragraph(f"Warning: {line}.", is_verdict=True) for line in fields.get("warnings", [])),
        _table(ranked, fields),
        Paragraph(notes, is_note=True),
    ]
    caption = "Each run and the mean of each method"
    caption += (
        "; the difference to the reference with its interval"
        if any(map(_has_interval, ranked))
        else ""
    )
    image = [Image(png, caption, DPI)]
    sections = [
        Section("Methods", [*results, *(image if png else [])]),
        Section("What differs", _differences(fields)),
        Section("Each run", [_runs(ranked, decimals(fields))], is_folded=True),
        Section("As Markdown, with the command", [Listing(text)] if text else [], is_folded=True),
    ]
    return Page(
        title=_title(fields),
        subtitle=f"Decided by {metric}{of_evaluation(fields)}, in {folder.absolute()}",
        cards=all_cards(ranked, fields) if ranked else [],
        sections=[section for section in sections if section.blocks],
    )


def _verdicts(ranked: list[MethodFields], fields: ComparisonFields) -> list[Paragraph]:
    """That of a cross-validation, else one for each method."""
    if "verdict" in fields:
        return [Paragraph(fields["verdict"], is_verdict=True)]
    compared = [each for each in ranked if "gain" in each]
    return [
        Paragraph(_sentence(each, fields), is_verdict=True, is_good=_is_gain(each))
        for each in compared
    ]


def _title(fields: ComparisonFields) -> str:
    """The methods, and of which model and data they are."""
    methods = one_line(" vs ".join(each["name"] for each in fields["methods"]), 120)
    trained = one_line(fields["subject"]["trained"], 80) if "subject" in fields else ""
    return f"{methods}: {trained}" if trained else f"Comparison: {methods}"


def _is_gain(method: MethodFields) -> bool:
    return "gain" in method and method["gain"]["verdict"] == "significant gain"


def _has_interval(method: MethodFields) -> bool:
    return "gain" in method and method["gain"]["pairs"] > 1


def _sentence(method: MethodFields, fields: ComparisonFields) -> str:
    gain = method["gain"]
    start = f"{method['name']} against {fields['against']}: {gain['verdict']}"
    if gain["pairs"] < 2 or gain["low"] is None:
        return f"{start}."
    if is_without_difference(gain):
        return f"{start} ({gain['pairs']} pairs)."
    chance = (
        "; the interval includes 0: it may be chance" if gain["verdict"].startswith("no ") else ""
    )
    return f"{start}, {gain_text(gain, decimals(fields))} over {gain['pairs']} pairs{chance}."


def _table(ranked: list[MethodFields], fields: ComparisonFields) -> Table:
    """Standard errors and intervals are the small print of their numbers."""
    names = ["mean", f"difference to {fields['against']}", "p", "runs", "parameters", "tokens/s"]
    columns = [
        Column("method"),
        Column("verdict"),
        *(Column(name, is_number=True) for name in names),
    ]
    rows, places = [], decimals(fields)
    for each in ranked:
        error, gain = fixed(each["error"], places), each.get("gain")
        verdict, cells = "the reference", ["", ""]
        if gain is not None:
            difference, low, high = (
                fixed(gain[key], places, signed=True) for key in ("mean", "low", "high")
            )
            interval = f"\n{low} to {high}" if low and high else ""
            verdict, cells = (
                gain["verdict"],
                [f"{difference}{interval}", probability(gain["p"]) if low else ""],
            )
            cells = [difference, ""] if is_without_difference(gain) else cells
        size = "" if each["parameters"] is None else f"{each['parameters']:,.0f}"
        speed = "" if each["speed"] is None else f"{each['speed']:,.0f}"
        mean = fixed(each["mean"], places) + (f"\ns.e. {error}" if error else "")
        rows.append([each["name"], verdict, mean, *cells, str(len(each["values"])), size, speed])
    used = [n for n in range(len(columns)) if any(row[n] for row in rows)]
    columns, rows = [columns[n] for n in used], [[row[n] for n in used] for row in rows]
    classes = ["winner" if _is_gain(each) else "" for each in ranked]
    return Table(columns, rows, classes, is_sortable=True, is_stacked=True)


def _differences(fields: ComparisonFields) -> list[Block]:
    """The settings that differ, if they are too many for the first card."""
    differs = (fields["subject"]["differs"] or {}) if "subject" in fields else {}
    if len(differs) <= MAX_IN_CARD:
        return []
    names = [each["name"] for each in fields["methods"]][:12]
    rows = [[key, *(values.get(name, "") for name in names)] for key, values in differs.items()]
    return [Table([Column("setting"), *map(Column, names)], rows, is_stacked=True)]


def _runs(ranked: list[MethodFields], places: int) -> Table:
    runs = dict.fromkeys(run for each in ranked for run in each["values"])
    columns = [Column("run"), *(Column(each["name"], is_number=True) for each in ranked[:12])]
    return Table(
        columns,
        [[run, *(fixed(each["values"].get(run), places) for each in ranked[:12])] for run in runs],
    )
