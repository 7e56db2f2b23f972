"""The manifest of a run folder, `manifest.json`: what the run is and how it ended. `STATUS.<status>` is for shells.

Times are seconds since 1970. A run killed with -9 stays RUNNING: its last attempt names host, pid and the start of that
process, by which `effective_status` detects that it is dead. Neither MLX nor the config is imported here.
"""

import math
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psutil

from mlxlab.errors import DataError, InputNotFoundError, RunInterrupted, UserError
from mlxlab.experiment.manifest_file import FILE, FORMAT, STATUSES, Manifest, Status, read_manifest
from mlxlab.files.atomic import write_json
from mlxlab.metric_names import TOKENS_PER_SEC, VALID

if TYPE_CHECKING:
    from mlxlab.training.state import MonitoredMetric, TrainState

Fields = dict[str, Any]


class RunManifest:
    """Maintains the manifest for the duration of a `with` block: PREEMPTED by a signal, FAILED by any other error.

    An attempt that fails before `begin`, say because its overrides were refused, leaves the status of the one before.

    Args:
        slow_fields: returns fields that take time to find, in a thread of its own: the git commit.
    """

    def __init__(self, folder: Path, slow_fields: Callable[[], Fields] = dict) -> None:
        self.folder, self._slow_fields = folder, slow_fields
        self._lock = threading.Lock()
        self._fields: Fields = {}
        self._earlier_status: Status | None = None
        self._thread: threading.Thread | None = None
        self._warned = False

    def __enter__(self) -> "RunManifest":
        earlier = self._read_earlier()
        now = time.time()
        process = psutil.Process()
        attempt = {"host": platform.node(), "pid": process.pid, "process_start": process.create_time(), "start": now}
        defaults = {"id": uuid.uuid4().hex, "name": self.folder.name, "start": now, "parents": [], "rounds_done": 0}
        self._earlier_status = earlier["status"] if earlier and earlier["status"] != "RUNNING" else None
        attempts = [*(earlier["attempts"] if earlier else []), attempt | {"status": "RUNNING"}]
        current = {"format": FORMAT, "status": "RUNNING", "end": None, "attempts": attempts}
        self._fields = defaults | dict(earlier or {}) | current
        self._write("RUNNING", durable=False)  # that of the thread is
        self._thread = threading.Thread(target=self._add_slow_fields, name="manifest", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.end("DONE")
            return
        interrupted = isinstance(error, KeyboardInterrupt | RunInterrupted)
        exit_code = error.exit_code if isinstance(error, UserError) else 130 if interrupted else 1
        self.end("PREEMPTED" if interrupted else "FAILED", str(error) or type(error).__name__, exit_code)

    def begin(self, **fields: Any) -> None:
        """Training begins: from now on this attempt decides the status. Takes fields like `update`.

        May be called again: the outcome of the attempt before is removed.
        """
        self._earlier_status = None
        with self._lock:
            self._fields.pop("outcome", None)
        self.update(**fields)

    def update(self, **fields: Any) -> None:
        """Adds or replaces fields; None leaves the present value."""
        with self._lock:
            self._fields |= {name: value for name, value in fields.items() if value is not None}
            self._write("RUNNING")

    def end(self, status: Status, error: str = "", exit_code: int = 0) -> None:
        """Ends this attempt."""
        if self._thread is not None:
            self._thread.join(3.0)
        with self._lock:
            now, attempts = time.time(), self._fields["attempts"]
            attempts[-1] |= {"status": status, "end": now, "exit_code": exit_code}
            attempts[-1] |= {"error": error[:2000]} if error else {}
            wall = sum(attempt["end"] - attempt["start"] for attempt in attempts if "end" in attempt)
            outcome = self._fields.get("outcome", {}) | {"wall_seconds": wall, "exit_code": exit_code}
            earlier = self._earlier_status if status != "DONE" else None
            self._fields |= {"status": earlier or status, "end": now} | ({} if earlier else {"outcome": outcome})
            self._write(earlier or status)

    def _read_earlier(self) -> Manifest | None:
        """The manifest of earlier attempts in this folder; a damaged one is replaced."""
        try:
            return read_manifest(self.folder)
        except InputNotFoundError:
            return None
        except DataError as error:
            print(f"{error}; replaced by a new one", file=sys.stderr)
            return None

    def _add_slow_fields(self) -> None:
        self.update(**self._slow_fields())

    def _write(self, status: Status, durable: bool = True) -> None:
        """Replaces both files; at every instant there is a status. A full disk does not end the run."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / FILE, without_nonfinite(self._fields), durable=durable)
            (self.folder / f"STATUS.{status}").touch()
            for other in STATUSES:
                if other != status:
                    (self.folder / f"STATUS.{other}").unlink(missing_ok=True)
        except OSError as error:
            if not self._warned:
                print(f"{self.folder / FILE}: not written: {error.strerror or error}", file=sys.stderr)
            self._warned = True


def lineage(config: Fields, resumed: Path | None = None, sweep: str = "") -> list[Fields]:
    """The sources of a run, by its resolved config: a checkpoint of another run, weights, teachers, losses, a sweep."""
    from mlxlab.distillation.options import read_options

    distillation, data = read_options(config), config["data"]
    sources = [("checkpoint", resumed), ("pretrained", config["model"].get("pretrained"))]
    sources += [("teacher", name) for name in distillation.teachers]
    sources += [("member", name) for name in distillation.members]
    sources += [("selection", (data.get("select") or {}).get("source")), ("sweep", sweep)]
    return [{"kind": kind, "of": str(name)} for kind, name in sources if name and name != "previous"]


def pairing_key(config: Fields) -> Fields:
    """Seed and fold: equal for runs that may be compared pair by pair."""
    return {"seed": config["seed"], **{key: config["data"].get(key) for key in ("fold", "folds")}}


def run_outcome(state: "TrainState", monitor: "MonitoredMetric", final_state: str) -> Fields:
    """The results of a run, for its manifest: the best value, the last metrics, size and speed."""
    from mlxlab.models.model import count_parameters

    history = state.history
    valid = next((m for _, m in reversed(history.curve) if any(name.startswith(VALID) for name in m)), {})
    return {
        "objective": monitor.name,
        "best": history.best,
        "best_step": history.best_step,
        "parameters": count_parameters(state.model),
        "speed": history.latest(TOKENS_PER_SEC),
        "steps": state.progress.step,
        "tokens": state.progress.tokens,
        "final": {name: value for name, value in valid.items() if name.startswith(VALID)},
        "final_state": final_state,
    }


def without_nonfinite(value: Any) -> Any:
    """A JSON value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
