"""The interface of a store or service that journals are uploaded to."""

from pathlib import Path
from typing import NamedTuple, Protocol

from mlxlab.tracking.records import Record, RunStart


class Entry(NamedTuple):
    """A run whose journal waits to be uploaded.

    Attributes:
        run_id: of MLflow, to continue.
    """

    uid: str
    folder: Path
    run_id: str | None = None


class Upload(Protocol):
    """A run as it is in a store. Methods raise whatever the client raises: the journal is then tried again.

    Attributes:
        position: byte of the journal up to which the store has it.
        has_ended: whether the store knows the end of the run.
        notes: what happened to it, for the user, such as what is missing.
    """

    position: int
    has_ended: bool
    notes: list[str]

    def add(self, record: Record, position: int) -> None:
        """Uploads a record, or keeps it until `flush`; the store then has the journal up to `position`."""

    def flush(self) -> None:
        """Uploads what `add` has kept."""


class Store(Protocol):
    """An open store. Methods raise whatever its client raises."""

    def open_run(self, entry: Entry, start: RunStart, t: int) -> Upload:
        """Finds what the store has of a run that began at `t`, or creates it."""

    def is_fault_of_journal(self, error: Exception) -> bool:
        """False if the store cannot be used: a later attempt may succeed."""


class Destination(Protocol):
    """Where a store is: a dataclass, from which another process can connect; credentials are in the environment."""

    def check(self) -> None:
        """Raises UserError if runs cannot be recorded there: no package, no account."""

    def queue_folder(self, project: Path) -> Path:
        """Where runs wait that a project records there."""

    def connect(self) -> Store:
        """Opens the store; imports its client."""

    def describe(self) -> str:
        """The name and address, without credentials."""

    def options(self, project: Path) -> list[str]:
        """The arguments by which `mlxlab runs sync` names it; none for the default of the project."""
