"""Lists, shows and compares tracked runs, and completes what is not in the store yet.

    runs.py list [limit=20] [sort=valid/accuracy] [status=FINISHED] [experiment=mlxlab] [metrics=valid/loss,valid/f1]
    runs.py show RUN
    runs.py compare RUN RUN ...
    runs.py sync [RUN_FOLDER ...]

RUN is the beginning of a run's id, its name, or its folder.

limit       how many runs are listed
sort        metric to order by: losses from the lowest, all others from the highest; else the newest first
status      only these: RUNNING, FINISHED, FAILED, KILLED
experiment  only runs of this experiment
metrics     columns, separated by commas
uri         another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db of the project; `sync` uploads a run that was
            recorded for another store only where this names the store to upload it to
artifacts   for a new experiment: another folder or URI than MLFLOW_ARTIFACT_ROOT or `artifacts` by the database
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.config.paths import project_root
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError, UserError

if TYPE_CHECKING:
    from mlxlab.tracking.mlflow.address import Address
    from mlxlab.tracking.runs.mlflow_reader import MlflowRunReader
    from mlxlab.tracking.runs.sqlite_reader import RunRow, SqliteRunReader

VERBS = {
    "list": {"limit", "sort", "status", "experiment", "metrics", "uri"},
    "show": {"uri"},
    "compare": {"uri"},
    "sync": {"uri", "artifacts"},
}
STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or {"-h", "--help", "help"} & set(words):
        print((__doc__ or "").strip())
        return 0
    try:
        verb, keys, names = parse(words)
        {"list": _list, "show": _show, "compare": _compare, "sync": _sync}[verb](keys, names)
        sys.stdout.flush()
    except UserError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parse(words: list[str]) -> tuple[str, dict[str, str], list[str]]:
    """The verb, its `key=value` words, and the rest.

    Raises:
        ConfigError: a word that does not belong there, with the nearest that does.
    """
    verb, *rest = words
    if verb not in VERBS:
        raise ConfigError(f"{verb}: want list, show, compare or sync{suggestion(verb, VERBS)}")
    keys: dict[str, str] = {}
    names: list[str] = []
    for word in rest:
        key, equals, value = word.lstrip("-").partition("=")
        if not equals and not word.startswith("-"):
            names.append(word)
        elif key not in VERBS[verb] or not value:
            raise ConfigError(f"{word}: no key of {verb}{suggestion(key, VERBS[verb])}")
        else:
            keys[key] = value
    fewest, most = {"list": (0, 0), "show": (1, 1), "compare": (2, 20), "sync": (0, 1000)}[verb]
    if not fewest <= len(names) <= most:
        raise ConfigError(f"{verb}: got {len(names)} runs, want {fewest}{'' if most == fewest else ' or more'}")
    return verb, keys, names


def _list(keys: dict[str, str], _: list[str]) -> None:
    from mlxlab.tracking.mlflow import flush
    from mlxlab.tracking.runs import tables

    limit = keys.get("limit", "20")
    if not limit.isdecimal() or not 1 <= int(limit) <= 100_000:
        raise ConfigError(f"limit={limit}: want a whole number from 1 to 100000")
    status = keys.get("status", "").upper() or None
    if status is not None and status not in STATUSES:
        raise ConfigError(f"status={status}: unknown{suggestion(status, STATUSES)}")
    address = _address(keys)
    store = _open(address)
    for key, what in (("sort", "metrics"), ("experiment", "experiments")):
        if key in keys and keys[key] not in (known := store.names(what)):
            raise ConfigError(f"{key}={keys[key]}: not in the store{suggestion(keys[key], known)}")
    runs = store.newest(limit=int(limit), experiment=keys.get("experiment"), status=status, sort=keys.get("sort"))
    columns = keys["metrics"].split(",") if "metrics" in keys else None
    print(tables.listing(runs, columns) if runs else "no runs")
    if line := flush.pending_summary(address):
        print(line, file=sys.stderr)


def _show(keys: dict[str, str], names: list[str]) -> None:
    from mlxlab.tracking.runs import tables

    store = _open(_address(keys))
    run = _one(store, names[0])
    store.complete([run])
    print(tables.full(run, store.spans(run.run_id)))


def _compare(keys: dict[str, str], names: list[str]) -> None:
    from mlxlab.tracking.runs import tables

    store = _open(_address(keys))
    found: dict[str, RunRow] = {}
    runs = [found.setdefault(run.run_id, run) for run in (_one(store, name) for name in names)]
    store.complete(found.values())
    print(tables.comparison(runs))


def _sync(keys: dict[str, str], names: list[str]) -> None:
    from mlxlab.tracking.mlflow.flush import check_store, flush

    address, folders = _address(keys), [Path(name).absolute() for name in names]
    if "uri" not in keys:
        for folder in folders:
            check_store(folder, address)
    for line in flush(address, folders):
        print(line, flush=True)


def _one(store: "SqliteRunReader | MlflowRunReader", word: str) -> "RunRow":
    found = store.matching(word)
    if not found:
        raise ConfigError(f"{word}: no such run{suggestion(word, store.names('runs'))}")
    exact = [run for run in found if run.run_id == word]
    if len(found) > 1 and not exact:
        ids = ", ".join(f"{run.run_id[:8]} ({run.name})" for run in found[:5])
        raise ConfigError(f"{word}: {len(found)} runs begin so or are named so: {ids}")
    return (exact or found)[0]


def _address(keys: dict[str, str]) -> "Address":
    from mlxlab.tracking.mlflow.address import resolve

    return resolve(keys.get("uri"), keys.get("artifacts"), project_root())


def _open(address: "Address") -> "SqliteRunReader | MlflowRunReader":
    if address.database:
        from mlxlab.tracking.runs.sqlite_reader import SqliteRunReader

        return SqliteRunReader(address.database)
    from mlxlab.tracking.runs.mlflow_reader import MlflowRunReader

    return MlflowRunReader(address)
