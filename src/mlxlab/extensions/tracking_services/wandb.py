"""Runs in Weights & Biases."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from mlxlab.errors import ServiceUnavailableError
from mlxlab.extensions.tracking_services.destination import ServiceDestination
from mlxlab.extensions.tracking_services.service import Value, check_package, check_project, typed
from mlxlab.extensions.tracking_services.upload import upload_folder
from mlxlab.redact import redact
from mlxlab.tracking.copy_artifact import copy_artifact
from mlxlab.tracking.records import RunStart
from mlxlab.tracking.tracker import Status

if TYPE_CHECKING:
    import wandb

SERVER = "https://api.wandb.ai"
STEP = "step"  # the horizontal axis: W&B's own step refuses values of earlier steps, such as those of the best one
EXIT_CODES: dict[Status, int] = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}
VARIABLES = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}

_invalid = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class Wandb:
    """Weights & Biases; the key of the account is read from WANDB_API_KEY, or from where `wandb login` keeps it.

    Args:
        project: of W&B, in which the run is recorded.
        entity: user or team; null takes WANDB_ENTITY, else the default of the account.
        mode: online sends runs to the server, offline writes them to `wandb` in the project folder for `wandb sync`;
            null takes WANDB_MODE, else online.
        log_models: whether the best checkpoint is uploaded.
    """

    project: str = "mlxlab"
    entity: str | None = None
    mode: Literal["online", "offline"] | None = None
    log_models: bool = False

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def is_offline(self) -> bool:
        return (self.mode or os.environ.get("WANDB_MODE")) == "offline"

    def options(self) -> dict[str, Value]:
        return asdict(self)

    def check(self) -> None:
        check_package(self.name)
        check_project("tracking.wandb.project", self.project)
        if self.entity is not None:
            check_project("tracking.wandb.entity", self.entity)
        if not self.is_offline and not _has_key():
            remedy = "set WANDB_API_KEY, run `wandb login`, or choose tracking.wandb.mode=offline"
            raise ServiceUnavailableError(f"tracking=wandb: no key of an account: {remedy}")

    def destination(self, project: Path) -> ServiceDestination:
        return ServiceDestination(self, project)

    def upload(self, folder: Path, project: Path) -> Iterator[str]:
        return upload_folder(self, folder, project)

    def open(self, project: Path, start: RunStart) -> "WandbRun":
        os.environ.update(VARIABLES | {"WANDB_DATA_DIR": str(project / "wandb" / "data")})
        import wandb

        (project / "wandb").mkdir(parents=True, exist_ok=True)
        # Git, machine and packages are in the journal; the process that uploads would report its own.
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
            entity=self.entity,
            project=self.project,
            id=start["uid"],
            name=start["name"],
            group=start["parent"] or None,
            config=typed(start["params"]),
            dir=str(project),
            mode="offline" if self.is_offline else "online",
            resume="allow",
            settings=settings,
        )
        run.define_metric("*", step_metric=STEP)
        return WandbRun(run, self.log_models)

    def describe(self) -> str:
        server = redact(os.environ.get("WANDB_BASE_URL", SERVER))
        where = "offline, in wandb/ of the project folder" if self.is_offline else server
        return f"W&B project {self.project} ({where})"


class WandbRun:
    """An open run of W&B."""

    def __init__(self, run: "wandb.Run", log_models: bool) -> None:
        self.run, self.log_models = run, log_models

    def log(self, step: int, metrics: dict[str, float], t: int) -> None:
        self.run.log({**metrics, STEP: step, "_timestamp": t / 1000})

    def set_config(self, values: dict[str, Value]) -> None:
        self.run.config.update(values, allow_val_change=True)

    def log_artifact(self, folder: Path, path: str, to: str) -> None:
        target = Path(self.run.dir) / _safe(
            to
        )  # what is in that folder is uploaded when the run ends
        with tempfile.TemporaryDirectory() as temporary:
            copy = copy_artifact(folder, path, Path(temporary) / "files")
            shutil.copytree(copy if copy.is_dir() else copy.parent, target, dirs_exist_ok=True)

    def log_model(self, folder: Path, files: dict[str, str], step: int) -> None:
        if not self.log_models:
            return
        import wandb

        model = wandb.Artifact(f"model-{self.run.id}", type="model", metadata={"step": step})
        with tempfile.TemporaryDirectory() as temporary:
            for name, path in files.items():
                copy = copy_artifact(folder, path, Path(temporary) / _safe(name))
                (model.add_dir if copy.is_dir() else model.add_file)(str(copy), name=_safe(name))
            self.run.log_artifact(model)

    def end(self, status: Status) -> None:
        self.run.finish(exit_code=EXIT_CODES[status])


def _has_key() -> bool:
    host = urlsplit(os.environ.get("WANDB_BASE_URL", SERVER)).hostname or ""
    try:
        return "WANDB_API_KEY" in os.environ or netrc().authenticators(host) is not None
    except (OSError, NetrcParseError):  # no such file
        return False


def _safe(path: str) -> str:
    """A relative path without characters that W&B refuses, and without `..`."""
    names = [_invalid.sub("_", name) for name in path.split("/")]
    return "/".join(name for name in names if name.strip("."))
