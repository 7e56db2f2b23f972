"""Frozen weights are stored once, verified when they are read, and found in a run folder that was moved."""

import shutil

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.store import CheckpointStore, load_named
from mlxlab.errors import CheckpointUnavailableError
from support.checkpoints import state_at

FROZEN = {
    "base.weight": mx.arange(12, dtype=mx.float32).reshape(3, 4).T,
    "codes": mx.arange(3, dtype=mx.uint32),
}


@pytest.fixture
def run(tmp_path):
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    for step in (1, 2):
        store.save(step, {"lora_a": mx.full((2,), step)}, {}, state_at(step), FROZEN)
    return tmp_path / "run"


def base_file(run):
    (file,) = (run / "base").iterdir()
    return file


def test_checkpoints_share_one_file_and_give_all_weights(run):
    checkpoint = load_named(str(run), run)
    assert checkpoint.state["base"] == base_file(run).stem
    np.testing.assert_array_equal(
        np.array(checkpoint.weights["base.weight"]), np.array(FROZEN["base.weight"])
    )
    assert checkpoint.weights.keys() == {"lora_a", "base.weight", "codes"}


def test_a_resumed_run_uses_the_file_of_the_first_session_and_mends_it(run):
    file = base_file(run)
    intact = file.read_bytes()
    file.write_bytes(b"damaged meanwhile")
    store = CheckpointStore(run / "checkpoints")
    store.save(3, {"lora_a": mx.zeros((2,))}, {}, state_at(3), FROZEN)
    assert base_file(run) == file
    assert file.read_bytes() == intact
    written = file.stat().st_mtime_ns
    store.save(4, {"lora_a": mx.zeros((2,))}, {}, state_at(4), FROZEN)
    assert file.stat().st_mtime_ns == written, "the same weights were written a second time"


def test_a_moved_run_folder_and_a_base_next_to_the_checkpoint_work(run, tmp_path):
    moved = run.rename(tmp_path / "moved")
    assert "base.weight" in load_named(f"{moved}/step-2", moved).weights
    artifacts = tmp_path / "artifacts"
    shutil.copytree(moved / "checkpoints" / "step-00000002", artifacts / "step-00000002")
    shutil.copytree(moved / "base", artifacts / "base")
    assert "base.weight" in load_named(str(artifacts / "step-00000002"), artifacts).weights


@pytest.mark.parametrize("damage", ["missing", "flipped", "truncated", "link"])
def test_a_missing_or_damaged_base_is_one_line_and_no_checkpoint_is_renamed(run, damage):
    file = base_file(run)
    data = bytearray(file.read_bytes())
    file.unlink()
    if damage == "flipped":
        data[-3] ^= 1
        file.write_bytes(data)
    elif damage == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "link":
        file.symlink_to("/dev/zero")
    reason = {"missing": "not found", "link": "cannot be opened"}.get(damage, "damaged")
    before = sorted((run / "checkpoints").iterdir())
    message = rf"base/\w+\.safetensors: {reason}"
    with pytest.raises(CheckpointUnavailableError, match=message) as error:
        CheckpointStore(run / "checkpoints").load()
    assert "\n" not in str(error.value)
    assert sorted((run / "checkpoints").iterdir()) == before


def test_a_forged_digest_names_no_other_file(run):
    store = CheckpointStore(run / "checkpoints")
    store.base.write = lambda arrays: "../../../secret"
    store.save(5, {}, {}, state_at(5))
    with pytest.raises(CheckpointUnavailableError, match="expected 32 hexadecimal digits"):
        store.load()


def test_frozen_weights_go_with_the_last_checkpoint_that_refers_to_them(run):
    store = CheckpointStore(run / "checkpoints", keep=2)
    other = {"base.weight": mx.zeros((4, 3))}
    store.save(3, {}, {}, state_at(3), other)
    assert len(list((run / "base").iterdir())) == 2
    aside = (run / "checkpoints" / "step-00000002").rename(
        run / "checkpoints" / "unusable-step-00000002"
    )
    for step in (4, 5):
        store.save(step, {}, {}, state_at(step), other)
    assert len(list((run / "base").iterdir())) == 2, "one that was set aside may be needed later"
    shutil.rmtree(aside)
    store.save(6, {}, {}, state_at(6), other)
    assert len(list((run / "base").iterdir())) == 1
    store.save(7, {}, {}, state_at(7), FROZEN)
    np.testing.assert_array_equal(np.array(store.load().weights["codes"]), [0, 1, 2])
    (run / "base" / ".tmp-4194304-killed.safetensors").write_bytes(b"half")
    for step in (8, 9):  # of a model whose adapters were merged
        store.save(step, {}, {}, state_at(step))
    assert list((run / "base").iterdir()) == []
