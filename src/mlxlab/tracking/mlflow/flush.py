"""Uploads in the foreground what waits for a store, and closes dead runs: `mlxlab runs sync` and `doctor`."""

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mlxlab.errors import (
    DataError,
    InputNotFoundError,
    NotAllowedError,
    ServiceUnavailableError,
    UserError,
)
from mlxlab.tracking.mlflow import queue
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import MlflowStore
from mlxlab.tracking.mlflow.errors import StoreUnavailableError, classify_error
from mlxlab.tracking.mlflow.syncer import Syncer
from mlxlab.tracking.record_writer import has_writer
from mlxlab.tracking.records import FILE, JOURNALS, locate, read_start, read_state, read_uid, utf8

NOT_OURS = "not recorded for MLflow; name the service to upload it to: to=wandb or to=trackio"


def check_store(folder: Path, address: Address) -> None:
    """Raises NotAllowedError if a run in `folder` was recorded for another store.

    A run folder may come from a stranger: the store it names is not used unless the user names it too.
    """
    for journal in sorted(folder.glob(JOURNALS)):
        try:
            start = read_start(journal)
        except UserError:
            continue  # `flush` reports it
        if start is None:
            continue
        if start["store"] is None:
            raise NotAllowedError(f"{journal}: {NOT_OURS}")
        recorded = {"uri": start["store"], "artifacts": start["artifacts"] or ""}
        if recorded != {"uri": address.shown, "artifacts": address.shown_artifacts or ""}:
            store = " ".join(
                f"{key}={shlex.quote(value)}" for key, value in recorded.items() if value
            )
            remedy = "name the store to upload it to: uri=..., and artifacts=... if it has a folder of its own"
            raise NotAllowedError(f"{journal}: recorded for {store}, got {address.shown}: {remedy}")


def flush(address: Address, folders: list[Path], *, registers: bool = False) -> Iterator[str]:
    """Adds run folders to the queue, and uploads all records that are in its journals now; yields lines for the user.

    Args:
        registers: whether models of folders that were not in the queue may enter the model registry.

    Raises:
        InputNotFoundError: no run was tracked in one of the folders.
        DataError: a journal of one of the folders was rejected; all others were uploaded.
        ServiceUnavailableError: the store cannot be used, or another process is writing it for too long.
    """
    rejected: dict[Path, str] = {}  # journal of one of `folders` -> error
    try:
        address.queue.mkdir(parents=True, exist_ok=True)
        for folder in folders:
            for journal in _journals(folder):
                try:
                    _add(address, journal, registers)
                except DataError as error:
                    rejected[journal] = str(error)
    except OSError as error:
        raise ServiceUnavailableError(
            f"{address.shown}: {error.strerror}: {error.filename}"
        ) from None
    if not queue.registered(address.queue) and not rejected:
        yield f"{address.shown}: nothing is waiting"
        return
    with queue.only_writer(address):
        yield from _upload(Syncer(address), folders, rejected)
    if rejected:
        raise DataError("\n".join(rejected.values()))


def _journals(folder: Path) -> list[Path]:
    journals = sorted(folder.glob(JOURNALS))
    if not folder.is_dir():
        raise InputNotFoundError(f"{folder}: no such folder")
    if not journals:
        raise InputNotFoundError(f"{folder}: has no {FILE}: no run was tracked there")
    return journals


def _add(address: Address, journal: Path, registers: bool) -> None:
    """Queues a run whose folder the user names; raises DataError if it is waiting in another one."""
    start = read_start(journal)
    if start is None:
        raise DataError(f"{journal}: is empty")
    if start["store"] is None:
        raise DataError(f"{journal}: {NOT_OURS}")
    folder, uid = journal.parent, start["uid"]
    waiting = queue.registered(address.queue).get(uid)
    if waiting is not None and waiting != folder:
        is_there = read_uid(locate(waiting, uid)[0]) == uid
        if is_there and not waiting.samefile(folder):
            raise DataError(
                f"{utf8(folder)}: a copy of {utf8(waiting)}, which waits to be uploaded"
            )
    if registers or waiting != folder:
        queue.register(address.queue, uid, folder, foreign=not registers)


def close_runs(address: Address, run_ids: list[str]) -> None:
    """Sets runs that are still RUNNING to KILLED, at the time of their last metric. Raises ServiceUnavailableError."""
    with queue.only_writer(address):
        try:
            client = MlflowStore(address).client
            for run_id in run_ids:
                run = client.get_run(run_id)
                times = [
                    client.get_metric_history(run_id, key)[-1].timestamp for key in run.data.metrics
                ]
                if run.info.status == "RUNNING":  # unless it was resumed meanwhile
                    client.set_terminated(run_id, "KILLED", max(times, default=run.info.start_time))
        except Exception as error:  # of MLflow, a database or HTTP: no common base class
            reason = classify_error(error)
            raise ServiceUnavailableError(f"{address.shown}: {reason}; nothing is lost") from error


def unsent_folders(root: Path, address: Address) -> list[Path]:
    """Run folders below `root` with a journal that is not complete in the store, and that no process is writing."""
    folders = []
    for folder, names, _ in os.walk(root):
        names.sort()
        if any(_is_unsent(journal, address) for journal in sorted(Path(folder).glob(JOURNALS))):
            folders.append(Path(folder))
    return folders


def pending_summary(address: Address) -> str | None:
    """One line on the runs that are not complete in the store; None if all are."""
    count = 0
    for uid, folder in queue.registered(address.queue).items():
        with suppress(OSError):  # deleted, or cannot be opened
            journal, state_path = locate(folder, uid)
            state = read_state(state_path, uid)
            count += journal.stat().st_size > (state["offset"] if state else -1)
    if not count:
        return None
    status = queue.read_status(address.queue)
    fault = f" ({status['fault']})" if status and status["fault"] else ""
    return f"{count} runs are not complete in the store yet{fault}: mlxlab runs sync"


def _is_unsent(journal: Path, address: Address) -> bool:
    try:
        start = read_start(journal)
        if start is None or start["store"] is None or has_writer(journal):
            return False
        state = read_state(locate(journal.parent, start["uid"])[1], start["uid"])
        if state is None or state["store"] != address.shown or state.get("status") == "RUNNING":
            return True
        return state["offset"] < journal.stat().st_size
    except (UserError, OSError):
        return False


def _upload(syncer: Syncer, folders: list[Path], rejected: dict[Path, str]) -> Iterator[str]:
    """Yields lines for the user, except those on rejected journals of `folders`, which it adds to `rejected`."""
    start = time.monotonic()
    before = -1
    fault = None
    try:
        while (lines := syncer.poll()) or syncer.records > before:
            before = syncer.records
            yield from (line for line in lines if line not in syncer.rejected.values())
    except StoreUnavailableError as error:
        fault = str(error)
        raise ServiceUnavailableError(f"{syncer.address.shown}: {error}; nothing is lost") from None
    finally:
        with suppress(OSError):
            queue.write_status(syncer.queue, fault)
    for uid, folder in queue.registered(syncer.queue).items():
        line = syncer.rejected.get(uid, f"{utf8(folder)}: up to date, its run is not over")
        if uid in syncer.rejected and folder in folders:
            rejected[locate(folder, uid)[0]] = line
        else:
            yield line
    yield f"{syncer.address.shown}: {syncer.records} lines in {time.monotonic() - start:.1f} s"
