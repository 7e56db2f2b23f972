"""Which store is read, and which of its runs: by the words of the command line."""

from mlxlab.config.paths import project_root
from mlxlab.config.suggest import did_you_mean, nearest, suggestion
from mlxlab.errors import ConfigError
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.client import clean
from mlxlab.tracking.runs.filters import AllOf, Condition, Expression, conditions, parse_filter
from mlxlab.tracking.runs.reader import Kind, RunReader, RunRow
from mlxlab.tracking.runs.sqlite_reader import SqliteRunReader

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
_KINDS: dict[str, Kind] = {"metrics": "metrics", "params": "params", "tags": "tags"}


def open_reader(uri: str | None) -> RunReader:
    """Reads an SQLite store directly, any other through MLflow's client, which is slow to import."""
    address = resolve(uri, None, project_root())
    if address.database:
        return SqliteRunReader(address.database)
    from mlxlab.tracking.runs.mlflow_reader import MlflowRunReader

    return MlflowRunReader(address)


def find_run(reader: RunReader, query: str) -> RunRow:
    """The only run that `query` names; raises ConfigError if there is none, or if there are several."""
    matches = reader.find_runs(query)
    matches = [run for run in matches if run.run_id == query] or matches
    if not matches:
        raise ConfigError(f"{query}: no such run{suggestion(query, reader.names('runs'))}")
    if len(matches) > 1:
        ids = ", ".join(f"{run.run_id[:8]} ({run.name})" for run in matches[:5])
        raise ConfigError(f"{query}: matches {len(matches)} runs: {ids}")
    return matches[0]


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
    """Raises ConfigError, with the nearest key, for one that no run in the store has."""
    known = reader.names(_KINDS[group])
    for key in keys:
        if clean(key) not in known:
            prefix = f"{group}." if option == "filter" else ""
            near = nearest(key, known)
            raise ConfigError(f"{option}={prefix}{key}: not in the store{did_you_mean(near and prefix + near)}")


def check_status(option: str, status: str) -> None:
    if status not in STATUSES:
        expected = f"expected one of {', '.join(STATUSES)}{suggestion(status, STATUSES)}"
        raise ConfigError(f"{option}={status}: {expected}")


def select(
    reader: RunReader, text: str | None, status: str | None, experiment: str | None, sweep: str | None
) -> Expression | None:
    """The runs that meet all of: a filter, a status, an experiment, a sweep that they are jobs of."""
    parts: list[Expression] = []
    if text is not None:
        parts.append(read_filter(reader, text))
    if status is not None:
        check_status("status", status.upper())
        parts.append(Condition("status", "", "=", status.upper()))
    if experiment is not None:
        if experiment not in (known := reader.names("experiments")):
            raise ConfigError(f"experiment={experiment}: not in the store{suggestion(experiment, known)}")
        parts.append(Condition("experiment", "", "=", experiment))
    if sweep is not None:
        parts.append(Condition("parent", "", "=", find_run(reader, sweep).run_id))
    return AllOf(tuple(parts)) if parts else None
