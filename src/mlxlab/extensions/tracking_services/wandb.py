"""Runs in Weights & Biases, whose client has retries and offline files of its own.

The step of W&B is the position in the journal: W&B drops a row whose step is not above the last one, and its summary
says how far it has the journal. The horizontal axis is our step.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlxlab.errors import ServiceUnavailableError
from mlxlab.extensions.tracking_services.service import (
    check_package,
    check_project,
    config_of,
    floats,
)
from mlxlab.terminal.redact import redact
from mlxlab.tracking.destination import Entry
from mlxlab.tracking.records import Record, RunStart
from mlxlab.tracking.tracker import Status

if TYPE_CHECKING:
    import wandb

SERVER = "https://api.wandb.ai"
STEP = "step"
POSITION = "journal_position"
EXIT_CODES: dict[Status, int] = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}
VARIABLES = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}


@dataclass(frozen=True)
class Wandb:
    """Weights & Biases; the key of the account is that of WANDB_API_KEY or `wandb login`.

    WANDB_ENTITY names a user or team. With WANDB_MODE=offline, runs are written to `wandb` in the
    project folder, for `wandb sync`.

    Args:
        project: of W&B, in which the run is recorded.
    """

    project: str = "mlxlab"

    @property
    def is_offline(self) -> bool:
        return os.environ.get("WANDB_MODE") == "offline"

    def check(self) -> None:
        check_package("wandb")
        check_project("tracking.wandb.project", self.project)
        if not self.is_offline and not _has_key():
            remedy = "WANDB_API_KEY, `wandb login` or WANDB_MODE=offline"
            raise ServiceUnavailableError(f"tracking=wandb: expected {remedy}")

    def queue_folder(self, project: Path) -> Path:
        kind = "offline" if self.is_offline else os.environ.get("WANDB_ENTITY", "online")
        return project / "mlruns" / f".queue-wandb-{self.project}-{kind}"

    def connect(self) -> "Wandb":
        return self

    def open_run(self, entry: Entry, start: RunStart, t: int) -> "WandbRun":
        """The current folder is that of the project."""
        folder = Path.cwd() / "wandb"
        os.environ.update(VARIABLES | {"WANDB_DATA_DIR": str(folder / "data")})
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        # The journal has git, machine and packages; this process would report its own.
        settings = wandb.Settings(
            console="off",
            disable_git=True,
            disable_job_creation=True,
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
        )
        run = wandb.init(
            project=self.project,
            id=entry.uid,
            name=start["name"],
            group=start["parent"] or None,
            dir=str(folder.parent),
            resume="allow",
            reinit="create_new",  # several runs in one process
            settings=settings,
        )
        run.define_metric("*", step_metric=STEP)
        return WandbRun(run)

    def is_fault_of_journal(self, error: Exception) -> bool:
        return False

    def describe(self) -> str:
        server = redact(os.environ.get("WANDB_BASE_URL", SERVER))
        place = "offline, in wandb/ of the project folder" if self.is_offline else server
        return f"W&B project {self.project} ({place})"

    def options(self, project: Path) -> list[str]:
        return ["to=wandb", f"project={self.project}"]


class WandbRun:
    """A run in W&B, which gets neither files nor models; see `destination.Upload`."""

    def __init__(self, run: "wandb.Run") -> None:
        self.run = run
        self.position = int(run.summary.get(POSITION) or 0)
        self.has_ended = False
        self.notes: list[str] = []

    def add(self, record: Record, position: int) -> None:
        if "m" in record:
            facts = {STEP: record["s"], POSITION: position, "_timestamp": record["t"] / 1000}
            self.run.log({**floats(record["m"]), **facts}, step=position)
        elif "end" in record:
            self.run.finish(exit_code=EXIT_CODES[record["end"]])
            self.has_ended = True
        else:
            self.run.config.update(config_of(record), allow_val_change=True)
        self.position = position

    def flush(self) -> None:
        """The client of W&B sends by itself."""


def _has_key() -> bool:
    if "WANDB_API_KEY" in os.environ:
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", SERVER)).hostname or ""
    with suppress(OSError, NetrcParseError):  # There may be no such file.
        return netrc().authenticators(host) is not None
    return False
