"""Jinja's sandbox as chat templates expect it: the options, filters and functions that transformers gives them.

Templates are programs of strangers. The sandbox allows no private attributes, no changes of arguments and no `range`
above 100,000. Beyond that a template may execute `MAX_LINES` lines and build texts of `MAX_OUTPUT` characters by the
operators `*`, `+` and `~` and by `replace`.
"""

import json
import sys
from collections.abc import Callable
from datetime import datetime
from types import BuiltinMethodType, FrameType, MethodType
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_LINES = 1_000_000  # lines of the compiled template that one conversation may execute
MAX_OUTPUT = 2**24  # characters
ANSWER_START, ANSWER_END = (
    "\ufdd0",
    "\ufdd1",
)  # around {% generation %} blocks; no text holds noncharacters
TODAY = datetime(
    2025, 1, 1
)  # constant: a run that is resumed on another day must render the same text
MAX_INTEGER = 2**64
MAX_INDENT = 16
PADDING = (
    "center",
    "ljust",
    "rjust",
    "zfill",
    "expandtabs",
    "format",
    "format_map",
    "indent",
)  # of a width of any size
SLOW = (
    "urlize",
)  # filters that take much longer than reading the text: 2 million characters half a minute


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with limits on what operators may build."""

    intercepted_binops = frozenset(["*", "**", "%", "+"])

    def wrap_str_format(self, value: Any) -> None:
        """No text is formatted, so that `is_safe_attribute` refuses it."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuses the methods of text that pad it, too."""
        return not (isinstance(obj, str) and attr in PADDING) and super().is_safe_attribute(
            obj, attr, value
        )

    def call(
        __self, __context: jinja2.runtime.Context, __obj: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Limits the method `replace` of text as the filter is."""
        is_method = isinstance(__obj, BuiltinMethodType | MethodType)
        if is_method and isinstance(__obj.__self__, str) and __obj.__name__ == "replace":
            return _replace_limited(__obj.__self__, *args, **kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """Raises OverflowError for results that are too large, before they are computed."""
        sizes = [len(each) for each in (left, right) if isinstance(each, str | list | tuple)]
        numbers = [abs(each) for each in (left, right) if isinstance(each, int)]
        if operator == "**" and (len(numbers) < 2 or numbers[1] > 64 or numbers[0] > MAX_INTEGER):
            raise OverflowError("a power that is too large")
        if operator == "%" and sizes:
            raise OverflowError("the operator % does not format text here")
        too_large = operator == "*" and sizes and sizes[0] * max(numbers, default=0) > MAX_OUTPUT
        if too_large or sum(sizes) > MAX_OUTPUT or max(numbers, default=0) > MAX_INTEGER**2:
            raise OverflowError(f"the operator {operator} would build more than {MAX_OUTPUT} items")
        return super().call_binop(context, operator, left, right)


class Generation(jinja2.ext.Extension):
    """`{% generation %}`: marks what the assistant writes."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        return f"{ANSWER_START}{caller()}{ANSWER_END}"


def compile_template(source: str) -> jinja2.Template:
    """The compiled template; raises what Jinja does, for example TemplateSyntaxError."""
    extensions = [Generation, jinja2.ext.loopcontrols]
    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    for name in (*PADDING, *SLOW):
        environment.filters.pop(name, None)
    environment.filters["tojson"] = _to_json
    environment.filters["replace"] = _replace_limited
    environment.globals = {
        "range": environment.globals["range"],
        "dict": dict,
        "namespace": environment.globals["namespace"],
        "raise_exception": _raise_exception,
        "strftime_now": TODAY.strftime,
    }
    template = environment.from_string(source)
    template.root_render_func.__globals__["str_join"] = _join_limited  # the operator ~
    return template


def run_limited(render: Callable[[], str]) -> str:
    """The result of `render`; raises TimeoutError once the template has executed `MAX_LINES` lines.

    Counting lines rather than seconds gives the same outcome on every machine.
    """
    lines = 0

    def trace_lines(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        lines += 1
        if lines > MAX_LINES:
            raise TimeoutError(f"stopped after {MAX_LINES} lines: does it loop without end?")
        return trace_lines

    def trace_calls(frame: FrameType, event: str, arg: object) -> Any:
        return trace_lines if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(trace_calls)
    try:
        return render()
    finally:
        sys.settrace(before)


def _join_limited(pieces: Any) -> str:
    texts = [str(piece) for piece in pieces]
    if sum(map(len, texts)) > MAX_OUTPUT:
        raise OverflowError(f"the operator ~ would build more than {MAX_OUTPUT} characters")
    return "".join(texts)


def _replace_limited(value: object, old: object, new: object, count: int | None = None) -> str:
    text, before, after = str(value), str(old), str(new)
    limit = -1 if count is None else count
    replaced = text.count(before) if limit < 0 else min(text.count(before), limit)
    if len(text) + replaced * (len(after) - len(before)) > MAX_OUTPUT:
        raise OverflowError(f"replace would build more than {MAX_OUTPUT} characters")
    return text.replace(before, after, limit)


def _to_json(
    value: object, ensure_ascii: bool = False, indent: int | None = None, **options: Any
) -> str:
    if indent is not None and not 0 <= indent <= MAX_INDENT:
        raise OverflowError(f"tojson: expected an indent of 0 to {MAX_INDENT}, got {indent}")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: object) -> None:
    raise jinja2.TemplateError(str(message))
