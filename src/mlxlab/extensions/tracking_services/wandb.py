"""Runs in Weights & Biases."""

import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from mlxlab.errors import ServiceUnavailableError
from mlxlab.extensions.tracking_services.service import Value, check_package, check_project, typed
from mlxlab.extensions.tracking_services.upload import UploadedService
from mlxlab.redact import redact
from mlxlab.tracking.copy_artifact import copy_artifact
from mlxlab.tracking.records import RunStart
from mlxlab.tracking.tracker import Status

if TYPE_CHECKING:
    import wandb

SERVER = "https://api.wandb.ai"
# The horizontal axis: W&B's own step refuses values of earlier steps, such as the best one.
STEP = "step"
EXIT_CODES: dict[Status, int] = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}
VARIABLES = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
INVALID = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class Wandb(UploadedService):
    """Weights & Biases; the key of the account is that of WANDB_API_KEY or `wandb login`.

    Args:
        project: of W&B, in which the run is recorded.
        entity: user or team; null takes WANDB_ENTITY, else the default of the account.
        mode: online sends runs to the server, offline writes them to `wandb` in the project folder
            for `wandb sync`; null takes WANDB_MODE, else online.
        log_models: whether the best checkpoint is uploaded.
    """

    project: str = "mlxlab"
    entity: str | None = None
    mode: Literal["online", "offline"] | None = None
    log_models: bool = False
    name = "wandb"

    @property
    def is_offline(self) -> bool:
        return (self.mode or os.environ.get("WANDB_MODE")) == "offline"

    def check(self) -> None:
        check_package(self.name)
        check_project("tracking.wandb.project", self.project)
        if self.entity is not None:
            check_project("tracking.wandb.entity", self.entity)
        if not self.is_offline and not _has_key():
            remedy = "WANDB_API_KEY, `wandb login` or tracking.wandb.mode=offline"
            raise ServiceUnavailableError(f"tracking=wandb: expected {remedy}")

    def open(self, project: Path, start: RunStart) -> "WandbRun":
        os.environ.update(VARIABLES | {"WANDB_DATA_DIR": str(project / "wandb" / "data")})
        import wandb

        (project / "wandb").mkdir(parents=True, exist_ok=True)
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
        place = "offline, in wandb/ of the project folder" if self.is_offline else server
        return f"W&B project {self.project} ({place})"


class WandbRun:
    """An open run of W&B."""

    def __init__(self, run: "wandb.Run", log_models: bool) -> None:
        self.run = run
        self.log_models = log_models

    def log(self, step: int, metrics: dict[str, float], t: int) -> None:
        self.run.log({**metrics, STEP: step, "_timestamp": t / 1000})

    def set_config(self, values: dict[str, Value]) -> None:
        self.run.config.update(values, allow_val_change=True)

    def log_artifact(self, folder: Path, path: str, to: str) -> None:
        target = Path(self.run.dir) / _safe(to)  # W&B uploads that folder when the run ends.
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
                add = model.add_dir if copy.is_dir() else model.add_file
                add(str(copy), name=_safe(name))
            self.run.log_artifact(model)

    def end(self, status: Status) -> None:
        self.run.finish(exit_code=EXIT_CODES[status])


def _has_key() -> bool:
    if "WANDB_API_KEY" in os.environ:
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", SERVER)).hostname or ""
    with suppress(OSError, NetrcParseError):  # There may be no such file.
        return netrc().authenticators(host) is not None
    return False


def _safe(path: str) -> str:
    """A relative path without characters that W&B refuses, and without `..`."""
    names = [INVALID.sub("_", name) for name in path.split("/")]
    return "/".join(name for name in names if name.strip("."))
