"""The file `manifest.json` of a run folder: its fields, read as untrusted data."""

import platform
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import psutil

from mlxlab.constraints import Ge, Le, MinLen
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import read_json

FILE = "manifest.json"
FORMAT = 2
Status = Literal["RUNNING", "DONE", "FAILED", "PREEMPTED"]
STATUSES: tuple[Status, ...] = ("RUNNING", "DONE", "FAILED", "PREEMPTED")


class Attempt(TypedDict):
    """One process that worked on the run."""

    host: str
    pid: Annotated[int, Ge(1), Le(2**31 - 1)]
    process_start: float
    start: float
    status: Status
    end: NotRequired[float]
    exit_code: NotRequired[int]
    error: NotRequired[str]


class Parent(TypedDict):
    """The origin of a run: `kind` is checkpoint, pretrained, teacher, member, selection or sweep."""

    kind: str
    of: str


class Outcome(TypedDict, total=False):
    """The results of a run; null is not finite. `final` are the metrics of the last evaluation."""

    objective: str
    best: float | None
    best_step: int
    parameters: float
    speed: float | None
    steps: int
    tokens: int
    final: dict[str, float | None]
    final_state: str
    wall_seconds: float
    exit_code: int


class Manifest(TypedDict):
    """`manifest.json`. What is not required is known only once training begins."""

    format: Literal[2]
    id: str
    name: str
    status: Status
    start: float
    end: float | None
    attempts: Annotated[list[Attempt], MinLen(1)]
    parents: list[Parent]
    rounds_done: int
    git: NotRequired[dict[str, str | None]]
    versions: NotRequired[dict[str, str]]
    config_hash: NotRequired[str]
    overrides: NotRequired[list[str]]
    seed: NotRequired[int]
    fold: NotRequired[int | None]
    folds: NotRequired[int | None]
    data: NotRequired[str]
    tokenizer: NotRequired[str]
    teachers: NotRequired[dict[str, str]]
    outcome: NotRequired[Outcome]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder.

    Raises:
        InputNotFoundError: there is none.
        DataError: it is damaged, or was written in another format.
    """
    path = folder / FILE
    try:
        fields = read_json(path, dict[str, Any])
        if fields.get("format") != FORMAT:
            raise DataError(f"{path}: run folder of format {fields.get('format', 1)}, expected format {FORMAT}")
        return read_json(path, Manifest)
    except InputNotFoundError:
        raise InputNotFoundError(f"{path}: not found; expected a run folder") from None


def remove_unused(folder: Path) -> None:
    """Removes a run folder whose only run was refused before training; one that holds anything else stays."""
    names = {".hydra", ".lock", FILE, "inference", *(f"STATUS.{status}" for status in STATUSES)}
    with suppress(OSError, InputNotFoundError, DataError):
        begun = "overrides" in read_manifest(folder)  # recorded by `begin`
        if not begun and {path.name for path in folder.iterdir()} <= names:
            shutil.rmtree(folder)


def effective_status(folder: Path) -> str:
    """The status in a run folder; DEAD for one that is RUNNING on this machine without its process."""
    manifest = read_manifest(folder)
    last = manifest["attempts"][-1]
    if manifest["status"] != "RUNNING" or last["host"] != platform.node():
        return manifest["status"]
    try:
        is_alive = abs(psutil.Process(last["pid"]).create_time() - last["process_start"]) < 2.0
    except psutil.NoSuchProcess:
        is_alive = False
    return "RUNNING" if is_alive else "DEAD"
