"""Which runs of a store are read: by the words of the command line."""

from mlxlab.errors import ConfigError
from mlxlab.experiment.past_run.lookup import find_run
from mlxlab.tracking.mlflow.client import clean
from mlxlab.tracking.runs.filters import Filter, all_of, attribute_is, check_status, parse_filter
from mlxlab.tracking.runs.reader import Kind, RunReader

_KINDS: dict[str, Kind] = {"metrics": "metrics", "params": "params", "tags": "tags"}


def read_filter(reader: RunReader, text: str) -> Filter:
    """A filter whose metrics, parameters and tags are in the store; raises ConfigError."""
    where = parse_filter(text)
    for group, key in where.keys:
        check_keys(reader, f"filter={group}.", [key], group)
    return where


def check_keys(reader: RunReader, prefix: str, keys: list[str], group: str) -> None:
    """Raises ConfigError, which begins with `prefix`, for a key that no run in the store has."""
    known = reader.names(_KINDS[group]) if keys else []
    for key in keys:
        if clean(key) not in known:
            raise ConfigError(f"{prefix}{key}: not in the store")


def select(
    reader: RunReader,
    text: str | None,
    status: str | None,
    experiment: str | None,
    sweep: str | None,
) -> Filter | None:
    """The runs that meet all of: a filter, a status, an experiment, a sweep that they are jobs of."""
    filters: list[Filter] = []
    if text is not None:
        filters.append(read_filter(reader, text))
    if status is not None and status.lower() != "all":
        check_status("status", status.upper())
        filters.append(attribute_is("status", status.upper()))
    if experiment is not None:
        if experiment not in reader.names("experiments"):
            raise ConfigError(f"experiment={experiment}: not in the store")
        filters.append(attribute_is("experiment", experiment))
    if sweep == "":
        raise ConfigError("sweep=: a value is missing; expected the id or name of a sweep")
    if sweep is not None:
        filters.append(attribute_is("parent", find_run(reader, sweep).run_id))
    return all_of(filters) if filters else None
