"""A page as one HTML file: readable without scripts, on a phone, in the dark and in print; it requests nothing.

Whatever is shown may come from strangers: it is escaped, without credentials and control characters, and limited.
"""

import base64
import hashlib
import re
from pathlib import Path

from mlxlab.errors import WriteError
from mlxlab.files.atomic import write_atomic
from mlxlab.html.blocks import Page, Table
from mlxlab.redact import redact

MAX_TEXT = 20_000  # characters of one text
# Control characters and lone surrogates, and those that change the direction of the text around them.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_PERCENT = re.compile(r"(?<=\d) (?=%)")
_SLASH, _SEPARATOR = re.compile(r"(?<=[^/=])/(?=.)|=(?=.)"), re.compile(r"[_,-](?=\w)")
_SORT = """
for (const head of document.querySelectorAll(".sortable th")) head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex, up = head.dataset.up !== "1";
  head.dataset.up = up ? "1" : "0";
  const text = row => row.cells[column].innerText, value = row => parseFloat(text(row));
  const compare = (a, b) => isNaN(value(a)) || isNaN(value(b)) ? text(a).localeCompare(text(b)) : value(a) - value(b);
  for (const row of [...body.rows].sort((a, b) => up ? compare(a, b) : compare(b, a))) body.append(row);
});
"""


def render_page(page: Page) -> str:
    """The page as HTML; the same page is the same text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup, escape

    def shown(value: object) -> object:
        return (
            _unbroken(clean(value))
            if isinstance(value, str) and not isinstance(value, Markup)
            else value
        )

    def breakable(text: str) -> Markup:
        return Markup(_breakable(str(escape(clean(text)))))

    template = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    settings = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    environment = Environment(autoescape=True, finalize=shown, **settings)
    environment.filters["breakable"] = lambda text: breakable(_unbroken(text))
    environment.filters["breakable_command"] = breakable
    environment.filters["verbatim"] = lambda text: Markup(escape(clean(text)))
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    is_sortable = any(
        isinstance(block, Table) and block.is_sortable
        for each in page.sections
        for block in each.blocks
    )
    script = _SORT if is_sortable else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(template).render(
        page=page,
        script=Markup(script),
        policy=Markup(f"; script-src 'sha256-{digest}'" if script else ""),
    )


def _unbroken(text: str) -> str:
    """With no-break spaces in `9.4 %`; not for what is copied, such as commands."""
    return _PERCENT.sub("\u00a0", text)


def _breakable(html: str) -> str:
    """Escaped text whose lines may break at slashes and before values, and between the parts of what is longer."""
    html = re.sub(r"[^\s<>&;]{18,}", lambda word: _SLASH.sub(r"\g<0><wbr>", word[0]), html)
    return re.sub(r"[^\s<>&;/]{30,}", lambda word: _SEPARATOR.sub(r"\g<0><wbr>", word[0]), html)


def write_page(page: Page, path: Path) -> Path:
    """Writes a page as an HTML file; WriteError if that fails."""
    try:
        write_atomic(path, render_page(page).encode("utf-8"))
    except OSError as error:
        raise WriteError(
            f"{path}: {error.strerror or error}; the report cannot be written"
        ) from None
    return path


def clean(text: str) -> str:
    """Text as it is shown."""
    text = _HIDDEN.sub(" ", text[: MAX_TEXT + 1])
    return redact(text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ... (shortened)")
