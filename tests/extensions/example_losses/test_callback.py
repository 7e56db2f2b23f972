"""Losses by example: what is written, when it is lost, and that a resumed run writes the same."""

import errno
import os
import threading
import time

import mlx.core as mx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.extensions.example_losses import files as example_losses
from mlxlab.extensions.example_losses.callback import ExampleLossLogger
from mlxlab.training.checkpointer import Checkpointer, final_state_digest
from mlxlab.training.losses.loss import CrossEntropyLoss, Loss, LossTerms
from mlxlab.training.state import NO_STEP
from support import processes
from support.models import RandomBatches, Recorder, StopAt, fit, make_model, make_run, make_trainer
from support.processes import tiny_overrides


def train(folder, *callbacks, resume=False, every_steps=1, **changes):
    run = make_run(make_model(dropout=0.3), RandomBatches(rows=22), tracker=Recorder())
    folder.mkdir(exist_ok=True)
    checkpoint = CheckpointStore(folder / "checkpoints").load() if resume else None
    losses = ExampleLossLogger(every_steps, 1024, folder=folder)
    saving = Checkpointer(every_steps=4, keep=2, background=False, folder=folder)
    return fit(make_trainer(**changes), run, [losses, *callbacks], saving, checkpoint, seed=4)


def all_rows(folder):
    """Every row ever written, by step and id, without the times."""
    paths = example_losses.streams(folder / "example_losses")
    tables = [pa.ipc.open_stream(path).read_all() for path in paths]
    table = pa.concat_tables(tables, promote_options="default")
    rows = {name: table[name].to_numpy() for name in table.column_names}
    order = np.lexsort((rows["id"], rows["step"]))
    return {name: column[order] for name, column in rows.items() if name != "time"}


class LossWithTerms(Loss):
    def __call__(self, model, batch):
        values = CrossEntropyLoss(0.0)(model, batch).total
        zero = 0 * values
        terms = {"cross_entropy": values, "kl": zero + 2, "hidden": zero + 3}
        return LossTerms(0.5 * values, terms)


def test_each_example_of_each_step_has_a_row_with_its_loss(tmp_path):
    run = train(tmp_path, epochs=1, loss=LossWithTerms())
    rows = example_losses.read(tmp_path)
    assert rows["id"].tolist() == list(range(22))
    assert set(rows["step"].tolist()) == set(range(1, 7))
    np.testing.assert_array_equal(rows["mean"], rows["cross_entropy"] / 2)
    assert (rows["kl"] == 2).all()
    assert (rows["hidden"] == 3).all()
    assert (rows["targets"] == 1).all()
    assert abs(rows["time"] - time.time()).max() < 60
    sums = [rows["sum"][rows["step"] == step].sum() for step in range(1, 7)]
    logged = [line["train/loss"] for _, line in run.context.tracker.lines if "train/loss" in line]
    np.testing.assert_allclose(sum(sums[:4]) / 16, logged[0], rtol=1e-6)


def test_the_mean_is_per_target_and_rows_without_targets_are_omitted(tmp_path):
    run, losses = started(tmp_path)
    run.state.progress.step = 3
    per_example = {
        "loss": mx.array([6.0, 0.0, 5.0]),
        "weight": mx.array([3.0, 0.0, 10.0]),
        "kl": mx.array([9.0, 0.0, 1.0]),
    }
    result = NO_STEP._replace(batch=RandomBatches().batch(np.arange(3)), per_example=per_example)
    losses.on_step(run.context, run.state, result)
    losses.on_end(run.context, run.state)
    rows = example_losses.read(tmp_path)
    names = ("id", "step", "targets", "sum", "mean", "kl")
    assert [rows[name][0] for name in names] == [0, 3, 3, 6, 2, 3]
    assert [rows[name][1] for name in names] == [2, 3, 10, 5, 0.5, np.float32(0.1)]
    assert {len(rows[name]) for name in names} == {2}
    assert np.isnan(rows["cross_entropy"]).all()


@pytest.mark.parametrize("step", [4, 7])
def test_a_resumed_run_has_the_rows_of_the_uninterrupted_one(tmp_path, step):
    train(tmp_path / "uninterrupted")
    killed = tmp_path / "killed"
    train(killed, StopAt(step))
    later = example_losses.read(killed)
    [first, *_] = streams = example_losses.streams(killed / "example_losses")
    writer = example_losses.StreamWriter(killed / "example_losses")
    later["step"] = later["step"] * 0 + step + 1  # after the checkpoint, as a kill leaves it
    writer.append(later)
    writer.close()
    assert len(example_losses.streams(killed / "example_losses")) == len(streams) + 1
    with first.open("ab") as file:
        file.write(first.read_bytes()[-100:])  # a torn batch
    train(killed, resume=True)
    expected, got = all_rows(tmp_path / "uninterrupted"), all_rows(killed)
    for name, column in expected.items():
        np.testing.assert_array_equal(got[name], column)


def test_training_is_the_same_with_and_without_logging(tmp_path):
    logged, other = train(tmp_path / "a"), train(tmp_path / "b", every_steps=None)
    assert final_state_digest(logged.state) == final_state_digest(other.state)
    assert not (tmp_path / "b" / "example_losses").exists()


def test_a_slow_disk_does_not_block_training_and_dropped_rows_are_reported(
    tmp_path, monkeypatch, caplog
):
    go = threading.Event()
    write = os.write
    monkeypatch.setattr(os, "write", lambda *args: go.wait(30) and write(*args))
    run, losses = started(tmp_path, queue_size=2)
    start = time.monotonic()
    step_by_hand(run, losses, 10)
    assert time.monotonic() - start < 5
    go.set()
    losses.on_end(run.context, run.state)
    written = len(example_losses.read(tmp_path)["id"])
    assert written in (8, 12)  # two batches in the queue, and one that the thread is writing
    assert run.context.tracker.lines[-1][1] == {"example_losses/dropped_rows": 40 - written}
    assert f"{40 - written} rows dropped" in caplog.text


def test_a_full_disk_drops_rows_with_a_warning_and_keeps_earlier_rows(
    tmp_path, monkeypatch, caplog
):
    write, calls = os.write, []

    def full(file, data):
        calls.append(1)
        if 3 <= len(calls) <= 4:  # two batches, then two that fit in part
            write(file, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    run, losses = started(tmp_path)
    step_by_hand(run, losses, 6)
    losses.on_end(run.context, run.state)
    rows = example_losses.read(tmp_path)
    assert sorted(set(rows["step"].tolist())) == [1, 2, 5, 6]
    assert (rows["mean"] == rows["step"]).all()
    err = caplog.text
    assert err.count("No space left") == 2  # when it happens, and at the end
    assert "8 rows dropped" in err


def started(folder, queue_size=64):
    """A run before its first step, and its logger."""
    run = make_run(tracker=Recorder())
    losses = ExampleLossLogger(1, queue_size, folder=folder)
    losses.on_start(run.context, run.state)
    return run, losses


def step_by_hand(run, losses, steps):
    for _ in range(steps):
        run.state.progress.step += 1
        step = run.state.progress.step
        batch = RandomBatches(rows=44).batch(np.arange(4) + 4 * (step - 1))
        per_example = {"loss": mx.full((4,), float(step)), "weight": mx.ones((4,))}
        result = NO_STEP._replace(batch=batch, per_example=per_example)
        losses.on_step(run.context, run.state, result)


@pytest.mark.fault_injection
def test_a_run_killed_by_sigkill_and_resumed_has_every_row_of_both_files_once(tmp_path):
    files = ["callbacks.example_losses.every_steps=1", "callbacks.csv.path=metrics.csv"]
    tiny = tiny_overrides("trainer.max_steps=60", "checkpointing.every_steps=5")
    arguments = [*tiny, *files, "trainer.log_every=3", "resume=auto"]
    assert processes.run(*arguments, f"hydra.run.dir={tmp_path}/uninterrupted").returncode == 0
    for step in (10, 35, 50):
        process = processes.start(*arguments, f"hydra.run.dir={tmp_path}/killed")
        processes.wait_for(tmp_path / "killed" / "checkpoints" / f"step-{step:08d}", process)
        process.kill()
        process.communicate()
    assert processes.run(*arguments, f"hydra.run.dir={tmp_path}/killed").returncode == 0
    expected, killed = all_rows(tmp_path / "uninterrupted"), all_rows(tmp_path / "killed")
    for name, column in expected.items():
        np.testing.assert_array_equal(killed[name], column)
    names = ("uninterrupted", "killed")
    tables = [pd.read_csv(tmp_path / name / "metrics.csv").set_index("step") for name in names]
    same = ["epoch", "valid/loss", "valid/accuracy", "train/loss", "train/grad_norm"]
    pd.testing.assert_frame_equal(tables[0][same], tables[1][same], check_exact=True)
    pd.testing.assert_frame_equal(tables[0].notna(), tables[1].notna())
