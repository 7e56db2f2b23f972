"""Finishes in the foreground what is still on its way to a store: `runs.py sync`."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mlxlab.errors import InputNotFoundError, ServiceUnavailableError
from mlxlab.tracking import journal, jsonl
from mlxlab.tracking.mlflow import spool
from mlxlab.tracking.mlflow.address import Address, resolve
from mlxlab.tracking.mlflow.errors import StoreUnavailableError
from mlxlab.tracking.mlflow.syncer import PollResult, Syncer

PATIENCE = 30.0  # seconds for the syncer in the background to hand over


def address_of(folder: Path, project: Path) -> Address:
    """The store that the run in `folder` was started with.

    Raises:
        InputNotFoundError: no run was tracked there.
    """
    path = folder / journal.FILE
    try:
        start = next(jsonl.read(path, limit=1), ({}, 0))[0]["start"]
    except (OSError, KeyError):
        raise InputNotFoundError(f"{folder} has no {journal.FILE}: no run was tracked there") from None
    address = resolve(start["store"], start["artifacts"], project)
    spool_then = Path(start["spool"])
    return replace(address, spool=spool_then) if start["spool"] and spool_then.is_dir() else address


def flush(address: Address, folders: list[Path]) -> Iterator[str]:
    """Carries everything that is there now; says line by line what was done.

    Args:
        folders: run folders to look at besides those that wait in the spool.

    Raises:
        ServiceUnavailableError: the store does not serve, or another process does not let go of it.
    """
    if address.spool is None:
        raise ServiceUnavailableError(f"{address.shown}: neither its folder nor the project's mlruns can be written")
    try:
        address.spool.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServiceUnavailableError(f"{address.shown}: {error.strerror}: {error.filename}") from None
    for folder in folders:
        _register(address.spool, folder)
    if not spool.registered(address.spool):
        yield f"{address.shown}: nothing is waiting"
        return
    with spool.handover(address.spool), spool.sole_writer(address.spool, PATIENCE) as mine:
        if not mine:
            raise ServiceUnavailableError(f"another process writes {address.shown} and does not let go of it")
        yield from _carry(Syncer(address))
    if spool.registered(address.spool):
        spool.start_syncer(address)  # for the runs that go on


def pending_summary(address: Address) -> str | None:
    """One line on what waits for the store; None if nothing does."""
    if address.spool is None or not address.spool.is_dir():
        return None
    waiting = spool.registered(address.spool)
    behind = sum(_behind(folder, uid) for uid, folder in waiting.items())
    if not behind:
        return None
    fault = spool.status(address.spool).get("fault")
    return (
        f"{behind} of the runs have lines that are not in the store yet{f' ({fault})' if fault else ''}: runs.py sync"
    )


def _register(where: Path, folder: Path) -> None:
    found = [path for path in folder.glob("journal*.jsonl") if (jsonl.read_uid(path))]
    if not found:
        raise InputNotFoundError(f"{folder} has no {journal.FILE}: no run was tracked there")
    for path in found:
        spool.register(where, jsonl.read_uid(path) or "", folder)


def _carry(syncer: Syncer) -> Iterator[str]:
    began, count, last = time.monotonic(), 0, PollResult()
    try:
        while True:
            last = syncer.round()
            count += last.lines
            yield from (f"{folder}: complete" for folder in last.complete)
            yield from last.notes
            if not (last.lines or last.complete or last.notes):
                break
    except StoreUnavailableError as fault:
        raise ServiceUnavailableError(f"{syncer.address.shown}: {fault}; nothing is lost") from None
    finally:
        with contextlib.suppress(OSError):
            syncer.report(None)
    yield from (f"{folder}: up to date, its run is not over" for folder in last.running)
    yield from (f"{folder}: refused: {reason}" for folder, reason in last.refused.items())
    yield f"{syncer.address.shown}: {count} lines in {time.monotonic() - began:.1f} s"


def _behind(folder: Path, uid: str) -> bool:
    state = spool.read_json(folder / journal.STATE)
    try:
        size = (folder / journal.FILE).stat().st_size
    except OSError:
        return False
    return state.get("uid") != uid or state.get("offset", 0) < size
