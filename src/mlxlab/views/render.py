"""Templates with values: HTML, Markdown and text for a terminal, each escaped in its own way."""

from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from mlxlab.schema.metric_names import plain_key
from mlxlab.terminal.wording import counted, percent
from mlxlab.views import commands, escape, numbers, plots, run_tables
from mlxlab.views.tables import Table

FOLDER = Path(__file__).with_name("templates")
_ESCAPES = {"html": escape.html, "md": escape.markdown, "txt": escape.terminal}


def render(template: str, **values: Any) -> str:
    """A template of the folder; its suffix (html, md, txt) chooses how values are escaped."""
    environment = _environment(template.rpartition(".")[2])
    return environment.get_template(template).render(**values)


def phrase(name: str, subject: object) -> str:
    """A phrase of `words.html` as plain text."""
    words = _environment("txt").get_template("words.html").module
    return str(getattr(words, name)(subject)).strip()


def sentence(text: str, values: dict[str, object]) -> str:
    """A template of one sentence or two as plain text."""
    return _compiled(text).render(values).strip()


@cache
def _compiled(text: str) -> Template:
    return _environment("txt").from_string(text)


@cache
def _environment(output: str) -> Environment:
    """Every value passes `finalize`, and only `Markup` passes it unchanged."""
    finalize = _ESCAPES[output]
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": numbers.number,
        "signed": numbers.signed,
        "rounded": numbers.rounded,
        "interval": numbers.interval,
        "short": numbers.short,
        "duration": numbers.duration,
        "moment": numbers.moment,
        "tick": plots.label,
        "count": counted,
        "grouped": "{:,}".format,
        "percent": percent,
        "title": numbers.title,
        "metric": plain_key,
        "baseline": numbers.baseline_name,
        "verbatim": escape.verbatim,
        "table": partial(Table.markdown, escape=finalize),
        "listed": partial(_listed, finalize=finalize),
    }
    environment.globals |= {"tables": run_tables, "commands": commands}
    return environment


def _listed(names: list[str], limit: int, finalize: escape.Escape) -> Markup:
    """`a, b, c and 7 more`."""
    shown = ", ".join(finalize(name) for name in names[:limit])
    more = len(names) - limit
    if more > 0:
        shown = f"{shown} and {more:,} more"
    return Markup(shown)
