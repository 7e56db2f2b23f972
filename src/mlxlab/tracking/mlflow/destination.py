"""MLflow as the destination of a journal: its queue, from which the syncer uploads it."""

import shlex
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mlxlab.tracking.mlflow import queue
from mlxlab.tracking.mlflow.address import check_driver, resolve
from mlxlab.tracking.records import SyncState, locate, read_state, utf8


class MlflowDestination:
    """A store of MLflow; arguments and errors as of `Journal`.

    Without `registers` no model of the journal is registered: the one of a run that is resumed may be a stranger's.
    """

    def __init__(
        self,
        uri: str | None,
        artifacts: str | None,
        experiment: str,
        project: Path,
        *,
        registers: bool,
    ) -> None:
        self.address = resolve(uri, artifacts, project)
        self.experiment, self.project = experiment, project
        self.registers = registers
        check_driver(self.address.uri)

    def start(self, folder: Path, uid: str) -> None:
        queue.register(self.address.queue, uid, folder, registers=self.registers)
        queue.start_syncer(self.address)

    def ensure_running(self, folder: Path, uid: str) -> None:
        with suppress(OSError):  # the next run or `runs sync` starts it
            queue.start_syncer(self.address)

    def wait(self, folder: Path, uid: str, seconds: float) -> str:
        """Waits less if the store is known to be unavailable."""
        size = locate(folder, uid)[0].stat().st_size
        start = int(1000 * time.time())
        until = time.monotonic() + seconds
        while True:
            uploaded = self.uploaded(folder, uid)
            status = queue.read_status(self.address.queue)
            if uploaded and uploaded["offset"] >= size:
                return ""
            fault = (uploaded and uploaded.get("fault")) or (status and status["fault"])
            if fault and status and status["t"] >= start:
                return f"{self.address.shown}: {fault}"
            if time.monotonic() >= until:
                reason = fault or "the upload is running"
                return f"{self.address.shown} is not complete yet ({reason})"
            time.sleep(0.02)

    def uploaded(self, folder: Path, uid: str) -> SyncState | None:
        """How far the journal has been uploaded."""
        return read_state(locate(folder, uid)[1], uid)

    def remedy(self, folder: Path) -> str:
        args = ["mlxlab runs sync", shlex.quote(utf8(folder))]
        if replace(resolve(None, None, self.project), queue=self.address.queue) != self.address:
            args.append(f"uri={shlex.quote(self.address.shown)}")
            artifacts = self.address.shown_artifacts
            default = resolve(self.address.uri, None, self.project).shown_artifacts
            if artifacts and artifacts != default:
                args.append(f"artifacts={shlex.quote(artifacts)}")
        return " ".join(args)

    def describe(self) -> str:
        return f"{self.address.shown}, experiment {self.experiment}"
