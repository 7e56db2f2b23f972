"""Run folders as a stranger may write them, and what must stay as it is while commands use them."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash
import yaml

from support.object_stores.loopback import LoopbackHandler, LoopbackServer
from support.run_records import edit_run

Change = Callable[[dict[str, Any]], None]
VICTIM = "a file of the user\n"
UPLOADS = {"prefix": "x", "required": False, "keep": 3, "read_back": True, "wait": 5.0}


def setting(path: str, value: object) -> Change:
    """Sets a dotted key of a config."""

    def change(config: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            config = config.setdefault(name, {})
        config[last] = value

    return change


def csv(path: Path) -> dict[str, Any]:
    return {
        "_target_": "mlxlab.callbacks.csv_logger.CSVLogger",
        "path": str(path),
        "allow_outside": True,
    }


def directory(path: Path) -> dict[str, Any]:
    return {"_target_": "mlxlab.extensions.cloud.providers.directory", "path": str(path), **UPLOADS}


def s3(url: str) -> dict[str, Any]:
    node = {"_target_": "mlxlab.extensions.cloud.providers.s3", "bucket": "evil", "region": "x"}
    return node | UPLOADS | {"endpoint": url}


def journal(uri: str) -> dict[str, Any]:
    node = {"_target_": "mlxlab.tracking.journal.Journal", "experiment": "other"}
    return node | {"uri": uri, "wait": 2.0}


def change_states(folder: Path, change: Change) -> None:
    """Changes `state.json` of every checkpoint, with checksums that fit again."""
    for path in folder.glob("checkpoints/step-*/state.json"):
        state = json.loads(path.read_text())
        change(state)
        data = json.dumps(state).encode()
        path.write_bytes(data)
        manifest_path = path.with_name("manifest.json")
        manifest = json.loads(manifest_path.read_text())
        manifest["files"]["state.json"] = {
            "size": len(data),
            "xxh3_128": xxhash.xxh3_128_hexdigest(data),
        }
        fields = {key: value for key, value in manifest.items() if key != "checksum"}
        text = json.dumps(fields, sort_keys=True)
        manifest["checksum"] = xxhash.xxh3_128_hexdigest(text.encode())
        manifest_path.write_text(json.dumps(manifest))


def change_configs(folder: Path, *changes: Change) -> None:
    """Changes the config of a run folder in every file that holds it."""

    def change_state(state: dict[str, Any]) -> None:
        for change in changes:
            change(state["metadata"]["config"])

    change_states(folder, change_state)
    stored = folder / "inference" / "config.yaml"
    config = yaml.safe_load(stored.read_text())
    lock = json.loads((folder / "run.lock").read_text())
    for change in changes:
        change(config)
        change(lock["config"])
    stored.write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "run.lock").write_text(json.dumps(lock))
    edit_run(folder, lambda record: [change(record.config) for change in changes])


def replace_by_link(path: Path, target: Path) -> None:
    """Replaces a file or folder by a link to a copy of it, or to a new file."""
    if path.is_dir():
        shutil.copytree(path, target)
        shutil.rmtree(path)
    else:
        target.write_text(VICTIM)
        path.unlink(missing_ok=True)
    path.symlink_to(target)


@dataclass
class Surroundings:
    """A folder of the user with a file in it, and a server that no command may talk to."""

    folder: Path
    url: str
    requests: list[str] = field(default_factory=list)

    @property
    def victim(self) -> Path:
        return self.folder / "victim"

    def check(self) -> None:
        """Asserts that nothing reached them."""
        assert self.requests == []
        assert [path.name for path in self.folder.rglob("*")] == ["victim"]
        assert self.victim.read_text() == VICTIM


@contextmanager
def surroundings(folder: Path) -> Iterator[Surroundings]:
    """Writes down every request, with its credentials."""
    requests: list[str] = []

    class Handler(LoopbackHandler):
        def answer(self) -> None:
            credentials = self.headers.get("Authorization", "")
            requests.append(f"{self.command} {self.path} {credentials}")
            self.read_body()
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

    folder.mkdir()
    (folder / "victim").write_text(VICTIM)
    with closing(LoopbackServer(Handler)) as server:
        yield Surroundings(folder, server.url, requests)
