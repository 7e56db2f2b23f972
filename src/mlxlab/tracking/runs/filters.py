"""Conditions on runs, `metrics.valid/accuracy > 0.8 and params.model.name = bert`, as a condition of SQL.

    filter     conditions joined by `and`, `or`, `not` and parentheses
    condition  FIELD = VALUE, also with != < <= > >=; FIELD in (VALUE, ...); FIELD like 'bert%'
    FIELD      metrics.KEY (latest value), params.KEY, tags.KEY or one of ATTRIBUTES; spaces of a KEY in `backquotes`
    VALUE      a number, a word, or a text in quotes; times as 2026-01-31 or 2026-01-31T12:00

In a pattern of `like`, % is any text and _ any character. A run without the field meets no condition on it, also none
with `!=`. Parameters are compared as numbers if VALUE is one.
"""

import math
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from mlxlab.errors import ConfigError
from mlxlab.tracking.mlflow.client import clean

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
EQUALITY = ("=", "!=")
ORDER = (*EQUALITY, "<", "<=", ">", ">=")
TEXT = (*EQUALITY, "in", "like")
# The operators of metrics.KEY, ...
GROUPS = {"metrics": ORDER, "params": (*ORDER, "in", "like"), "tags": TEXT}
# ... and of attributes, with their columns in the query of a reader: the runs `r`, the experiments `e`.
ATTRIBUTES = {
    "id": ("r.run_uuid", TEXT),
    "uid": ("uid", TEXT),
    "name": ("coalesce(r.name, '')", TEXT),
    "experiment": ("e.name", TEXT),
    "status": ("r.status", TEXT),
    "parent": ("parent", TEXT),
    "folder": ("folder", TEXT),
    "start": ("r.start_time", ORDER),
    "end": ("r.end_time", ORDER),
    "seconds": ("(r.end_time - r.start_time) / 1000.0", ORDER),
}
MAX_DOUBLE = 1.7976931348623157e308  # MLflow stores infinities as this

_CONSTANTS = {"true": "True", "false": "False", "null": "None"}  # in YAML -> as parameters
_GLOB = str.maketrans({"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"})

_VALUE = r"""(?:'[^']*'|"[^"]*"|[^\s()=<>!,'"`]+)"""
_value = re.compile(_VALUE)
_token = re.compile(
    r"""\s+|(?:and|or|not)\b|[()]"""
    r"""|(?P<field>(?:`[^`]*`|[^\s()=<>!,'"`])+)\s*(?P<operator><=|>=|!=|==?|<|>|\blike\b)\s*"""
    rf"""(?P<value>{_VALUE})"""
    rf"""|(?P<member>(?:`[^`]*`|[^\s()=<>!,'"`])+)\s+in\s*\(\s*(?P<values>{_VALUE}(?:\s*,\s*{_VALUE})*)\s*\)"""
    r"""|(?P<rest>.+)""",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Filter:
    """A condition of SQL with the values of its variables, and the (group, key) of its metrics, params and tags."""

    sql: str
    values: tuple[object, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()


def parse_filter(text: str) -> Filter:
    """Raises ConfigError for what is no filter."""
    conditions: list[Filter] = []

    def to_sql(token: re.Match[str]) -> str:
        if token["rest"]:
            expected = "expected a condition such as metrics.valid/loss < 0.5"
            raise ConfigError(f"filter: {expected}, got {token['rest'][:60]!r}")
        if token["value"] is None and token["values"] is None:
            return token[0]
        conditions.append(_condition(token))
        return conditions[-1].sql

    sql = _token.sub(to_sql, text)
    joined = all_of(conditions)
    shape = _token.sub(lambda token: "1" if token["value"] or token["values"] else token[0], text)
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.execute(f"select {shape}")
    except sqlite3.Error as error:
        expected = "expected conditions joined by `and`, `or`, `not` and parentheses"
        raise ConfigError(f"filter: {expected} ({error})") from None
    return Filter(f"({sql})", joined.values, joined.keys)


def attribute_is(name: str, value: str) -> Filter:
    """The runs with this value of an attribute."""
    column, _ = ATTRIBUTES[name]
    return Filter(f"{column} = ?", (value,))


def all_of(filters: Sequence[Filter]) -> Filter:
    """The runs that meet all filters."""
    return Filter(
        " and ".join(each.sql for each in filters),
        tuple(chain.from_iterable(each.values for each in filters)),
        tuple(chain.from_iterable(each.keys for each in filters)),
    )


def check_status(option: str, status: str) -> None:
    if status not in STATUSES:
        raise ConfigError(f"{option}={status}: expected one of {', '.join(STATUSES)}")


def number(text: object) -> float | None:
    """A stored parameter as a number; None if it is none."""
    with suppress(ValueError):
        return float(str(text))
    return None


def _condition(token: re.Match[str]) -> Filter:
    """The condition that a token is."""
    group, key = _split_field(token["field"] or token["member"])
    column, operators = ("value", GROUPS[group]) if key else ATTRIBUTES[group]
    operator = (token["operator"] or "in").lower().replace("==", "=")
    if operator not in operators:
        raise ConfigError(f"filter: {token[0][:60]}: expected one of {' '.join(operators)}")
    words = _value.findall(token["value"] or token["values"])
    if _is_numeric(group, operator, operators, words[0]):
        value = _number(group, words[0])
        if value is None or (math.isnan(value) and operator not in EQUALITY):
            is_time = group in ("start", "end")
            expected = "a time such as 2026-01-31 or 2026-01-31T12:00" if is_time else "a number"
            raise ConfigError(f"filter: {token[0][:60]}: expected {expected}")
        if group == "params":
            column = "number(value)"
            operator = "is not" if operator == "!=" else operator  # no number is not equal to one
        elif group == "metrics":
            column = "case when not is_nan then value end"
            if math.isnan(value):
                operator = "is" if operator == "=" else "is not"  # SQLite binds NaN as NULL.
            else:
                value = max(-MAX_DOUBLE, min(MAX_DOUBLE, value))
        comparison = Filter(f"{column} {operator} ?", (value,))
    else:
        comparison = _compare_texts(column, group, operator, words)
    if not key:
        return Filter(f"coalesce({comparison.sql}, 0)", comparison.values)
    table = "latest_metrics" if group == "metrics" else group
    where = f"run_uuid = r.run_uuid and key = ? and {comparison.sql}"
    values = (clean(key), *comparison.values)
    return Filter(f"exists (select 1 from {table} where {where})", values, ((group, key),))


def _split_field(word: str) -> tuple[str, str]:
    """(group, key) of a metric, parameter or tag; (name, "") of an attribute."""
    name = word.replace("`", "").removeprefix("attributes.")
    group, _, key = name.partition(".")
    if name not in ATTRIBUTES and not (group in GROUPS and key):
        fields = ", ".join([*(f"{group}.KEY" for group in GROUPS), *ATTRIBUTES])
        raise ConfigError(f"filter: {word[:60]}: unknown field; expected one of {fields}")
    return group, key


def _is_numeric(group: str, operator: str, operators: Sequence[str], word: str) -> bool:
    """Whether a value is compared as a number: for a parameter it depends on the value."""
    if group != "params" or operator not in EQUALITY:
        return operator in ORDER and operators is not TEXT
    return _number(group, word) is not None


def _number(group: str, word: str) -> float | None:
    """A number, or a time in ms; None for what is none. Only metrics may be NaN, and a text in quotes is a text."""
    if group in ("start", "end"):
        with suppress(ValueError, OverflowError, OSError):
            return 1000 * datetime.fromisoformat(_unquote(word)).timestamp()
        return None
    value = number(word if group == "params" else _unquote(word))
    if value is not None and math.isnan(value) and group != "metrics":
        return None
    return value


def _unquote(word: str) -> str:
    return word[1:-1] if word[0] in "'\"" else word


def _compare_texts(column: str, group: str, operator: str, words: list[str]) -> Filter:
    texts = [_unquote(word) for word in words]
    if group == "params":
        texts = [_CONSTANTS.get(word, text) for word, text in zip(words, texts, strict=True)]
    if operator == "like":
        return Filter(f"{column} glob ?", (texts[0].translate(_GLOB),))
    if group == "status":
        texts = [text.upper() for text in texts]
        for status in texts:
            check_status("filter: status", status)
    if operator == "in":
        variables = ", ".join("?" * len(texts))
        return Filter(f"{column} in ({variables})", tuple(texts))
    return Filter(f"{column} {operator} ?", (texts[0],))
