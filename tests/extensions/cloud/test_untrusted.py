"""What stands in an object store may be anyone's: it is refused with one line, and nothing is written outside."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlxlab.errors import UserError
from mlxlab.extensions.cloud.commits import MAX_MANIFEST, Commits
from mlxlab.extensions.cloud.object_store import DirectoryStore
from mlxlab.extensions.cloud.run_files import Snapshots

NAME = "step-00000002"
MODEL = "checkpoints/step-00000002/model.safetensors"
ELSEWHERE = r"../x a/../../x /tmp/x . a//b a/ ~/x c:\x a\..\x .ssh/keys run.json/below"
FILES = {"run.json": b"{}", MODEL: bytes(5000)}


@pytest.fixture
def commits(tmp_path: Path) -> Commits:
    """A store with one commit of FILES."""
    source = tmp_path / "source"
    snapshots, entries = Snapshots(), {}
    for path, data in FILES.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
        entries[path] = snapshots.take(source / path, held=False)
    Commits(DirectoryStore(tmp_path / "store"), "run").commit(NAME, entries)
    return Commits(DirectoryStore(tmp_path / "store"), "run")


def stored_model(tmp_path: Path) -> Path:
    return tmp_path / "store" / "run" / "files" / hashlib.sha256(FILES[MODEL]).hexdigest()


def rewrite(tmp_path: Path, change: Callable[[dict], object]) -> None:
    """Changes the manifest as one who knows the format would: its checksum is right."""
    path = tmp_path / "store" / "run" / f"{NAME}.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    fields = {key: value for key, value in manifest.items() if key != "checksum"}
    checksum = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(fields | {"checksum": checksum}))


def assert_refused(commits: Commits, tmp_path: Path, *words: str) -> None:
    target = tmp_path / "outside" / "run"
    with pytest.raises(UserError) as refusal:
        commits.fetch(NAME, target)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 600
    assert all(word in str(refusal.value) for word in words), refusal.value
    written = {path for path in (tmp_path / "outside").rglob("*") if path.is_file()}
    assert written <= {target / path for path in FILES}
    assert not [path for path in target.rglob("*") if path.name.startswith(".tmp-")]


@pytest.mark.parametrize(
    "path",
    [*ELSEWHERE.split(), "", "a\x00b", "a\nb", "x" * 300, "/".join("a" * 40), "\u202eevil"],
)
def test_a_manifest_that_names_files_elsewhere_is_refused(commits, tmp_path, path):
    entry = {"size": 10, "sha256": "0" * 64}
    rewrite(tmp_path, lambda manifest: manifest["files"].update({path: entry}))
    assert_refused(commits, tmp_path, "expected relative paths")


@pytest.mark.parametrize(
    "entry",
    [
        {"size": -1, "sha256": "0" * 64},
        {"size": 2**70, "sha256": "0" * 64},
        {"size": 10, "sha256": "../../secret"},
        {"size": 10, "sha256": "0" * 63 + "G"},
        {"size": True, "sha256": "0" * 64},
        {"size": 10},
        {"size": 10, "sha256": "0" * 64, "mode": 0o4755},
        None,
    ],
)
def test_a_manifest_with_impossible_entries_is_refused(commits, tmp_path, entry):
    rewrite(tmp_path, lambda manifest: manifest["files"].update({"other": entry}))
    assert_refused(commits, tmp_path, f"{NAME}.json")


@pytest.mark.parametrize("size", [0, 4999, 5001, 2**40])
def test_a_file_of_another_size_than_in_the_manifest_is_refused(commits, tmp_path, size):
    rewrite(tmp_path, lambda manifest: manifest["files"][MODEL].update(size=size))
    assert_refused(commits, tmp_path)


def test_more_bytes_than_the_disk_has_room_for_are_not_fetched(commits, tmp_path):
    huge = {f"part-{number}": {"size": 2**50, "sha256": f"{number:064x}"} for number in range(9)}
    rewrite(tmp_path, lambda manifest: manifest["files"].update(huge))
    assert_refused(commits, tmp_path, "are free")


def test_a_huge_manifest_is_not_read_into_memory(commits, tmp_path):
    with (tmp_path / "store" / "run" / f"{NAME}.json").open("r+b") as file:
        file.truncate(MAX_MANIFEST * 64)  # sparse
    assert_refused(commits, tmp_path, str(MAX_MANIFEST))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"\xff\xfe", b"{", b"[" * 100_000, b'{"files": {}, "files": {}}', b"NaN"]
)
def test_a_manifest_that_is_none_is_refused(commits, tmp_path, data):
    (tmp_path / "store" / "run" / f"{NAME}.json").write_bytes(data)
    assert_refused(commits, tmp_path, f"{NAME}.json")


def test_a_manifest_that_was_changed_or_renamed_is_refused(commits, tmp_path):
    path = tmp_path / "store" / "run" / f"{NAME}.json"
    path.with_stem("step-00000009").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"step-00000009.*checksum"):
        commits.read("step-00000009")
    path.write_text(path.read_text().replace("run.json", "run.jso"))
    assert_refused(commits, tmp_path, "checksum")


@pytest.mark.parametrize("damage", ["flip", "truncate", "append", "remove", "link", "pipe"])
def test_a_damaged_file_is_refused(commits, tmp_path, damage):
    path = stored_model(tmp_path)
    data = bytearray(path.read_bytes())
    path.unlink()
    match damage:
        case "flip":
            data[2500] ^= 1
            path.write_bytes(data)
        case "truncate":
            path.write_bytes(data[:-1])
        case "append":
            path.write_bytes(data + b"x")
        case "link":
            path.symlink_to("/etc/passwd")
        case "pipe":
            os.mkfifo(path)
    assert_refused(commits, tmp_path, path.name)
    assert not (tmp_path / "outside" / "run" / MODEL).exists()


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00" * 50])
def test_a_damaged_commit_does_not_keep_others_from_being_stored(commits, tmp_path, damage):
    (tmp_path / "store" / "run" / f"{NAME}.json").write_bytes(damage)
    path = tmp_path / "source" / "run.json"
    commits.commit("step-00000004", {"run.json": Snapshots().take(path, held=False)})
    commits.retain(["step-00000004"])
    commits.fetch("step-00000004", tmp_path / "fetched")
    assert (tmp_path / "fetched" / "run.json").read_bytes() == b"{}"


def test_a_damaged_file_is_replaced_by_the_next_upload_that_needs_it(commits, tmp_path):
    (tmp_path / "store" / "run" / f"{NAME}.json").unlink()
    stored_model(tmp_path).write_bytes(b"\x01" * 5000)
    path = tmp_path / "source" / MODEL
    commits.commit("step-00000004", {"model.safetensors": Snapshots().take(path, held=False)})
    commits.fetch("step-00000004", tmp_path / "fetched")
    assert (tmp_path / "fetched" / "model.safetensors").read_bytes() == bytes(5000)
