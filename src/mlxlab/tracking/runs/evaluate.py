"""Which runs meet a filter: as a condition of SQL, or of a run in memory. Both say the same."""

import math
import operator
import sqlite3
from collections.abc import Callable
from typing import Any

from mlxlab.tracking.mlflow.client import clean
from mlxlab.tracking.runs.filters import (
    AllOf,
    AnyOf,
    Condition,
    Expression,
    Not,
    like_pattern,
    number,
)
from mlxlab.tracking.runs.reader import RunRow

MAX_DOUBLE = 1.7976931348623157e308  # MLflow stores infinities as this

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COLUMNS = {
    "id": "r.run_uuid",
    "name": "coalesce(r.name, '')",
    "experiment": "e.name",
    "status": "r.status",
    "start": "r.start_time",
    "end": "r.end_time",
    "seconds": "(r.end_time - r.start_time) / 1000.0",
}  # of the others, the aliases in the query of the reader


def add_functions(database: sqlite3.Connection) -> None:
    """Adds the SQL functions that `sql` uses."""
    database.create_function("number", 1, number, deterministic=True)
    database.create_function("matches", 2, _is_like, deterministic=True)


def sql(expression: Expression) -> tuple[str, list[object]]:
    """A condition on the runs `r` of the experiments `e`, and the values of its variables."""
    if isinstance(expression, Condition):
        return _sql_condition(expression)
    if isinstance(expression, Not):
        text, values = sql(expression.part)
        return f"not coalesce({text}, 0)", values
    texts, values = [], []
    for part in expression.parts:
        text, more = sql(part)
        texts.append(text)
        values += more
    word = " and " if isinstance(expression, AllOf) else " or "
    return f"({word.join(texts)})", values


def matches(expression: Expression, run: RunRow) -> bool:
    """True if a complete run, with its metrics, parameters and tags, meets the filter."""
    if isinstance(expression, Not):
        return not matches(expression.part, run)
    if isinstance(expression, AllOf):
        return all(matches(part, run) for part in expression.parts)
    if isinstance(expression, AnyOf):
        return any(matches(part, run) for part in expression.parts)
    stored = _stored(expression, run)
    return stored is not None and _meets(expression, stored)


def _sql_condition(condition: Condition) -> tuple[str, list[object]]:
    if not condition.key:
        return _sql_comparison(condition, _COLUMNS.get(condition.group, condition.group))
    table = "latest_metrics" if condition.group == "metrics" else condition.group
    column = "case when not is_nan then value end" if condition.group == "metrics" else "value"
    comparison, values = _sql_comparison(condition, column)
    text = (
        f"exists (select 1 from {table} where run_uuid = r.run_uuid and key = ? and {comparison})"
    )
    return text, [clean(condition.key), *values]


def _sql_comparison(condition: Condition, column: str) -> tuple[str, list[object]]:
    value = condition.value
    if isinstance(value, tuple):
        return f"{column} in ({','.join('?' * len(value))})", [*value]
    if condition.operator == "like":
        return f"matches({column}, ?)", [value]
    if isinstance(value, str):
        return f"{column} {condition.operator} ?", [value]
    if math.isnan(value):
        return f"{column} is {'not ' * (condition.operator == '!=')}null", []
    value = max(-MAX_DOUBLE, min(MAX_DOUBLE, value)) if condition.group == "metrics" else value
    if condition.group != "params":
        return f"{column} {condition.operator} ?", [value]
    # A parameter that is no number differs from every number.
    comparison = "is not" if condition.operator == "!=" else condition.operator
    return f"number({column}) {comparison} ?", [value]


def _stored(condition: Condition, run: RunRow) -> object:
    """The value that a condition is on; None if the run does not have it."""
    if condition.group == "metrics":
        return run.metrics.get(clean(condition.key))
    if condition.group in ("params", "tags"):
        return (run.params if condition.group == "params" else run.tags).get(clean(condition.key))
    if condition.group == "seconds":
        return None if run.start is None or run.end is None else (run.end - run.start) / 1000
    attributes = {"id": run.run_id, "uid": run.uid, "name": run.name, "experiment": run.experiment}
    attributes |= {"status": run.status, "parent": run.parent, "folder": run.folder}
    return {**attributes, "start": run.start, "end": run.end}[condition.group]


def _meets(condition: Condition, stored: object) -> bool:
    value = condition.value
    if isinstance(value, tuple):
        return stored in value
    if condition.operator == "like":
        return _is_like(str(stored), str(value))
    if condition.group == "params" and isinstance(value, float):
        stored = number(stored)
        if stored is None:
            return condition.operator == "!="
    if condition.group == "metrics" and isinstance(value, float) and isinstance(stored, float):
        if math.isnan(value):
            return math.isnan(stored) == (condition.operator == "=")
        if math.isnan(stored):
            return False
    return _COMPARE[condition.operator](stored, value)


def _is_like(text: str | None, pattern: str) -> bool:
    return text is not None and like_pattern(pattern).fullmatch(text) is not None
