"""The tracker of `tracking=mlflow`: a journal in the run folder, uploaded by the syncer of the store.

MLflow is not imported here: the training process pays for none of it.
"""

import shlex
import time
from dataclasses import replace
from pathlib import Path

from mlxlab.constraints import NonNegative
from mlxlab.program import command
from mlxlab.tracking.journal import Journal
from mlxlab.tracking.mlflow import spool
from mlxlab.tracking.mlflow.address import Address, resolve
from mlxlab.tracking.records import read_state, utf8


def mlflow_tracker(
    uri: str | None,
    artifacts: str | None,
    experiment: str,
    log_models: bool,
    wait: NonNegative,
    *,
    folder: Path,
    project: Path,
) -> Journal:
    """Records a run in its folder, from where another process uploads it to MLflow.

    Args:
        uri: the store as MLflow writes it; null takes MLFLOW_TRACKING_URI, else mlruns/mlflow.db in the project.
        artifacts: folder or URI of the artifacts; null takes MLFLOW_ARTIFACT_ROOT, else `artifacts` by the database.
        experiment: name of the MLflow experiment; created if it does not exist.
        log_models: whether the best checkpoint is logged as a model that `mlflow.pyfunc.load_model` loads.
        wait: seconds to wait for the store at the end; what is missing then follows by itself.

    Raises:
        ConfigError: an address that MLflow has no store for.
    """
    uploader = SyncerUploader(resolve(uri, artifacts, project), project)
    return Journal(uploader, experiment, log_models, wait, folder=folder)


class SyncerUploader:
    """Uploads journals through the queue of a store and its syncer."""

    def __init__(self, address: Address, project: Path) -> None:
        self.address, self.project = address, project

    @property
    def store(self) -> str:
        return self.address.shown

    @property
    def artifacts(self) -> str | None:
        return self.address.shown_artifacts

    def enqueue(self, uid: str, folder: Path) -> None:
        if self.address.spool is None:
            raise OSError("neither the folder of the store nor the project's mlruns can be written")
        spool.register(self.address.spool, uid, folder)
        spool.start_syncer(self.address)

    def ensure_running(self) -> None:
        try:
            spool.start_syncer(self.address)
        except OSError:
            return  # the next run or `runs sync` starts it

    def wait(self, journal: Path, state: Path, uid: str, seconds: float) -> str:
        """Returns earlier if the store is known to be unavailable."""
        assert self.address.spool is not None, "enqueue comes first"
        size, start, until = journal.stat().st_size, int(time.time() * 1000), time.monotonic() + seconds
        while True:
            uploaded, status = read_state(state, uid), spool.read_status(self.address.spool)
            if uploaded and uploaded["offset"] >= size:
                return ""
            fault = (uploaded and uploaded["fault"]) or (status and status["fault"])
            if fault and status and status["t"] >= start:
                return f"{self.store}: {fault}"
            if time.monotonic() >= until:
                return f"{self.store} is not complete yet ({fault or 'the upload is running'})"
            time.sleep(0.02)

    def sync_command(self, folder: Path) -> str:
        args = [command("runs sync"), shlex.quote(utf8(folder))]
        default = resolve(None, None, self.project)
        if replace(default, spool=None) != replace(self.address, spool=None):
            args.append(f"uri={shlex.quote(self.store)}")
            if self.artifacts and self.artifacts != resolve(self.address.uri, None, self.project).shown_artifacts:
                args.append(f"artifacts={shlex.quote(self.artifacts)}")
        return " ".join(args)
