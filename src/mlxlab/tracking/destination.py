"""The interface of what uploads a journal: another process, which outlives the run."""

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
