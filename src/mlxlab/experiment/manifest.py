"""The run's card: `manifest.json` says what it is and how it went, `STATUS.<status>` beside it says so to a shell.

    {"id", "name", "status", "start", "end", "attempts": [...], "parents": [...], "git": {"commit", "dirty"},
     "versions", "config_hash", "overrides", "seed", "fold", "folds", "teachers": {name: hash}, "rounds_done",
     "outcome": {...}}

Times are seconds since 1970. A run killed with -9 stays RUNNING: its last attempt names host, pid and the start of that
process, by which `condition` tells that it is dead. Neither MLX nor the config is imported here.
"""

import json
import math
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import psutil

from mlxlab.errors import DataError, InputNotFoundError, RunInterrupted
from mlxlab.metric_names import TOKENS_PER_SEC, VALID

if TYPE_CHECKING:
    from mlxlab.training.state import MonitoredMetric, TrainState

FILE = "manifest.json"
Status = Literal["RUNNING", "DONE", "FAILED", "PREEMPTED"]
STATUSES: tuple[Status, ...] = ("RUNNING", "DONE", "FAILED", "PREEMPTED")
Facts = dict[str, Any]


class RunManifest:
    """Keeps the card of the run in a folder while `with` lasts: PREEMPTED by a signal, FAILED by any other error.

    An attempt that fails before `begin`, say because its flags were refused, leaves the status of the one before.

    Args:
        later: further facts that take their time, asked for in a thread of its own: the commit.
    """

    def __init__(self, folder: Path, later: Callable[[], Facts] = dict) -> None:
        self.folder, self._later = folder, later
        self._lock = threading.Lock()
        self._facts: Facts = {}
        self._before: Status | None = None
        self._thread: threading.Thread | None = None
        self._warned = False

    def __enter__(self) -> "RunManifest":
        old = _old(self.folder)
        now = time.time()
        process = psutil.Process()
        attempt = {"host": platform.node(), "pid": process.pid, "process_start": process.create_time(), "start": now}
        known = {"id": uuid.uuid4().hex, "name": self.folder.name, "start": now, "parents": [], "rounds_done": 0}
        self._before = old.get("status") if old.get("status") in ("DONE", "FAILED", "PREEMPTED") else None
        attempts = [*old.get("attempts", []), attempt | {"status": "RUNNING"}]
        self._facts = known | old | {"status": "RUNNING", "end": None, "attempts": attempts}
        self._write("RUNNING", durable=False)  # the thread's is
        self._thread = threading.Thread(target=self._add_later, name="manifest", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.end("DONE")
            return
        said, stopped = str(error) or type(error).__name__, isinstance(error, KeyboardInterrupt | RunInterrupted)
        self.end("PREEMPTED" if stopped else "FAILED", said, getattr(error, "exit_code", 130 if stopped else 1))

    def begin(self, **facts: Any) -> None:
        """Training is about to begin: from now on this attempt decides the status. Takes facts like `update`.

        May be called again: what it came to so far gives way.
        """
        self._before = None
        with self._lock:
            self._facts.pop("outcome", None)  # of the attempt before
        self.update(**facts)

    def update(self, **facts: Any) -> None:
        """Adds facts, or replaces those of the same name; None leaves what is there."""
        with self._lock:
            self._facts |= {name: fact for name, fact in facts.items() if fact is not None}
            self._write("RUNNING")

    def end(self, status: Status, error: str = "", exit_code: int = 0) -> None:
        """The last word of this attempt."""
        if self._thread is not None:
            self._thread.join(3.0)
        with self._lock:
            now, attempts = time.time(), self._facts["attempts"]
            attempts[-1] |= {"status": status, "end": now, "exit_code": exit_code}
            attempts[-1] |= {"error": error[:2000]} if error else {}
            wall = sum(one["end"] - one["start"] for one in attempts if "end" in one)
            outcome = self._facts.get("outcome", {}) | {"wall_seconds": wall, "exit_code": exit_code}
            kept = self._before if status != "DONE" else None
            shown = kept or status
            self._facts |= {"status": shown, "end": now} | ({} if kept else {"outcome": outcome})
            self._write(shown)

    def _add_later(self) -> None:
        self.update(**self._later())

    def _write(self, status: Status, durable: bool = True) -> None:
        """Both files, each replaced as a whole; at every moment there is a status. A full disk does not end the run."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _replace(self.folder / FILE, json.dumps(_finite(self._facts), indent=1, default=str) + "\n", durable)
            (self.folder / f"STATUS.{status}").touch()
            for other in STATUSES:
                if other != status:
                    (self.folder / f"STATUS.{other}").unlink(missing_ok=True)
        except OSError as error:
            if not self._warned:
                print(f"{self.folder / FILE}: not written: {error.strerror or error}", file=sys.stderr)
            self._warned = True


def read_manifest(folder: Path) -> Facts:
    """The manifest of a run folder.

    Raises:
        InputNotFoundError: there is none.
        DataError: it is not one.
    """
    path = folder / FILE
    try:
        facts = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise InputNotFoundError(f"{path}: not there; expected the folder of a run") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(facts, dict) or facts.get("status") not in STATUSES:
        raise DataError(f"{path}: no manifest of a run: it has no status among {', '.join(STATUSES)}")
    return facts


def effective_status(folder: Path) -> str:
    """The status in a run folder; DEAD for one that is RUNNING on this machine without its process."""
    facts = read_manifest(folder)
    last = (facts.get("attempts") or [{}])[-1]
    if facts["status"] != "RUNNING" or last.get("host") != platform.node():
        return facts["status"]
    try:
        lives = abs(psutil.Process(last["pid"]).create_time() - last["process_start"]) < 2.0
    except psutil.NoSuchProcess:
        lives = False
    return "RUNNING" if lives else "DEAD"


def lineage(config: Facts, resumed: Path | None = None, sweep: str = "") -> list[Facts]:
    """What a run goes back to, by its resolved config: a checkpoint elsewhere, weights, teachers, losses, a sweep."""
    from mlxlab.distillation.options import read_options

    distillation, data = read_options(config), config["data"]
    found = [("checkpoint", resumed), ("pretrained", config["model"].get("pretrained"))]
    found += [("teacher", name) for name in distillation.teachers]
    found += [("member", name) for name in distillation.members]
    found += [("selection", (data.get("select") or {}).get("source")), ("sweep", sweep)]
    return [{"kind": kind, "of": str(name)} for kind, name in found if name and name != "previous"]


def pairing_key(config: Facts) -> Facts:
    """What a run shares with those that it may be compared with pair by pair: seed and fold."""
    return {"seed": config["seed"], **{key: config["data"].get(key) for key in ("fold", "folds")}}


def run_outcome(state: "TrainState", monitor: "MonitoredMetric", final_state: str) -> Facts:
    """The results of a run, for its manifest: the best value, the last metrics, size and speed."""
    from mlxlab.models.model import count_parameters

    history = state.history
    valid = next((m for _, m in reversed(history.curve) if any(name.startswith(VALID) for name in m)), {})
    return {
        "objective": monitor.name,
        "best": history.best,
        "best_step": history.best_step,
        "parameters": count_parameters(state.model),
        "speed": history.latest().get(TOKENS_PER_SEC),
        "steps": state.progress.step,
        "tokens": state.progress.tokens,
        "final": {name: value for name, value in valid.items() if name.startswith(VALID)},
        "final_state": final_state,
    }


def _old(folder: Path) -> Facts:
    """The card of an earlier attempt in this folder; a broken one is as good as none."""
    try:
        return read_manifest(folder)
    except (InputNotFoundError, DataError):
        return {}


def _replace(path: Path, text: str, durable: bool) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
