"""The most confident mistakes of a classification, or the largest errors of a regression, in a report."""

from contextlib import suppress
from pathlib import PurePath

from mlxlab.experiment.run_report.results import Results
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.html.blocks import Block, Column, Paragraph, Table
from mlxlab.wording import counted

_MAX_MISTAKES, _FEW_MISTAKES, _MAX_TEXT = 10, 3, 250
_TIE = 0.01  # probabilities that differ by less are equal


def title_of_mistakes(files: RunFiles) -> str:
    return (
        "Largest errors"
        if files.mistakes and files.mistakes[0][-1] == "error"
        else "Most confident mistakes"
    )


def list_mistakes(files: RunFiles, results: Results) -> list[Block]:
    """Those of the same text once; few of them where their order says little."""
    if len(files.mistakes) < 2:
        return []
    head, *rows = files.mistakes
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[1:4]) if row[1] else (row[0],), []).append(row)
    doubt = _doubt(head[-1], [row[-1] for row in rows], results)
    shown = [*groups.values()][: _FEW_MISTAKES if doubt else _MAX_MISTAKES]
    order = [4, 2, 3, 1, 0]  # text after what matters, so that phones show it
    columns = [
        Column(head[n], is_text=head[n] == "text", is_number=head[n] in ("id", head[-1]))
        for n in order
    ]
    cells = [
        [*(_shortened(group[0][n]) for n in order[:-1]), PurePath(group[0][0]).name]
        for group in shown
    ]
    if any(len(group) > 1 for group in shown):
        columns.append(Column("rows", is_number=True))
        cells = [[*row, str(len(group))] for row, group in zip(cells, shown, strict=True)]
    rest = len(groups) - len(shown)
    noun = (
        "row" if head[-1] == "error" else "different text" if len(groups) < len(rows) else "mistake"
    )
    more = (
        f"; {counted(rest, f'more {noun}')} there{_all_mistakes(files, len(rows))}" if rest else ""
    )
    rows_of = "validation rows"
    if files.metrics and files.metrics.get("out_of_fold"):
        rows_of += ", and of the training rows out of fold"
    note = f"Of the {rows_of}. Whole texts are in mistakes.csv{more}."
    return [
        *([Paragraph(doubt)] if doubt else []),
        Table(columns, cells),
        Paragraph(note, is_note=True),
    ]


def _all_mistakes(files: RunFiles, listed: int) -> str:
    """How many validation rows of a classification are wrong, if the file lists a part of them."""
    metrics, task = files.metrics, files.facts.get("task")
    accuracy = (
        metrics["metrics"].get("valid/accuracy") if metrics and task == "classification" else None
    )
    if metrics is None or accuracy is None:
        return ""
    wrong = round((1 - accuracy) * metrics.get("rows", {}).get("valid", 0))
    if wrong < listed:
        return ""
    return f", which lists {f'all {wrong:,}' if wrong == listed else f'{listed:,} of {wrong:,}'} wrong rows"


def _doubt(kind: str, values: list[str], results: Results) -> str:
    """Why the order of the mistakes says little: a sentence, or ""."""
    if results.may_be_chance:
        return f"This model is not clearly better than {results.weakest}: its mistakes say little about these rows."
    if kind != "probability" or len(values) <= _FEW_MISTAKES:
        return ""
    with suppress(ValueError):
        high, low = (float(values[n]) for n in (0, min(_MAX_MISTAKES, len(values)) - 1))
        if high - low < _TIE:
            span = f"{low:.4f} to {high:.4f}" if low < high else f"{high:.4f}"
            count = min(_MAX_MISTAKES, len(values))
            equal = f"The {count} most confident mistakes are about equally so ({span})"
            return f"{equal}: their order says little, so that few are shown."
    return ""


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} ..."
