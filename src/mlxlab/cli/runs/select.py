"""Which runs of a store are read: by the words of the command line."""

from mlxlab.errors import ConfigError
from mlxlab.experiment.past_run.lookup import find_run
from mlxlab.tracking.mlflow.client import clean
from mlxlab.tracking.runs.filters import AllOf, Condition, Expression, conditions, parse_filter
from mlxlab.tracking.runs.reader import Kind, RunReader

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
_KINDS: dict[str, Kind] = {"metrics": "metrics", "params": "params", "tags": "tags"}


def read_filter(reader: RunReader, text: str) -> Expression:
    """A filter whose metrics, parameters and tags are in the store; raises ConfigError."""
    expression = parse_filter(text)
    for condition in conditions(expression):
        if condition.key:
            check_keys(reader, "filter", [condition.key], condition.group)
        elif condition.group == "status":
            values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
            for value in values if condition.operator != "like" else ():
                check_status("filter: status", str(value))
    return expression


def check_keys(reader: RunReader, option: str, keys: list[str], group: str) -> None:
    """Raises ConfigError for a key that no run in the store has."""
    known = reader.names(_KINDS[group])
    for key in keys:
        if clean(key) not in known:
            prefix = f"{group}." if option == "filter" else ""
            raise ConfigError(f"{option}={prefix}{key}: not in the store")


def check_status(option: str, status: str) -> None:
    if status not in STATUSES:
        raise ConfigError(f"{option}={status}: expected one of {', '.join(STATUSES)}")


def select(
    reader: RunReader,
    text: str | None,
    status: str | None,
    experiment: str | None,
    sweep: str | None,
) -> Expression | None:
    """The runs that meet all of: a filter, a status, an experiment, a sweep that they are jobs of."""
    parts: list[Expression] = []
    if text is not None:
        parts.append(read_filter(reader, text))
    if status is not None and status.lower() != "all":
        check_status("status", status.upper())
        parts.append(Condition("status", "", "=", status.upper()))
    if experiment is not None:
        if experiment not in reader.names("experiments"):
            raise ConfigError(f"experiment={experiment}: not in the store")
        parts.append(Condition("experiment", "", "=", experiment))
    if sweep == "":
        raise ConfigError(
            "sweep=: a value is missing; expected the run of a sweep, by its id or name"
        )
    if sweep is not None:
        parts.append(Condition("parent", "", "=", find_run(reader, sweep).run_id))
    return AllOf(tuple(parts)) if parts else None
