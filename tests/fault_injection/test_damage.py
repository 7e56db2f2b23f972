"""Damaged checkpoints: each is seen before anything of it is used, set aside, and the one before is taken."""

import json
import os
import pickle
import random
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
import xxhash

from mlxlab.checkpoint.manifest import MANIFEST, CorruptCheckpointError
from mlxlab.checkpoint.store import CheckpointStore, load_checkpoint, resolve_resume
from mlxlab.errors import CheckpointUnavailableError
from support.checkpoints import state_at
from support.fault_injection.harness import (
    MODELS,
    committed,
    reference,
    rng_for,
    settings,
)
from support.processes import run_here

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", MANIFEST)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run folder with checkpoints of the steps 2 and 4."""
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    for step in (2, 4):
        arrays = {"w": mx.arange(3000) * step, "deep.b": mx.array([1.5])}
        store.save(step, arrays, {"states.0.step": mx.array(step)}, state_at(step))
    return tmp_path / "run"


@pytest.fixture
def newest(folder) -> Path:
    return folder / "checkpoints" / "step-00000004"


def assert_falls_back(folder: Path) -> str:
    """The reason why the newest was not taken."""
    loaded = resolve_resume("auto", folder)
    assert loaded is not None
    assert loaded.step == 2
    assert len(loaded.skipped) == 1
    assert loaded.skipped[0].startswith("step-00000004: ")
    assert "\n" not in loaded.skipped[0]
    assert list((folder / "checkpoints").glob("unusable-step-00000004-*")), "set aside, not deleted"
    return loaded.skipped[0]


def offset_of(rng: random.Random, data: bytes) -> int:
    """A place in a file: half of the time in its first 4,096 bytes, where the headers are."""
    return rng.randrange(min(4096, len(data)) if rng.random() < 0.5 else len(data))


@pytest.mark.parametrize("flips", [120, pytest.param(2000, marks=pytest.mark.fault_injection)])
def test_every_flipped_bit_is_detected_before_use(folder, newest, flips):
    rng = rng_for("flips")
    for number in range(flips):
        path = newest / FILES[number % len(FILES)]
        expected = path.read_bytes()
        at = offset_of(rng, expected)
        data = bytearray(expected)
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        assert_falls_back(folder)
        aside = next((folder / "checkpoints").glob("unusable-*"))
        aside.rename(newest)
        path.write_bytes(expected)
    assert resolve_resume("auto", folder).step == 4, "the mended one is taken again"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("length", [-40, -3, 1, 9])
def test_every_truncated_or_extended_file_is_detected_before_use(folder, newest, name, length):
    data = (newest / name).read_bytes()
    (newest / name).write_bytes(data[:length] if length < 0 else data + bytes(length))
    assert_falls_back(folder)


HARM = ["missing", "of another step", "foreign", "empty", "link", "dangling link", "folder", "fifo"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", HARM)
def test_missing_swapped_and_foreign_files_are_detected_before_use(folder, newest, harm, name):
    path = newest / name
    path.rename(folder / name)
    match harm:
        case "of another step":
            shutil.copy(newest.with_name("step-00000002") / name, path)
        case "foreign":
            path.write_bytes(b"PK\x03\x04 something else altogether")
        case "empty":
            path.write_bytes(b"")
        case "link":
            path.symlink_to(folder / name)
        case "dangling link":
            path.symlink_to(newest / "nowhere")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
    assert_falls_back(folder)


def test_a_checkpoint_that_is_a_link_is_not_followed(folder, newest):
    newest.rename(folder / "elsewhere")
    newest.symlink_to(folder / "elsewhere")
    assert resolve_resume("auto", folder).step in (2, 4)
    assert (folder / "elsewhere" / MANIFEST).exists()


def test_files_that_the_manifest_does_not_name_are_never_read(folder, newest):
    (newest / "extra.pkl").write_bytes(pickle.dumps(Bomb()))
    (newest / "sitecustomize.py").write_text("raise SystemExit(99)")
    assert resolve_resume("auto", folder).step == 4
    assert not Bomb.went_off


class Bomb:
    """Goes off when it is unpickled."""

    went_off = False

    def __reduce__(self):
        return (setattr, (Bomb, "went_off", True))


def signed(manifest: dict) -> str:
    """A manifest whose own checksum is right: what somebody writes who means harm."""
    manifest = {key: value for key, value in manifest.items() if key != "checksum"}
    own = xxhash.xxh3_128_hexdigest(json.dumps(manifest, sort_keys=True).encode())
    return json.dumps(manifest | {"checksum": own})


def entry(data: bytes) -> dict:
    return {"size": len(data), "xxh3_128": xxhash.xxh3_128_hexdigest(data)}


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a file of a checkpoint, with a right checksum in its manifest."""
    path.write_bytes(data)
    manifest = json.loads((path.parent / MANIFEST).read_text())
    manifest["files"][path.name] = entry(data)
    (path.parent / MANIFEST).write_text(signed(manifest))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/hostname", "a/../../x", "..", ".", "", "\0", "x" * 300, "model\n"]
)
def test_hostile_names_in_a_signed_manifest_are_refused(folder, newest, name):
    (newest.parent / "x").write_bytes(b"x")
    manifest = json.loads((newest / MANIFEST).read_text())
    manifest["files"][name] = entry(b"x")
    (newest / MANIFEST).write_text(signed(manifest))
    assert_falls_back(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"files": None},
        {"files": []},
        {"files": {}},
        {"files": {"model.safetensors": None}},
        {"files": {"model.safetensors": {"size": 1}}},
        {"format": None},
        {"format": "1"},
        {"step": None},
        {"step": "four"},
        {"step": 5},
        {"step": 2},
        {"step": True},
        {"files": {"model.safetensors": {"size": 1, "xxh3_128": "0"}}},
    ],
    ids=str,
)
def test_malformed_signed_manifests_are_refused(folder, newest, change):
    (newest / MANIFEST).write_text(signed(json.loads((newest / MANIFEST).read_text()) | change))
    assert_falls_back(folder)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "3", "{", '{"checksum": 1}', "NaN", "[" * 100000, "\ufeff{}", "\xff"]
)
def test_an_invalid_manifest_is_refused(folder, newest, text):
    (newest / MANIFEST).write_bytes(text.encode("latin-1", "ignore"))
    assert_falls_back(folder)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Bomb()),
        b"",
        b"\xff" * 8,
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"null",
        (100000).to_bytes(8, "little") + b"[" * 100000,
    ],
    ids=["pickle", "empty", "all_ones", "huge_header", "no_tensors", "null", "deep"],
)
def test_an_invalid_safetensors_file_is_refused_even_with_a_valid_checksum(folder, newest, data):
    replace_file(newest / "model.safetensors", data)
    if data[8:] == b"{}" and len(data) == 10 and data[0] == 2:
        assert load_checkpoint(newest).weights == {}  # sound, but empty: the model refuses it
        return
    assert_falls_back(folder)
    assert not Bomb.went_off


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "{}", "[" * 100000, '{"step": NaN'])
def test_an_invalid_state_is_refused_even_with_a_valid_checksum(folder, newest, text):
    replace_file(newest / "state.json", text.encode())
    assert_falls_back(folder)


MISSING = "(missing)"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata",), MISSING),
        (("metadata", "config"), MISSING),
        (("metadata", "config"), []),
        (("metadata", "tokenizer"), None),
        (("metadata", "choices"), {"model": 1}),
        (("metadata", "extra"), "x"),
        (("progress",), []),
        (("progress", "step"), 3),
        (("progress", "step"), "4"),
        (("progress", "samples"), -1),
        (("progress", "batch_sizes"), [[1, 0]]),
        (("history", "curve"), [[1, {"train/loss": "low"}]]),
        (("history", "evaluations"), [[1]]),
        (("history", "best"), "good"),
        (("running", "loss"), None),
        (("running", "terms"), MISSING),
        (("data",), None),
        (("extra",), 1),
    ],
    ids=str,
)
def test_a_state_of_another_shape_is_refused_even_with_a_valid_checksum(
    folder, newest, path, value
):
    state = json.loads((newest / "state.json").read_text())
    *parents, key = path
    owner = state
    for name in parents:
        owner = owner[name]
    if value == MISSING:
        del owner[key]
    else:
        owner[key] = value
    replace_file(newest / "state.json", json.dumps(state).encode())
    assert_falls_back(folder)


FOREIGN = """step-4 step-0000000x step-00000009.tmp STEP-00000009 step--0000009 best last .tmp-9
step-00000009"""


@pytest.mark.parametrize("name", FOREIGN.split())
def test_foreign_files_in_the_checkpoint_folder_are_left_alone(folder, newest, name):
    path = newest.with_name(name)
    path.write_text("x")
    assert resolve_resume("auto", folder).step == 4
    if name != "step-00000009":
        path.unlink()
        path.mkdir()
        assert resolve_resume("auto", folder).step == 4
        assert path.is_dir()


def test_if_all_checkpoints_are_damaged_none_is_used_and_each_is_named(folder):
    for path in committed(folder):
        (path / "model.safetensors").write_bytes(b"x")
    named = r"step-00000004: .*step-00000002: "
    with pytest.raises(CheckpointUnavailableError, match=named) as caught:
        resolve_resume("auto", folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointUnavailableError):  # and not a fresh start the second time
        resolve_resume("auto", folder)


def test_a_checkpoint_named_by_its_path_is_verified(newest):
    (newest / "state.json").write_text("{}")
    with pytest.raises(CorruptCheckpointError, match=r"state\.json"):
        load_checkpoint(newest)


@pytest.mark.parametrize("count", [1, pytest.param(12, marks=pytest.mark.fault_injection)])
def test_a_run_with_a_damaged_checkpoint_resumes_from_the_previous_one(
    shared_server, tmp_path, count
):
    """The whole way through `train`: one line that names it, the same end, no traceback."""
    rng = rng_for("damaged runs")
    for number in range(count):
        argv = settings(list(MODELS)[number % 3], "trainer.max_steps=8")
        expected = reference(shared_server, argv, tmp_path / f"{number}-reference")
        here = [*argv, f"hydra.run.dir={tmp_path}/{number}"]
        shared_server.run(here, kill={"save": 4, "call": 2})
        path = committed(tmp_path / str(number))[-1] / FILES[number % len(FILES)]
        data = bytearray(path.read_bytes())
        data[offset_of(rng, data)] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        resumed = shared_server.run(here)
        assert resumed.err.count(f"skipped {path.parent.name}: ") == 1, resumed.err
        assert "Traceback" not in resumed.err
        assert resumed.final_state() == expected.final_state


def test_a_run_without_a_good_checkpoint_exits_with_76(tmp_path):
    argv = settings("bert", "trainer.max_steps=4", f"hydra.run.dir={tmp_path}/run")
    assert run_here(*argv).returncode == 0
    for path in committed(tmp_path / "run"):
        (path / "state.json").unlink()
    for _ in range(2):
        done = run_here(*argv)
        assert done.returncode == 76
        assert "Traceback" not in done.stderr
        assert done.stderr.count("no usable checkpoint") == 1
