"""Checks of the tracking store and of what waits to be uploaded to it."""

import os
from collections.abc import Iterator

from mlxlab.cli.doctor.finding import Finding, finding
from mlxlab.cli.doctor.probe import Check
from mlxlab.config.paths import project_root
from mlxlab.tracking.mlflow.address import Address, resolve
from mlxlab.tracking.mlflow.errors import StoreUnavailableError


def _store() -> Iterator[Finding]:
    address = resolve(None, None, project_root())
    if address.database is None:
        yield from _server(address)
    elif not address.database.exists():
        yield finding("store", f"{address.database}: none yet; the first tracked run makes it")
    else:
        yield from _database(address)


def _database(address: Address) -> Iterator[Finding]:
    from mlxlab.tracking.mlflow.sqlite import installed_version, version

    path = address.database
    assert path is not None
    try:
        actual, expected = version(path), installed_version()
    except StoreUnavailableError as error:
        remedy = (
            "end the program that locks it"
            if "locked" in str(error)
            else "restore a backup, or move it away"
        )
        yield finding(
            "store", str(error), "error", f"{remedy}; runs wait in their folders meanwhile"
        )
        return
    if actual != expected:
        value = f"{path}: schema {actual}, expected {expected} of the installed MLflow"
        yield finding(
            "store", value, "error", f"back it up, then mlflow db upgrade {address.shown}"
        )
    elif not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        yield finding(
            "store", f"{path}: cannot be written", "error", "make it and its folder writable"
        )
    else:
        yield finding("store", f"{path}: readable, its schema is current")


def _server(address: Address) -> Iterator[Finding]:
    from mlxlab.experiment.past_run.lookup import open_reader

    names = open_reader(None).names("experiments")
    yield finding("store", f"{address.shown}: reachable, {len(names)} experiments")


def _uploads() -> Iterator[Finding]:
    from mlxlab.tracking.mlflow.flush import pending_summary
    from mlxlab.tracking.mlflow.queue import syncer_lives

    address = resolve(None, None, project_root())
    if not address.queue.is_dir() or (line := pending_summary(address)) is None:
        yield finding("uploads", "nothing is waiting for the store")
    elif syncer_lives(address.queue):
        yield finding("uploads", f"{line.partition(': ')[0]}; they are being uploaded", "note")
    else:
        yield finding("uploads", line.rpartition(": ")[0], "warning", "mlxlab runs sync")


CHECKS: dict[str, Check] = {"store": _store, "uploads": _uploads}
