"""Checkpoints: complete or absent, verified before use."""

import json
from unittest.mock import Mock

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.state import History
from mlxlab.checkpoint.store import CheckpointStore, check_arrays, load_named, resolve_resume
from mlxlab.errors import CheckpointUnavailableError, InputNotFoundError
from support.checkpoints import state_at


def save(store, step, **kwargs):
    weights = {"w": mx.arange(100) * step, "deep.b": mx.array([1.5])}
    return store.save(step, weights, {"states.0.step": mx.array(step)}, state_at(step), **kwargs)


def test_a_saved_checkpoint_is_loaded_unchanged(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 3)
    loaded = store.load()
    assert (loaded.step, loaded.state) == (3, state_at(3))
    np.testing.assert_array_equal(np.array(loaded.weights["w"]), np.arange(100) * 3)


def test_the_last_checkpoint_is_that_of_the_highest_step_not_the_latest_file(tmp_path):
    store = CheckpointStore(tmp_path, keep=9)
    for step in (10, 100, 9):
        save(store, step)
    assert store.load().step == 100


def test_retention_keeps_the_newest_and_the_best(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for step in range(1, 8):
        save(store, step, best_step=3 if step >= 3 else 0)
    assert [path.name for path in store.paths()] == [
        "step-00000007",
        "step-00000006",
        "step-00000003",
    ]


def test_another_format_is_refused_in_one_line_and_nothing_is_set_aside(tmp_path, monkeypatch):
    monkeypatch.setattr("mlxlab.checkpoint.manifest.FORMAT", 99)
    save(CheckpointStore(tmp_path), 1)
    monkeypatch.undo()
    with pytest.raises(
        CheckpointUnavailableError, match=r"^\S+: checkpoint of format 99, expected format 2$"
    ):
        CheckpointStore(tmp_path).load()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_an_emergency_checkpoint_is_kept_while_it_is_the_newest(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 4)
    save(store, 6, emergency=True)
    assert store.load().step == 6
    assert store.load("best").step == 6, "before the first evaluation"
    save(store, 8)
    assert [path.name for path in store.paths()] == ["step-00000008", "step-00000004"]


def test_a_failed_save_changes_nothing(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    monkeypatch.setattr("mlxlab.checkpoint.store.write_manifest", Mock(side_effect=OSError("full")))
    with pytest.raises(OSError, match="full"):
        save(store, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1).rename(tmp_path / ".tmp-00000001-1-ab")
    assert store.paths() == []
    store.clean()
    assert list(tmp_path.iterdir()) == []


def test_resume_auto_starts_a_new_run_only_in_a_folder_without_checkpoints(tmp_path):
    assert resolve_resume("auto", tmp_path) is None
    path = save(CheckpointStore(tmp_path / "checkpoints"), 5)
    assert resolve_resume("auto", tmp_path).step == 5
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"step": 6}))
    for _ in range(2):  # the second start must not take an empty folder for a fresh one
        with pytest.raises(CheckpointUnavailableError):
            resolve_resume("auto", tmp_path)


@pytest.mark.parametrize(
    ("name", "step"),
    [("last", 3), ("best", 1), ("step-2", 2), ("step-00000002", 2), ("emergency", 3)],
)
def test_one_function_resolves_every_name_of_a_checkpoint(tmp_path, name, step):
    store = CheckpointStore(tmp_path / "checkpoints", keep=9)
    save(store, 1, best_step=1)
    save(store, 2, best_step=1)
    save(store, 3, best_step=1, emergency=True)
    assert load_named(name, tmp_path).step == step
    assert load_named(str(tmp_path / name), tmp_path / "other").step == step
    assert load_named(str(tmp_path / "checkpoints" / name), tmp_path / "other").step == step
    assert resolve_resume(str(tmp_path), tmp_path / "other").step == 3
    with pytest.raises(CheckpointUnavailableError, match="no step-4"):
        load_named("step-4", tmp_path)
    with pytest.raises(InputNotFoundError):
        resolve_resume(str(tmp_path / "nowhere"), tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "manifest.json"])
@pytest.mark.parametrize("name", ["best", "last", "step-3"])
def test_a_damaged_checkpoint_is_refused_or_reported_alike_on_every_call_and_not_renamed(
    tmp_path, name, file
):
    store = CheckpointStore(tmp_path / "checkpoints", keep=9)
    save(store, 2, best_step=2)
    path = save(store, 3, best_step=3)
    (path / file).write_bytes(b"x")
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        if name == "last" or (name == "best" and file == "manifest.json"):
            loaded = load_named(name, tmp_path)
            assert (loaded.step, [line[:13] for line in loaded.skipped]) == (2, ["step-00000003"])
        else:
            with pytest.raises(CheckpointUnavailableError, match=r"\(step-00000003: "):
                load_named(name, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_newer_checkpoints_are_set_aside_before_another_branch_is_trained(tmp_path):
    store = CheckpointStore(tmp_path, keep=9)
    for step in (1, 2, 3):
        save(store, step)
    assert [path.name for path in store.set_aside_newer(1)] == ["step-00000003", "step-00000002"]
    assert store.load().step == 1
    assert len(list(tmp_path.glob("superseded-step-*"))) == 2


def test_checkpoints_of_an_earlier_run_are_set_aside_as_a_whole(tmp_path):
    for number in (1, 2):
        store = CheckpointStore(tmp_path / "checkpoints")
        assert store.set_aside_all() is None
        save(store, number)
        assert store.set_aside_all() == tmp_path / f"checkpoints-{number}"
    assert store.paths() == []


def arrays(**changes):
    fitting = {"a.weight": mx.ones((2, 3)), "b.bias": mx.zeros((4,))} | changes
    return {name: array for name, array in fitting.items() if array is not None}


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.weight", None),
        ("c", mx.ones(1)),
        ("a.weight", mx.ones((3, 2))),
        ("a.weight", mx.ones((2, 3), mx.int32)),
        ("b.bias", mx.zeros((4,), mx.bool_)),
        ("b.bias", mx.array([0, 0, float("nan"), 0])),
    ],
    ids=["missing", "extra", "shape", "integer", "bool", "nan"],
)
def test_the_first_array_that_does_not_fit_is_named(name, array):
    check_arrays(arrays(), arrays(), "model")
    with pytest.raises(CorruptCheckpointError, match=f"^model array {name}: "):
        check_arrays(arrays(**{name: array}), arrays(), "model")


def test_the_last_evaluation_of_a_step_counts_and_the_best_follows():
    history, at_step = History(), {}
    for step, loss in ((3, 0.5), (6, 0.4), (6, 0.6)):
        metrics = {"valid/loss": loss, "valid/accuracy": 1 - loss}
        history.add_metrics(step, {"train/loss": 0.1, **metrics})
        history.add_evaluation(step, metrics, "valid/loss")
        at_step[step] = metrics
    assert history.evaluations == [(3, 0.5), (6, 0.6)]
    assert (history.best, history.best_step, history.best_metrics) == (0.5, 3, at_step[3])


def test_without_another_evaluation_there_is_no_best():
    history = History()
    history.add_evaluation(3, {"valid/loss": 0.5}, "valid/loss")
    history.discard_evaluation(3, "valid/loss")
    assert history == History()
    history.add_evaluation(3, {"valid/loss": 0.6}, "valid/loss")
    assert (history.best, history.best_step, history.best_metrics) == (0.6, 3, {"valid/loss": 0.6})
