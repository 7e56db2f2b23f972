"""How far a journal has been uploaded to a store. The file lies in the run folder, which may be a stranger's."""

from pathlib import Path

from mlxlab.tracking import records
from mlxlab.tracking.mlflow.client import UID, MlflowStore
from mlxlab.tracking.mlflow.errors import RunNotFoundError, classify_error
from mlxlab.tracking.mlflow.ownership import started_run
from mlxlab.tracking.records import SyncState


def new_state(store: MlflowStore, uid: str) -> SyncState:
    """Nothing is uploaded."""
    return {"uid": uid, "store": store.address.shown, "offset": 0, "seen": {}}


def read_state(store: MlflowStore, folder: Path, uid: str) -> SyncState | None:
    """The saved state if it is of this store, and the store still has the run: a database may be deleted.

    None, too, if the run in the store is not that of the journal. Raises as `classify_error`.
    """
    journal, path = records.locate(folder, uid)
    state = records.read_state(path, uid)
    if state is None or state["store"] != store.address.shown or "run_id" not in state:
        return None
    if state["offset"] > journal.stat().st_size:
        return None
    try:
        run = store.client.get_run(state["run_id"])
    except Exception as error:  # of MLflow, of a database or of HTTP: it has no common base
        reason = classify_error(error)
        if isinstance(reason, RunNotFoundError):
            return None
        raise reason from error
    if run.data.tags.get(UID) != uid or not started_run(run, folder, uid):
        return None
    return {**state, "experiment_id": run.info.experiment_id}
