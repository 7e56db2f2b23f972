"""The interfaces of what uploads a journal: another process, which outlives the run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class Destination(Protocol):
    """A store or service that a journal is uploaded to. One that fails affects neither the run nor the others."""

    def start(self, folder: Path, uid: str) -> None:
        """Makes a process upload the journal of run `uid` from now on; raises OSError if that cannot be."""

    def ensure_running(self, folder: Path, uid: str) -> None:
        """Starts that process again if it has died."""

    def wait(self, folder: Path, uid: str, seconds: float) -> str:
        """Waits until the journal is uploaded, at most `seconds`; returns what is missing as a line, or ""."""

    def remedy(self, folder: Path) -> str:
        """The command that completes the upload."""

    def describe(self) -> str:
        """Its name and address, without credentials."""


class TrackingService(Protocol):
    """A service other than MLflow, named by a node of the config `tracking`."""

    def check(self) -> None:
        """Raises UserError if runs cannot be recorded: no package, no account."""

    def destination(self, project: Path) -> Destination:
        """Where the journals of a project are uploaded to; raises as `check`."""

    def upload(self, folder: Path, project: Path) -> Iterator[str]:
        """Uploads the runs of a folder that have ended; yields lines for the user.

        Raises:
            InputNotFoundError: no run was tracked there.
            DataError: a journal is damaged.
            ServiceUnavailableError: the service cannot be used, or another process is uploading the run.
        """
