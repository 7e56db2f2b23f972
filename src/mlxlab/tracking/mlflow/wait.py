"""Waits, at the end of a run, until its journal has been uploaded."""

import time
from pathlib import Path

from mlxlab.tracking.mlflow import spool
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.records import read_state


def wait_for_upload(address: Address, journal: Path, state_path: Path, uid: str, seconds: float) -> str:
    """Waits up to `seconds`, less if the store is known to be unavailable.

    Returns:
        What is missing, in words; "" if everything is in the store.
    """
    if address.spool is None:
        return f"{address.shown} was not written"
    size, start, until = journal.stat().st_size, int(time.time() * 1000), time.monotonic() + seconds
    while True:
        state, status = read_state(state_path, uid), spool.read_status(address.spool)
        if state and state["offset"] >= size:
            return ""
        fault = (state and state["fault"]) or (status and status["fault"])
        if fault and status and status["t"] >= start:
            return f"{address.shown}: {fault}"
        if time.monotonic() >= until:
            return f"{address.shown} is not complete yet ({fault or 'the upload is running'})"
        time.sleep(0.02)
