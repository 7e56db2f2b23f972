"""Makes text of strangers harmless in HTML, Markdown and a terminal.

Each output has one function from any value to `Markup`, which Jinja's `finalize` applies to every
value of every template: nothing reaches an output without it.
"""

import re
from collections.abc import Callable
from typing import TypeAlias

from markupsafe import Markup, escape

from mlxlab.terminal.redact import redact

MAX_TEXT = 20_000  # characters of one value
Escape: TypeAlias = Callable[[object], Markup]
# Control characters, lone surrogates, and those that reorder or hide the text around them.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_MARKDOWN = re.compile(r"[\\`*|\[\]~]|(?<!\w)_|_(?!\w)|^[#=]|^[-+](?=\s)|^\d+(?=[.)](\s|$))")
_BREAKS = str.maketrans("\n\t", "  ")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_LONG_WORD = re.compile(r"[^\s<>&;]{24,}")
_JOINT = re.compile(r"[/_,=-](?=\w)")


def clean(text: str) -> str:
    """Text without control characters and credentials, of bounded length; line breaks stay."""
    visible = _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text[:MAX_TEXT])
    if len(text) > MAX_TEXT:
        visible = f"{visible} ... (shortened)"
    return redact(visible)


def one_line(value: object) -> str:
    return clean(str(value)).translate(_BREAKS)


def html(value: object) -> Markup:
    """Escapes for HTML; long words may break at their joints."""
    if isinstance(value, Markup):
        return value
    text = str(escape(clean(str(value))))
    return Markup(_LONG_WORD.sub(lambda word: _JOINT.sub(r"\g<0><wbr>", word[0]), text))


def verbatim(value: object) -> Markup:
    """Escapes for `<pre>` and attributes, where nothing may be inserted."""
    return escape(clean(str(value)))


def markdown(value: object) -> Markup:
    if isinstance(value, Markup):
        return value
    text = _MARKDOWN.sub(r"\\\g<0>", one_line(value))
    return Markup(text.translate(_ENTITIES))


def terminal(value: object) -> Markup:
    if isinstance(value, Markup):
        return value
    return Markup(one_line(value))
