"""Conditions on runs: `metrics.valid/accuracy > 0.8 and params.model.name = bert`, as a tree.

    expression  conditions joined by `and`, `or`, `not` and parentheses
    condition   FIELD = VALUE, also with != < <= > >=; FIELD in (VALUE, ...); FIELD like 'bert%'
    FIELD       metrics.KEY (latest value), params.KEY, tags.KEY or one of ATTRIBUTES; spaces of a KEY in `backquotes`
    VALUE       a number, a word, or a text in quotes; times as 2026-01-31 or 2026-01-31T12:00

In a pattern of `like`, % is any text and _ any character. A run without the field meets no condition on it, also none
with `!=`. Parameters are compared as numbers if VALUE is one.
"""

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

from mlxlab.errors import ConfigError

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "like"]
Value: TypeAlias = float | str | tuple[str, ...]
TEXTS = ("id", "uid", "name", "experiment", "status", "parent", "folder")
TIMES = ("start", "end")
ATTRIBUTES = (*TEXTS, *TIMES, "seconds")
GROUPS = ("metrics", "params", "tags")
MAX_CONDITIONS = 100
MAX_DEPTH = 30  # of parentheses and `not`
MAX_LENGTH = 20_000

_CONSTANTS = {
    "true": "True",
    "false": "False",
    "null": "None",
}  # in YAML -> as parameters are stored
_token = re.compile(
    r"""\s+ | (?P<operator><=|>=|!=|==|=|<|>) | (?P<punctuation>[(),])
      | '(?P<single>[^']*)' | "(?P<double>[^"]*)" | (?P<word>(?:`[^`]*`|[^\s()=<>!,'"`])+)""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Condition:
    """One comparison. `key` is "" for an attribute, whose name is `group`; times are in ms since 1970."""

    group: str
    key: str
    operator: Operator
    value: Value

    @property
    def field(self) -> str:
        return f"{self.group}.{self.key}" if self.key else self.group


@dataclass(frozen=True)
class Not:
    part: "Expression"


@dataclass(frozen=True)
class AllOf:
    parts: tuple["Expression", ...]


@dataclass(frozen=True)
class AnyOf:
    parts: tuple["Expression", ...]


Expression: TypeAlias = Condition | Not | AllOf | AnyOf


def parse_filter(text: str) -> Expression:
    """Raises ConfigError, which says where the text is not a filter."""
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"filter: expected at most {MAX_LENGTH} characters, got {len(text)}")
    parser = _Parser(text)
    expression = parser.alternatives(0)
    if parser.kind:
        raise parser.error("`and`, `or` or the end")
    if len(conditions(expression)) > MAX_CONDITIONS:
        raise ConfigError(
            f"filter: expected at most {MAX_CONDITIONS} conditions, got {len(conditions(expression))}"
        )
    return expression


def conditions(expression: Expression) -> list[Condition]:
    """All conditions of an expression, in their order."""
    if isinstance(expression, Condition):
        return [expression]
    parts = (expression.part,) if isinstance(expression, Not) else expression.parts
    return [condition for part in parts for condition in conditions(part)]


def number(text: object) -> float | None:
    """A stored parameter as a number; None if it is none."""
    with suppress(ValueError):
        return float(str(text))
    return None


@lru_cache(maxsize=100)
def like_pattern(pattern: str) -> re.Pattern[str]:
    """An SQL pattern, `%` for any text and `_` for any character, as a regular expression; case counts."""
    first, *others = (
        "".join("." if char == "_" else re.escape(char) for char in part)
        for part in pattern.split("%")
    )
    if not others:
        return re.compile(first, re.DOTALL)
    # Atomic groups: what the first match of a part leaves is enough for the next, so that no other one is tried.
    middle = "".join(f"(?>.*?{part})" for part in others[:-1])
    return re.compile(f"{first}{middle}.*{others[-1]}", re.DOTALL)


class _Parser:
    """Recursive descent; `kind` and `word` are the next token, "" at the end."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self.kind = self.word = ""
        self._advance()

    def alternatives(self, depth: int) -> Expression:
        parts = [self._conjunction(depth)]
        while self._take("or"):
            parts.append(self._conjunction(depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def error(self, expected: str) -> ConfigError:
        place = f", got {self.word[:60]!r}" if self.kind else " at the end"
        return ConfigError(f"filter: expected {expected}{place}")

    def _conjunction(self, depth: int) -> Expression:
        parts = [self._term(depth)]
        while self._take("and"):
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _term(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise ConfigError(f"filter: expected at most {MAX_DEPTH} levels of parentheses")
        if self._take("not"):
            return Not(self._term(depth + 1))
        if self._take("("):
            inner = self.alternatives(depth + 1)
            self._expect(")")
            return inner
        return self._condition()

    def _condition(self) -> Condition:
        if self.kind != "word":
            raise self.error("a field such as metrics.valid/loss")
        group, key = _field(self._advance())
        if self._take("in"):
            return Condition(group, key, "in", self._texts(group))
        operator = self._operator()
        quoted, text = self.kind == "text", self._value(group)
        return Condition(group, key, operator, _typed(group, key, operator, text, quoted))

    def _operator(self) -> Operator:
        word = {"==": "="}.get(self.word, self.word.lower())
        for operator in get_args(Operator):
            if operator == word and self.kind in ("operator", "word"):
                self._advance()
                return operator
        raise self.error(f"one of {' '.join(get_args(Operator))}")

    def _texts(self, group: str) -> tuple[str, ...]:
        if group not in ("params", "tags", *TEXTS):
            raise ConfigError(f"filter: {group}: `in` is for texts: expected one of = != < <= > >=")
        self._expect("(")
        values = [self._value(group)]
        while self._take(","):
            values.append(self._value(group))
        self._expect(")")
        return tuple(values)

    def _value(self, group: str) -> str:
        if self.kind not in ("word", "text"):
            raise self.error("a value")
        is_word, text = self.kind == "word", self._advance()
        if group == "status":
            return text.upper()
        return _CONSTANTS.get(text, text) if is_word and group == "params" else text

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise self.error(f"`{word}`")

    def _take(self, word: str) -> bool:
        matches = self.kind in ("word", "punctuation") and self.word.lower() == word
        if matches:
            self._advance()
        return matches

    def _advance(self) -> str:
        """Returns the token, and moves to the next one."""
        before = self.word
        self.kind, self.word = next(self._tokens, ("", ""))
        return before


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """(operator, punctuation, word or text; its characters) of each token."""
    end = 0
    while end < len(text):
        match = _token.match(text, end)
        if match is None:
            raise ConfigError(
                f"filter: {text[end : end + 40]!r}: a character or quote that cannot stand there"
            )
        end = match.end()
        if kind := match.lastgroup:
            yield ("text" if kind in ("single", "double") else kind), match[kind]


def _field(word: str) -> tuple[str, str]:
    """Group and key of a field."""
    name = word.replace("`", "").removeprefix("attributes.")
    group, _, key = name.partition(".")
    if name not in ATTRIBUTES and not (group in GROUPS and key):
        fields = ", ".join([f"{group}.KEY" for group in GROUPS] + list(ATTRIBUTES))
        raise ConfigError(f"filter: {word[:60]}: unknown field; expected one of {fields}")
    return group, key


def _typed(group: str, key: str, operator: Operator, text: str, quoted: bool) -> Value:
    """The value in the type that the field has, or that the value looks like."""
    field = f"{group}.{key}" if key else group
    is_text = group == "tags" or group in TEXTS
    if operator == "like" and not (is_text or group == "params"):
        raise ConfigError(f"filter: {field} like: expected one of = != < <= > >=")
    if is_text and operator not in ("=", "!=", "like"):
        raise ConfigError(
            f"filter: {field} {operator}: expected one of = != in like, as it is a text"
        )
    if is_text or operator == "like":
        return text
    is_equality = operator in ("=", "!=")
    value = _milliseconds(text) if group in TIMES else number(text)
    if group == "params" and is_equality and (quoted or value is None or math.isnan(value)):
        return text
    if value is None or (math.isnan(value) and not (is_equality and group == "metrics")):
        expected = "a time such as 2026-01-31 or 2026-01-31T12:00" if group in TIMES else "a number"
        raise ConfigError(f"filter: {field} {operator} {text[:60]}: expected {expected}")
    return value


def _milliseconds(text: str) -> float | None:
    with suppress(ValueError, OverflowError, OSError):
        return 1000 * datetime.fromisoformat(text).timestamp()
    return None
