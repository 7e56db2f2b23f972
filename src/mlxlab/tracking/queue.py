"""The queue of a destination: a folder with the runs that are not (known to be) complete there.

<uid>.json   an entry: a run folder
lock         held (`flock`) by the process that uploads
handover     held by a process that asks the one in the background to end
faults.json  why entries, by their uid, or the store, by "", cannot be used
upload.log   output of the processes that upload
"""

import json
import os
import pkgutil
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict
from urllib.parse import unquote_to_bytes

from mlxlab.backend.detached import start_detached
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.atomic import lock, write_json
from mlxlab.files.untrusted import read_json
from mlxlab.tracking.destination import Destination, Entry
from mlxlab.tracking.records import is_uid

MODULE = "mlxlab.tracking.upload"  # the process that uploads
VARIABLE = "MLXLAB_QUEUE"  # environment of that process
FAULTS = "faults.json"
LOCK = "lock"
HANDOVER = "handover"
LOG = "upload.log"


class EntryFile(TypedDict):
    folder: str  # a URI: its name may not be UTF-8
    run_id: str | None


class Queue:
    """The runs of a project that wait to be uploaded to a destination."""

    def __init__(self, destination: Destination, project: Path) -> None:
        self.destination = destination
        self.project = project.absolute()
        self.folder = destination.queue_folder(self.project)

    def add(self, entry: Entry) -> None:
        """Queues a run for upload, now or when a process uploads next. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"folder": entry.folder.absolute().as_uri(), "run_id": entry.run_id}
        write_json(self.folder / f"{entry.uid}.json", content)

    def entries(self) -> list[Entry]:
        """Oldest first."""
        found: list[tuple[float, Entry]] = []
        for path in self.folder.glob("*.json"):
            with suppress(InputNotFoundError, DataError, OSError):  # removed meanwhile, or not ours
                if is_uid(path.stem):
                    found.append((path.stat().st_mtime, _read_entry(path)))
        return [entry for _, entry in sorted(found)]

    def find(self, uid: str) -> Entry | None:
        with suppress(InputNotFoundError, DataError):
            return _read_entry(self.folder / f"{uid}.json")
        return None

    def remove(self, uid: str) -> None:
        (self.folder / f"{uid}.json").unlink(missing_ok=True)

    def faults(self) -> dict[str, str]:
        """uid, or "" for the store -> why the last attempt to upload failed."""
        with suppress(InputNotFoundError, DataError):
            return read_json(self.folder / FAULTS, dict[str, str])
        return {}

    def set_faults(self, faults: dict[str, str]) -> None:
        if faults != self.faults():
            write_json(self.folder / FAULTS, dict(faults))

    def is_locked(self, name: str) -> bool:
        with lock(self.folder / name) as is_free:
            return not is_free

    def wait(self, uid: str, seconds: float) -> str:
        """Waits until a run is complete; returns what is wrong if it is not, else ""."""
        until = time.monotonic() + seconds
        while (self.folder / f"{uid}.json").exists():
            faults = self.faults()
            fault = faults.get(uid) or faults.get("")
            if fault:
                return fault
            if time.monotonic() > until:
                return "the upload is running"
            time.sleep(0.02)
        return ""


def _read_entry(path: Path) -> Entry:
    content = read_json(path, EntryFile)
    folder = unquote_to_bytes(content["folder"].removeprefix("file://"))
    return Entry(path.stem, Path(os.fsdecode(folder)), content["run_id"])


def start_uploading(queue: Queue) -> bool:
    """Starts the process that uploads unless it runs. Detached: it outlives this process and gets none of its signals.

    Raises OSError.
    """
    if queue.is_locked(LOCK):
        return False
    queue.set_faults({})
    start_detached(MODULE, {VARIABLE: dump(queue)}, queue.folder / LOG)
    return True


def dump(queue: Queue) -> str:
    """A queue as text for another process."""
    kind = type(queue.destination)
    content = {
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "options": asdict(queue.destination),  # type: ignore[call-overload]  # it is a dataclass
        "project": str(queue.project),
    }
    return json.dumps(content)


def load(text: str) -> Queue:
    """The inverse of `dump`."""
    content = json.loads(text)
    destination = pkgutil.resolve_name(content["class"])(**content["options"])
    return Queue(destination, Path(content["project"]))
