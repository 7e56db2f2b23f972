"""A comparison of methods as a page, from the JSON and PNG files of its report."""

from pathlib import Path
from typing import NotRequired, TypedDict

from mlxlab.analysis.comparison import EVALUATIONS, Evaluation
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import read_bytes, read_json, read_text
from mlxlab.html.blocks import Block, Card, Column, Image, Listing, Page, Paragraph, Section, Table, png_width
from mlxlab.metric_names import lower_is_better

DPI = 120
_MAX_BYTES = 4 * 2**20


class GainFields(TypedDict):
    """Of a method on the reference; null is not finite."""

    pairs: int
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    verdict: str


class MethodFields(TypedDict):
    """One method: its values by run, with their mean and standard error."""

    name: str
    values: dict[str, float | None]
    parameters: float | None
    speed: float | None
    steps: float | None
    folds: list[int]
    mean: float | None
    error: float | None
    gain: NotRequired[GainFields]


class ComparisonFields(TypedDict):
    """The JSON file of a comparison."""

    metric: str
    against: str
    level: float
    test: str
    evaluation: NotRequired[Evaluation]
    methods: list[MethodFields]


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
    ranked = sorted(fields["methods"], key=lambda each: -sign * each["mean"] if each["mean"] is not None else 1e308)
    better = "lower" if sign < 0 else "higher"
    notes = f"{better.capitalize()} is better; positive gains are improvements; s.e.: standard error."
    notes += f" {fields['level']:.0%} intervals and p: "
    results: list[Block] = [
        *(
            Paragraph(_sentence(each, fields), is_verdict=True, is_good=_is_gain(each))
            for each in ranked
            if "gain" in each
        ),
        _table(ranked, fields),
        Paragraph(f"{notes}{fields['test']}.", is_note=True),
    ]
    caption = "Each run and the mean of each method"
    caption += "; the gain on the reference with its interval" if any(map(_has_interval, ranked)) else ""
    image = [Image(png, caption, DPI)]
    sections = [
        Section("Methods", [*results, *(image if png else [])]),
        Section("Each run", [_runs(ranked)], is_folded=True),
        Section("As Markdown, with the command", [Listing(text)] if text else [], is_folded=True),
    ]
    return Page(
        title=f"Comparison: {' vs '.join(each['name'] for each in fields['methods'])}"[:120],
        subtitle=f"{metric}{_of_evaluation(fields)}, in {folder.absolute()}",
        cards=_cards(ranked, fields) if ranked else [],
        sections=[section for section in sections if section.blocks],
    )


def _of_evaluation(fields: ComparisonFields) -> str:
    """Which evaluation the values are of; nothing for files that do not say so."""
    return f" of the {EVALUATIONS[fields['evaluation']]}" if "evaluation" in fields else ""


def _is_gain(method: MethodFields) -> bool:
    return "gain" in method and method["gain"]["verdict"] == "significant gain"


def _has_interval(method: MethodFields) -> bool:
    return "gain" in method and method["gain"]["pairs"] > 1


def _sentence(method: MethodFields, fields: ComparisonFields) -> str:
    gain = method["gain"]
    start = f"{method['name']} against {fields['against']}: {gain['verdict']}"
    return f"{start}, {_gain(gain)} over {gain['pairs']} pairs." if gain["pairs"] > 1 else f"{start}."


def _gain(gain: GainFields) -> str:
    interval = f" ({_number(gain['low'], '+')} to {_number(gain['high'], '+')}, p {_number(gain['p'], '', 2)})"
    return f"gain {_number(gain['mean'], '+')}{interval if gain['low'] is not None else ''}"


def _number(value: float | None, sign: str = "", digits: int = 4) -> str:
    return "" if value is None else f"{value:{sign}.{digits}g}"


def _cards(ranked: list[MethodFields], fields: ComparisonFields) -> list[Card]:
    best, counts = ranked[0], sorted({len(each["values"]) for each in ranked})
    runs = f"{counts[0]} to {counts[-1]} runs" if len(counts) > 1 else f"{counts[0]} runs"
    lines = [f"{runs} of each; the reference is {fields['against']}."]
    direction = "lower is better" if lower_is_better(fields["metric"]) else "higher is better"
    error = f"standard error {_number(best['error'])}" if best["error"] is not None else "one run"
    equal = [each["name"] for each in ranked if each["mean"] == best["mean"]]
    compared = best if "gain" in best else next((each for each in ranked if "gain" in each), None)
    cards = [
        Card("What was compared?", f"{len(ranked)} methods", lines),
        Card("Which has the best mean?", " = ".join(equal), [f"Of {fields['metric']}; {direction}."]),
        Card(
            "How good is it?",
            f"{fields['metric']} {_number(best['mean'])}",
            [f"Mean{_of_evaluation(fields) or ' of its runs'}, {error}."],
        ),
    ]
    if compared is not None:
        text = f"{compared['name']} against {fields['against']}: {_gain(compared['gain'])}."
        cards.append(Card("Is that more than chance?", compared["gain"]["verdict"].capitalize(), [text]))
    return cards


def _table(ranked: list[MethodFields], fields: ComparisonFields) -> Table:
    """Standard errors and intervals are the small print of their numbers."""
    names = ["runs", "mean", f"gain on {fields['against']}", "p"]
    columns = [Column("method"), *(Column(name, is_number=True) for name in names), Column("verdict")]
    columns += [Column(name, is_number=True) for name in ("parameters", "tokens/s")]
    rows = []
    for each in ranked:
        error, gain = _number(each["error"]), each.get("gain")
        cells = ["", "", "the reference"]
        if gain is not None:
            low, high = _number(gain["low"], "+"), _number(gain["high"], "+")
            interval = f"\n{low} to {high}" if low and high else ""
            p = _number(gain["p"], "", 2) if low else ""
            cells = [f"{_number(gain['mean'], '+')}{interval}", p, gain["verdict"]]
        size = "" if each["parameters"] is None else f"{each['parameters']:,.0f}"
        speed = "" if each["speed"] is None else f"{each['speed']:,.0f}"
        mean = _number(each["mean"]) + (f"\ns.e. {error}" if error else "")
        rows.append([each["name"], str(len(each["values"])), mean, *cells, size, speed])
    return Table(columns, rows, ["winner" if _is_gain(each) else "" for each in ranked], is_sortable=True)


def _runs(ranked: list[MethodFields]) -> Table:
    runs = dict.fromkeys(run for each in ranked for run in each["values"])
    columns = [Column("run"), *(Column(each["name"], is_number=True) for each in ranked[:12])]
    return Table(columns, [[run, *(_number(each["values"].get(run)) for each in ranked[:12])] for run in runs])
