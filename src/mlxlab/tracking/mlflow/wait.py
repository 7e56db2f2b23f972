"""Waits, at the end of a run, until its journal has arrived in the store."""

import time
from pathlib import Path

from mlxlab.tracking.mlflow import spool
from mlxlab.tracking.mlflow.address import Address


def wait_for_upload(address: Address, journal: Path, state: Path, uid: str, seconds: float) -> str:
    """Waits up to `seconds`, less if the store is known not to serve.

    Returns:
        What is still missing, in words; "" if nothing is.
    """
    if address.spool is None:
        return f"{address.shown} was not written"
    size, asked, until = journal.stat().st_size, int(time.time() * 1000), time.monotonic() + seconds
    while True:
        known, status = spool.read_json(state), spool.status(address.spool)
        if known.get("uid") == uid and known.get("offset", 0) >= size:
            return ""
        fault = known.get("fault") or status.get("fault")
        if fault and status.get("t", 0) >= asked:
            return f"{address.shown}: {fault}"
        if time.monotonic() >= until:
            return f"{address.shown} has not everything yet ({fault or 'it is being written'})"
        time.sleep(0.02)
